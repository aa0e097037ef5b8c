# SPDX-License-Identifier: GPL-2.0-or-later
"""The active and the inactive list of 2.6: each zone has its own (book 2.8).

Models linux-2.6.11 ``include/linux/mm_inline.h`` and ``mm/swap.c``. In RAM: ``active_list``,
``inactive_list``, ``nr_active`` and ``nr_inactive`` of each ``struct zone``.

Not modelled: the page vectors in which each CPU gathers new frames before it puts them on a list
together. A frame is on its list at once here.
"""

from collections.abc import Callable

from kernel_model.arch_i386.page import PAGE_OFFSET
from kernel_model.image import KernelImage
from kernel_model.mm.linux_2_6.mmzone import for_each_zone
from kernel_model.mm.lru import Lru
from kernel_model.mm.mmzone import MemMap


class ZoneLru(Lru):
    """The two lists of each zone. ``zone_of`` gives the address of a frame's ``struct zone``."""

    def __init__(self, image: KernelImage, memmap: MemMap, zone_of: Callable[[int], int]) -> None:
        super().__init__(image, memmap)
        self._image = image
        self._zone_of = zone_of
        kind = image.structs.zone_t
        self._active_list = kind.offset("active_list")
        self._inactive_list = kind.offset("inactive_list")
        self._nr_active, self._nr_inactive = kind.word("nr_active"), kind.word("nr_inactive")

    def _add(self, page: int, head: int, counter: int) -> None:
        zone = self._zone_of(page)
        self._lists.add(page + self._offset, zone + head)
        self._words[(zone - PAGE_OFFSET >> 2) + counter] += 1

    def _delete(self, page: int, counter: int) -> None:
        self._lists.delete(page + self._offset)
        self._words[(self._zone_of(page) - PAGE_OFFSET >> 2) + counter] -= 1

    def add_page_to_active_list(self, page: int) -> None:
        self._memmap.set_bit(page, self._pg_active)
        self._add(page, self._active_list, self._nr_active)

    def add_page_to_inactive_list(self, page: int) -> None:
        self._add(page, self._inactive_list, self._nr_inactive)

    def del_page_from_active_list(self, page: int) -> None:
        self._delete(page, self._nr_active)
        self._memmap.clear_bit(page, self._pg_active)

    def del_page_from_inactive_list(self, page: int) -> None:
        self._delete(page, self._nr_inactive)

    def add_active(self, page: int) -> None:
        """``lru_cache_add_active()``: a frame that a process maps starts on the active list."""
        if not self._memmap.test(page, self._pg_lru):
            self._memmap.set_bit(page, self._pg_lru)
            self.add_page_to_active_list(page)

    def mark_page_accessed(self, page: int) -> None:
        """The second use of an inactive frame activates it, once it is on a list."""
        flags = self._memmap.flags(page)
        wanted = self._referenced | self._lru
        if flags & (self._active | wanted) == wanted:
            self.activate_page(page)
            self._memmap.set_flags(page, self._memmap.flags(page) & ~self._referenced)
        else:
            self._memmap.set_flags(page, flags | self._referenced)

    def nr_active(self) -> int:
        return sum(int(zone.view.nr_active) for zone in for_each_zone(self._image))

    def nr_inactive(self) -> int:
        return sum(int(zone.view.nr_inactive) for zone in for_each_zone(self._image))
