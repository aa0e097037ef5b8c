# SPDX-License-Identifier: GPL-2.0-or-later
"""What can come of a translation instead of an address, each case with a class of its own.

:class:`PageFault` is the #PF of the manual; :class:`BadTable` is a walk that left RAM, of which
the manual says nothing; :class:`UnsupportedPaging` is a mode no i386 has. A walk *returns* the
first two (a fault is an answer); whoever cannot go on raises them. They survive pickling.

Source: Intel SDM volume 3A, section 4.7 (page-fault exceptions).
"""

from harness.architecture import (
    PF_FETCH,
    PF_PRESENT,
    PF_RESERVED,
    PF_USER,
    PF_WRITE,
    Access,
    Ring,
)
from kernel_model.errors import BadInput, MmucheckError

_ERROR_CODE_NAMES = (
    (PF_PRESENT, "P"),
    (PF_WRITE, "W"),
    (PF_USER, "U"),
    (PF_RESERVED, "RSVD"),
    (PF_FETCH, "I"),
)


def error_code_text(error_code: int) -> str:
    """``7`` becomes ``7 (P|W|U)``; ``0``, a supervisor read of an absent page, stays ``0``."""
    names = "|".join(name for bit, name in _ERROR_CODE_NAMES if error_code & bit)
    return f"{error_code} ({names})" if names else str(error_code)


def entry_text(level: str, paddr: int | None, entry: int) -> str:
    """``PTE 0x00005001 at paddr 0x2000``; CR3 has no address."""
    place = "" if paddr is None else f" at paddr {paddr:#x}"
    return f"{level} {entry:#010x}{place}"


class UnsupportedPaging(BadInput):
    """The control registers select a paging mode that an i386 does not have."""


class TranslationFault(MmucheckError):
    """An access that has no physical address.

    ``level`` (``CR3``, ``PDPTE``, ``PDE`` or ``PTE``), ``paddr`` (bytes; ``None`` for CR3) and
    ``entry`` name what is to blame.
    """

    def __init__(
        self,
        va: int,
        access: Access,
        ring: Ring,
        level: str,
        paddr: int | None,
        entry: int,
        *details: object,
    ) -> None:
        # All arguments go to BaseException, from which pickle rebuilds the exception.
        super().__init__(va, access, ring, level, paddr, entry, *details)
        self.va = va
        self.access = access
        self.ring = ring
        self.level = level
        self.paddr = paddr
        self.entry = entry

    @property
    def culprit(self) -> str:
        """The entry to blame and where it lies."""
        return entry_text(self.level, self.paddr, self.entry)

    @property
    def attempt(self) -> str:
        """``user write``."""
        return f"{self.ring.name.lower()} {self.access.value}"


class PageFault(TranslationFault):
    """The CPU raises #PF with ``error_code``; ``reason`` tells what in the entry forbids."""

    def __init__(
        self,
        va: int,
        access: Access,
        ring: Ring,
        level: str,
        paddr: int | None,
        entry: int,
        error_code: int,
        reason: str,
    ) -> None:
        super().__init__(va, access, ring, level, paddr, entry, error_code, reason)
        self.error_code = error_code
        self.reason = reason

    def __str__(self) -> str:
        code = error_code_text(self.error_code)
        return f"{self.culprit}: {self.reason}, {self.attempt}: error code {code}"


class BadTable(TranslationFault):
    """An entry points to a table outside RAM, so that the walk has nothing to read.

    A CPU reads there what the bus floats at, an emulator zeros; neither is an answer that a
    comparison may lean on. ``level``, ``paddr`` and ``entry`` are those of the entry that
    points there; ``table`` is the physical address of the missing table, in bytes.
    """

    def __init__(
        self,
        va: int,
        access: Access,
        ring: Ring,
        level: str,
        paddr: int | None,
        entry: int,
        table: int,
    ) -> None:
        super().__init__(va, access, ring, level, paddr, entry, table)
        self.table = table

    def __str__(self) -> str:
        return f"{self.culprit}: the table at {self.table:#x} lies outside RAM, {self.attempt}"
