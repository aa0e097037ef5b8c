# SPDX-License-Identifier: GPL-2.0-or-later
"""What a zone's free lists and bitmaps must always be, read straight from RAM."""

from kernel_model.kernel import Kernel
from kernel_model.mm.mmzone import Zone
from kernel_model.structs.mmzone import MAX_NR_ZONES, MAX_ORDER

PAGE_OFFSET = 0xC0000000


def zones(kernel: Kernel) -> list[Zone]:
    """The zones of node 0 that have frames."""
    pgdat, size = kernel.image.symbol("contig_page_data"), kernel.image.structs.zone_t.size
    found = [Zone(kernel.image, pgdat + index * size) for index in range(MAX_NR_ZONES)]
    return [zone for zone in found if zone.size]


def free_blocks(kernel: Kernel, zone: Zone) -> list[list[int]]:
    """First frames of the free blocks by order, head first; checks every backward pointer."""
    page_bytes, base = kernel.image.structs.page.size, int(kernel.statics.mem_map)
    ram, lists = kernel.ram, []
    for order in range(MAX_ORDER):
        head = previous = zone.free_list(order)
        frames: list[int] = []
        entry = ram.read32(head - PAGE_OFFSET)
        while entry != head:
            assert ram.read32(entry - PAGE_OFFSET + 4) == previous
            frame, rest = divmod(entry - base, page_bytes)
            assert rest == 0
            frames.append(frame)
            assert len(frames) <= zone.size
            previous, entry = entry, ram.read32(entry - PAGE_OFFSET)
        assert ram.read32(head - PAGE_OFFSET + 4) == previous
        lists.append(frames)
    return lists


def pair_bits(kernel: Kernel, zone: Zone, order: int) -> bytes:
    """The whole bitmap of an order as boot memory holds it."""
    paddr = int(zone.view.free_area[order].map) - PAGE_OFFSET
    return kernel.ram.read(paddr, ((zone.size - 1 >> (order + 4)) + 1 + 3) & ~3)


def check_zone(kernel: Kernel, zone: Zone) -> set[int]:
    """Every invariant of one zone; returns its free frames."""
    lists, start = free_blocks(kernel, zone), int(zone.view.zone_start_mapnr)
    frames: set[int] = set()
    for order, blocks in enumerate(lists):
        for first in blocks:
            assert (first - start) % (1 << order) == 0
            block = range(first, first + (1 << order))
            assert start <= block.start
            assert block.stop <= start + zone.size
            assert frames.isdisjoint(block)
            frames.update(block)
    assert zone.free_pages == len(frames)
    for order, blocks in enumerate(lists[:-1]):
        free = {(first - start) >> order for first in blocks}
        merged = {block for block in free if block ^ 1 in free}
        assert not merged, f"order {order}: buddies {sorted(merged)} are both free"
        bits = int.from_bytes(pair_bits(kernel, zone, order), "little")
        assert bits == sum(1 << (block >> 1) for block in free)
    assert not zone.view.free_area[MAX_ORDER - 1].map
    return frames
