# SPDX-License-Identifier: GPL-2.0-or-later
"""``msync()`` of 2.6: with ``MS_ASYNC`` it only says that pages are dirty.

Models linux-2.6.11 ``mm/msync.c``: ``msync_interval()``, ``sys_msync()``. Writing begins later,
when somebody calls ``fsync()`` or ``pdflush`` comes round. What can fail besides what fails in 2.4:
a range that goes past the end of all addresses has pages that nobody maps, ``-ENOMEM``.
"""

from typing import ClassVar

from kernel_model.errno import ENOMEM
from kernel_model.mm.filemap.sync import MemorySync


class MemorySync26(MemorySync):
    """``msync()`` of one machine."""

    wrapped: ClassVar[int] = -ENOMEM

    def _start_writing(self, mapping: int) -> int:
        return 0
