# SPDX-License-Identifier: GPL-2.0-or-later
"""What 2.6 does with pages that a process will need, or says it needs no more.

Models linux-2.6.11 ``mm/madvise.c``: ``madvise_willneed()``, ``madvise_dontneed()`` (book 4.8), and
``mm/readahead.c: force_page_cache_readahead()``. The pages that are
asked for are read, no clusters; that they cannot be is nobody's loss, so only a VMA without a file
fails, ``-EBADF``. Where ``remap_file_pages()`` was, the PTEs keep which page of the file belongs
there.
"""

from kernel_model.errno import EBADF
from kernel_model.mm.filemap.advice import Advice
from kernel_model.mm.filemap.linux_2_6.mapped_by import LAST_INDEX, ZapSomePages
from kernel_model.mm.filemap.linux_2_6.read import FileReader26
from kernel_model.mm.filemap.pages import FilePages
from kernel_model.mm.memory.linux_2_6.gather import ZapDetails
from kernel_model.structs.linux_2_6.mm import VM_NONLINEAR


class Advice26(Advice):
    """``madvise()`` and ``mincore()`` of one 2.6 machine."""

    def __init__(
        self, pages: FilePages, reader: FileReader26, zap_page_range: ZapSomePages
    ) -> None:
        super().__init__(pages, reader, zap_page_range)
        self._ahead = reader
        self._zap_some_pages = zap_page_range

    def madvise_willneed(self, vma: int, start: int, end: int) -> int:
        """Read the pages in now, as far as there is memory for them."""
        view = self._pages.image.at(self._structs.vm_area_struct, vma)
        if not view.vm_file:
            return -EBADF
        file = int(view.vm_file)
        first, last = self._index(view, start), self._index(view, min(end, view.vm_end))
        count = self._ahead.max_sane_readahead(last - first)
        self._ahead.do_page_cache_readahead(file, first, count)
        return 0

    def _unmap(self, vma: int, start: int, end: int) -> None:
        view = self._pages.image.at(self._structs.vm_area_struct, vma)
        if view.vm_flags & VM_NONLINEAR:
            details = ZapDetails(0, LAST_INDEX, nonlinear_vma=vma)
            self._zap_some_pages(int(view.vm_mm), start, end - start, details)
        else:
            super()._unmap(vma, start, end)
