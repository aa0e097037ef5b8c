# SPDX-License-Identifier: GPL-2.0-or-later
"""Zones, the buddy allocator and nodes: the real kernel's answers replay equal, and a model or
a trace that is wrong is found where it is wrong."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.replay import replay
from kernel_model.lists import Lists
from kernel_model.mm import free_area
from kernel_model.mm.buddy import Buddy
from kernel_model.mm.linux_2_4.page_alloc import PageAllocator24
from kernel_model.mm.mmzone import Zone
from kernel_model.mm.numa import NumaPageAllocator
from tests.harness.replay.changed_traces import found, shortened

RECORDED = Path(__file__).parents[2] / "data" / "linux-2.4.22"

Patch = Callable[[pytest.MonkeyPatch], None]


def names(topic: str) -> list[str]:
    return sorted(path.name for path in RECORDED.glob(f"{topic}_*.json.gz"))


def load(name: str, traces: int | None = None, ops: int | None = None) -> dict[str, Any]:
    """A copy of a recorded file, with its first ``traces`` and their first ``ops`` only."""
    return shortened(RECORDED / name, None if traces is None else slice(traces), ops)


# -- what was recorded ---------------------------------------------------------------------------


def test_the_recorded_files_are_there() -> None:
    counts = {topic: len(names(topic)) for topic in ("zones", "buddy", "buddy_exhaust", "numa")}
    assert counts == {"zones": 14, "buddy": 8, "buddy_exhaust": 4, "numa": 2}


@pytest.mark.book("2.1", "2.2", "2.2.1", "2.2.2", "2.2.3", "2.3", "2.4", "2.5", "2.6", "5.6")
@pytest.mark.parametrize("name", names("zones"))
def test_zones_are_those_of_the_real_kernel(name: str) -> None:
    result = replay(RECORDED / name)
    assert (result.topic, result.difference) == ("zones", None)
    assert result.compared > 240


@pytest.mark.book("6.1", "6.2", "6.3", "6.4", "6.5", "2.2.1")
@pytest.mark.parametrize("name", names("buddy"))
def test_each_allocation_is_answered_as_by_the_real_kernel(name: str) -> None:
    result = replay(RECORDED / name)
    assert (result.topic, result.difference) == (
        name.rsplit("_", name.count("highmem") + 1)[0],
        None,
    )
    assert result.compared > 16_000


@pytest.mark.book("2.1", "2.4", "5.1", "6.2", "6.4")
@pytest.mark.parametrize("name", names("numa"))
def test_nodes_take_turns_or_prefer_their_own(name: str) -> None:
    result = replay(RECORDED / name)
    assert (result.topic, result.difference) == ("numa", None)
    assert result.compared > 50_000


# -- planted differences -------------------------------------------------------------------------


def at(data: Any, keys: tuple[str | int, ...], change: Callable[[Any], Any]) -> None:
    for key in keys[:-1]:
        data = data[key]
    data[keys[-1]] = change(data[keys[-1]])


def one_more(value: int) -> int:
    return value + 1


def leaves(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The way to every number, text and null of a JSON value."""
    if isinstance(value, dict):
        return [leaf for key, item in value.items() for leaf in leaves(item, (*path, key))]
    if isinstance(value, list):
        return [leaf for n, item in enumerate(value) for leaf in leaves(item, (*path, n))]
    return [path]


def other(value: Any) -> Any:
    """Something else of the same kind."""
    if isinstance(value, str):
        return value + "0"
    return 1 if value is None else value + 1


NOT_COMPARED = {"topic", "config", "abi", "mem_mb", "highmem", "pse", "pge"}
"""What describes the machine that was recorded, which is what the model is then made of."""


@pytest.mark.parametrize("share", range(4))
def test_every_value_of_a_zones_trace_is_compared(share: int, tmp_path: Path) -> None:
    """Each leaf in turn is changed; every change must be found."""
    data = load("zones_16MB.json.gz")
    paths = [
        path for path in leaves(data) if path[0] not in NOT_COMPARED | {"register_memory_called"}
    ]
    assert len(paths) > 200
    missed = []
    for path in paths[share::4]:
        changed = copy.deepcopy(data)
        at(changed, path, other)
        if not found(changed, tmp_path):
            missed.append(path)
    assert not missed


def first(data: dict[str, Any], trace: int, **wanted: object) -> int:
    """The first operation of a trace that has these values."""
    operations = data["traces"][trace]["ops"]
    return next(
        number
        for number, operation in enumerate(operations)
        if all(operation.get(name) == value for name, value in wanted.items())
    )


@pytest.mark.parametrize("name", ["buddy_16MB.json.gz", "buddy_128MB.json.gz"])
def test_each_answer_of_an_allocation_is_compared(name: str, tmp_path: Path) -> None:
    whole = load(name, traces=1, ops=400)
    operations = whole["traces"][0]["ops"]
    got = next(n for n, op in enumerate(operations) if op["op"] == "alloc" and op["pfn"])
    for key, change in [("pfn", one_more), ("pfn", lambda _: None), ("order", one_more)]:
        data = copy.deepcopy(whole)
        at(data, ("traces", 0, "ops", got, key), change)
        assert f"ops[{got}" in found(data, tmp_path) or key == "order"
    for zone in range(3):
        data = copy.deepcopy(whole)
        at(data, ("traces", 0, "ops", got, "free", zone), one_more)
        assert f"ops[{got}] alloc.free[{zone}]" in found(data, tmp_path)
    for invented in ("kswapd", "yield", "loop"):
        data = copy.deepcopy(whole)
        count = operations[got].get(invented, 0) + 1
        data["traces"][0]["ops"][got][invented] = count
        assert f"ops[{got}]" in found(data, tmp_path)


STATE: list[tuple[tuple[str | int, ...], Callable[[Any], Any], str]] = [
    (("initial", "zones", 0, "free_pages"), one_more, "initial.zones[0].free_pages"),
    (("initial", "zones", 0, "need_balance"), one_more, "initial.zones[0].need_balance"),
    (("initial", "nr_free_pages"), one_more, "initial.nr_free_pages"),
    (("initial", "zones", 0, "free_lists", 9), lambda pfns: pfns[::-1], "free_lists[9][0]"),
    (("initial", "zones", 0, "free_lists", 0), lambda pfns: [*pfns, 5], "free_lists[0]"),
    (("initial", "zones", 0, "bitmaps_hex", 3), lambda t: "ff" + t[2:], "bitmaps_hex[3]"),
    (("watermarks", 0), one_more, "watermarks[0]"),
    (("traces", 0, "final", "zones", 0, "free_pages"), one_more, "final.zones[0].free_pages"),
    (("traces", 0, "final", "zones", 0, "free_lists", 1), lambda pfns: pfns[1:], "free_lists[1]"),
    (
        ("traces", 0, "final", "zones", 0, "bitmaps_hex", 0),
        lambda text: ("f" if text[0] != "f" else "0") + text[1:],
        "final.zones[0].bitmaps_hex[0]",
    ),
    (("traces", 0, "need_balance", 0), lambda value: 1 - value, "need_balance[0]"),
]


@pytest.mark.parametrize(("keys", "change", "where"), STATE, ids=range(len(STATE)))
def test_a_planted_difference_in_the_state(
    keys: tuple[str | int, ...], change: Callable[[Any], Any], where: str, tmp_path: Path
) -> None:
    data = load("buddy_16MB.json.gz", traces=1)
    at(data, keys, change)
    assert where in found(data, tmp_path)


def test_the_order_of_a_free_list_counts(tmp_path: Path) -> None:
    data = load("buddy_16MB.json.gz", traces=1)
    lists = data["traces"][0]["final"]["zones"][0]["free_lists"]
    order = next(order for order, pfns in enumerate(lists) if len(pfns) > 1)
    lists[order] = [*lists[order][1::-1], *lists[order][2:]]
    assert f"final.zones[0].free_lists[{order}][0]" in found(data, tmp_path)


@pytest.mark.parametrize("key", ["pfn", "node", "free"])
def test_a_planted_difference_in_a_numa_trace(key: str, tmp_path: Path) -> None:
    data = load("numa_numa.json.gz", traces=1, ops=60)
    number = next(n for n, op in enumerate(data["traces"][0]["ops"]) if op.get("pfn"))
    keys: tuple[str | int, ...] = ("traces", 0, "ops", number, key)
    at(data, (*keys, 1, 0) if key == "free" else keys, one_more)
    assert f"ops[{number}].{key}" in found(data, tmp_path)


# -- planted faults in the model -----------------------------------------------------------------


def watermarks_include_the_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    def take(self: Any, zones: list[Buddy], order: int, marks: list[int]) -> int:
        least = 1 << order
        for zone, mark in zip(zones, marks, strict=True):
            least += mark
            if zone.free_pages >= least and (page := zone.rmqueue(order)):
                return page
        return 0

    monkeypatch.setattr(PageAllocator24, "_take", take)


def watermarks_do_not_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    def take(self: Any, zones: list[Buddy], order: int, marks: list[int]) -> int:
        for zone, mark in zip(zones, marks, strict=True):
            if zone.free_pages > (1 << order) + mark and (page := zone.rmqueue(order)):
                return page
        return 0

    monkeypatch.setattr(PageAllocator24, "_take", take)


def expanding_keeps_the_lower_half(monkeypatch: pytest.MonkeyPatch) -> None:
    def lower(self: Any, page: int, index: int, low: int, high: int) -> int:
        while high > low:
            high -= 1
            self._lists.add(page + (1 << high) * self._page_bytes, self._heads[high])
            self._toggle(high, index)
        return page

    monkeypatch.setattr(Buddy, "_expand", lower)


def blocks_go_to_the_tail(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Buddy.merge

    def at_the_tail(self: Any, index: int, order: int) -> None:
        monkeypatch.setattr(self._lists, "add", self._lists.add_tail, raising=False)
        real(self, index, order)

    def add_tail(self: Lists, entry: int, head: int) -> None:
        Lists.add(self, entry, self.last(head))

    monkeypatch.setattr(Lists, "add_tail", add_tail)
    monkeypatch.setattr(Buddy, "merge", at_the_tail)


def the_last_block_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Buddy.rmqueue

    def rotated(self: Any, order: int) -> int:
        for current in range(order, 10):
            head = self._heads[current]
            if not self._lists.empty(head):
                last = self._lists.last(head)
                self._lists.delete(last)
                self._lists.add(last, head)
                break
        return real(self, order)

    monkeypatch.setattr(Buddy, "rmqueue", rotated)


def every_freed_block_is_held_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """``local_pages`` as a list of all that reclaim freed, not of the first block only."""
    real = PageAllocator24.free_pages_ok

    def hoarding(self: Any, page: int, order: int) -> None:
        held, self.current.nr_local_pages = self.current.nr_local_pages, 0
        real(self, page, order)
        self.current.nr_local_pages += held

    monkeypatch.setattr(PageAllocator24, "free_pages_ok", hoarding)


def held_back_blocks_fit_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    def claim(self: Any, classzone: Buddy, order: int) -> int:
        page = int(self._lists.first(self._local_pages))
        self._lists.delete(page)
        self.current.nr_local_pages -= 1
        self.memmap.set_count(page, 1)
        return page

    monkeypatch.setattr(PageAllocator24, "_claim_local_page", claim)


def nothing_is_held_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kernel_model.mm.linux_2_4.page_alloc.PF_FREE_PAGES", 0)


def the_reserve_is_half(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter of pages_min stays for those who may not wait; here it is half."""
    real = PageAllocator24._take

    def take(self: Any, zones: list[Buddy], order: int, marks: list[int]) -> int:
        quarters = [zone.pages_min >> 2 for zone in zones]
        return real(self, zones, order, [2 * m for m in marks] if marks == quarters else marks)

    monkeypatch.setattr(PageAllocator24, "_take", take)


def large_orders_are_retried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kernel_model.mm.linux_2_4.page_alloc._HIGHEST_RETRIED_ORDER", 4)


def kswapd_sleeps_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.replay.buddy.ScriptedPressure.wake_kswapd", lambda self: None)


@pytest.mark.parametrize(
    ("fault", "name"),
    [
        (watermarks_include_the_mark, "buddy_exhaust_16MB"),
        (watermarks_do_not_add_up, "buddy_exhaust_128MB"),
        (expanding_keeps_the_lower_half, "buddy_16MB"),
        (blocks_go_to_the_tail, "buddy_16MB"),
        (the_last_block_is_taken, "buddy_16MB"),
        (every_freed_block_is_held_back, "buddy_exhaust_16MB"),
        (held_back_blocks_fit_any_order, "buddy_exhaust_16MB"),
        (nothing_is_held_back, "buddy_exhaust_16MB"),
        (the_reserve_is_half, "buddy_exhaust_16MB"),
        (large_orders_are_retried, "buddy_exhaust_16MB"),
        (kswapd_sleeps_on, "buddy_exhaust_16MB"),
    ],
)
def test_a_fault_in_the_page_allocator_is_found(
    fault: Patch, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    difference = replay(RECORDED / f"{name}.json.gz").difference
    assert difference is not None
    assert difference.where


def turns_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NumaPageAllocator, "_first_node", lambda self, nodes: 0)


def every_node_is_asked_but_home_last(monkeypatch: pytest.MonkeyPatch) -> None:
    real = NumaPageAllocator._first_node
    monkeypatch.setattr(
        NumaPageAllocator, "_first_node", lambda self, nodes: (real(self, nodes) + 1) % len(nodes)
    )


@pytest.mark.parametrize("fault", [turns_are_not_taken, every_node_is_asked_but_home_last])
@pytest.mark.parametrize("name", ["numa_disc", "numa_numa"])
def test_a_fault_in_the_choice_of_a_node_is_found(
    fault: Patch, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    difference = replay(RECORDED / f"{name}.json.gz").difference
    assert difference is not None
    assert ".ops[" in difference.where


def wait_tables_are_twice_as_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(free_area, "PAGES_PER_WAITQUEUE", 128)


def watermarks_have_no_ceiling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(free_area, "ZONE_BALANCE_MAX", (1 << 20,) * 3)


def mem_map_is_not_aligned(monkeypatch: pytest.MonkeyPatch) -> None:
    def as_it_comes(image: Any, bootmem: Any, pgdat: int, pages: int) -> int:
        return int(bootmem.alloc_bootmem_node(pgdat, (pages + 1) * image.structs.page.size))

    monkeypatch.setattr(free_area, "_alloc_mem_map", as_it_comes)


def zonelists_run_upwards(monkeypatch: pytest.MonkeyPatch) -> None:
    real = free_area.build_zonelists

    def upwards(image: Any, pgdat: int) -> None:
        real(image, pgdat)
        for zonelist in image.at(image.structs.pg_data_t, pgdat).node_zonelists:
            zones = [zone for zone in zonelist.zones if zone]
            for slot, zone in enumerate(reversed(zones)):
                zonelist.zones[slot] = zone

    monkeypatch.setattr(free_area, "build_zonelists", upwards)


@pytest.mark.parametrize(
    ("fault", "where"),
    [
        (wait_tables_are_twice_as_large, "wait_table"),
        (watermarks_have_no_ceiling, "nr_free_buffer_pages"),
        (mem_map_is_not_aligned, "mem_map"),
        (zonelists_run_upwards, "zonelists"),
    ],
)
def test_a_fault_in_making_zones_is_found(
    fault: Patch, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    places = [result.difference.where for result in map(replay, zones_files()) if result.difference]
    assert any(where in place for place in places)


def zones_files() -> list[Path]:
    return [RECORDED / name for name in names("zones")]


def the_state_of_a_frame_is_shifted(monkeypatch: pytest.MonkeyPatch) -> None:
    real = free_area.free_frames

    def marked(memmap: Any, zone: Zone, free: Any, **rest: bool) -> int:
        memmap.set_bit(int(zone.view.zone_mem_map), 5)
        return real(memmap, zone, free, **rest)

    monkeypatch.setattr("kernel_model.mm.retire_bootmem.free_frames", marked)


def test_a_single_flag_of_a_single_frame_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    the_state_of_a_frame_is_shifted(monkeypatch)
    difference = replay(RECORDED / "zones_128MB.json.gz").difference
    assert difference is not None
    assert "page_runs" in difference.where
