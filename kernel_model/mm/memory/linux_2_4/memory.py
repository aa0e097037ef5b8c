# SPDX-License-Identifier: GPL-2.0-or-later
"""``mm/memory.c`` of linux-2.4.22, put together for one machine. Nothing keeps a reverse map."""

from kernel_model.arch_i386.highmem import DirectMapping
from kernel_model.arch_i386.pgalloc import PageTableAllocator
from kernel_model.arch_i386.tlb import Tlb
from kernel_model.image import KernelImage
from kernel_model.mm.memory.change import EntryChanger
from kernel_model.mm.memory.copy import PageCopier
from kernel_model.mm.memory.fault import FaultHandler
from kernel_model.mm.memory.follow import PageFollower
from kernel_model.mm.memory.linux_2_4.zap import Zapper
from kernel_model.mm.memory.memory import FindVma, Memory, MemoryParts
from kernel_model.mm.memory.remap import PageMapper
from kernel_model.mm.memory.tables import UserTables
from kernel_model.mm.page_alloc import PageAllocator
from kernel_model.mm.rmap.none import NoReverseMap
from kernel_model.mm.swap_state import SwapCache


class Memory24(Memory):
    """All operations on user pages of a 2.4 machine."""

    def __init__(
        self,
        image: KernelImage,
        allocator: PageAllocator,
        page_tables: PageTableAllocator,
        swap: SwapCache,
        highmem: DirectMapping,
        tlb: Tlb,
        find_extend_vma: FindVma,
    ) -> None:
        rmap, tables = NoReverseMap(), UserTables(image, page_tables)
        zap_page_range = Zapper(image, allocator, tables, swap, tlb).zap_page_range
        faults = FaultHandler(image, allocator, tables, swap, highmem, tlb, rmap)
        parts = MemoryParts(
            tables=tables,
            faults=faults,
            zap_page_range=zap_page_range,
            copier=PageCopier(image, allocator, tables, swap.areas, rmap),
            changer=EntryChanger(image, tables, zap_page_range, tlb),
            mapper=PageMapper(image, allocator, tables, tlb),
            follower=PageFollower(image, allocator, tables, faults, find_extend_vma),
        )
        super().__init__(page_tables, tlb, parts)
