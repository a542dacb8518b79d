#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""How quick the CUDA kernels can be at best, by arithmetic: the tables of docs/cuda.md.

Usage: cuda_roofline.py [--update FILE | --check FILE]. Without arguments the tables are printed; --update FILE writes them between the two
marks of a Markdown file, --check FILE fails where it has others.

A kernel can be no quicker than its bytes of device memory at the memory's bandwidth, and its operations at the rate of the tensor cores.
Each operand counts once as read from device memory and each result once as written, though the second-level cache may hold small ones;
operations are multiplications and additions, 2 to a product.
"""
import argparse
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BEGIN, END = "<!-- scripts/cuda_roofline.py begins -->", "<!-- scripts/cuda_roofline.py ends -->"


@dataclass(frozen=True)
class Device:
    """Figures of NVIDIA's data sheets: bytes/s; operations/s of dense products, int8 to int32 and bf16 to fp32."""
    name: str
    memory: float
    int8: float
    bf16: float


DEVICES = [Device("A100 80GB SXM", 2.04e12, 624e12, 312e12), Device("H100 SXM", 3.35e12, 1979e12, 989e12),
           Device("RTX 4090", 1.01e12, 661e12, 165e12)]


@dataclass(frozen=True)
class Work:
    """One kernel at one shape. `times`: in a token (decoding) or an update (training)."""
    kernel: str
    shape: str
    times: int
    memory_bytes: float
    operations: float = 0
    kind: str = ""  # of the tensor core's operands: int8, bf16; empty: other units, never the limit here

    def seconds(self, device):
        compute = self.operations / getattr(device, self.kind) if self.kind else 0
        return max(self.memory_bytes / device.memory, compute)

    def bound(self, device):
        return "compute" if self.kind and self.operations / getattr(device, self.kind) > self.memory_bytes / device.memory else "memory"


@dataclass(frozen=True)
class Model:
    D: int  # hidden_size
    F: int  # intermediate_size
    L: int  # layers
    H: int  # query heads
    G: int  # KV heads
    V: int  # vocabulary

    @property
    def E(self):
        return self.D // self.H

    def projections(self):
        """(name, outputs N, inputs K) of the seven BitLinears of a block."""
        kv = self.G * self.E
        return [("q", self.D, self.D), ("k", kv, self.D), ("v", kv, self.D), ("o", self.D, self.D), ("gate", self.F, self.D),
                ("up", self.F, self.D), ("down", self.D, self.F)]

    def ternary(self):
        return sum(n * k for _, n, k in self.projections())


def read_model(name):
    text = re.sub(r"//.*", "", (ROOT / "configs" / f"{name}.json").read_text("utf-8"))
    m = json.loads(text)["model"]
    heads = m["num_attention_heads"]
    return Model(m["hidden_size"], m["intermediate_size"], m["num_hidden_layers"], heads, m.get("num_key_value_heads", heads),
                 m["vocab_size"])


def decoding(m, context):
    """The kernels of one token after `context` others. Codes are int8, weights two bits, the cache and all else fp32."""
    def gemv(names):
        chosen = [(n, k) for name, n, k in m.projections() if name in names]
        depth = chosen[0][1]
        outputs = sum(n for n, _ in chosen)
        residual = 4 * outputs if names in (("o",), ("down",)) else 0
        return Work("packed_gemv", f"{' '.join(names)}: {outputs} × {depth}", m.L, outputs * depth / 4 + depth + 4 * outputs + residual)
    kv = m.G * m.E
    return [
        gemv(("q", "k", "v")), gemv(("o",)), gemv(("gate", "up")), gemv(("down",)),
        Work("attention_decode", f"{m.H} heads, {m.G} KV heads, {context} keys", m.L, 2 * 4 * context * kv + 2 * 4 * m.D),
        Work("norm_quantize", f"1 × {m.D}", 3 * m.L + 1, 4 * m.D + 4 * m.D + m.D),
        Work("norm_quantize of the gated activation", f"1 × {m.F}", m.L, 2 * 4 * m.F + 4 * m.F + m.F),
        Work("int8_gemv (head)", f"{m.V} × {m.D}", 1, m.V * m.D + 4 * m.V + m.D + 4 * m.V),
    ]


def training(m, sequences, tokens):
    """The kernels of one update of sequences × tokens rows, with int8 gradients. What the products write and their gradients read is bf16;
    the rows of all other kernels are counted as fp32. As many KV heads as query heads."""
    assert m.G == m.H
    rows, kv, pairs = sequences * tokens, m.G * m.E, tokens * (tokens + 1) / 2
    work = []
    for name, n, k in m.projections():
        if name not in ("q", "gate", "down"):
            continue
        times = m.L * {"q": 4, "gate": 2, "down": 1}[name]
        label = {"q": "q k v o", "gate": "gate up", "down": "down"}[name]
        product = 2 * rows * n * k
        shape = f"{label}: {rows} × {n} × {k}"
        work += [
            Work("packed_gemm y", shape, times, rows * k + n * k / 4 + 2 * rows * n, product, "int8"),
            Work("quantize_gradient_rows", f"{label}: {rows} × {n}", times, 2 * rows * n + rows * n),
            Work("unpack_transposed", f"{label}: {n} × {k}", times, n * k / 4 + n * k),
            Work("gradient_gemm dx", shape, times, rows * n + n * k + 2 * rows * k, product, "int8"),
            Work("quantize_gradient_columns", f"{label}: {rows} × {n}", times, 2 * rows * n + rows * n),
            Work("transpose_codes", f"{label}: {rows} × {k}", times, 2 * rows * k),
            Work("gradient_gemm dw", shape, times, rows * n + rows * k + 2 * 4 * n * k, product, "int8"),
        ]
    width = m.H * m.E
    operands = 2 * rows * (width + 2 * kv)
    attention = f"{sequences} × {tokens}, {m.H} heads of {m.E}"
    one_product = 2 * sequences * m.H * m.E * pairs  # of causal scores, or with them
    parameters = m.L * m.ternary() + m.V * m.D
    work += [
        Work("attention_operands", attention, 2 * m.L, 4 * rows * (width + 2 * kv) + operands),
        Work("attention_forward", attention, m.L, operands + 4 * rows * width + 4 * rows * m.H, 2 * one_product, "bf16"),
        # Two kernels: scores and dout vᵀ in both, then dq, and dk and dv.
        Work("attention_backward", attention, m.L, 2 * (operands + 2 * rows * width) + 4 * rows * (width + 2 * kv), 7 * one_product,
             "bf16"),
        Work("norm_quantize", f"{rows} × {m.D}", 3 * m.L, 4 * rows * m.D + rows * m.D),
        Work("norm_quantize of the gated activation", f"{rows} × {m.F}", m.L, 2 * 4 * rows * m.F + rows * m.F),
        Work("norm_backward", f"{rows} × {m.D}", 3 * m.L + 1, 3 * 4 * rows * m.D),
        Work("norm_backward of the gated activation", f"{rows} × {m.F}", m.L, 5 * 4 * rows * m.F),
        Work("rope", f"{rows} × {width + kv}", 2 * m.L, 2 * 4 * rows * (width + kv)),
        Work("weight_statistics", "all projections", 1, 4 * m.L * m.ternary()),
        Work("packed_codes", "all projections", 1, 4 * m.L * m.ternary() + m.L * m.ternary() / 2),
        Work("embedding", f"{rows} × {m.D}", 1, 2 * 4 * rows * m.D),
        Work("embedding_backward", f"{rows} × {m.D}", 1, 4 * rows * m.D + 2 * 4 * m.V * m.D),
        Work("bf16 product (head: y, dx, dw)", f"{rows} × {m.V} × {m.D}", 3, 2 * (rows * m.D + m.V * m.D) + 4 * rows * m.V,
             2 * rows * m.V * m.D, "bf16"),
        Work("cross_entropy", f"{rows} × {m.V}", 1, 3 * 4 * rows * m.V),
        Work("tensor_sums (norm of the gradient)", f"{parameters / 1e6:.1f} M", 1, 4 * parameters),
        Work("adamw", f"{parameters / 1e6:.1f} M", 1, 7 * 4 * parameters),
    ]
    return work


def number(value):
    return f"{value:.3g}" if value < 100 else f"{value:.0f}"


def table(work, unit_of_rate, rate_for_one):
    """Markdown: a line for each kernel, and the sum as a rate."""
    lines = ["| kernel | shape | times | MB | Gop | op/byte | bound (H100) | " + " | ".join(f"{d.name}, µs" for d in DEVICES) + " |",
             "|---|---|--:|--:|--:|--:|---|" + "--:|" * len(DEVICES)]
    for w in work:
        operations = f"{number(w.operations / 1e9)} {w.kind} | {number(w.operations / w.memory_bytes)}" if w.kind else "– | –"
        bound = w.bound(DEVICES[1])
        times = " | ".join(number(1e6 * w.seconds(d)) for d in DEVICES)
        lines.append(f"| {w.kernel} | {w.shape} | {w.times} | {number(w.memory_bytes / 1e6)} | {operations} | {bound} | {times} |")
    totals = [sum(w.times * w.seconds(d) for w in work) for d in DEVICES]
    lines.append("| **all, as often as it runs** | | | | | | | " + " | ".join(f"**{number(1e6 * t)}**" for t in totals) + " |")
    lines.append(f"| **{unit_of_rate} at these bounds** | | | | | | | " + " | ".join(f"**{rate_for_one / t:,.0f}**" for t in totals) + " |")
    return "\n".join(lines)


def tables():
    parts = ["| computed from | memory, TB/s | int8, TOPS | bf16 (fp32 sums), TFLOPS |\n|---|--:|--:|--:|\n" + "\n".join(
        f"| {d.name} | {d.memory / 1e12:g} | {d.int8 / 1e12:g} | {d.bf16 / 1e12:g} |" for d in DEVICES)]
    context, sequences, tokens = 2048, 8, 256
    parts.append(f"### Decoding: configs/2b4t.json, one token after {context}\n\n"
                 + table(decoding(read_model("2b4t"), context), "tokens/s", 1))
    for name in ("bench_100m", "bench_7m"):
        parts.append(f"### Training: configs/{name}.json, an update of {sequences} × {tokens} tokens\n\n"
                     + table(training(read_model(name), sequences, tokens), "tokens/s", sequences * tokens))
    return "\n\n".join(parts)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    group = parser.add_mutually_exclusive_group()
    group.add_argument("--update", metavar="FILE")
    group.add_argument("--check", metavar="FILE")
    arguments = parser.parse_args()
    file = arguments.update or arguments.check
    if file is None:
        print(tables())
        return 0
    text = Path(file).read_text("utf-8")
    before, rest = text.split(BEGIN)
    after = rest.split(END)[1]
    wanted = f"{before}{BEGIN}\n\n{tables()}\n\n{END}{after}"
    if arguments.update:
        Path(file).write_text(wanted, "utf-8")
    elif wanted != text:
        print(f"{file}: its tables are not those of scripts/cuda_roofline.py: run scripts/cuda_roofline.py --update {file}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
