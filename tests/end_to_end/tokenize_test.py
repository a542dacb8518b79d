#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""bitnet tokenize as its users meet it: text to ids and back, files to token shards.

Usage: tokenize_test.py PATH_TO_BITNET [unittest options]
"""
import gzip
import json
import shutil
import struct
import tempfile
import unittest
from pathlib import Path

import program
from program import english_like_text, error_line, run

FIXTURE = Path(__file__).resolve().parents[1] / "fixtures" / "tokenizer"
START = 601  # <|begin_of_text|>


def shard_tokens(path):
    content = path.read_bytes()
    length, = struct.unpack("<Q", content[:8])
    return [number for number, in struct.iter_unpack("<H", content[8 + length:])]


class TokenizeTest(unittest.TestCase):
    def setUp(self):
        self.work = Path(tempfile.mkdtemp(prefix="bitnet-tokenize-test-"))

    def tearDown(self):
        shutil.rmtree(self.work, ignore_errors=True)

    def tokenize(self, *arguments, **options):
        return run("tokenize", "--tokenizer", options.pop("tokenizer", FIXTURE), *arguments, cwd=self.work, **options)

    def ids(self, text, *arguments):
        return [int(word) for word in self.tokenize(text, *arguments).stdout.split()]

    def test_text_becomes_ids_and_comes_back(self):
        cases = json.loads((FIXTURE / "cases.json").read_text())["cases"]
        case = next(case for case in cases if "mañana" in case["text"])
        self.assertEqual(self.ids(case["text"]), case["as_text"])
        back = self.tokenize("--decode", *case["as_text"])
        self.assertEqual(back.stdout.decode(), case["text"])
        any_bytes = bytes(range(256))
        ids = self.tokenize(input=any_bytes).stdout
        self.assertEqual(self.tokenize("--decode", input=ids).stdout, any_bytes)

    def test_special_tokens_are_text_unless_asked_for(self):
        self.assertEqual(self.ids("<|eot_id|>", "--special"), [605])
        self.assertGreater(len(self.ids("<|eot_id|>")), 1)
        described = json.loads(self.tokenize("x<|eot_id|>", "--special", "--json").stdout)
        self.assertEqual(described["names"], ["x", "<|eot_id|>"])
        self.assertEqual(described["vocab_size"], 606)

    def test_bytes_need_no_folder(self):
        self.assertEqual(self.tokenize("aé", tokenizer="bytes").stdout, b"97 195 169\n")
        text = json.loads(self.tokenize("--decode", "--json", "97", "255", tokenizer="bytes").stdout)["text"]
        self.assertEqual(text, "a\ufffd")

    def test_files_become_a_shard(self):
        text = english_like_text(3_000_000)
        (self.work / "a.txt").write_bytes(text)
        (self.work / "b.gz").write_bytes(gzip.compress(b"second\0third"))
        described = json.loads(self.tokenize("a.txt", "b.gz", "-o", "s.safetensors", "--json").stdout)
        self.assertEqual((described["documents"], described["bytes"]), (3, len(text) + 11))
        tokens = shard_tokens(self.work / "s.safetensors")
        self.assertEqual(len(tokens), described["tokens"])
        whole = self.tokenize(input=text).stdout  # the same as in pieces
        expected = [START, *map(int, whole.split()), START, *self.ids("second"), START, *self.ids("third")]
        self.assertEqual(tokens, expected)
        self.assertEqual(sorted(p.name for p in self.work.iterdir()), ["a.txt", "b.gz", "s.safetensors"])

        refused = self.tokenize("b.gz", "-o", "s.safetensors", code=2)
        self.assertIn("--force", error_line(refused))
        self.tokenize("b.gz", "-o", "s.safetensors", "--force")
        self.assertLess(len(shard_tokens(self.work / "s.safetensors")), 20)

    def test_faults_are_named(self):
        self.assertIn("'606' is not a token id", error_line(self.tokenize("--decode", "606", code=2)))
        self.assertIn("expected one text", error_line(self.tokenize("a", "b", code=2)))
        self.assertIn("expected the files", error_line(self.tokenize("-o", "x.safetensors", code=2)))
        (self.work / "tokenizer.json").write_text('{"model": {"type": "WordPiece"}}')
        self.assertIn("model 'WordPiece'", error_line(self.tokenize("a", tokenizer=".", code=3)))


if __name__ == "__main__":
    program.main()
