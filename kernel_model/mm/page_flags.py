# SPDX-License-Identifier: GPL-2.0-or-later
"""The status bits of a frame, ``page->flags``.

Models linux-2.4.22 ``include/linux/mm.h`` (book 2.5, table 2.1). The zone of a frame stands
in the top byte of the same word.
"""

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


def flag_names(flags: int) -> str:
    """The set bits by name, as ``PG_locked|PG_dirty``; ``-`` when none is set."""
    names = [f"PG_{NAMES[bit][3:].lower()}" for bit in NAMES if flags >> bit & 1]
    return "|".join(names) or "-"
