# SPDX-License-Identifier: GPL-2.0-or-later
"""What the VMA layer asks of the page tables.

Models the calls that ``mm/mmap.c``, ``mm/mprotect.c``, ``mm/mremap.c``, ``mm/mlock.c`` and
``kernel/fork.c`` make into ``mm/memory.c`` and the architecture, in linux-2.4.22 and in 2.6.11. An
``mm`` is the kernel virtual address of an ``mm_struct``, a ``vma`` that of a ``vm_area_struct``;
addresses and sizes are bytes. How a range is unmapped for good is each release's own.
"""

from typing import Protocol


class PageOperations(Protocol):
    """The page tables of every address space, as the VMA layer of both releases sees them."""

    def zap_page_range(self, mm: int, address: int, size: int) -> None:
        """Unmap ``size`` bytes, and give back the frames and slots that they held."""

    def make_pages_present(self, start: int, end: int) -> int:
        """Fault the pages of the current process in, for writing where that is allowed."""

    def move_page_tables(self, mm: int, new_addr: int, old_addr: int, length: int) -> int:
        """Move PTEs. Nonzero when memory ran out; then everything is where it was."""

    def change_protection(self, start: int, end: int, newprot: int, newflags: int) -> None:
        """Give the pages of the current process other protection bits, and flush.

        The VMA over them has ``newflags`` already.
        """

    def copy_page_range(self, dst: int, src: int, vma: int) -> int:
        """Copy the PTEs of a VMA for a child; 0, or ``-ENOMEM`` half way through."""

    def pgd_alloc(self, mm: int) -> int:
        """A page directory with the kernel's entries, as virtual address; 0: no memory."""

    def pgd_free(self, pgd: int) -> None:
        """Give a page directory back."""

    def flush_tlb_mm(self, mm: int) -> None:
        """Drop every translation of an address space."""

    def flush_tlb_pgtables(self, mm: int, start: int, end: int) -> None:
        """Page tables between two addresses were taken out of the directory."""

    def flush_cache_mm(self, mm: int) -> None:
        """Write back what caches hold by virtual address."""
