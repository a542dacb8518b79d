#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Compares logits of `bitnet` with those of Hugging Face's transformers, in both directions.

Usage: check_transformers.py BITNET WORK_FOLDER. Needs torch, transformers and accelerate (scripts/check_interop.sh). Prints a table in
Markdown; exit status 1 when a case is out of its bound.

What is compared: max |ours - theirs| / rms(theirs) over all logits of one text of bytes. Float models agree but for the order of sums. Where activations
are rounded to int8, a value within float error of the middle between two codes may go the other way, and every later token sees that. How far this carries a model is
measured on transformers alone: its logits after its norm gains were moved by a float's rounding, eight times. Ours may differ from theirs by three times the
largest of these spreads. Latent weights are chosen away from the middle between two codes, so that both programs quantise them to the same codes.
"""
import json
import os
import subprocess
import sys
from pathlib import Path

os.environ["TORCHDYNAMO_DISABLE"] = "1"  # transformers compiles its BitLinear at the first call, which takes minutes
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, BitNetConfig, BitNetForCausalLM, LlamaConfig, LlamaForCausalLM

TEXT = ("A ternary weight is -1, 0 or +1; \u00e9t\u00e9 na\u00efve. 0123456789\n\tEnd of the sample.\n" * 2).encode()[:120]
FLOAT_BOUND = 1e-4
MOST_SPREADS = 3
BITLINEAR = {"quant_method": "bitnet", "linear_class": "bitlinear", "quantization_mode": "offline"}
OFFLINE = {"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "offline"}
ONLINE = {"quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "online"}


class Checker:
    def __init__(self, bitnet, work):
        self.bitnet, self.work = bitnet, work
        self.text = work / "text"
        self.text.write_bytes(TEXT)
        self.failed = False

    def run(self, *arguments):
        command = [str(self.bitnet), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)}\nexit status {done.returncode}: {done.stderr}")
        return done.stdout

    def ours(self, model):
        """Logits [bytes, vocabulary]; position p has seen byte 0 and the first p bytes."""
        logits = self.work / "logits.safetensors"
        self.run("eval", "--device", "cpu", "--model", model, "--data", self.text, "--split", "all", "--logits", logits, "--json")
        return load_file(logits)["logits"]

    def load(self, folder):
        return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, device_map="cpu").eval()

    @torch.no_grad()
    def theirs(self, model):
        return model(torch.tensor([[0, *TEXT[:-1]]])).logits[0]

    @torch.no_grad()
    def spread(self, model):
        """How far a rounding of the norm gains moves the logits."""
        gains = [p for name, p in model.named_parameters() if "norm" in name]
        exact, logits, worst = [p.clone() for p in gains], self.theirs(model), 0.0
        torch.manual_seed(3)
        for _ in range(8):
            for gain, value in zip(gains, exact):
                gain.copy_(value * (1 + 2.0**-23 * torch.randint(-1, 2, value.shape)))
            worst = max(worst, distance(self.theirs(model), logits).max().item())
        return worst

    def compare(self, case, ours, model, exact_floats):
        theirs = self.theirs(model)
        difference = distance(ours, theirs)
        worst, median = difference.max().item(), difference.median().item()
        spread = 0.0 if exact_floats else self.spread(model)
        good = worst <= max(FLOAT_BOUND, MOST_SPREADS * spread)
        self.failed |= not good
        shown = "" if exact_floats else f"{spread:.1e}"
        print(f"| {case} | {worst:.1e} | {median:.1e} | {shown} | {'yes' if good else '**NO**'} |", flush=True)


def distance(a, b):
    """Of each token, the largest difference over the logits' root mean square."""
    return (a - b).abs().max(dim=1).values / b.square().mean().sqrt()


def bitnet_config(**changes):
    return BitNetConfig(**{
        "vocab_size": 256, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 128, "rope_theta": 10000.0, "tie_word_embeddings": True,
        "bos_token_id": 0, "eos_token_id": 0, **changes})


def llama_config(**changes):
    return LlamaConfig(**{
        "vocab_size": 256, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 128, "rope_theta": 10000.0, "rms_norm_eps": 1e-5, "bos_token_id": 0,
        "eos_token_id": 0, **changes})


def random_model(kind, config, seed):
    torch.manual_seed(seed)
    model = kind(config)
    for name, parameter in model.named_parameters():  # weights of a trained model's size, gains that are not all 1
        torch.nn.init.normal_(parameter, 1.0 if "norm" in name else 0.0, 0.1 if "norm" in name else 0.06)
        if "_proj" in name:  # nowhere near the middle between the codes 0 and 1
            in_codes = parameter.detach() / parameter.detach().abs().mean()
            parameter.data[(in_codes.abs() - 0.5).abs() < 0.01] *= 0.9
    return model.eval()


def save(model, folder, quantization=None, tensors=None):
    model.save_pretrained(folder)
    if quantization is not None:
        config = json.loads((folder / "config.json").read_text())
        config["quantization_config"] = quantization
        (folder / "config.json").write_text(json.dumps(config))
    if tensors is not None:
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def packed_tensors(model, divide):
    """The state of a model as packed files hold it: HF's 2-bit rows in quarters, and a scale that multiplies or divides."""
    tensors = {}
    for name, value in model.state_dict().items():
        if name == "lm_head.weight" and model.config.tie_word_embeddings:
            continue
        if "_proj" not in name:
            tensors[name] = value.clone()
            continue
        scale = value.abs().mean().clamp(min=1e-5)
        codes = ((value / scale).round().clamp(-1, 1) + 1).to(torch.uint8)
        quarter = codes.shape[0] // 4
        tensors[name] = sum((codes[i * quarter:(i + 1) * quarter] << (2 * i) for i in range(1, 4)), codes[:quarter].clone())
        tensors[name + "_scale"] = (1 / scale if divide else scale).reshape(1)
    return tensors


def from_transformers(check):
    for name, kind, config in [
        ("BitNet dense, SiLU", BitNetForCausalLM, bitnet_config(hidden_act="silu")),
        ("BitNet dense, ReLU²", BitNetForCausalLM, bitnet_config(hidden_act="relu2")),
        ("Llama, untied", LlamaForCausalLM, llama_config(tie_word_embeddings=False)),
        ("Llama, tied, heads of 32", LlamaForCausalLM, llama_config(tie_word_embeddings=True, head_dim=32)),
    ]:
        folder = check.work / "from" / name.replace(" ", "_").replace(",", "").replace("²", "2")
        model = random_model(kind, config, seed=1)
        save(model, folder)
        check.compare(f"{name} → ours", check.ours(folder), model, exact_floats=True)

    for name, kind, config, quantization in [
        ("BitNet packed, multiplies", BitNetForCausalLM, bitnet_config(hidden_act="relu2"), OFFLINE),
        ("BitNet packed, divides", BitNetForCausalLM, bitnet_config(hidden_act="silu"), BITLINEAR),
        ("Llama packed, divides", LlamaForCausalLM, llama_config(tie_word_embeddings=False), BITLINEAR),
        ("BitNet masters", BitNetForCausalLM, bitnet_config(hidden_act="relu2"), ONLINE),
    ]:
        folder = check.work / "from" / name.replace(" ", "_").replace(",", "")
        model = random_model(kind, config, seed=2)
        tensors = None if quantization is ONLINE else packed_tensors(model, quantization is BITLINEAR)
        save(model, folder, quantization, tensors)
        check.compare(f"{name} → ours", check.ours(folder), check.load(folder), exact_floats=False)


def to_transformers(check):
    data = check.work / "training_text"
    data.write_bytes(TEXT * 100)
    for profile in ["bitnet", "bitnet-relu2", "llama"]:
        for linear in ["float", "b158"]:
            run = check.work / "to" / f"{profile}-{linear}"
            config = {"model": {"profile": profile, "linear": linear, "hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": 2,
                                "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 128},
                      "data": {"path": str(data)}, "train": {"max_steps": 20, "per_device_train_batch_size": 2, "learning_rate": 3e-3}}
            (check.work / "config.json").write_text(json.dumps(config))
            check.run("train", "--device", "cpu", "--config", check.work / "config.json", "--out", run, "--force")
            source = check.ours(run)
            for kind in ["hf"] if linear == "float" else ["hf", "hf-masters"]:
                folder = check.work / "to" / f"{profile}-{linear}-{kind}"
                check.run("export", run, "--to", kind, "-o", folder, "--force")
                check.compare(f"{profile}, {linear} → {kind}", check.ours(folder), check.load(folder), exact_floats=linear == "float")
                if kind == "hf" and not torch.equal(source, check.ours(folder)):
                    check.failed = True
                    print(f"{folder}: the exported model's logits differ from the trained model's")


def main():
    bitnet, work = Path(sys.argv[1]).resolve(), Path(sys.argv[2])
    work.mkdir(parents=True, exist_ok=True)
    check = Checker(bitnet, work)
    print("| case | largest difference | median token | spread of transformers | within its bound |\n|---|---|---|---|---|")
    from_transformers(check)
    to_transformers(check)
    return 1 if check.failed else 0


if __name__ == "__main__":
    sys.exit(main())
