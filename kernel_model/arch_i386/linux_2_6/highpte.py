# SPDX-License-Identifier: GPL-2.0-or-later
"""Entries of page tables that the kernel reaches only through a mapping.

Models what linux-2.6.11 ``include/asm-i386/pgtable.h`` comes to with CONFIG_HIGHPTE (book 3.10).

A pointer to a PTE is physical where the direct map reaches the table; else it is the address in a
slot of ``kmap_atomic()``, marked by :data:`IN_SLOT` because there may be RAM at that physical
address, too. It means whatever frame the slot's own PTE names when the pointer is used: one that is
kept too long reads and writes another table, as it would on the CPU.

In RAM: the PTEs of the slots. What can fail: a slot that maps nothing, where the kernel would
fault, is an :class:`UnmappedSlot`.
"""

from typing import Final

from kernel_model.arch_i386.fixmap import fixed_addresses
from kernel_model.arch_i386.page import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE, virt_to_phys
from kernel_model.arch_i386.pgalloc import PageTables
from kernel_model.arch_i386.pgtable import pte_pfn, pte_present
from kernel_model.errors import KernelBug
from kernel_model.image import KernelImage

IN_SLOT: Final = 1 << 40
"""Above any physical address, and none of the pointer's address."""


class UnmappedSlot(KernelBug):
    """A pointer to a PTE, ``vaddr``, leads into a slot of ``kmap_atomic()`` that maps nothing."""

    def __init__(self, vaddr: int) -> None:
        super().__init__("pgtable.h", 0, f"{vaddr:#x}, a pointer to a PTE, is not mapped")
        self.vaddr = vaddr


class HighPageTables(PageTables):
    """:class:`PageTables` some of which lie in high memory."""

    def __init__(self, image: KernelImage) -> None:
        super().__init__(image)
        self._statics = image.statics
        fixed = fixed_addresses(image.config)
        self._first_slot = fixed.to_virt(fixed.slots["FIX_KMAP_BEGIN"])

    def ptep_to_paddr(self, ptep: int) -> int:
        if not ptep & IN_SLOT:
            return ptep
        below = self._first_slot - (ptep & PAGE_MASK) >> PAGE_SHIFT
        slot = virt_to_phys(self._statics.kmap_pte) - below * self.shape.entry_bytes
        pte = super().entry(slot)
        if not pte_present(pte):
            raise UnmappedSlot(ptep & ~IN_SLOT)
        return pte_pfn(pte) << PAGE_SHIFT | ptep % PAGE_SIZE

    def entry(self, paddr: int) -> int:
        return super().entry(self.ptep_to_paddr(paddr))

    def set_pte(self, ptep: int, pte: int) -> None:
        super().set_pte(self.ptep_to_paddr(ptep), pte)

    def pte_clear(self, ptep: int) -> None:
        super().pte_clear(self.ptep_to_paddr(ptep))

    def ptep_get_and_clear(self, ptep: int) -> int:
        return super().ptep_get_and_clear(self.ptep_to_paddr(ptep))


def page_tables(image: KernelImage) -> PageTables:
    """What the build of a 2.6 kernel has, chosen once."""
    return HighPageTables(image) if image.config.highpte else PageTables(image)
