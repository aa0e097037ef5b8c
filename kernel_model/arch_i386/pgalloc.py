# SPDX-License-Identifier: GPL-2.0-or-later
"""Walking page tables in RAM, and making and freeing them.

Models linux-2.4.22 ``include/asm-i386/pgalloc.h`` and the offset macros of ``pgtable.h``
(book 3.3-3.5). In RAM: the tables themselves; freed ones are kept on quicklists, chained
through their first word, with heads and ``pgtable_cache_sz`` in ``boot_cpu_data``.

Pointers to entries are physical addresses; one class serves two levels and three. Where page
tables may lie in high memory, pointers to PTEs are what maps them
(:mod:`kernel_model.arch_i386.linux_2_6.highpte`).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Final

from kernel_model.arch_i386.page import (
    PAGE_OFFSET,
    PAGE_SHIFT,
    PAGE_SIZE,
    phys_to_virt,
    virt_to_phys,
)
from kernel_model.arch_i386.pgtable import (
    PAGE_PRESENT,
    PAGE_TABLE,
    PTE_FLAGS_MASK,
    THREE_LEVEL,
    TWO_LEVEL,
    pgd_page,
    pmd_none,
    pmd_page,
)
from kernel_model.image import KernelImage

PGT_CACHE_HIGH: Final = 50
PGT_CACHE_LOW: Final = 25
"""``pgt_cache_water``: above the first, ``check_pgt_cache()`` trims down to the second."""


class PageTables:
    """Access to page tables of the kernel's shape: two levels, or three with PAE."""

    def __init__(self, image: KernelImage) -> None:
        self.shape = THREE_LEVEL if image.config.pae else TWO_LEVEL
        wide = self.shape.entry_bytes == 8
        self._cells = image.ram.quads if wide else image.ram.words
        self._cell_shift = 3 if wide else 2
        self._pgdir_shift, self._pmd_shift = self.shape.pgdir_shift, self.shape.pmd_shift
        self._folded = self.shape.folded
        self._last_pmd, self._last_pte = self.shape.ptrs_per_pmd - 1, self.shape.ptrs_per_pte - 1

    def ptep_to_paddr(self, ptep: int) -> int:
        """The physical address of the PTE that a pointer leads to."""
        return ptep

    def entry(self, paddr: int) -> int:
        """``*pte``, ``*pmd`` or ``*pgd``: the entry at ``paddr``."""
        return self._cells[paddr >> self._cell_shift]

    def pgd_offset(self, pgd: int, vaddr: int) -> int:
        """Where the entry of the page directory ``pgd`` for ``vaddr`` lies."""
        return pgd + self.shape.pgd_index(vaddr) * self.shape.entry_bytes

    def pmd_offset(self, pgdp: int, vaddr: int) -> int:
        """Where the middle entry for ``vaddr`` lies; with two levels, ``pgdp`` itself."""
        if self.shape.folded:
            return pgdp
        table = pgd_page(self.entry(pgdp))
        return table + self.shape.pmd_index(vaddr) * self.shape.entry_bytes

    def pte_offset(self, pmdp: int, vaddr: int) -> int:
        """Where the PTE for ``vaddr`` lies, in the page table that ``*pmdp`` names."""
        table = pmd_page(self.entry(pmdp))
        return table + self.shape.pte_index(vaddr) * self.shape.entry_bytes

    def user_pte_offset(self, pgd: int, vaddr: int) -> int:
        """All three steps for a user address, in one: a fault takes them, and finds the table.

        0 when there is no page table for it.
        """
        cells, shift = self._cells, self._cell_shift
        entry = cells[(pgd >> shift) + (vaddr >> self._pgdir_shift)]
        if not self._folded:
            index = vaddr >> self._pmd_shift & self._last_pmd
            entry = cells[((entry & ~PTE_FLAGS_MASK) >> shift) + index]
        if not entry:
            return 0
        return (entry & ~PTE_FLAGS_MASK) + ((vaddr >> PAGE_SHIFT & self._last_pte) << shift)

    def set_pte(self, ptep: int, pte: int) -> None:
        self._cells[ptep >> self._cell_shift] = pte

    def set_pmd(self, pmdp: int, pmd: int) -> None:
        self._cells[pmdp >> self._cell_shift] = pmd

    def set_pgd(self, pgdp: int, pgd: int) -> None:
        self._cells[pgdp >> self._cell_shift] = pgd

    def pte_clear(self, ptep: int) -> None:
        self._cells[ptep >> self._cell_shift] = 0

    def ptep_get_and_clear(self, ptep: int) -> int:
        """Take the PTE away and return it; the CPU may have changed A and D until now."""
        cells, at = self._cells, ptep >> self._cell_shift
        pte = cells[at]
        cells[at] = 0
        return pte

    def pgd_present(self, pgd: int) -> bool:
        """Whether a middle directory hangs there. A folded one always does."""
        return self.shape.folded or bool(pgd & PAGE_PRESENT)

    def pgd_none(self, pgd: int) -> bool:
        """Whether nothing hangs there. A folded directory entry is never none by itself."""
        return not self.shape.folded and pgd == 0


class PageTableAllocator(ABC):
    """``pgd_alloc()`` and its kin: what all releases do with the tables that they get somewhere."""

    def __init__(self, tables: PageTables) -> None:
        self.tables = tables

    @abstractmethod
    def pgd_alloc(self) -> int:
        """A page directory with the kernel's part, by its physical address; 0: no memory.

        With PAE the three user entries point to empty middle directories, because the CPU loads
        all four entries with CR3.
        """

    @abstractmethod
    def pgd_free(self, pgd: int) -> None:
        """Give a directory back. It must map no user page any more."""

    def pmd_alloc(self, pgdp: int, vaddr: int) -> int:
        """The middle entry for ``vaddr``; every directory already has its middle directories."""
        return self.tables.pmd_offset(pgdp, vaddr)

    def pte_alloc(self, pmdp: int, vaddr: int) -> int:
        """The PTE for ``vaddr``, in a new page table if need be. 0 when memory is out."""
        return self._pte_alloc(pmdp, vaddr, self._pte_alloc_one)

    def pte_alloc_kernel(self, pmdp: int, vaddr: int) -> int:
        """The same for an address of the kernel's own."""
        return self.pte_alloc(pmdp, vaddr)

    def _pte_alloc(self, pmdp: int, vaddr: int, pte_alloc_one: Callable[[], int]) -> int:
        if pmd_none(self.tables.entry(pmdp)):
            table = pte_alloc_one()
            if not table:
                return 0
            # pmd_populate() gives kernel addresses the user bit too: the PTEs below protect them.
            self.tables.set_pmd(pmdp, table | PAGE_TABLE)
        return self.tables.pte_offset(pmdp, vaddr)

    @abstractmethod
    def _pte_alloc_one(self) -> int:
        """An empty page table by its physical address; 0 when memory is out."""

    @abstractmethod
    def pte_free(self, pmdp: int) -> None:
        """Take the page table away from ``*pmdp``, and give it back."""

    def check_pgt_cache(self, low: int = PGT_CACHE_LOW, high: int = PGT_CACHE_HIGH) -> int:
        """Give tables back once more than ``high`` are kept, until ``low`` are. Returns how many
        were freed: none where none are kept."""
        return 0


class QuicklistAllocator(PageTableAllocator):
    """Tables of 2.4: from a source of frames of low memory, by way of the quicklists.

    ``get_free_page`` is told the purpose and returns a frame's kernel virtual address, 0 when
    there is none.
    """

    def __init__(
        self,
        image: KernelImage,
        tables: PageTables,
        swapper_pg_dir: int,
        get_free_page: Callable[[str], int],
        free_page: Callable[[int], None],
    ) -> None:
        super().__init__(tables)
        self._ram = image.ram
        self._events = image.events
        self._cpu: Any = image.statics.boot_cpu_data
        self._swapper_pg_dir = swapper_pg_dir
        self._get_free_page = get_free_page
        self._free_page = free_page

    def _pop(self, quicklist: str) -> int:
        """First table of a quicklist, its chain word cleared; 0 when the list is empty."""
        vaddr = int(getattr(self._cpu, quicklist))
        if vaddr:
            paddr = virt_to_phys(vaddr)
            setattr(self._cpu, quicklist, self._ram.read32(paddr))
            self._ram.write32(paddr, 0)
            self._cpu.pgtable_cache_sz -= 1
        return vaddr

    def _push(self, quicklist: str, vaddr: int) -> None:
        self._ram.write32(virt_to_phys(vaddr), getattr(self._cpu, quicklist))
        setattr(self._cpu, quicklist, vaddr)
        self._cpu.pgtable_cache_sz += 1

    def _new_table(self, purpose: str) -> int:
        """A zeroed frame for a table, by kernel virtual address; 0 when memory is out."""
        vaddr = self._get_free_page(purpose)
        if vaddr:
            self._ram.fill(virt_to_phys(vaddr), PAGE_SIZE)
        return vaddr

    # -- page directories --------------------------------------------------------------------

    def pgd_alloc(self) -> int:
        """A page directory whose kernel part is that of ``swapper_pg_dir``.

        One from the quicklist keeps the kernel part it had: what the kernel mapped since then
        arrives by vmalloc faults. One of PAE never goes there: the chain would overwrite the
        first of its user entries.
        """
        if vaddr := self._pop("pgd_quick"):
            return virt_to_phys(vaddr)
        vaddr = self._new_table("page directory")
        if not vaddr:
            return 0
        if not self._fill_pgd(virt_to_phys(vaddr)):
            self._free_page(vaddr)
            return 0
        pgd, shape = virt_to_phys(vaddr), self.tables.shape
        start = shape.user_ptrs_per_pgd * shape.entry_bytes
        length = (shape.ptrs_per_pgd - shape.user_ptrs_per_pgd) * shape.entry_bytes
        self._ram.write(pgd + start, self._ram.read(self._swapper_pg_dir + start, length))
        self._events.kernel_tables_shared(pgd, PAGE_OFFSET, -PAGE_OFFSET & 0xFFFFFFFF)
        return pgd

    def _fill_pgd(self, pgd: int) -> bool:
        """Give each user entry of a three-level directory its middle directory."""
        shape = self.tables.shape
        if shape.folded:
            return True
        made: list[int] = []
        for index in range(shape.user_ptrs_per_pgd):
            pmd = self._new_table("page middle directory")
            if not pmd:
                for table in made:
                    self._free_page(table)
                return False
            made.append(pmd)
            self.tables.set_pgd(pgd + index * shape.entry_bytes, virt_to_phys(pmd) | PAGE_PRESENT)
        return True

    def pgd_free(self, pgd: int) -> None:
        if self.tables.shape.folded:
            self._push("pgd_quick", phys_to_virt(pgd))
        else:
            self._free_pgd_slow(pgd)

    def _free_pgd_slow(self, pgd: int) -> None:
        """Return a directory, and with PAE its middle directories, to the buddy allocator."""
        shape = self.tables.shape
        if not shape.folded:
            for index in range(shape.user_ptrs_per_pgd):
                entry = self.tables.entry(pgd + index * shape.entry_bytes)
                self._free_page(phys_to_virt(pgd_page(entry)))
        self._free_page(phys_to_virt(pgd))

    # -- page tables ---------------------------------------------------------------------------

    def _pte_alloc_one(self) -> int:
        table = self._pop("pte_quick") or self._new_table("page table")
        return virt_to_phys(table) if table else 0

    def pte_free(self, pmdp: int) -> None:
        table = pmd_page(self.tables.entry(pmdp))
        self.tables.set_pmd(pmdp, 0)
        self._push("pte_quick", phys_to_virt(table))

    def check_pgt_cache(self, low: int = PGT_CACHE_LOW, high: int = PGT_CACHE_HIGH) -> int:
        freed = 0
        if self._cpu.pgtable_cache_sz <= high:
            return freed
        while self._cpu.pgtable_cache_sz > low:
            before = self._cpu.pgtable_cache_sz
            if vaddr := self._pop("pgd_quick"):
                self._free_pgd_slow(virt_to_phys(vaddr))
            if vaddr := self._pop("pte_quick"):
                self._free_page(vaddr)
            freed += before - self._cpu.pgtable_cache_sz
            if before == self._cpu.pgtable_cache_sz:
                break
        return freed
