#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs test programs that were built with --coverage, and fails if they leave out too many lines of the CUDA kernels.

Usage: check_coverage.py --gcov PROGRAM --at-least PERCENT --objects FOLDER TEST_PROGRAM...

Prints for each file of cuda/ the share of its lines that were executed, and the others by number. PERCENT is for all lines of
cuda/*.cu and cuda/*.cuh together; the host code's share is only told. FOLDER: where the instrumented objects are.
"""
import argparse
import collections
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def run_tests(programs):
    """All at once: at its end each adds its counts to the files, which it locks."""
    # Executions differ in the order of threads and in poisons, not in lines.
    environment = dict(os.environ, BITNET_EMULATOR_EXECUTIONS="few")

    def run(program):
        print(f"running {Path(program).name}", flush=True)
        return subprocess.run([program, "~[speed]"], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)

    with ThreadPoolExecutor() as pool:
        for program, done in zip(programs, pool.map(run, programs)):
            if done.returncode != 0:
                print(done.stdout)
                raise SystemExit(f"check_coverage.py: {program} failed")


def executions(gcov, counters, root=ROOT):
    """{file below `root`: {line: how often executed}} of all counter files; a line of a template adds up its instances."""
    lines = collections.defaultdict(collections.Counter)
    done = subprocess.run([gcov, "--json-format", "--stdout", *map(str, counters)], capture_output=True, text=True, check=True)
    for document in filter(None, done.stdout.splitlines()):
        for file in json.loads(document)["files"]:
            path = Path(file["file"])
            if path.is_relative_to(root):
                of_file = lines[path.relative_to(root).as_posix()]
                for line in file["lines"]:
                    of_file[line["line_number"]] += line["count"]
    return lines


def ranges(numbers):
    """"3-5, 9" of [3, 4, 5, 9]."""
    parts = []
    for number in numbers:
        if parts and number == parts[-1][1] + 1:
            parts[-1][1] = number
        else:
            parts.append([number, number])
    return ", ".join(str(a) if a == b else f"{a}-{b}" for a, b in parts)


def report(lines, suffixes):
    """Prints the files of cuda/ with these suffixes; returns how many of their lines were executed, and how many there are."""
    executed = total = 0
    for file in sorted(file for file in lines if lines[file] and file.startswith("cuda/") and file.endswith(suffixes)):
        missed = sorted(number for number, count in lines[file].items() if count == 0)
        here = len(lines[file])
        executed, total = executed + here - len(missed), total + here
        print(f"{100 * (here - len(missed)) / here:6.1f} %  {file}" + (f": not executed: {ranges(missed)}" if missed else ""))
    return executed, total


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--gcov", required=True)
    parser.add_argument("--at-least", type=float, required=True)
    parser.add_argument("--objects", required=True)
    parser.add_argument("programs", nargs="+")
    arguments = parser.parse_args()
    for old in Path(arguments.objects).rglob("*.gcda"):
        old.unlink()
    run_tests(arguments.programs)
    lines = executions(arguments.gcov, sorted(Path(arguments.objects).rglob("*.gcda")))
    print("host code:")
    executed, total = report(lines, (".cpp", ".h"))
    print(f"{executed} of {total} lines of host code" if total else "none")
    print("kernels:")
    executed, total = report(lines, (".cu", ".cuh"))
    if not total:
        raise SystemExit("check_coverage.py: no lines of cuda/*.cu: were the kernels compiled with --coverage?")
    share = 100 * executed / total
    good = share >= arguments.at_least
    print(f"{executed} of {total} lines of the kernels were executed: {share:.1f} %, at least {arguments.at_least:g} % are asked for"
          + ("" if good else ": write tests for the lines above"))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
