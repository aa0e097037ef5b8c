# SPDX-License-Identifier: GPL-2.0-or-later
"""What programs pass to the system calls of ``mmap`` and its kin.

Models ``include/asm-i386/mman.h`` and ``include/linux/mman.h`` of linux-2.4.22 and 2.6.11.
"""

from typing import Final

PROT_NONE: Final = 0x0
PROT_READ: Final = 0x1
PROT_WRITE: Final = 0x2
PROT_EXEC: Final = 0x4
PROT_SEM: Final = 0x8
PROT_GROWSDOWN: Final = 0x01000000
PROT_GROWSUP: Final = 0x02000000
"""The last three are 2.6's; the last two let a range reach to an end of its VMA."""

MAP_SHARED: Final = 0x01
MAP_PRIVATE: Final = 0x02
MAP_TYPE: Final = 0x0F
MAP_FIXED: Final = 0x10
MAP_ANONYMOUS: Final = 0x20
MAP_GROWSDOWN: Final = 0x0100
MAP_DENYWRITE: Final = 0x0800
MAP_EXECUTABLE: Final = 0x1000
MAP_LOCKED: Final = 0x2000
MAP_NORESERVE: Final = 0x4000
MAP_POPULATE: Final = 0x8000
MAP_NONBLOCK: Final = 0x10000
"""The last two are 2.6's: map the pages now; only those that are in memory already."""

MS_ASYNC: Final = 1
MS_INVALIDATE: Final = 2
MS_SYNC: Final = 4

MCL_CURRENT: Final = 1
MCL_FUTURE: Final = 2

MADV_NORMAL: Final = 0
MADV_RANDOM: Final = 1
MADV_SEQUENTIAL: Final = 2
MADV_WILLNEED: Final = 3
MADV_DONTNEED: Final = 4

MREMAP_MAYMOVE: Final = 1
MREMAP_FIXED: Final = 2
