# SPDX-License-Identifier: GPL-2.0-or-later
"""Swap areas: slots for frames, and how often each slot is meant.

Models linux-2.4.22 ``mm/swapfile.c``: ``get_swap_page()``, ``scan_swap_map()``,
``swap_duplicate()``, ``swap_free()`` and swapping an area on (``sys_swapon``). In RAM:
``swap_info[]`` and the ``swap_map`` of each area, a count for each slot. The slots' contents
are on a disk, outside RAM: :attr:`SwapAreas.disks`.

A slot is named by a ``swp_entry_t`` (:mod:`kernel_model.mm.swapops`), from which comes what a PTE
holds of a page that is out. What can fail: a slot that nobody holds cannot be freed, a
:class:`KernelBug`; a full area returns no slot, 0.
"""

from typing import Any, Final

from kernel_model.arch_i386.page import PAGE_SIZE, virt_to_phys
from kernel_model.errors import BadConfig, KernelBug
from kernel_model.image import KernelImage
from kernel_model.mm.page_alloc import PageAllocator
from kernel_model.mm.swapops import AbsentPtes, SwapPtes
from kernel_model.structs.swap import MAX_SWAPFILES

SWAPFILE_CLUSTER: Final = 256
SWAP_MAP_MAX: Final = 0x7FFF
SWAP_MAP_BAD: Final = 0x8000
SWP_USED: Final = 1
SWP_WRITEOK: Final = 3


class SwapAreas:
    """The swap areas of one machine."""

    def __init__(
        self, image: KernelImage, allocator: PageAllocator, ptes: AbsentPtes | None = None
    ) -> None:
        self.ptes: AbsentPtes = ptes or SwapPtes()
        """How a slot is named, and what a PTE holds of it."""
        self._image = image
        self._constants = image.constants
        self._statics = image.statics
        self._allocator = allocator
        self.disks: list[bytearray] = []
        """What is written in each area; slot n at byte n * 4096."""

    def swapon(self, pages: int) -> int:
        """Add an area of ``pages`` slots, the first of which is its header.

        Returns the area's number. Its map is taken from the buddy allocator, where the kernel
        uses ``vmalloc()``.
        """
        area = int(self._statics.nr_swapfiles)
        order = (max(pages * 2 - 1, 0) // PAGE_SIZE).bit_length()
        if area >= MAX_SWAPFILES or not 2 <= pages <= PAGE_SIZE << 8:
            raise BadConfig(f"a swap area of {pages} pages: give 2 to {PAGE_SIZE << 8}")
        # Nobody shall be killed for it, and nobody wait for ever.
        gfp = self._constants.gfp.kernel | self._constants.gfp.noretry
        table = self._allocator.get_free_pages(gfp, order, "swap map")
        if not table:
            raise BadConfig("no memory for the map of the swap area: give the machine more RAM")
        self._image.ram.fill(virt_to_phys(table), PAGE_SIZE << order)
        info = self._info(area)
        info.flags, info.swap_map, info.max, info.pages = SWP_WRITEOK, table, pages, pages - 1
        info.lowest_bit, info.highest_bit = 1, pages - 1
        info.cluster_next = info.cluster_nr = 0
        info.prio, info.next = -1 - area, -1
        if area:
            self._info(area - 1).next = area
        self._map(info)[0] = SWAP_MAP_BAD
        self._statics.nr_swapfiles += 1
        self._statics.nr_swap_pages += pages - 1
        self.disks.append(bytearray(pages * PAGE_SIZE))
        return area

    @property
    def total_swap_pages(self) -> int:
        """Slots of all areas, the free ones and the others."""
        return sum(int(self._info(n).pages) for n in range(int(self._statics.nr_swapfiles)))

    def _info(self, area: int) -> Any:
        return self._statics.swap_info[area]

    def _map(self, info: Any) -> memoryview:
        paddr = virt_to_phys(int(info.swap_map))
        return self._image.ram.bytes[paddr : paddr + 2 * int(info.max)].cast("H")

    def counts(self, area: int) -> list[int]:
        """How often each slot of an area is meant."""
        return list(self._map(self._info(area)))

    def get_swap_page(self) -> int:
        """A free slot, meant once; 0 when all areas are full."""
        if self._statics.nr_swap_pages <= 0:
            return 0
        for area in range(int(self._statics.nr_swapfiles)):
            info = self._info(area)
            if info.flags & SWP_WRITEOK == SWP_WRITEOK and (offset := self._scan(info)):
                return self.ptes.swp_entry(area, offset)
        return 0

    def _scan(self, info: Any) -> int:
        """``scan_swap_map()``: slots in sequence while a cluster lasts, else the first free."""
        counts = self._map(info)
        if info.cluster_nr:
            while info.cluster_next <= info.highest_bit:
                offset = int(info.cluster_next)
                info.cluster_next += 1
                if not counts[offset]:
                    info.cluster_nr -= 1
                    return self._take(info, counts, offset)
        info.cluster_nr = SWAPFILE_CLUSTER
        offset = int(info.lowest_bit)
        while offset + SWAPFILE_CLUSTER - 1 <= info.highest_bit:
            used = [n for n in range(offset, offset + SWAPFILE_CLUSTER) if counts[n]]
            if not used:
                return self._take(info, counts, offset)
            offset = used[0] + 1
        for offset in range(int(info.lowest_bit), int(info.highest_bit) + 1):
            if not counts[offset]:
                info.lowest_bit = offset + 1
                return self._take(info, counts, offset)
        info.lowest_bit, info.highest_bit = info.max, 0
        return 0

    def _take(self, info: Any, counts: memoryview, offset: int) -> int:
        if offset == info.lowest_bit:
            info.lowest_bit += 1
        if offset == info.highest_bit:
            info.highest_bit -= 1
        if info.lowest_bit > info.highest_bit:
            info.lowest_bit, info.highest_bit = info.max, 0
        counts[offset] = 1
        self._statics.nr_swap_pages -= 1
        info.cluster_next = offset + 1
        return offset

    def _slot(self, entry: int) -> tuple[Any, memoryview, int]:
        area, offset = self.ptes.swp_type(entry), self.ptes.swp_offset(entry)
        if area >= int(self._statics.nr_swapfiles) or offset >= int(self._info(area).max):
            raise KernelBug("swapfile.c", 0, f"swap entry {entry:#x} names no slot there is")
        info = self._info(area)
        return info, self._map(info), offset

    def swap_duplicate(self, entry: int) -> bool:
        """One more user of a slot. False when nobody holds it, or when it is the header."""
        _, counts, offset = self._slot(entry)
        if not counts[offset] or counts[offset] == SWAP_MAP_BAD:
            return False
        counts[offset] = min(counts[offset] + 1, SWAP_MAP_MAX)
        return True

    def swap_free(self, entry: int) -> int:
        """One user less; the last one frees the slot. Returns how many are left."""
        info, counts, offset = self._slot(entry)
        if not counts[offset]:
            raise KernelBug("swapfile.c", 0, f"slot {offset} of swap area is free already")
        if counts[offset] < SWAP_MAP_MAX:
            counts[offset] -= 1
            if not counts[offset]:
                info.lowest_bit = min(int(info.lowest_bit), offset)
                info.highest_bit = max(int(info.highest_bit), offset)
                self._statics.nr_swap_pages += 1
        return int(counts[offset])

    def swap_count(self, entry: int) -> int:
        """How many mean the slot."""
        _, counts, offset = self._slot(entry)
        return int(counts[offset])

    def write(self, entry: int, paddr: int) -> None:
        """``rw_swap_page(WRITE)``: the frame at ``paddr`` goes to its slot."""
        disk, at = self._place(entry)
        disk[at : at + PAGE_SIZE] = self._image.ram.read(paddr, PAGE_SIZE)

    def read(self, entry: int, paddr: int) -> None:
        """``rw_swap_page(READ)``: a slot comes back into the frame at ``paddr``."""
        disk, at = self._place(entry)
        self._image.ram.write(paddr, disk[at : at + PAGE_SIZE])

    def _place(self, entry: int) -> tuple[bytearray, int]:
        """The disk of a slot, and where it begins there."""
        return self.disks[self.ptes.swp_type(entry)], self.ptes.swp_offset(entry) * PAGE_SIZE
