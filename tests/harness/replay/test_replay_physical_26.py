# SPDX-License-Identifier: GPL-2.0-or-later
"""What Linux 2.6.11 did with boot memory, zones and pages replays equal; a model that is wrong, or
a trace that is wrong, is found where it is wrong."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.replay import linux_2_6, replay
from kernel_model.errors import BadInput
from kernel_model.mm.linux_2_6 import free_area, free_frames, page_alloc, watermarks
from kernel_model.mm.linux_2_6.bootmem import LastSuccessBootmem
from kernel_model.mm.linux_2_6.buddy import Buddy26
from kernel_model.mm.linux_2_6.page_alloc import PageAllocator26
from kernel_model.mm.linux_2_6.page_state import PageState
from tests.harness.replay.changed_traces import found, shortened

RECORDED = Path(__file__).parents[2] / "data" / "linux-2.6.11"

Patch = Callable[[pytest.MonkeyPatch], None]


def names(topic: str) -> list[str]:
    return sorted(path.name for path in RECORDED.glob(f"{topic}_*.json.gz"))


def load(name: str, trace: int | None = None, ops: int | None = None) -> dict[str, Any]:
    """A copy of a recorded file, with one of its traces and the first ``ops`` of it only."""
    return shortened(RECORDED / name, None if trace is None else slice(trace, trace + 1), ops)


# -- what was recorded ---------------------------------------------------------------------------


def test_the_recorded_files_are_there() -> None:
    topics = ("bootmem", "zones", "buddy", "buddy_exhaust")
    assert {topic: len(names(topic)) for topic in topics} == {
        "bootmem": 2,
        "zones": 7,
        "buddy": 6,
        "buddy_exhaust": 3,
    }
    assert set(topics) <= set(linux_2_6.TOPICS)


@pytest.mark.book("5.7")
@pytest.mark.parametrize("name", names("bootmem"))
def test_the_boot_allocator_remembers_its_last_success(name: str) -> None:
    result = replay(RECORDED / name)
    assert (result.topic, result.difference) == ("bootmem", None)
    assert result.compared > 17_000


@pytest.mark.book("2.8", "6.7")
@pytest.mark.parametrize("name", names("zones"))
def test_zones_are_those_of_the_real_kernel(name: str) -> None:
    result = replay(RECORDED / name)
    assert (result.topic, result.difference) == ("zones", None)
    assert result.compared > 700


@pytest.mark.book("2.8", "6.7")
@pytest.mark.parametrize("name", names("buddy"))
def test_each_allocation_is_answered_as_by_the_real_kernel(name: str) -> None:
    result = replay(RECORDED / name)
    assert result.difference is None
    assert result.topic in ("buddy", "buddy_exhaust")
    assert result.compared > 70_000


def test_a_release_that_nobody_models_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "trace.json"
    file.write_text(json.dumps(load("zones_16MB_smp8.json.gz") | {"release": "2.2.26"}))
    with pytest.raises(BadInput, match=r"a trace of Linux 2\.2: one of 2\.4, 2\.6"):
        replay(file)


# -- planted differences -------------------------------------------------------------------------


def leaves(value: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """The way to every number, text and null of a JSON value."""
    if isinstance(value, dict):
        return [leaf for key, item in value.items() for leaf in leaves(item, (*path, key))]
    if isinstance(value, list):
        return [leaf for n, item in enumerate(value) for leaf in leaves(item, (*path, n))]
    return [path]


def at(data: Any, keys: tuple[str | int, ...], change: Callable[[Any], Any]) -> None:
    for key in keys[:-1]:
        data = data[key]
    data[keys[-1]] = change(data[keys[-1]])


def other(value: Any) -> Any:
    """Something else of the same kind."""
    if isinstance(value, str):
        return value + "0"
    return 1 if value is None else value + 1


NOT_COMPARED = {"release", "topic", "config", "mem_mb", "highmem", "pse", "pge", "NR_CPUS"}
"""What describes the machine that was recorded, which is what the model is then made of."""


@pytest.mark.parametrize("share", range(4))
def test_every_value_of_a_zones_trace_is_compared(share: int, tmp_path: Path) -> None:
    """Each leaf in turn is changed; every change must be found."""
    data = load("zones_16MB_smp8.json.gz")
    paths = [path for path in leaves(data) if path[0] not in NOT_COMPARED]
    # What a sysctl is set to is not an answer; a ratio that differs gives other reserves.
    paths = [p for p in paths if not (str(p[0]).endswith("_sysctl") and p[2:] in ((0,), (1,)))]
    assert len(paths) > 600
    missed = []
    for path in paths[share::16]:
        changed = copy.deepcopy(data)
        at(changed, path, other)
        if not found(changed, tmp_path):
            missed.append(path)
    assert not missed


def test_each_answer_of_an_allocation_is_compared(tmp_path: Path) -> None:
    whole = load("buddy_64MB_smp8.json.gz", trace=0, ops=300)
    operations = whole["traces"][0]["ops"]
    got = next(n for n, op in enumerate(operations) if op["op"] == "alloc" and op["pfn"])
    for keys in [("pfn",), *(("free", zone) for zone in range(3)), *(("pcp", n) for n in range(6))]:
        data = copy.deepcopy(whole)
        at(data, ("traces", 0, "ops", got, *keys), other)
        assert f"ops[{got}] alloc.{keys[0]}" in found(data, tmp_path)
    for invented in ("kswapd", "ttfp", "oom", "bcw", "warn", "loop"):
        data = copy.deepcopy(whole)
        data["traces"][0]["ops"][got][invented] = 1
        assert f"ops[{got}]" in found(data, tmp_path)


STATE: list[tuple[tuple[str | int, ...], Callable[[Any], Any], str]] = [
    (("initial", "kswapd_max_order"), other, "initial.kswapd_max_order"),
    (("initial", "inconsistencies"), other, "initial.inconsistencies"),
    (("initial", "zones", 0, "all_unreclaimable"), other, "zones[0].all_unreclaimable"),
    (("initial", "zones", 0, "free_lists", 0), lambda pfns: pfns[::-1], "free_lists[0][0]"),
    (("initial", "zones", 0, "pcp", 0, "hot"), lambda pfns: pfns[::-1], "pcp[0].hot[0]"),
    (("initial", "zones", 1, "pcp", 0, "cold"), lambda pfns: [*pfns, 5], "pcp[0].cold"),
    (("watermarks", 1), other, "watermarks[1]"),
    (("traces", 0, "page_state", 0, "pgfree"), other, "page_state[0].pgfree"),
    (("traces", 0, "page_state", 1, "pgalloc", 1), other, "page_state[1].pgalloc[1]"),
    (("traces", 0, "final", "cpu"), lambda cpu: 1 - cpu, "final.cpu"),
    (("traces", 0, "final", "zones", 1, "free_pages"), other, "final.zones[1].free_pages"),
]


@pytest.mark.parametrize(("keys", "change", "where"), STATE, ids=range(len(STATE)))
def test_a_planted_difference_in_the_state(
    keys: tuple[str | int, ...], change: Callable[[Any], Any], where: str, tmp_path: Path
) -> None:
    data = load("buddy_64MB_smp8.json.gz", trace=0)
    at(data, keys, change)
    assert where in found(data, tmp_path)


@pytest.mark.parametrize(
    ("operation", "key"),
    [(5, "ret"), (9, "last"), (40, "last")],
)
def test_a_planted_difference_in_boot_memory(operation: int, key: str, tmp_path: Path) -> None:
    data = load("bootmem_16MB_smp8.json.gz", trace=0)
    keys = ("traces", 0, "ops", operation, key)
    at(data, (*keys, 2) if key == "last" else keys, other)
    assert f"ops[{operation}]" in found(data, tmp_path)


# -- planted faults in the model -----------------------------------------------------------------


def the_last_success_is_forgotten(patch: pytest.MonkeyPatch) -> None:
    real = LastSuccessBootmem._first_fit

    def forgetful(self: LastSuccessBootmem, bdata: Any, *request: int) -> int | None:
        bdata.last_success = 0
        return real(self, bdata, *request)

    patch.setattr(LastSuccessBootmem, "_first_fit", forgetful)


def freeing_keeps_the_last_success(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(LastSuccessBootmem, "_note_freed", lambda self, bdata, addr: None)


def the_search_knows_where_the_map_ends(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(
        LastSuccessBootmem,
        "_taken",
        lambda self, bdata, taken, end, i: i >= end or bool(taken >> i & 1),
    )


IN_BOOTMEM: list[Patch] = [
    the_last_success_is_forgotten,
    freeing_keeps_the_last_success,
    the_search_knows_where_the_map_ends,
]


@pytest.mark.parametrize("fault", IN_BOOTMEM)
def test_faults_of_the_boot_allocator_are_found(
    fault: Patch, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    assert replay(RECORDED / "bootmem_16MB_smp8.json.gz").difference


def no_limit_for_batches(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(free_area, "MAX_BATCH_BYTES", 1 << 30)


def reserves_do_not_add_up(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(watermarks, "LOWMEM_RESERVE_RATIO", (256, 256))


def high_memory_shares_the_reserve(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(watermarks, "HIGHMEM_PAGES_MIN", (64, 128))


def words_of_the_map_go_one_by_one(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(free_frames, "whole_words", lambda free: free[:0])


def few_wait_queues(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(free_area, "MIN_WAITQUEUES", 128)


IN_ZONES: list[Patch] = [
    no_limit_for_batches,
    reserves_do_not_add_up,
    high_memory_shares_the_reserve,
    words_of_the_map_go_one_by_one,
    few_wait_queues,
]


@pytest.mark.parametrize("fault", IN_ZONES)
def test_faults_of_the_boot_are_found(fault: Patch, monkeypatch: pytest.MonkeyPatch) -> None:
    fault(monkeypatch)
    assert replay(RECORDED / "zones_1024MB_smp8_highmem.json.gz").difference


def the_upper_half_is_handed_out(patch: pytest.MonkeyPatch) -> None:
    real = Buddy26._put

    def swapped(self: Buddy26, page: int, order: int) -> None:
        real(self, page ^ self._page_bytes << order if order == 3 else page, order)

    patch.setattr(Buddy26, "_put", swapped)


def reserves_are_ignored(patch: pytest.MonkeyPatch) -> None:
    real = Buddy26.watermark_ok

    def lavish(self: Buddy26, order: int, mark: int, classzone_idx: int, **deeper: bool) -> bool:
        return real(self, order, mark, self.classzone_idx, **deeper)

    patch.setattr(Buddy26, "watermark_ok", lavish)


def small_blocks_count_for_large_ones(patch: pytest.MonkeyPatch) -> None:
    real = Buddy26.watermark_ok

    def blind(self: Buddy26, order: int, mark: int, classzone_idx: int, **deeper: bool) -> bool:
        return real(self, 0, mark, classzone_idx, **deeper)

    patch.setattr(Buddy26, "watermark_ok", blind)


def cold_frames_are_hot(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(page_alloc, "COLD", 0)


def the_newest_frames_go_back_first(patch: pytest.MonkeyPatch) -> None:
    def from_the_head(self: Buddy26, pcp: Any, count: int) -> int:
        self.freed()
        for _ in range(count):
            entry = self._lists.first(pcp.list)
            self._lists.delete(entry)
            self.merge(entry - self._link, 0)
        return count

    patch.setattr(Buddy26, "free_pages_bulk", from_the_head)


def high_gets_nothing_extra(patch: pytest.MonkeyPatch) -> None:
    real = Buddy26.watermark_ok

    def strict(self: Buddy26, *asked: int, try_harder: bool = False, high: bool = False) -> bool:
        return real(self, *asked, try_harder=try_harder, high=False)

    patch.setattr(Buddy26, "watermark_ok", strict)


def real_time_gets_nothing_extra(patch: pytest.MonkeyPatch) -> None:
    never = property(lambda self: False, lambda self, value: None)
    patch.setattr(PageAllocator26, "realtime", never, raising=False)


def norepeat_is_norelief(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(PageAllocator26, "_retried", lambda self, request: request.order <= 3)


def allocations_are_not_counted(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(PageState, "add", lambda self, name, delta=1: None)


IN_ALLOCATION: list[tuple[Patch, str]] = [
    (the_upper_half_is_handed_out, "buddy_64MB_smp8"),
    (reserves_are_ignored, "buddy_exhaust_64MB_smp8"),
    (small_blocks_count_for_large_ones, "buddy_exhaust_64MB_smp8"),
    (cold_frames_are_hot, "buddy_64MB_smp8"),
    (the_newest_frames_go_back_first, "buddy_64MB_smp8"),
    (high_gets_nothing_extra, "buddy_exhaust_64MB_smp8"),
    (real_time_gets_nothing_extra, "buddy_exhaust_64MB_smp8"),
    (norepeat_is_norelief, "buddy_exhaust_64MB_smp8"),
    (allocations_are_not_counted, "buddy_64MB_smp8"),
]


@pytest.mark.parametrize(("fault", "name"), IN_ALLOCATION)
def test_faults_of_the_allocator_are_found(
    fault: Patch, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    assert replay(RECORDED / f"{name}.json.gz").difference
