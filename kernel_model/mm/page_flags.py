# SPDX-License-Identifier: GPL-2.0-or-later
"""The status bits of a frame, ``page->flags``.

Models linux-2.4.22 ``include/linux/mm.h`` (book 2.5, table 2.1). The zone of a frame stands
in the top byte of the same word. 2.6 gave most bits other numbers; ``PG_LOCKED`` to ``PG_DIRTY``
are the same in both, so code of both may use them from here, the others from ``image.constants``.
"""

import enum
from collections.abc import Mapping
from typing import Final

PG_LOCKED: Final = 0
PG_ERROR: Final = 1
PG_REFERENCED: Final = 2
PG_UPTODATE: Final = 3
PG_DIRTY: Final = 4
PG_UNUSED: Final = 5
PG_LRU: Final = 6
PG_ACTIVE: Final = 7
PG_SLAB: Final = 8
PG_SKIP: Final = 10
PG_HIGHMEM: Final = 11
PG_CHECKED: Final = 12
PG_ARCH_1: Final = 13
PG_RESERVED: Final = 14
PG_LAUNDER: Final = 15
PG_FS_1: Final = 16

ZONE_SHIFT: Final = 24

NAMES: Final[dict[int, str]] = {
    value: name for name, value in list(globals().items()) if name.startswith("PG_")
}
"""Bit number -> name, for messages."""


def flag_names(flags: int, names: Mapping[int, str] = NAMES) -> str:
    """The set bits by name, as ``PG_locked|PG_dirty``; ``-`` when none is set."""
    said = [f"PG_{names[bit][3:].lower()}" for bit in names if flags >> bit & 1]
    return "|".join(said) or "-"


class FlagOperation(enum.Enum):
    """What a macro does to its bit; the last two also tell what it was."""

    TEST = "test"
    SET = "set"
    CLEAR = "clear"
    TEST_AND_SET = "test and set"
    TEST_AND_CLEAR = "test and clear"


_TABLE_2_1: Final[dict[int, tuple[str, str, str]]] = {
    PG_ACTIVE: ("PageActive", "SetPageActive", "ClearPageActive"),
    PG_CHECKED: ("PageChecked", "SetPageChecked", ""),
    PG_DIRTY: ("PageDirty", "SetPageDirty", "ClearPageDirty"),
    PG_ERROR: ("PageError", "SetPageError", "ClearPageError"),
    PG_HIGHMEM: ("PageHighMem", "", ""),
    PG_LAUNDER: ("PageLaunder", "SetPageLaunder", "ClearPageLaunder"),
    PG_LOCKED: ("PageLocked", "LockPage", "UnlockPage"),
    PG_LRU: ("PageLRU", "", ""),
    PG_REFERENCED: ("PageReferenced", "SetPageReferenced", "ClearPageReferenced"),
    PG_RESERVED: ("PageReserved", "SetPageReserved", "ClearPageReserved"),
    PG_SLAB: ("PageSlab", "PageSetSlab", "PageClearSlab"),
    PG_UPTODATE: ("PageUptodate", "SetPageUptodate", "ClearPageUptodate"),
}
"""Bit -> the macros that test, set and clear it, as far as there are any (book table 2.1)."""

MACROS: Final[dict[str, tuple[FlagOperation, int]]] = {
    name: (operation, bit)
    for bit, names in _TABLE_2_1.items()
    for name, operation in zip(
        names, (FlagOperation.TEST, FlagOperation.SET, FlagOperation.CLEAR), strict=True
    )
    if name
} | {
    "TryLockPage": (FlagOperation.TEST_AND_SET, PG_LOCKED),
    "TestSetPageLRU": (FlagOperation.TEST_AND_SET, PG_LRU),
    "TestClearPageLRU": (FlagOperation.TEST_AND_CLEAR, PG_LRU),
    "TestClearPageReferenced": (FlagOperation.TEST_AND_CLEAR, PG_REFERENCED),
}
"""Every macro of ``include/linux/mm.h`` for a bit of ``page->flags``, by its kernel name.

``UnlockPage()`` also wakes who waits; that part is :mod:`kernel_model.mm.page_lock`.
"""
