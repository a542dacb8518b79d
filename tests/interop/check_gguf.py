#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Reads exported GGUF files with the `gguf` package and compares names, shapes and values with the model they were made of.

Usage: check_gguf.py BITNET WORK_FOLDER. Needs gguf, numpy and safetensors (scripts/check_interop.sh). Prints a table in Markdown; exit status 1
when a file differs.
"""
import json
import subprocess
import sys
from pathlib import Path

import gguf
import gguf.quants
import numpy as np
from safetensors.numpy import load_file

LAYER = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.attn_sub_norm": "attn_sub_norm", "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.ffn_sub_norm": "ffn_sub_norm", "mlp.down_proj": "ffn_down",
}
HEADS, KV_HEADS, LAYERS = 4, 2, 2
MODEL = {"hidden_size": 256, "intermediate_size": 512, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
         "num_key_value_heads": KV_HEADS, "max_position_embeddings": 128}


def run(*command):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(map(str, command))}\nexit status {done.returncode}: {done.stderr}")


def unpacked(packed):
    return np.concatenate([(packed >> (2 * i)) & 3 for i in range(4)]).astype(np.float32) - 1


def permuted(matrix, heads):
    """Rows as arch `llama` wants them: the two halves of a head interleaved."""
    rows, columns = matrix.shape
    return matrix.reshape(heads, 2, rows // heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def expected_tensors(folder, permute):
    stored = load_file(folder / "model.safetensors")
    names = {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}
    for layer in range(LAYERS):
        for theirs, ours in LAYER.items():
            names[f"model.layers.{layer}.{theirs}.weight"] = f"blk.{layer}.{ours}.weight"
    tensors = {}
    for name, value in stored.items():
        if name.endswith("_scale"):
            continue
        if value.dtype == np.uint8:
            value = unpacked(value) * np.float32(stored[name + "_scale"][0])
        if permute and "q_proj" in name:
            value = permuted(value, HEADS)
        if permute and "k_proj" in name:
            value = permuted(value, KV_HEADS)
        tensors[names[name]] = value.astype(np.float32)
    return tensors


def values_of(tensor):
    if tensor.tensor_type == gguf.GGMLQuantizationType.F32:
        return np.array(tensor.data)
    return gguf.quants.dequantize(tensor.data, tensor.tensor_type)


def compare(file, expected):
    """The largest |difference| over |largest value| of a tensor, after comparing names and shapes."""
    read = {tensor.name: tensor for tensor in gguf.GGUFReader(file).tensors}
    scales = {name: read.pop(name).data[0] for name in list(read) if name.endswith(".scale")}
    if set(read) != set(expected):
        raise SystemExit(f"{file}: tensors differ: {sorted(set(read) ^ set(expected))}")
    worst = 0.0
    for name, tensor in read.items():
        value = values_of(tensor).reshape(expected[name].shape)
        if list(reversed([int(n) for n in tensor.shape])) != list(expected[name].shape):
            raise SystemExit(f"{file}: {name} has dimensions {tensor.shape}, expected {expected[name].shape} reversed")
        value = value * np.float32(scales.get(name.replace(".weight", ".scale"), 1.0))
        worst = max(worst, float(np.abs(value - expected[name]).max() / np.abs(expected[name]).max()))
    return worst


def main():
    bitnet, work = Path(sys.argv[1]).resolve(), Path(sys.argv[2])
    work.mkdir(parents=True, exist_ok=True)
    (work / "text").write_bytes(b"A ternary weight is -1, 0 or +1. " * 400)
    known = {t.name for t in gguf.quants._type_traits}
    print("| model | type | read by gguf | largest difference | bound |\n|---|---|---|---|---|")
    failed = False
    for profile, linear, arch, types in [
        ("bitnet", "b158", "bitnet", ["q2_0", "tq2_0", "tq1_0", "f16", "bf16", "f32"]), ("bitnet", "b1", "bitnet", ["q1_0"]),
        ("bitnet-relu2", "b158", "bitnet-b1.58", ["q2_0", "tq2_0"]), ("llama", "b158", "llama", ["q2_0", "tq2_0"]),
    ]:
        config = {"model": {"profile": profile, "linear": linear, **MODEL}, "data": {"path": str(work / "text")},
                  "train": {"max_steps": 5, "per_device_train_batch_size": 2}}
        (work / "config.json").write_text(json.dumps(config))
        folder, packed = work / f"{profile}-{linear}", work / f"{profile}-{linear}-packed"
        run(bitnet, "train", "--device", "cpu", "--config", work / "config.json", "--out", folder, "--force")
        run(bitnet, "quantize", folder, "-o", packed, "--force")
        for kind in types:
            file = work / f"{profile}-{linear}-{kind}.gguf"
            run(bitnet, "export", folder, "--to", "gguf", "--type", kind, "--gguf-arch", arch, "-o", file, "--force")
            if kind.upper() not in known | {"F16", "F32"}:
                print(f"| {profile} {linear} | {kind} | not known to this version | | |")
                continue
            worst = compare(file, expected_tensors(packed, permute=arch == "llama"))
            # Embeddings may be halves; a scale in a block's half is rounded once (2^-11), bf16 weights once (2^-8).
            bound = 2.0**-8 if kind == "bf16" else 2.0**-11
            good = worst <= bound
            failed |= not good
            print(f"| {profile} {linear} | {kind} | yes | {worst:.1e} | {bound:.1e}{'' if good else ' **exceeded**'} |", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
