#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Fuzzes the readers of foreign files: fuzz.sh [SECONDS [TARGET...]], by default each target for 600 seconds, two at a time.
# Inputs that reach new code stay in build/fuzz/work; a finding is left in build/fuzz/findings and fails the script.
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

seconds=${1-600}
[[ $seconds =~ ^[0-9]+$ ]] || fail "'$seconds' is not a number of seconds; usage: fuzz.sh [SECONDS [TARGET...]]"
targets=("${@:2}")
if ((${#targets[@]} == 0)); then
  for source in tests/fuzz/*_fuzz.cpp; do
    name=$(basename "$source")
    targets+=("${name%_fuzz.cpp}")
  done
fi

command -v clang++ >/dev/null || fail "there is no clang++; on Debian: apt-get install clang libclang-rt-dev libomp-dev"
run cmake --preset fuzz
run cmake --build build/fuzz --target bitnet_fuzzers --parallel "$(nproc)"

findings=build/fuzz/findings
mkdir -p "$findings"
fuzz() { # TARGET
  local corpus=tests/fuzz/corpus/$1 work=build/fuzz/work/$1
  mkdir -p "$corpus" "$work"
  build/fuzz/tests/fuzz/bitnet_fuzz_"$1" -max_total_time="$seconds" -timeout=20 -report_slow_units=20 -rss_limit_mb=3000 -print_final_stats=1 \
    -artifact_prefix="$findings/$1-" "$work" "$corpus" >"build/fuzz/$1.log" 2>&1
}
export -f fuzz
export findings seconds
printf '%s\n' "${targets[@]}" | xargs -P 2 -I{} bash -c 'fuzz {} || true'

failures=0
for target in "${targets[@]}"; do
  grep -E "DONE|number_of_executed_units" "build/fuzz/$target.log" | tail -2 | tr '\n' ' ' | sed "s/^/$target: /;s/\$/\n/"
  compgen -G "$findings/$target-*" >/dev/null && failures=$((failures + 1)) && say "$target: findings in $findings, log in build/fuzz/$target.log"
done
((failures == 0)) || fail "$failures of ${#targets[@]} targets have findings"
