# SPDX-License-Identifier: GPL-2.0-or-later
"""Advice about ranges, and the question which of their pages are in memory.

Models the part of linux-2.4.22 ``mm/filemap.c: sys_madvise()``, ``madvise_behavior()``,
``sys_mincore()`` that looks at VMAs; what they do to pages comes through :class:`PageAdvice`.
In RAM: ``VM_SEQ_READ`` and ``VM_RAND_READ`` of each VMA. Advice cuts VMAs, nothing joins them
again.

What can fail: a negative error. A hole in the range does not stop it; it shows at the end.
"""

from collections.abc import Callable
from typing import Final, Protocol

from kernel_model.arch_i386.page import PAGE_MASK, page_align
from kernel_model.errno import EINVAL, ENOMEM
from kernel_model.mm.mmap.parts import VmaParts
from kernel_model.structs.mm import VM_RAND_READ, VM_SEQ_READ
from kernel_model.structs.mman import (
    MADV_DONTNEED,
    MADV_NORMAL,
    MADV_RANDOM,
    MADV_SEQUENTIAL,
    MADV_WILLNEED,
)

_U32: Final = 0xFFFFFFFF
_HINTS: Final = {MADV_NORMAL: 0, MADV_RANDOM: VM_RAND_READ, MADV_SEQUENTIAL: VM_SEQ_READ}
"""Advice about how a range will be read, and the flag that keeps it."""


class PageAdvice(Protocol):
    """What advice means for pages. ``start`` and ``end`` lie in the VMA."""

    def madvise_willneed(self, vma: int, start: int, end: int) -> int:
        """Begin to read them in; 0, or a negative error."""

    def madvise_dontneed(self, vma: int, start: int, end: int) -> int:
        """Drop them; 0, or a negative error."""

    def mincore_vma(self, vma: int, start: int, end: int) -> bytes | int:
        """A byte for each page, 1 for one in memory; or a negative error."""


class Advise:
    """``madvise()`` and ``mincore()`` in the current address space."""

    def __init__(self, parts: VmaParts) -> None:
        self._areas = parts.areas
        self._finder = parts.finder
        self._splitter = parts.splitter

    def _each(self, start: int, length: int, call: Callable[[int, int, int], int]) -> int:
        """``call(vma, start, end)`` for each VMA in the range, until one answers an error."""
        if start & ~PAGE_MASK:
            return -EINVAL
        end = start + page_align(length)
        if end > _U32:
            return -EINVAL
        if end == start:
            return 0
        vma = self._finder.find_vma(self._areas.current_mm, start)
        holes = 0
        while vma:
            area = self._areas.vma(vma)
            if start < area.vm_start:
                start, holes = area.vm_start, -ENOMEM
            if start >= end:
                return holes
            stop, following = area.vm_end, area.vm_next
            if error := call(vma, start, min(stop, end)):
                return error
            if end <= stop:
                return holes
            start, vma = stop, following
        return -ENOMEM

    def sys_madvise(self, start: int, length: int, behavior: int, pages: PageAdvice) -> int:
        """0, or a negative error."""
        calls: dict[int, Callable[[int, int, int], int]] = {
            MADV_WILLNEED: pages.madvise_willneed,
            MADV_DONTNEED: pages.madvise_dontneed,
        }
        for advice in _HINTS:
            calls[advice] = lambda vma, first, end: self._behavior(vma, first, end, behavior)
        return self._each(start, length, calls.get(behavior, lambda vma, first, end: -EINVAL))

    def _behavior(self, vma: int, start: int, end: int, behavior: int) -> int:
        """``madvise_behavior()``: the part becomes a VMA of its own, whatever its flags were."""
        vm_flags = self._areas.vma(vma).vm_flags & ~(VM_SEQ_READ | VM_RAND_READ)
        return self._splitter.madvise_behavior(vma, start, end, vm_flags | _HINTS[behavior])

    def sys_mincore(self, start: int, length: int, pages: PageAdvice) -> tuple[int, bytes]:
        """(0 or a negative error, a byte for each page that was looked at).

        A hole takes no bytes: what follows it moves up.
        """
        found: list[bytes] = []

        def look(vma: int, first: int, end: int) -> int:
            answer = pages.mincore_vma(vma, first, end)
            if isinstance(answer, int):
                return answer
            found.append(answer)
            return 0

        return self._each(start, length, look), b"".join(found)
