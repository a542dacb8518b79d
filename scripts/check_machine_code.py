#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Compares the machine code of the CUDA kernels with a committed table of limits, and prints one line for each violation.

Usage: check_machine_code.py [--update] --table FILE --occupancy PROGRAM --architectures 80,90 --executed FILE... OBJECT...

OBJECT: what nvcc made of one .cu file. The table says for each kernel and architecture how many registers it may use, how much static
shared memory, how many blocks must fit on a multiprocessor (by PROGRAM, tests/machine_code/occupancy.cpp) and how many tensor core
instructions (IMMA: int8, HMMA: bf16), dp4a (IDP) and 16-byte global loads (LOAD128) it must have. Never allowed: local memory (spilled
registers, arrays indexed at run time), kernels without __launch_bounds__, entries without a kernel and kernels without an entry. --executed
names what the emulator's tests executed (tests/cuda_emulator/totals.cpp): a kernel that is not there has no test; the dynamic shared
memory of a kernel is the most that it was launched with. --update writes the table anew from what is found.
"""
import argparse
import collections
import json
import subprocess
import sys
from pathlib import Path

from cubin import demangle, read_kernels, signature_of, toolkit_of

COUNTED = ("IMMA", "HMMA", "IDP", "LOAD128")
REGISTER_STEP = 8  # limits are rounded up to how the hardware gives registers to a warp

Launches = collections.namedtuple("Launches", "count dynamic_shared")


def read_executed(file):
    """{kernel's signature: Launches} from a file that the emulator's tests have written."""
    program, found = None, {}
    for line in Path(file).read_text("utf-8").splitlines():
        key, rest = line.split(maxsplit=1)
        if key == "program":
            program = rest
        elif key == "kernel":
            distance, count, shared = map(int, rest.split())
            found[distance] = Launches(count, shared)
    if Path(program).stat().st_mtime > Path(file).stat().st_mtime:
        raise SystemExit(f"check_machine_code.py: {program} was built after it wrote {file}: run ctest -L emulator first")
    listed = subprocess.run(["nm", program], capture_output=True, text=True, check=True)
    symbols = [(int(words[0], 16), words[2]) for words in map(str.split, listed.stdout.splitlines()) if len(words) == 3]
    anchor = next(address for address, name in symbols if name == "bitnet_address_anchor")
    by_symbol = {name: found[distance] for address, name in symbols if (distance := (address - anchor) % 2**64) in found}
    readable = demangle(sorted(by_symbol))
    return {signature_of(readable[name]): launches for name, launches in by_symbol.items()}


def merge_executed(files):
    merged = {}
    for file in files:
        for signature, found in read_executed(file).items():
            seen = merged.get(signature, Launches(0, 0))
            merged[signature] = Launches(seen.count + found.count, max(seen.dynamic_shared, found.dynamic_shared))
    return merged


def measure(objects, architectures, executed, occupancy):
    """{file: {kernel: {"sm_90": measured numbers}}} of all objects, and faults of kernels that no table can excuse."""
    measured, faults, rows = {}, [], []
    for file in objects:
        kernels = read_kernels(Path(file).read_bytes())
        source = Path(file).name.removesuffix(".o")
        if not kernels:
            faults.append(f"{source}: no kernels in {file}: was it made by nvcc, without --compress-mode or -rdc?")
        for kernel in kernels:
            launches = executed.get(kernel.signature)
            dynamic = launches.dynamic_shared if launches else 0
            numbers = {"threads": kernel.max_threads, "registers": kernel.registers, "shared": kernel.shared_bytes,
                       "dynamic_shared": dynamic, "local": kernel.local_bytes, "executed": launches is not None}
            numbers |= {opcode: kernel.opcodes[opcode] for opcode in COUNTED}
            measured.setdefault(source, {}).setdefault(kernel.name, {})[kernel.architecture] = numbers
            rows.append(((kernel.architecture.removeprefix("sm_"), kernel.max_threads or 1024, kernel.registers, kernel.shared_bytes,
                          dynamic), numbers))
            where = f"{source}: {kernel.name}, {kernel.architecture}"
            if kernel.local_bytes:
                faults.append(f"{where}: {kernel.local_bytes} bytes of local memory in each thread, none is allowed: it spills registers "
                              "or indexes an array at run time")
        for name, found in measured.get(source, {}).items():
            missing = [a for a in architectures if a not in found]
            if missing:
                faults.append(f"{source}: {name}: no machine code for {' '.join(missing)}: see BITNET_CUDA_ARCHITECTURES in cuda/CMakeLists.txt")
            if not all(numbers["threads"] for numbers in found.values()):
                faults.append(f"{source}: {name}: no __launch_bounds__: without it the compiler cannot know how many registers there are")
            if not all(numbers["executed"] for numbers in found.values()):
                faults.append(f"{source}: {name}: no test executes it under the emulator: add one, or remove the kernel")
    lines = "".join(" ".join(map(str, row)) + "\n" for row, _ in rows)
    done = subprocess.run([occupancy], input=lines, stdout=subprocess.PIPE, text=True, check=True)
    for (_, numbers), blocks in zip(rows, done.stdout.split(), strict=True):
        numbers["blocks"] = int(blocks)
    return measured, faults


def limits_of(found):
    """The table's entry for one kernel on one architecture."""
    registers = -(-found["registers"] // REGISTER_STEP) * REGISTER_STEP
    limits = {"registers": registers, "shared": found["shared"], "blocks": found["blocks"]}
    return limits | {opcode: found[opcode] for opcode in COUNTED if found[opcode]}


def compare(where, limits, found):
    """The violations of one kernel on one architecture."""
    at_most = (("registers", "registers a thread", "simplify the kernel or let __launch_bounds__ ask for fewer"),
               ("shared", "bytes of static shared memory", "use less"))
    at_least = (("blocks", "blocks on a multiprocessor", "use fewer registers or less shared memory"),
                ("IMMA", "int8 tensor core instructions (IMMA)", "does it still call mma_m16n8k32_s8, and is the loop unrolled?"),
                ("HMMA", "bf16 tensor core instructions (HMMA)", "does it still call mma_m16n8k16_bf16, and is the loop unrolled?"),
                ("IDP", "dp4a instructions (IDP)", "does it still call __dp4a, and is the loop unrolled?"),
                ("LOAD128", "16-byte global loads", "does it still load by load_vector<uint4>, float4 or copy_async16?"))
    for key, what, advice in at_most:
        if found[key] > limits[key]:
            yield f"{where}: {found[key]} {what}, at most {limits[key]} are allowed: {advice}"
    for key, what, advice in at_least:
        if found[key] < limits.get(key, 0):
            yield f"{where}: {found[key]} {what}, at least {limits[key]} are expected: {advice}"


def check(table, measured):
    """All violations of the table, one line each."""
    for source in sorted(table.keys() | measured.keys()):
        expected, found = table.get(source, {}), measured.get(source, {})
        for name in sorted(expected.keys() | found.keys()):
            for architecture in sorted(expected.get(name, {}).keys() | found.get(name, {}).keys(), key=lambda a: int(a[3:])):
                where = f"{source}: {name}, {architecture}"
                if architecture not in expected.get(name, {}):
                    yield f"{where}: a kernel without limits: look at its numbers and add them with --update"
                elif architecture not in found.get(name, {}):
                    yield f"{where}: limits without a kernel: remove them with --update"
                else:
                    yield from compare(where, expected[name][architecture], found[name][architecture])


def write_table(file, toolkit, measured):
    """JSON with one line for each kernel and architecture."""
    lines = ["{", f' "toolkit": {json.dumps(toolkit)},', ' "kernels": {']
    files = sorted(measured.items())
    for i, (source, kernels) in enumerate(files):
        lines.append(f"  {json.dumps(source)}: {{")
        named = sorted(kernels.items())
        for j, (name, architectures) in enumerate(named):
            lines.append(f"   {json.dumps(name)}: {{")
            rows = [f"    {json.dumps(a)}: {json.dumps(limits_of(n))}"
                    for a, n in sorted(architectures.items(), key=lambda item: int(item[0][3:]))]
            lines.append(",\n".join(rows))
            lines.append("   }" + "," * (j + 1 < len(named)))
        lines.append("  }" + "," * (i + 1 < len(files)))
    Path(file).write_text("\n".join([*lines, " }", "}"]) + "\n", "utf-8")


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--table", required=True)
    parser.add_argument("--occupancy", required=True)
    parser.add_argument("--architectures", required=True, type=lambda text: [f"sm_{number}" for number in text.split(",")])
    parser.add_argument("--executed", nargs="+", default=[])
    parser.add_argument("--update", action="store_true")
    parser.add_argument("objects", nargs="+")
    return parser.parse_intermixed_args()


def main():
    arguments = parse_arguments()
    for file in arguments.executed:
        if not Path(file).exists():
            raise SystemExit(f"check_machine_code.py: {file} is not there: run ctest -L emulator first")
    measured, violations = measure(arguments.objects, arguments.architectures, merge_executed(arguments.executed), arguments.occupancy)
    toolkit = toolkit_of(Path(arguments.objects[0]).read_bytes())
    kernels = sum(len(names) for names in measured.values())
    if arguments.update:
        write_table(arguments.table, toolkit, measured)
        print(f"{arguments.table}: limits of {kernels} kernels written")
        table_toolkit = toolkit
    else:
        table = json.loads(Path(arguments.table).read_text("utf-8"))
        violations += check(table["kernels"], measured)
        table_toolkit = table["toolkit"]
    for violation in violations:
        print(violation)
    if violations and toolkit != table_toolkit:
        print(f"The limits were found with nvcc {table_toolkit}, and this is {toolkit}: look whether its code is worse, then --update.")
    print(f"{kernels} kernels for {len(arguments.architectures)} architectures, {len(violations)} violations")
    return 1 if violations else 0


if __name__ == "__main__":
    sys.exit(main())
