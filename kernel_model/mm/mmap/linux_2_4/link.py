# SPDX-License-Identifier: GPL-2.0-or-later
"""Putting in a VMA whose place is not known yet, as 2.4 does it.

Models linux-2.4.22 ``mm/mmap.c: insert_vm_struct()``, ``__insert_vm_struct()``. What can fail: a
VMA put where another one is ends in the kernel's own ``BUG()``.
"""

from kernel_model.errors import KernelBug
from kernel_model.mm.mmap.link import Links


class BuggingLinks(Links):
    """:class:`Links` that die when two VMAs overlap."""

    def _insert(self, mm: int, vma: int, line: int) -> None:
        place = self._free_place(mm, vma)
        if place is None:
            start, end = self._areas.vma(vma).vm_start, self._areas.vma(vma).vm_end
            raise KernelBug("mmap.c", line, f"a VMA covers part of {start:#x}..{end:#x} already")
        self.vma_link(mm, vma, place)

    def insert_vm_struct(self, mm: int, vma: int) -> int:
        """Find the place of a VMA and link it. Returns 0."""
        self._insert(mm, vma, 1194)
        return 0

    def insert_vm_struct_locked(self, mm: int, vma: int) -> None:
        """``__insert_vm_struct()``: the same for a caller that holds the locks."""
        self._insert(mm, vma, 1181)
