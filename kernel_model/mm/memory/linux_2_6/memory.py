# SPDX-License-Identifier: GPL-2.0-or-later
"""``mm/memory.c`` of linux-2.6.11, put together for one machine, over a reverse map."""

from kernel_model.arch_i386.highmem import DirectMapping
from kernel_model.arch_i386.pgalloc import PageTableAllocator
from kernel_model.arch_i386.tlb import Tlb
from kernel_model.image import KernelImage
from kernel_model.mm.hugetlb.tables import HugePageTables
from kernel_model.mm.linux_2_6.page_alloc import PageAllocator26
from kernel_model.mm.memory.linux_2_6.change import EntryChanger26, PageCopier26
from kernel_model.mm.memory.linux_2_6.fault import FaultHandler26
from kernel_model.mm.memory.linux_2_6.follow import PageFollower26
from kernel_model.mm.memory.linux_2_6.fremap import FilePages
from kernel_model.mm.memory.linux_2_6.gather import Gatherer
from kernel_model.mm.memory.linux_2_6.highpte import user_tables
from kernel_model.mm.memory.memory import FindVma, Memory, MemoryParts
from kernel_model.mm.memory.remap import PageMapper
from kernel_model.mm.rmap.interface import ReverseMap
from kernel_model.mm.rmap.one_pte import SetPageDirty
from kernel_model.mm.swap_state import SwapCache
from kernel_model.mm.swapops import file_ptes


class Memory26(Memory):
    """All operations on user pages of a 2.6 machine."""

    def __init__(
        self,
        image: KernelImage,
        allocator: PageAllocator26,
        page_tables: PageTableAllocator,
        swap: SwapCache,
        highmem: DirectMapping,
        tlb: Tlb,
        find_extend_vma: FindVma,
        rmap: ReverseMap,
        set_page_dirty: SetPageDirty,
    ) -> None:
        ptes, memmap = file_ptes(image.config.pae), allocator.memmap
        self.rmap = rmap
        tables = user_tables(image, page_tables, rmap, highmem, memmap)
        self.huge = huge = HugePageTables(image, allocator, tables, tlb, rmap)
        gatherer = Gatherer(image, allocator, tables, swap, ptes, tlb, rmap, set_page_dirty, huge)
        self.file_pages = files = FilePages(
            image, allocator, tables, swap, ptes, tlb, rmap, set_page_dirty
        )
        faults = FaultHandler26(image, allocator, tables, swap, highmem, tlb, rmap, files)
        zap = gatherer.zap_page_range
        parts = MemoryParts(
            tables=tables,
            faults=faults,
            zap_page_range=zap,
            copier=PageCopier26(image, allocator, tables, swap.areas, rmap, huge),
            changer=EntryChanger26(image, tables, zap, tlb, memmap, rmap),
            mapper=PageMapper(image, allocator, tables, tlb),
            follower=PageFollower26(
                image, allocator, tables, faults, find_extend_vma, set_page_dirty, huge, tlb
            ),
        )
        super().__init__(page_tables, tlb, parts)
        self.tlb_gather_mmu = gatherer.tlb_gather_mmu
