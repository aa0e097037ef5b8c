# SPDX-License-Identifier: GPL-2.0-or-later
"""The life of an address space in 2.6.

Models linux-2.6.11 ``kernel/fork.c`` where it differs from 2.4 (book 4.8). In RAM: ``mm->nr_ptes``,
``free_area_cache``, ``mmlist``, on which an address space is only while pages of it are swapped
out. The tree of VMAs grows with the list, so that reverse mapping finds them while they are copied.
"""

from kernel_model.arch_i386.page import TASK_UNMAPPED_BASE
from kernel_model.fork import Fork


class Fork26(Fork):
    """Makes and ends address spaces."""

    def mm_init(self, mm: int) -> bool:
        """One user, and a page directory of its own. False: no memory, and ``mm`` is gone."""
        space = self._areas.mm(mm)
        self._lists.init(mm + self._mmlist)
        space.nr_ptes, space.free_area_cache = 0, TASK_UNMAPPED_BASE
        return super().mm_init(mm)

    def add_to_mmlist(self, mm: int, after: int) -> None:
        """Not before a page of it is swapped out."""

    def _forget(self, mm: int, old: int) -> None:
        space = self._areas.mm(mm)
        space.mmap = space.mmap_cache = space.mm_rb.rb_node = 0
        space.map_count = space.locked_vm = space.rss = space.anon_rss = space.cpu_vm_mask = 0
        space.free_area_cache = self._areas.mm(old).mmap_base

    def _listed(self, mm: int, vma: int, last: int) -> None:
        self._link_rb(mm, vma, last)

    def _build_mmap_rb(self, mm: int) -> None:
        """It is complete."""

    def _end(self, mm: int) -> None:
        self._spaces.exit_mmap(mm)
        if not self._lists.empty(mm + self._mmlist):
            self._lists.delete(mm + self._mmlist)
