# SPDX-License-Identifier: GPL-2.0-or-later
"""What the VMA layer of 2.4 asks of the page tables besides: page tables go by entries of the
directory, and each VMA is flushed as it goes (``mm/memory.c`` of linux-2.4.22)."""

from typing import Protocol

from kernel_model.mm.mmap import pages


class PageOperations(pages.PageOperations, Protocol):
    """The page tables of every address space."""

    def clear_page_tables(self, mm: int, first: int, count: int) -> None:
        """Free what hangs below ``count`` entries of the page directory from ``first`` on."""
