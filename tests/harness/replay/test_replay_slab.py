# SPDX-License-Identifier: GPL-2.0-or-later
"""The slab allocator and vmalloc answer each call as the real kernel did; planted faults show."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.replay import replay
from kernel_model.lists import Lists
from kernel_model.mm.slab.linux_2_4.cpucache import CpuCaches
from kernel_model.mm.slab.linux_2_4.objects import Objects24
from kernel_model.mm.slab.linux_2_4.reap import Reaper
from kernel_model.mm.slab.linux_2_6.array_cache import ArrayCaches
from kernel_model.mm.slab.linux_2_6.rcu import Rcu
from kernel_model.mm.slab.linux_2_6.tune import TunedArrays
from kernel_model.mm.vmalloc import Vmalloc
from tests.harness.replay.changed_traces import changed

DATA = Path(__file__).parents[2] / "data"
RECORDED = DATA / "linux-2.4.22"
RECORDED_2_6 = DATA / "linux-2.6.11"


def names(prefix: str, recorded: Path = RECORDED) -> list[str]:
    return sorted(path.name for path in recorded.glob(f"{prefix}*.json.gz"))


@pytest.mark.book("8.0", "8.1", "8.1.1", "8.1.2", "8.1.6", "8.2.1", "8.2.7", "8.4", "8.5", "8.6")
@pytest.mark.parametrize("name", ["slab_structs", "slab_geometry", "slab_sizes_cache"])
def test_caches_have_the_geometry_of_the_real_ones(name: str) -> None:
    result = replay(RECORDED / f"{name}.json.gz")
    assert (result.topic, result.difference) == (name, None)


@pytest.mark.book(
    *("8.1.3", "8.1.4", "8.1.7", "8.1.8", "8.1.9", "8.2", "8.2.2", "8.2.3", "8.2.4", "8.2.5"),
    *("8.2.6", "8.2.8", "8.3", "8.5", "8.7"),
)
@pytest.mark.parametrize("name", names("slab_trace"))
def test_each_call_answers_as_the_real_allocator(name: str) -> None:
    result = replay(RECORDED / name)
    assert (result.topic, result.difference) == ("slab_trace", None)
    assert result.compared > 30_000


@pytest.mark.book("8.8")
@pytest.mark.parametrize("name", ["slab_structs", "slab_geometry", "slab_sizes_cache"])
def test_caches_of_2_6_have_the_geometry_of_the_real_ones(name: str) -> None:
    result = replay(RECORDED_2_6 / f"{name}.json.gz")
    assert (result.topic, result.difference) == (name, None)


@pytest.mark.book("8.8")
@pytest.mark.parametrize("name", names("slab_trace", RECORDED_2_6))
def test_each_call_answers_as_the_real_allocator_of_2_6(name: str) -> None:
    result = replay(RECORDED_2_6 / name)
    assert (result.topic, result.difference) == ("slab_trace", None)
    assert result.compared > 30_000


@pytest.mark.book("7.1", "7.2", "7.3")
@pytest.mark.parametrize("name", names("vmalloc"))
def test_vmalloc_answers_as_the_real_one(name: str) -> None:
    result = replay(RECORDED / name)
    assert (result.topic, result.difference) == ("vmalloc", None)


def first(trace: dict[str, Any], operation: str, longer_than: int = 3) -> list[Any]:
    return next(op for op in trace["ops"] if op[1] == operation and len(op) > longer_than)


def one_more(sequence: list[Any], index: int) -> None:
    sequence[index] += 1


@pytest.mark.parametrize(
    "change",
    [
        lambda trace: one_more(first(trace, "alloc"), 4),
        lambda trace: one_more(first(trace, "kmalloc"), 4),
        lambda trace: one_more(trace["states"][3]["caches"]["kmem_cache"]["full"][0], 2),
        lambda trace: trace["states"][5].update(clock="size-32"),
        lambda trace: one_more(trace["final"]["caches"]["kmem_cache"]["full"][0][4], 0),
        lambda trace: trace["final"].update(slabinfo=trace["final"]["slabinfo"] + " "),
        lambda trace: trace["ops"].pop(700),
    ],
)
def test_a_planted_difference_in_a_slab_trace(
    change: Callable[[dict[str, Any]], None], tmp_path: Path
) -> None:
    name = "slab_trace_mixed_smp2_33.json.gz"
    assert not changed(RECORDED / name, tmp_path, change).ok


@pytest.mark.parametrize(
    "change",
    [
        lambda trace: one_more(first(trace, "alloc"), 4),
        lambda trace: one_more(trace["states"][3]["caches"]["kmem_cache"]["full"][0], 2),
        lambda trace: one_more(trace["states"][3]["caches"]["size-32"]["cpus"][0]["e"], 0),
        lambda trace: trace["states"][20]["caches"]["size-32"].update(next_reap=0),
        lambda trace: trace["states"][20].update(slab_reclaim_pages=-1),
        lambda trace: trace["final"].update(slabinfo=trace["final"]["slabinfo"] + " "),
        lambda trace: trace.update(klog=trace["klog"][:-1]),
        lambda trace: trace["ops"].remove(first(trace, "cache_reap", 2)),
        lambda trace: trace["ops"].pop(1700),
    ],
)
def test_a_planted_difference_in_a_slab_trace_of_2_6(
    change: Callable[[dict[str, Any]], None], tmp_path: Path
) -> None:
    assert not changed(RECORDED_2_6 / "slab_trace_mixed_smp8_33.json.gz", tmp_path, change).ok


def test_a_planted_difference_in_a_vmalloc_trace(tmp_path: Path) -> None:
    def later(trace: dict[str, Any]) -> None:
        trace["traces"][0]["ops"][100]["free"][1] += 1

    def moved(trace: dict[str, Any]) -> None:
        trace["traces"][0]["vmalloc_pgd"][0][1] ^= 4

    for change in (later, moved):
        assert not changed(RECORDED / "vmalloc_128MB.json.gz", tmp_path, change).ok


def fifo_partial(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Objects24.put

    def put(self: Objects24, cache: Any, objp: int) -> None:
        original(self, cache, objp)
        slab = self.page_slab_of(objp)
        if 0 < cache.inuse(slab) < cache.num:
            self._lists.delete(slab)
            self._lists.add_tail(slab, cache.slabs_partial)

    monkeypatch.setattr(Objects24, "put", put)


def batch_of_one_less(monkeypatch: pytest.MonkeyPatch) -> None:
    original = CpuCaches.kmem_tune_cpucache

    def tune(self: CpuCaches, cache: Any, limit: int, batchcount: int) -> int:
        return original(self, cache, limit, max(batchcount - 1, 1) if limit else 0)

    monkeypatch.setattr(CpuCaches, "kmem_tune_cpucache", tune)


def reap_spares_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Reaper._reapable

    def reapable(self: Reaper, cache: Any) -> tuple[int, int]:
        cache.view.dflags = 0
        return original(self, cache)

    monkeypatch.setattr(Reaper, "_reapable", reapable)


@pytest.mark.parametrize("plant", [fifo_partial, batch_of_one_less, reap_spares_nobody])
def test_a_planted_fault_of_the_model_is_found(
    plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    assert not replay(RECORDED / "slab_trace_mixed_smp2_33.json.gz").ok


def lifo_partial(monkeypatch: pytest.MonkeyPatch) -> None:
    """A slab that got an object back comes first again, as in 2.4."""
    monkeypatch.setattr(Lists, "add_tail", lambda self, entry, head: self.add(entry, head))


def a_free_slab_more_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    original = TunedArrays._set_free_limit

    def set_free_limit(self: TunedArrays, cache: Any) -> None:
        original(self, cache)
        cache.view.free_limit += 1

    monkeypatch.setattr(TunedArrays, "_set_free_limit", set_free_limit)


def nobody_touches_an_array(monkeypatch: pytest.MonkeyPatch) -> None:
    original = ArrayCaches.drain_array

    def drain(self: ArrayCaches, cache: Any, array: int) -> None:
        self._image.at(self._head, array).touched = 0
        original(self, cache, array)

    monkeypatch.setattr(ArrayCaches, "drain_array", drain)


def the_shared_array_is_passed_by(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ArrayCaches, "_take_from_shared", lambda self, *ignored: False)


def rcu_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Rcu, "call_rcu", lambda self, head, func: func(head))


@pytest.mark.book("8.8")
@pytest.mark.parametrize(
    ("plant", "trace"),
    [
        (lifo_partial, "mixed_smp8_33"),
        (a_free_slab_more_is_kept, "mixed_smp8_33"),
        (nobody_touches_an_array, "mixed_smp8_33"),
        (the_shared_array_is_passed_by, "mixed_smp8_33"),
        (rcu_does_not_wait, "directed_up_51"),
    ],
)
def test_a_planted_fault_of_2_6_is_found(
    plant: Callable[[pytest.MonkeyPatch], None], trace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    assert not replay(RECORDED_2_6 / f"slab_trace_{trace}.json.gz").ok


def test_a_guard_page_forgotten_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Vmalloc._first_fit
    monkeypatch.setattr(Vmalloc, "_first_fit", lambda self, size: original(self, size - 4096))
    assert not replay(RECORDED / "vmalloc_16MB.json.gz").ok
