# SPDX-License-Identifier: GPL-2.0-or-later
"""Changing what may be done with the pages of a range.

Models what ``mm/mprotect.c: sys_mprotect()`` of linux-2.4.22 and 2.6.11 have in common (book 4.4);
how one VMA changes, ``mprotect_fixup()``, is each release's own. The page tables follow through
:class:`~kernel_model.mm.mmap.pages.PageOperations`.

What can fail: a negative error. The part of the range before the place that failed has changed
by then.
"""

from abc import ABC, abstractmethod
from typing import ClassVar, Final

from kernel_model.arch_i386.page import PAGE_MASK, page_align
from kernel_model.errno import EACCES, EINVAL, ENOMEM
from kernel_model.mm.mmap.areas import VmArea
from kernel_model.mm.mmap.parts import VmaParts
from kernel_model.structs.mm import VM_ACCESS
from kernel_model.structs.mman import PROT_EXEC, PROT_READ, PROT_WRITE

_U32: Final = 0xFFFFFFFF


class Mprotect(ABC):
    """``mprotect()`` in the current address space."""

    _prot_bits: ClassVar[int] = PROT_READ | PROT_WRITE | PROT_EXEC
    _wrapped: ClassVar[int] = -EINVAL
    """The error for a range that goes beyond 4 GiB."""

    def __init__(self, parts: VmaParts) -> None:
        self._parts = parts
        self._areas = parts.areas

    def sys_mprotect(self, start: int, length: int, prot: int) -> int:
        """0, or a negative error."""
        if start & ~PAGE_MASK:
            return -EINVAL
        end = start + page_align(length)
        if end > _U32:
            return self._wrapped
        if prot & ~self._prot_bits:
            return -EINVAL
        return self._protect(start, end, prot) if end != start else 0

    def _protect(self, start: int, end: int, prot: int) -> int:
        """The same for a range that is not empty."""
        vma, prev = self._parts.finder.find_vma_prev(self._areas.current_mm, start)
        return min(self._protect_from(vma, prev, start, end, prot), 0)

    def _protect_from(self, vma: int, prev: int, start: int, end: int, prot: int) -> int:
        """VMA by VMA. ``prev`` is the one that ends where the rest of the range begins.

        Returns the last that changed, or a negative error.
        """
        while start < end:
            if not vma or self._areas.vma(vma).vm_start > start:
                return -ENOMEM
            area = self._areas.vma(vma)
            if refusal := self._refusal(area):
                return refusal
            newflags = prot & VM_ACCESS | area.vm_flags & ~VM_ACCESS
            if newflags & ~(newflags >> 4) & 0xF:
                return -EACCES
            stop = min(area.vm_end, end)
            prev = self._fixup(vma, prev, start, stop, newflags)
            if prev < 0:
                return prev
            changed = self._areas.vma(prev)
            start, vma = max(stop, changed.vm_end), changed.vm_next
        return prev

    def _refusal(self, area: VmArea) -> int:
        """Why a VMA's protection cannot be changed at all; 0: it can."""
        return 0

    @abstractmethod
    def _fixup(self, vma: int, prev: int, start: int, end: int, newflags: int) -> int:
        """``mprotect_fixup()``: one VMA, or the part of it that is in the range.

        Returns the VMA that now ends at ``end``, or goes beyond it; or a negative error.
        """
