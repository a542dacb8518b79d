#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Plants bugs into the kernels, one at a time, and fails if the emulator's tests do not notice one.

Usage: planted_bugs.py BUILD_FOLDER. The folder is a Ninja build of bitnet_emulator_tests; it is not changed.
"""
import json
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TARGET = "bitnet_emulator_tests"

GEMM, NORM, GEMV = "cuda/int8_gemm.cu", "cuda/norm_quantize.cu", "cuda/packed_gemv.cu"
REDUCE, WORDS = "cuda/reduce.cuh", "tests/cuda_emulator/vocabulary_kernels.cu"

# (kernel file that is compiled, file that is changed, what, text, which occurrence of it, replacement)
BUGS = [
    (GEMM, GEMM, "no barrier between copying and multiplying", "__syncthreads();", 0, ""),
    (GEMM, GEMM, "no wait for the copies", "gpu::wait_copies<Tile::kStages - 2>();", 0, ""),
    (GEMM, GEMM, "a wait that is one group too short", "wait_copies<Tile::kStages - 2>", 0, "wait_copies<Tile::kStages - 1>"),
    (GEMM, GEMM, "no group for the first stages", "gpu::commit_copies();", 0, ""),
    (GEMM, GEMM, "no group for the later stages", "gpu::commit_copies();", 1, ""),
    (GEMM, GEMM, "copies into the stage that is being read", "next % Tile::kStages", 0, "step % Tile::kStages"),
    (GEMM, GEMM, "one row too many", "row >= p.rows", 0, "row > p.rows"),
    (GEMM, GEMM, "one column too many", "column >= p.columns", 0, "column > p.columns"),
    (GEMM, GEMM, "one chunk of K too many", "from < limit[i]", 0, "from <= limit[i]"),
    (GEMM, GEMM, "one line too many is copied", "index < (is_codes", 0, "index <= (is_codes"),
    (GEMM, GEMM, "swapped registers of a fragment", "weights[j][0] = pair[0]", 0, "weights[j][0] = pair[2]"),
    (GEMM, GEMM, "halves of the accumulator swapped", "half * 8 + lane / 4", 0, "(1 - half) * 8 + lane / 4"),
    (GEMM, GEMM, "ldmatrix of the wrong chunk", "lane / 8 % 2", 0, "lane / 16"),
    (GEMM, GEMM, "the last stage is left out", "step < steps; ++step", 0, "step + 1 < steps; ++step"),
    (NORM, REDUCE, "no barrier before the warps' values are read", "__syncthreads();", 0, ""),
    (WORDS, REDUCE, "no barrier before they are written again", "__syncthreads();", 1, ""),
    (NORM, REDUCE, "a warp is left out", "int warp = 1;", 0, "int warp = 2;"),
    (NORM, REDUCE, "a shuffle with half the mask", "__shfl_xor_sync(gpu::kWholeWarp", 0, "__shfl_xor_sync(0x0000ffffU"),
    (NORM, NORM, "one vector too many is read", "at >= op.hidden_size", 0, "at > op.hidden_size"),
    (NORM, NORM, "one vector too many is written", "at >= op.hidden_size", 2, "at > op.hidden_size"),
    (NORM, NORM, "the sign is not masked", "& kMagnitudeMask", 0, ""),
    (NORM, NORM, "every thread but the first writes the scale", "threadIdx.x == 0", 0, "threadIdx.x == kThreads"),
    (GEMV, GEMV, "quarters in the wrong order", "words[i] >> (2 * q)", 0, "words[i] >> (6 - 2 * q)"),
    (GEMV, GEMV, "the + 1 of the trits stays", "sums[t][q] -= excess", 0, "sums[t][q] += 0 * excess"),
    (GEMV, GEMV, "one row too many", "row >= quarter", 0, "row > quarter"),
    (GEMV, GEMV, "a sum with half the mask", "__reduce_add_sync(gpu::kWholeWarp", 0, "__reduce_add_sync(0x0000ffffU"),
    (GEMV, GEMV, "the first token's codes for all", "static_cast<std::size_t>(t) * p.depth + k", 0, "k"),
]


def plant(text, old, occurrence, new):
    """`text` with one occurrence of `old` replaced."""
    parts = text.split(old)
    if len(parts) < occurrence + 2:
        raise SystemExit(f"planted_bugs.py: occurrence {occurrence} of '{old}' is not there any more: mend the list")
    return old.join(parts[:occurrence + 1]) + new + old.join(parts[occurrence + 1:])


def shell_words(command):
    """The words of a command as CMake writes it: without `: &&`, and without ccache."""
    words = shlex.split(command.replace(": &&", "").replace("&& :", ""))
    return words[1:] if words[0].endswith("ccache") else words


def output_of(words):
    return words[words.index("-o") + 1]


def caught(build, compiles, link, bug, folder):
    """Whether the tests of a program with this bug fail (or it does not even compile)."""
    kernel, file, _, old, occurrence, new = bug
    changed = Path(folder, file)
    changed.parent.mkdir(parents=True, exist_ok=True)
    changed.write_text(plant((ROOT / file).read_text("utf-8"), old, occurrence, new), "utf-8")
    words = list(compiles[kernel])
    object_file = output_of(words)
    words[words.index("-o") + 1] = f"{folder}/bug.o"
    source = str(changed if kernel == file else ROOT / kernel)
    words = [source if word == str(ROOT / kernel) else word for word in words]
    words = [word for i, word in enumerate(words) if word not in ("-MD", "-MT", "-MF") and words[i - 1] not in ("-MT", "-MF")]
    words[1:1] = [f"-I{folder}", "-w"]  # a changed header is found before the right one
    if subprocess.run(words, cwd=build, capture_output=True, check=False).returncode != 0:
        return "does not compile"
    program = f"{folder}/tests"
    words = [f"{folder}/bug.o" if word == object_file else word for word in link]
    words[words.index("-o") + 1] = program
    subprocess.run(words, cwd=build, check=True)
    try:
        result = subprocess.run([program, "~[speed]", "--abort", "The *"], capture_output=True, timeout=120, check=False)
    except subprocess.TimeoutExpired:
        return "found (no end)"
    return "found" if result.returncode != 0 else None


def main():
    build = Path(sys.argv[1]).resolve()
    commands = json.loads((build / "compile_commands.json").read_text("utf-8"))
    compiles = {str(Path(c["file"]).relative_to(ROOT)): shell_words(c["command"]) for c in commands
                if c["file"].endswith(".cu") and TARGET in c["command"]}
    listed = subprocess.run(["ninja", "-t", "commands", TARGET], cwd=build, capture_output=True, text=True, check=True)
    links = [line for line in listed.stdout.splitlines() if f"-o tests/cuda_emulator/{TARGET} " in line + " "]
    link = shell_words(links[-1].split(" && cd ")[0])
    survivors = 0
    for bug in BUGS:
        with tempfile.TemporaryDirectory() as folder:
            answer = caught(build, compiles, link, bug, folder)
        # A bug that does not compile proves nothing about the tests.
        good = answer is not None and answer.startswith("found")
        survivors += not good
        print(f"{bug[1]}: {bug[2]}: {answer or 'NOT FOUND'}", flush=True)
    print(f"{len(BUGS)} planted bugs, {survivors} not found")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
