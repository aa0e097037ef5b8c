# SPDX-License-Identifier: GPL-2.0-or-later
"""The file side of user memory, put together for one machine.

Models which parts of Linux know which: ``mm/filemap.c``, ``mm/shmem.c``, and a file system below
the page cache. Nothing here can fail.
"""

from kernel_model.fs.hostfs import HostFs
from kernel_model.mm.filemap import Filemap, FilePages
from kernel_model.mm.shmem import Shmem
from kernel_model.mm.swap_state import SwapCache


class FileMemory:
    """Files, their pages, and shared anonymous memory."""

    def __init__(self, pages: FilePages, filemap: Filemap, swap: SwapCache) -> None:
        self.files = pages.files
        self.pages = pages
        self.filemap = filemap
        self.hostfs = HostFs(pages, filemap)
        self.shmem = Shmem(pages, filemap, swap)
