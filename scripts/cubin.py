# SPDX-License-Identifier: MIT
"""Reads the machine code that nvcc puts into an object file, without NVIDIA's tools.

An object holds one ELF file ("cubin") for each architecture, uncompressed. A cubin has a section .text.NAME for each kernel and
.nv.info attributes that say its registers and so on. Instructions are 16 bytes each, from sm_70 to sm_120.
"""
import collections
import re
import struct
import subprocess
from dataclasses import dataclass, field

EM_CUDA = 190
STT_FUNC, STO_CUDA_ENTRY = 2, 0x10
FORMAT_SIZED, MAX_THREADS, FRAME_SIZE, REGISTERS = 4, 0x05, 0x11, 0x2F  # of .nv.info
DYNAMIC_ALIGNMENT = 128  # of the one dynamic shared array in cuda/gpu.h; static ones are aligned to 16

# Bits 0-11 of an instruction that the gates count; bits 9-11 tell the form of the operands. tests/machine_code proves them, for each
# architecture, on kernels that have a known number of each.
OPCODES = {0x237: "IMMA", 0x23C: "HMMA", 0x026: "IDP", 0x226: "IDP", 0x426: "IDP", 0x626: "IDP", 0x826: "IDP", 0xA26: "IDP", 0xC26: "IDP",
           0x83B: "LDSM", 0x381: "LDG", 0x981: "LDG", 0xFAE: "LDGSTS", 0x387: "STL", 0x983: "LDL"}
GLOBAL_LOADS = {"LDG", "LDGSTS"}


def is_16_bytes(name, architecture, high):
    """Whether a global load moves 16 bytes a thread; `high` is the instruction's upper half."""
    return high >> 9 & 7 == (4 if name == "LDGSTS" and architecture >= 100 else 6)


@dataclass
class Kernel:
    """One kernel for one architecture."""
    name: str
    architecture: str  # "sm_90"
    signature: str = ""  # the name with its parameters: kernels of two files may share a name
    registers: int = 0
    local_bytes: int = 0  # of a thread: spilled registers, and arrays that are indexed at run time
    shared_bytes: int = 0  # of the static arrays
    uses_dynamic_shared: bool = False
    max_threads: int = 0  # of __launch_bounds__; 0: none
    opcodes: collections.Counter = field(default_factory=collections.Counter)  # and "LOAD128": 16-byte global loads


class Section:
    """Name and place of one section; offsets are of the whole object file."""

    def __init__(self, data, start, header, names):
        name, _, _, _, offset, self.size, _, self.info, self.alignment, _ = struct.unpack_from("<IIQQQQIIQQ", data, header)
        self.name = string_at(data, names + name)
        self.offset = start + offset


def string_at(data, offset):
    return data[offset:data.index(b"\0", offset)].decode()


def sections_of(data, start):
    table = start + struct.unpack_from("<Q", data, start + 40)[0]
    entry_size, count, names_index = struct.unpack_from("<HHH", data, start + 58)
    names = start + struct.unpack_from("<Q", data, table + names_index * entry_size + 24)[0]
    return [Section(data, start, table + i * entry_size, names) for i in range(count)]


def attributes(data, section):
    """(attribute, payload) for each sized entry of an .nv.info section."""
    at, end = section.offset, section.offset + section.size
    while at < end:
        kind, attribute, value = struct.unpack_from("<BBH", data, at)
        at += 4
        if kind == FORMAT_SIZED:
            yield attribute, data[at:at + value]
            at += value


def count_opcodes(code, architecture):
    counts = collections.Counter()
    for low, high in struct.iter_unpack("<QQ", code):
        name = OPCODES.get(low & 0xFFF)
        if name is None or low >> 12 & 15 == 15:  # predicate !PT: never executed
            continue
        counts[name] += 1
        if name in GLOBAL_LOADS and is_16_bytes(name, architecture, high):
            counts["LOAD128"] += 1
    return counts


def read_cubin(data, start):
    """The kernels of the cubin at data[start:], by mangled name."""
    flags = struct.unpack_from("<I", data, start + 48)[0]
    abi = data[start + 8]  # 8: CUDA 13; 7: before
    number = flags >> 8 & 0xFF if abi >= 8 else flags & 0xFF
    sections = {section.name: section for section in sections_of(data, start)}
    symbols, strings = sections[".symtab"], sections[".strtab"]
    kernels, by_symbol = {}, {}
    for i in range(symbols.size // 24):
        name, info, other, _, _, _ = struct.unpack_from("<IBBHQQ", data, symbols.offset + 24 * i)
        if info & 15 == STT_FUNC and other & STO_CUDA_ENTRY:
            mangled = string_at(data, strings.offset + name)
            kernels[mangled] = by_symbol[i] = Kernel(mangled, f"sm_{number}")
    for attribute, payload in attributes(data, sections[".nv.info"]):
        if attribute in (REGISTERS, FRAME_SIZE):
            symbol, value = struct.unpack("<II", payload)
            if symbol in by_symbol:  # and not a function that was not inlined
                setattr(by_symbol[symbol], "registers" if attribute == REGISTERS else "local_bytes", value)
    reserved = 1024 if number >= 90 else 0  # shared memory of the system, which counts as the kernel's
    for mangled, kernel in kernels.items():
        for attribute, payload in attributes(data, sections[f".nv.info.{mangled}"]):
            if attribute == MAX_THREADS:
                x, y, z = struct.unpack("<III", payload)
                kernel.max_threads = x * y * z
        shared = sections.get(f".nv.shared.{mangled}")
        if shared is not None:
            kernel.shared_bytes = shared.size - reserved
            kernel.uses_dynamic_shared = shared.alignment >= DYNAMIC_ALIGNMENT
        text = sections[f".text.{mangled}"]
        kernel.opcodes = count_opcodes(data[text.offset:text.offset + text.size], number)
    return kernels


def toolkit_of(data):
    """"V13.0.88": of the compiler that made the machine code, or an empty string."""
    match = re.search(rb"Cuda compilation tools, release [\d.]+, (V[\d.]+)", data)
    return match[1].decode() if match else ""


def signature_of(demangled):
    """"gemm_kernel<Tile<64>, float>(Gemm<float>)" of "void bitnet::cuda::(anonymous namespace)::gemm_kernel<…>(bitnet::cuda::Gemm<float>)"."""
    return demangled.removeprefix("void ").replace("(anonymous namespace)::", "").replace("bitnet::cuda::", "")


def without_parameters(signature):
    depth = 0
    for at, letter in enumerate(signature):
        if letter == "(" and depth == 0:
            return signature[:at]
        depth += {"<": 1, ">": -1}.get(letter, 0)
    return signature


def demangle(names):
    done = subprocess.run(["c++filt"], input="\n".join(names), capture_output=True, text=True, check=True)
    return dict(zip(names, done.stdout.splitlines()))


def read_kernels(data):
    """All kernels of an object file, with readable names. They need not be in any order."""
    found, at = [], -1
    while (at := data.find(b"\x7fELF", at + 1)) >= 0:
        if len(data) >= at + 64 and struct.unpack_from("<H", data, at + 18)[0] == EM_CUDA:
            found += read_cubin(data, at).values()
    readable = demangle(sorted({kernel.name for kernel in found}))
    for kernel in found:
        kernel.signature = signature_of(readable[kernel.name])
        kernel.name = without_parameters(kernel.signature)
    return found
