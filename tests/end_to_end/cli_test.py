#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs the program as its users do: a tiny model is trained, killed, resumed, packed, evaluated and asked for text.

Usage: cli_test.py PATH_TO_BITNET [unittest options]
"""
import json
import os
import re
import resource
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

import program
from program import english_like_text, error_line, metrics, run

STEPS = 40

# One step takes some tens of milliseconds: long enough to be killed in the middle.
CONFIG = {
    "model": {
        "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2,
        "max_position_embeddings": 64,
    },
    "data": {"path": "text.txt", "split": [0.9, 0.05, 0.05]},
    "train": {
        "max_steps": STEPS, "per_device_train_batch_size": 8, "gradient_accumulation_steps": 4,
        "learning_rate": 3e-3, "warmup_steps": 5, "logging_steps": 1, "eval_steps": 10, "eval_max_bytes": 2048,
        "save_steps": 10, "save_total_limit": 0, "sample_steps": 20, "sample_bytes": 20,
    },
}


def weights(run_folder, step=STEPS):
    return (run_folder / f"checkpoint-{step}" / "model.safetensors").read_bytes()


def snapshot(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*"))
            if p.is_file() and not p.is_symlink()}


def wait_for(condition, what, process, timeout=120):
    end = time.monotonic() + timeout
    while not condition():
        if process.poll() is not None:
            raise AssertionError(f"the program ended before {what}: {process.stderr.read().decode()}")
        if time.monotonic() > end:
            raise AssertionError(f"timed out waiting for {what}")
        time.sleep(0.002)


class CliTest(unittest.TestCase):
    """One trained run, and its packed form, are shared by all tests; none changes them."""

    @classmethod
    def setUpClass(cls):
        cls.work = Path(tempfile.mkdtemp(prefix="bitnet-cli-test-"))
        (cls.work / "text.txt").write_bytes(english_like_text(300_000))
        (cls.work / "tiny.json").write_text(json.dumps(CONFIG))
        cls.run_a = cls.work / "runs" / "a"
        cls.training = run("train", "--config", "tiny.json", "--out", "runs/a", "--threads", 1, cwd=cls.work)
        cls.packed = cls.work / "runs" / "a-packed"
        cls.quantizing = run("quantize", "runs/a", "--json", cwd=cls.work)

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.work, ignore_errors=True)

    def bitnet(self, *arguments, **options):
        return run(*arguments, cwd=options.pop("cwd", self.work), **options)

    def train(self, out, *settings, **options):
        flags = [flag for setting in settings for flag in ("--set", setting)]
        return self.bitnet("train", "--config", "tiny.json", "--out", f"runs/{out}", "--threads", 1, *flags, **options)

    def start_training(self, out, *arguments):
        return subprocess.Popen([program.BITNET, "train", "--config", "tiny.json", "--out", f"runs/{out}", *arguments],
                                cwd=self.work, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    # --- the program ------------------------------------------------------------------------------------------------

    def test_version_and_help_go_to_stdout(self):
        self.assertRegex(self.bitnet("--version").stdout.decode(), r"^bitnet \d+\.\d+\.\d+ \(git \S+; \w+ [\d.]+, \w+, kernels scalar[ \w]*\)\n$")
        for command in ([], ["train"], ["eval"], ["generate"], ["quantize"], ["inspect"], ["bench"], ["devices"]):
            result = self.bitnet(*command, "--help")
            self.assertIn(b"--help", result.stdout)
            self.assertEqual(result.stderr, b"")

    def test_wrong_usage_is_exit_code_2_and_one_line(self):
        for arguments in ([], ["nothing"], ["eval", "--nothing"], ["eval", "--split", "half"], ["generate", "--seed", "x"],
                          ["generate", "a", "--seed", "-1"], ["generate", "a", "--head", "fp16"], ["eval", "--head", "int4"],
                          ["inspect"], ["eval", "--device", "tpu"], ["generate", "--top-p", "2", "a", "--model", "runs/a"],
                          ["generate", "--stop", "", "a", "--model", "runs/a"], ["quantize", "runs/a-packed"]):
            result = self.bitnet(*arguments, code=2)
            self.assertEqual(result.stdout, b"", arguments)
            self.assertEqual(len(result.stderr.decode().splitlines()), 1, arguments)
            error_line(result)

    def test_a_device_that_is_not_there_is_exit_code_4(self):
        devices = json.loads(self.bitnet("devices", "--json").stdout)
        self.assertGreater(devices["cpu"]["memory_bytes"], 0)
        why = devices["cuda"]["unusable"]
        self.assertEqual(devices["auto"], "cpu")
        result = self.bitnet("eval", "--model", "runs/a", "--device", "cuda", code=4)
        self.assertEqual(error_line(result), f"bitnet: error: --device cuda: {why}; use --device cpu")
        self.assertIn(why, self.bitnet("devices").stdout.decode())

    def test_a_missing_model_is_exit_code_1_and_named(self):
        for arguments in (["eval", "--model", "no/such"], ["generate", "x", "--model", "no/such"],
                          ["quantize", "no/such"], ["inspect", "no/such"]):
            self.assertIn("no/such", error_line(self.bitnet(*arguments, code=1)))

    def test_stdout_that_cannot_be_written_is_an_error(self):
        for arguments in (["eval", "--json", "--model", "runs/a"], ["inspect", "runs/a"], ["--version"],
                          ["generate", "x", "--max-new-tokens", "4", "--ignore-eos", "--model", "runs/a"], ["train", "--config", "tiny.json", "--print-config"]):
            with open("/dev/full", "wb") as full:
                result = self.bitnet(*arguments, code=1, stdout=full)
            self.assertIn("No space left on device", error_line(result))

    def test_stdout_that_is_closed_is_an_error(self):
        result = subprocess.run(f"'{program.BITNET}' inspect runs/a >&-", shell=True, cwd=self.work, stderr=subprocess.PIPE)
        self.assertEqual(result.returncode, 1)
        self.assertIn(b"standard output", result.stderr)

    def test_a_reader_that_has_enough_ends_the_program_quietly(self):
        process = subprocess.Popen([program.BITNET, "generate", "The ", "--max-new-tokens", "100000", "--ignore-eos",
                                    "--model", "runs/a"],
                                   cwd=self.work, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.assertEqual(len(process.stdout.read(10)), 10)
        process.stdout.close()
        self.assertEqual(process.wait(timeout=60), 0)
        self.assertEqual(process.stderr.read(), b"")
        process.stderr.close()

    # --- train ------------------------------------------------------------------------------------------------------

    def test_training_learns_and_keeps_stdout_clean(self):
        self.assertEqual(self.training.stdout, b"")
        losses = [event["loss"] for event in metrics(self.run_a) if event["event"] == "train"]
        self.assertEqual(len(losses), STEPS)
        self.assertLess(losses[-1], losses[0] - 1)
        for step in (10, 20, 30, 40):
            self.assertTrue((self.run_a / f"checkpoint-{step}" / "COMPLETE").exists())

    def test_the_last_run_is_the_default_model(self):
        self.train("last", "train.max_steps=2")
        self.assertEqual((self.work / "runs" / "latest").resolve(), (self.work / "runs" / "last").resolve())
        figure = json.loads(self.bitnet("eval", "--json").stdout)
        self.assertEqual(figure["model"], "runs/latest")
        self.assertEqual(figure["bits_per_byte"],
                         json.loads(self.bitnet("eval", "--json", "--model", "runs/last").stdout)["bits_per_byte"])
        self.assertIn(b"runs/last-packed", self.bitnet("quantize", "runs/latest").stdout)

    def test_two_threads_give_the_same_bytes_as_one(self):
        run("train", "--config", "tiny.json", "--out", "runs/threads", "--threads", 2, cwd=self.work)
        self.assertEqual(weights(self.work / "runs" / "threads"), weights(self.run_a))
        self.assertEqual(metrics(self.work / "runs" / "threads"), metrics(self.run_a))

    def test_a_run_that_was_killed_and_resumed_equals_one_that_was_not(self):
        folder = self.work / "runs" / "killed"
        process = self.start_training("killed", "--threads", "1")

        def steps_logged():
            file = folder / "metrics.jsonl"
            return len(re.findall(r'"event":"train"', file.read_text())) if file.exists() else 0

        wait_for(lambda: steps_logged() >= 24, "step 24", process)
        process.kill()
        process.wait()
        process.stdout.close()
        process.stderr.close()
        self.assertFalse((folder / "checkpoint-30").exists(), "killed too late for this test to mean anything")
        self.assertTrue((folder / "checkpoint-20").exists())
        self.bitnet("train", "--resume", "runs/killed", "--threads", 1)
        self.assertEqual(weights(folder), weights(self.run_a))
        self.assertEqual(metrics(folder), metrics(self.run_a))
        for name in ("optimizer.safetensors",):
            self.assertEqual((folder / "checkpoint-40" / name).read_bytes(),
                             (self.run_a / "checkpoint-40" / name).read_bytes())

    def test_an_interrupt_finishes_the_step_saves_and_is_exit_code_130(self):
        for number, sent in enumerate((signal.SIGINT, signal.SIGTERM)):
            folder = self.work / "runs" / f"interrupted-{number}"
            process = self.start_training(folder.name, "--set", "train.max_steps=1000000")
            wait_for(lambda: (folder / "metrics.jsonl").exists() and (folder / "metrics.jsonl").read_bytes().count(b"\n") > 2,
                     "the first steps", process)
            second = self.bitnet("train", "--resume", folder, code=1)
            self.assertIn("is being trained by another process", error_line(second))
            self.bitnet("train", "--config", "tiny.json", "--out", folder, "--force", code=1)
            process.send_signal(sent)
            out, err = process.communicate(timeout=60)
            self.assertEqual((process.returncode, out), (130, b""), err)
            last_step = max(event["step"] for event in metrics(folder))
            self.assertTrue((folder / f"checkpoint-{last_step}" / "COMPLETE").exists())
            self.bitnet("eval", "--model", folder)

    def test_a_fresh_run_does_not_overwrite_another(self):
        before = snapshot(self.run_a)
        result = self.bitnet("train", "--config", "tiny.json", "--out", "runs/a", code=2)
        self.assertIn("--force", error_line(result))
        self.assertEqual(snapshot(self.run_a), before)
        self.train("replaced", "train.max_steps=2")
        self.train("replaced", "train.max_steps=2", code=2)
        self.bitnet("train", "--config", "tiny.json", "--out", "runs/replaced", "--set", "train.max_steps=3", "--force")
        self.assertTrue((self.work / "runs" / "replaced" / "checkpoint-3").exists())
        self.assertFalse((self.work / "runs" / "replaced" / "checkpoint-2").exists())

    def test_force_replaces_only_runs(self):
        before = snapshot(self.packed)
        for folder in (self.packed, "."):
            result = self.bitnet("train", "--config", "tiny.json", "--out", folder, "--force", code=2)
            self.assertIn("no part of a run", error_line(result))
        self.assertEqual(snapshot(self.packed), before)

    def test_a_resumed_run_says_what_changed_and_warns_of_another_schedule_once(self):
        self.train("longer", "train.max_steps=7")
        for settings, warnings in ((["--set", "train.max_steps=8"], 1), ([], 0)):
            result = self.bitnet("train", "--resume", "runs/longer", "--threads", 1, *settings)
            text = result.stderr.decode()
            self.assertEqual(text.count("warning: "), warnings, text)
            self.assertEqual(text.count("changed: train.max_steps was 7, now it is 8"), warnings)
        config = self.work / "runs" / "longer" / "config.json"
        before = config.read_bytes()
        result = self.bitnet("train", "--resume", "runs/longer", "--set", "train.learning_rate=1")
        self.assertIn(b"nothing is left to do", result.stderr)
        self.assertEqual(config.read_bytes(), before)
        self.train("steady", "train.max_steps=2", "train.lr_scheduler_type=constant")
        result = self.bitnet("train", "--resume", "runs/steady", "--threads", 1, "--set", "train.max_steps=3")
        self.assertNotIn(b"warning: ", result.stderr)

    def test_resume_follows_links_as_the_system_does(self):
        (self.work / "far").mkdir()
        os.symlink("../runs", self.work / "far" / "runs")
        self.bitnet("train", "--config", "tiny.json", "--out", "elsewhere/b", "--set", "train.max_steps=2")
        self.bitnet("train", "--resume", "far/runs/latest", "--set", "train.max_steps=3")
        self.assertTrue((self.work / "elsewhere" / "b" / "checkpoint-3").exists())
        (self.work / "far" / "notes").write_text("../elsewhere/b")
        self.bitnet("train", "--resume", "far/notes", code=1)

    def test_names_that_no_file_can_have_and_names_that_are_no_utf_8(self):
        self.assertIn("File name too long", error_line(self.train("long", "data.path=" + "x" * 300, code=1)))
        self.assertIn("File name too long", error_line(self.train("x" * 300, code=1)))
        result = self.bitnet("train", "--config", "tiny.json", "--out", os.fsdecode(b"runs/\xff"),
                             "--set", "train.max_steps=1", "--json")
        self.assertEqual(json.loads(result.stdout)["run"], "runs/\ufffd")

    def test_wrong_config_keys_name_the_nearest_right_one(self):
        for setting, hint in (("train.learning_rat=1", "learning_rate"), ("model.hiden_size=64", "hidden_size"),
                              ("train.max_steps=many", "max_steps"), ("model.hidden_size=100", "hidden_size")):
            result = self.train("wrong", setting, code=2)
            self.assertIn(hint, error_line(result))
            self.assertFalse((self.work / "runs" / "wrong").exists())

    def test_a_dry_run_and_print_config_write_nothing(self):
        before = sorted(os.listdir(self.work / "runs"))
        plan = self.bitnet("train", "--config", "tiny.json", "--dry-run", "--out", "runs/dry").stdout
        self.assertIn(b"parameters", plan)
        sizes = json.loads(self.bitnet("train", "--config", "tiny.json", "--dry-run", "--json", "--device", "cpu").stdout)
        self.assertEqual(sizes["device"], "cpu")
        self.assertGreater(sizes["device_memory_bytes"], sizes["memory_bytes"])
        self.bitnet("train", "--config", "tiny.json", "--dry-run", "--out", "runs/a", code=2)
        huge = self.bitnet("train", "--config", "tiny.json", "--dry-run", "--set", "model.vocab_size=1048576",
                           "--set", "train.per_device_train_batch_size=32768", code=4)
        self.assertIn("of memory", error_line(huge))
        printed = json.loads(self.bitnet("train", "--config", "tiny.json", "--print-config",
                                         "--set", "train.seed=5").stdout)
        self.assertEqual(printed["train"]["seed"], 5)
        self.assertEqual(sorted(os.listdir(self.work / "runs")), before)

    def test_a_full_disk_leaves_earlier_checkpoints_intact(self):
        folder = self.work / "runs" / "full"
        self.train("full", "train.max_steps=20")
        before = snapshot(folder / "checkpoint-20")
        limit = len(before["model.safetensors"]) // 2

        def small_files():
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        result = self.bitnet("train", "--resume", "runs/full", "--set", f"train.max_steps={STEPS}", "--threads", 1, code=1,
                             preexec_fn=small_files)
        self.assertIn("File too large", error_line(result))
        self.assertEqual(snapshot(folder / "checkpoint-20"), before)
        self.bitnet("eval", "--model", "runs/full")
        self.bitnet("train", "--resume", "runs/full", "--set", f"train.max_steps={STEPS}", "--threads", 1)
        self.assertTrue((folder / f"checkpoint-{STEPS}" / "COMPLETE").exists())

        result = self.bitnet("quantize", "runs/full", "-o", "full-packed", code=1,
                             preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)))
        self.assertIn("File too large", error_line(result))
        self.assertEqual([name for name in os.listdir(self.work) if "full-packed" in name], [])

    # --- quantize, eval, generate, inspect ----------------------------------------------------------------------------

    def test_quantize_verifies_every_logit_and_reports_sizes(self):
        report = json.loads(self.quantizing.stdout)
        self.assertEqual(self.quantizing.stdout.count(b"\n"), 1)
        self.assertEqual(report["verification"]["different"], 0)
        self.assertGreater(report["verification"]["logits"], 0)
        self.assertEqual(report["latent_bytes"], (self.run_a / "checkpoint-40" / "model.safetensors").stat().st_size)
        self.assertEqual(report["packed_bytes"], (self.packed / "model.safetensors").stat().st_size)
        self.assertLess(report["packed_bytes"], report["latent_bytes"] / 2)
        self.assertAlmostEqual(report["bits_per_projection_weight"], 2, delta=0.05)
        self.assertAlmostEqual(sum(report["codes"].values()), 1)
        self.assertEqual(sorted(report["codes_by_kind"]),
                         sorted(f"{kind}_proj" for kind in ("q", "k", "v", "o", "gate", "up", "down")))
        joule = report["energy"]["joule_per_token"]
        self.assertEqual(sorted(joule), ["45 nm", "7 nm"])
        self.assertLess(joule["7 nm"]["bitnet"], joule["7 nm"]["fp16"])

    def test_quantize_refuses_to_overwrite_and_replaces_with_force(self):
        before = snapshot(self.packed)
        self.assertIn("--force", error_line(self.bitnet("quantize", "runs/a", code=1)))
        self.assertEqual(snapshot(self.packed), before)
        text = self.bitnet("quantize", "runs/a/checkpoint-10", "-o", "p").stdout.decode()
        self.assertIn("bit for bit", text)
        self.bitnet("quantize", "runs/a", "-o", "p", "--force")
        self.assertEqual(snapshot(self.work / "p"), before)
        self.assertEqual(self.bitnet("quantize", "runs/a", "-o", "text.txt", "--force", code=1).stdout, b"")

    def test_bf16_is_smaller_and_says_how_far_off_it_is(self):
        report = json.loads(self.bitnet("quantize", "runs/a", "-o", "half", "--float-dtype", "bf16", "--json").stdout)
        self.assertLess(report["packed_bytes"], (self.packed / "model.safetensors").stat().st_size)
        self.assertGreater(report["verification"]["largest_difference"], 0)

    def test_latent_and_packed_models_have_the_same_bits_per_byte_to_the_last_digit(self):
        def figure(model, *arguments):
            out = self.bitnet("eval", "--model", model, "--json", *arguments).stdout
            self.assertEqual(out.count(b"\n"), 1)
            return json.loads(out), re.search(rb'"bits_per_byte":[^,]*', out).group()

        for arguments in ([], ["--data", "text.txt"], ["--split", "valid", "--stride", "7"], ["--threads", "1", "--batch", "3"]):
            latent, latent_text = figure("runs/a", *arguments)
            packed, packed_text = figure("runs/a-packed", *arguments)
            self.assertEqual(latent_text, packed_text)
            self.assertEqual((latent["form"], packed["form"]), ("latent", "packed"))
        self.assertGreater(latent["bits_per_byte"], 0)
        self.assertEqual(latent["bytes"], 15000)
        self.assertAlmostEqual(latent["perplexity"], 2 ** latent["bits_per_byte"])
        self.assertGreater(latent["tokens_per_second"], 0)
        by_file, _ = figure(self.run_a / "checkpoint-40" / "model.safetensors")
        self.assertEqual(by_file["bits_per_byte"], figure("runs/a")[0]["bits_per_byte"])

    def test_eval_prints_one_line_and_takes_each_split(self):
        sizes = {"train": 270000, "valid": 15000, "test": 15000, "all": 4000}
        (self.work / "short.txt").write_bytes(english_like_text(4000))
        for split in ("valid", "test"):
            out = self.bitnet("eval", "--model", "runs/a", "--split", split).stdout.decode()
            self.assertRegex(out, rf"^bits/byte \d+\.\d+  perplexity \d+\.\d+  bytes {sizes[split]}  tokens/s \d+ .*\n$")
        self.assertIn("bytes 4000 ", self.bitnet("eval", "--model", "runs/a", "--data", "short.txt", "--split",
                                                 "all").stdout.decode())
        self.assertIn("bytes 3600 ", self.bitnet("eval", "--model", "runs/a", "--data", "short.txt", "--split",
                                                 "train").stdout.decode())

    def test_eval_needs_data_that_is_there(self):
        self.assertIn("nowhere.txt", error_line(self.bitnet("eval", "--model", "runs/a", "--data", "nowhere.txt", code=1)))
        shutil.copytree(self.packed, self.work / "elsewhere")
        figures = [json.loads(self.bitnet("eval", "--json", "--model", model).stdout) for model in ("elsewhere", "runs/a")]
        self.assertEqual(*(figure["bits_per_byte"] for figure in figures))  # a packed file knows its data
        shutil.copytree(self.run_a / "checkpoint-40", self.work / "alone" / "model")
        (self.work / "alone" / "config.json").write_text("not of this model")
        self.assertIn("--data", error_line(self.bitnet("eval", "--model", "alone/model", code=2)))
        result = self.bitnet("eval", "--model", "alone/model", "--data", "text.txt")
        self.assertIn(b"cut as", result.stderr)
        (self.work / "alone" / "model").rename(self.work / "alone" / "checkpoint-40")
        self.bitnet("eval", "--model", "alone/checkpoint-40", "--data", "text.txt", code=3)
        result = self.bitnet("eval", "--model", "alone/checkpoint-40", "--data", "text.txt", "--split", "all")
        self.assertEqual(result.stderr, b"")

    def test_latent_and_packed_models_write_the_same_text(self):
        for arguments in (["--greedy"], ["--seed", "3"], ["--temperature", "1.2", "--top-k", "20", "--top-p", "0.9"]):
            arguments = ["generate", "The old ", "--max-new-tokens", "150", "--ignore-eos", *arguments, "--model"]
            latent, packed = self.bitnet(*arguments, "runs/a"), self.bitnet(*arguments, "runs/a-packed", "--threads", 1)
            self.assertEqual(latent.stdout, packed.stdout)
            self.assertEqual(len(latent.stdout), 150)  # more than twice the context
            self.assertIn(b"generated 150 tokens", latent.stderr)
            self.assertRegex(latent.stderr, rb"first token after \d+\.\d\d s; prompt 9 tokens")

    def check_what_eval_rounds(self, option, rounded, largest_difference):
        scores = {}
        for precision in ("fp32", rounded):
            result = json.loads(self.bitnet("eval", "--json", f"--{option}", precision, "--model", "runs/a-packed").stdout)
            self.assertEqual(result[option.replace("-", "_")], precision)
            scores[precision] = result["bits_per_byte"]
        default = json.loads(self.bitnet("eval", "--json", "--model", "runs/a-packed").stdout)
        self.assertEqual(default["bits_per_byte"], scores["fp32"])
        self.assertNotEqual(scores[rounded], scores["fp32"])
        self.assertLess(abs(scores[rounded] - scores["fp32"]), largest_difference)

    def test_an_int8_head_scores_nearly_as_an_fp32_head(self):
        self.check_what_eval_rounds("head", "int8", 0.02)

    def test_fp16_keys_and_values_score_nearly_as_fp32_ones(self):
        self.check_what_eval_rounds("kv-cache", "fp16", 0.002)

    def test_the_prompt_comes_from_the_argument_a_file_or_stdin(self):
        tail = ["--greedy", "--max-new-tokens", "30", "--ignore-eos", "--model", "runs/a"]
        expected = self.bitnet("generate", "Every cat", *tail).stdout
        (self.work / "prompt.txt").write_bytes(b"Every cat")
        self.assertEqual(self.bitnet("generate", "--prompt-file", "prompt.txt", *tail).stdout, expected)
        self.assertEqual(self.bitnet("generate", *tail, input=b"Every cat").stdout, expected)
        self.assertEqual(self.bitnet("generate", "--echo", "Every cat", *tail).stdout, b"Every cat" + expected)
        self.assertEqual(len(self.bitnet("generate", "", *tail).stdout), 30)
        self.bitnet("generate", "a", "--prompt-file", "prompt.txt", *tail, code=2)
        long = self.bitnet("generate", "word " * 100, *tail)
        self.assertIn(b"longer than the context of 64", long.stderr)
        self.assertEqual(len(long.stdout), 30)

    def test_a_stop_string_ends_the_text(self):
        tail = ["The old ", "--greedy", "--max-new-tokens", "60", "--ignore-eos", "--model", "runs/a"]
        whole = self.bitnet("generate", *tail).stdout
        stop = whole[20:24]
        cut = self.bitnet("generate", "--stop", "never seen", "--stop", stop.decode(), *tail)
        self.assertEqual(cut.stdout, whole[:whole.index(stop)])
        self.assertIn(b"at a stop string", cut.stderr)

    def test_inspect_lists_every_tensor(self):
        for path, form in (("runs/a", "latent"), ("runs/a-packed", "packed")):
            report = json.loads(self.bitnet("inspect", path, "--json").stdout)
            self.assertEqual((report["form"], report["warnings"]), (form, []))
            self.assertEqual(report["config"]["hidden_size"], 64)
            tensors = {t["name"]: t for t in report["tensors"]}
            projection = tensors["model.layers.1.mlp.down_proj.weight"]
            self.assertEqual(projection["shape"], [64, 128] if form == "latent" else [16, 128])
            self.assertAlmostEqual(sum(projection["codes"][c] for c in ("minus", "zero", "plus")), 1)
            text = self.bitnet("inspect", path).stdout.decode()
            for name in tensors:
                self.assertIn(name, text)

    def test_names_in_a_foreign_file_cannot_command_the_terminal(self):
        name = "\x1b]0;owned\x07\x9b31m" + "x" * 5000
        header = json.dumps({"__metadata__": {name: name}, name: {"dtype": "U8", "shape": [1], "data_offsets": [0, 1]}},
                            ensure_ascii=False).encode()
        (self.work / "foreign.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"x")
        for arguments in ([], ["--json"]):
            out = self.bitnet("inspect", "foreign.safetensors", *arguments).stdout
            self.assertTrue(all(0x20 <= byte < 0x7f or byte == 0x0a for byte in out.replace("…".encode(), b"")), out)
        self.assertEqual(json.loads(out)["tensors"][0]["name"], name)
        text = self.bitnet("inspect", "foreign.safetensors").stdout.decode()
        self.assertIn("\\x1b]0;owned", text)
        self.assertLess(max(map(len, text.splitlines())), 300)

    # --- precision of the cache -------------------------------------------------------------------------------------

    def test_generate_keeps_keys_and_values_in_fp16_unless_told(self):
        arguments = ["generate", "The ", "--model", "runs/a", "--max-new-tokens", 200, "--temperature", "1.5", "--ignore-eos"]
        texts = {precision: self.bitnet(*arguments, "--kv-cache", precision).stdout for precision in ("fp32", "fp16")}
        self.assertEqual(self.bitnet(*arguments).stdout, texts["fp16"])
        self.assertEqual({len(text) for text in texts.values()}, {200})
        self.assertNotEqual(texts["fp32"], texts["fp16"])
        error_line(self.bitnet("generate", "The ", "--model", "runs/a", "--kv-cache", "fp8", code=2))

    def test_values_beyond_fp16_are_an_error_that_names_the_option(self):
        shutil.copytree(self.packed, self.work / "large")
        file = self.work / "large" / "model.safetensors"
        content = bytearray(file.read_bytes())
        start = 8 + int.from_bytes(content[:8], "little")
        header = json.loads(content[8:start])
        scale = start + header["model.layers.0.self_attn.v_proj.weight_scale"]["data_offsets"][0]
        struct.pack_into("<f", content, scale, 1e6)
        file.write_bytes(content)
        generate = ["generate", "The ", "--model", "large", "--max-new-tokens", 4, "--ignore-eos"]
        score = ["eval", "--data", "text.txt", "--model", "large"]
        self.assertEqual(len(self.bitnet(*generate, "--kv-cache", "fp32").stdout), 4)
        self.bitnet(*score)
        for arguments in (generate, [*score, "--kv-cache", "fp16"]):
            self.assertIn("--kv-cache fp32", error_line(self.bitnet(*arguments, code=1)))

    # --- bench ------------------------------------------------------------------------------------------------------

    def check_limits(self, report):
        self.assertEqual(sorted({*report["limits"]} - {"l3_read"}), ["fp32_fma", "int8_dot", "l2_read", "memory_read"])
        self.assertEqual("l3_read" in report["limits"], any(row["bound_by"] == "l3_read" for row in report["results"]))
        self.assertGreater(report["l2_bytes"], 0)
        for limit in report["limits"].values():
            self.assertGreater(limit["min"], 0)
            self.assertTrue(limit["min"] <= limit["median"] <= limit["max"], limit)

    def test_bench_measures_the_limits_of_the_machine(self):
        environment = {**os.environ, "BITNET_CPU_ISA": "scalar"}
        report = json.loads(self.bitnet("bench", "limits", "--json", "--repeats", 1, "--threads", 1,
                                        env=environment).stdout)
        self.check_limits(report)
        self.assertEqual((report["isa"], report["threads"], report["results"]), ("scalar", 1, []))

    def test_bench_measures_every_workload_of_a_config_as_a_fraction_of_a_limit(self):
        temporary = self.work / "temporary"
        (temporary / "bitnet-bench-killed" / "model").mkdir(parents=True)  # what a killed run left
        report = json.loads(self.bitnet("bench", "--json", "--repeats", 1, "--config", "tiny.json",
                                        env={**os.environ, "TMPDIR": str(temporary)}).stdout)
        self.check_limits(report)
        self.assertEqual([row["workload"] for row in report["results"]], ["train", "prefill", "decode", "load"])
        self.assertEqual(report["skipped"], [])
        self.assertEqual(list(temporary.iterdir()), [])
        for row in report["results"]:
            self.assertEqual(row["config"], "tiny")
            self.assertGreaterEqual(row["repeats"], 1)
            self.assertGreater(row["fraction_of_limit"], 0)
            self.assertIn(row["bound_by"], ("memory_read", "l3_read", "l2_read", "int8_dot", "fp32_fma"))
            if row["peak_memory_bytes"] is not None:  # not every system lets us know
                self.assertGreater(row["peak_memory_bytes"], 2**20)

    def test_bench_prints_a_table_and_leaves_out_what_does_not_fit(self):
        huge = ["--set", "train.per_device_train_batch_size=32768", "--set", "train.gradient_accumulation_steps=1",
                "--set", "model.intermediate_size=1048576"]
        result = self.bitnet("bench", "train", "--repeats", 1, "--config", "tiny.json", *huge, code=4)
        self.assertIn("of memory", error_line(result))
        text = self.bitnet("bench", "decode", "--repeats", 1, "--config", "tiny.json").stdout.decode()
        self.assertRegex(text, r"(?m)^memory read +\d")
        self.assertRegex(text, r"(?m)^decode +tiny +\d.* tokens/s +\d+\.\d % +l2 read +\d+ MB$")

    def test_bench_refuses_what_it_cannot_measure(self):
        for arguments in (["speed"], ["prefill", "--config", "tiny.json", "--tokens", "65"],
                          ["decode", "--config", "tiny.json", "--context", "64"], ["all", "--repeats", "0"],
                          ["all", "--device", "cpu", "--set", "train.backward=bf16"],
                          ["all", "--device", "cpu", "--set", "train.activation_dtype=bf16"]):
            result = self.bitnet("bench", *arguments, code=2)
            error_line(result)
            self.assertNotIn(b"measuring", result.stderr)

    def test_bench_reads_only_the_config_that_it_needs(self):
        # The built-in config's train.sequence_length is 256.
        report = json.loads(self.bitnet("bench", "prefill", "--json", "--repeats", 1, "--tokens", 8,
                                        "--set", "model.max_position_embeddings=16").stdout)
        self.assertEqual([row["tokens"] for row in report["results"]], [8])
        self.assertEqual((report["head"], report["kv_cache"]), ("int8", "fp16"))

    def test_bench_measures_the_precision_that_is_asked_for(self):
        sizes = {}
        for precision in ("fp32", "fp16"):
            for workload in ("decode", "load"):
                report = json.loads(self.bitnet("bench", workload, "--json", "--repeats", 1, "--config", "tiny.json",
                                                "--kv-cache", precision).stdout)
                self.assertEqual(report["kv_cache"], precision)
                row = report["results"][0]
                sizes[precision, workload] = row["bytes_kv_cache" if workload == "decode" else "kv_cache_bytes"]
        text = self.bitnet("bench", "decode", "--repeats", 1, "--config", "tiny.json", "--kv-cache", "fp32").stdout.decode()
        self.assertIn("(int8 head, fp32 keys and values)", text)
        for workload in ("decode", "load"):
            self.assertGreater(sizes["fp16", workload], 0)
            self.assertEqual(sizes["fp32", workload], 2 * sizes["fp16", workload])

    def test_one_failed_workload_costs_the_others_nothing(self):
        report = json.loads(self.bitnet("bench", "--json", "--repeats", 1, "--config", "tiny.json", "--set",
                                        "train.max_steps=1", env={**os.environ, "TMPDIR": "/nowhere"}).stdout)
        self.assertEqual([row["workload"] for row in report["results"]], ["prefill", "decode"])
        self.assertEqual([skipped["workload"] for skipped in report["skipped"]], ["train", "load"])
        self.assertIn("train.max_steps", report["skipped"][0]["reason"])
        self.assertIn("TMPDIR", report["skipped"][1]["reason"])

    def test_damaged_files_are_exit_code_3_with_path_and_offset(self):
        damaged = self.work / "damaged"
        shutil.copytree(self.packed, damaged)
        file = damaged / "model.safetensors"
        whole = file.read_bytes()
        for content in (whole[:len(whole) // 2], whole[:9], whole[:3], b"", b"\xff" * 100,
                        b"\x00" * 64, whole + b"x", (2**62).to_bytes(8, "little") + whole[8:]):
            file.write_bytes(content)
            for arguments in (["eval", "--data", "text.txt", "--model", "damaged"], ["generate", "x", "--model", "damaged"],
                              ["inspect", "damaged"]):
                line = error_line(self.bitnet(*arguments, code=3))
                self.assertRegex(line, r"damaged/model\.safetensors: at byte \d+: ")


if __name__ == "__main__":
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # these tests know what the CPU answers
    program.main()
