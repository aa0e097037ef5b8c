# SPDX-License-Identifier: GPL-2.0-or-later
"""The end of boot memory: what was free there is free in the buddy allocator, no more, no less."""

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel_model.config import MIB, E820Entry, Highmem, KernelConfig
from kernel_model.kernel import Kernel
from kernel_model.mm.free_area import free_area_init
from kernel_model.mm.page_flags import PG_RESERVED
from kernel_model.mm.retire_bootmem import free_all_bootmem
from tests.kernel_model.mm.free_lists import check_zone, free_blocks, pair_bits, zones


def until_mem_init(config: KernelConfig) -> Kernel:
    kernel = Kernel(config)
    kernel.start_kernel(until="mem_init")
    return kernel


RECORDED = Path(__file__).parents[2] / "data" / "linux-2.4.22"


@pytest.mark.book("5.6")
@given(
    frames=st.integers(2000, 5000),
    reserved=st.lists(st.tuples(st.integers(1300, 4999), st.integers(1, 700)), max_size=8),
)
def test_what_the_boot_map_calls_free_is_free_afterwards(
    frames: int, reserved: list[tuple[int, int]]
) -> None:
    """Also zones and maps that end inside a byte; the map's own pages are freed at last."""
    kernel = Kernel(KernelConfig(e820=(E820Entry(0, 20 * MIB),)))
    bootmem = kernel.bootmem
    bootmem.init_bootmem(1100, frames)
    bootmem.free_bootmem(1300 << 12, (frames - 1300) << 12)
    dma = min(frames, 4096)
    free_area_init(kernel.image, bootmem, [dma, frames - dma, 0])
    for first, count in reserved:
        if first < frames:
            bootmem.reserve_bootmem(first << 12, min(count, frames - first) << 12)
    bitmap = bootmem.bitmap(kernel.statics.contig_bootmem_data)
    clear = {pfn for pfn in range(frames) if not bitmap.test(pfn)}
    map_pages = set(range(1100, 1100 + (frames // 8 + 4095) // 4096))
    pgdat = kernel.image.symbol("contig_page_data")
    assert free_all_bootmem(kernel.image, bootmem, kernel.allocator, pgdat) == len(
        clear | map_pages
    )
    free = set[int]().union(*(check_zone(kernel, zone) for zone in zones(kernel)))
    assert free == clear | map_pages
    memmap = kernel.allocator.memmap
    assert free == {p for p in range(frames) if not memmap.test(memmap.page(p), PG_RESERVED)}
    assert kernel.statics.contig_bootmem_data.node_bootmem_map == 0
    assert (bootmem.calls[-1].function, bootmem.calls[-1].result) == (
        "free_all_bootmem",
        len(free),
    )


@pytest.mark.book("5.6", "6.1")
@pytest.mark.parametrize("name", ["16MB", "128MB", "896MB", "1024MB_highmem"])
def test_lists_in_order_and_bitmaps_are_those_of_the_real_kernel(name: str) -> None:
    packed = (RECORDED / f"buddy_{name}.json.gz").read_bytes()
    recorded = json.loads(gzip.decompress(packed))
    kernel = until_mem_init(
        KernelConfig(
            ram=recorded["mem_mb"] * MIB,
            highmem=Highmem.GB4 if recorded["highmem"] else Highmem.NONE,
            register_memory=bool(recorded["register_memory_called"]),
        )
    )
    expected = [zone for zone in recorded["initial"]["zones"] if zone["size"]]
    assert [free_blocks(kernel, zone) for zone in zones(kernel)] == [
        zone["free_lists"] for zone in expected
    ]
    bitmaps = [
        [
            pair_bits(kernel, zone, order)[: len(hexed) // 2].hex()
            for order, hexed in enumerate(maps)
        ]
        for zone, maps in zip(
            zones(kernel), (zone["bitmaps_hex"][:9] for zone in expected), strict=True
        )
    ]
    assert bitmaps == [zone["bitmaps_hex"][:9] for zone in expected]
    assert kernel.allocator.nr_free_pages() == recorded["initial"]["nr_free_pages"]
    for zone in zones(kernel):
        check_zone(kernel, zone)


@pytest.mark.book("5.6")
def test_after_boot_all_low_ram_is_free_reserved_or_in_use() -> None:
    kernel = until_mem_init(KernelConfig(ram=32 * MIB))
    memmap = kernel.allocator.memmap
    free = set[int]().union(*(check_zone(kernel, zone) for zone in zones(kernel)))
    for pfn in range(32 * MIB >> 12):
        page = memmap.page(pfn)
        assert memmap.test(page, PG_RESERVED) == (pfn not in free)
        assert memmap.count(page) == 0
    assert free.isdisjoint({0, *range(0x9F, 0x100), *range(0x100, 0x400)})
    assert 0x400 in free, "the page of the boot map itself is given back"
