#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# From a fresh clone to generated text: installs packages, builds, gets text, trains a small ternary model, packs it into
# 2 bits and writes with it. With --force it replaces runs/quickstart; otherwise it takes a free name.
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

force=()
case "${1-}" in
  "") ;;
  --force) force=(--force) ;;
  *) fail "unknown argument '$1'; usage: quickstart.sh [--force]" ;;
esac

step() { say "" "== $* =="; }

step "Packages"
scripts/setup.sh

step "Build"
configure=(cmake --preset release)
# A folder that test.sh has configured keeps its settings; a new one leaves the tests out.
[[ -f build/release/build.ninja ]] || configure+=(-DBITNET_TESTS=OFF)
command -v ccache >/dev/null && configure+=(-DCMAKE_CXX_COMPILER_LAUNCHER=ccache)
run "${configure[@]}"
run cmake --build build/release --target bitnet --parallel "$(nproc)"
bitnet=build/release/bitnet

step "Text"
data=data/enwik8
if ! scripts/get_data.sh --timeout 60 enwik8; then
  [[ ! -e $data ]] || exit 1 # another file has its name, as get_data.sh has said
  scripts/get_data.sh gcide
  data=data/gcide
  say "quickstart.sh: enwik8 could not be had; training on GCIDE, an English dictionary, instead." \
    "This is NOT enwik8: its bits per byte cannot be compared with published enwik8 figures."
fi

step "Train"
out=runs/quickstart
for ((i = 2; ${#force[@]} == 0; ++i)); do
  [[ -e $out || -e $out-packed ]] || break
  out=runs/quickstart-$i
done
run "$bitnet" train --config configs/quickstart.json --set "data.path=$data" --out "$out" "${force[@]}"

step "Evaluate the trained model"
trained=$(run "$bitnet" eval --model "$out" --split test --json)
printf '%s\n' "$trained"

step "Quantize to 2 bits, and evaluate the packed model"
run "$bitnet" quantize "$out" -o "$out-packed" "${force[@]}"
packed=$(run "$bitnet" eval --model "$out-packed" --split test --json)
printf '%s\n' "$packed"
score() { grep --only-matching '"bits_per_byte":[^,}]*' <<<"$1"; }
[[ $(score "$trained") == $(score "$packed") ]] ||
  fail "the packed model does not score as the trained one does: that is a bug, please report it"
say "quickstart.sh: the packed model is the same function: bits per byte agree to the last digit"

step "Generate"
run "$bitnet" generate --model "$out-packed" "The " --max-new-tokens 400 --temperature 0.7 --seed 1
printf '\n'
say "" "quickstart.sh: done in $SECONDS s. More text: $bitnet generate --model $out-packed \"Your prompt\""
