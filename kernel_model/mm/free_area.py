# SPDX-License-Identifier: GPL-2.0-or-later
"""Building ``mem_map``, the zones and the zonelists, and filling the free lists at boot.

Models linux-2.4.22 ``mm/page_alloc.c``: ``free_area_init_core()``, ``build_zonelists()``, and
the effect of freeing all frames of a zone one by one (book 2.3, 2.4, 5.6). A machine of 64 GiB
has 16 million frames, so that effect is computed at once: :func:`free_frames` leaves lists,
their order, and pair bits as the one-by-one way leaves them.
"""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from kernel_model.arch_i386.page import PAGE_OFFSET, PAGE_SHIFT, PAGE_SIZE, virt_to_phys
from kernel_model.errors import KernelBug
from kernel_model.image import KernelImage
from kernel_model.mm.bootmem import Bootmem
from kernel_model.mm.gfp import GFP_BIT_DMA, GFP_BIT_HIGHMEM, GFP_ZONEMASK
from kernel_model.mm.mmzone import ZONE_HIGHMEM, ZONE_NAMES, MemMap, Zone
from kernel_model.mm.page_flags import PG_DIRTY, PG_REFERENCED, PG_RESERVED, ZONE_SHIFT
from kernel_model.structs.mmzone import MAX_NR_ZONES, MAX_ORDER

PAGES_PER_WAITQUEUE: Final = 256
MAX_WAITQUEUES: Final = 4096
ZONE_BALANCE_RATIO: Final = (128, 128, 128)
ZONE_BALANCE_MIN: Final = (20, 20, 20)
ZONE_BALANCE_MAX: Final = (255, 255, 255)


def wait_table_size(pages: int) -> int:
    """Number of wait queues for a zone of ``pages`` frames: a power of two (book 2.2.3)."""
    wanted = pages // PAGES_PER_WAITQUEUE
    size = 1
    while size < wanted:
        size <<= 1
    return min(size, MAX_WAITQUEUES)


def _init_list_head(image: KernelImage, vaddr: int) -> None:
    index = virt_to_phys(vaddr) >> 2
    image.ram.words[index] = image.ram.words[index + 1] = vaddr


def _alloc_mem_map(image: KernelImage, bootmem: Bootmem, pgdat: int, pages: int) -> int:
    """Memory for ``pages`` entries, moved up to a multiple of their size (``MAP_ALIGN``)."""
    size = image.structs.page.size
    offset = virt_to_phys(bootmem.alloc_bootmem_node(pgdat, (pages + 1) * size))
    return PAGE_OFFSET + -(-offset // size) * size


def _init_pages(memmap: MemMap, zone: Zone, number: int, virtual: int | None) -> None:
    """Every frame of the zone: reserved, count 0, its list empty, its zone noted."""
    first = int(zone.view.zone_mem_map)
    rows = memmap.rows(first, zone.size)
    pages = first + np.arange(zone.size, dtype=np.int64) * memmap.page_bytes
    rows[:, memmap.list_word] = pages
    rows[:, memmap.list_word + 1] = pages
    rows[:, memmap.count_word] = 0
    rows[:, memmap.flags_word] = 1 << PG_RESERVED | number << ZONE_SHIFT
    if virtual is not None:
        frames = zone.start_pfn + np.arange(zone.size, dtype=np.int64)
        rows[:, virtual] = PAGE_OFFSET + (frames << PAGE_SHIFT)


def _init_zone(
    image: KernelImage, bootmem: Bootmem, pgdat: int, zone: Zone, index: int, present: int
) -> None:
    """Wait table, and the watermarks of the ``present`` frames, which are those not in holes."""
    view = zone.view
    queues = wait_table_size(zone.size)
    queue_bytes = image.structs.wait_queue_head_t.size
    view.wait_table_size = queues
    view.wait_table_shift = 32 - (queues.bit_length() - 1)
    view.wait_table = bootmem.alloc_bootmem_node(pgdat, queues * queue_bytes)
    task_list = image.structs.wait_queue_head_t.offset("task_list")
    for queue in range(queues):
        _init_list_head(image, view.wait_table + queue * queue_bytes + task_list)
    low = ZONE_BALANCE_MIN[index]
    watermark = min(max(present // ZONE_BALANCE_RATIO[index], low), ZONE_BALANCE_MAX[index])
    view.pages_min, view.pages_low, view.pages_high = watermark, watermark * 2, watermark * 3


def _init_free_areas(image: KernelImage, bootmem: Bootmem, pgdat: int, zone: Zone) -> None:
    """An empty list for each order, and a bit for each pair of buddies below the highest."""
    for order in range(MAX_ORDER):
        _init_list_head(image, zone.free_list(order))
        if order == MAX_ORDER - 1:
            zone.view.free_area[order].map = 0
        else:
            size = ((zone.size - 1 >> (order + 4)) + 1 + 3) & ~3
            zone.view.free_area[order].map = bootmem.alloc_bootmem_node(pgdat, size)


def free_area_init_core(
    image: KernelImage,
    bootmem: Bootmem,
    nid: int,
    pgdat: int,
    zones_size: Sequence[int],
    zone_start_paddr: int = 0,
    zholes_size: Sequence[int] = (0, 0, 0),
) -> None:
    """Make the zones of node ``nid`` from their sizes in frames, and their ``mem_map``."""
    if zone_start_paddr % PAGE_SIZE:
        raise KernelBug("page_alloc.c", 0, f"zone start {zone_start_paddr:#x} inside a page")
    node: Any = image.at(image.structs.pg_data_t, pgdat)
    total = sum(zones_size)
    image.printk(f"On node {nid} totalpages: {total - sum(zholes_size)}\n")
    node.node_mem_map = _alloc_mem_map(image, bootmem, pgdat, total)
    if not image.statics.mem_map:
        image.statics.mem_map = node.node_mem_map
    memmap = MemMap(image)
    offset = memmap.mapnr(node.node_mem_map)
    node.node_size, node.node_start_paddr, node.node_start_mapnr = total, zone_start_paddr, offset
    node.nr_zones = 0
    for index in range(MAX_NR_ZONES):
        size = zones_size[index]
        number = nid * MAX_NR_ZONES + index
        vaddr = pgdat + index * image.structs.zone_t.size
        image.statics.zone_table[number] = vaddr
        zone = Zone(image, vaddr)
        image.printk(f"zone({index}): {size} pages.\n")
        zone.view.size = size
        zone.view.name = image.symbol("zone_names") + index * 8
        zone.view.zone_pgdat = pgdat
        zone.view.free_pages = zone.view.need_balance = 0
        if not size:
            continue
        _init_zone(image, bootmem, pgdat, zone, index, size - zholes_size[index])
        node.nr_zones = index + 1
        zone.view.zone_mem_map = memmap.at(offset)
        zone.view.zone_start_mapnr = offset
        zone.view.zone_start_paddr = zone_start_paddr & 0xFFFFFFFF
        if zone_start_paddr >> PAGE_SHIFT & ((1 << MAX_ORDER - 1) - 1):
            image.printk("BUG: wrong zone alignment, it will crash\n")
        has_virtual = image.structs.abi.highmem and index != ZONE_HIGHMEM
        virtual = image.structs.page.word("virtual") if has_virtual else None
        _init_pages(memmap, zone, number, virtual)
        _init_free_areas(image, bootmem, pgdat, zone)
        offset += size
        zone_start_paddr += size << PAGE_SHIFT
    build_zonelists(image, pgdat)


def name_zones(image: KernelImage) -> None:
    """Put the names of the zones where ``zone_t.name`` can point to them."""
    for index, name in enumerate(ZONE_NAMES):
        image.statics.zone_names[index * 8 : index * 8 + len(name)] = list(name.encode())


def free_area_init(image: KernelImage, bootmem: Bootmem, zones_size: Sequence[int]) -> None:
    """Node 0 of a machine with uniform memory: ``contig_page_data`` (book 2.4.2)."""
    name_zones(image)
    free_area_init_core(image, bootmem, 0, image.symbol("contig_page_data"), zones_size)


def build_zonelists(image: KernelImage, pgdat: int) -> None:
    """For each GFP zone modifier, the zones to try: from the best one downwards (book 2.1)."""
    node: Any = image.at(image.structs.pg_data_t, pgdat)
    for modifier in range(GFP_ZONEMASK + 1):
        if modifier & GFP_BIT_DMA:
            best = 0
        elif modifier & GFP_BIT_HIGHMEM:
            best = 2
        else:
            best = 1
        zonelist = node.node_zonelists[modifier]
        usable = [index for index in range(best, -1, -1) if node.node_zones[index].size]
        for slot in range(MAX_NR_ZONES + 1):
            zonelist.zones[slot] = (
                pgdat + usable[slot] * image.structs.zone_t.size if slot < len(usable) else 0
            )


def runs(mask: npt.NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """[first, end) of each stretch of marks. A slice is many times cheaper than a mask."""
    edges = np.flatnonzero(np.diff(mask, prepend=False, append=False)).tolist()
    yield from zip(edges[0::2], edges[1::2], strict=True)


def free_frames(
    memmap: MemMap, zone: Zone, free: npt.NDArray[np.bool_], *, descending: bool = False
) -> int:
    """Free the frames marked in ``free`` (one flag a frame of the zone), whose lists are empty.

    The result is that of ``__free_page()`` on each in turn, upwards or ``descending``: a block
    is put at the head of its list when its last frame comes, so the latest stands first.
    Returns the number of frames.
    """
    count = int(np.count_nonzero(free))
    rows = memmap.rows(int(zone.view.zone_mem_map), zone.size)
    clear = np.uint32(~(1 << PG_RESERVED | 1 << PG_REFERENCED | 1 << PG_DIRTY) & 0xFFFFFFFF)
    for first, end in runs(free):
        rows[first:end, memmap.flags_word] &= clear
        rows[first:end, memmap.count_word] = 0
    whole = free
    for order in range(MAX_ORDER):
        if order == MAX_ORDER - 1:
            alone = whole
        else:
            if len(whole) % 2:
                whole = np.append(whole, False)
            left, right = whole[0::2], whole[1::2]
            bits = np.packbits(left ^ right, bitorder="little").tobytes()
            zone.bitmap(order).write(0, len(left), int.from_bytes(bits, "little"))
            merged = left & right
            alone = whole & ~np.repeat(merged, 2)
        heads = np.flatnonzero(alone).astype(np.int64) << order
        _link(memmap, zone, order, heads if descending else heads[::-1])
        whole = merged
    zone.free_pages += count
    return count


def _link(memmap: MemMap, zone: Zone, order: int, heads: npt.NDArray[np.int64]) -> None:
    """Chain the blocks whose first frames are ``heads`` into the empty list of ``order``."""
    if not len(heads):
        return
    head = zone.free_list(order)
    pages = int(zone.view.zone_mem_map) + heads * memmap.page_bytes
    ring = np.concatenate(([head], pages, [head]))
    rows = memmap.rows(int(zone.view.zone_mem_map), zone.size)
    rows[heads, memmap.list_word] = ring[2:]
    rows[heads, memmap.list_word + 1] = ring[:-2]
    index = head - PAGE_OFFSET >> 2
    memmap.words[index], memmap.words[index + 1] = int(pages[0]), int(pages[-1])
