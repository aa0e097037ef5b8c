# SPDX-License-Identifier: GPL-2.0-or-later
"""Fragmentation: free memory in pieces too small, and memory lost inside what was handed out.

External fragmentation (book 6.5) is computed from the free lists. Internal fragmentation needs
to know how much of each allocation is wanted, and the buddy allocator is never told: a request
is for an order. So :class:`Slack` counts only what boot left behind and the structures in RAM
still show: both how much was taken and how much of it is used. Left out are the bytes that
aligning one boot allocation after the other cost, and frames that boot reserved without need.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from kernel_model.arch_i386.page import PAGE_SHIFT, PAGE_SIZE, virt_to_phys
from kernel_model.kernel import Kernel
from kernel_model.mm.mmzone import Zone, for_each_zone


def unusable_index(free_blocks: Sequence[int], order: int) -> float:
    """Share of the free frames that lie in blocks too small for a request of ``order``.

    ``free_blocks`` counts the free blocks of each order. 0.0: every free frame could serve;
    1.0: none could, or none is free.
    """
    frames = [blocks << size for size, blocks in enumerate(free_blocks)]
    total = sum(frames)
    return 1 - sum(frames[order:]) / total if total else 1.0


@dataclass(frozen=True, slots=True)
class Slack:
    """Bytes of a zone's memory that boot took and nobody uses."""

    mem_map: int = 0
    """The entry behind the last frame of a node, a reserve for the aligning of the array."""
    bitmaps: int = 0
    """The pair bitmaps are rounded up to whole words of 32 bits."""
    boot_page: int = 0
    """The rest of the last page that the boot allocator cut into pieces."""

    @property
    def total(self) -> int:
        return self.mem_map + self.bitmaps + self.boot_page

    def __add__(self, other: "Slack") -> "Slack":
        return Slack(
            self.mem_map + other.mem_map,
            self.bitmaps + other.bitmaps,
            self.boot_page + other.boot_page,
        )


def internal_slack(kernel: Kernel) -> dict[int, Slack]:
    """The slack of each zone (by its number in ``zone_table``) that has any.

    It counts for the zone in whose frames it lies, not for the one that the structure describes.
    """
    lost: dict[int, Slack] = {}

    def add(paddr: int, slack: Slack) -> None:
        memmap = kernel.allocator.memmap
        number = memmap.zone_number(memmap.page(paddr >> PAGE_SHIFT))
        lost[number] = lost.get(number, Slack()) + slack

    entry = kernel.image.structs.page.size
    for pgdat in kernel.allocator.pgdats():
        node = kernel.image.at(kernel.image.structs.pg_data_t, pgdat)
        frames = int(getattr(node, kernel.image.constants.fields.node_size))
        end = virt_to_phys(int(node.node_mem_map)) + frames * entry
        add(end, Slack(mem_map=entry))
        boot = kernel.bootmem.node(pgdat)
        if boot.last_offset:
            last_page = int(boot.node_boot_start) + int(boot.last_pos) * PAGE_SIZE
            add(last_page, Slack(boot_page=PAGE_SIZE - int(boot.last_offset)))
    if not kernel.image.constants.has_bitmaps:
        return lost
    for zone in for_each_zone(kernel.image):
        for order in range(kernel.image.constants.max_order - 1):
            bitmap = virt_to_phys(int(zone.view.free_area[order].map))
            add(bitmap, Slack(bitmaps=_bitmap_slack(zone, order)))
    return lost


def _bitmap_slack(zone: Zone, order: int) -> int:
    """Bytes of the pair bitmap of ``order`` that hold the bit of no pair."""
    pairs = -(-zone.size // (2 << order))
    wanted = -(-pairs // 8)
    return -wanted % 4
