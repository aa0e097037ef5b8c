# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's page tables, and the end of boot memory, in 2.6.

Models what linux-2.6.11 ``arch/i386/mm/init.c`` changed (book 3.6.2, 5.7): entries that point to
page tables have the user bit; the global bit is set only where the CPU has it; on a CPU without
large pages the direct map goes on in the page tables that the kernel was booted with; high memory
is freed from its first frame upwards, by way of the CPU's list.

Not modelled: no-execute protection, which 2.6 turns on where a PAE kernel finds it; this is the
kernel with ``noexec=off``.
"""

from typing import cast

import numpy as np
import numpy.typing as npt

from kernel_model.arch_i386.init import MemInit, PagingInit
from kernel_model.arch_i386.pgtable import (
    KERNPG_TABLE,
    PAGE_GLOBAL,
    PAGE_TABLE,
    pmd_none,
    pmd_page,
)
from kernel_model.config import Highmem
from kernel_model.mm.linux_2_6.free_frames import free_frames
from kernel_model.mm.linux_2_6.mmzone import Zone26
from kernel_model.mm.linux_2_6.page_alloc import PageAllocator26
from kernel_model.mm.mmzone import Zone


class PagingInit26(PagingInit):
    """``paging_init()`` of 2.6."""

    TABLE_FLAGS = PAGE_TABLE

    @property
    def page_kernel(self) -> int:
        return KERNPG_TABLE | (PAGE_GLOBAL if self._image.config.features.pge else 0)

    def _direct_table(self, pmdp: int) -> int:
        """``one_page_table_init()``: the table that hangs there already, or a new one."""
        entry = self._tables.entry(pmdp)
        return super()._direct_table(pmdp) if pmd_none(entry) else pmd_page(entry)


class MemInit26(MemInit):
    """``mem_init()`` of 2.6."""

    def set_max_mapnr_init(self) -> None:
        statics = self._statics
        uniform = self._image.config.highmem is Highmem.NONE
        frames = statics.max_low_pfn if uniform else statics.highend_pfn
        statics.max_mapnr = statics.num_physpages = frames

    def free_high_frames(self, zone: Zone, usable: npt.NDArray[np.bool_]) -> int:
        allocator = cast(PageAllocator26, self._allocator)  # that of this release
        zone = Zone26(self._image, zone.vaddr)
        pages = free_frames(self._image, allocator.memmap, zone, usable, by_word=False)
        allocator.page_state.add("pgfree", pages)
        return pages
