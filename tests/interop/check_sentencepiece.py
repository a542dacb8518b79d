#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Compares `bitnet tokenize` with SentencePiece's own package on difficult strings, from tokenizer.model and by way of GGUF.

Usage: check_sentencepiece.py BITNET WORK_FOLDER [LLAMA_TOKENIZE]. Needs sentencepiece, gguf, torch and transformers (scripts/check_interop.sh).

Two vocabularies are trained on the project's documentation: one as LLaMA-2's (a space before a text), one as Gemma's (none, and user-defined tokens).
Each goes tokenizer.model -> import -> GGUF -> import; after every step all ids must equal those of the package, and GGUF must hold its tokens, scores and
types. With llama.cpp's llama-tokenize the ids that it makes of the GGUF file are compared as well, on a part of the strings (one process each).
Exit status 1 when anything differs.
"""
import random
import subprocess
import sys
from pathlib import Path

import gguf
import sentencepiece
import torch
from transformers import LlamaConfig, LlamaForCausalLM

from check_tokenizers import difficult_strings, ids_of_bitnet

ROOT = Path(__file__).resolve().parents[2]
KINDS = {
    "like LLaMA-2": {},
    "like Gemma": {"add_dummy_prefix": False, "user_defined_symbols": ["<start_of_turn>", "\n\n", "▁▁▁▁"], "control_symbols": ["<mask>"]},
}
PADDING = 8  # token ids of the model that its vocabulary does not have
PROCESSES = 400


def train(folder, options):
    text = folder / "text"
    text.write_text("\n".join(path.read_text() for path in sorted(ROOT.glob("docs/*.md"))))
    sentencepiece.SentencePieceTrainer.train(
        input=str(text), model_prefix=str(folder / "tokenizer"), vocab_size=1500, model_type="bpe", byte_fallback=True, split_digits=True,
        normalization_rule_name="identity", remove_extra_whitespaces=False, allow_whitespace_only_pieces=True, minloglevel=2, **options)
    return sentencepiece.SentencePieceProcessor(model_file=str(folder / "tokenizer.model"))


def write_model(folder, vocab_size):
    torch.manual_seed(1)
    config = LlamaConfig(vocab_size=vocab_size, hidden_size=256, intermediate_size=256, num_hidden_layers=1, num_attention_heads=4,
                         num_key_value_heads=2, max_position_embeddings=128, bos_token_id=1, eos_token_id=2)
    LlamaForCausalLM(config).save_pretrained(folder)


def type_of(processor, piece):
    tests = [(2, processor.is_unknown), (3, processor.is_control), (5, processor.is_unused), (6, processor.is_byte)]
    return next((number for number, test in tests if test(piece)), None)


def different_pieces(file, processor):
    """How many tokens, scores and types of the file are not the package's. (Which pieces are user-defined it does not say: those may be 1 or 4.)"""
    fields = gguf.GGUFReader(file).fields
    tokens, scores, types = (fields[f"tokenizer.ggml.{name}"].contents() for name in ("tokens", "scores", "token_type"))
    different = abs(len(tokens) - processor.get_piece_size() - PADDING) + sum(number != 5 for number in types[-PADDING:])
    for piece in range(processor.get_piece_size()):
        expected = type_of(processor, piece)
        same = tokens[piece] == processor.id_to_piece(piece) and scores[piece] == processor.get_score(piece)
        different += not same or (types[piece] != expected if expected else types[piece] not in (1, 4))
    return different


def ids_of_llama(program, file, string):
    done = subprocess.run([program, "-m", file, "--stdin", "--ids", "--no-bos", "--no-parse-special", "--log-disable"], input=string.encode(),
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True)
    text = done.stdout.decode().strip().splitlines()[-1].strip("[]")
    return [int(number) for number in text.split(",")] if text else []


def check(name, options, bitnet, work, llama_tokenize):
    folder = work / name.replace(" ", "-")
    folder.mkdir(parents=True, exist_ok=True)
    processor = train(folder, options)
    write_model(folder, processor.get_piece_size() + PADDING)
    native, file, again = folder / "native", folder / "model.gguf", folder / "again"
    for command in (["import", folder, "-o", native], ["export", native, "--to", "gguf", "-o", file], ["import", file, "-o", again]):
        subprocess.run([bitnet, *command, "--force"], check=True, stdout=subprocess.DEVNULL)

    strings = [string for string in difficult_strings() if string] + [" ", "  a", "a  ", "<0x0A>", "<s></s><unk>", "▁a ▁", "\n\n\n", "x\n\ny"]
    theirs = processor.encode(strings)
    failed = 0
    for source in (folder, native, file, again):
        ours = ids_of_bitnet(bitnet, source, strings, processor.bos_id(), folder)
        different = sum(a != b for a, b in zip(ours, theirs)) + abs(len(ours) - len(theirs))
        print(f"{name}, {source.name}: {len(strings)} strings, {sum(map(len, ours))} tokens; different from sentencepiece: {different}")
        failed += different
    package = sentencepiece.SentencePieceProcessor(model_file=str(again / "tokenizer.model"))
    unlike = sum(a != b for a, b in zip(package.encode(strings), theirs))
    pieces = different_pieces(file, processor)
    print(f"{name}: the model file written from GGUF gives sentencepiece other ids for {unlike}; different pieces in GGUF: {pieces}")
    failed += unlike + pieces
    if llama_tokenize:
        some = random.Random(3).sample(range(len(strings)), PROCESSES - 8) + list(range(len(strings) - 8, len(strings)))
        missed = [strings[i] for i in some if ids_of_llama(llama_tokenize, file, strings[i]) != theirs[i]]
        print(f"{name}: different from llama.cpp: {len(missed)} of {len(some)} strings", *map(ascii, missed[:5]))
        failed += len(missed)
    return failed


def main():
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    bitnet, work = Path(sys.argv[1]).resolve(), Path(sys.argv[2]).resolve()
    llama_tokenize = Path(sys.argv[3]).resolve() if len(sys.argv) == 4 else None
    failed = [check(name, options, bitnet, work, llama_tokenize) for name, options in KINDS.items()]
    sys.exit(1 if any(failed) else 0)


if __name__ == "__main__":
    main()
