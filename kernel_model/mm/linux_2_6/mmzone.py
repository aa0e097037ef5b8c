# SPDX-License-Identifier: GPL-2.0-or-later
"""Views of zones, per-CPU page lists and ``mem_map`` as 2.6 has them.

Models linux-2.6.11 ``include/linux/mmzone.h`` and ``include/linux/mm.h`` (book 2.8). In RAM:
``struct zone`` with its page sets, ``struct page``, whose ``_count`` and ``_mapcount`` are one less
than the number they stand for: both begin at -1.
"""

from collections.abc import Iterator
from typing import Any, Final

from kernel_model.arch_i386.page import PAGE_OFFSET
from kernel_model.image import KernelImage
from kernel_model.mm.mmzone import MemMap, Zone
from kernel_model.structs.mmzone import MAX_NR_ZONES

_WORD: Final = 0xFFFFFFFF
ZONES_SHIFT: Final = 2
"""Bits of a zone's number within its node, below the number of the node."""
HOT: Final = 0
COLD: Final = 1


class MemMap26(MemMap):
    """:class:`MemMap` with the fields of 2.6."""

    def __init__(self, image: KernelImage) -> None:
        super().__init__(image)
        chained = image.structs.abi.rmap == "pte_chain"
        self.mapped_word = image.structs.page.word("pte" if chained else "_mapcount")
        """Who maps the frame, in the words of the reverse map."""
        self.unmapped = 0 if chained else _WORD
        """What stands there when nobody does."""

    def count(self, page: int) -> int:
        """``page_count()``: ``_count`` + 1."""
        return self.words[(page - PAGE_OFFSET >> 2) + self.count_word] + 1 & _WORD

    def set_count(self, page: int, count: int) -> None:
        self.words[(page - PAGE_OFFSET >> 2) + self.count_word] = count - 1 & _WORD

    def private(self, page: int) -> int:
        """``page->private``: the order of a free block, the head of a compound page."""
        return self.words[(page - PAGE_OFFSET >> 2) + self.buffers_word]

    def set_private(self, page: int, value: int) -> None:
        self.words[(page - PAGE_OFFSET >> 2) + self.buffers_word] = value


class PerCpuPages:
    """One list of single free frames that a CPU keeps of a zone (``struct per_cpu_pages``)."""

    def __init__(self, image: KernelImage, vaddr: int) -> None:
        kind = image.structs.per_cpu_pages
        self._words = image.ram.words
        at = vaddr - PAGE_OFFSET >> 2
        self._count, self._low = at + kind.word("count"), at + kind.word("low")
        self._high, self._batch = at + kind.word("high"), at + kind.word("batch")
        self.list = vaddr + kind.offset("list")
        """The head of the list."""
        self._link = image.structs.page.offset("lru")

    @property
    def count(self) -> int:
        return self._words[self._count]

    @count.setter
    def count(self, frames: int) -> None:
        self._words[self._count] = frames

    @property
    def low(self) -> int:
        """With no more frames than this the list is filled before one is taken."""
        return self._words[self._low]

    @property
    def high(self) -> int:
        """With this many frames some go back before one is added."""
        return self._words[self._high]

    @property
    def batch(self) -> int:
        """How many frames come or go together."""
        return self._words[self._batch]

    def set_limits(self, low: int, high: int, batch: int) -> None:
        self._words[self._low], self._words[self._high] = low, high
        self._words[self._batch] = batch

    def pages(self) -> Iterator[int]:
        """The ``struct page *`` of each frame, the one to be taken next first."""
        entry = self._words[self.list - PAGE_OFFSET >> 2]
        while entry != self.list:
            yield entry - self._link
            entry = self._words[entry - PAGE_OFFSET >> 2]


class Zone26(Zone):
    """One ``struct zone``."""

    def __init__(self, image: KernelImage, vaddr: int) -> None:
        super().__init__(image, vaddr)
        structs = image.structs
        first = vaddr + structs.zone_t.offset("pageset")
        sets = [first + cpu * structs.per_cpu_pageset.size for cpu in range(image.config.nr_cpus)]
        self.pagesets = [
            tuple(
                PerCpuPages(image, at + kind * structs.per_cpu_pages.size) for kind in (HOT, COLD)
            )
            for at in sets
        ]
        """For each CPU its lists of hot and of cold frames."""

    @property
    def wait_table_shift(self) -> int:
        return 32 - int(self.view.wait_table_bits)

    def nr_free(self, order: int) -> int:
        """How many free blocks of ``order`` the zone says that it has."""
        return self._words[self._free_area + order * self._area_words + 2]


def nodes(image: KernelImage) -> Iterator[Any]:
    """A view of each node's descriptor, in the order of ``pgdat_list``."""
    pgdat = int(image.statics.pgdat_list)
    while pgdat:
        node = image.at(image.structs.pg_data_t, pgdat)
        yield node
        pgdat = int(node.pgdat_next)


def for_each_zone(image: KernelImage) -> Iterator[Zone26]:
    """Every zone of every node on ``pgdat_list``, empty ones included, as ``for_each_zone()``."""
    pgdat = int(image.statics.pgdat_list)
    while pgdat:
        for index in range(MAX_NR_ZONES):
            yield Zone26(image, pgdat + index * image.structs.zone_t.size)
        pgdat = int(image.at(image.structs.pg_data_t, pgdat).pgdat_next)
