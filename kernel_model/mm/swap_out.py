# SPDX-License-Identifier: GPL-2.0-or-later
"""Unmapping pages from processes, so that their frames can be reclaimed.

Models linux-2.4.22 ``mm/vmscan.c``: ``swap_out()``, ``swap_out_mm()``, ``try_to_swap_out()``
(book 4.3, 6.2). In RAM: ``swap_mm``, the address space that is looked at; in each
``mm->swap_address``, how far its scan has come; PTEs, ``mm->rss``, the swap maps.

Nothing here fails; without a free swap slot a dirty anonymous page stays where it is.
"""

from collections.abc import Callable
from typing import Final

from kernel_model.arch_i386.page import PAGE_OFFSET, PAGE_SIZE, TASK_SIZE
from kernel_model.arch_i386.pgtable import (
    PAGE_ACCESSED,
    pte_dirty,
    pte_mkold,
    pte_pfn,
    pte_present,
)
from kernel_model.arch_i386.tlb import Tlb
from kernel_model.image import KernelImage
from kernel_model.mm.memory.tables import UserTables
from kernel_model.mm.mmzone import Zone
from kernel_model.mm.page_alloc import PageAllocator
from kernel_model.mm.page_flags import PG_ACTIVE, PG_DIRTY, PG_LOCKED, PG_UPTODATE
from kernel_model.mm.swap_state import SwapCache
from kernel_model.structs.mm import VM_LOCKED, VM_RESERVED

SWAP_CLUSTER_MAX: Final = 32


class SwapOut:
    """``swap_out()`` of one machine, over the ``mmlist``."""

    def __init__(
        self,
        image: KernelImage,
        allocator: PageAllocator,
        tables: UserTables,
        swap: SwapCache,
        tlb: Tlb,
        find_vma: Callable[[int, int], int],
    ) -> None:
        self._events = image.events
        self._words = image.ram.words
        self._statics = image.statics
        self._allocator = allocator
        self._memmap = allocator.memmap
        self._tables = tables
        self._entries = tables.tables
        self._swap = swap
        self._tlb = tlb
        self._find_vma = find_vma
        self._init_mm = image.symbol("init_mm")
        mm, vma = image.structs.mm_struct, image.structs.vm_area_struct
        self._rss, self._swap_address = mm.word("rss"), mm.word("swap_address")
        self._mmlist = mm.offset("mmlist")
        self._vm_start, self._vm_end = vma.word("vm_start"), vma.word("vm_end")
        self._vm_next, self._vm_flags = vma.word("vm_next"), vma.word("vm_flags")

    def swap_out(self, classzone: Zone) -> bool:
        """Unmap pages until 32 of them can be freed. False: each space was gone through once."""
        words, wanted = self._words, SWAP_CLUSTER_MAX
        for _ in range(int(self._statics.mmlist_nr) + 1):
            mm = self._next_mm()
            if not mm:
                return False
            address = words[(mm - PAGE_OFFSET >> 2) + self._swap_address]
            wanted = self._swap_out_mm(mm, address, wanted, classzone)
            if not wanted:
                return True
        return False

    def _next_mm(self) -> int:
        """The space to look at; 0 when all have been looked at to their ends."""
        words, started = self._words, int(self._statics.swap_mm)
        mm = started
        while mm == self._init_mm or self._scan_ended(mm):
            words[(mm - PAGE_OFFSET >> 2) + self._swap_address] = 0
            mm = words[mm + self._mmlist - PAGE_OFFSET >> 2] - self._mmlist
            if mm == started:
                return 0
            self._statics.swap_mm = mm
        return mm

    def _scan_ended(self, mm: int) -> bool:
        return self._words[(mm - PAGE_OFFSET >> 2) + self._swap_address] == TASK_SIZE

    def _swap_out_mm(self, mm: int, address: int, wanted: int, classzone: Zone) -> int:
        """Go through one space from ``address`` on. Returns how many pages are still wanted."""
        words = self._words
        vma = self._find_vma(mm, address)
        while vma:
            at = vma - PAGE_OFFSET >> 2
            if not wanted:
                return wanted
            start = max(address, words[at + self._vm_start])
            if not words[at + self._vm_flags] & VM_RESERVED:
                wanted = self._swap_out_vma(mm, vma, start, wanted, classzone)
            vma = words[at + self._vm_next]
        words[(mm - PAGE_OFFSET >> 2) + self._swap_address] = TASK_SIZE
        return wanted

    def _swap_out_vma(self, mm: int, vma: int, start: int, wanted: int, classzone: Zone) -> int:
        at = vma - PAGE_OFFSET >> 2
        end, flags = self._words[at + self._vm_end], self._words[at + self._vm_flags]
        pgd, reached = self._tables.pgd(mm), end
        for vaddr, ptep in self._tables.ptes(pgd, start, end):
            pte = self._entries.entry(ptep)
            if not pte_present(pte) or pte_pfn(pte) >= self._statics.max_mapnr:
                continue
            page = self._memmap.page(pte_pfn(pte))
            if self._memmap.reserved(page):
                continue
            wanted -= self._try_to_swap_out(mm, pgd, vaddr, ptep, page, flags, classzone)
            if not wanted:
                reached = vaddr + PAGE_SIZE
                break
        self._words[(mm - PAGE_OFFSET >> 2) + self._swap_address] = reached
        return wanted

    def _try_to_swap_out(
        self, mm: int, pgd: int, vaddr: int, ptep: int, page: int, flags: int, classzone: Zone
    ) -> int:
        """Unmap one page if it was not used since the last look. 1 when its frame can go."""
        memmap, entries = self._memmap, self._entries
        pte = entries.entry(ptep)
        if flags & VM_LOCKED or pte & PAGE_ACCESSED:
            # The TLB may keep the page as accessed: the next use of it goes unnoticed, which
            # costs precision and nothing else, so no flush is spent on it.
            if not flags & VM_LOCKED:
                entries.set_pte(ptep, pte_mkold(pte))
            self._allocator.lru.mark_page_accessed(page)
            return 0
        if memmap.test(page, PG_ACTIVE) or not self._in_class(page, classzone):
            return 0
        if memmap.test(page, PG_LOCKED):
            return 0
        memmap.set_bit(page, PG_LOCKED)
        self._tlb.caches.flush_cache_page(pgd, vaddr)
        pte = entries.ptep_get_and_clear(ptep)
        self._tlb.flush_tlb_page(pgd, vaddr)
        if pte_dirty(pte):
            self._swap.cache.set_page_dirty(page)
        entry = self._place(page)
        if entry is None:
            entries.set_pte(ptep, pte)
            memmap.clear_bit(page, PG_LOCKED)
            return 0
        self._events.page_unmapped(pgd, vaddr)
        entries.set_pte(ptep, entry)
        self._words[(mm - PAGE_OFFSET >> 2) + self._rss] -= 1
        memmap.clear_bit(page, PG_LOCKED)
        freeable = memmap.count(page) <= 2
        self._allocator.free_page(page)
        return int(freeable)

    def _in_class(self, page: int, classzone: Zone) -> bool:
        zone = self._allocator.page_zone(page)
        same_node = zone.view.zone_pgdat == classzone.view.zone_pgdat
        return bool(same_node and zone.vaddr <= classzone.vaddr)

    def _place(self, page: int) -> int | None:
        """What the PTE of a locked frame shall hold: a swap slot, or 0 for what can be had again
        from its file, or is still zeros. ``None``: the page must stay, swap is full."""
        swap, memmap = self._swap, self._memmap
        if entry := swap.entry(page):
            swap.areas.swap_duplicate(entry)
            return entry
        if self._words[memmap.word(page, memmap.mapping_word)] or not memmap.test(page, PG_DIRTY):
            return 0
        entry = swap.areas.get_swap_page()
        if not entry:
            return None
        swap.add(page, entry)
        memmap.set_bit(page, PG_LOCKED)
        memmap.set_bit(page, PG_UPTODATE)
        swap.cache.set_page_dirty(page)
        return entry
