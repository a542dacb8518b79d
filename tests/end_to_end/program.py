# SPDX-License-Identifier: MIT
"""What the end-to-end tests share: running the program, and reading what it wrote."""
import json
import os
import subprocess
import sys
import unittest
from pathlib import Path

BITNET = ""  # path of the program: the first argument of a test's command line


def english_like_text(size):
    """Sentences from a small grammar, chosen by a linear congruential generator: the same on every machine."""
    words = {
        "d": ["the", "a", "every", "this"], "n": ["cat", "river", "engine", "teacher", "word", "garden", "number"],
        "v": ["sees", "follows", "carries", "remembers", "counts"], "a": ["old", "quiet", "green", "broken", "first"],
        "p": ["near", "under", "behind", "without"],
    }
    state, parts, length = 12345, [], 0
    while length < size:
        sentence = []
        for kind in "danvdnpdan":
            state = (state * 6364136223846793005 + 1442695040888963407) % 2**64
            choices = words[kind]
            if kind != "a" or state >> 63:
                sentence.append(choices[(state >> 33) % len(choices)])
        line = " ".join(sentence).capitalize() + (".\n" if (state >> 40) % 4 == 0 else ". ")
        parts.append(line)
        length += len(line)
    return "".join(parts)[:size].encode()


def run(*arguments, cwd, code=0, **options):
    """Runs the program to its end and checks its exit code."""
    result = subprocess.run([BITNET, *map(str, arguments)], cwd=cwd, stdout=options.pop("stdout", subprocess.PIPE),
                            stderr=subprocess.PIPE, timeout=300, **options)
    if result.returncode != code:
        raise AssertionError(f"bitnet {' '.join(map(str, arguments))}: exit code {result.returncode}, expected {code}\n"
                             f"stdout: {result.stdout!r}\nstderr: {result.stderr.decode(errors='replace')}")
    return result


def error_line(result):
    """The one line that says what went wrong."""
    lines = [line for line in result.stderr.decode().splitlines() if line.startswith("bitnet: error: ")]
    assert len(lines) == 1, result.stderr
    return lines[0]


def metrics(run_folder):
    """All events, without what depends on the clock."""
    events = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    for event in events:
        event.pop("timing", None)
    return events


def main():
    """Of a test file: the path of the program, then unittest's options."""
    global BITNET
    if len(sys.argv) < 2:
        sys.exit(sys.modules["__main__"].__doc__)
    BITNET = str(Path(sys.argv.pop(1)).resolve())
    os.environ["OMP_WAIT_POLICY"] = "passive"  # tests share the machine: idle threads must not spin
    unittest.main(verbosity=2)
