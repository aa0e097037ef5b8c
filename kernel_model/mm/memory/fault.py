# SPDX-License-Identifier: GPL-2.0-or-later
"""What a page fault in a good area comes to: a page, or the reason why there is none.

Models linux-2.4.22 ``mm/memory.c``: ``handle_mm_fault()``, ``handle_pte_fault()``,
``do_anonymous_page()``, ``do_no_page()``, ``do_swap_page()``, ``do_wp_page()`` (book 4.6). In
RAM: PTEs, ``mm->rss``, frames and their counts, swap slots. The steps are those of 2.6, too; what
it does in its own way stands in :mod:`kernel_model.mm.memory.linux_2_6.fault`.

What can fail: no memory, and pages that their file does not have: see :class:`Fault`. Whatever
comes of it, nothing is left half done. A function that is given a pointer to a PTE gives it back
(``pte_unmap()``), and does so before anything that may sleep.
"""

import enum
from collections import Counter

from kernel_model.arch_i386.highmem import DirectMapping, KmType
from kernel_model.arch_i386.page import PAGE_MASK, PAGE_OFFSET, PAGE_SHIFT, PAGE_SIZE
from kernel_model.arch_i386.pgtable import (
    PAGE_ACCESSED,
    PAGE_COPY,
    PAGE_DIRTY,
    PAGE_RW,
    mk_pte,
    pte_pfn,
    pte_present,
)
from kernel_model.arch_i386.tlb import Tlb
from kernel_model.errno import ENOMEM
from kernel_model.image import EMPTY_ZERO_PAGE, KernelImage
from kernel_model.mm.memory.rights import user_rights
from kernel_model.mm.memory.tables import UserTables
from kernel_model.mm.page_alloc import PageAllocator
from kernel_model.mm.page_flags import PG_LOCKED, PG_REFERENCED
from kernel_model.mm.rmap.interface import ReverseMap
from kernel_model.mm.swap_state import SwapCache
from kernel_model.structs.mm import VM_SHARED

ZERO_PFN = EMPTY_ZERO_PAGE // PAGE_SIZE
NOPAGE_SIGBUS = 0
NOPAGE_OOM = -1
"""What ``vm_ops->nopage(vma, address)`` returns instead of a ``struct page *`` with a reference."""


class Fault(enum.IntEnum):
    """What ``handle_mm_fault()`` returns."""

    OOM = -1
    SIGBUS = 0
    MINOR = 1
    MAJOR = 2


class Cause(enum.Enum):
    """What a fault was about, for who counts them. The value is the word of a table."""

    ANONYMOUS = "anonymous"
    ZERO_PAGE = "zero page"
    FILE = "file"
    FILE_COPY = "file, copied at once"
    FILE_PTE = "file, by its PTE"
    """A page out of order, as ``remap_file_pages()`` noted it (2.6)."""
    COW_COPY = "COW copy"
    COW_REUSE = "COW reuse"
    SWAP = "swap"
    SPURIOUS = "spurious"


class FaultHandler:
    """``handle_mm_fault()`` of one machine. ``counts`` are the faults served, by cause."""

    def __init__(
        self,
        image: KernelImage,
        allocator: PageAllocator,
        tables: UserTables,
        swap: SwapCache,
        highmem: DirectMapping,
        tlb: Tlb,
        rmap: ReverseMap,
    ) -> None:
        self.counts: Counter[Cause] = Counter()
        self._printk = image.printk
        self._ram = image.ram
        self._events = image.events
        self._words = image.ram.words
        self._statics = image.statics
        self._allocator = allocator
        self._memmap = allocator.memmap
        self._lru = allocator.lru
        self._tables = tables
        self._entries = tables.tables
        self._swap = swap
        self._highmem = highmem
        self._tlb = tlb
        self._rmap = rmap
        self._functions = image.functions
        self._gfp_highuser = image.constants.gfp.highuser
        vma = image.structs.vm_area_struct
        self._vm_flags, self._vm_page_prot = vma.word("vm_flags"), vma.word("vm_page_prot")
        self._vm_ops = vma.word("vm_ops")
        self._nopage_word = image.structs.vm_operations_struct.word("nopage")
        self._rss = image.structs.mm_struct.word("rss")

    def handle_mm_fault(self, mm: int, vma: int, address: int, write_access: bool) -> Fault:
        """Bring in the page at ``address``, which ``vma`` says may be accessed so."""
        pgd = self._tables.pgd(mm)
        ptep = self._tables.pte_alloc_map(mm, pgd, address)
        if not ptep:
            return Fault.OOM
        vaddr, pte = address & PAGE_MASK, self._entries.entry(ptep)
        if not pte_present(pte):
            self._tables.pte_unmap(ptep)
            if not pte:
                return self._do_no_page(mm, pgd, vma, vaddr, write_access)
            return self._do_absent_page(mm, pgd, vma, vaddr, pte, write_access)
        if write_access and not pte & PAGE_RW:
            return self._do_wp_page(mm, pgd, vma, vaddr, ptep, pte)
        self.counts[Cause.SPURIOUS] += 1
        self._set_access_flags(pgd, vaddr, ptep, pte, write_access)
        self._tables.pte_unmap(ptep)
        return Fault.MINOR

    # -- what releases do in their own way -----------------------------------------------------

    def _set_access_flags(
        self, pgd: int, vaddr: int, ptep: int, pte: int, write_access: bool
    ) -> None:
        """Somebody else was faster, or the TLB was behind: the entry is good, say so again."""
        used = PAGE_ACCESSED | (PAGE_DIRTY if write_access else 0)
        self._entries.set_pte(ptep, pte | used)
        # An i386 would do without: the entry gained bits and lost none, and before the CPU faults
        # or sets one of them it reads the entry again. Others keep asking their TLB.
        self._tlb.flush_tlb_page(pgd, vaddr)

    def _do_absent_page(
        self, mm: int, pgd: int, vma: int, vaddr: int, pte: int, write_access: bool
    ) -> Fault:
        """The entry says where the page is: in a swap slot."""
        return self._do_swap_page(mm, pgd, vma, vaddr, pte, write_access)

    def _nopage(self, nopage: int, vma: int, vaddr: int) -> tuple[int, Fault]:
        """The page from whoever provides for the VMA, and how much work it was."""
        return self._functions.call(nopage, vma, vaddr), Fault.MAJOR

    def _zeroed_page(self) -> int:
        """A frame of zeros; 0: no memory."""
        page = self._allocator.alloc_page(self._gfp_highuser, "user page")
        if page:
            self.clear_user_highpage(page)
        return page

    def _private_copy(self, source: int) -> int:
        """A frame with the contents of ``source``; 0: no memory."""
        page = self._allocator.alloc_page(self._gfp_highuser, "user page")
        if page:
            self.copy_user_highpage(page, source)
        return page

    def _mkwrite(self, pte: int, flags: int) -> int:
        """The entry of a page that is being written to."""
        return pte | PAGE_DIRTY | PAGE_RW

    def _enter_lru(self, page: int) -> None:
        """A process has a new page of its own."""
        self._lru.add(page)

    def _swapped_in(
        self, mm: int, pgd: int, vma: int, vaddr: int, ptep: int, fault: Fault, write_access: bool
    ) -> Fault:
        """A page has come back read-only, which was ``fault`` so far; a program that wants to write
        comes again."""
        self._tables.pte_unmap(ptep)
        return fault

    # -- the page comes ------------------------------------------------------------------------

    def _map(self, pgd: int, vaddr: int, ptep: int, pte: int, flags: int, *, own: bool) -> None:
        """An absent page becomes present: there is nothing in the TLB to flush."""
        self._events.page_mapped(pgd, vaddr, pte_pfn(pte), user_rights(flags, own=own))
        self._entries.set_pte(ptep, pte)
        self._tlb.update_mmu_cache(vaddr, pte)

    def _map_own(self, mm: int, pgd: int, vma: int, vaddr: int, page: int, pte: int) -> None:
        """A new frame of the process's own becomes present."""
        flags = self._words[(vma - PAGE_OFFSET >> 2) + self._vm_flags]
        ptep = self._tables.pte_offset_map(pgd, vaddr)
        self._words[(mm - PAGE_OFFSET >> 2) + self._rss] += 1
        self._map(pgd, vaddr, ptep, pte, flags, own=True)
        self._rmap.add_anon(page, vma, vaddr, ptep)
        self._tables.pte_unmap(ptep)

    def _do_no_page(self, mm: int, pgd: int, vma: int, vaddr: int, write_access: bool) -> Fault:
        """The first touch of a page: from whoever provides for the VMA, or anonymous."""
        at = vma - PAGE_OFFSET >> 2
        words = self._words
        flags, prot = words[at + self._vm_flags], words[at + self._vm_page_prot]
        vm_ops = words[at + self._vm_ops]
        nopage = words[(vm_ops - PAGE_OFFSET >> 2) + self._nopage_word] if vm_ops else 0
        if not self._rmap.reserve():
            return Fault.OOM
        if not nopage:
            return self._do_anonymous_page(mm, pgd, vma, vaddr, write_access)
        page, fault = self._nopage(nopage, vma, vaddr)
        if page == NOPAGE_SIGBUS:
            return Fault.SIGBUS
        if page == NOPAGE_OOM:
            return Fault.OOM
        own = write_access and not flags & VM_SHARED
        if own:
            if not (page := self._early_copy(vma, page)):
                return Fault.OOM
            self._tlb.caches.copy_user_page(page, vaddr)
        if not self._memmap.reserved(page):
            words[(mm - PAGE_OFFSET >> 2) + self._rss] += 1
        self.counts[Cause.FILE_COPY if own else Cause.FILE] += 1
        self._about_to_be_seen(page)
        pte = mk_pte(self._memmap.pfn(page), prot)
        if write_access:
            pte = self._mkwrite(pte, flags)
        ptep = self._tables.pte_offset_map(pgd, vaddr)
        self._map(pgd, vaddr, ptep, pte, flags, own=own)
        if own:
            self._rmap.add_anon(page, vma, vaddr, ptep)
        else:
            self._rmap.add_file(page, ptep)
        self._tables.pte_unmap(ptep)
        return fault

    def _early_copy(self, vma: int, page: int) -> int:
        """A private page is written to at its first touch: the copy at once. 0: no memory."""
        copy = self._private_copy(page) if self._rmap.prepare(vma) else 0
        if copy:
            self._enter_lru(copy)
        self._allocator.put_page(page)
        return copy

    def _do_anonymous_page(
        self, mm: int, pgd: int, vma: int, vaddr: int, write_access: bool
    ) -> Fault:
        """The zero page for who reads, a cleared frame for who writes."""
        at = vma - PAGE_OFFSET >> 2
        flags, prot = self._words[at + self._vm_flags], self._words[at + self._vm_page_prot]
        if not write_access:
            self.counts[Cause.ZERO_PAGE] += 1
            ptep = self._tables.pte_offset_map(pgd, vaddr)
            self._map(pgd, vaddr, ptep, mk_pte(ZERO_PFN, prot) & ~PAGE_RW, flags, own=False)
            self._tables.pte_unmap(ptep)
            return Fault.MINOR
        page = self._zeroed_page() if self._rmap.prepare(vma) else 0
        if not page:
            return Fault.OOM
        self.counts[Cause.ANONYMOUS] += 1
        self._tlb.caches.clear_user_page(page, vaddr)
        self._tlb.caches.flush_page_to_ram(page)
        self._enter_lru(page)
        self._memmap.set_bit(page, PG_REFERENCED)
        pte = self._mkwrite(mk_pte(self._memmap.pfn(page), prot), flags)
        self._map_own(mm, pgd, vma, vaddr, page, pte)
        return Fault.MINOR

    def _do_swap_page(
        self, mm: int, pgd: int, vma: int, vaddr: int, pte: int, write_access: bool
    ) -> Fault:
        """A page comes back; one that is only read keeps its slot, to be dropped again cheaply."""
        entry = self._swap.areas.ptes.pte_to_swp_entry(pte)
        if not self._rmap.reserve():
            return Fault.OOM
        cached = self._swap.lookup(entry)
        page = cached or self._swap.read(entry)
        if not page:
            return Fault.OOM
        at, memmap = vma - PAGE_OFFSET >> 2, self._memmap
        flags, prot = self._words[at + self._vm_flags], self._words[at + self._vm_page_prot]
        self.counts[Cause.SWAP] += 1
        self._lru.mark_page_accessed(page)
        memmap.set_bit(page, PG_LOCKED)
        self._swap.areas.swap_free(entry)
        if self._swap.full:
            self._swap.remove_exclusive(page)
        self._words[(mm - PAGE_OFFSET >> 2) + self._rss] += 1
        pte = mk_pte(memmap.pfn(page), prot)
        own = write_access and self._swap.can_share(page)
        if own:
            pte = self._mkwrite(pte, flags)
        memmap.clear_bit(page, PG_LOCKED)
        self._about_to_be_seen(page)
        ptep = self._tables.pte_offset_map(pgd, vaddr)
        self._map(pgd, vaddr, ptep, pte, flags, own=own)
        self._rmap.add_anon(page, vma, vaddr, ptep)
        fault = Fault.MINOR if cached else Fault.MAJOR
        return self._swapped_in(mm, pgd, vma, vaddr, ptep, fault, write_access and not own)

    def _about_to_be_seen(self, page: int) -> None:
        """A frame that somebody filled through another address goes to a process."""
        self._tlb.caches.flush_page_to_ram(page)
        self._tlb.caches.flush_icache_page(page)

    def put_dirty_page(self, mm: int, vma: int, page: int, vaddr: int) -> int:
        """Map a page of a new program's arguments, written to already. 0, or ``-ENOMEM``.

        A place that is taken keeps what it has.
        """
        pgd, at = self._tables.pgd(mm), vma - PAGE_OFFSET >> 2
        ready = self._rmap.reserve() and self._rmap.prepare(vma)
        ptep = self._tables.pte_alloc_map(mm, pgd, vaddr) if ready else 0
        if not ptep:
            self._allocator.put_page(page)
            return -ENOMEM
        if self._entries.entry(ptep):
            self._tables.pte_unmap(ptep)
            self._allocator.put_page(page)
            return 0
        self._enter_lru(page)
        self._tlb.caches.flush_dcache_page(page)
        self._tlb.caches.flush_page_to_ram(page)
        pte = mk_pte(self._memmap.pfn(page), PAGE_COPY) | PAGE_RW | PAGE_DIRTY
        self._map(pgd, vaddr, ptep, pte, self._words[at + self._vm_flags], own=True)
        self._rmap.add_anon(page, vma, vaddr, ptep)
        self._tables.pte_unmap(ptep)
        self._words[(mm - PAGE_OFFSET >> 2) + self._rss] += 1
        return 0

    # -- copy on write ------------------------------------------------------------------------

    def _do_wp_page(self, mm: int, pgd: int, vma: int, vaddr: int, ptep: int, pte: int) -> Fault:
        """A write to a read-only page: it becomes writable if nobody shares it, else a copy."""
        memmap = self._memmap
        flags = self._words[(vma - PAGE_OFFSET >> 2) + self._vm_flags]
        if pte_pfn(pte) >= self._statics.max_mapnr:
            self._tables.pte_unmap(ptep)
            self._printk(f"do_wp_page: bogus page at address {vaddr:08x} (page {pte >> 12:#x})\n")
            return Fault.OOM
        old = memmap.page(pte_pfn(pte))
        if self._reusable(old):
            self.counts[Cause.COW_REUSE] += 1
            self._establish(pgd, vaddr, ptep, self._mkwrite(pte | PAGE_ACCESSED, flags), flags)
            self._tables.pte_unmap(ptep)
            return Fault.MINOR
        self._tables.pte_unmap(ptep)
        if not memmap.reserved(old):
            self._allocator.get_page(old)
        new = self._private_copy(old) if self._rmap.prepare(vma) else 0
        if new:
            ptep = self._tables.pte_offset_map(pgd, vaddr)
            # Reclaim, if the copy needed it, may have taken the old page away from here.
            if self._entries.entry(ptep) == pte:
                self._break_cow(mm, pgd, vma, vaddr, ptep, old, new)
                self._allocator.put_page(old)
            else:
                self._allocator.put_page(new)
            self._tables.pte_unmap(ptep)
        self._allocator.put_page(old)
        return Fault.MINOR if new else Fault.OOM

    def _break_cow(
        self, mm: int, pgd: int, vma: int, vaddr: int, ptep: int, old: int, new: int
    ) -> None:
        """The process's own copy takes the place of the page that it shared."""
        at, memmap = vma - PAGE_OFFSET >> 2, self._memmap
        flags, prot = self._words[at + self._vm_flags], self._words[at + self._vm_page_prot]
        self.counts[Cause.COW_COPY] += 1
        if memmap.reserved(old):
            self._words[(mm - PAGE_OFFSET >> 2) + self._rss] += 1
        else:
            self._rmap.remove(mm, old, ptep)
        self._tlb.caches.copy_user_page(new, vaddr)
        self._tlb.caches.flush_page_to_ram(new)
        copied = self._mkwrite(mk_pte(memmap.pfn(new), prot), flags)
        self._establish(pgd, vaddr, ptep, copied, flags)
        self._enter_lru(new)
        self._rmap.add_anon(new, vma, vaddr, ptep)

    def _reusable(self, page: int) -> bool:
        """Whether the process has the frame for itself. A locked frame is not waited for."""
        memmap = self._memmap
        if memmap.test(page, PG_LOCKED):
            return False
        memmap.set_bit(page, PG_LOCKED)
        mine = not memmap.reserved(page) and self._swap.can_share(page)
        memmap.clear_bit(page, PG_LOCKED)
        return mine

    def _establish(self, pgd: int, vaddr: int, ptep: int, pte: int, flags: int) -> None:
        """``establish_pte()``: another entry for a present page; the TLB may hold the old one."""
        self._tlb.caches.flush_cache_page(pgd, vaddr)
        self._events.page_mapped(pgd, vaddr, pte_pfn(pte), user_rights(flags, own=True))
        self._entries.set_pte(ptep, pte)
        self._tlb.flush_tlb_page(pgd, vaddr)
        self._tlb.update_mmu_cache(vaddr, pte)

    # -- the contents of frames ----------------------------------------------------------------

    def clear_user_highpage(self, page: int) -> None:
        """Fill a frame with zeros, through an address that the kernel has or makes for it."""
        vaddr = self._highmem.kmap_atomic(page, KmType.USER0)
        paddr = self._memmap.pfn(page) << PAGE_SHIFT
        self._ram.fill(paddr, PAGE_SIZE)
        self._highmem.kunmap_atomic(vaddr, KmType.USER0)
        self._tlb.processor.snoop(paddr, PAGE_SIZE)

    def copy_user_highpage(self, to: int, source: int) -> None:
        """Copy a frame into another one; both are mapped meanwhile."""
        from_vaddr = self._highmem.kmap_atomic(source, KmType.USER0)
        to_vaddr = self._highmem.kmap_atomic(to, KmType.USER1)
        paddr = self._memmap.pfn(to) << PAGE_SHIFT
        self._ram.copy(paddr, self._memmap.pfn(source) << PAGE_SHIFT, PAGE_SIZE)
        self._highmem.kunmap_atomic(from_vaddr, KmType.USER0)
        self._highmem.kunmap_atomic(to_vaddr, KmType.USER1)
        self._tlb.processor.snoop(paddr, PAGE_SIZE)
