#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The program on a GPU against the program on the CPU: training, evaluation, packing, text.

Usage: cuda_test.py PATH_TO_BITNET [unittest options]

The program is the one that links the CUDA emulator, or, on a machine with a GPU, the one that ships.
"""
import json
import shutil
import tempfile
import unittest
from pathlib import Path

import program
from program import english_like_text, metrics, run

STEPS = 60
# Grouped queries, a gated ReLU², dropout, and lengths that are no multiples of a kernel's tile.
CONFIG = {
    "model": {
        "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 48, "hidden_act": "relu2", "gated_mlp": True,
        "dropout": 0.1,
    },
    "data": {"path": "text.txt", "split": [0.9, 0.05, 0.05]},
    "train": {
        "max_steps": STEPS, "per_device_train_batch_size": 4, "gradient_accumulation_steps": 1, "seed": 3,
        "learning_rate": 3e-3, "warmup_steps": 5, "logging_steps": 1, "eval_steps": 30, "eval_max_bytes": 512,
        "save_steps": 30, "save_total_limit": 0, "sample_steps": 60, "sample_bytes": 10,
    },
}


def losses(run_folder):
    return {e["step"]: e["loss"] for e in metrics(run_folder) if e["event"] == "train"}


class CudaTest(unittest.TestCase):
    """The same run on both devices is shared by all tests; none changes it."""

    @classmethod
    def setUpClass(cls):
        cls.work = Path(tempfile.mkdtemp(prefix="bitnet-cuda-test-"))
        (cls.work / "text.txt").write_bytes(english_like_text(100_000))
        (cls.work / "short.txt").write_bytes(english_like_text(1000))
        (cls.work / "tiny.json").write_text(json.dumps(CONFIG))
        for device in ("cpu", "cuda"):
            cls.train(device, device)

    @classmethod
    def train(cls, device, out, *settings):
        flags = [flag for setting in settings for flag in ("--set", setting)]
        return run("train", "--config", "tiny.json", "--out", out, "--device", device, *flags, cwd=cls.work)

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.work, ignore_errors=True)

    def bitnet(self, *arguments, **options):
        return run(*arguments, cwd=self.work, **options)

    def packed(self):
        """The CPU's run, packed once."""
        if not (self.work / "packed").exists():
            self.bitnet("quantize", "cpu", "-o", "packed", "--device", "cpu")
        return "packed"

    def test_the_losses_are_those_of_the_cpu_at_each_step(self):
        cpu, cuda = losses(self.work / "cpu"), losses(self.work / "cuda")
        self.assertEqual(sorted(cpu), list(range(1, STEPS + 1)))
        self.assertEqual(sorted(cuda), sorted(cpu))
        worst = max(abs(cuda[step] / cpu[step] - 1) for step in cpu)
        print(f"losses differ by at most {100 * worst:.3f} %; last: cpu {cpu[STEPS]:.4f}, cuda {cuda[STEPS]:.4f}")
        self.assertLess(worst, 0.02)
        self.assertLess(cuda[STEPS], cuda[1] - 1)  # and it learned

    def test_a_resumed_run_equals_one_that_was_not_interrupted(self):
        shutil.copytree(self.work / "cuda", self.work / "half", symlinks=True)
        shutil.rmtree(self.work / "half" / f"checkpoint-{STEPS}")
        self.bitnet("train", "--resume", "half", "--device", "cuda")
        for name in ("model.safetensors", "optimizer.safetensors"):
            resumed, whole = (self.work / run / f"checkpoint-{STEPS}" / name for run in ("half", "cuda"))
            self.assertEqual(resumed.read_bytes(), whole.read_bytes(), name)

    def test_a_run_that_goes_on_on_another_device_is_warned_about(self):
        self.train("cpu", "moved", "train.max_steps=2")
        result = self.bitnet("train", "--resume", "moved", "--device", "cuda")
        self.assertNotIn(b"warning: ", result.stderr)  # there was nothing to do
        result = self.bitnet("train", "--resume", "moved", "--device", "cuda", "--set", "train.max_steps=3")
        self.assertIn(b"warning: the checkpoint was trained on cpu, this is cuda", result.stderr)
        result = self.bitnet("train", "--resume", "moved", "--device", "cuda", "--set", "train.max_steps=4")
        self.assertNotIn(b"was trained on", result.stderr)

    def test_gradient_checkpointing_changes_no_bit(self):
        self.train("cuda", "again", "train.max_steps=3", "train.gradient_checkpointing=true")
        self.train("cuda", "kept", "train.max_steps=3")
        again, kept = (self.work / run / "checkpoint-3" / "model.safetensors" for run in ("again", "kept"))
        self.assertEqual(again.read_bytes(), kept.read_bytes())

    def test_bf16_gradients_and_the_float_twin_train_too(self):
        for name, on_gpu, on_cpu in (("bf16", "train.backward=bf16", "train.backward=fp32"),
                                     ("float", "model.linear=float", "model.linear=float")):
            with self.subTest(name):
                self.train("cuda", name, "train.max_steps=10", on_gpu)
                self.train("cpu", f"{name}-cpu", "train.max_steps=10", on_cpu)
                cpu, cuda = losses(self.work / f"{name}-cpu"), losses(self.work / name)
                for step in cpu:
                    self.assertLess(abs(cuda[step] / cpu[step] - 1), 0.02, step)

    def test_packed_logits_are_latent_logits(self):
        report = json.loads(self.bitnet("quantize", "cuda", "-o", "cuda-packed", "--device", "cuda", "--json").stdout)
        self.assertEqual(report["verification"]["different"], 0)
        self.assertGreater(report["verification"]["logits"], 0)

    def test_both_devices_pack_the_same_file(self):
        self.packed()
        self.bitnet("quantize", "cpu", "-o", "packed-on-gpu", "--device", "cuda")
        packed, on_gpu = (self.work / folder / "model.safetensors" for folder in ("packed", "packed-on-gpu"))
        self.assertEqual(packed.read_bytes(), on_gpu.read_bytes())

    def test_the_same_packed_file_writes_the_same_text(self):
        arguments = ["generate", "The old ", "--greedy", "--max-new-tokens", "64", "--ignore-eos", "--model", self.packed()]
        texts = {device: self.bitnet(*arguments, "--device", device, "--kv-cache", "fp32").stdout
                 for device in ("cpu", "cuda")}
        self.assertEqual(len(texts["cpu"]), 64)
        self.assertEqual(texts["cpu"], texts["cuda"])
        half = self.bitnet(*arguments, "--device", "cuda").stdout  # in fp16
        self.assertEqual(len(half), 64)

    def test_the_same_packed_file_has_the_same_bits_per_byte(self):
        for kv_cache in ("fp32", "fp16"):
            score = {}
            for device in ("cpu", "cuda"):
                result = self.bitnet("eval", "--json", "--model", self.packed(), "--data", "short.txt", "--split", "all", "--device", device,
                                     "--kv-cache", kv_cache)
                score[device] = json.loads(result.stdout)["bits_per_byte"]
            self.assertLess(abs(score["cuda"] / score["cpu"] - 1), 0.002)

    def test_a_dry_run_names_the_device_and_its_memory(self):
        plan = self.bitnet("train", "--config", "tiny.json", "--out", "no", "--device", "cuda", "--dry-run").stdout.decode()
        self.assertRegex(plan, r"device +cuda, [\d.]+ MB")
        sizes = json.loads(
            self.bitnet("train", "--config", "tiny.json", "--out", "no", "--device", "cuda", "--dry-run", "--json").stdout)
        self.assertEqual(sizes["device"], "cuda")
        self.assertGreater(sizes["device_memory_bytes"], sizes["memory_bytes"])
        self.assertFalse((self.work / "no").exists())

    def bench(self, *arguments, **options):
        return self.bitnet("bench", *arguments, "--config", "tiny.json", "--repeats", 1, "--device", "cuda", **options)

    def test_bench_refuses_gradients_that_a_gpu_does_not_compute_before_it_measures(self):
        result = self.bench("all", "--set", "train.backward=fp32", code=2)
        self.assertIn(b"train.backward is fp32, which the cuda backend does not have", result.stderr)
        self.assertNotIn(b"measuring", result.stderr)

    def test_bench_measures_every_workload_as_a_fraction_of_what_the_gpu_can_do(self):
        report = json.loads(self.bench("all", "--json").stdout)
        self.assertEqual(report["device"]["name"], "cuda")
        self.assertRegex(report["device"]["detail"], r", sm_\d+$")
        self.assertGreater(report["device"]["memory_bytes"], report["device"]["l2_bytes"])
        self.assertEqual([*report["limits"]], ["memory_read", "l2_read", "copy_to_device", "bf16_dot", "int8_dot"])
        for limit in report["limits"].values():
            self.assertTrue(0 < limit["min"] <= limit["median"] <= limit["max"], limit)
            self.assertTrue(limit["kernel"])
        self.assertEqual(report["skipped"], [])
        self.assertEqual([(row["workload"], row["bound_by"]) for row in report["results"]],
                         [("train", "int8_dot"), ("prefill", "int8_dot"), ("decode", "l2_read"), ("load", "copy_to_device")])
        for row in report["results"]:
            self.assertEqual(row["config"], "tiny")
            self.assertGreater(row["median"], 0)
            self.assertGreater(row["fraction_of_limit"], 0)

    def test_bench_of_the_float_twin_is_bound_by_the_bf16_products_of_the_gpu(self):
        text = self.bench("prefill", "--set", "model.linear=float").stdout.decode()
        self.assertRegex(text, r"^cuda: .+, sm_\d+; host: ")
        self.assertRegex(text, r"(?m)^bf16 dot +\d")
        self.assertRegex(text, r"(?m)^prefill +tiny +\d.* tokens/s +\d+\.\d % +bf16 dot +")

    def test_devices_lists_the_gpu_and_auto_takes_it(self):
        devices = json.loads(self.bitnet("devices", "--json").stdout)
        self.assertEqual(devices["auto"], "cuda")
        self.assertIsNone(devices["cuda"]["unusable"])
        self.assertRegex(devices["cuda"]["devices"][0]["architecture"], r"^sm_\d+$")
        self.assertIn("cuda   GPU 0: ", self.bitnet("devices").stdout.decode())


if __name__ == "__main__":
    program.main()
