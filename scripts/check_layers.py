#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Fails on an #include that docs/architecture.md does not allow, or a source without its SPDX line.

Usage: check_layers.py [ROOT]. Prints one line a fault, "file:line: what"; exit status 1 when there is one.
"""
import re
import sys
from pathlib import Path

# Folder -> folders it may include besides itself. None: everything. A file belongs to the longest folder that holds it.
LAYERS = {
    "app": None,
    "tests": None,
    "core/base": [],
    "core/tensor": ["core/base"],
    "core/quant": ["core/base", "core/tensor"],
    "core/backend": ["core/base", "core/tensor", "core/quant"],
    "core/cpu": ["core/base", "core/tensor", "core/quant", "core/backend"],
    "core/tokenizer": ["core/base"],
    "core/data": ["core/base", "core/tokenizer"],
    "core/model": ["core/base", "core/tensor", "core/quant", "core/backend"],
    "core/checkpoint": ["core/base", "core/tensor", "core/quant", "core/backend", "core/model"],
    "core/gguf": ["core/base", "core/quant"],
    "core/eval": ["core/base", "core/tensor", "core/backend", "core/tokenizer", "core/data", "core/model"],
    "core/generate": ["core/base", "core/tensor", "core/backend", "core/tokenizer", "core/data", "core/model"],
    "core/convert": ["core/base", "core/tensor", "core/quant", "core/backend", "core/tokenizer", "core/model", "core/gguf",
                     "core/checkpoint", "core/eval"],
    "core/train": ["core/base", "core/tensor", "core/quant", "core/backend", "core/tokenizer", "core/data", "core/model",
                   "core/checkpoint", "core/eval", "core/generate", "core/convert"],
    "core/bench": ["core/base", "core/tensor", "core/quant", "core/backend", "core/tokenizer", "core/data", "core/model",
                   "core/gguf", "core/checkpoint", "core/eval", "core/generate", "core/convert", "core/train"],
    "cuda": ["core/base", "core/tensor", "core/quant", "core/backend"],
}

# Headers from outside that some files must not see: (files, headers, reason).
FOREIGN = [
    (r"core/.*", r"(spdlog|CLI)/.*", "core neither logs nor parses arguments; app/ does"),
    (r"core/.*", r"cuda.*\.h|.*\.cuh|cublas.*|nccl.*", "only cuda/ knows CUDA"),
    (r"core/.*\.h", r"nlohmann/json\.hpp", "headers of core/ take nlohmann/json_fwd.hpp"),
]

SOURCE_SUFFIXES = {".h", ".cpp", ".cu", ".cuh", ".cmake", ".sh", ".py"}
CODE_SUFFIXES = {".h", ".cpp", ".cu", ".cuh"}
FOLDERS = ["app", "core", "cuda", "scripts", "tests"]
INCLUDE = re.compile(r'^\s*#\s*include\s*(<[^>]+>|"[^"]+")')
SPDX = "SPDX-License-Identifier: MIT"


def layer_of(path):
    """The table's folder that holds a path such as core/model/block.h, or None."""
    return max((folder for folder in LAYERS if path.startswith(folder + "/")), key=len, default=None)


def include_fault(root, path, target, quoted):
    """Why `path` may not include `target`, or None."""
    for files, headers, reason in FOREIGN:
        if re.fullmatch(files, path) and re.fullmatch(headers, target):
            return f"<{target}> is not for this file: {reason}"
    if not quoted:
        return None
    if not (root / target).is_file():
        return f'"{target}" is not a file; includes are rooted at the repository'
    layer, target_layer = layer_of(path), layer_of(target)
    if target_layer is None:
        return f'"{target}" lies in no folder of the table in scripts/check_layers.py'
    allowed = LAYERS[layer]
    if allowed is None or target_layer == layer or target_layer in allowed:
        return None
    return f'{layer} may not include "{target}"; it may include: {", ".join(allowed) or "nothing"}'


def check_file(root, file):
    """The faults of one source file."""
    path = file.relative_to(root).as_posix()
    lines = file.read_text(encoding="utf-8").splitlines()
    if not any(SPDX in line for line in lines[:2]):
        yield f'{path}:1: no "{SPDX}" line on top'
    if file.suffix not in CODE_SUFFIXES:
        return
    if layer_of(path) is None:
        yield f"{path}:1: lies in no folder of the table in scripts/check_layers.py"
        return
    for number, line in enumerate(lines, 1):
        match = INCLUDE.match(line)
        if match:
            fault = include_fault(root, path, match[1][1:-1], match[1][0] == '"')
            if fault:
                yield f"{path}:{number}: {fault}"


def source_files(root):
    for folder in FOLDERS:
        for file in sorted((root / folder).rglob("*")):
            if file.is_file() and (file.suffix in SOURCE_SUFFIXES or file.name == "CMakeLists.txt"):
                yield file


def main():
    root = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent.parent).resolve()
    files = list(source_files(root))
    faults = [fault for file in files for fault in check_file(root, file)]
    for fault in faults:
        print(fault)
    print(f"{len(files)} files checked, {len(faults)} faults")
    if not files:
        print(f"no source files under {root}")
    return 1 if faults or not files else 0


if __name__ == "__main__":
    sys.exit(main())
