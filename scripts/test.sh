#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Builds and tests: test.sh [release|coverage|asan|tsan|neon]..., by default all five. Fails when a stage fails; the others still run.
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

all_stages=(release coverage asan tsan neon)
jobs=$(nproc)
export OMP_WAIT_POLICY=passive # tests share the machine: idle threads must not spin

# With ccache a build of known files is quick; without, precompiled headers make it quicker. One rules out the other.
configure() { # PRESET [ARGUMENT...]
  local launcher="" precompile=ON
  if [[ -z ${CCACHE_DISABLE-} ]] && command -v ccache >/dev/null; then
    launcher=ccache precompile=OFF
  fi
  run cmake --preset "$@" -DBITNET_TESTS=ON -DCMAKE_CXX_COMPILER_LAUNCHER="$launcher" -DBITNET_PRECOMPILED_HEADERS="$precompile"
}

# Everything, with warnings as errors.
# With BITNET_REQUIRE_CUDA set, a machine without the CUDA toolkit fails instead of leaving the CUDA backend out.
stage_release() {
  configure release -DBITNET_WERROR=ON ${BITNET_REQUIRE_CUDA:+-DBITNET_CUDA=ON -DBITNET_CUDA_EMULATOR=ON}
  find build/release/tests -name '*_totals.txt' -delete
  run cmake --build build/release --parallel "$jobs"
  run ctest --preset release --parallel "$jobs"
  find build/release/tests -name '*_totals.txt' -exec sed -n 's/^totals //p' {} + >&2
}

# Which lines of the CUDA backend the tests execute under the emulator. Of the release build, only the backend is compiled again.
stage_coverage() {
  local targets
  configure release -DBITNET_WERROR=ON
  targets=$(cmake --build build/release --target help)
  if [[ $targets != *bitnet_coverage* ]]; then
    [[ -z ${BITNET_REQUIRE_CUDA-} ]] || fail "nothing to cover: this build has no CUDA emulator, or no gcov"
    say "nothing to cover: this build has no CUDA emulator, or no gcov"
    return
  fi
  run cmake --build build/release --target bitnet_coverage --parallel "$jobs"
}

# The unit tests under AddressSanitizer and UndefinedBehaviorSanitizer.
stage_asan() {
  configure asan
  run cmake --build build/asan --target bitnet_unit_tests --parallel "$jobs"
  run ctest --preset asan --parallel "$jobs"
}

# The unit tests that have threads, and the kernels, under ThreadSanitizer.
stage_tsan() {
  configure tsan
  run cmake --build build/tsan --target bitnet_unit_tests --parallel "$jobs"
  run ctest --preset tsan --parallel "$jobs"
}

# The kernels, of the CPU and those that the emulator executes, compiled for 64-bit ARM and run by qemu.
stage_neon() {
  configure neon
  run cmake --build build/neon --parallel "$jobs"
  run ctest --preset neon --parallel "$jobs"
}

stages=("$@")
((${#stages[@]} > 0)) || stages=("${all_stages[@]}")
for stage in "${stages[@]}"; do
  [[ " ${all_stages[*]} " == *" $stage "* ]] ||
    fail "unknown stage '$stage'; the stages are: ${all_stages[*]}"
done

scripts/setup.sh --tests

summary=()
failures=0
for stage in "${stages[@]}"; do
  say "" "== $stage =="
  start=$SECONDS
  set +e # keeps `set -e` alive inside the stage, which `if stage; then` would switch off
  (
    set -e
    "stage_$stage"
  )
  status=$?
  set -e
  result=passed
  if ((status != 0)); then
    result=FAILED
    failures=$((failures + 1))
  fi
  summary+=("$(printf '%-8s %s in %d s' "$stage" "$result" $((SECONDS - start)))")
done

say "" "== summary =="
for line in "${summary[@]}"; do say "$line"; done
((failures == 0)) || fail "$failures of ${#stages[@]} stages failed"
