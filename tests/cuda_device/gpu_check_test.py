#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The report of scripts/gpu_check.sh, with made-up programs in place of those that it builds and runs."""
import os
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"
HAS_DRIVER = any(Path(file).exists() for file in ("/proc/driver/nvidia/version", "/dev/nvidiactl", "/dev/dxg"))
BITNET = """#!/bin/sh
[ "$1" = devices ] && echo 'auto   cuda'
[ "$1 $2 $4" = "$BROKEN" ] && echo 'out of luck' && exit 3
echo "bitnet $*"
"""


class GpuCheck(unittest.TestCase):
    def check(self, *arguments, broken=""):
        """Exit status, report and stderr of the script in a made-up tree."""
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder)
            (root / "scripts").mkdir()
            for name in ("common.sh", "gpu_check.sh"):
                shutil.copy(SCRIPTS / name, root / "scripts" / name)
            programs = {"bin/cmake": "#!/bin/sh\n", "bin/ctest": "#!/bin/sh\n", "bin/nvcc": "#!/bin/sh\n",
                        "build/release/tests/cuda_emulator/bitnet_with_emulator": BITNET, "tests/end_to_end/cuda_test.py": ""}
            for name, text in programs.items():
                file = root / name
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text, "utf-8")
                file.chmod(0o755)
            environment = {**os.environ, "PATH": f"{root}/bin:{os.environ['PATH']}", "BROKEN": broken}
            done = subprocess.run([root / "scripts" / "gpu_check.sh", *arguments], env=environment, capture_output=True, text=True,
                                  check=False)
            report = root / "runs" / "gpu_check" / "report.md"
            return done.returncode, report.read_text("utf-8") if report.exists() else "", done.stderr

    @unittest.skipIf(HAS_DRIVER, "this machine has a driver")
    def test_without_a_driver_it_says_so_in_one_line_and_exits_4(self):
        status, report, errors = self.check()
        self.assertEqual((status, report), (4, ""))
        self.assertEqual(errors, "gpu_check.sh: no GPU to check: there is no NVIDIA driver on this machine\n")

    def test_all_steps_that_pass_are_one_good_report(self):
        status, report, errors = self.check("--emulated")
        self.assertEqual(status, 0, errors)
        self.assertTrue(report.startswith("# GPU check: all steps passed\n"), report)
        self.assertTrue(errors.endswith("gpu_check.sh: all steps passed; the report: runs/gpu_check/report.md\n"), errors)
        self.assertIn("**emulated**", report)
        self.assertIn("| compute-sanitizer memcheck on the tests | skipped | | the GPU is emulated |", report)
        for title in ("Build", "bench decode on cuda", "Training, packing and text: GPU against CPU"):
            self.assertIn(f"| {title} | **PASS** |", report)
        self.assertNotIn("FAIL", report)

    def test_a_step_that_fails_is_named_with_its_output_and_the_others_still_run(self):
        status, report, errors = self.check("--emulated", broken="bench prefill cpu")
        self.assertEqual(status, 1)
        self.assertTrue(report.startswith("# GPU check: 1 of "), report)
        self.assertIn("| bench prefill on cpu | **FAIL** |", report)
        self.assertIn("Exit status 3", report)
        self.assertIn("out of luck", report)
        self.assertIn("| bench decode on cuda | **PASS** |", report)
        self.assertIn("1 of 15 steps failed", errors)

    def test_wrong_arguments_are_refused(self):
        self.assertEqual(self.check("--outt")[0], 1)
        self.assertIn("--out needs a folder", self.check("--out")[2])


if __name__ == "__main__":
    unittest.main()
