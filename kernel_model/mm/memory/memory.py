# SPDX-License-Identifier: GPL-2.0-or-later
"""The parts of ``mm/memory.c`` put together for one machine.

Models linux-2.4.22 ``mm/memory.c``; what each function does, and what can fail, stands with the
part that has it. What this room asks of others: VMAs by address; who provides the pages of a
VMA stands in its ``vm_ops``.
"""

from collections.abc import Callable

from kernel_model.arch_i386.highmem import DirectMapping
from kernel_model.arch_i386.page import phys_to_virt, virt_to_phys
from kernel_model.arch_i386.pgalloc import PageTableAllocator
from kernel_model.arch_i386.tlb import Tlb
from kernel_model.image import KernelImage
from kernel_model.mm.memory.change import EntryChanger
from kernel_model.mm.memory.copy import PageCopier
from kernel_model.mm.memory.fault import FaultHandler
from kernel_model.mm.memory.follow import PageFollower
from kernel_model.mm.memory.remap import PageMapper
from kernel_model.mm.memory.tables import UserTables
from kernel_model.mm.memory.zap import Zapper
from kernel_model.mm.page_alloc import PageAllocator
from kernel_model.mm.rmap.interface import ReverseMap
from kernel_model.mm.rmap.none import NoReverseMap
from kernel_model.mm.swap_state import SwapCache

FindVma = Callable[[int, int], int]
"""``(mm, address)``: a ``struct vm_area_struct *``, 0 for none."""


class Memory:
    """All operations on user pages. An ``mm`` and a ``vma`` are kernel virtual addresses.

    It is what the VMA layer asks for as :class:`~kernel_model.mm.mmap.pages.PageOperations`.
    """

    def __init__(
        self,
        image: KernelImage,
        allocator: PageAllocator,
        page_tables: PageTableAllocator,
        swap: SwapCache,
        highmem: DirectMapping,
        tlb: Tlb,
        find_extend_vma: FindVma,
        rmap: ReverseMap | None = None,
    ) -> None:
        self.rmap: ReverseMap = rmap or NoReverseMap()
        self.tables = tables = UserTables(image, page_tables)
        zapper = Zapper(image, allocator, tables, swap, tlb)
        changer = EntryChanger(image, tables, zapper, tlb)
        copier = PageCopier(image, allocator, tables, swap.areas, self.rmap)
        mapper = PageMapper(image, allocator, tables, tlb)
        self.faults = FaultHandler(image, allocator, tables, swap, highmem, tlb, self.rmap)
        follower = PageFollower(image, allocator, tables, self.faults, find_extend_vma)
        self._page_tables = page_tables
        self._tlb = tlb
        self.handle_mm_fault = self.faults.handle_mm_fault
        self.clear_page_tables = tables.clear_page_tables
        self.zap_page_range = zapper.zap_page_range
        self.copy_page_range = copier.copy_page_range
        self.change_protection = changer.change_protection
        self.move_page_tables = changer.move_page_tables
        self.remap_page_range = mapper.remap_page_range
        self.zeromap_page_range = mapper.zeromap_page_range
        self.follow_page = follower.follow_page
        self.get_user_pages = follower.get_user_pages
        self.make_pages_present = follower.make_pages_present

    def pgd_alloc(self, mm: int) -> int:
        """A page directory for ``mm``, as kernel virtual address; 0 when memory is out."""
        pgd = self._page_tables.pgd_alloc()
        return phys_to_virt(pgd) if pgd else 0

    def pgd_free(self, pgd: int) -> None:
        """Give a directory back, by its kernel virtual address."""
        self._page_tables.pgd_free(virt_to_phys(pgd))

    def flush_tlb_mm(self, mm: int) -> None:
        """Drop every translation of ``mm``."""
        self._tlb.flush_tlb_mm(self.tables.pgd(mm))

    def flush_tlb_pgtables(self, mm: int, start: int, end: int) -> None:
        """Page tables of ``mm`` between two addresses were freed."""
        # Nothing to do on an i386: it caches no entry above the PTE.
        self._tlb.flush_tlb_pgtables(self.tables.pgd(mm), start, end)

    def flush_cache_mm(self, mm: int) -> None:
        """Write back what caches hold of ``mm`` by virtual address: nothing on the i386."""
        self._tlb.caches.flush_cache_mm(self.tables.pgd(mm))
