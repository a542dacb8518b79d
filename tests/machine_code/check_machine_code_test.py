#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What scripts/check_machine_code.py reads from objects, and what it refuses.

Usage: check_machine_code_test.py OCCUPANCY_PROGRAM OBJECT, the object of tests/cuda_emulator/vocabulary_kernels.cu.
"""
import collections
import struct
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "scripts"))
import check_machine_code  # noqa: E402
import cubin  # noqa: E402

OCCUPANCY, OBJECT = sys.argv.pop(1), sys.argv.pop(1)
ARCHITECTURES = ["sm_80", "sm_86", "sm_89", "sm_90", "sm_100", "sm_120"]

# Each kernel is written with one of these.
KNOWN = {"mma_s8_kernel": {"IMMA": 1}, "mma_bf16_kernel": {"HMMA": 1}, "ldmatrix_kernel<false>": {"LDSM": 1},
         "ldmatrix_kernel<true>": {"LDSM": 1}, "copy_async_kernel": {"LDGSTS": 1, "LOAD128": 1}, "number_words_kernel": {"IDP": 1},
         "warp_words_kernel": {}, "block_reductions_kernel": {}}


class ReadsObjects(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.kernels = collections.defaultdict(dict)
        for kernel in cubin.read_kernels(Path(OBJECT).read_bytes()):
            cls.kernels[kernel.name.removeprefix("bitnet::test::")][kernel.architecture] = kernel

    def test_each_kernel_has_the_instructions_it_is_written_with_on_each_architecture(self):
        self.assertEqual(self.kernels.keys(), KNOWN.keys())
        for name, expected in KNOWN.items():
            self.assertEqual(list(self.kernels[name]), ARCHITECTURES)
            for architecture, kernel in self.kernels[name].items():
                for opcode in ("IMMA", "HMMA", "LDSM", "LDGSTS", "LOAD128", "IDP", "LDL", "STL"):
                    self.assertEqual(kernel.opcodes[opcode], expected.get(opcode, 0), (name, architecture, opcode))

    def test_shared_memory_is_that_of_the_arrays(self):
        expected = {"ldmatrix_kernel<false>": 32 * 24 * 2, "copy_async_kernel": 32 * 16, "mma_s8_kernel": 0}
        for name, size in expected.items():
            for architecture, kernel in self.kernels[name].items():
                self.assertEqual((kernel.shared_bytes, kernel.local_bytes), (size, 0), (name, architecture))

    def test_the_launch_bound_is_known(self):
        self.assertEqual({k.max_threads for k in self.kernels["block_reductions_kernel"].values()}, {128})
        self.assertEqual({k.max_threads for k in self.kernels["mma_s8_kernel"].values()}, {0})

    def test_registers_are_plausible(self):
        for kernel in self.kernels["mma_s8_kernel"].values():  # 10 operands and 3 addresses at least
            self.assertTrue(13 <= kernel.registers <= 40, kernel)

    def test_the_toolkit_is_named(self):
        self.assertRegex(cubin.toolkit_of(Path(OBJECT).read_bytes()), r"^V\d+\.\d+\.\d+$")

    def test_names_have_no_namespaces_and_parameters(self):
        signature = cubin.signature_of("void bitnet::cuda::(anonymous namespace)::k<bitnet::cuda::(anonymous namespace)::T<(A)1, 2>, "
                                       "float>(bitnet::cuda::P<float>)")
        self.assertEqual(signature, "k<T<(A)1, 2>, float>(P<float>)")
        self.assertEqual(cubin.without_parameters(signature), "k<T<(A)1, 2>, float>")

    def test_a_file_without_machine_code_has_no_kernels(self):
        self.assertEqual(cubin.read_kernels(Path(OCCUPANCY).read_bytes()), [])


class FindsOpcodes(unittest.TestCase):
    @staticmethod
    def count(low, high=0, architecture=80):
        return dict(cubin.count_opcodes(struct.pack("<QQ", low, high), architecture))

    def test_a_predicate_that_is_never_true_does_not_count(self):
        self.assertEqual(self.count(0x7237), {"IMMA": 1})
        self.assertEqual(self.count(0xF237), {})

    def test_the_width_of_a_load_is_read(self):
        self.assertEqual(self.count(0x7981, 6 << 9), {"LDG": 1, "LOAD128": 1})
        self.assertEqual(self.count(0x7981, 5 << 9), {"LDG": 1})
        self.assertEqual(self.count(0x7FAE, 6 << 9), {"LDGSTS": 1, "LOAD128": 1})
        self.assertEqual(self.count(0x7FAE, 4 << 9), {"LDGSTS": 1})
        self.assertEqual(self.count(0x7FAE, 4 << 9, 120), {"LDGSTS": 1, "LOAD128": 1})
        self.assertEqual(self.count(0x7FAE, 2 << 9, 120), {"LDGSTS": 1})


class ComputesOccupancy(unittest.TestCase):
    def blocks(self, *kernel):
        done = subprocess.run([OCCUPANCY], input=" ".join(map(str, kernel)), capture_output=True, text=True, check=True)
        return int(done.stdout)

    def test_each_limit_by_hand(self):
        self.assertEqual(self.blocks(80, 1024, 32, 0, 0), 2)           # 2048 threads
        self.assertEqual(self.blocks(86, 1024, 32, 0, 0), 1)           # 1536 threads
        self.assertEqual(self.blocks(90, 256, 128, 0, 0), 2)           # 65536 registers
        self.assertEqual(self.blocks(80, 32, 16, 0, 0), 32)            # 32 blocks
        self.assertEqual(self.blocks(89, 32, 16, 0, 0), 24)            # 24 blocks
        self.assertEqual(self.blocks(90, 128, 32, 0, 113 * 1024), 2)   # 228 KiB, 1 KiB more a block
        self.assertEqual(self.blocks(120, 128, 32, 64, 48 * 1024), 2)  # 100 KiB
        self.assertEqual(self.blocks(120, 128, 32, 0, 100 * 1024), 0)  # more than a block may have

    def test_an_unknown_architecture_is_an_error(self):
        self.assertNotEqual(subprocess.run([OCCUPANCY], input="75 1 1 0 0", text=True, capture_output=True, check=False).returncode, 0)


FOUND = {"threads": 128, "registers": 57, "shared": 64, "dynamic_shared": 0, "local": 0, "blocks": 8, "IMMA": 16, "HMMA": 0, "IDP": 0,
         "LOAD128": 3}


class ComparesWithTheTable(unittest.TestCase):
    def violations(self, **changes):
        table = {"a.cu": {"k": {"sm_80": check_machine_code.limits_of(FOUND)}}}
        return list(check_machine_code.check(table, {"a.cu": {"k": {"sm_80": {**FOUND, **changes}}}}))

    def test_what_the_table_was_made_of_passes(self):
        self.assertEqual(self.violations(), [])

    def test_registers_are_rounded_up_to_eight(self):
        self.assertEqual(self.violations(registers=64), [])
        self.assertEqual(len(self.violations(registers=65)), 1)

    def test_each_limit_is_checked(self):
        for key, value, text in (("registers", 65, "65 registers a thread, at most 64"), ("shared", 65, "65 bytes of static shared"),
                                 ("blocks", 7, "7 blocks on a multiprocessor, at least 8"), ("IMMA", 15, "15 int8 tensor core"),
                                 ("LOAD128", 2, "2 16-byte global loads")):
            (line,) = self.violations(**{key: value})
            self.assertTrue(line.startswith("a.cu: k, sm_80: "), line)
            self.assertIn(text, line)

    def test_better_code_passes(self):
        self.assertEqual(self.violations(registers=40, shared=0, blocks=9, IMMA=17, HMMA=1, LOAD128=9), [])

    def test_a_kernel_without_an_entry_and_an_entry_without_a_kernel_are_violations(self):
        found = {"a.cu": {"k": {"sm_80": FOUND}}}
        limits = {"a.cu": {"k": {"sm_80": check_machine_code.limits_of(FOUND)}}}
        self.assertIn("a kernel without limits", *check_machine_code.check({}, found))
        self.assertIn("limits without a kernel", *check_machine_code.check(limits, {}))


class Measures(unittest.TestCase):
    def run_script(self, *arguments):
        script = Path(check_machine_code.__file__)
        return subprocess.run([sys.executable, str(script), "--occupancy", OCCUPANCY, *arguments], capture_output=True, text=True,
                              check=False)

    def test_kernels_without_bounds_or_tests_or_an_architecture_are_faults(self):
        executed = {"bitnet::test::copy_async_kernel(unsigned int const*, unsigned int*)": check_machine_code.Launches(3, 4096)}
        measured, faults = check_machine_code.measure([OBJECT], [*ARCHITECTURES, "sm_70"], executed, OCCUPANCY)
        source = "vocabulary_kernels.cu"
        self.assertEqual(list(measured), [source])
        self.assertEqual(measured[source]["bitnet::test::copy_async_kernel"]["sm_90"]["dynamic_shared"], 4096)
        self.assertTrue(any("mma_s8_kernel: no __launch_bounds__" in fault for fault in faults))
        self.assertTrue(any("mma_s8_kernel: no test executes it" in fault for fault in faults))
        self.assertTrue(any("mma_s8_kernel: no machine code for sm_70" in fault for fault in faults))
        self.assertFalse(any("copy_async_kernel: no test" in fault or "block_reductions_kernel: no __" in fault for fault in faults))

    def test_the_written_table_is_accepted_by_the_next_check(self):
        with tempfile.TemporaryDirectory() as folder:
            table = f"{folder}/limits.json"
            architectures = ",".join(a[3:] for a in ARCHITECTURES)
            common = ("--table", table, "--architectures", architectures, OBJECT)
            self.assertIn("limits of 8 kernels written", self.run_script("--update", *common).stdout)
            checked = self.run_script(*common)
            self.assertNotIn("limits", checked.stdout)
            self.assertIn("8 kernels for 6 architectures", checked.stdout)
            text = Path(table).read_text("utf-8")
            Path(table).write_text(text.replace('"IMMA": 1', '"IMMA": 2', 1), "utf-8")
            checked = self.run_script(*common)
            self.assertEqual(checked.returncode, 1)
            self.assertIn("1 int8 tensor core instructions (IMMA), at least 2 are expected", checked.stdout)

    def test_totals_that_are_not_there_are_an_error_with_advice(self):
        checked = self.run_script("--table", "none", "--architectures", "80", "--executed", "none.txt", "--", OBJECT)
        self.assertEqual(checked.returncode, 1)
        self.assertIn("none.txt is not there: run ctest -L emulator first", checked.stderr)


if __name__ == "__main__":
    unittest.main()
