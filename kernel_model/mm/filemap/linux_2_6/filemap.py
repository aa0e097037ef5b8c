# SPDX-License-Identifier: GPL-2.0-or-later
"""The parts of ``mm/filemap.c`` put together for a machine that runs 2.6."""

from collections.abc import Callable
from typing import ClassVar, cast

from kernel_model.mm.filemap.filemap import Filemap
from kernel_model.mm.filemap.linux_2_6.advice import Advice26
from kernel_model.mm.filemap.linux_2_6.nopage import FileFaults26
from kernel_model.mm.filemap.linux_2_6.read import FileReader26
from kernel_model.mm.filemap.linux_2_6.sync import MemorySync26
from kernel_model.mm.filemap.linux_2_6.truncate import Truncation26
from kernel_model.mm.filemap.linux_2_6.write import FileWriter26
from kernel_model.mm.filemap.mapped_by import MappedBy, ZapPageRange
from kernel_model.mm.filemap.nopage import FileFaults
from kernel_model.mm.filemap.pages import FilePages, UserPageTables
from kernel_model.mm.filemap.read import FileReader
from kernel_model.mm.filemap.sync import FindVma
from kernel_model.mm.memory.linux_2_6.fremap import FilePages as PageInstaller


class Filemap26(Filemap):
    """All operations on pages of files. ``install`` puts pages at places of the process's own;
    ``mapped`` is ``page_mapped()``."""

    sync_class: ClassVar[type[MemorySync26]] = MemorySync26
    writer_class: ClassVar[type[FileWriter26]] = FileWriter26

    def __init__(
        self,
        pages: FilePages,
        tables: UserPageTables,
        zap_page_range: ZapPageRange,
        find_vma: FindVma,
        mapped_by: MappedBy,
        install: PageInstaller,
        mapped: Callable[[int], bool],
    ) -> None:
        self._install = install
        self._mapped = mapped
        super().__init__(pages, tables, zap_page_range, find_vma, mapped_by)

    def truncation(self, pages: FilePages, mapped_by: MappedBy) -> Truncation26:
        return Truncation26(pages, mapped_by, self._mapped)

    def reader(self, pages: FilePages, mapped_by: MappedBy) -> FileReader26:
        return FileReader26(pages, mapped_by)

    def advice(
        self, pages: FilePages, reader: FileReader, zap_page_range: ZapPageRange
    ) -> Advice26:
        return Advice26(pages, cast(FileReader26, reader), zap_page_range)  # what reader() made

    def file_faults(self, pages: FilePages, reader: FileReader) -> FileFaults:
        return FileFaults26(pages, cast(FileReader26, reader), self._install)
