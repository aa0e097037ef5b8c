# SPDX-License-Identifier: GPL-2.0-or-later
"""The frame ledger: who owns each frame, and what each user page was meant to hold.

Linux 2.4 has no reverse map: which frame a user page holds stands nowhere but in its PTE,
which is what gets checked. So the model's algorithms announce what they decide
(:mod:`kernel_model.events`), and :class:`FrameLedger` writes it down, outside RAM.

What can fail is what the ledger is for, a :class:`LedgerError` that names the frame: two
owners (:class:`FrameHasOwner`), none (:class:`FrameHasNoOwner`), a frame given back while a
page still means it (:class:`FrameStillMapped`); or a page that ends and never began
(:class:`PageNotMapped`).
"""

from collections import defaultdict
from typing import Final

import numpy as np
import numpy.typing as npt

from harness.mappings import I64, PAGE_SHIFT, RIGHT_NX, RIGHT_PRESENT, RIGHT_USER, RIGHT_WRITE, U16
from kernel_model.errors import MmucheckError
from kernel_model.events import Announcer, Rights
from kernel_model.image import SWAPPER_PG_DIR

__all__ = [
    "FrameHasNoOwner",
    "FrameHasOwner",
    "FrameLedger",
    "FrameStillMapped",
    "LedgerError",
    "PageNotMapped",
    "rights_bits",
]

_PAGE_MASK: Final = (1 << PAGE_SHIFT) - 1


class LedgerError(MmucheckError):
    """The announcements contradict each other: the model's bookkeeping of frames is wrong."""


class FrameHasOwner(LedgerError):
    """Frame ``pfn`` was taken for ``second`` while ``first`` still has it."""

    def __init__(self, pfn: int, first: str, second: str) -> None:
        super().__init__(f"frame {pfn:#x} was taken for {second!r}, but {first!r} still has it")
        self.pfn = pfn
        self.first = first
        self.second = second


class FrameHasNoOwner(LedgerError):
    """Frame ``pfn`` was given back, and nobody had taken it."""

    def __init__(self, pfn: int) -> None:
        super().__init__(f"frame {pfn:#x} was given back, but nobody had it")
        self.pfn = pfn


class FrameStillMapped(LedgerError):
    """Frame ``pfn`` was given back while page ``vaddr`` of ``mm`` still means it."""

    def __init__(self, pfn: int, owner: str, mm: int, vaddr: int) -> None:
        super().__init__(
            f"frame {pfn:#x} ({owner!r}) was given back, but {vaddr:#010x} of the address space "
            f"{mm:#x} still means it"
        )
        self.pfn = pfn
        self.owner = owner
        self.mm = mm
        self.vaddr = vaddr


class PageNotMapped(LedgerError):
    """Page ``vaddr`` of ``mm`` was announced as unmapped, and meant nothing before."""

    def __init__(self, mm: int, vaddr: int) -> None:
        super().__init__(f"{vaddr:#010x} of the address space {mm:#x} was unmapped, but not mapped")
        self.mm = mm
        self.vaddr = vaddr


def rights_bits(rights: Rights) -> int:
    """``rights`` in the encoding of the dense pages: ``RIGHT_PRESENT`` and what else holds.

    0: every access faults.
    """
    if not rights.access:
        return 0
    return (
        RIGHT_PRESENT
        | (RIGHT_WRITE if rights.write else 0)
        | (RIGHT_USER if rights.user else 0)
        | (0 if rights.execute else RIGHT_NX)
    )


class FrameLedger:
    """A :class:`~kernel_model.events.MemoryListener` that keeps book.

    An address space ``mm`` is named by the physical address of its page directory. A page may
    be announced again with another frame or other rights, as a copy on write does.
    """

    def __init__(self) -> None:
        self._owners: dict[int, str] = {}
        self._spaces: defaultdict[int, dict[int, tuple[int, int]]] = defaultdict(dict)
        self._meant_by: defaultdict[int, set[tuple[int, int]]] = defaultdict(set)
        self._changed: defaultdict[int, set[int]] = defaultdict(set)
        self._kernel_tables: dict[int, range] = {}
        self._shared: defaultdict[int, set[int]] = defaultdict(set)
        self._sharing: defaultdict[int, set[int]] = defaultdict(set)
        """The directories of each frame: with PAE it has room for many."""

    def listen(self, events: Announcer) -> "FrameLedger":
        """Join the listeners of ``events``; returns the ledger."""
        events.listeners.append(self)
        return self

    @staticmethod
    def of(events: Announcer) -> "FrameLedger | None":
        """The ledger that listens to ``events``, if there is one."""
        return next((x for x in events.listeners if isinstance(x, FrameLedger)), None)

    # -- frames ----------------------------------------------------------------------------

    def frame_taken(self, pfn: int, order: int, purpose: str) -> None:
        """``2**order`` frames from ``pfn`` belong to ``purpose`` now.

        :raises FrameHasOwner: if one of them has an owner; then nothing is changed.
        """
        owners, block = self._owners, range(pfn, pfn + (1 << order))
        for frame in block:
            if frame in owners:
                raise FrameHasOwner(frame, owners[frame], purpose)
        for frame in block:
            owners[frame] = purpose

    def frame_given_back(self, pfn: int, order: int) -> None:
        """``2**order`` frames from ``pfn`` are free. A block may come back in pieces.

        :raises FrameHasNoOwner: if one of them had no owner; then nothing is changed.
        :raises FrameStillMapped: if a page still means one of them; likewise.
        """
        block = range(pfn, pfn + (1 << order))
        for frame in block:
            if frame not in self._owners:
                raise FrameHasNoOwner(frame)
            if frame in self._meant_by:
                mm, page = min(self._meant_by[frame])
                raise FrameStillMapped(frame, self._owners[frame], mm, page << PAGE_SHIFT)
        for frame in block:
            del self._owners[frame]
            for mm in self._sharing.pop(frame, ()):
                del self._shared[mm]

    def owned_frames(self) -> list[int]:
        """Every frame that somebody has."""
        return list(self._owners)

    def owner(self, pfn: int) -> str | None:
        """What frame ``pfn`` was taken for; ``None``: nobody announced to have it."""
        return self._owners.get(pfn)

    # -- pages -----------------------------------------------------------------------------

    def page_mapped(self, mm: int, vaddr: int, pfn: int, rights: Rights) -> None:
        """The page at ``vaddr`` of ``mm`` means frame ``pfn`` now."""
        self._mean(mm, vaddr >> PAGE_SHIFT, (pfn, rights_bits(rights)))

    def _mean(self, mm: int, page: int, meaning: tuple[int, int]) -> None:
        space, pfn = self._spaces[mm], meaning[0]
        if page in space and space[page][0] != pfn:
            self._forget(mm, page)
        space[page] = meaning
        self._meant_by[pfn].add((mm, page))
        self._changed[mm].add(page)

    def page_unmapped(self, mm: int, vaddr: int) -> None:
        """The page at ``vaddr`` of ``mm`` means nothing any more.

        :raises PageNotMapped: if it did not mean anything.
        """
        page = vaddr >> PAGE_SHIFT
        if mm not in self._spaces or page not in self._spaces[mm]:
            raise PageNotMapped(mm, vaddr & ~_PAGE_MASK)
        self._forget(mm, page)
        if not self._spaces[mm]:
            del self._spaces[mm]
        self._changed[mm].add(page)

    def page_moved(self, mm: int, old: int, new: int) -> None:
        """What the page at ``old`` of ``mm`` meant, the page at ``new`` means now.

        :raises PageNotMapped: if it did not mean anything.
        """
        page = old >> PAGE_SHIFT
        if mm not in self._spaces or page not in self._spaces[mm]:
            raise PageNotMapped(mm, old & ~_PAGE_MASK)
        meaning = self._spaces[mm][page]
        self.page_unmapped(mm, old)
        self._mean(mm, new >> PAGE_SHIFT, meaning)

    def page_abandoned(self, mm: int, vaddr: int) -> None:
        """The page at ``vaddr`` of ``mm`` stays as it is, but keeps its frame no longer.

        :raises PageNotMapped: if it did not mean anything.
        """
        page = vaddr >> PAGE_SHIFT
        if mm not in self._spaces or page not in self._spaces[mm]:
            raise PageNotMapped(mm, vaddr & ~_PAGE_MASK)
        self._release(mm, page, self._spaces[mm][page][0])

    def _forget(self, mm: int, page: int) -> None:
        pfn, _ = self._spaces[mm].pop(page)
        self._release(mm, page, pfn)

    def _release(self, mm: int, page: int, pfn: int) -> None:
        pages = self._meant_by[pfn]
        pages.discard((mm, page))
        if not pages:
            del self._meant_by[pfn]

    def pages(self, mm: int) -> tuple[I64, I64, U16]:
        """What was announced of ``mm``: page numbers (sorted), PFNs, rights (``RIGHT_*``)."""
        space = self._spaces.get(mm, {})
        numbers = np.fromiter(space, np.int64, len(space))
        values = np.array(list(space.values()), np.int64).reshape(-1, 2)
        order = np.argsort(numbers)
        return numbers[order], values[order, 0], values[order, 1].astype(np.uint16)

    def meaning(self, mm: int, page: int) -> tuple[int, int]:
        """PFN and rights (``RIGHT_*``) of a page; (-1, 0) when it means nothing."""
        return self._spaces[mm].get(page, (-1, 0)) if mm in self._spaces else (-1, 0)

    def take_changed(self, mm: int) -> npt.NDArray[np.int64]:
        """Page numbers of ``mm`` announced since the last such question, sorted."""
        return np.array(sorted(self._changed.pop(mm, ())), np.int64)

    # -- tables of the kernel's part ---------------------------------------------------------

    def kernel_table_made(self, vaddr: int, size: int) -> None:
        """The directory of ``init_mm``, and no other, has an entry for these addresses now."""
        first = vaddr >> PAGE_SHIFT
        self._kernel_tables[first] = range(first, first + (size >> PAGE_SHIFT))

    def kernel_tables_shared(self, mm: int, vaddr: int, size: int) -> None:
        """The directory ``mm`` has got the entries of ``init_mm`` for these addresses."""
        first, end = vaddr >> PAGE_SHIFT, vaddr + size >> PAGE_SHIFT
        self._sharing[mm >> PAGE_SHIFT].add(mm)
        self._shared[mm].update(start for start in self._kernel_tables if first <= start < end)

    def awaited_tables(self, mm: int) -> list[range]:
        """Page numbers below each entry that ``init_mm`` has and ``mm`` has not got so far."""
        shared = self._shared.get(mm, set())
        if mm == SWAPPER_PG_DIR:
            return []
        return [pages for start, pages in self._kernel_tables.items() if start not in shared]
