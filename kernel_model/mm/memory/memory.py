# SPDX-License-Identifier: GPL-2.0-or-later
"""The parts of ``mm/memory.c`` put together for one machine.

Models linux-2.4.22 and linux-2.6.11 ``mm/memory.c``; what each function does, and what can fail,
stands with the part that has it. What this room asks of others: VMAs by address; who provides the
pages of a VMA stands in its ``vm_ops``. Which part a release has is said by its
:class:`Memory`: :mod:`kernel_model.mm.memory.linux_2_4`, :mod:`kernel_model.mm.memory.linux_2_6`.
"""

from collections.abc import Callable
from dataclasses import dataclass

from kernel_model.arch_i386.page import phys_to_virt, virt_to_phys
from kernel_model.arch_i386.pgalloc import PageTableAllocator
from kernel_model.arch_i386.tlb import Tlb
from kernel_model.mm.memory.change import EntryChanger, ZapPageRange
from kernel_model.mm.memory.copy import PageCopier
from kernel_model.mm.memory.fault import FaultHandler
from kernel_model.mm.memory.follow import PageFollower
from kernel_model.mm.memory.remap import PageMapper
from kernel_model.mm.memory.tables import UserTables

FindVma = Callable[[int, int], int]
"""``(mm, address)``: a ``struct vm_area_struct *``, 0 for none."""


@dataclass(frozen=True, slots=True)
class MemoryParts:
    """What a :class:`Memory` is made of."""

    tables: UserTables
    faults: FaultHandler
    zap_page_range: ZapPageRange
    copier: PageCopier
    changer: EntryChanger
    mapper: PageMapper
    follower: PageFollower


class Memory:
    """All operations on user pages. An ``mm`` and a ``vma`` are kernel virtual addresses.

    It is what the VMA layer asks for as :class:`~kernel_model.mm.mmap.pages.PageOperations`.
    """

    def __init__(self, page_tables: PageTableAllocator, tlb: Tlb, parts: MemoryParts) -> None:
        self.tables = parts.tables
        self.faults = parts.faults
        self._page_tables = page_tables
        self._tlb = tlb
        self.handle_mm_fault = parts.faults.handle_mm_fault
        self.clear_page_tables = parts.tables.clear_page_tables
        self.zap_page_range = parts.zap_page_range
        self.copy_page_range = parts.copier.copy_page_range
        self.change_protection = parts.changer.change_protection
        self.move_page_tables = parts.changer.move_page_tables
        self.remap_page_range = parts.mapper.remap_page_range
        self.zeromap_page_range = parts.mapper.zeromap_page_range
        self.follow_page = parts.follower.follow_page
        self.get_user_pages = parts.follower.get_user_pages
        self.make_pages_present = parts.follower.make_pages_present

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
