#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Models whose tokens are no bytes, and runs that begin with another model, as their users meet them.

Usage: tokens_test.py PATH_TO_BITNET [unittest options]
"""
import json
import math
import shutil
import tempfile
import unittest
from pathlib import Path

import program
from program import english_like_text, error_line, metrics, run

SETTINGS = {
    "data": {"split": [0.9, 0.05, 0.05]},
    "train": {"max_steps": 30, "per_device_train_batch_size": 8, "learning_rate": 3e-3, "warmup_steps": 5, "logging_steps": 1,
              "eval_steps": 30, "eval_max_bytes": 0, "save_steps": 10, "sample_steps": 30, "sample_bytes": 20},
}
SHAPE = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2,
         "max_position_embeddings": 64, "tie_word_embeddings": False}


def byte_alphabet():
    """GPT-2's printable character for each byte."""
    plain = [*range(0x21, 0x7f), *range(0xa1, 0xad), *range(0xae, 0x100)]
    rest = [byte for byte in range(256) if byte not in plain]
    return {byte: chr(byte) for byte in plain} | {byte: chr(256 + i) for i, byte in enumerate(rest)}


def write_tokenizer(folder, words=("the", "cat", "river", "sees", "near", "old", "every")):
    """Bytes, words with a space before them, and the special tokens of ChatML."""
    alphabet = byte_alphabet()
    tokens = [alphabet[byte] for byte in range(256)]
    merges = []
    for word in words:
        characters = [alphabet[byte] for byte in (" " + word).encode()]
        left = characters[0]
        for right in characters[1:]:
            if left + right not in tokens:
                merges.append(f"{left} {right}")
                tokens.append(left + right)
            left += right
    vocab = {token: i for i, token in enumerate(tokens)}
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    added = [{"id": len(tokens) + i, "content": name, "single_word": False, "lstrip": False, "rstrip": False,
              "normalized": False, "special": True} for i, name in enumerate(special)]
    folder.mkdir()
    (folder / "tokenizer.json").write_text(json.dumps({
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                  "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "vocab": vocab, "merges": merges}}))
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>", "tokenizer_class": "PreTrainedTokenizerFast"}))
    return len(tokens) + len(special)


class TokensTest(unittest.TestCase):
    """One tokenizer, one shard, and one run over it are shared by all tests; none changes them."""

    @classmethod
    def setUpClass(cls):
        cls.work = Path(tempfile.mkdtemp(prefix="bitnet-tokens-test-"))
        cls.text = english_like_text(120_000)
        (cls.work / "text.txt").write_bytes(cls.text)
        cls.vocabulary = write_tokenizer(cls.work / "tokenizer")
        run("tokenize", "--tokenizer", "tokenizer", "text.txt", "-o", "shard.safetensors", cwd=cls.work)
        cls.write_config("shard.json", "shard.safetensors", SHAPE | {"vocab_size": cls.vocabulary + 1}, "tokenizer")
        cls.training = run("train", "--config", "shard.json", "--out", "runs/a", "--threads", 1, cwd=cls.work)
        cls.write_config("bytes.json", "text.txt", SHAPE)
        run("train", "--config", "bytes.json", "--out", "runs/bytes", "--set", "train.max_steps=5", cwd=cls.work)

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.work, ignore_errors=True)

    @classmethod
    def write_config(cls, name, data, model=None, tokenizer=None):
        config = json.loads(json.dumps(SETTINGS))
        config["data"]["path"] = data
        if tokenizer:
            config["data"]["tokenizer"] = tokenizer
        if model:
            config["model"] = model
        (cls.work / name).write_text(json.dumps(config))

    def bitnet(self, *arguments, **options):
        return run(*arguments, cwd=self.work, **options)

    def evaluate(self, *arguments):
        return json.loads(self.bitnet("eval", "--json", *arguments).stdout)

    # --- training and evaluation ------------------------------------------------------------------------------------

    def test_a_shard_of_bytes_is_trained_on(self):
        run("tokenize", "--tokenizer", "runs/bytes", "text.txt", "-o", "bytes.safetensors", cwd=self.work)
        result = run("train", "--config", "bytes.json", "--out", "runs/bytes-shard", "--set", "train.max_steps=5",
                     "--set", "data.path=bytes.safetensors", cwd=self.work)
        self.assertIn(b"done after 5 steps", result.stderr)

    def test_a_run_over_a_shard_learns_and_its_checkpoints_are_whole_models(self):
        losses = [event["loss"] for event in metrics(self.work / "runs/a") if event["event"] == "train"]
        self.assertLess(losses[-1], losses[0] - 1)
        shutil.copytree(self.work / "runs/a/checkpoint-30", self.work / "alone")
        shutil.move(self.work / "tokenizer", self.work / "elsewhere")  # the checkpoint has its own
        try:
            alone = self.evaluate("--model", "alone", "--data", "text.txt", "--split", "all")
        finally:
            shutil.move(self.work / "elsewhere", self.work / "tokenizer")
        self.assertEqual(alone["bytes"], len(self.text))
        self.assertLess(alone["tokens"], len(self.text))
        self.assertAlmostEqual(alone["bits_per_byte"],
                               math.log2(alone["perplexity"]) * alone["tokens"] / alone["bytes"])

    def test_a_shard_is_scored_as_the_text_it_was_made_of(self):
        of_text = self.evaluate("--model", "runs/a", "--data", "text.txt", "--split", "all")
        of_shard = self.evaluate("--model", "runs/a", "--split", "all")
        for key in ("bytes", "tokens", "bits_per_byte"):
            self.assertEqual(of_text[key], of_shard[key])
        valid = self.evaluate("--model", "runs/a", "--split", "valid")
        logged = [event for event in metrics(self.work / "runs/a") if event["event"] == "eval"][-1]
        self.assertEqual((valid["bytes"], valid["bits_per_byte"]), (logged["bytes"], logged["bits_per_byte"]))

    def test_a_text_is_encoded_when_a_run_begins(self):
        self.write_config("text.json", "text.txt", SHAPE | {"vocab_size": self.vocabulary}, "tokenizer")
        result = self.bitnet("train", "--config", "text.json", "--out", "runs/text", "--set", "train.max_steps=3")
        self.assertIn(b"encoding 114000 bytes of text", result.stderr)
        self.assertEqual(self.evaluate("--model", "runs/text", "--split", "test")["bytes"], 6000)

    def test_a_run_over_tokens_resumes_with_the_same_bytes(self):
        self.bitnet("train", "--config", "shard.json", "--out", "runs/parts", "--set", "train.max_steps=30", "--threads", 1)
        folder = self.work / "runs/parts"
        for step in (20, 30):
            shutil.rmtree(folder / f"checkpoint-{step}")
        shutil.move(self.work / "tokenizer", self.work / "gone")  # not needed: the checkpoint has it
        try:
            self.bitnet("train", "--resume", "runs/parts", "--threads", 1)
        finally:
            shutil.move(self.work / "gone", self.work / "tokenizer")
        for name in ("model.safetensors", "optimizer.safetensors", "tokenizer.json"):
            self.assertEqual((folder / "checkpoint-30" / name).read_bytes(),
                             (self.work / "runs/a/checkpoint-30" / name).read_bytes())

    def test_what_does_not_fit_together_is_refused(self):
        def refused(*settings, code=2):
            flags = [flag for setting in settings for flag in ("--set", setting)]
            return error_line(self.bitnet("train", "--config", "shard.json", "--out", "runs/no", *flags, code=code))

        self.assertIn("model.vocab_size is 280", refused("model.vocab_size=280"))
        self.assertIn("data.tokenizer", refused("data.tokenizer="))
        self.assertIn("holds no tokenizer", refused("data.tokenizer=runs", code=1))
        if not (self.work / "other").exists():
            write_tokenizer(self.work / "other", ("garden",))
        self.assertIn("shard", refused("data.tokenizer=other", code=1))
        self.assertFalse((self.work / "runs/no").exists())

    # --- generation -------------------------------------------------------------------------------------------------

    def test_latent_and_packed_models_write_the_same_text_of_tokens(self):
        self.bitnet("quantize", "runs/a", "-o", "packed")
        arguments = ["generate", "The old ", "--max-new-tokens", "100", "--ignore-eos", "--seed", "3", "--model"]
        latent, packed = self.bitnet(*arguments, "runs/a"), self.bitnet(*arguments, "packed")
        self.assertEqual(latent.stdout, packed.stdout)
        self.assertIn(b"generated 100 tokens", latent.stderr)
        self.assertEqual(self.evaluate("--model", "packed", "--split", "test")["bits_per_byte"],
                         self.evaluate("--model", "runs/a", "--split", "test")["bits_per_byte"])

    def test_chats_and_special_tokens(self):
        def prompt_tokens(*arguments):
            result = self.bitnet("generate", "--model", "runs/a", "--max-new-tokens", "1", *arguments)
            return int(result.stderr.split(b"prompt ")[1].split()[0])

        self.assertEqual(prompt_tokens("a"), 2)
        self.assertEqual(prompt_tokens("<|im_end|>"), 1 + len("<|im_end|>"))
        self.assertEqual(prompt_tokens("<|im_end|>", "--special"), 2)
        self.assertEqual(prompt_tokens("<|endoftext|>a", "--special"), 2)
        with_system = prompt_tokens("a", "--chat", "chatml", "--system", "b")
        self.assertGreater(with_system, prompt_tokens("a", "--chat", "chatml"))
        for wrong in (["--system", "b"], ["--chat", "nothing"], ["--chat", "chatml", "--special"], ["--chat", "llama3"]):
            self.bitnet("generate", "a", "--model", "runs/a", *wrong, code=2)

    # --- train --init -----------------------------------------------------------------------------------------------

    def test_a_run_begins_with_a_model_and_its_tokenizer(self):
        self.write_config("more.json", "text.txt")
        begun = self.evaluate("--model", "runs/a", "--split", "valid", "--data", "text.txt")["bits_per_byte"]
        for source in ("runs/a", "runs/a/checkpoint-30"):
            self.bitnet("train", "--config", "more.json", "--init", source, "--out", "runs/more", "--force", "--threads", 1,
                        "--set", "train.max_steps=2", "--set", "train.learning_rate=0", "--set", "train.weight_decay=0")
            events = metrics(self.work / "runs/more")
            self.assertEqual([e for e in events if e["event"] == "eval"][-1]["bits_per_byte"], begun)
            self.assertEqual((self.work / "runs/more/checkpoint-2/model.safetensors").read_bytes(),
                             (self.work / "runs/a/checkpoint-30/model.safetensors").read_bytes())
        config = json.loads((self.work / "runs/more/config.json").read_text())
        self.assertEqual(config["train"]["init"], "runs/a/checkpoint-30")
        self.assertEqual(config["model"]["vocab_size"], self.vocabulary + 1)
        self.assertTrue((self.work / "runs/more/checkpoint-2/tokenizer.json").exists())
        self.bitnet("train", "--resume", "runs/more", "--set", "train.max_steps=3")
        # The config needs no section model on a resume either.
        self.bitnet("train", "--resume", "runs/more", "--config", "more.json", "--set", "train.init=runs/a/checkpoint-30",
                    "--set", "train.max_steps=4")
        self.assertTrue((self.work / "runs/more/checkpoint-4").is_dir())

    def test_packed_and_float_models_begin_runs_too(self):
        self.bitnet("quantize", "runs/bytes", "-o", "bytes-packed")
        self.bitnet("train", "--init", "bytes-packed", "--set", "data.path=text.txt", "--set", "train.max_steps=2",
                    "--out", "runs/from-packed")
        self.write_config("float.json", "text.txt", SHAPE | {"linear": "float"})
        self.bitnet("train", "--config", "float.json", "--out", "runs/float", "--set", "train.max_steps=5")
        for linear in ("b158", "b1"):
            self.bitnet("train", "--init", "runs/float", "--out", f"runs/{linear}", "--set", "data.path=text.txt",
                        "--set", f"model.linear={linear}", "--set", "train.max_steps=2", "--set", "train.quant_warmup_steps=2",
                        "--set", "train.learning_rate=0")
            self.assertEqual((self.work / "runs" / linear / "checkpoint-2/model.safetensors").read_bytes()[-4096:],
                             (self.work / "runs/float/checkpoint-5/model.safetensors").read_bytes()[-4096:])

    def test_init_refuses_other_shapes_other_tokenizers_and_a_resume(self):
        def refused(*arguments, code=2):
            return error_line(self.bitnet("train", *arguments, "--out", "runs/no", code=code))

        self.assertIn("model.hidden_size is 128, but 64 of runs/bytes",
                      refused("--config", "bytes.json", "--init", "runs/bytes", "--set", "model.hidden_size=128"))
        self.assertIn("model.linear", refused("--config", "bytes.json", "--init", "runs/bytes", "--set", "model.linear=b1"))
        if not (self.work / "other").exists():
            write_tokenizer(self.work / "other", ("garden",))
        self.assertIn("another one", refused("--init", "runs/a", "--set", "data.path=text.txt",
                                             "--set", "data.tokenizer=other"))
        self.assertIn("--init", refused("--init", "runs/bytes", "--resume", "runs/bytes"))
        self.assertIn("nowhere", refused("--init", "nowhere", "--set", "data.path=text.txt", code=1))
        self.assertFalse((self.work / "runs/no").exists())


if __name__ == "__main__":
    program.main()
