# SPDX-License-Identifier: GPL-2.0-or-later
"""Unicorn's MMU as a witness for the reference walk, with its error codes and its A and D flags.

One CPU in ring 0 and one in ring 3 share a small RAM; for each question they are given the
registers of the case, and the library's ``uc_vmem_translate`` walks as an access would. The
error code of the fault that it found stands in the CPU state, reachable through a saved
context: 16 bytes before DR0, which is found by the value put there. Made apart from
``harness.cpu`` on purpose: a witness shares nothing with what it is called to confirm.
"""

import ctypes
import struct
from dataclasses import dataclass

import unicorn
from unicorn import x86_const as x86
from unicorn.unicorn_py3.unicorn import uclib

from harness.architecture import Access, ControlRegisters, Ring
from harness.paging_modes import MmuFeatures
from kernel_model.ram import Ram

FEATURES = MmuFeatures(physical_bits=40, nx=True)
"""Unicorn walks with 40 physical bits and PSE-36 whatever its CPU model; a Core Duo has NX."""

_PROTECTION = {Access.READ: 1, Access.WRITE: 2, Access.FETCH: 4}
_MAGIC = (0x51525354, 0x61626364, 0x71727374, 0x41424344)
_EFER = 0xC0000080

# Where the way to ring 3 is built, and wiped when the CPU has gone it.
_GDT, _STACK, _TEXT, _DIRECTORY, _TABLE = 0xC000, 0xC800, 0xD000, 0xE000, 0xF000
_RING3_TEXT = _TEXT + 16
_IRET = b"\xcf"
_FLAT_SEGMENTS = (0, 0, 0x00CF9B000000FFFF, 0x00CFFB000000FFFF, 0x00CFF3000000FFFF)

_translate = uclib.uc_vmem_translate
_translate.argtypes = [
    ctypes.c_void_p,
    ctypes.c_uint64,
    ctypes.c_int,
    ctypes.POINTER(ctypes.c_uint64),
]


@dataclass(frozen=True)
class Answer:
    """What the MMU made of one access: ``paddr``, or else the ``error_code`` of a #PF."""

    paddr: int | None
    error_code: int | None


class UnicornMmu:
    """Two Core Duos over ``ram``, of which they use frames 12 to 15 to set themselves up."""

    def __init__(self, ram: Ram) -> None:
        self._ram = ram
        self._cpus = {ring: self._new_cpu() for ring in Ring}
        self._context = self._cpus[Ring.KERNEL].context_save()
        self._error_code = self._find_error_code()
        self._drop_to_ring3(self._cpus[Ring.USER])

    def _new_cpu(self) -> unicorn.Uc:
        cpu = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_32)
        cpu.ctl_set_cpu_model(x86.UC_CPU_X86_COREDUO)
        for start, end in self._ram.ranges:
            address = self._ram.address + start
            cpu.mem_map_ptr(start, end - start, unicorn.UC_PROT_ALL, address)
        return cpu

    def _find_error_code(self) -> ctypes.c_int32:
        """The field of the saved context that holds the error code of the last fault."""
        context = self._context
        for number, value in enumerate(_MAGIC):
            context.reg_write(x86.UC_X86_REG_DR0 + number, value)
        size = uclib.uc_context_size(self._cpus[Ring.KERNEL]._uch)
        start = context.context.value
        offset = ctypes.string_at(start, size).find(struct.pack("<4Q", *_MAGIC))
        assert offset > 16, "the debug registers are not where they were"
        return ctypes.c_int32.from_address(start + offset - 16)

    def _drop_to_ring3(self, cpu: unicorn.Uc) -> None:
        """Let the CPU execute an ``iret``: nothing else really changes its ring."""
        ram = self._ram
        ram.write(_GDT, struct.pack("<5Q", *_FLAT_SEGMENTS))
        ram.write(_STACK, struct.pack("<5I", _RING3_TEXT, 0x1B, 2, _STACK, 0x23))
        ram.write(_TEXT, _IRET)
        ram.write32(_DIRECTORY, _TABLE | 7)
        for page in range(16):
            ram.write32(_TABLE + 4 * page, page << 12 | 7)
        cpu.reg_write(x86.UC_X86_REG_GDTR, (0, _GDT, 8 * len(_FLAT_SEGMENTS) - 1, 0))
        self._load(cpu, ControlRegisters(0x80000001, _DIRECTORY))
        cpu.reg_write(x86.UC_X86_REG_ESP, _STACK)
        cpu.emu_start(_TEXT, _RING3_TEXT, count=1)
        assert cpu.reg_read(x86.UC_X86_REG_CS) == 0x1B
        # A case may take any frame for a table: leave none that is not empty.
        ram.fill(_GDT, _TABLE + 0x1000 - _GDT)

    @staticmethod
    def _load(cpu: unicorn.Uc, registers: ControlRegisters) -> None:
        """CR3 first and last: the walk needs it, and writing it flushes the TLB."""
        cpu.reg_write(x86.UC_X86_REG_CR0, registers.cr0 & ~(1 << 31))
        cpu.reg_write(x86.UC_X86_REG_CR4, registers.cr4)
        cpu.msr_write(_EFER, registers.efer)
        cpu.reg_write(x86.UC_X86_REG_CR3, registers.cr3)
        cpu.reg_write(x86.UC_X86_REG_CR0, registers.cr0)
        cpu.ctl(unicorn.UC_CTL_TLB_FLUSH, unicorn.UC_CTL_IO_WRITE)

    def load(self, registers: ControlRegisters) -> None:
        """Give both CPUs the registers of a case."""
        for cpu in self._cpus.values():
            self._load(cpu, registers)

    def access(self, va: int, access: Access, ring: Ring) -> Answer:
        """Walk with a cold TLB; A and D are left in RAM as the CPU wrote them."""
        cpu = self._cpus[ring]
        cpu.ctl(unicorn.UC_CTL_TLB_FLUSH, unicorn.UC_CTL_IO_WRITE)
        paddr = ctypes.c_uint64()
        if _translate(cpu._uch, va, _PROTECTION[access], ctypes.byref(paddr)) == 0:
            return Answer(paddr.value, None)
        uclib.uc_context_save(cpu._uch, self._context.context)
        return Answer(None, self._error_code.value)
