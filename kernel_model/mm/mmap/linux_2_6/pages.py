# SPDX-License-Identifier: GPL-2.0-or-later
"""What the VMA layer of 2.6 asks of the page tables besides: ranges go by gathering.

Models the calls of linux-2.6.11 ``mm/mmap.c`` into ``include/asm-generic/tlb.h`` and
``mm/memory.c`` (book 4.8): what was mapped is gathered, the TLB flushed once, then it is freed.
"""

from collections.abc import Sequence
from typing import Protocol

from kernel_model.mm.mmap import pages


class MmuGather(Protocol):
    """``struct mmu_gather``: what one unmapping has taken out of page tables so far."""

    def unmap_vmas(self, vmas: Sequence[int], start: int, end: int) -> None:
        """Unmap what the VMAs, lowest first, have from ``start`` to ``end``."""

    def clear_page_range(self, first: int, last: int) -> None:
        """Free the page tables of a range in which no VMA is left."""

    def tlb_finish_mmu(self, start: int, end: int) -> None:
        """Flush, and free what was gathered."""


class PageOperations(pages.PageOperations, Protocol):
    """The page tables of every address space."""

    def tlb_gather_mmu(self, mm: int, *, full_mm_flush: bool) -> MmuGather:
        """Begin to unmap; ``full_mm_flush``: the whole address space goes."""
