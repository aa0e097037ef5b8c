# SPDX-License-Identifier: GPL-2.0-or-later
"""The slab allocator and vmalloc answer each call as the real kernel did; planted faults show."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.replay import Replayed, replay
from kernel_model.mm.slab.linux_2_4.cpucache import CpuCaches
from kernel_model.mm.slab.linux_2_4.objects import Objects24
from kernel_model.mm.slab.linux_2_4.reap import Reaper
from kernel_model.mm.vmalloc import Vmalloc

RECORDED = Path(__file__).parents[2] / "data" / "linux-2.4.22"


def names(prefix: str) -> list[str]:
    return sorted(path.name for path in RECORDED.glob(f"{prefix}*.json.gz"))


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


@pytest.mark.book("7.1", "7.2", "7.3")
@pytest.mark.parametrize("name", names("vmalloc"))
def test_vmalloc_answers_as_the_real_one(name: str) -> None:
    result = replay(RECORDED / name)
    assert (result.topic, result.difference) == ("vmalloc", None)


def changed(name: str, path: Path, change: Callable[[dict[str, Any]], None]) -> Replayed:
    trace = json.loads(gzip.decompress((RECORDED / name).read_bytes()))
    change(trace)
    # The topic stands in the name of these files.
    target = path / name.removesuffix(".gz")
    target.write_text(json.dumps(trace), encoding="ascii")
    return replay(target)


def first(trace: dict[str, Any], operation: str) -> list[Any]:
    return next(op for op in trace["ops"] if op[1] == operation and len(op) > 3)


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
    assert not changed(name, tmp_path, change).ok


def test_a_planted_difference_in_a_vmalloc_trace(tmp_path: Path) -> None:
    def later(trace: dict[str, Any]) -> None:
        trace["traces"][0]["ops"][100]["free"][1] += 1

    def moved(trace: dict[str, Any]) -> None:
        trace["traces"][0]["vmalloc_pgd"][0][1] ^= 4

    for change in (later, moved):
        assert not changed("vmalloc_128MB.json.gz", tmp_path, change).ok


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


def test_a_guard_page_forgotten_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Vmalloc._first_fit
    monkeypatch.setattr(Vmalloc, "_first_fit", lambda self, size: original(self, size - 4096))
    assert not replay(RECORDED / "vmalloc_16MB.json.gz").ok
