# SPDX-License-Identifier: GPL-2.0-or-later
"""Page faults where 2.6 has its own way.

Models linux-2.6.11 ``mm/memory.c``: ``handle_pte_fault()``, ``do_file_page()`` and what differs in
the others (book 3.10, 4.6, 4.8). A process's new pages begin on the active list; frames of zeros
come from the allocator (``__GFP_ZERO``); only what the VMA allows makes a PTE writable; a page that
comes back from swap to be written to is copied in the same fault; a PTE may hold a page number of
the file. In RAM besides what 2.4 has: ``page_state``.
"""

from typing import Final

from kernel_model.arch_i386.highmem import DirectMapping
from kernel_model.arch_i386.page import PAGE_OFFSET, PAGE_SHIFT, PAGE_SIZE
from kernel_model.arch_i386.pgtable import PAGE_ACCESSED, PAGE_DIRTY, PAGE_RW
from kernel_model.arch_i386.tlb import Tlb
from kernel_model.errno import ENOMEM
from kernel_model.image import KernelImage
from kernel_model.mm.linux_2_6.page_alloc import PageAllocator26
from kernel_model.mm.linux_2_6.page_state import PageState
from kernel_model.mm.memory.fault import (
    NOPAGE_OOM,
    NOPAGE_SIGBUS,
    ZERO_PFN,
    Cause,
    Fault,
    FaultHandler,
)
from kernel_model.mm.memory.linux_2_6.fremap import FilePages
from kernel_model.mm.memory.tables import UserTables
from kernel_model.mm.rmap.interface import ReverseMap
from kernel_model.mm.swap_state import SwapCache
from kernel_model.structs.linux_2_6.mm import VM_HUGETLB
from kernel_model.structs.mm import VM_SHARED, VM_WRITE

NOPAGE_MAJOR: Final = 1
"""Set in what ``nopage`` returns when the page had to be read, where the kernel writes
``VM_FAULT_MAJOR`` through a third argument."""


class FaultHandler26(FaultHandler):
    """``handle_mm_fault()`` of a 2.6 machine."""

    def __init__(
        self,
        image: KernelImage,
        allocator: PageAllocator26,
        tables: UserTables,
        swap: SwapCache,
        highmem: DirectMapping,
        tlb: Tlb,
        rmap: ReverseMap,
        files: FilePages,
    ) -> None:
        super().__init__(image, allocator, tables, swap, highmem, tlb, rmap)
        self._files = files
        self._state = PageState(image)
        self._lru_cache_add_active = allocator.lru.add_active
        self._gfp_zero = image.constants.gfp.zero

    def handle_mm_fault(self, mm: int, vma: int, address: int, write_access: bool) -> Fault:
        self._state.add("pgfault")
        if self._words[(vma - PAGE_OFFSET >> 2) + self._vm_flags] & VM_HUGETLB:
            # All of it was mapped when it came to be: the file has been truncated.
            return Fault.SIGBUS
        return super().handle_mm_fault(mm, vma, address, write_access)

    def _set_access_flags(
        self, pgd: int, vaddr: int, ptep: int, pte: int, write_access: bool
    ) -> None:
        # The CPU sets "accessed" by itself; of a page that is read there is nothing else to say.
        if write_access:
            self._entries.set_pte(ptep, pte | PAGE_ACCESSED | PAGE_DIRTY)
            # As in 2.4 an i386 would do without: the entry gained bits and lost none.
            self._tlb.flush_tlb_page(pgd, vaddr)

    def _do_absent_page(
        self, mm: int, pgd: int, vma: int, vaddr: int, pte: int, write_access: bool
    ) -> Fault:
        if self._swap.areas.ptes.pte_file(pte):
            return self._do_file_page(mm, pgd, vma, vaddr, pte, write_access)
        fault = self._do_swap_page(mm, pgd, vma, vaddr, pte, write_access)
        if fault is Fault.MAJOR:
            self._state.add("pgmajfault")
        return fault

    def _do_file_page(
        self, mm: int, pgd: int, vma: int, vaddr: int, pte: int, write_access: bool
    ) -> Fault:
        """The page of the file that ``remap_file_pages()`` chose for the address."""
        at = vma - PAGE_OFFSET >> 2
        flags, prot = self._words[at + self._vm_flags], self._words[at + self._vm_page_prot]
        populate = self._files.populate_of(vma)
        if not populate or (write_access and not flags & VM_SHARED):
            ptep = self._tables.pte_offset_map(pgd, vaddr)
            self._entries.pte_clear(ptep)
            self._tables.pte_unmap(ptep)
            return self._do_no_page(mm, pgd, vma, vaddr, write_access)
        pgoff = self._files.ptes.pte_to_pgoff(pte)
        error = self._functions.call(populate, vma, vaddr, PAGE_SIZE, prot, pgoff, 0)
        if error:
            return Fault.OOM if error == -ENOMEM else Fault.SIGBUS
        self.counts[Cause.FILE_PTE] += 1
        return Fault.MAJOR

    def _nopage(self, nopage: int, vma: int, vaddr: int) -> tuple[int, Fault]:
        page = self._functions.call(nopage, vma, vaddr)
        if page in (NOPAGE_SIGBUS, NOPAGE_OOM) or not page & NOPAGE_MAJOR:
            return page, Fault.MINOR
        return page - NOPAGE_MAJOR, Fault.MAJOR

    def _zeroed_page(self) -> int:
        page = self._allocator.alloc_page(self._gfp_highuser | self._gfp_zero, "user page")
        if page:
            # The frame may have held a program.
            self._tlb.processor.snoop(self._memmap.pfn(page) << PAGE_SHIFT, PAGE_SIZE)
        return page

    def _private_copy(self, source: int) -> int:
        if source == self._memmap.page(ZERO_PFN):
            return self._zeroed_page()
        return super()._private_copy(source)

    def _mkwrite(self, pte: int, flags: int) -> int:
        """``maybe_mkwrite()``: a debugger may write where the process may not."""
        return pte | PAGE_DIRTY | (PAGE_RW if flags & VM_WRITE else 0)

    def _enter_lru(self, page: int) -> None:
        self._lru_cache_add_active(page)

    def _swapped_in(
        self, mm: int, pgd: int, vma: int, vaddr: int, ptep: int, fault: Fault, write_access: bool
    ) -> Fault:
        if not write_access:
            return super()._swapped_in(mm, pgd, vma, vaddr, ptep, fault, write_access)
        pte = self._entries.entry(ptep)
        no_memory = self._do_wp_page(mm, pgd, vma, vaddr, ptep, pte) is Fault.OOM
        return Fault.OOM if no_memory else fault
