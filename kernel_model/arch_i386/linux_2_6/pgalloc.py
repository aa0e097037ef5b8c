# SPDX-License-Identifier: GPL-2.0-or-later
"""Where page tables come from in 2.6.

Models linux-2.6.11 ``arch/i386/mm/pgtable.c``: ``pgd_ctor()``, ``pmd_ctor()``, ``pgd_alloc()``,
``pgd_free()``, ``pte_alloc_one()``, ``pte_alloc_one_kernel()``, and ``pgtable_cache_init()`` of
``init.c`` (book 3.3, 3.10). Directories are objects of the slab allocator, with PAE the first of 32
bytes only: while one is free it keeps the kernel's part that it got when its slab was made, and
maps no user page. Page tables come zeroed from the page allocator, and go straight back to it:
there is no quicklist. With CONFIG_HIGHPTE those of processes come from high memory as long as there
is some; the kernel's own always lie where it reaches them.

In RAM: the caches ``pgd`` and, with PAE, ``pmd``. What can fail: no memory. Not modelled:
``pgd_list``, by which ``change_page_attr()`` finds all directories.
"""

from collections.abc import Callable
from typing import Final

from kernel_model.arch_i386.page import (
    PAGE_OFFSET,
    PAGE_SHIFT,
    PAGE_SIZE,
    phys_to_virt,
    virt_to_phys,
)
from kernel_model.arch_i386.pgalloc import PageTableAllocator, PageTables
from kernel_model.arch_i386.pgtable import PAGE_PRESENT, THREE_LEVEL, TWO_LEVEL, pgd_page, pmd_page
from kernel_model.caches import KernelCache
from kernel_model.fs.file_table import ObjectCaches
from kernel_model.image import SWAPPER_PG_DIR, KernelImage
from kernel_model.mm.page_alloc import PageAllocator
from kernel_model.mm.slab.objects import Constructor

_PURPOSE: Final = "page table"


def pgd_ctor(image: KernelImage) -> Constructor:
    """A directory with the kernel's part as it is now, and no user page."""
    shape, ram = THREE_LEVEL if image.config.pae else TWO_LEVEL, image.ram
    start = shape.user_ptrs_per_pgd * shape.entry_bytes
    size = shape.ptrs_per_pgd * shape.entry_bytes

    def construct(objp: int, _cachep: int, _flags: int) -> None:
        pgd = virt_to_phys(objp)
        ram.fill(pgd, start)
        ram.write(pgd + start, ram.read(SWAPPER_PG_DIR + start, size - start))
        image.events.kernel_tables_shared(pgd, PAGE_OFFSET, -PAGE_OFFSET & 0xFFFFFFFF)

    return construct


def pmd_ctor(image: KernelImage) -> Constructor:
    """A middle directory that maps nothing."""

    def construct(objp: int, _cachep: int, _flags: int) -> None:
        image.ram.fill(virt_to_phys(objp), PAGE_SIZE)

    return construct


def pgtable_caches(image: KernelImage) -> tuple[KernelCache, ...]:
    """``pgtable_cache_init()``: the caches of directories, each as aligned as it is large."""
    if not image.config.pae:
        return (_cache("pgd", PAGE_SIZE, pgd_ctor),)
    return _cache("pmd", PAGE_SIZE, pmd_ctor), _cache("pgd", 32, pgd_ctor)


def _cache(name: str, size: int, ctor: Callable[[KernelImage], Constructor]) -> KernelCache:
    return KernelCache(f"{name}_cache", name, lambda _: size, ctor, offset=size, flags=0)


class PageTableAllocator26(PageTableAllocator):
    """:class:`PageTableAllocator` over the slab allocator, which comes later: ``slab`` gives it."""

    def __init__(
        self,
        image: KernelImage,
        tables: PageTables,
        allocator: PageAllocator,
        slab: Callable[[], ObjectCaches],
    ) -> None:
        super().__init__(tables)
        gfp = image.constants.gfp
        self._allocator = allocator
        self._slab = slab
        self._statics = image.statics
        self._gfp = gfp.kernel
        self._gfp_kernel = gfp.kernel | gfp.repeat | gfp.zero
        self._gfp_user = self._gfp_kernel | (gfp.highmem if image.config.highpte else 0)

    # -- directories ---------------------------------------------------------------------------

    def pgd_alloc(self) -> int:
        vaddr = self._slab().kmem_cache_alloc(int(self._statics.pgd_cache), self._gfp)
        if not vaddr:
            return 0
        pgd = virt_to_phys(vaddr)
        for pgdp in self._user_entries(pgd):
            pmd = self._slab().kmem_cache_alloc(int(self._statics.pmd_cache), self._gfp)
            if not pmd:
                self.pgd_free(pgd)
                return 0
            self.tables.set_pgd(pgdp, virt_to_phys(pmd) | PAGE_PRESENT)
        return pgd

    def pgd_free(self, pgd: int) -> None:
        for pgdp in self._user_entries(pgd):
            if entry := self.tables.entry(pgdp):
                vaddr = phys_to_virt(pgd_page(entry))
                self._slab().kmem_cache_free(int(self._statics.pmd_cache), vaddr)
                self.tables.set_pgd(pgdp, 0)
        self._slab().kmem_cache_free(int(self._statics.pgd_cache), phys_to_virt(pgd))

    def _user_entries(self, pgd: int) -> range:
        """Those that have a middle directory: none where it is folded."""
        shape = self.tables.shape
        count = 0 if shape.folded else shape.user_ptrs_per_pgd
        return range(pgd, pgd + count * shape.entry_bytes, shape.entry_bytes)

    # -- page tables ---------------------------------------------------------------------------

    def pte_alloc_kernel(self, pmdp: int, vaddr: int) -> int:
        return self._pte_alloc(pmdp, vaddr, self._pte_alloc_one_kernel)

    def _pte_alloc_one(self) -> int:
        return self._table(self._gfp_user)

    def _pte_alloc_one_kernel(self) -> int:
        return self._table(self._gfp_kernel)

    def pte_free(self, pmdp: int) -> None:
        table = pmd_page(self.tables.entry(pmdp))
        self.tables.set_pmd(pmdp, 0)
        self._allocator.free_page(self._allocator.memmap.page(table >> PAGE_SHIFT))

    def _table(self, gfp_mask: int) -> int:
        page = self._allocator.alloc_page(gfp_mask, _PURPOSE)
        return self._allocator.memmap.pfn(page) << PAGE_SHIFT if page else 0
