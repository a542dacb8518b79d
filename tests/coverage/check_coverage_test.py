#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""How scripts/check_coverage.py counts lines, with a made-up gcov and test programs."""
import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
import check_coverage  # noqa: E402


def document(**lines):
    """One line of gcov's output; lines: {file: [(line, count)]}, with __ for / in names."""
    return json.dumps({"files": [{"file": f"{ROOT}/{name.replace('__', '/').replace('_dot_', '.')}",
                                  "lines": [{"line_number": n, "count": c} for n, c in found]} for name, found in lines.items()]})


class CheckCoverage(unittest.TestCase):
    def run_script(self, documents, program="exit 0", at_least="95"):
        with tempfile.TemporaryDirectory() as folder:
            old = Path(folder, "old.gcda")
            old.touch()
            for name, body in (("gcov", f"cat {folder}/output"), ("tests", f"test ! -e {old} || exit 9; touch {folder}/a.gcda; {program}")):
                Path(folder, name).write_text(f"#!/bin/sh\n{body}\n", "utf-8")
                Path(folder, name).chmod(0o755)
            Path(folder, "output").write_text("\n".join(documents) + "\n", "utf-8")
            done = subprocess.run([sys.executable, str(ROOT / "scripts" / "check_coverage.py"), "--gcov", f"{folder}/gcov", "--at-least",
                                   at_least, "--objects", folder, f"{folder}/tests"], capture_output=True, text=True, check=False)
            return done.returncode, done.stdout + done.stderr

    def test_lines_are_executed_if_one_of_their_instances_is(self):
        status, output = self.run_script([document(cuda__a_dot_cu=[(1, 0), (1, 3), (2, 1)]), document(cuda__a_dot_cu=[(2, 0)])])
        self.assertEqual(status, 0, output)
        self.assertIn("2 of 2 lines of the kernels were executed: 100.0 %", output)

    def test_too_few_lines_fail_and_are_named(self):
        lines = [(n, 0 if n in (4, 5, 9) else 1) for n in range(1, 21)]
        status, output = self.run_script([document(cuda__a_dot_cu=lines)])
        self.assertEqual(status, 1)
        self.assertIn("85.0 %  cuda/a.cu: not executed: 4-5, 9", output)
        self.assertEqual(self.run_script([document(cuda__a_dot_cu=lines)], at_least="85")[0], 0)

    def test_host_code_and_other_folders_do_not_count(self):
        status, output = self.run_script([document(cuda__a_dot_cu=[(1, 1)], cuda__b_ops_dot_cpp=[(1, 0), (2, 1)], core__c_dot_cpp=[(1, 0)])])
        self.assertEqual(status, 0, output)
        self.assertIn("50.0 %  cuda/b_ops.cpp: not executed: 1", output)
        self.assertIn("1 of 1 lines of the kernels", output)
        self.assertNotIn("core/", output)

    def test_tests_that_fail_fail(self):
        status, output = self.run_script([document(cuda__a_dot_cu=[(1, 1)])], program="echo broken; exit 3")
        self.assertEqual(status, 1)
        self.assertIn("broken", output)

    def test_no_kernels_are_an_error(self):
        status, output = self.run_script([document(core__c_dot_cpp=[(1, 1)])])
        self.assertEqual(status, 1)
        self.assertIn("were the kernels compiled with --coverage?", output)

    def test_ranges(self):
        self.assertEqual(check_coverage.ranges([1, 2, 3, 7, 9, 10]), "1-3, 7, 9-10")
        self.assertEqual(check_coverage.ranges([]), "")


if __name__ == "__main__":
    unittest.main()
