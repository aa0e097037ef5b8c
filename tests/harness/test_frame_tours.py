# SPDX-License-Identifier: GPL-2.0-or-later
"""Tours of the machine of frames: the steps that show a part of it best, on both releases.

Faults that random steps meet late are planted here. A tour is data: which step, with what; a step
that a release does not have is left out.
"""

from collections.abc import Callable
from typing import Any

import pytest

from kernel_model.errors import MmucheckError
from kernel_model.mm.buddy import Buddy
from kernel_model.mm.filemap.linux_2_6.cache import RadixPageCache
from kernel_model.mm.linux_2_4.page_alloc import PageAllocator24
from kernel_model.mm.linux_2_6.buddy import Buddy26
from kernel_model.mm.linux_2_6.mmzone import COLD, HOT, PerCpuPages
from kernel_model.mm.linux_2_6.page_alloc import PageAllocator26
from kernel_model.mm.rmap.interface import SwapResult
from kernel_model.mm.rmap.object_walk import ObjectWalk
from kernel_model.mm.swap_state import SwapCache
from kernel_model.mm.vmscan import Vmscan
from tests.harness.frame_state_machine import FrameMachine, FrameMachine24, FrameMachine26

Fault = Callable[[pytest.MonkeyPatch], None]
Step = tuple[str, dict[str, Any]]
MACHINES: dict[str, type[FrameMachine]] = {"2.4": FrameMachine24, "2.6": FrameMachine26}


def take(more: str, order: int, times: int) -> Step:
    return "take", {"mask": ("atomic", more), "order": order, "times": times}


def give_back(start: int, count: int, step: int = 1) -> Step:
    return "give_back", {"start": start, "count": count, "step": step}


LISTS = [
    *(take("", 0, 40), take("cold", 0, 20), take("dma", 0, 20), take("highmem", 0, 20)),
    *(take("", 1, 3), take("", 2, 3), take("", 5, 2), take("", 9, 1)),
    ("use_twice", {"which": 3}),
    ("run_on", {"cpu": 1}),
    *(give_back(0, 40, 2), take("", 0, 8), take("cold", 0, 3)),
    *(("give_many_back", {"count": 20, "cold": kind}) for kind in (COLD, HOT)),
    ("drain", {}),
    ("run_on", {"cpu": 0}),
    *(give_back(0, 200), take("cold", 0, 2), ("drain", {}), take("", 9, 2)),
]
"""Frames go out and come back, in every way; then blocks are whole again."""
SCARCITY = [
    *(take("highmem", 0, 150), take("", 2, 4), take("", 0, 150), take("dma", 3, 4)),
    *(take("dma", 0, 300), give_back(0, 5), take("highmem", 0, 10), take("dma", 0, 10)),
]
"""Until nobody who cannot wait gets any."""
RECLAIM = [
    ("grow_program", {"which": 0, "count": 60}),
    ("read_a_file", {"count": 40, "mask": "highuser"}),
    *(("swap_out", {"write": True, "back": back}) for back in (False, False, True)),
    ("reclaim", {"mask": "kernel", "wanted": 64}),
    ("kswapd", {}),
    ("exit_program", {"which": 0}),
]
"""Frames are taken from a program and from a file, and come back."""
TOURS: dict[str, tuple[list[Step], int]] = {
    "lists": (LISTS, 100_000),
    "scarcity": (SCARCITY, 350),
    "reclaim": (RECLAIM, 100_000),
}
"""The steps, and how many frames are free before."""


def go(release: str, build: str, tour: str) -> None:
    steps, room = TOURS[tour]
    machine = begin(release, build, steps, room)
    machine.teardown()


def begin(release: str, build: str, steps: list[Step], room: int) -> FrameMachine:
    machine = MACHINES[release]()
    machine.boot(list(machine.machines).index(build), room)
    for name, arguments in steps:
        if hasattr(machine, name):
            getattr(machine, name)(**arguments)
            machine.each_frame_has_one_owner()
    return machine


@pytest.mark.parametrize("tour", TOURS)
@pytest.mark.parametrize(
    ("release", "build"),
    [(release, build) for release, machine in MACHINES.items() for build in machine.machines],
)
def test_tour(release: str, build: str, tour: str) -> None:
    go(release, build, tour)


@pytest.mark.parametrize("release", MACHINES)
def test_frames_of_a_program_go_to_swap(release: str) -> None:
    machine = begin(release, "uniform", RECLAIM[:3], 100_000)
    assert sum(machine.kernel.swap_areas.counts(0)[1:]) > 60


# -- faults of what both share -------------------------------------------------------------------


def a_frame_read_back_is_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """The swap cache hands out its own reference."""
    real = SwapCache.read

    def borrowed(self: Any, entry: int) -> int:
        page = real(self, entry)
        if page:
            self._memmap.set_count(page, self._memmap.count(page) - 1)
        return page

    monkeypatch.setattr(SwapCache, "read", borrowed)


# -- faults of 2.4 -------------------------------------------------------------------------------


def watermarks_are_too_high(monkeypatch: pytest.MonkeyPatch) -> None:
    real = PageAllocator24._take

    def stingy(self: Any, zones: list[Buddy], order: int, marks: list[int]) -> int:
        return real(self, zones, order, [4 * mark for mark in marks])

    monkeypatch.setattr(PageAllocator24, "_take", stingy)


def watermarks_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    real = PageAllocator24._take

    def lavish(self: Any, zones: list[Buddy], order: int, marks: list[int]) -> int:
        page = real(self, zones, order, marks)
        return page or next((page for zone in zones if (page := zone.rmqueue(order))), 0)

    monkeypatch.setattr(PageAllocator24, "_take", lavish)


def large_blocks_are_not_merged(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Buddy.merge

    def merge(self: Any, index: int, order: int) -> None:
        if order < 3 or order == 9:
            real(self, index, order)
            return
        self.free_pages += 1 << order
        self._toggle(order, index)
        self._lists.add(self.mem_map + index * self._page_bytes, self._heads[order])

    monkeypatch.setattr(Buddy, "merge", merge)


def a_mapped_page_loses_its_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reclaim forgets that a process has the frame, too."""

    def freeable(self: Any, page: int) -> bool:
        if self._swap_cache.entry(page):
            self._memmap.set_count(page, 1)
            return True
        return real(self, page)

    real = Vmscan._freeable
    monkeypatch.setattr(Vmscan, "_freeable", freeable)


# -- faults of 2.6 -------------------------------------------------------------------------------


def a_frame_comes_back_to_another_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    real = PageAllocator26.free_hot_cold_page

    def free_hot_cold_page(self: Any, page: int, cold: int) -> None:
        task, other = self.current, self._image.config.nr_cpus - 1
        here, task.processor = int(task.processor), other
        real(self, page, cold)
        task.processor = here

    monkeypatch.setattr(PageAllocator26, "free_hot_cold_page", free_hot_cold_page)


def cold_frames_are_taken_for_hot_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    real = PageAllocator26.free_hot_cold_page
    monkeypatch.setattr(
        PageAllocator26, "free_hot_cold_page", lambda self, page, cold: real(self, page, 0)
    )


def only_hot_frames_are_drained(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Buddy26.free_pages_bulk

    def free_pages_bulk(self: Any, pcp: PerCpuPages, count: int) -> int:
        return real(self, pcp, count) if pcp.low else 0

    monkeypatch.setattr(Buddy26, "free_pages_bulk", free_pages_bulk)


def a_list_grows_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PerCpuPages, "high", 1 << 30)


def a_list_is_filled_up_too_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PerCpuPages, "low", 0)


def the_last_of_a_list_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    def add(self: Any, pcp: PerCpuPages, count: int) -> int:
        for taken in range(count):
            page = self.rmqueue(0)
            if not page:
                return taken
            self._lists.add(page + self._link, pcp.list)
        return count

    monkeypatch.setattr(Buddy26, "rmqueue_bulk", add)


def large_blocks_of_2_6_are_not_merged(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Buddy26.merge

    def merge(self: Any, page: int, order: int) -> None:
        if order < 2:
            real(self, page, order)
            return
        self.free_pages += 1 << order
        self._put(page, order)

    monkeypatch.setattr(Buddy26, "merge", merge)


def a_cached_frame_is_freed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = RadixPageCache.remove_inode_page

    def only_off_the_tree(self: Any, page: int) -> None:
        mapping = self.pages.page_mapping(page)
        real(self, page)
        self._words[self._memmap.word(page, self._mapping)] = mapping

    monkeypatch.setattr(RadixPageCache, "remove_inode_page", only_off_the_tree)


def a_frame_is_unmapped_in_words_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reference of the page goes, its PTE stays."""

    def try_to_unmap(self: Any, page: int) -> SwapResult:
        self._memmap.set_count(page, 2)
        return SwapResult.SUCCESS

    monkeypatch.setattr(ObjectWalk, "try_to_unmap", try_to_unmap)


def nothing_is_kept_from_higher_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Buddy26.watermark_ok
    monkeypatch.setattr(
        Buddy26,
        "watermark_ok",
        lambda self, order, mark, classzone_idx, **how: real(self, order, mark, self.index, **how),
    )


def marks_of_2_6_are_too_high(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Buddy26.watermark_ok
    monkeypatch.setattr(
        Buddy26,
        "watermark_ok",
        lambda self, order, mark, *rest, **how: real(self, order, 2 * mark, *rest, **how),
    )


def marks_of_2_6_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Buddy26, "watermark_ok", lambda self, *rest, **how: True)


def whoever_cannot_wait_gets_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Buddy26.watermark_ok
    monkeypatch.setattr(
        Buddy26,
        "watermark_ok",
        lambda self, *rest, try_harder=False, high=False: real(self, *rest, high=high),
    )


FAULTS: dict[tuple[str, str, str], list[Fault]] = {
    ("2.4", "uniform", "lists"): [large_blocks_are_not_merged],
    ("2.4", "uniform", "scarcity"): [watermarks_are_too_high, watermarks_are_ignored],
    ("2.4", "uniform", "reclaim"): [
        a_mapped_page_loses_its_frame,
        a_frame_read_back_is_not_held,
    ],
    ("2.6", "cpus", "lists"): [
        a_frame_comes_back_to_another_cpu,
        cold_frames_are_taken_for_hot_ones,
        only_hot_frames_are_drained,
        a_list_grows_without_end,
        a_list_is_filled_up_too_late,
        the_last_of_a_list_is_taken,
        large_blocks_of_2_6_are_not_merged,
    ],
    ("2.6", "highmem", "scarcity"): [
        nothing_is_kept_from_higher_requests,
        marks_of_2_6_are_too_high,
        marks_of_2_6_are_ignored,
        whoever_cannot_wait_gets_no_more,
    ],
    ("2.6", "uniform", "reclaim"): [
        a_cached_frame_is_freed,
        a_frame_read_back_is_not_held,
        a_frame_is_unmapped_in_words_only,
    ],
}


@pytest.mark.parametrize(
    ("where", "fault"),
    [
        pytest.param(where, fault, id=f"{where[0]}-{fault.__name__}")
        for where, faults in FAULTS.items()
        for fault in faults
    ],
)
def test_planted_faults_are_found(
    where: tuple[str, str, str], fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    with pytest.raises((AssertionError, MmucheckError)):
        go(*where)
