# SPDX-License-Identifier: GPL-2.0-or-later
"""Files without a disk: shared anonymous memory, in the page cache and in swap.

Models linux-2.4.22 ``mm/shmem.c`` (book 4.4.1, 4.6): pages and where they are
(:mod:`~kernel_model.mm.shmem.shmem`), the swap entries of those that are out
(:mod:`~kernel_model.mm.shmem.entries`), and the files themselves
(:mod:`~kernel_model.mm.shmem.file`).
"""

from kernel_model.mm.shmem.file import ShmemFiles
from kernel_model.mm.shmem.shmem import Sgp, Shmem

__all__ = ["Sgp", "Shmem", "ShmemFiles"]
