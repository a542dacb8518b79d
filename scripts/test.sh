#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Builds and tests: test.sh [release|asan|tsan|neon]..., by default all four. Fails when a stage fails; the others still run.
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

all_stages=(release asan tsan neon)
jobs=$(nproc)

configure() { # PRESET [ARGUMENT...]
  local launcher=()
  command -v ccache >/dev/null && launcher=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
  run cmake --preset "$@" -DBITNET_TESTS=ON "${launcher[@]}"
}

# Everything, with warnings as errors.
stage_release() {
  configure release -DBITNET_WERROR=ON
  run cmake --build build/release --parallel "$jobs"
  run ctest --preset release
}

# The unit tests under AddressSanitizer and UndefinedBehaviorSanitizer.
stage_asan() {
  configure asan
  run cmake --build build/asan --target bitnet_unit_tests --parallel "$jobs"
  run ctest --preset asan
}

# The unit tests under ThreadSanitizer.
stage_tsan() {
  configure tsan
  run cmake --build build/tsan --target bitnet_unit_tests --parallel "$jobs"
  run ctest --preset tsan
}

# The CPU kernels, compiled for 64-bit ARM and run by qemu.
stage_neon() {
  configure neon
  run cmake --build build/neon --parallel "$jobs"
  run ctest --preset neon
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
