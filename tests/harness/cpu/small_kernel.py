# SPDX-License-Identifier: GPL-2.0-or-later
"""A kernel of a few hundred bytes, by hand, to test the CPU and the delivery of traps with.

Physical memory is mapped at 0xC0000000 for ring 0, and two pages at 0x08000000 for ring 3.
Every vector has a stub that saves the registers, makes a hypercall with the vector in EAX,
restores and returns. :class:`SmallKernel` builds tables and code in RAM and enters either ring.
"""

import struct
from collections.abc import Callable
from dataclasses import dataclass

from harness.architecture import CR0_PE, CR0_PG, CR0_WP, CR4_PAE, ControlRegisters
from harness.cpu.interface import StopReason
from harness.cpu.unicorn_cpu import UnicornCpu
from harness.traps import HAS_ERROR_CODE
from kernel_model.ram import PAGE_SIZE, Ram

KERNEL = 0xC0000000
PGD, KERNEL_PTES, USER_PTES = 0x1000, 0x2000, 0x3000
PMDS = 0x30000
GDT, IDT, TSS, STACK_TOP = KERNEL + 0x4000, KERNEL + 0x5000, KERNEL + 0x6000, KERNEL + 0x8000
CODE, STUBS, DATA = KERNEL + 0x10000, KERNEL + 0x11000, KERNEL + 0x18000
USER_CODE, USER_STACK_TOP = 0x08000000, 0x08002000
USER_FRAME = 0x20000
FREE_VA = 0x08010000
"""A user address whose page table exists and whose page does not."""
FREE_FRAME = 0x40000

KERNEL_CS, KERNEL_DS, USER_CS, USER_DS, TSS_SELECTOR, DPL3_CODE = 0x10, 0x18, 0x23, 0x2B, 0x30, 0x3B

OUT = bytes.fromhex("e74d")
IRET = b"\xcf"
HLT = b"\xf4"
SPIN = bytes.fromhex("ebfe")


def mov_eax(value: int) -> bytes:
    return b"\xb8" + struct.pack("<I", value)


def load_eax(address: int) -> bytes:
    return b"\xa1" + struct.pack("<I", address)


def store_eax(address: int) -> bytes:
    return b"\xa3" + struct.pack("<I", address)


def push(value: int) -> bytes:
    return b"\x68" + struct.pack("<I", value)


def interrupt(vector: int) -> bytes:
    return bytes([0xCD, vector])


def jump_eax() -> bytes:
    return bytes.fromhex("ffe0")


def descriptor(access: int, *, base: int = 0, limit: int = 0xFFFFF, flags: int = 0xC) -> bytes:
    """``access``: the byte with P, DPL, S and type; ``flags``: G, D/B."""
    low = limit & 0xFFFF | (base & 0xFFFF) << 16
    high = base >> 16 & 0xFF | access << 8 | limit & 0xF0000 | flags << 20 | base & 0xFF000000
    return struct.pack("<II", low, high)


def gate(
    handler: int, *, kind: int = 0xE, dpl: int = 0, selector: int = KERNEL_CS, p: int = 1
) -> bytes:
    low = handler & 0xFFFF | selector << 16
    return struct.pack("<II", low, handler & 0xFFFF0000 | p << 15 | dpl << 13 | kind << 8)


@dataclass
class Frame:
    """What the microcode pushed, as the stub finds it."""

    vector: int
    error_code: int | None
    address: int
    words: list[int]

    @property
    def eip(self) -> int:
        return self.words[0]

    @property
    def cs(self) -> int:
        return self.words[1]

    @property
    def eflags(self) -> int:
        return self.words[2]

    @property
    def esp(self) -> int:
        return self.words[3]

    @property
    def ss(self) -> int:
        return self.words[4]


class SmallKernel:
    """A machine with that kernel in it; ``seen`` collects the frames of all traps.

    ``on_frame`` is called for each; without one the run stops at the first trap. The vector
    0x80 with EAX as the user left it is an ordinary trap too.
    """

    def __init__(
        self, model: str = "pentium3", *, pae: bool = False, ram: Ram | None = None
    ) -> None:
        self.ram = ram or Ram(8 << 20)
        self.pae = pae
        self._build_tables()
        self._build_segments()
        self.cpu = UnicornCpu(self.ram, model)
        self.seen: list[Frame] = []
        self.on_frame: Callable[[Frame], None] | None = None
        self.cpu.on_hypercall = self._hypercall
        cr4 = CR4_PAE if pae else 0
        self.cpu.load_control(ControlRegisters(CR0_PE | CR0_WP | CR0_PG, PGD, cr4))
        self._boot()

    def _build_tables(self) -> None:
        write = self.ram.write64 if self.pae else self.ram.write32
        if self.pae:
            for n in range(4):
                self.ram.write64(PGD + 8 * n, PMDS + n * PAGE_SIZE | 1)
            self.ram.write64(PMDS + 3 * PAGE_SIZE, KERNEL_PTES | 3)
            self.ram.write64(PMDS + 8 * (USER_CODE >> 21), USER_PTES | 7)
        else:
            self.ram.write32(PGD + 4 * (KERNEL >> 22), KERNEL_PTES | 3)
            self.ram.write32(PGD + 4 * (USER_CODE >> 22), USER_PTES | 7)
        size = 8 if self.pae else 4
        for n in range(PAGE_SIZE // size):
            write(KERNEL_PTES + size * n, n << 12 | 3)
        for n in range(2):
            write(USER_PTES + size * n, USER_FRAME + n * PAGE_SIZE | 7)

    def pte_paddr(self, va: int) -> int:
        """Where the PTE of ``va`` lies, among the tables built here."""
        table = KERNEL_PTES if va >= KERNEL else USER_PTES
        if self.pae:
            return table + 8 * (va >> 12 & 0x1FF)
        return table + 4 * (va >> 12 & 0x3FF)

    def set_pte(self, va: int, value: int) -> None:
        write = self.ram.write64 if self.pae else self.ram.write32
        write(self.pte_paddr(va), value)

    def pte(self, va: int) -> int:
        return (self.ram.read64 if self.pae else self.ram.read32)(self.pte_paddr(va))

    def _build_segments(self) -> None:
        self.write(GDT, bytes(16) + b"".join([
            descriptor(0x9A), descriptor(0x92), descriptor(0xFA), descriptor(0xF2),
            descriptor(0x89, base=TSS, limit=0x67, flags=0), descriptor(0xFA),
        ]))  # fmt: skip
        self.write(TSS + 4, struct.pack("<II", STACK_TOP, KERNEL_DS))
        self.write(TSS + 0x66, struct.pack("<H", 0x8000))
        for vector in range(256):
            self.set_gate(vector, gate(STUBS + 16 * vector, dpl=3 if vector in (3, 4, 0x80) else 0))
            pop_code = bytes.fromhex("83c404") if vector in HAS_ERROR_CODE else b""
            stub = b"\x60" + mov_eax(vector) + OUT + b"\x61" + pop_code + IRET
            self.write(STUBS + 16 * vector, stub)

    def write(self, va: int, data: bytes) -> None:
        """Put bytes at a kernel address of the direct map, or at the user's code."""
        self.ram.write(va - KERNEL if va >= KERNEL else va - USER_CODE + USER_FRAME, data)

    def set_gate(self, vector: int, data: bytes) -> None:
        self.write(IDT + 8 * vector, data)

    def set_descriptor(self, selector: int, data: bytes) -> None:
        self.write(GDT + (selector & ~7), data)

    def _boot(self) -> None:
        """Load GDT, segments, IDT and TSS as a kernel does."""
        self.write(DATA, struct.pack("<HI", 0x3F, GDT) + bytes(2) + struct.pack("<HI", 0x7FF, IDT))
        code = bytes.fromhex("0f0115") + struct.pack("<I", DATA)
        code += b"\xea" + struct.pack("<IH", CODE + len(code) + 7, KERNEL_CS)
        code += mov_eax(KERNEL_DS) + bytes.fromhex("8ed8 8ec0 8ed0")
        code += bytes.fromhex("0f011d") + struct.pack("<I", DATA + 8)
        code += mov_eax(TSS_SELECTOR) + bytes.fromhex("0f00d8") + HLT
        self.write(CODE, code)
        reason = self.cpu.start(CODE)
        assert not reason.died, reason
        self.cpu.invalidate_all_code()

    def _hypercall(self) -> None:
        registers = self.cpu.registers
        vector, address = registers.eax, registers.esp + 32
        words = [self.read32(address + 4 * n) for n in range(6)]
        has_code = vector in HAS_ERROR_CODE
        frame = Frame(vector, words[0] if has_code else None, address, words[has_code:])
        self.seen.append(frame)
        if self.on_frame is None:
            self.cpu.stop()
        else:
            self.on_frame(frame)

    def read32(self, va: int) -> int:
        """By virtual address in the direct map (or 0 outside: there is no frame there)."""
        return self.ram.read32(va - KERNEL) if va >= KERNEL else 0

    def saved_eax(self) -> int:
        """EAX as the guest had it when it trapped last: the stub has pushed it."""
        return self.read32(self.seen[-1].address - 4)

    def allow_ports(self, ports: set[int]) -> None:
        """Give the TSS an I/O permission bitmap of 8,192 ports with ``ports`` open."""
        bitmap = bytearray(b"\xff" * 1025)
        for port in ports:
            bitmap[port >> 3] &= ~(1 << (port & 7))
        tss = KERNEL + 0x48000
        self.write(tss, self.ram.read(TSS - KERNEL, 0x66) + struct.pack("<H", 0x68) + bitmap)
        self.set_descriptor(TSS_SELECTOR, descriptor(0x89, base=tss, limit=0x68 + 1024, flags=0))
        self.run_kernel(mov_eax(TSS_SELECTOR) + bytes.fromhex("0f00d8") + HLT)

    def skip(self, frame: Frame, length: int) -> None:
        """Let the trap return behind the instruction."""
        offset = 4 if frame.error_code is not None else 0
        self.ram.write32(frame.address + offset - KERNEL, frame.eip + length)

    def run_kernel(self, code: bytes, **limits: float) -> StopReason:
        """Run ``code`` in ring 0 with the stack at STACK_TOP."""
        return self._run(CODE, b"\xbc" + struct.pack("<I", STACK_TOP) + code, **limits)

    def run_user(self, code: bytes, *, eflags: int = 0x202, **limits: float) -> StopReason:
        """Run ``code`` in ring 3, entered by an ``iret``."""
        self.write(USER_CODE, code)
        enter = b"".join(map(push, (USER_DS, USER_STACK_TOP, eflags, USER_CS, USER_CODE))) + IRET
        enter = mov_eax(USER_DS) + bytes.fromhex("8ed88ec0") + enter
        return self.run_kernel(enter, **limits)

    def _run(self, eip: int, code: bytes, **limits: float) -> StopReason:
        self.write(eip, code)
        self.cpu.invalidate_all_code()
        limits.setdefault("timeout_seconds", 20)
        return self.cpu.start(eip, **limits)  # type: ignore[arg-type]


def absent(kernel: SmallKernel, *vectors: int) -> None:
    """Mark gates not present."""
    for vector in vectors:
        kernel.set_gate(vector, gate(STUBS, p=0))
