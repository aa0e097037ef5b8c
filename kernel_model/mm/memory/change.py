# SPDX-License-Identifier: GPL-2.0-or-later
"""Entries that change: other rights for pages that stay, another address for them.

Models linux-2.4.22 ``mm/mprotect.c: change_protection()`` and ``mm/mremap.c:
move_page_tables()`` (book 4.4, tables 4.3 to 4.6). In RAM: PTEs. What can fail: moving needs
page tables at the new address; without memory for one, everything is put back. 2.6 moves in its own
order (:mod:`kernel_model.mm.memory.linux_2_6.change`).
"""

from collections.abc import Callable
from typing import ClassVar

from kernel_model.arch_i386.pgtable import pte_modify, pte_pfn, pte_present
from kernel_model.arch_i386.tlb import Tlb
from kernel_model.image import KernelImage
from kernel_model.mm.memory.rights import user_rights
from kernel_model.mm.memory.tables import UserTables

ZapPageRange = Callable[[int, int, int], None]
"""``zap_page_range(mm, address, size)``."""


class EntryChanger:
    """Changes of present entries, of one machine."""

    HIGHEST_FIRST: ClassVar[bool] = True
    """From which end entries move to their new address."""

    def __init__(
        self, image: KernelImage, tables: UserTables, zap_page_range: ZapPageRange, tlb: Tlb
    ) -> None:
        self._image = image
        self._events = image.events
        self._tables = tables
        self._entries = tables.tables
        self._zap_page_range = zap_page_range
        self._tlb = tlb

    def change_protection(self, start: int, end: int, newprot: int, newflags: int) -> None:
        """Give the present pages of the current process other protection bits.

        ``newflags`` are those of the VMA by now. A private page loses its write permission even
        if the VMA may be written to: only a fault can tell whether the frame is shared.
        """
        pgd, entries = self._tables.pgd(int(self._image.current_task.mm)), self._entries
        rights = user_rights(newflags)
        self._tlb.caches.flush_cache_range(pgd, start, end)
        for vaddr, ptep in self._tables.ptes(pgd, start, end):
            if pte_present(entries.entry(ptep)):
                pte = entries.ptep_get_and_clear(ptep)
                self._events.page_mapped(pgd, vaddr, pte_pfn(pte), rights)
                entries.set_pte(ptep, pte_modify(pte, newprot))
        self._tlb.flush_tlb_range(pgd, start, end)

    def move_page_tables(self, mm: int, new_addr: int, old_addr: int, length: int) -> int:
        """Move the entries of ``length`` bytes. 0, or -1: no memory, and all is where it was."""
        pgd, distance = self._tables.pgd(mm), new_addr - old_addr
        self._tlb.caches.flush_cache_range(pgd, old_addr, old_addr + length)
        vaddrs = [vaddr for vaddr, _ in self._tables.ptes(pgd, old_addr, old_addr + length)]
        if self.HIGHEST_FIRST:
            vaddrs.reverse()
        for moved, vaddr in enumerate(vaddrs):
            if not self._move_one_page(mm, pgd, vaddr, vaddr + distance):
                # Nobody has run since they were moved there; but this function does not know that.
                self._tlb.caches.flush_cache_range(pgd, new_addr, new_addr + length)
                for back in reversed(vaddrs[:moved]):
                    self._move_one_page(mm, pgd, back + distance, back)
                self._zap_page_range(mm, new_addr, length)
                return -1
        self._all_moved(pgd, old_addr, old_addr + length)
        return 0

    def _move_one_page(self, mm: int, pgd: int, source: int, to: int) -> bool:
        """False: there is no page table for ``to`` and no memory for one."""
        dst_pte = self._tables.pte_alloc_map(mm, pgd, to)
        if not dst_pte:
            return False
        src_pte = self._tables.pte_offset_map_nested(pgd, source)
        pte = self._entries.ptep_get_and_clear(src_pte)
        if pte_present(pte):
            self._events.page_moved(pgd, source, to)
        self._entries.set_pte(dst_pte, pte)
        self._one_moved(pgd, source, src_pte, dst_pte, pte)
        self._tables.pte_unmap_nested(src_pte)
        self._tables.pte_unmap(dst_pte)
        return True

    # -- what releases do in their own way -----------------------------------------------------

    def _one_moved(self, pgd: int, source: int, src_pte: int, dst_pte: int, pte: int) -> None:
        """The entry ``pte`` of address ``source`` stands at ``dst_pte`` now."""

    def _all_moved(self, pgd: int, start: int, end: int) -> None:
        """All entries between these addresses stand somewhere else now."""
        self._tlb.flush_tlb_range(pgd, start, end)
