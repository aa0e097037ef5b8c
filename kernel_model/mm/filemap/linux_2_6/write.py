# SPDX-License-Identifier: GPL-2.0-or-later
"""Writing files in 2.6: each part that is written is a use of its page.

Models linux-2.6.11 ``mm/filemap.c: generic_file_buffered_write()``. Nothing can fail that cannot in
2.4.
"""

from kernel_model.mm.filemap.write import FileWriter


class FileWriter26(FileWriter):
    """``write()`` of one machine's files."""

    def _used(self, page: int) -> None:
        self._pages.allocator.lru.mark_page_accessed(page)
