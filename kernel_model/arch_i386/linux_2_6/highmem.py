# SPDX-License-Identifier: GPL-2.0-or-later
"""How a 2.6 kernel reaches a frame of high memory.

Models linux-2.6.11 ``mm/highmem.c``: ``page_address()``, ``set_page_address()``,
``page_address_init()`` and ``include/asm-i386/highmem.h`` (book 2.8). In RAM: a hash table of the
high frames that have an address, ``page_address_htable``, and as many entries for it as the kmap
window has, ``page_address_maps``; those not in use wait in ``page_address_pool``. ``struct page``
has no word for an address any more; PG_highmem says that a frame has none of its own.
"""

from collections.abc import Iterator
from typing import Final

from kernel_model.arch_i386.highmem import DirectMapping, HighMemory, KmType, KmType26
from kernel_model.arch_i386.page import PAGE_SHIFT, phys_to_virt
from kernel_model.arch_i386.pgalloc import PageTables
from kernel_model.arch_i386.tlb import Tlb
from kernel_model.config import Highmem
from kernel_model.errors import KernelBug
from kernel_model.image import KernelImage
from kernel_model.linux_2_6.preempt import Preemption
from kernel_model.lists import Lists
from kernel_model.mm.linux_2_6.mmzone import MemMap26
from kernel_model.structs.linux_2_6.statics import PA_HASH_ORDER, PAGE_ADDRESS_MAP

GOLDEN_RATIO_PRIME: Final = 0x9E370001
_WORD: Final = 0xFFFFFFFF


class PageAddressTable:
    """The hash table. Pages are ``struct page *``."""

    def __init__(self, image: KernelImage, memmap: MemMap26) -> None:
        self._image = image
        self._memmap = memmap
        self._lists = Lists(image.ram)
        self._highmem = image.constants.page_flags.highmem
        self._link = PAGE_ADDRESS_MAP.offset("list")
        self._table = image.symbol("page_address_htable")
        self._slot_bytes = image.structs.page_address_slot.size
        self._pool = image.symbol("page_address_pool")
        self.page_address_init()

    def page_address_init(self) -> None:
        """Every entry in the pool, every chain empty."""
        self._lists.init(self._pool)
        maps = self._image.symbol("page_address_maps")
        for index in range(len(self._image.statics.page_address_maps)):
            self._lists.add(maps + index * PAGE_ADDRESS_MAP.size + self._link, self._pool)
        for slot in range(1 << PA_HASH_ORDER):
            self._lists.init(self._table + slot * self._slot_bytes)

    def _slot(self, page: int) -> int:
        """``page_slot()``: the head of the chain of a frame."""
        key = (page * GOLDEN_RATIO_PRIME & _WORD) >> (32 - PA_HASH_ORDER)
        return self._table + key * self._slot_bytes

    def _find(self, page: int) -> int:
        """The entry of a frame, 0 for none."""
        for link in self._lists.entries(self._slot(page)):
            if self._image.at(PAGE_ADDRESS_MAP, link - self._link).page == page:
                return link - self._link
        return 0

    def page_address(self, page: int) -> int:
        if not self._memmap.test(page, self._highmem):
            return phys_to_virt(self._memmap.pfn(page) << PAGE_SHIFT)
        entry = self._find(page)
        return int(self._image.at(PAGE_ADDRESS_MAP, entry).virtual) if entry else 0

    def set_page_address(self, page: int, vaddr: int) -> None:
        if not self._memmap.test(page, self._highmem):
            raise KernelBug("highmem.c", 0, "a frame of low memory has its address for life")
        lists = self._lists
        if not vaddr:
            if entry := self._find(page):
                lists.delete(entry + self._link)
                lists.add_tail(entry + self._link, self._pool)
            return
        if lists.empty(self._pool):
            raise KernelBug("highmem.c", 0, "more frames have an address than the window has")
        link = lists.first(self._pool)
        lists.delete(link)
        view = self._image.at(PAGE_ADDRESS_MAP, link - self._link)
        view.page, view.virtual = page, vaddr
        lists.add_tail(link, self._slot(page))

    def mapped(self) -> Iterator[tuple[int, int]]:
        found = []
        for slot in range(1 << PA_HASH_ORDER):
            for link in self._lists.entries(self._table + slot * self._slot_bytes):
                view = self._image.at(PAGE_ADDRESS_MAP, link - self._link)
                found.append((int(view.page), int(view.virtual)))
        yield from sorted(found)


class HighMemory26(HighMemory):
    """A kernel with high memory, which each high frame says of itself."""

    def __init__(self, image: KernelImage, memmap: MemMap26, tables: PageTables, tlb: Tlb) -> None:
        super().__init__(image, memmap, tables, tlb, PageAddressTable(image, memmap))
        self._preemption = Preemption(image)
        self._pg_highmem = image.constants.page_flags.highmem

    def kmap(self, page: int) -> int:
        self._preemption.might_sleep("kmap()")
        return super().kmap(page)

    def kmap_atomic(self, page: int, kind: KmType | KmType26) -> int:
        # For low frames, too: the page-fault handler and whoever may sleep go by the count.
        self._preemption.inc_preempt_count()
        return super().kmap_atomic(page, kind)

    def kunmap_atomic(self, kvaddr: int, kind: KmType | KmType26) -> None:
        super().kunmap_atomic(kvaddr, kind)
        self._preemption.dec_preempt_count()

    def is_low(self, page: int) -> bool:
        return not self._memmap.test(page, self._pg_highmem)


def direct_or_high(
    image: KernelImage, memmap: MemMap26, tables: PageTables, tlb: Tlb
) -> DirectMapping:
    """What the build of a 2.6 kernel has, chosen once."""
    if image.config.highmem is Highmem.NONE:
        return DirectMapping(memmap)
    return HighMemory26(image, memmap, tables, tlb)
