# SPDX-License-Identifier: GPL-2.0-or-later
"""Views of nodes, zones and ``mem_map``.

Models linux-2.4.22 ``include/linux/mmzone.h`` and ``include/linux/mm.h`` (book 2.1-2.6). In
RAM: ``pg_data_t`` with its ``zone_t``s, ``struct page`` for every frame. A ``struct page *``
is its kernel virtual address, an int, as in the kernel; 0 is NULL.
"""

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from kernel_model.arch_i386.page import PAGE_OFFSET, phys_to_virt, virt_to_phys
from kernel_model.bitops import Bitmap
from kernel_model.image import KernelImage
from kernel_model.mm.page_flags import MACROS, FlagOperation
from kernel_model.structs.mmzone import MAX_NR_ZONES

ZONE_DMA: Final = 0
ZONE_NORMAL: Final = 1
ZONE_HIGHMEM: Final = 2
ZONE_NAMES: Final = ("DMA", "Normal", "HighMem")


class MemMap:
    """The array of ``struct page``, and the words of one entry that inner loops touch.

    Every fault and every freed page asks a dozen of these questions, so none asks another one.
    """

    def __init__(self, image: KernelImage) -> None:
        page, names = image.structs.page, image.constants.fields
        flags = image.constants.page_flags
        self._ram = image.ram
        self.words = image.ram.words
        self._mem_map = virt_to_phys(image.symbol("mem_map")) >> 2
        self.page_bytes = page.size
        self.list_word = page.word(names.page_links)
        self.count_word = page.word(names.page_count)
        self.flags_word = page.word("flags")
        self.index_word = page.word("index")
        self.buffers_word = page.word(names.page_private)
        self.mapping_word = page.word("mapping")
        self._reserved = 1 << flags.reserved
        self.zone_shift = flags.zone_shift

    def at(self, mapnr: int) -> int:
        """``mem_map + mapnr``: the entry with this index in the array."""
        return self.words[self._mem_map] + mapnr * self.page_bytes

    def mapnr(self, page: int) -> int:
        """``page - mem_map``: the index of an entry in the array."""
        return (page - self.words[self._mem_map]) // self.page_bytes

    def page(self, pfn: int) -> int:
        """``pfn_to_page()``. With one node the array begins with frame 0."""
        return self.words[self._mem_map] + pfn * self.page_bytes

    def pfn(self, page: int) -> int:
        """``page_to_pfn()``."""
        return (page - self.words[self._mem_map]) // self.page_bytes

    def word(self, page: int, field: int) -> int:
        """Index into ``Ram.words`` of word ``field`` of the entry at ``page``."""
        return (page - PAGE_OFFSET >> 2) + field

    def flags(self, page: int) -> int:
        return self.words[(page - PAGE_OFFSET >> 2) + self.flags_word]

    def set_flags(self, page: int, flags: int) -> None:
        self.words[(page - PAGE_OFFSET >> 2) + self.flags_word] = flags

    def test(self, page: int, bit: int) -> bool:
        return self.words[(page - PAGE_OFFSET >> 2) + self.flags_word] >> bit & 1 == 1

    def reserved(self, page: int) -> bool:
        """``PageReserved()``: the frame is not the allocator's, and nobody counts its users."""
        flags = self.words[(page - PAGE_OFFSET >> 2) + self.flags_word]
        return flags & self._reserved != 0

    def set_bit(self, page: int, bit: int) -> None:
        self.words[(page - PAGE_OFFSET >> 2) + self.flags_word] |= 1 << bit

    def clear_bit(self, page: int, bit: int) -> None:
        self.words[(page - PAGE_OFFSET >> 2) + self.flags_word] &= ~(1 << bit)

    def macro(self, name: str, page: int) -> bool:
        """Run one of :data:`~kernel_model.mm.page_flags.MACROS`, such as ``SetPageDirty``.

        Returns what the bit was before.
        """
        operation, bit = MACROS[name]
        was = self.test(page, bit)
        if operation in (FlagOperation.SET, FlagOperation.TEST_AND_SET):
            self.set_bit(page, bit)
        elif operation in (FlagOperation.CLEAR, FlagOperation.TEST_AND_CLEAR):
            self.clear_bit(page, bit)
        return was

    def count(self, page: int) -> int:
        """``page_count()``."""
        return self.words[(page - PAGE_OFFSET >> 2) + self.count_word]

    def set_count(self, page: int, count: int) -> None:
        self.words[(page - PAGE_OFFSET >> 2) + self.count_word] = count

    def zone_number(self, page: int) -> int:
        """Index into ``zone_table``, of which each node has a part."""
        return self.words[(page - PAGE_OFFSET >> 2) + self.flags_word] >> self.zone_shift

    def rows(self, page: int, count: int) -> npt.NDArray[np.uint32]:
        """``count`` entries from ``page`` on, as a table of u32, one row a frame."""
        words = self.page_bytes >> 2
        return self._ram.table(virt_to_phys(page), count * words).reshape(count, words)


class Zone:
    """One ``zone_t`` at a kernel virtual address."""

    def __init__(self, image: KernelImage, vaddr: int) -> None:
        self.vaddr = vaddr
        self.view: Any = image.at(image.structs.zone_t, vaddr)
        self._image = image
        kind, self._names = image.structs.zone_t, image.constants.fields
        self._words = image.ram.words
        self._base = virt_to_phys(vaddr) >> 2
        self.free_pages_word = self._base + kind.word("free_pages")
        self._free_area = self._base + kind.word("free_area")
        self._area_words = image.structs.free_area_t.size >> 2
        self._link = image.structs.page.offset(self._names.page_links)
        self._orders = image.constants.max_order

    @property
    def name(self) -> str:
        """``DMA``, ``Normal`` or ``HighMem``."""
        return ZONE_NAMES[self.index]

    @property
    def index(self) -> int:
        """``zone_idx()``: which zone of its node it is."""
        return (self.vaddr - int(self.view.zone_pgdat)) // self._image.structs.zone_t.size

    @property
    def wait_table_shift(self) -> int:
        """How far the hash of a frame is shifted to give its wait queue in the zone's table."""
        return int(self.view.wait_table_shift)

    @property
    def number(self) -> int:
        """Index into ``zone_table``."""
        return [int(entry) for entry in self._image.statics.zone_table].index(self.vaddr)

    @property
    def size(self) -> int:
        """Frames from the first to the last, holes included."""
        return int(getattr(self.view, self._names.zone_size))

    @property
    def present_pages(self) -> int:
        """Frames that exist; 2.4 counts its holes too."""
        return int(getattr(self.view, self._names.zone_present))

    @property
    def start_pfn(self) -> int:
        return int(getattr(self.view, self._names.zone_start)) >> self._names.zone_start_shift

    @property
    def free_pages(self) -> int:
        return self._words[self.free_pages_word]

    @free_pages.setter
    def free_pages(self, pages: int) -> None:
        self._words[self.free_pages_word] = pages

    def free_list(self, order: int) -> int:
        """Kernel virtual address of the list head of ``order``."""
        return phys_to_virt((self._free_area + order * self._area_words) << 2)

    def bitmap(self, order: int) -> Bitmap:
        """The pair bits of ``order``; the highest order has none."""
        paddr = virt_to_phys(self._words[self._free_area + order * self._area_words + 2])
        return Bitmap(self._image.ram, paddr, self.size // (2 << order) + 1)

    def free_blocks(self, order: int) -> Iterator[int]:
        """The ``struct page *`` of each free block of ``order``, head of the list first."""
        head, link = self.free_list(order), self._link
        entry = self._words[head - PAGE_OFFSET >> 2]
        while entry != head:
            yield entry - link
            entry = self._words[entry - PAGE_OFFSET >> 2]

    def free_counts(self) -> list[int]:
        """Number of free blocks of each order: the line of ``/proc/buddyinfo``."""
        return [sum(1 for _ in self.free_blocks(order)) for order in range(self._orders)]


def for_each_zone(image: KernelImage) -> Iterator[Zone]:
    """Every zone of every node on ``pgdat_list`` that has frames."""
    pgdat = image.statics.pgdat_list
    while pgdat:
        node = image.at(image.structs.pg_data_t, pgdat)
        for index in range(MAX_NR_ZONES):
            zone = Zone(image, pgdat + index * image.structs.zone_t.size)
            if zone.size:
                yield zone
        pgdat = int(getattr(node, image.constants.fields.node_next))
