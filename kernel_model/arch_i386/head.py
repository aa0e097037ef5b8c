# SPDX-License-Identifier: GPL-2.0-or-later
"""The provisional page tables with which the kernel turns paging on.

Models linux-2.4.22 and linux-2.6.11 ``arch/i386/kernel/head.S: startup_32`` (book 3.6.1). In RAM:
``pg0`` and ``pg1`` map the first 8 MiB; they lie in the image of 2.4, and behind that of 2.6, which
makes as many as it needs. ``swapper_pg_dir`` has them twice, at 0 and at PAGE_OFFSET, so
that the instruction after the one that sets CR0.PG can still be fetched. They have two levels
even in a PAE kernel, which switches later, in ``paging_init()``.
"""

from typing import Final

import numpy as np

from kernel_model.arch_i386.page import PAGE_OFFSET, PAGE_SHIFT
from kernel_model.image import PG0, PG1, SWAPPER_PG_DIR
from kernel_model.ram import PAGE_SIZE, Ram

BOOT_ENTRY_FLAGS: Final = 0x007
"""Present, writable, user: nothing is protected yet."""


def startup_32(ram: Ram, boot_tables: tuple[int, int] = (PG0, PG1)) -> None:
    """Write ``pg0``, ``pg1`` and the four entries of ``swapper_pg_dir``."""
    for number, table in enumerate(boot_tables):
        frames = np.arange(number * 1024, (number + 1) * 1024, dtype=np.uint32)
        ram.table(table)[:] = (frames << PAGE_SHIFT) | BOOT_ENTRY_FLAGS
    ram.fill(SWAPPER_PG_DIR, PAGE_SIZE)
    directory = ram.table(SWAPPER_PG_DIR)
    for first in (0, PAGE_OFFSET >> 22):
        for number, table in enumerate(boot_tables):
            directory[first + number] = table | BOOT_ENTRY_FLAGS
