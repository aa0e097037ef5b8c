# SPDX-License-Identifier: GPL-2.0-or-later
"""User addresses for frames that no allocator gave: device memory, and the zero page.

Models linux-2.4.22 ``mm/memory.c``: ``remap_page_range()``, ``zeromap_page_range()`` (book
4.4). In RAM: PTEs. What can fail: no memory for a page table, ``-ENOMEM``; what was mapped by
then stays, as in the kernel, for ``munmap()`` to take away.
"""

from kernel_model.arch_i386.page import PAGE_SHIFT, PAGE_SIZE
from kernel_model.arch_i386.pgtable import PAGE_RW, mk_pte, pte_wrprotect
from kernel_model.arch_i386.tlb import Tlb
from kernel_model.errno import ENOMEM
from kernel_model.errors import KernelBug
from kernel_model.events import Rights
from kernel_model.image import KernelImage
from kernel_model.mm.memory.fault import ZERO_PFN
from kernel_model.mm.memory.tables import UserTables
from kernel_model.mm.page_alloc import PageAllocator


class PageMapper:
    """Mappings of whole ranges, of one machine. ``prot`` are the bits of the PTEs."""

    def __init__(
        self, image: KernelImage, allocator: PageAllocator, tables: UserTables, tlb: Tlb
    ) -> None:
        self._events = image.events
        self._statics = image.statics
        self._memmap = allocator.memmap
        self._tables = tables
        self._tlb = tlb

    def remap_page_range(self, mm: int, start: int, paddr: int, size: int, prot: int) -> int:
        """Map ``size`` bytes of physical memory from ``paddr`` at ``start``.

        Frames that the kernel gives out are left out: only devices and reserved frames have no
        owner who would miss them.
        """
        pfns = range(paddr >> PAGE_SHIFT, paddr + size + PAGE_SIZE - 1 >> PAGE_SHIFT)
        frames = [pfn if self._nobodys(pfn) else None for pfn in pfns]
        return self._map_range(mm, start, frames, prot)

    def _nobodys(self, pfn: int) -> bool:
        if pfn >= self._statics.max_mapnr:
            return True
        return self._memmap.reserved(self._memmap.page(pfn))

    def zeromap_page_range(self, mm: int, start: int, size: int, prot: int) -> int:
        """Map the zero page, read-only, over ``size`` bytes from ``start``."""
        count = size + PAGE_SIZE - 1 >> PAGE_SHIFT
        return self._map_range(mm, start, [ZERO_PFN] * count, pte_wrprotect(prot))

    def _map_range(self, mm: int, start: int, frames: list[int | None], prot: int) -> int:
        pgd, entries = self._tables.pgd(mm), self._tables.tables
        end = start + len(frames) * PAGE_SIZE
        # No cache holds what was not mapped before; the call stands where 2.4 has it.
        self._tlb.caches.flush_cache_range(pgd, start, end)
        error = 0
        for vaddr, pfn in zip(range(start, end, PAGE_SIZE), frames, strict=True):
            ptep = self._tables.pte_alloc_map(mm, pgd, vaddr)
            if not ptep:
                error = -ENOMEM
                break
            if entries.entry(ptep):
                raise KernelBug("memory.c", 0, f"remapping {vaddr:#x}, where a page is")
            if pfn is not None:
                rights = Rights(write=bool(prot & PAGE_RW), user=True)
                self._events.page_mapped(pgd, vaddr, pfn, rights)
                entries.set_pte(ptep, mk_pte(pfn, prot))
            self._tables.pte_unmap(ptep)
        # An i386 would do without: nothing was present here before, and it caches only what is.
        self._tlb.flush_tlb_range(pgd, start, end)
        return error
