# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading a program's memory as ring 3 sees it.

Every page goes through the reference walk with ring-3 rights, so that a pointer handed to a
system call reaches what the program itself could have read, and nothing else. What can fail:
:class:`~harness.mmu_faults.TranslationFault` at the first byte the program may not read.
"""

from harness.architecture import Access, ControlRegisters, Ring
from harness.mmu_spec import walk
from kernel_model.ram import PAGE_SIZE, Ram


def read_user(ram: Ram, control: ControlRegisters, vaddr: int, length: int) -> bytes:
    """``length`` bytes at the user address ``vaddr``."""
    data = bytearray()
    while len(data) < length:
        va = vaddr + len(data) & 0xFFFFFFFF
        translation = walk(ram, control, va, Access.READ, Ring.USER)
        if translation.paddr is None:
            assert translation.fault is not None
            raise translation.fault
        chunk = min(length - len(data), PAGE_SIZE - va % PAGE_SIZE)
        data += ram.read(translation.paddr, chunk)
    return bytes(data)
