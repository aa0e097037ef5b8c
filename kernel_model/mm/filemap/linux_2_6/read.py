# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading files in 2.6: a page is used once, however many reads in a row it takes.

Models linux-2.6.11 ``mm/filemap.c: do_generic_mapping_read()``, and of ``mm/readahead.c``
``__do_page_cache_readahead()`` and ``max_sane_readahead()``. ``struct file_ra_state`` stands in
``file->f_ra``; its ``prev_page`` is the page that was read last. Not modelled: reading ahead of
``read()``, and so its windows. Nothing can fail that cannot in 2.4; a page that cannot be read
ahead is left.
"""

from typing import Any

from kernel_model.errno import ENOMEM
from kernel_model.mm.filemap.read import FileReader
from kernel_model.mm.linux_2_6.numa import node_zones
from kernel_model.structs.linux_2_6.fs import NO_PAGE, RA_PREV_PAGE


class FileReader26(FileReader):
    """``read()`` of one machine's files."""

    def _previous(self, view: Any) -> int:
        return int(view.f_ra[RA_PREV_PAGE])

    def _counts_as_use(self, view: Any, index: int, offset: int, previous: int) -> bool:
        return index != previous

    def _note_read(self, view: Any, last: int) -> None:
        view.f_ra[RA_PREV_PAGE] = last & NO_PAGE

    def max_sane_readahead(self, wanted: int) -> int:
        """So many pages, or half of what the node could give."""
        zones = [zone.view for zone in node_zones(self._pages.image)]
        could = sum(int(zone.nr_inactive) + int(zone.free_pages) for zone in zones)
        return min(wanted, could // 2)

    def do_page_cache_readahead(self, file: int, first: int, count: int) -> None:
        """Have pages of a file cached, to its end and as long as there is memory."""
        size = self._pages.pages_of(self._pages.mapping_of(file))
        for at in range(first, min(first + count, size)):
            if self.page_cache_read(file, at) == -ENOMEM:
                break
