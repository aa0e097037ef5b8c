# SPDX-License-Identifier: GPL-2.0-or-later
"""Page tables of processes in high memory, each mapped while somebody looks at it.

Models linux-2.6.11 ``include/asm-i386/pgtable.h`` with CONFIG_HIGHPTE: ``pte_offset_map()``,
``pte_offset_map_nested()``, ``pte_unmap()``, ``pte_unmap_nested()``; and ``rmap_ptep_map()`` of
2.6.0 (book 3.10). Each CPU has two slots of ``kmap_atomic()`` for them, KM_PTE0 and KM_PTE1, so
nobody holds more than one pointer of each kind, or sleeps with one. In RAM: the slots' PTEs,
``preempt_count``. What can fail: see :mod:`kernel_model.arch_i386.linux_2_6.highpte`.

2.6.0 has a third slot, KM_PTE2, for the chains of its reverse map; here they use the first.
"""

from kernel_model.arch_i386.highmem import DirectMapping, KmType26
from kernel_model.arch_i386.linux_2_6.highpte import IN_SLOT
from kernel_model.arch_i386.page import PAGE_SHIFT, PAGE_SIZE, phys_to_virt
from kernel_model.arch_i386.pgalloc import PageTableAllocator
from kernel_model.image import KernelImage
from kernel_model.mm.memory.linux_2_6.tables import CountedTables
from kernel_model.mm.mmzone import MemMap
from kernel_model.mm.rmap.interface import ReverseMap


class HighTables(CountedTables):
    """:class:`CountedTables` that must be mapped to be looked at."""

    def __init__(
        self,
        image: KernelImage,
        page_tables: PageTableAllocator,
        rmap: ReverseMap,
        highmem: DirectMapping,
        memmap: MemMap,
    ) -> None:
        super().__init__(image, page_tables, rmap)
        self._highmem = highmem
        self._memmap = memmap

    def pte_offset_map(self, pgd: int, vaddr: int) -> int:
        return self._map(self.tables.user_pte_offset(pgd, vaddr), KmType26.PTE0)

    def pte_offset_map_nested(self, pgd: int, vaddr: int) -> int:
        return self._map(self.tables.user_pte_offset(pgd, vaddr), KmType26.PTE1)

    def rmap_ptep_map(self, paddr: int) -> int:
        return self._map(paddr, KmType26.PTE0)

    def pte_unmap(self, ptep: int) -> None:
        self._unmap(ptep, KmType26.PTE0)

    def pte_unmap_nested(self, ptep: int) -> None:
        self._unmap(ptep, KmType26.PTE1)

    def _map(self, paddr: int, slot: KmType26) -> int:
        if not paddr:
            return 0
        offset = paddr % PAGE_SIZE
        kvaddr = self._highmem.kmap_atomic(self._memmap.page(paddr >> PAGE_SHIFT), slot)
        return paddr if kvaddr + offset == phys_to_virt(paddr) else IN_SLOT | kvaddr + offset

    def _unmap(self, ptep: int, slot: KmType26) -> None:
        in_slot = ptep & IN_SLOT
        self._highmem.kunmap_atomic(ptep & ~IN_SLOT if in_slot else phys_to_virt(ptep), slot)


def user_tables(
    image: KernelImage,
    page_tables: PageTableAllocator,
    rmap: ReverseMap,
    highmem: DirectMapping,
    memmap: MemMap,
) -> CountedTables:
    """What the build of a 2.6 kernel has, chosen once."""
    if image.config.highpte:
        return HighTables(image, page_tables, rmap, highmem, memmap)
    return CountedTables(image, page_tables, rmap)
