# SPDX-License-Identifier: GPL-2.0-or-later
"""Pages of user address spaces: given, swapped out, brought back, taken away.

Models linux-2.4.22 ``fs/exec.c: put_dirty_page()``, ``mm/memory.c: do_swap_page()``,
``do_wp_page()``, ``zap_page_range()`` and ``mm/vmscan.c: swap_out()`` (book 3.3-3.5, 4.6). In
RAM: the page tables below a page directory. The events say what each address was meant to
hold; the page tables are what gets checked.

An address space is named by the physical address of its page directory. What may be done with
a page is kept beside it, in :attr:`UserMemory.protections`.
"""

from collections import defaultdict
from collections.abc import Iterator

from kernel_model.arch_i386.page import PAGE_OFFSET, PAGE_SHIFT, PAGE_SIZE
from kernel_model.arch_i386.pgalloc import PageTableAllocator
from kernel_model.arch_i386.pgtable import (
    PAGE_PRESENT,
    PAGE_RW,
    mk_pte,
    pmd_none,
    pte_dirty,
    pte_mkdirty,
    pte_mkold,
    pte_mkwrite,
    pte_none,
    pte_pfn,
    pte_write,
    pte_wrprotect,
    pte_young,
)
from kernel_model.arch_i386.tlb import Tlb
from kernel_model.errors import KernelBug
from kernel_model.events import Rights
from kernel_model.image import KernelImage
from kernel_model.mm.buddy import Buddy
from kernel_model.mm.gfp import GFP_HIGHUSER
from kernel_model.mm.page_alloc import PageAllocator
from kernel_model.mm.page_flags import PG_ACTIVE, PG_LOCKED, PG_UPTODATE
from kernel_model.mm.swap_state import SwapCache
from kernel_model.mm.vmscan import SWAP_CLUSTER_MAX


class UserMemory:
    """Operations on all user address spaces of a machine."""

    def __init__(
        self, image: KernelImage, allocator: PageAllocator, tables: PageTableAllocator, tlb: Tlb
    ) -> None:
        self._events = image.events
        self._allocator = allocator
        self._memmap = allocator.memmap
        self._page_tables = tables
        self._tables = tables.tables
        self._tlb = tlb
        self.swap: SwapCache | None = None
        """Set once the page cache is up."""
        self.protections: defaultdict[int, dict[int, int]] = defaultdict(dict)
        """Page directory -> page number -> protection bits of a PTE."""
        self._swap_cursor = (0, 0)

    # -- pages come -----------------------------------------------------------------------------

    def _ptep(self, pgd: int, vaddr: int) -> int:
        """Where the PTE of an address lies; 0 when there is no page table for it."""
        pmdp = self._tables.pmd_offset(self._tables.pgd_offset(pgd, vaddr), vaddr)
        if pmd_none(self._tables.entry(pmdp)):
            return 0
        return self._tables.pte_offset(pmdp, vaddr)

    def new_page(self, pgd: int, vaddr: int, prot: int) -> int:
        """Take a frame for ``vaddr`` and map it, dirty, with protection ``prot``.

        Returns the PFN; -1 when memory is out, and then nothing is mapped. The page table that
        was made for it stays, as in the kernel, until the address space goes.
        """
        pmdp = self._tables.pmd_offset(self._tables.pgd_offset(pgd, vaddr), vaddr)
        ptep = self._page_tables.pte_alloc(pmdp, vaddr)
        if ptep and not pte_none(self._tables.entry(ptep)):
            raise KernelBug("exec.c", 0, f"the page at {vaddr:#x} is mapped already")
        page = self._allocator.alloc_page(GFP_HIGHUSER, "user page") if ptep else 0
        if not page:
            return -1
        pfn = self._memmap.pfn(page)
        self._allocator.lru.add(page)
        self.protections[pgd][vaddr >> PAGE_SHIFT] = prot
        self._set(pgd, vaddr, ptep, pte_mkdirty(mk_pte(pfn, prot)))
        return pfn

    def _set(self, pgd: int, vaddr: int, ptep: int, pte: int) -> None:
        """Map the page: say what is meant, write the PTE, drop what the TLB has."""
        rights = Rights(write=pte_write(pte), user=True)
        self._events.page_mapped(pgd, vaddr, pte_pfn(pte), rights)
        self._tables.set_pte(ptep, pte)
        self._tlb.flush_tlb_page(pgd, vaddr)

    def handle_fault(self, pgd: int, vaddr: int, *, write: bool) -> bool:
        """A program touched a page that is out, or wrote to one that came back read-only.

        False: the address means nothing, or may not be used so; or memory is out.
        """
        vaddr &= -PAGE_SIZE
        prot = self.protections[pgd].get(vaddr >> PAGE_SHIFT)
        ptep = self._ptep(pgd, vaddr)
        if prot is None or not ptep or (write and not prot & PAGE_RW):
            return False
        pte = self._tables.entry(ptep)
        if not pte & PAGE_PRESENT:
            return not pte_none(pte) and self._do_swap_page(pgd, vaddr, ptep, pte, write)
        return write and self._do_wp_page(pgd, vaddr, ptep, pte)

    def _do_swap_page(self, pgd: int, vaddr: int, ptep: int, entry: int, write: bool) -> bool:
        """Bring a page back. One that is only read keeps its slot, and is mapped read-only."""
        assert self.swap is not None
        page = self.swap.read(entry)
        if not page:
            return False
        self._allocator.lru.mark_page_accessed(page)
        self._memmap.set_bit(page, PG_LOCKED)
        self.swap.areas.swap_free(entry)
        if self.swap.full:
            self.swap.remove_exclusive(page)
        pte = mk_pte(self._memmap.pfn(page), self.protections[pgd][vaddr >> PAGE_SHIFT])
        if write and self.swap.can_share(page):
            pte = pte_mkdirty(pte_mkwrite(pte))
        else:
            pte = pte_wrprotect(pte)
        self._memmap.clear_bit(page, PG_LOCKED)
        self._set(pgd, vaddr, ptep, pte)
        return True

    def _do_wp_page(self, pgd: int, vaddr: int, ptep: int, pte: int) -> bool:
        """The first write to a page that was read back: nobody shares it, so it is its own."""
        assert self.swap is not None
        page = self._memmap.page(pte_pfn(pte))
        self._memmap.set_bit(page, PG_LOCKED)
        mine = self.swap.can_share(page)
        self._memmap.clear_bit(page, PG_LOCKED)
        if mine:
            self._set(pgd, vaddr, ptep, pte_mkdirty(pte_mkwrite(pte)))
        return mine

    # -- pages go ----------------------------------------------------------------------------------

    def swap_out(self, classzone: Buddy) -> bool:
        """Unmap up to 32 pages that were not used lately, going round all address spaces.

        True when it found that many that can be freed.
        """
        wanted = SWAP_CLUSTER_MAX
        places = self._places_from_cursor()
        for pgd, number in places:
            self._swap_cursor = (pgd, number + 1)
            ptep = self._ptep(pgd, number << PAGE_SHIFT)
            if ptep and self._tables.entry(ptep) & PAGE_PRESENT:
                wanted -= self._try_to_swap_out(pgd, number << PAGE_SHIFT, ptep, classzone)
                if not wanted:
                    return True
        return False

    def _places_from_cursor(self) -> list[tuple[int, int]]:
        """Every user page, twice round: the first round may only find them young."""
        places = sorted((pgd, n) for pgd, pages in self.protections.items() for n in pages)
        after = [place for place in places if place >= self._swap_cursor]
        before = [place for place in places if place < self._swap_cursor]
        return (after + before) * 2

    def _try_to_swap_out(self, pgd: int, vaddr: int, ptep: int, classzone: Buddy) -> int:
        """Unmap one page if it was not used since the last look. 1 when its frame can go."""
        memmap, tables = self._memmap, self._tables
        pte = tables.entry(ptep)
        page = memmap.page(pte_pfn(pte))
        if pte_young(pte):
            tables.set_pte(ptep, pte_mkold(pte))
            self._allocator.lru.mark_page_accessed(page)
            return 0
        zone = self._allocator.page_zone(page)
        if memmap.test(page, PG_ACTIVE) or memmap.test(page, PG_LOCKED):
            return 0
        if zone.view.zone_pgdat != classzone.view.zone_pgdat or zone.vaddr > classzone.vaddr:
            return 0
        memmap.set_bit(page, PG_LOCKED)
        pte = tables.ptep_get_and_clear(ptep)
        self._tlb.flush_tlb_page(pgd, vaddr)
        entry = self._slot_for(page, dirty=pte_dirty(pte))
        if not entry:
            tables.set_pte(ptep, pte)
            memmap.clear_bit(page, PG_LOCKED)
            return 0
        self._events.page_unmapped(pgd, vaddr)
        tables.set_pte(ptep, entry)
        memmap.clear_bit(page, PG_LOCKED)
        freeable = memmap.count(page) <= 2
        self._allocator.free_page(page)
        return int(freeable)

    def _slot_for(self, page: int, *, dirty: bool) -> int:
        """The slot that a locked frame has or now gets; 0 when swap is full."""
        assert self.swap is not None
        if entry := self.swap.entry(page):
            if dirty:
                self.swap.cache.set_page_dirty(page)
            self.swap.areas.swap_duplicate(entry)
            return entry
        entry = self.swap.areas.get_swap_page()
        if entry:
            self.swap.add(page, entry)
            self._memmap.set_bit(page, PG_LOCKED)
            self._memmap.set_bit(page, PG_UPTODATE)
            self.swap.cache.set_page_dirty(page)
        return entry

    def _page_tables_of(self, pgd: int) -> Iterator[tuple[int, int]]:
        """(first address, address of the middle entry) of each user page table there is."""
        shape = self._tables.shape
        for vaddr in range(0, PAGE_OFFSET, shape.pmd_size):
            pmdp = self._tables.pmd_offset(self._tables.pgd_offset(pgd, vaddr), vaddr)
            if not pmd_none(self._tables.entry(pmdp)):
                yield vaddr, pmdp

    def clear_page_tables(self, pgd: int) -> None:
        """Unmap every user page, free its frame or its slot, and free the page tables."""
        shape = self._tables.shape
        for start, pmdp in list(self._page_tables_of(pgd)):
            for vaddr in range(start, start + shape.pmd_size, PAGE_SIZE):
                pte = self._tables.ptep_get_and_clear(self._tables.pte_offset(pmdp, vaddr))
                if not pte_none(pte):
                    self._zap(pgd, vaddr, pte)
            self._page_tables.pte_free(pmdp)
        self.protections.pop(pgd, None)
        self._tlb.flush_tlb_mm(pgd)

    def _zap(self, pgd: int, vaddr: int, pte: int) -> None:
        assert self.swap is not None
        if pte & PAGE_PRESENT:
            self._events.page_unmapped(pgd, vaddr)
            self.swap.free_page_and_swap_cache(self._memmap.page(pte_pfn(pte)))
        else:
            self.swap.free_swap_and_cache(pte)
