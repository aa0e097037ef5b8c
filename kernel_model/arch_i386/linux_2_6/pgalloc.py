# SPDX-License-Identifier: GPL-2.0-or-later
"""Frames for page tables in 2.6.

Models linux-2.6.11 ``arch/i386/mm/pgtable.c``: ``pte_alloc_one()``, ``pte_alloc_one_kernel()``
(book 3.10). They come zeroed from the allocator, and go straight back to it: there is no quicklist
for them. With CONFIG_HIGHPTE those of processes come from high memory as long as there is some;
the kernel's own always lie where it reaches them. What can fail: no memory.

Not modelled: the slab caches ``pgd`` and ``pmd``; directories wait on 2.4's quicklist.
"""

from kernel_model.arch_i386.page import PAGE_SHIFT, virt_to_phys
from kernel_model.arch_i386.pgalloc import PageTableAllocator, PageTables
from kernel_model.image import SWAPPER_PG_DIR, KernelImage
from kernel_model.mm.page_alloc import PageAllocator

_PURPOSE = "page table"


class PageTableAllocator26(PageTableAllocator):
    """:class:`PageTableAllocator` whose page tables may lie in high memory."""

    def __init__(self, image: KernelImage, tables: PageTables, allocator: PageAllocator) -> None:
        gfp, memmap = image.constants.gfp, allocator.memmap
        super().__init__(
            image,
            tables,
            SWAPPER_PG_DIR,
            lambda purpose: allocator.get_free_page(gfp.kernel, purpose),
            lambda vaddr: allocator.free_page(memmap.page(virt_to_phys(vaddr) >> PAGE_SHIFT)),
        )
        self._allocator = allocator
        self._gfp_kernel = gfp.kernel | gfp.repeat | gfp.zero
        self._gfp_user = self._gfp_kernel | (gfp.highmem if image.config.highpte else 0)

    def pte_alloc_kernel(self, pmdp: int, vaddr: int) -> int:
        return self._pte_alloc(pmdp, vaddr, self._pte_alloc_one_kernel)

    def _pte_alloc_one(self) -> int:
        return self._table(self._gfp_user)

    def _pte_alloc_one_kernel(self) -> int:
        return self._table(self._gfp_kernel)

    def _table(self, gfp_mask: int) -> int:
        page = self._allocator.alloc_page(gfp_mask, _PURPOSE)
        return self._allocator.memmap.pfn(page) << PAGE_SHIFT if page else 0
