#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""`bitnet export` and `bitnet import` as their users meet them, on a model trained for a few steps.

Usage: convert_test.py PATH_TO_BITNET [unittest options]
"""
import json
import shutil
import struct
import tempfile
import unittest
from pathlib import Path

import program
from program import english_like_text, error_line, run

CONFIG = {
    "model": {
        "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2,
        "max_position_embeddings": 64,
    },
    "data": {"path": "text.txt", "split": [0.9, 0.05, 0.05]},
    "train": {"max_steps": 10, "per_device_train_batch_size": 8, "learning_rate": 3e-3, "warmup_steps": 2,
              "eval_steps": 10, "eval_max_bytes": 1024, "save_steps": 10, "sample_steps": 0},
}


def result(completed):
    return json.loads(completed.stdout)


def tensors(file):
    """Names, dtypes and bytes of a safetensors file."""
    content = file.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8:8 + length])
    header.pop("__metadata__", None)
    data = content[8 + length:]
    return {name: (t["dtype"], data[slice(*t["data_offsets"])]) for name, t in header.items()}


class ConvertTest(unittest.TestCase):
    """One trained run is shared by all tests."""

    @classmethod
    def setUpClass(cls):
        cls.folder = Path(tempfile.mkdtemp(prefix="bitnet-convert-"))
        (cls.folder / "text.txt").write_bytes(english_like_text(20000))
        (cls.folder / "tiny.json").write_text(json.dumps(CONFIG))
        run("train", "--config", "tiny.json", "--out", "run", cwd=cls.folder)
        run("quantize", "run", "-o", "packed", cwd=cls.folder)

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder)

    def bits(self, model):
        return result(run("eval", "--model", model, "--data", "text.txt", "--split", "all", "--json",
                          cwd=self.folder))["bits_per_byte"]

    def test_hugging_face_and_back(self):
        exported = result(run("export", "run", "--to", "hf", "-o", "hf", "--json", cwd=self.folder))
        self.assertEqual(exported["verification"]["different_logits"], 0)
        self.assertEqual(exported["verification"]["bits_per_byte"], exported["verification"]["source_bits_per_byte"])
        self.assertEqual(exported["target_format"], "Hugging Face, packed")
        self.assertEqual(json.loads((self.folder / "hf/config.json").read_text())["model_type"], "bitnet")
        self.assertEqual(self.bits("hf"), self.bits("run"))

        imported = result(run("import", "hf", "-o", "back", "--json", cwd=self.folder))
        self.assertEqual(imported["source_format"], "Hugging Face folder, packed, weight_scale multiplies")
        self.assertEqual(tensors(self.folder / "back/model.safetensors"),
                         tensors(self.folder / "packed/model.safetensors"))
        prompt = ["The ", "--max-new-tokens", "20", "--greedy"]
        texts = {run("generate", "--model", model, *prompt, cwd=self.folder).stdout for model in ("run", "hf", "back")}
        self.assertEqual(len(texts), 1)
        inspected = result(run("inspect", "hf", "--json", cwd=self.folder))
        self.assertEqual(inspected["format"], "Hugging Face folder, packed, weight_scale multiplies")
        self.assertEqual(inspected["warnings"], [])

    def test_masters_in_shards(self):
        exported = run("export", "run", "--to", "hf-masters", "-o", "masters", "--max-shard-size", "100KB", cwd=self.folder)
        self.assertIn(b"floats rounded by the format", exported.stdout)
        self.assertTrue((self.folder / "masters/model.safetensors.index.json").exists())
        imported = result(run("import", "masters", "-o", "latent", "--json", cwd=self.folder))
        self.assertEqual(imported["target_format"], "bitnet, latent weights")
        self.assertEqual(self.bits("masters"), self.bits("latent"))

    def test_gguf_and_back(self):
        exported = result(run("export", "run", "--to", "gguf", "-o", "m.gguf", "--force", "--json", cwd=self.folder))
        self.assertGreater(exported["verification"]["tensors"], 0)
        imported = result(run("import", "m.gguf", "-o", "from-gguf", "--json", cwd=self.folder))
        self.assertEqual(imported["verification"]["different_logits"], 0)
        self.assertEqual(self.bits("m.gguf"), self.bits("from-gguf"))

    def test_float_models_become_latent_ones(self):
        run("train", "--config", "tiny.json", "--set", "model.profile=llama", "--set", "model.linear=float",
            "--out", "float", cwd=self.folder)
        run("export", "float", "--to", "hf", "-o", "llama", cwd=self.folder)
        self.assertEqual(json.loads((self.folder / "llama/config.json").read_text())["model_type"], "llama")
        imported = result(run("import", "llama", "-o", "start", "--linear", "b158", "--json", cwd=self.folder))
        self.assertEqual(imported["target_format"], "bitnet, latent weights")
        run("import", "start", "-o", "again", "--linear", "b1", cwd=self.folder, code=2)

    def test_what_goes_wrong_leaves_nothing(self):
        message = error_line(run("export", "packed", "--to", "hf-masters", "-o", "x", cwd=self.folder, code=2))
        self.assertIn("no latent weights", message)
        run("export", "run", "--to", "hf", "-o", "x", "--type", "q2_0", cwd=self.folder, code=2)
        run("export", "run", "--to", "hf", "-o", "x", "--max-shard-size", "much", cwd=self.folder, code=2)
        run("export", "run", "--to", "hf", "-o", "run", "--force", cwd=self.folder, code=1)
        run("import", "text.txt", "-o", "x", cwd=self.folder, code=3)
        run("import", "none", "-o", "x", cwd=self.folder, code=1)
        self.assertFalse((self.folder / "x").exists())
        damaged = self.folder / "damaged"
        run("export", "run", "--to", "hf", "-o", "damaged", "--no-verify", cwd=self.folder)
        config = json.loads((damaged / "config.json").read_text())
        config["rope_scaling"] = {"type": "linear", "factor": 2.0}
        (damaged / "config.json").write_text(json.dumps(config))
        self.assertIn("rope_scaling", error_line(run("import", "damaged", "-o", "x", cwd=self.folder, code=3)))
        self.assertIn("rope_scaling", result(run("inspect", "damaged", "--json", cwd=self.folder))["warnings"][0])
        self.assertEqual([p.name for p in self.folder.iterdir() if "tmp" in p.name], [])


if __name__ == "__main__":
    program.main()
