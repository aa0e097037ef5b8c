# SPDX-License-Identifier: GPL-2.0-or-later
"""Zones as made at boot; freeing in bulk is freeing one by one."""

import gzip
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel_model.config import MIB, E820Entry, Highmem, KernelConfig
from kernel_model.errors import KernelBug
from kernel_model.kernel import Kernel, boot
from kernel_model.mm.free_area import (
    free_area_init,
    free_area_init_core,
    free_frames,
    wait_table_size,
)
from kernel_model.mm.mmzone import Zone
from kernel_model.mm.page_flags import PG_REFERENCED, PG_RESERVED
from tests.kernel_model.mm.free_lists import check_zone, free_blocks, pair_bits, zones

FRAMES = 16 * MIB // 4096


def kernel_with_zones(*sizes: int, highmem: Highmem = Highmem.NONE) -> Kernel:
    """Zones of these sizes in frames, all still reserved; the frames need not exist."""
    kernel = Kernel(KernelConfig(e820=(E820Entry(0, 16 * MIB),), highmem=highmem))
    kernel.bootmem.init_bootmem(1100, FRAMES)
    kernel.bootmem.free_bootmem(5 * MIB, 11 * MIB)
    free_area_init(kernel.image, kernel.bootmem, [*sizes, 0, 0][:3])
    return kernel


def free_one_by_one(kernel: Kernel, zone: Zone, mask: list[bool], *, descending: bool) -> None:
    memmap, start = kernel.allocator.memmap, int(zone.view.zone_start_mapnr)
    indices = range(zone.size - 1, -1, -1) if descending else range(zone.size)
    for index in indices:
        if mask[index]:
            page = memmap.page(start + index)
            memmap.clear_bit(page, PG_RESERVED)
            memmap.set_count(page, 1)
            kernel.allocator.free_page(page)


def state(kernel: Kernel, zone: Zone) -> dict[str, Any]:
    memmap, start = kernel.allocator.memmap, int(zone.view.zone_start_mapnr)
    pages = [memmap.page(start + index) for index in range(zone.size)]
    return {
        "lists": free_blocks(kernel, zone),
        "bitmaps": [pair_bits(kernel, zone, order) for order in range(9)],
        "free_pages": zone.free_pages,
        "flags": [memmap.flags(page) for page in pages],
        "counts": [memmap.count(page) for page in pages],
    }


@st.composite
def masks(draw: st.DrawFn) -> list[bool]:
    """Zones of any size up to a few of the largest blocks, holes of every shape."""
    size = draw(st.integers(1, 70) | st.integers(500, 1300) | st.sampled_from([512, 1024, 1536]))
    runs: list[bool] = []
    while len(runs) < size:
        length = draw(st.integers(1, 9) | st.sampled_from([64, 512, size]))
        runs += [draw(st.booleans())] * length
    return runs[:size]


@pytest.mark.book("5.6", "6.1", "6.3")
@given(mask=masks(), before=st.integers(0, 40), descending=st.booleans())
def test_freeing_in_bulk_is_freeing_one_by_one(
    mask: list[bool], before: int, descending: bool
) -> None:
    """Also in a zone that does not begin at a multiple of the largest block."""
    sizes = [before, len(mask)] if before else [len(mask)]
    bulk, single = kernel_with_zones(*sizes), kernel_with_zones(*sizes)
    count = free_frames(
        bulk.allocator.memmap, zones(bulk)[-1], np.array(mask), descending=descending
    )
    assert count == sum(mask)
    free_one_by_one(single, zones(single)[-1], mask, descending=descending)
    assert state(bulk, zones(bulk)[-1]) == state(single, zones(single)[-1])
    check_zone(bulk, zones(bulk)[-1])
    if before:
        assert check_zone(bulk, zones(bulk)[0]) == set()


def test_bulk_and_single_differ_when_the_order_of_freeing_does() -> None:
    """The comparison above can fail: upwards and downwards give other lists."""
    mask = [index % 2 == 0 for index in range(64)]
    up, down = kernel_with_zones(64), kernel_with_zones(64)
    free_frames(up.allocator.memmap, zones(up)[0], np.array(mask))
    free_one_by_one(down, zones(down)[0], mask, descending=True)
    assert state(up, zones(up)[0]) != state(down, zones(down)[0])
    assert free_blocks(up, zones(up)[0])[0][0] == 62
    assert free_blocks(down, zones(down)[0])[0][0] == 0


def test_freeing_cleans_the_flags_of_the_freed_alone() -> None:
    kernel = kernel_with_zones(8)
    memmap, (zone,) = kernel.allocator.memmap, zones(kernel)
    for index in range(8):
        memmap.set_bit(memmap.page(index), PG_REFERENCED)
    free_frames(memmap, zone, np.arange(8) == 3)
    flags = [memmap.flags(memmap.page(index)) for index in range(8)]
    dirty = 1 << PG_REFERENCED | 1 << PG_RESERVED
    assert flags == [0 if index == 3 else dirty for index in range(8)]


@pytest.mark.book("2.2.3")
@pytest.mark.parametrize(
    ("pages", "queues"),
    [(1, 1), (255, 1), (511, 1), (512, 2), (4096, 16), (225280, 1024), (1 << 20, 4096)],
)
def test_wait_queues_are_a_power_of_two_for_256_pages_each(pages: int, queues: int) -> None:
    assert wait_table_size(pages) == queues


@pytest.mark.book("2.2.1")
@pytest.mark.parametrize(
    ("pages", "least"), [(1, 20), (2559, 20), (2688, 21), (4096, 32), (32640, 255), (150000, 255)]
)
def test_watermarks_are_a_128th_within_20_and_255(pages: int, least: int) -> None:
    zone = zones(kernel_with_zones(pages, highmem=Highmem.NONE))[0]
    view = zone.view
    assert (view.pages_min, view.pages_low, view.pages_high) == (least, 2 * least, 3 * least)


def test_watermarks_count_the_frames_that_are_there() -> None:
    kernel = kernel_with_zones(64)
    pgdat = kernel.image.symbol("contig_page_data")
    free_area_init_core(kernel.image, kernel.bootmem, 0, pgdat, [8192, 0, 0], 0, [4096, 0, 0])
    assert zones(kernel)[0].view.pages_min == 32
    assert zones(kernel)[0].view.wait_table_size == 32
    assert "On node 0 totalpages: 4096\n" in kernel.log


def test_a_zone_off_the_largest_block_says_so_in_the_log() -> None:
    line = "BUG: wrong zone alignment, it will crash\n"
    assert line not in kernel_with_zones(512, 512).log
    assert kernel_with_zones(256, 512).log.endswith(
        f"zone(1): 512 pages.\n{line}zone(2): 0 pages.\n"
    )
    odd = KernelConfig(ram=128 * MIB, highmem=Highmem.GB4, highmem_pages=3 << 8)
    assert line in boot(odd).log


def test_a_zone_inside_a_page_is_a_bug() -> None:
    kernel = kernel_with_zones(64)
    pgdat = kernel.image.symbol("contig_page_data")
    with pytest.raises(KernelBug, match="inside a page"):
        free_area_init_core(kernel.image, kernel.bootmem, 0, pgdat, [64, 0, 0], 100)


@pytest.mark.book("2.0", "2.3", "2.4", "2.6")
def test_every_frame_begins_reserved_in_its_zone_with_an_empty_list() -> None:
    kernel = kernel_with_zones(4096, 40, 9, highmem=Highmem.GB4)
    memmap, page_struct = kernel.allocator.memmap, kernel.image.structs.page
    for pfn in (0, 1, 4095, 4096, 4135, 4136, 4144):
        page = memmap.page(pfn)
        view: Any = kernel.image.at(page_struct, page)
        zone = (pfn >= 4096) + (pfn >= 4136)
        assert (view.list.next, view.list.prev) == (page, page)
        assert (view.count, view.flags) == (0, zone << 24 | 1 << PG_RESERVED)
        assert view.virtual == (0xC0000000 + (pfn << 12) if zone < 2 else 0)
        assert kernel.allocator.page_zone(page).vaddr == zones(kernel)[zone].vaddr
    assert [zone.name for zone in zones(kernel)] == ["DMA", "Normal", "HighMem"]
    first = kernel.image.at(page_struct, memmap.page(0))
    assert (memmap.page(0) - 0xC0000000) % page_struct.size == 0, first


@pytest.mark.book("2.1")
@pytest.mark.parametrize(
    ("sizes", "expected"),
    [
        ((4096, 100, 50), {0: [1, 0], 1: [0], 2: [2, 1, 0], 3: [0]}),
        ((4096, 100, 0), {0: [1, 0], 1: [0], 2: [1, 0], 3: [0]}),
        ((100, 0, 0), {0: [0], 1: [0], 2: [0], 3: [0]}),
        ((0, 100, 50), {0: [1], 1: [], 2: [2, 1], 3: []}),
    ],
)
def test_zonelists_run_from_the_best_zone_downwards(
    sizes: tuple[int, int, int], expected: dict[int, list[int]]
) -> None:
    kernel = kernel_with_zones(*sizes)
    pgdat, size = kernel.image.symbol("contig_page_data"), kernel.image.structs.zone_t.size
    for modifier in range(16):
        entries = list(kernel.statics.contig_page_data.node_zonelists[modifier].zones)
        zones_of = [pgdat + index * size for index in expected[modifier & 3]]
        assert entries == zones_of + [0] * (4 - len(zones_of))


RECORDED = Path(__file__).parents[2] / "data" / "linux-2.4.22"


@pytest.mark.book("2.2", "2.3", "2.4", "2.5")
@pytest.mark.parametrize("name", ["16MB", "128MB", "1024MB_highmem"])
def test_flags_and_counts_of_all_frames_are_those_of_the_real_kernel(name: str) -> None:
    packed = (RECORDED / f"zones_{name}.json.gz").read_bytes()
    recorded = json.loads(gzip.decompress(packed))
    highmem = Highmem.GB4 if recorded["highmem"] else Highmem.NONE
    kernel = Kernel(
        KernelConfig(ram=recorded["mem_mb"] * MIB, highmem=highmem, register_memory=False)
    )
    kernel.start_kernel(until="mem_init")
    memmap = kernel.allocator.memmap
    for first, count, flags, users in recorded["page_runs"]:
        for pfn in {first, first + count // 2, first + count - 1}:
            page = memmap.page(pfn)
            assert (pfn, memmap.flags(page), memmap.count(page)) == (pfn, flags, users)
    counts = [zone["free_blocks_per_order"] for zone in recorded["zones"] if zone["size"]]
    assert [zone.free_counts() for zone in zones(kernel)] == counts
