# SPDX-License-Identifier: GPL-2.0-or-later
"""The two lists that order frames by use, and how many pages are read together.

Models linux-2.4.22 ``mm/swap.c`` and the macros of ``include/linux/swap.h`` (book 2.5, 6.3).
In RAM: ``active_list``, ``inactive_list``, their counts, ``struct page.lru``, PG_lru and
PG_active. What can fail: a frame on a list without PG_lru is a
:class:`KernelBug`. Adding a frame twice does nothing, as in the kernel.
"""

from collections.abc import Iterator
from typing import Final

from kernel_model.arch_i386.page import PAGE_SHIFT, virt_to_phys
from kernel_model.errors import KernelBug
from kernel_model.image import KernelImage
from kernel_model.lists import Lists
from kernel_model.mm.mmzone import MemMap
from kernel_model.mm.page_flags import PG_ACTIVE, PG_LRU, PG_REFERENCED

_LRU: Final = 1 << PG_LRU
_ACTIVE: Final = 1 << PG_ACTIVE
_REFERENCED: Final = 1 << PG_REFERENCED


def swap_setup(image: KernelImage) -> None:
    """How many pages are read together, as a power of two: fewer below 16 MiB of RAM."""
    megs = int(image.statics.num_physpages) >> (20 - PAGE_SHIFT)
    image.statics.page_cluster = 2 if megs < 16 else 3


class Lru:
    """The active and the inactive list; pages are ``struct page *``."""

    def __init__(self, image: KernelImage, memmap: MemMap) -> None:
        self._memmap = memmap
        self._words = image.ram.words
        self._nr_active = virt_to_phys(image.symbol("nr_active_pages")) >> 2
        self._nr_inactive = virt_to_phys(image.symbol("nr_inactive_pages")) >> 2
        self._lists = Lists(image.ram)
        self._offset = image.structs.page.offset("lru")
        self.active_list = image.symbol("active_list")
        self.inactive_list = image.symbol("inactive_list")
        self._lists.init(self.active_list)
        self._lists.init(self.inactive_list)

    def add_page_to_active_list(self, page: int) -> None:
        self._memmap.set_bit(page, PG_ACTIVE)
        self._lists.add(page + self._offset, self.active_list)
        self._words[self._nr_active] += 1

    def add_page_to_inactive_list(self, page: int) -> None:
        self._lists.add(page + self._offset, self.inactive_list)
        self._words[self._nr_inactive] += 1

    def del_page_from_active_list(self, page: int) -> None:
        self._lists.delete(page + self._offset)
        self._memmap.clear_bit(page, PG_ACTIVE)
        self._words[self._nr_active] -= 1

    def del_page_from_inactive_list(self, page: int) -> None:
        self._lists.delete(page + self._offset)
        self._words[self._nr_inactive] -= 1

    def add(self, page: int) -> None:
        """``lru_cache_add()``: a new frame starts on the inactive list."""
        words, at = self._words, self._memmap.word(page, self._memmap.flags_word)
        if words[at] & _LRU:
            return
        words[at] |= _LRU
        self.add_page_to_inactive_list(page)

    def delete(self, page: int) -> None:
        """``lru_cache_del()``: off whichever list it is on."""
        words, at = self._words, self._memmap.word(page, self._memmap.flags_word)
        flags = words[at]
        if not flags & _LRU:
            return
        words[at] = flags & ~_LRU
        if flags & _ACTIVE:
            self.del_page_from_active_list(page)
        else:
            self.del_page_from_inactive_list(page)

    def activate_page(self, page: int) -> None:
        """Move a frame from the inactive to the active list."""
        memmap = self._memmap
        if memmap.test(page, PG_LRU) and not memmap.test(page, PG_ACTIVE):
            self.del_page_from_inactive_list(page)
            self.add_page_to_active_list(page)

    def mark_page_accessed(self, page: int) -> None:
        """The second use of an inactive frame activates it."""
        words, at = self._words, self._memmap.word(page, self._memmap.flags_word)
        if words[at] & (_ACTIVE | _REFERENCED) == _REFERENCED:
            self.activate_page(page)
            words[at] &= ~_REFERENCED
        else:
            words[at] |= _REFERENCED

    def pages(self, head: int) -> Iterator[int]:
        """The frames of one list, most recent first."""
        for entry in self._lists.entries(head):
            page = entry - self._offset
            if not self._memmap.test(page, PG_LRU):
                pfn = self._memmap.pfn(page)
                raise KernelBug("swap.c", 0, f"frame {pfn:#x} is on an LRU list without PG_lru")
            yield page
