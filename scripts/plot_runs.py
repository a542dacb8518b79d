#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Draws the curves of training runs as an SVG: plot_runs.py OUT.svg LABEL=RUN_FOLDER...

Thin lines are the training batches' bits per byte, thick ones the validation split's. Needs only Python's own library.
"""
import json
import math
import pathlib
import sys
from xml.sax.saxutils import escape

WIDTH, HEIGHT, LEFT, BOTTOM, TOP, RIGHT = 760, 420, 60, 50, 20, 20
COLOURS = ["#c0392b", "#2471a3", "#1e8449", "#b9770e", "#6c3483"]


def read_run(folder):
    """{event: [(step, bits per byte)]} of a run folder's metrics.jsonl."""
    curves = {"train": [], "eval": []}
    for line in (pathlib.Path(folder) / "metrics.jsonl").read_text().splitlines():
        entry = json.loads(line)
        if entry["event"] in curves:
            curves[entry["event"]].append((entry["step"], entry["bits_per_byte"]))
    if not curves["train"]:
        sys.exit(f"plot_runs.py: {folder}/metrics.jsonl has no training steps")
    return curves


def draw(runs):
    points = [p for _, curves in runs for curve in curves.values() for p in curve]
    last = max(step for step, _ in points)
    low = math.floor(min(bits for _, bits in points) * 2) / 2
    high = min(6.0, math.ceil(max(bits for _, bits in points)))

    def place(step, bits):
        x = LEFT + step / last * (WIDTH - LEFT - RIGHT)
        y = TOP + (high - min(bits, high)) / (high - low) * (HEIGHT - TOP - BOTTOM)
        return f"{x:.1f},{y:.1f}"

    def text(x, y, words, extra=""):
        return f'<text x="{x:.1f}" y="{y:.1f}" {extra}>{escape(words)}</text>'

    svg = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{HEIGHT}" '
           'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>']
    for tick in range(int(low * 2), int(high * 2) + 1):
        x, y = (float(v) for v in place(0, tick / 2).split(","))
        svg.append(f'<path d="M{x} {y}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        svg.append(text(x - 8, y + 4, f"{tick / 2:.1f}", 'text-anchor="end"'))
    for quarter in range(5):
        step = last * quarter // 4
        x = float(place(step, low).split(",")[0])
        svg.append(text(x, HEIGHT - BOTTOM + 18, str(step), 'text-anchor="middle"'))
    svg.append(text(WIDTH / 2, HEIGHT - 10, "step", 'text-anchor="middle"'))
    svg.append(text(LEFT, TOP - 6, "bits per byte"))
    for (label, curves), colour in zip(runs, COLOURS * len(runs)):
        for event, stroke in (("train", 0.7), ("eval", 2.5)):
            line = " ".join(place(*point) for point in curves[event])
            svg.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="{stroke}"/>')
    for row, ((label, _), colour) in enumerate(zip(runs, COLOURS * len(runs))):
        svg.append(text(WIDTH - 160, TOP + 20 + 18 * row, label, f'fill="{colour}" font-weight="bold"'))
    return "\n".join(svg) + "\n</svg>\n"


def main():
    if len(sys.argv) < 3 or not all("=" in argument for argument in sys.argv[2:]):
        sys.exit(__doc__)
    runs = []
    for argument in sys.argv[2:]:
        label, folder = argument.split("=", 1)
        runs.append((label, read_run(folder)))
    pathlib.Path(sys.argv[1]).write_text(draw(runs))


main()
