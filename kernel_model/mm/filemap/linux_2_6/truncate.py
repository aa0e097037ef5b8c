# SPDX-License-Identifier: GPL-2.0-or-later
"""Cutting files off in 2.6: what counts is who maps a page, not who else has it.

Models linux-2.6.11 ``mm/truncate.c``: ``truncate_complete_page()``, ``invalidate_mapping_pages()``.
A page that leaves its file stays on its LRU list, until its last user frees it. Nothing can fail
that cannot in 2.4.
"""

from collections.abc import Callable

from kernel_model.mm.filemap.mapped_by import MappedBy
from kernel_model.mm.filemap.pages import FilePages
from kernel_model.mm.filemap.truncate import Truncation


class Truncation26(Truncation):
    """``truncate()`` of one machine's files. ``mapped`` is ``page_mapped()``."""

    def __init__(
        self, pages: FilePages, mapped_by: MappedBy, mapped: Callable[[int], bool]
    ) -> None:
        super().__init__(pages, mapped_by)
        self._mapped = mapped

    def _off_lru(self, page: int) -> None:
        """Its last user takes it off."""

    def _invalidates(self, page: int) -> bool:
        return not self._mapped(page)
