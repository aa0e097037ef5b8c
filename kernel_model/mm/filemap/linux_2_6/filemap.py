# SPDX-License-Identifier: GPL-2.0-or-later
"""The parts of ``mm/filemap.c`` put together for a machine that runs 2.6."""

from kernel_model.mm.filemap.filemap import Filemap
from kernel_model.mm.filemap.linux_2_6.advice import Advice26
from kernel_model.mm.filemap.linux_2_6.nopage import FileFaults26
from kernel_model.mm.filemap.linux_2_6.read import FileReader26
from kernel_model.mm.filemap.mapped_by import MappedBy, ZapPageRange
from kernel_model.mm.filemap.nopage import FileFaults
from kernel_model.mm.filemap.pages import FilePages, UserPageTables
from kernel_model.mm.filemap.read import FileReader
from kernel_model.mm.filemap.sync import FindVma
from kernel_model.mm.memory.linux_2_6.fremap import FilePages as PageInstaller


class Filemap26(Filemap):
    """All operations on pages of files. ``install`` puts pages at places of the process's own."""

    def __init__(
        self,
        pages: FilePages,
        tables: UserPageTables,
        zap_page_range: ZapPageRange,
        find_vma: FindVma,
        mapped_by: MappedBy,
        install: PageInstaller,
    ) -> None:
        self._install = install
        super().__init__(pages, tables, zap_page_range, find_vma, mapped_by)

    def reader(self, pages: FilePages, mapped_by: MappedBy) -> FileReader:
        return FileReader26(pages, mapped_by)

    def advice(
        self, pages: FilePages, reader: FileReader, zap_page_range: ZapPageRange
    ) -> Advice26:
        return Advice26(pages, reader, zap_page_range)

    def file_faults(self, pages: FilePages, reader: FileReader) -> FileFaults:
        return FileFaults26(pages, reader, self._install)
