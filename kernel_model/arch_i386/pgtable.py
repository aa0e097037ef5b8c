# SPDX-License-Identifier: GPL-2.0-or-later
"""Page-table entries: their bits, the questions asked of them, the two shapes of the tree.

Models linux-2.4.22 ``include/asm-i386/pgtable.h``, ``pgtable-2level.h``, ``pgtable-3level.h``
(book 3.1-3.4). A ``pte_t``, ``pmd_t`` or ``pgd_t`` is an int, the entry's value; a pointer to
one is its physical address. With two levels the middle directory is folded: its only entry
*is* the entry of the page directory. Pure arithmetic; nothing here reads RAM.
"""

from dataclasses import dataclass
from typing import Final

from kernel_model.arch_i386.page import PAGE_SHIFT

PAGE_PRESENT: Final = 0x001
PAGE_RW: Final = 0x002
PAGE_USER: Final = 0x004
PAGE_PWT: Final = 0x008
PAGE_PCD: Final = 0x010
PAGE_ACCESSED: Final = 0x020
PAGE_DIRTY: Final = 0x040
PAGE_PSE: Final = 0x080
PAGE_GLOBAL: Final = 0x100
PAGE_PROTNONE: Final = 0x080
"""Marks a page that is in memory but that nobody may touch; the CPU sees it as absent."""

PAGE_TABLE: Final = PAGE_PRESENT | PAGE_RW | PAGE_USER | PAGE_ACCESSED | PAGE_DIRTY
KERNPG_TABLE: Final = PAGE_PRESENT | PAGE_RW | PAGE_ACCESSED | PAGE_DIRTY
PAGE_NONE: Final = PAGE_PROTNONE | PAGE_ACCESSED
PAGE_SHARED: Final = PAGE_PRESENT | PAGE_RW | PAGE_USER | PAGE_ACCESSED
PAGE_COPY: Final = PAGE_PRESENT | PAGE_USER | PAGE_ACCESSED
PAGE_READONLY: Final = PAGE_PRESENT | PAGE_USER | PAGE_ACCESSED
PAGE_KERNEL: Final = KERNPG_TABLE | PAGE_GLOBAL
"""A kernel page. 2.4.22 sets the global bit even where the CPU ignores it."""
PAGE_KERNEL_NOCACHE: Final = PAGE_KERNEL | PAGE_PCD

PROTECTION_MAP: Final = (
    *(PAGE_NONE, PAGE_READONLY, PAGE_COPY, PAGE_COPY),
    *(PAGE_READONLY, PAGE_READONLY, PAGE_COPY, PAGE_COPY),
    *(PAGE_NONE, PAGE_READONLY, PAGE_SHARED, PAGE_SHARED),
    *(PAGE_READONLY, PAGE_READONLY, PAGE_SHARED, PAGE_SHARED),
)
"""``protection_map``: PTE bits by read 1, write 2, execute 4, shared 8 of ``vm_flags``."""

PTE_FLAGS_MASK: Final = 0xFFF


@dataclass(frozen=True, slots=True)
class PageTableShape:
    """How a linear address is cut into indices, and how wide an entry is."""

    pgdir_shift: int
    ptrs_per_pgd: int
    pmd_shift: int
    ptrs_per_pmd: int
    ptrs_per_pte: int
    entry_bytes: int

    @property
    def pmd_size(self) -> int:
        """Bytes of linear address under one entry of the middle directory."""
        return 1 << self.pmd_shift

    @property
    def pgdir_size(self) -> int:
        """Bytes of linear address under one entry of the page directory."""
        return 1 << self.pgdir_shift

    @property
    def folded(self) -> bool:
        """Whether the middle directory is the page directory itself."""
        return self.ptrs_per_pmd == 1

    @property
    def user_ptrs_per_pgd(self) -> int:
        """Entries of the page directory below PAGE_OFFSET."""
        return self.ptrs_per_pgd * 3 // 4

    def pgd_index(self, vaddr: int) -> int:
        return vaddr >> self.pgdir_shift & (self.ptrs_per_pgd - 1)

    def pmd_index(self, vaddr: int) -> int:
        return vaddr >> self.pmd_shift & (self.ptrs_per_pmd - 1)

    def pte_index(self, vaddr: int) -> int:
        return vaddr >> PAGE_SHIFT & (self.ptrs_per_pte - 1)


TWO_LEVEL: Final = PageTableShape(22, 1024, 22, 1, 1024, 4)
THREE_LEVEL: Final = PageTableShape(30, 4, 21, 512, 512, 8)


def mk_pte_phys(paddr: int, prot: int) -> int:
    """A PTE for the frame at ``paddr`` with protection ``prot``."""
    return paddr & ~PTE_FLAGS_MASK | prot


def mk_pte(pfn: int, prot: int) -> int:
    """A PTE for frame ``pfn`` with protection ``prot``."""
    return pfn << PAGE_SHIFT | prot


def pte_pfn(pte: int) -> int:
    """The frame that a PTE names; ``pte_page()`` gives its ``struct page``."""
    return pte >> PAGE_SHIFT


def pte_none(pte: int) -> bool:
    return pte == 0


def pte_present(pte: int) -> bool:
    """In memory, whether or not the user may touch it (``PROT_NONE`` pages count)."""
    return bool(pte & (PAGE_PRESENT | PAGE_PROTNONE))


def pte_read(pte: int) -> bool:
    return bool(pte & PAGE_USER)


def pte_exec(pte: int) -> bool:
    """The i386 has no execute permission of its own: what can be read can be run."""
    return bool(pte & PAGE_USER)


def pte_dirty(pte: int) -> bool:
    return bool(pte & PAGE_DIRTY)


def pte_young(pte: int) -> bool:
    return bool(pte & PAGE_ACCESSED)


def pte_write(pte: int) -> bool:
    return bool(pte & PAGE_RW)


def pte_rdprotect(pte: int) -> int:
    return pte & ~PAGE_USER


def pte_exprotect(pte: int) -> int:
    return pte & ~PAGE_USER


def pte_mkclean(pte: int) -> int:
    return pte & ~PAGE_DIRTY


def pte_mkold(pte: int) -> int:
    return pte & ~PAGE_ACCESSED


def pte_wrprotect(pte: int) -> int:
    return pte & ~PAGE_RW


def pte_mkread(pte: int) -> int:
    return pte | PAGE_USER


def pte_mkexec(pte: int) -> int:
    return pte | PAGE_USER


def pte_mkdirty(pte: int) -> int:
    return pte | PAGE_DIRTY


def pte_mkyoung(pte: int) -> int:
    return pte | PAGE_ACCESSED


def pte_mkwrite(pte: int) -> int:
    return pte | PAGE_RW


def pte_modify(pte: int, prot: int) -> int:
    """The same frame with protection ``prot``; accessed and dirty are kept."""
    return pte & (~PTE_FLAGS_MASK | PAGE_ACCESSED | PAGE_DIRTY) | prot


def pmd_none(pmd: int) -> bool:
    return pmd == 0


def pmd_present(pmd: int) -> bool:
    return bool(pmd & PAGE_PRESENT)


def pmd_large(pmd: int) -> bool:
    """A 4 MiB (2 MiB with PAE) page rather than a page table."""
    return pmd & (PAGE_PRESENT | PAGE_PSE) == PAGE_PRESENT | PAGE_PSE


def pmd_bad(pmd: int) -> bool:
    """Neither a kernel nor a user page table: the flags are not those of ``KERNPG_TABLE``."""
    return pmd & PTE_FLAGS_MASK & ~PAGE_USER != KERNPG_TABLE


def pmd_page(pmd: int) -> int:
    """Physical address of the page table that the entry names."""
    return pmd & ~PTE_FLAGS_MASK


def pgd_page(pgd: int) -> int:
    """Physical address of the middle directory that the entry names."""
    return pgd & ~PTE_FLAGS_MASK
