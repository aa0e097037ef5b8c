# SPDX-License-Identifier: GPL-2.0-or-later
"""Planted faults of the model that the recorded answers find."""

from collections.abc import Callable
from typing import Any

import pytest

from harness.replay import replay
from kernel_model.arch_i386 import init, layout
from kernel_model.arch_i386.fixmap import PKMAP_BASE
from kernel_model.bitops import Bitmap
from kernel_model.lists import Lists
from kernel_model.mm import free_area
from kernel_model.mm.bootmem import Bootmem
from kernel_model.mm.buddy import Buddy
from tests.harness.replay.test_replay import (
    RECORDED,
)

# -- planted faults in the model -----------------------------------------------------------------

Patch = Callable[[pytest.MonkeyPatch], None]


def last_offset_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Bootmem._alloc_core

    def forgetful(self: Bootmem, bdata: Any, *arguments: int) -> int:
        vaddr = real(self, bdata, *arguments)
        bdata.last_offset = 0
        return vaddr

    monkeypatch.setattr(Bootmem, "_alloc_core", forgetful)


def reserving_rounds_down(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Bootmem._reserve_core

    def down(self: Bootmem, bdata: Any, addr: int, size: int) -> None:
        real(self, bdata, addr, size & ~0xFFF or size)

    monkeypatch.setattr(Bootmem, "_reserve_core", down)


def freeing_rounds_up(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Bootmem._free_core

    def up(self: Bootmem, bdata: Any, addr: int, size: int) -> None:
        real(self, bdata, addr, -(-size // 4096) * 4096)

    monkeypatch.setattr(Bootmem, "_free_core", up)


def no_merging(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(self: Bootmem, bdata: Any, start: int, size: int, align: int) -> tuple[int, int]:
        frames = -(-size // 4096)
        bdata.last_pos, bdata.last_offset = start + frames - 1, size % 4096
        return start * 4096 + bdata.node_boot_start, frames

    monkeypatch.setattr(Bootmem, "_merge", never)


def goal_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Bootmem._first_fit
    monkeypatch.setattr(
        Bootmem,
        "_first_fit",
        lambda self, bdata, size, align, goal: real(self, bdata, size, align, 0),
    )


def one_frame_stays_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Bitmap.value
    monkeypatch.setattr(Bitmap, "value", lambda self: real(self) | 1 << self.length - 1)


@pytest.mark.parametrize(
    "fault",
    [
        last_offset_is_forgotten,
        reserving_rounds_down,
        freeing_rounds_up,
        no_merging,
        goal_is_ignored,
        one_frame_stays_behind,
    ],
)
def test_a_fault_in_the_boot_allocator_is_found(
    fault: Patch, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    assert not replay(RECORDED / "bootmem_16MB.json.gz").ok


def identity_map_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(init.PagingInit, "zap_low_mappings", lambda self: None)


def direct_map_is_not_global(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(init, "PAGE_GLOBAL", 0)


def no_table_for_kmap(monkeypatch: pytest.MonkeyPatch) -> None:
    real = init.PagingInit.fixrange_init

    def without_pkmap(self: init.PagingInit, start: int, end: int) -> None:
        real(self, start, end + (4 << 20) if start == PKMAP_BASE else end)

    monkeypatch.setattr(init.PagingInit, "fixrange_init", without_pkmap)


def dma_zone_is_a_page_short(monkeypatch: pytest.MonkeyPatch) -> None:
    real = layout.zone_sizes

    def shifted(low: int, high: int) -> list[int]:
        dma, normal, highmem = real(low, high)
        return [dma - 1, normal + 1, highmem]

    monkeypatch.setattr(layout, "zone_sizes", shifted)


def high_memory_is_not_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(init.MemInit, "_free_highmem", lambda self: 0)


def the_log_is_one_character_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(init, "CODE_BYTES", init.CODE_BYTES + 1024)


@pytest.mark.parametrize(
    ("fault", "where"),
    [
        (identity_map_stays, "after_mem_init.pgd[0]"),
        (direct_map_is_not_global, "after_paging_init.pgd[768]"),
        (no_table_for_kmap, "after_paging_init"),
        (dma_zone_is_a_page_short, "after_paging_init"),
        (high_memory_is_not_freed, "after_mem_init.nr_free_pages"),
        (the_log_is_one_character_off, "printk"),
        (reserving_rounds_down, "after_setup_memory.free_runs[1]"),
    ],
)
def test_a_fault_in_booting_is_found(
    fault: Patch, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    difference = replay(RECORDED / "setup_1024MB_highmem.json.gz").difference
    assert difference is not None
    assert where in difference.where


def watermarks_are_half(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(free_area, "ZONE_BALANCE_RATIO", (256, 256, 256))


def mem_map_is_not_aligned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        free_area,
        "_alloc_mem_map",
        lambda image, bootmem, pgdat, pages: bootmem.alloc_bootmem_node(
            pgdat, (pages + 1) * image.structs.page.size
        ),
    )


def lists_run_upwards(monkeypatch: pytest.MonkeyPatch) -> None:
    real = free_area._link
    monkeypatch.setattr(
        free_area,
        "_link",
        lambda memmap, zone, order, heads: real(memmap, zone, order, heads[::-1]),
    )


@pytest.mark.parametrize(
    ("fault", "where"),
    [
        (watermarks_are_half, "nr_free_buffer_pages"),
        (mem_map_is_not_aligned, "mem_map_phys"),
        (high_memory_is_not_freed, "totalram_pages"),
        (dma_zone_is_a_page_short, "nr_free_buffer_pages"),
    ],
)
def test_a_fault_in_the_zones_is_found(
    fault: Patch, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    difference = replay(RECORDED / "zones_1024MB_highmem.json.gz").difference
    assert difference is not None
    assert difference.where == where


def cuts_from_the_wrong_end(monkeypatch: pytest.MonkeyPatch) -> None:
    def lower_half(self: Buddy, page: int, index: int, low: int, high: int) -> int:
        while high > low:
            high -= 1
            upper = index + (1 << high)
            self._lists.add(self.mem_map + upper * self._page_bytes, self.free_list(high))
            self._toggle(high, index)
        return page

    monkeypatch.setattr(Buddy, "_expand", lower_half)


def freed_blocks_go_to_the_tail(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Buddy.merge

    class TailLists(Lists):
        def add(self, entry: int, head: int) -> None:
            super().add(entry, self.last(head))

    def merge(self: Buddy, index: int, order: int) -> None:
        kept, self._lists = self._lists, TailLists(self._image.ram)
        real(self, index, order)
        self._lists = kept

    monkeypatch.setattr(Buddy, "merge", merge)


@pytest.mark.parametrize(
    ("fault", "where"),
    [
        (cuts_from_the_wrong_end, "alloc.pfn"),
        (freed_blocks_go_to_the_tail, "initial.zones[0].free_lists[0][0]"),
        (lists_run_upwards, "initial"),
        (watermarks_are_half, "watermarks"),
    ],
)
def test_a_fault_in_the_page_allocator_is_found(
    fault: Patch, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    difference = replay(RECORDED / "buddy_16MB.json.gz").difference
    assert difference is not None
    assert where in difference.where
