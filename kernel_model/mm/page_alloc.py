# SPDX-License-Identifier: GPL-2.0-or-later
"""The page allocator: what 2.4 and 2.6 have in common.

Models linux-2.4.22 and linux-2.6.11 ``mm/page_alloc.c``: the interface of ``alloc_pages()`` and
``__free_pages()``, and the counts of free frames (book 6.2-6.5). In RAM: zones and ``mem_map``. How
an allocation goes from plenty to need, and what freeing checks, is each release's own:
:mod:`kernel_model.mm.linux_2_4.page_alloc`, :mod:`kernel_model.mm.linux_2_6.page_alloc`.

What can fail: a bad free raises :class:`BadFrame`, a KernelBug that names frame, flags and
count; an allocation that cannot be served returns 0, the kernel's NULL.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, Final

from kernel_model.arch_i386.page import (
    PAGE_OFFSET,
    PAGE_SHIFT,
    PAGE_SIZE,
    phys_to_virt,
    virt_to_phys,
)
from kernel_model.errors import KernelBug
from kernel_model.image import KernelImage
from kernel_model.lists import Lists
from kernel_model.mm.lru import Lru
from kernel_model.mm.mmzone import ZONE_HIGHMEM, MemMap, Zone
from kernel_model.mm.page_flags import NAMES, flag_names
from kernel_model.structs.mmzone import MAX_NR_ZONES

_FILE: Final = "page_alloc.c"


class BadFrame(KernelBug):
    """A frame is not in the state that the operation demands."""

    def __init__(self, reason: str, pfn: int, flags: int, count: int, names: str) -> None:
        super().__init__(
            _FILE, 0, f"{reason}: frame {pfn:#x}, flags {flags:#x} ({names}), count {count}"
        )
        self.pfn = pfn
        self.flags = flags
        self.count = count


class PageAllocator(ABC):
    """The allocator over all zones of the machine. Pages are ``struct page *``, 0 is NULL."""

    pressure: Any
    """The rest of the kernel, as an allocation that finds little memory sees it; each release asks
    it other questions."""

    def __init__(self, image: KernelImage, memmap: MemMap, lru: Lru) -> None:
        self._image = image
        self._flag_names: Mapping[int, str] = NAMES
        self._events = image.events
        self.memmap = memmap
        self.lru = lru
        self._lists = Lists(image.ram)
        self._words = image.ram.words
        self._gfp = image.constants.gfp
        self._zonemask = self._gfp.zonemask
        self._max_order = image.constants.max_order
        task, zone, node = image.structs.task_struct, image.structs.zone_t, image.structs.pg_data_t
        names = image.constants.fields
        self._flags_word = task.word("flags")
        self._zone_table = virt_to_phys(image.symbol("zone_table")) >> 2
        self._contig_page_data = image.symbol("contig_page_data")
        self._zonelists = node.offset("node_zonelists")
        self._zonelist_bytes = image.structs.zonelist_t.size
        self._zone_bytes, self._zone_size = zone.size, zone.word(names.zone_size)
        self._zone_free_pages = zone.word("free_pages")
        self._node_next = node.word(names.node_next)

    @abstractmethod
    def zone(self, vaddr: int) -> Zone:
        """The zone at ``vaddr``; its free areas must have been set up."""

    def zones_of(self, zonelist: int) -> list[Zone]:
        """The zones of a ``zonelist_t``, best first."""
        zones = []
        index = virt_to_phys(zonelist) >> 2
        while vaddr := self._words[index]:
            zones.append(self.zone(vaddr))
            index += 1
        return zones

    @abstractmethod
    def alloc_pages_zonelist(self, gfp_mask: int, order: int, zonelist: int) -> int:
        """``__alloc_pages()``: from plenty to need, one rule after the other."""

    @abstractmethod
    def free_pages(self, page: int, order: int) -> None:
        """``__free_pages()``: drop one reference; the last one frees the block."""

    @abstractmethod
    def get_page(self, page: int) -> None:
        """One more user of a frame; ``page_cache_get()`` is the same."""

    @property
    def current(self) -> Any:
        """The process that allocates, as a view."""
        return self._image.current_task

    def _current_flags(self) -> int:
        """``current->flags``."""
        return self._words[(self._image.current - PAGE_OFFSET >> 2) + self._flags_word]

    def page_zone(self, page: int) -> Zone:
        """The zone of a frame, from the top byte of its flags (book 2.6)."""
        return self.zone(self._words[self._zone_table + self.memmap.zone_number(page)])

    # -- allocating ------------------------------------------------------------------------

    def alloc_pages(self, gfp_mask: int, order: int, purpose: str = "kernel") -> int:
        """``2**order`` frames, physically contiguous (book 6.2).

        ``purpose`` is what the frame ledger writes down as their owner.
        """
        page = self._alloc_pages(gfp_mask, order) if order < self._max_order else 0
        if page:
            self._events.frame_taken(self.memmap.pfn(page), order, purpose)
        return page

    def _alloc_pages(self, gfp_mask: int, order: int) -> int:
        """Which node to ask; with uniform memory there is one."""
        return self.alloc_pages_pgdat(self._contig_page_data, gfp_mask, order)

    def alloc_pages_pgdat(self, pgdat: int, gfp_mask: int, order: int) -> int:
        """``alloc_pages_node()``: from this node's zones only."""
        zonelist = pgdat + self._zonelists + (gfp_mask & self._zonemask) * self._zonelist_bytes
        return self.alloc_pages_zonelist(gfp_mask, order, zonelist)

    def alloc_page(self, gfp_mask: int, purpose: str = "kernel") -> int:
        """One frame."""
        return self.alloc_pages(gfp_mask, 0, purpose)

    def get_free_pages(self, gfp_mask: int, order: int, purpose: str = "kernel") -> int:
        """``__get_free_pages()``: as kernel virtual address, so it must be low memory."""
        page = self.alloc_pages(gfp_mask, order, purpose)
        return phys_to_virt(self.memmap.pfn(page) << PAGE_SHIFT) if page else 0

    def get_free_page(self, gfp_mask: int, purpose: str = "kernel") -> int:
        """``__get_free_page()``."""
        return self.get_free_pages(gfp_mask, 0, purpose)

    def get_zeroed_page(self, gfp_mask: int, purpose: str = "kernel") -> int:
        """A frame of zeros, as kernel virtual address."""
        vaddr = self.get_free_page(gfp_mask, purpose)
        if vaddr:
            self._image.ram.fill(virt_to_phys(vaddr), PAGE_SIZE)
        return vaddr

    def get_dma_pages(self, gfp_mask: int, order: int) -> int:
        """``__get_dma_pages()``: below 16 MiB."""
        return self.get_free_pages(gfp_mask | self._gfp.dma, order)

    def cpu_free_pages(self, zone: Zone) -> Iterable[int]:
        """The free frames of a zone that CPUs keep on lists of their own: none in 2.4."""
        return ()

    # -- freeing -----------------------------------------------------------------------------

    def _refuse(self, reason: str, page: int) -> BadFrame:
        memmap, flags = self.memmap, self.memmap.flags(page)
        names = flag_names(flags, self._flag_names)
        return BadFrame(reason, memmap.pfn(page), flags, memmap.count(page), names)

    def free_page(self, page: int) -> None:
        """``__free_page()``."""
        self.free_pages(page, 0)

    def free_pages_at(self, vaddr: int, order: int) -> None:
        """``free_pages()``: the same for a kernel virtual address of low memory."""
        self.free_pages(self.memmap.page(virt_to_phys(vaddr) >> PAGE_SHIFT), order)

    def put_page(self, page: int) -> None:
        """One user less; the last one frees the frame. ``page_cache_release()`` is the same."""
        self.free_pages(page, 0)

    # -- counting ------------------------------------------------------------------------------

    def nr_free_pages(self) -> int:
        """Free frames of all zones."""
        words, total = self._words, 0
        for pgdat in self.pgdats():
            for number in range(MAX_NR_ZONES):
                at = pgdat + number * self._zone_bytes - PAGE_OFFSET >> 2
                if words[at + self._zone_size]:
                    total += words[at + self._zone_free_pages]
        return total

    def nr_free_buffer_pages(self) -> int:
        """Frames that buffers may use: those of the zones for GFP_USER, above their high mark."""
        return self._nr_free_zone_pages(self._gfp.user & self._gfp.zonemask)

    def _nr_free_zone_pages(self, modifier: int) -> int:
        total = 0
        for pgdat in self.pgdats():
            for zone in self.zones_of(pgdat + self._zonelists + modifier * self._zonelist_bytes):
                total += max(zone.present_pages - int(zone.view.pages_high), 0)
        return total

    def pgdats(self) -> list[int]:
        """The nodes in the order of ``pgdat_list``."""
        nodes, pgdat = [], int(self._image.statics.pgdat_list)
        while pgdat:
            nodes.append(pgdat)
            pgdat = self._words[(pgdat - PAGE_OFFSET >> 2) + self._node_next]
        return nodes

    def nr_free_highpages(self) -> int:
        """Free frames of high memory."""
        at = ZONE_HIGHMEM * self._zone_bytes - PAGE_OFFSET
        return sum(
            self._words[(pgdat + at >> 2) + self._zone_free_pages] for pgdat in self.pgdats()
        )
