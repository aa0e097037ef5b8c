# SPDX-License-Identifier: GPL-2.0-or-later
"""The vsyscall page: code of the kernel's that every program may run, to enter it by the best way.

Models linux-2.6.11 ``arch/i386/kernel/sysenter.c`` and ``mm/memory.c: in_gate_area()`` (book 4.8).
In RAM: one frame, mapped at the fixed address FIX_VSYSCALL for ring 3 to read; no VMA covers it.
What it holds, a small shared object, is the guest's (``guest/vsyscall``), as the kernel's own text
is: whoever brings the guest calls :meth:`VsyscallPage.load`.

What can fail: an image that is no ELF file of one page is a
:class:`~kernel_model.errors.BadInput`; without memory the boot is over.
"""

import struct
from typing import Final

from kernel_model.arch_i386.fixmap import fixed_addresses
from kernel_model.arch_i386.page import PAGE_SHIFT, PAGE_SIZE
from kernel_model.arch_i386.pgalloc import PageTables
from kernel_model.arch_i386.pgtable import PAGE_READONLY, mk_pte
from kernel_model.arch_i386.regions import KernelMapping
from kernel_model.arch_i386.tlb import Tlb
from kernel_model.errors import BadInput, KernelPanic
from kernel_model.events import Rights
from kernel_model.image import SWAPPER_PG_DIR, KernelImage
from kernel_model.mm.page_alloc import PageAllocator

SIGRETURN: Final = 0x420
RT_SIGRETURN: Final = 0x440
"""Where the two ways back from a signal handler lie in the page."""
_E_ENTRY: Final = 24
_ELF_MAGIC: Final = b"\x7fELF"


class VsyscallPage:
    """The page of one machine."""

    def __init__(
        self, image: KernelImage, allocator: PageAllocator, tables: PageTables, tlb: Tlb
    ) -> None:
        self._ram = image.ram
        self._tlb = tlb
        fixed = fixed_addresses(image.config)
        self.vaddr = fixed.to_virt(fixed.slots["FIX_VSYSCALL"])
        page = allocator.alloc_page(image.constants.gfp.atomic, "vsyscall page")
        if not page:
            raise KernelPanic("sysenter_setup: no memory for the vsyscall page")
        self.paddr = allocator.memmap.pfn(page) << PAGE_SHIFT
        self._ram.fill(self.paddr, PAGE_SIZE)
        pmdp = tables.pmd_offset(tables.pgd_offset(SWAPPER_PG_DIR, self.vaddr), self.vaddr)
        pte = mk_pte(self.paddr >> PAGE_SHIFT, PAGE_READONLY)
        tables.set_pte(tables.pte_offset(pmdp, self.vaddr), pte)
        # set_fixmap() flushes whatever was there before; an i386 caches no absent page.
        tlb.processor.flush_tlb_one(self.vaddr)

    def load(self, image: bytes) -> None:
        """Put the shared object there that programs shall find."""
        if len(image) > PAGE_SIZE or image[:4] != _ELF_MAGIC:
            raise BadInput(f"a vsyscall page of {len(image)} bytes: give an ELF file of one page")
        self._ram.write(self.paddr, image.ljust(PAGE_SIZE, b"\0"))
        self._tlb.processor.snoop(self.paddr, PAGE_SIZE)

    @property
    def entry(self) -> int:
        """``__kernel_vsyscall``: AT_SYSINFO of every program."""
        (entry,) = struct.unpack("<I", self._ram.read(self.paddr + _E_ENTRY, 4))
        return int(entry)

    @property
    def sigreturn(self) -> tuple[int, int]:
        """Where handlers return to, that of ``sigreturn()`` and that of ``rt_sigreturn()``."""
        return self.vaddr + SIGRETURN, self.vaddr + RT_SIGRETURN

    def in_gate_area(self, vaddr: int) -> bool:
        """Whether ``vaddr`` may be looked at although no VMA covers it."""
        return self.vaddr <= vaddr < self.vaddr + PAGE_SIZE

    def mapping(self) -> KernelMapping:
        """What the kernel means to have mapped there."""
        rights = Rights(write=False, user=True)
        return KernelMapping(self.vaddr, self.paddr, PAGE_SIZE, rights, "vsyscall page")
