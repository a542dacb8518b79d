#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Builds, tests and measures everything on this machine's GPU, and writes one report: gpu_check.sh [--out FOLDER] [--emulated].
# FOLDER (default: runs/gpu_check) gets report.md and each step's log. Exit code: 0 all passed, 1 a step failed, 4 no GPU.
# --emulated: the same steps, with small models, on the emulated GPU of the tests: to try the script itself.
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

out=runs/gpu_check
emulated=false
while (($# > 0)); do
  case "$1" in
    --out)
      (($# > 1)) || fail "--out needs a folder"
      out=$2
      shift
      ;;
    --emulated) emulated=true ;;
    -h | --help)
      say "usage: gpu_check.sh [--out FOLDER] [--emulated]: builds, tests and measures bitnet on this machine's GPU"
      exit 0
      ;;
    *) fail "unknown argument '$1'; usage: gpu_check.sh [--out FOLDER] [--emulated]" ;;
  esac
  shift
done

build=build/release
no_gpu() {
  say "gpu_check.sh: no GPU to check: $*"
  exit 4
}
# Without a driver the rest could only fail, after minutes of building. (/dev/dxg: under Windows.)
$emulated || [[ -e /proc/driver/nvidia/version || -e /dev/nvidiactl || -e /dev/dxg ]] ||
  no_gpu "there is no NVIDIA driver on this machine"

if $emulated; then
  bitnet=$build/tests/cuda_emulator/bitnet_with_emulator
else
  bitnet=$build/bitnet
fi
mkdir -p "$out"
report=$out/report.md
summary=()
failures=0
write() { printf '%s\n' "$@" >>"$report"; }
write_output() { # FILE: as a block of code
  write '' '```'
  cat "$1" >>"$report"
  write '```'
}

# Runs a command as one step of the report; its output goes to $out/NAME.log.
step() { # NAME TITLE COMMAND...
  local name=$1 title=$2 log=$out/$1.log start=$SECONDS status=0 result=PASS
  shift 2
  say "" "== $title =="
  run "$@" >"$log" 2>&1 || status=$?
  if ((status != 0)); then
    result=FAIL
    failures=$((failures + 1))
    tail -n 20 "$log" >&2
  fi
  summary+=("| $title | **$result** | $((SECONDS - start)) s | \`$name.log\` |")
  say "$result in $((SECONDS - start)) s"
  write '' "## $title: $result" '' "\`$*\`"
  ((status == 0)) || write '' "Exit status $status; the end of the log:"
  tail -n 40 "$log" >"$out/.tail"
  write_output "$out/.tail"
  return "$status"
}
skip() { # NAME TITLE REASON
  summary+=("| $2 | skipped | | $3 |")
  write '' "## $2: skipped" '' "$3."
}

machine() {
  uname -srm
  lscpu | sed -n 's/^\(Model name\|CPU(s)\): */\1: /p'
  if $emulated; then
    say "the CUDA emulator"
  elif command -v nvidia-smi >/dev/null; then
    nvidia-smi
    nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.max.sm,clocks.max.mem,power.limit,ecc.mode.current --format=csv
  else
    cat /proc/driver/nvidia/version
  fi
  "${CXX:-c++}" --version | head -n 1
  nvcc=$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)
  "$nvcc" --version | tail -n 2
  git describe --always --dirty --tags || true
}

build_all() {
  local launcher=()
  command -v ccache >/dev/null && launcher=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
  cmake --preset release -DBITNET_TESTS=ON -DBITNET_CUDA=ON -DBITNET_CUDA_EMULATOR=ON "${launcher[@]}" &&
    cmake --build "$build" --parallel "$(nproc)"
}

sanitizer() { # TOOL: without the tests of whole models, which launch the same kernels thousands of times
  # Calls that must fail, such as one for more memory than there is, are tests too: not errors.
  compute-sanitizer --tool "$1" --report-api-errors no --error-exitcode 1 --launch-timeout 0 "$build/tests/cuda_device/bitnet_gpu_tests" \
    "~[emulator]~[model]~[reference]~[slow]" --abort
}

# The same workload on both devices, so that the report has them side by side.
bench_sizes() { # WORKLOAD: the options of its bench
  if $emulated; then
    printf '%s\n' --repeats 1 --set model.hidden_size=64 --set model.intermediate_size=128 --set model.num_hidden_layers=1
    case "$1" in
      train) printf '%s\n' --set train.sequence_length=16 --set train.per_device_train_batch_size=1 ;;
      prefill) printf '%s\n' --tokens 16 ;;
      decode) printf '%s\n' --context 8 ;;
    esac
  else
    [[ $1 == train ]] && printf '%s\n' --config configs/bench_100m.json
    [[ $1 == train ]] || printf '%s\n' --config configs/2b4t.json
  fi
}
bench() { # WORKLOAD DEVICE [ARGUMENT...]
  local workload=$1 device=$2 sizes
  shift 2
  mapfile -t sizes < <(bench_sizes "$workload")
  run "$bitnet" bench "$workload" --device "$device" "${sizes[@]}" "$@"
}

printf '# GPU check\n' >"$report"
date --utc '+%n%F %R UTC' >>"$report"

step machine "The machine" machine || true
if step build "Build" build_all; then
  step devices "The devices that bitnet finds" "$bitnet" devices || true
  if ! grep -q '^auto *cuda' "$out/devices.log"; then
    $emulated || no_gpu "$(sed -n 's/^cuda *not usable: //p' "$out/devices.log" | head -n 1); report: $report"
  fi
  step unit "The unit tests of the CPU side" ctest --preset release --parallel "$(nproc)" -L unit || true
  if $emulated; then
    step gpu_tests "The kernels and the backend, on the GPU" ctest --preset release --parallel "$(nproc)" -L emulator || true
  else
    step gpu_tests "The kernels and the backend, on the GPU" "$build/tests/cuda_device/bitnet_gpu_tests" || true
  fi
  step end_to_end "Training, packing and text: GPU against CPU" python3 tests/end_to_end/cuda_test.py "$bitnet" || true
  for tool in memcheck racecheck; do
    title="compute-sanitizer $tool on the tests"
    if $emulated; then
      skip "$tool" "$title" "the GPU is emulated"
    elif command -v compute-sanitizer >/dev/null; then
      step "$tool" "$title" sanitizer "$tool" || true
    else
      skip "$tool" "$title" "compute-sanitizer is not installed"
    fi
  done
  for workload in train prefill decode; do
    for device in cpu cuda; do
      step "bench_${workload}_$device" "bench $workload on $device" bench "$workload" "$device" || true
    done
  done
  step bench_train_float_cuda "bench train of the float twin (cuBLASLt bf16) on cuda" bench train cuda --set model.linear=float || true
fi
rm -f "$out/.tail"

{
  printf '# GPU check: %s\n' "$( ((failures == 0)) && echo "all steps passed" || echo "$failures of ${#summary[@]} steps FAILED")"
  $emulated && printf '\nOn the **emulated** GPU of the tests: the times say nothing about a device.\n'
  printf '\n| step | result | time | log |\n|---|---|---|---|\n'
  printf '%s\n' "${summary[@]}"
  tail -n +2 "$report"
} >"$report.new"
mv "$report.new" "$report"

((failures == 0)) || fail "$failures of ${#summary[@]} steps failed; the report: $report"
say "" "gpu_check.sh: all steps passed; the report: $report"
