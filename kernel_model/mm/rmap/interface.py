# SPDX-License-Identifier: GPL-2.0-or-later
"""What the rest of memory management asks of a reverse map.

Models ``include/linux/rmap.h`` of linux-2.6.11 (book 3.10). Whoever changes a PTE tells a
:class:`ReverseMap`; whoever wants a frame back asks a :class:`ReverseWalk`. A page is a
``struct page *``, a ``vma`` and an ``mm`` are kernel virtual addresses, a ``ptep`` is a pointer to
a PTE as :class:`~kernel_model.mm.memory.tables.UserTables` gives them.
"""

import enum
from collections.abc import Iterator
from typing import Protocol


class SwapResult(enum.IntEnum):
    """What ``try_to_unmap()`` returns (``SWAP_SUCCESS``, ...)."""

    SUCCESS = 0
    """Nobody maps the frame any more."""
    AGAIN = 1
    """Somebody still does, and may not be found; later perhaps."""
    FAIL = 2
    """It is in use, or locked into memory."""


class ReverseMap(Protocol):
    """The books that are kept of who maps a frame.

    The count in ``mm->anon_rss`` goes with them.
    """

    def prepare(self, vma: int) -> bool:
        """Before ``vma`` gets its first anonymous page. False: no memory."""

    def reserve(self) -> bool:
        """Before any PTE is added: take the memory that this may need. False: there is none."""

    def ready(self) -> bool:
        """:meth:`reserve` for who cannot wait for memory."""

    def add_anon(self, page: int, vma: int, vaddr: int, ptep: int) -> None:
        """An anonymous frame is mapped at ``vaddr`` now (``page_add_anon_rmap()``)."""

    def add_file(self, page: int, ptep: int) -> None:
        """A file's frame, or a reserved one, is mapped now (``page_add_file_rmap()``)."""

    def duplicate(self, mm: int, page: int, ptep: int) -> None:
        """A child's ``mm`` maps at ``ptep`` what its parent maps (``page_dup_rmap()``)."""

    def remove(self, mm: int, page: int, ptep: int) -> None:
        """The PTE is gone (``page_remove_rmap()``)."""

    def moved(self, page: int, source: int, to: int) -> None:
        """The PTE of a frame stands at ``to`` now, not at ``source``."""

    def table_made(self, mm: int, vaddr: int, paddr: int) -> None:
        """A page table was made, in which the PTE of ``vaddr`` is at a physical address."""

    def table_freed(self, table: int) -> None:
        """The page table at this physical address maps nothing, and is about to be freed."""


class ReverseWalk(Protocol):
    """Who maps a frame, as reclaim wants to know it."""

    def mapcount(self, page: int) -> int:
        """``page_mapcount()``: how many PTEs name the frame, by the books."""

    def mapped(self, page: int) -> bool:
        """``page_mapped()``: whether any does."""

    def page_referenced(self, page: int, is_locked: bool) -> int:
        """How many signs of use there are since the last look; they are taken away."""

    def try_to_unmap(self, page: int) -> SwapResult:
        """Take a locked frame away from everybody who maps it."""

    def named(self, page: int) -> Iterator[int]:
        """Where the PTEs are that the map says may name the frame, as physical addresses.

        An object-based map only knows where a PTE would be; whether it names the frame must be
        looked up there.
        """


class AnonVmas(Protocol):
    """The VMAs that may map a process's own pages (:mod:`kernel_model.mm.rmap.anon_vma`)."""

    def anon_vma_prepare(self, vma: int) -> int:
        """Give ``vma`` its ``anon_vma``. 0, or ``-ENOMEM``."""

    def vmas(self, anon_vma: int) -> Iterator[int]:
        """The VMAs on its list, first to last."""


class FileVmas(Protocol):
    """The VMAs of a file (:class:`kernel_model.mm.prio_tree.VmaPrioTree`)."""

    def overlapping(self, root: int, first: int, last: int) -> Iterator[int]:
        """Those in the tree at ``root`` that map a page of ``first`` to ``last``."""
