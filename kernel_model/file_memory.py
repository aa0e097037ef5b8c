# SPDX-License-Identifier: GPL-2.0-or-later
"""The file side of user memory, put together for one machine.

Models which parts of linux-2.4.22 know which: ``mm/filemap.c``, ``mm/shmem.c``, and a file
system below the page cache. What this room asks of others comes in as callables, so that it
works with whatever provides page tables and VMAs. Nothing here can fail.
"""

from kernel_model.arch_i386.tlb import Tlb
from kernel_model.fs.file_table import Files
from kernel_model.fs.hostfs import HostFs
from kernel_model.image import KernelImage
from kernel_model.mm.filemap import Filemap, FilePages, UserPageTables
from kernel_model.mm.filemap.sync import FindVma
from kernel_model.mm.filemap.truncate import ZapPageRange
from kernel_model.mm.page_alloc import PageAllocator
from kernel_model.mm.page_lock import PageLocks
from kernel_model.mm.shmem import Shmem
from kernel_model.mm.swap_state import SwapCache


class FileMemory:
    """Files, their pages, and shared anonymous memory.

    ``tables``, ``zap_page_range`` and ``find_vma`` are those of the user address spaces.
    """

    def __init__(
        self,
        image: KernelImage,
        allocator: PageAllocator,
        locks: PageLocks,
        swap: SwapCache,
        files: Files,
        tlb: Tlb,
        tables: UserPageTables,
        zap_page_range: ZapPageRange,
        find_vma: FindVma,
    ) -> None:
        self.files = files
        self.pages = FilePages(image, allocator, swap.cache, locks, files, tlb)
        self.filemap = Filemap(self.pages, tables, zap_page_range, find_vma)
        self.hostfs = HostFs(self.pages, self.filemap)
        self.shmem = Shmem(self.pages, self.filemap, swap)
