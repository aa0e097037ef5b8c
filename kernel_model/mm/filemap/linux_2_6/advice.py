# SPDX-License-Identifier: GPL-2.0-or-later
"""What 2.6 does with pages that a process says it needs no more.

Models linux-2.6.11 ``mm/madvise.c: madvise_dontneed()`` (book 4.8). Where ``remap_file_pages()``
was, the PTEs keep which page of the file belongs there. Nothing can fail that cannot in 2.4.
"""

from kernel_model.mm.filemap.advice import Advice
from kernel_model.mm.filemap.linux_2_6.mapped_by import LAST_INDEX, ZapSomePages
from kernel_model.mm.filemap.pages import FilePages
from kernel_model.mm.filemap.read import FileReader
from kernel_model.mm.memory.linux_2_6.gather import ZapDetails
from kernel_model.structs.linux_2_6.mm import VM_NONLINEAR


class Advice26(Advice):
    """``madvise()`` and ``mincore()`` of one 2.6 machine."""

    def __init__(self, pages: FilePages, reader: FileReader, zap_page_range: ZapSomePages) -> None:
        super().__init__(pages, reader, zap_page_range)
        self._zap_some_pages = zap_page_range

    def _unmap(self, vma: int, start: int, end: int) -> None:
        view = self._pages.image.at(self._structs.vm_area_struct, vma)
        if view.vm_flags & VM_NONLINEAR:
            details = ZapDetails(0, LAST_INDEX, nonlinear_vma=vma)
            self._zap_some_pages(int(view.vm_mm), start, end - start, details)
        else:
            super()._unmap(vma, start, end)
