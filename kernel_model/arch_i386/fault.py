# SPDX-License-Identifier: GPL-2.0-or-later
"""Page faults: what the kernel makes of one, and whether the instruction may run again.

Models linux-2.4.22 ``arch/i386/mm/fault.c: do_page_fault()`` (book 4.6, 7.2). The vmalloc fault:
a new entry of the kernel's part goes into ``swapper_pg_dir`` alone, and every other page
directory gets it when code of ring 0 first touches an address below it while that directory
is loaded. In RAM: the page directories; nothing else is kept.

Nothing here raises: a fault that the kernel cannot serve is ``None``, and the caller decides who
dies of it.
"""

import enum
from typing import Final

from kernel_model.arch_i386.page import TASK_SIZE
from kernel_model.arch_i386.pgalloc import PageTables
from kernel_model.arch_i386.pgtable import pmd_large, pmd_present, pte_present
from kernel_model.arch_i386.tlb import Tlb
from kernel_model.image import SWAPPER_PG_DIR, KernelImage

__all__ = ["ERROR_PROTECTION", "ERROR_USER", "ERROR_WRITE", "FaultKind", "PageFaults"]

ERROR_PROTECTION: Final = 1 << 0
"""Bit 0 of the error code: the page is there, and may not be used so."""
ERROR_WRITE: Final = 1 << 1
ERROR_USER: Final = 1 << 2


class FaultKind(enum.Enum):
    """What a served fault was."""

    VMALLOC = "vmalloc fault"


class PageFaults:
    """The page-fault handler of one machine."""

    def __init__(self, image: KernelImage, tables: PageTables, tlb: Tlb) -> None:
        self._events = image.events
        self._tables = tables
        self._tlb = tlb

    def do_page_fault(self, error_code: int, address: int) -> FaultKind | None:
        """Serve the fault at ``address``. ``None``: it is an error of whoever touched it.

        Only an absent page touched by ring 0 can be the kernel's to mend. Ring 3 must not be
        able to fill entries of the kernel's part, and a protection fault says that they are there.
        """
        if address >= TASK_SIZE and not error_code & (ERROR_PROTECTION | ERROR_USER):
            return FaultKind.VMALLOC if self._vmalloc_fault(address) else None
        return None

    def _vmalloc_fault(self, address: int) -> bool:
        """Copy what ``init_mm`` has for ``address`` into the loaded directory.

        The directory comes from CR3 and not from ``current->mm``: the fault may strike in the
        middle of a task switch. False: ``init_mm`` maps nothing there either.
        """
        tables = self._tables
        pgd = self._tlb.processor.read_cr3()
        pgdp, pgdp_k = (tables.pgd_offset(root, address) for root in (pgd, SWAPPER_PG_DIR))
        if not tables.pgd_present(tables.entry(pgdp_k)):
            return False
        tables.set_pgd(pgdp, tables.entry(pgdp_k))
        # With three levels the whole middle directory comes with its entry: 2.4.22 copies the
        # middle entry too, onto itself.
        pmdp = tables.pmd_offset(pgdp_k, address)
        pmd = tables.entry(pmdp)
        # Large pages map low memory, which every directory has; 2.4.22 would take the page's
        # own bytes for a page table here.
        if not pmd_present(pmd) or pmd_large(pmd):
            return False
        size = tables.shape.pgdir_size
        self._events.kernel_tables_shared(pgd, address & -size, size)
        return pte_present(tables.entry(tables.pte_offset(pmdp, address)))
