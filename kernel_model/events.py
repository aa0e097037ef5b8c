# SPDX-License-Identifier: GPL-2.0-or-later
"""What the model's algorithms announce, at the place where they decide.

A frame is taken for a purpose, or given back; an address of an address space now means a
frame, or nothing any more; a page directory has the kernel's tables, or waits for its fault. The
frame ledger of the harness listens: Linux 2.4 keeps no
reverse map, so nothing but these events says what a user page was *meant* to hold. Page-table
code announces nothing, for it is what gets checked.
"""

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Rights:
    """What an address may be used for, as the kernel means it."""

    write: bool
    user: bool
    execute: bool = True
    access: bool = True
    """False: the page has its frame, but every access faults (``PROT_NONE``)."""


class MemoryListener(Protocol):
    """Whoever keeps book. ``mm`` is the physical address of the page directory."""

    def frame_taken(self, pfn: int, order: int, purpose: str) -> None:
        """``2**order`` frames from ``pfn`` were taken for ``purpose``."""

    def frame_given_back(self, pfn: int, order: int) -> None:
        """``2**order`` frames from ``pfn`` are free again."""

    def page_mapped(self, mm: int, vaddr: int, pfn: int, rights: Rights) -> None:
        """The page at ``vaddr`` now means frame ``pfn``."""

    def page_unmapped(self, mm: int, vaddr: int) -> None:
        """The page at ``vaddr`` means nothing any more."""

    def page_moved(self, mm: int, old: int, new: int) -> None:
        """What the page at ``old`` meant, the page at ``new`` means now."""

    def page_abandoned(self, mm: int, vaddr: int) -> None:
        """Nobody uses the page at ``vaddr`` any more, but it stays mapped until it is mapped
        anew: its frame may be given back before."""

    def kernel_table_made(self, vaddr: int, size: int) -> None:
        """The ``size`` bytes at ``vaddr`` have an entry in the directory of ``init_mm`` now, and
        in that one alone."""

    def kernel_tables_shared(self, mm: int, vaddr: int, size: int) -> None:
        """For the ``size`` bytes at ``vaddr``, ``mm`` has the entries of ``init_mm`` now."""


class Announcer:
    """Passes each event on to every listener, in the order in which they joined."""

    def __init__(self) -> None:
        self.listeners: list[MemoryListener] = []

    def frame_taken(self, pfn: int, order: int, purpose: str) -> None:
        for listener in self.listeners:
            listener.frame_taken(pfn, order, purpose)

    def frame_given_back(self, pfn: int, order: int) -> None:
        for listener in self.listeners:
            listener.frame_given_back(pfn, order)

    def page_mapped(self, mm: int, vaddr: int, pfn: int, rights: Rights) -> None:
        for listener in self.listeners:
            listener.page_mapped(mm, vaddr, pfn, rights)

    def page_unmapped(self, mm: int, vaddr: int) -> None:
        for listener in self.listeners:
            listener.page_unmapped(mm, vaddr)

    def page_moved(self, mm: int, old: int, new: int) -> None:
        for listener in self.listeners:
            listener.page_moved(mm, old, new)

    def page_abandoned(self, mm: int, vaddr: int) -> None:
        for listener in self.listeners:
            listener.page_abandoned(mm, vaddr)

    def kernel_table_made(self, vaddr: int, size: int) -> None:
        for listener in self.listeners:
            listener.kernel_table_made(vaddr, size)

    def kernel_tables_shared(self, mm: int, vaddr: int, size: int) -> None:
        for listener in self.listeners:
            listener.kernel_tables_shared(mm, vaddr, size)
