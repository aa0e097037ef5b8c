# SPDX-License-Identifier: GPL-2.0-or-later
"""Sharing the pages of one address space with another, at fork.

Models linux-2.4.22 ``mm/memory.c: copy_page_range()`` (book 4.4, 4.6). What may be written and
is private becomes read-only on both sides, so that the next write of either makes a copy. In
RAM: the PTEs of both, counts of frames and of swap slots, ``mm->rss``.

What can fail: no memory for a page table; what was shared so far stays, for ``exit_mmap()`` of
the child to take away.
"""

from kernel_model.arch_i386.page import PAGE_OFFSET, PAGE_SHIFT
from kernel_model.arch_i386.pgtable import (
    PAGE_ACCESSED,
    PAGE_DIRTY,
    PAGE_RW,
    pte_pfn,
    pte_present,
)
from kernel_model.image import KernelImage
from kernel_model.mm.memory.rights import user_rights
from kernel_model.mm.memory.tables import UserTables
from kernel_model.mm.page_alloc import PageAllocator
from kernel_model.mm.rmap.interface import ReverseMap
from kernel_model.mm.swapfile import SwapAreas
from kernel_model.structs.mm import VM_MAYWRITE, VM_SHARED


class PageCopier:
    """``copy_page_range()`` of one machine."""

    def __init__(
        self,
        image: KernelImage,
        allocator: PageAllocator,
        tables: UserTables,
        areas: SwapAreas,
        rmap: ReverseMap,
    ) -> None:
        self._events = image.events
        self._words = image.ram.words
        self._statics = image.statics
        self._allocator = allocator
        self._memmap = allocator.memmap
        self._tables = tables
        self._areas = areas
        self._rmap = rmap
        vma = image.structs.vm_area_struct
        self._vm_start, self._vm_end = vma.word("vm_start"), vma.word("vm_end")
        self._vm_flags = vma.word("vm_flags")
        self._rss = image.structs.mm_struct.word("rss")

    def copy_page_range(self, dst: int, src: int, vma: int) -> int:
        """Map in ``dst`` what ``src`` has mapped in ``vma``. 0, or -1 when memory is out.

        The caller flushes the TLB of ``src``: entries of it have lost their write permission.
        """
        words, at = self._words, vma - PAGE_OFFSET >> 2
        start, end = words[at + self._vm_start], words[at + self._vm_end]
        flags = words[at + self._vm_flags]
        tables, src_pgd = self._tables, self._tables.pgd(src)
        for first, table_end in tables.spans(src_pgd, start, end):
            vaddr = first
            while vaddr < table_end:
                ptep = tables.pte_alloc_map(dst, tables.pgd(dst), vaddr)
                if not ptep:
                    return -1
                vaddr = self._copy_ptes(dst, src, flags, vaddr, table_end, ptep)
                tables.pte_unmap(ptep)
                if vaddr < table_end and not self._rmap.reserve():
                    return -1
        return 0

    def _copy_ptes(self, dst: int, src: int, flags: int, start: int, end: int, ptep: int) -> int:
        """Copy what one page table of ``src`` has; ``ptep`` is the first PTE of ``dst``.

        Returns how far it came: where the reverse map needs memory that only a caller can wait for,
        or ``end``.
        """
        words, tables, entries = self._words, self._tables, self._tables.tables
        get_page = self._allocator.get_page
        dst_pgd, src_pgd = tables.pgd(dst), tables.pgd(src)
        rss, rights = (dst - PAGE_OFFSET >> 2) + self._rss, user_rights(flags)
        # The child has not used the page yet; of a shared one, the parent's dirt is the parent's.
        not_inherited = ~(PAGE_ACCESSED | (PAGE_DIRTY if flags & VM_SHARED else 0))
        write_protect = flags & (VM_SHARED | VM_MAYWRITE) == VM_MAYWRITE
        memmap, mapped, max_mapnr = self._memmap, self._events.page_mapped, self._statics.max_mapnr
        duplicate, ready = self._rmap.duplicate, self._rmap.ready
        width = tables.shape.entry_bytes
        for vaddr, src_pte in tables.ptes_nested(src_pgd, start, end):
            dst_pte = ptep + (vaddr - start >> PAGE_SHIFT) * width
            pte = entries.entry(src_pte)
            if not pte_present(pte):
                self._copy_absent(dst, src, pte)
                entries.set_pte(dst_pte, pte)
                continue
            pfn = pte_pfn(pte)
            # A device's frame, or a reserved one, has no users to count.
            counted = pfn < max_mapnr and not memmap.reserved(page := memmap.page(pfn))
            if counted and not ready():
                return vaddr
            mapped(dst_pgd, vaddr, pfn, rights)
            if counted:
                if write_protect and pte & PAGE_RW:
                    mapped(src_pgd, vaddr, pfn, rights)
                    pte &= ~PAGE_RW
                    entries.set_pte(src_pte, pte)
                pte &= not_inherited
                get_page(page)
                words[rss] += 1
                duplicate(dst, page, dst_pte)
            entries.set_pte(dst_pte, pte)
        return end

    def _copy_absent(self, dst: int, src: int, pte: int) -> None:
        """The child, too, means the slot that the entry holds."""
        self._areas.swap_duplicate(pte)
