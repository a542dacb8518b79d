#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What scripts/check_layers.py refuses and what it lets pass, tried on small made-up trees."""
import re
import runpy
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "check_layers.py"
SPDX = "// SPDX-License-Identifier: MIT\n"


def check(files):
    """Exit status and output of the script for a tree of {path: text}."""
    with tempfile.TemporaryDirectory() as folder:
        for path, text in files.items():
            file = Path(folder, path)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
        result = subprocess.run([sys.executable, str(SCRIPT), folder], capture_output=True, text=True, check=False)
        return result.returncode, result.stdout


def documented_layers():
    """The table "Folders" of docs/architecture.md in the form of the script's."""
    rows = re.findall(r"^\| (`[^|]+) \|[^|]*\| ([^|]+) \|$", (ROOT / "docs" / "architecture.md").read_text("utf-8"), re.M)
    layers = {folder: allowed for folders, allowed in rows for folder in re.findall(r"`(\S+)/`", folders)}
    core = {folder for folder in layers if folder.startswith("core/")}
    named = {"everything": None, "–": set(), "all of core but cpu": core - {"core/cpu"}}
    return {folder: named[allowed] if allowed in named else {f"core/{name}" for name in allowed.split(", ")}
            for folder, allowed in layers.items()}


class CheckLayers(unittest.TestCase):
    def refused(self, path, include, expected):
        status, output = check({
            "core/base/error.h": SPDX, "core/cpu/cpu_backend.h": SPDX, "core/model/block.h": SPDX,
            path: f"{SPDX}\n#include {include}\n"})
        self.assertEqual(status, 1, output)
        self.assertIn(f"{path}:3: ", output)
        self.assertIn(expected, output)

    def test_the_documentation_has_the_same_table(self):
        expected = {folder: None if allowed is None else {*allowed, folder}
                    for folder, allowed in runpy.run_path(str(SCRIPT))["LAYERS"].items()}
        documented = {folder: None if allowed is None else {*allowed, folder}
                      for folder, allowed in documented_layers().items()}
        self.assertEqual(documented, expected)

    def test_a_layer_may_include_itself_and_the_layers_below(self):
        status, output = check({
            "core/base/error.h": SPDX,
            "core/model/block.h": SPDX + '#include <nlohmann/json_fwd.hpp>\n#include "core/base/error.h"\n',
            "core/model/block.cpp": SPDX + '#include <nlohmann/json.hpp>\n#include "core/model/block.h"\n',
            "app/main.cpp": SPDX + '#include <spdlog/spdlog.h>\n#include "core/model/block.h"\n'})
        self.assertEqual(status, 0, output)
        self.assertIn("4 files checked, 0 faults", output)

    def test_the_model_may_not_see_a_backend_s_implementation(self):
        self.refused("core/model/a.cpp", '"core/cpu/cpu_backend.h"', 'core/model may not include "core/cpu/')

    def test_nothing_lies_below_base(self):
        self.refused("core/base/a.h", '"core/model/block.h"', "it may include: nothing")

    def test_blanks_do_not_hide_an_include(self):
        status, output = check({
            "core/base/a.h": SPDX + '  #  include   "core/model/b.h"\n', "core/model/b.h": SPDX})
        self.assertEqual(status, 1, output)
        self.assertIn("core/base/a.h:2: ", output)

    def test_includes_are_rooted_at_the_repository(self):
        self.refused("core/base/a.cpp", '"error.h"', "rooted at the repository")

    def test_a_folder_must_be_in_the_table(self):
        status, output = check({"core/misc/a.h": SPDX})
        self.assertEqual(status, 1, output)
        self.assertIn("core/misc/a.h:1: lies in no folder", output)

    def test_core_neither_logs_nor_parses_arguments(self):
        self.refused("core/train/a.cpp", "<spdlog/spdlog.h>", "core neither logs")
        self.refused("core/train/a.cpp", "<CLI/CLI.hpp>", "core neither logs")

    def test_headers_of_core_take_json_fwd(self):
        self.refused("core/base/a.h", "<nlohmann/json.hpp>", "json_fwd.hpp")

    def test_only_cuda_knows_cuda(self):
        self.refused("core/base/a.cpp", "<cuda_runtime.h>", "only cuda/")

    def test_each_source_needs_its_spdx_line(self):
        for path in ("core/base/a.h", "scripts/a.sh", "core/CMakeLists.txt"):
            status, output = check({path: "\n"})
            self.assertEqual(status, 1, output)
            self.assertIn(f"{path}:1: no ", output)

    def test_an_empty_tree_is_a_mistake(self):
        self.assertEqual(check({})[0], 1)


if __name__ == "__main__":
    unittest.main()
