# SPDX-License-Identifier: GPL-2.0-or-later
"""The parts of ``mm/filemap.c`` put together for one machine.

Models linux-2.4.22 ``mm/filemap.c``; what each function does, and what can fail, stands with
the part that has it. What this room asks of others: VMAs by address, page tables to look for
dirty entries, and ``zap_page_range()``.
"""

from typing import ClassVar

from kernel_model.fs.inode import Eviction
from kernel_model.mm.filemap.advice import Advice
from kernel_model.mm.filemap.mapped_by import MappedBy, ZapPageRange
from kernel_model.mm.filemap.nopage import FileFaults
from kernel_model.mm.filemap.pages import FilePages, UserPageTables
from kernel_model.mm.filemap.read import FileReader
from kernel_model.mm.filemap.sync import FindVma, MemorySync, WriteBack
from kernel_model.mm.filemap.truncate import Truncation
from kernel_model.mm.filemap.write import FileWriter


class Filemap:
    """All operations on pages of files."""

    sync_class: ClassVar[type[MemorySync]] = MemorySync
    writer_class: ClassVar[type[FileWriter]] = FileWriter

    def __init__(
        self,
        pages: FilePages,
        tables: UserPageTables,
        zap_page_range: ZapPageRange,
        find_vma: FindVma,
        mapped_by: MappedBy,
    ) -> None:
        reader, write_back = self.reader(pages, mapped_by), WriteBack(pages)
        truncation = self.truncation(pages, mapped_by)
        faults = self.file_faults(pages, reader)
        sync = self.sync_class(pages, write_back, tables, find_vma)
        advice = self.advice(pages, reader, zap_page_range)
        writer = self.writer_class(pages, write_back, truncation)
        self.pages = pages
        self.evict = Eviction(pages, write_back, truncation)
        self.page_cache_read = reader.page_cache_read
        self.generic_file_read = reader.generic_file_read
        self.read = reader.read
        self.generic_file_write = writer.generic_file_write
        self.write = writer.write
        self.filemap_nopage = faults.filemap_nopage
        self.generic_file_mmap = faults.generic_file_mmap
        self.filemap_fdatasync = write_back.filemap_fdatasync
        self.filemap_fdatawait = write_back.filemap_fdatawait
        self.sys_fsync = write_back.sys_fsync
        self.filemap_sync = sync.filemap_sync
        self.msync_interval = sync.msync_interval
        self.sys_msync = sync.sys_msync
        self.truncate_inode_pages = truncation.truncate_inode_pages
        self.invalidate_inode_pages = truncation.invalidate_inode_pages
        self.vmtruncate = truncation.vmtruncate
        self.madvise_willneed = advice.madvise_willneed
        self.madvise_dontneed = advice.madvise_dontneed
        self.mincore_vma = advice.mincore_vma

    # -- what a release may make of its own ----------------------------------------------------

    def truncation(self, pages: FilePages, mapped_by: MappedBy) -> Truncation:
        """Who cuts them off."""
        return Truncation(pages, mapped_by)

    def reader(self, pages: FilePages, mapped_by: MappedBy) -> FileReader:
        """Who reads files."""
        return FileReader(pages, mapped_by)

    def advice(self, pages: FilePages, reader: FileReader, zap_page_range: ZapPageRange) -> Advice:
        """Who takes advice about them."""
        return Advice(pages, reader, zap_page_range)

    def file_faults(self, pages: FilePages, reader: FileReader) -> FileFaults:
        """Who answers faults on them."""
        return FileFaults(pages, reader)
