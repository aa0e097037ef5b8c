# SPDX-License-Identifier: GPL-2.0-or-later
"""Functions of a ring-0 image, run over a kernel's memory without a kernel that has booted.

Paging is off, and RAM lies where the kernel would map it: an address of low memory means the
same as it does in the kernel. No trap is served; a guest that faults stops.
"""

from pathlib import Path

from unicorn import UC_ARCH_X86, UC_MODE_32, UC_PROT_ALL, Uc
from unicorn.x86_const import UC_X86_REG_EAX, UC_X86_REG_EIP, UC_X86_REG_ESP

from harness.elf import load_elf
from kernel_model.image import KernelImage
from kernel_model.ram import Ram

PAGE_OFFSET = 0xC0000000
RETURN = 0xC0001000
"""Nobody's memory, where a function returns to."""


class BareGuest:
    """An image over the RAM of a machine."""

    def __init__(self, image: KernelImage, program: Path) -> None:
        self._ram: Ram = image.ram
        elf = load_elf(program)
        elf.load_physical(self._ram)
        self._symbols = elf.symbols
        self._stack = image.kernel_stack_top(image.init_task)
        self._uc = Uc(UC_ARCH_X86, UC_MODE_32)
        self._uc.mem_map_ptr(PAGE_OFFSET, self._ram.size, UC_PROT_ALL, self._ram.address)

    def call(self, function: str) -> int:
        """What a function without arguments returns."""
        esp = self._stack - 16
        self._ram.write32(esp - PAGE_OFFSET, RETURN)
        self._uc.reg_write(UC_X86_REG_ESP, esp)
        self._uc.emu_start(self._symbols[function], RETURN, count=200_000_000)
        assert self._uc.reg_read(UC_X86_REG_EIP) == RETURN, f"{function}() came to no end"
        return int(self._uc.reg_read(UC_X86_REG_EAX))
