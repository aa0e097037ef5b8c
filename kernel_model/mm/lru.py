# SPDX-License-Identifier: GPL-2.0-or-later
"""The two lists that order frames by use, and how many pages are read together.

Models linux-2.4.22 and linux-2.6.11 ``mm/swap.c`` and the macros that put a frame on a list (book
2.5, 2.8, 6.3). In RAM: ``struct page.lru``, PG_lru and PG_active; the lists themselves are global
in 2.4 (:mod:`.linux_2_4.lru`) and stand in each zone in 2.6 (:mod:`.linux_2_6.lru`). What can
fail: a frame on a list without PG_lru is a :class:`KernelBug`. Adding a frame twice does nothing,
as in the kernel.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator

from kernel_model.arch_i386.page import PAGE_SHIFT
from kernel_model.errors import KernelBug
from kernel_model.image import KernelImage
from kernel_model.lists import Lists
from kernel_model.mm.mmzone import MemMap


def swap_setup(image: KernelImage) -> None:
    """How many pages are read together, as a power of two: fewer below 16 MiB of RAM."""
    megs = int(image.statics.num_physpages) >> (20 - PAGE_SHIFT)
    image.statics.page_cluster = 2 if megs < 16 else 3


class Lru(ABC):
    """Active and inactive frames; pages are ``struct page *``."""

    def __init__(self, image: KernelImage, memmap: MemMap) -> None:
        flags = image.constants.page_flags
        self._memmap = memmap
        self._words = image.ram.words
        self._lists = Lists(image.ram)
        self._offset = image.structs.page.offset("lru")
        self._pg_lru, self._pg_active = flags.lru, flags.active
        self._lru, self._active = 1 << flags.lru, 1 << flags.active
        self._referenced = 1 << flags.referenced

    @abstractmethod
    def add_page_to_active_list(self, page: int) -> None:
        """At the head; sets PG_active."""

    @abstractmethod
    def add_page_to_inactive_list(self, page: int) -> None:
        """At the head."""

    @abstractmethod
    def del_page_from_active_list(self, page: int) -> None:
        """Clears PG_active."""

    @abstractmethod
    def del_page_from_inactive_list(self, page: int) -> None:
        """PG_lru is the caller's."""

    @abstractmethod
    def nr_active(self) -> int:
        """Frames on active lists."""

    @abstractmethod
    def nr_inactive(self) -> int:
        """Frames on inactive lists."""

    def add(self, page: int) -> None:
        """``lru_cache_add()``: a new frame starts on the inactive list."""
        words, at = self._words, self._memmap.word(page, self._memmap.flags_word)
        if words[at] & self._lru:
            return
        words[at] |= self._lru
        self.add_page_to_inactive_list(page)

    def delete(self, page: int) -> None:
        """``lru_cache_del()``: off whichever list it is on."""
        words, at = self._words, self._memmap.word(page, self._memmap.flags_word)
        flags = words[at]
        if not flags & self._lru:
            return
        words[at] = flags & ~self._lru
        if flags & self._active:
            self.del_page_from_active_list(page)
        else:
            self.del_page_from_inactive_list(page)

    def activate_page(self, page: int) -> None:
        """Move a frame from the inactive to the active list."""
        memmap = self._memmap
        if memmap.test(page, self._pg_lru) and not memmap.test(page, self._pg_active):
            self.del_page_from_inactive_list(page)
            self.add_page_to_active_list(page)

    def mark_page_accessed(self, page: int) -> None:
        """The second use of an inactive frame activates it."""
        words, at = self._words, self._memmap.word(page, self._memmap.flags_word)
        if words[at] & (self._active | self._referenced) == self._referenced:
            self.activate_page(page)
            words[at] &= ~self._referenced
        else:
            words[at] |= self._referenced

    def pages(self, head: int) -> Iterator[int]:
        """The frames of one list, most recent first."""
        for entry in self._lists.entries(head):
            page = entry - self._offset
            if not self._memmap.test(page, self._pg_lru):
                pfn = self._memmap.pfn(page)
                raise KernelBug("swap.c", 0, f"frame {pfn:#x} is on an LRU list without PG_lru")
            yield page
