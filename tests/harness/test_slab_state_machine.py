# SPDX-License-Identifier: GPL-2.0-or-later
"""Random machines of caches, on both releases; each of many planted faults is found.

The machine is :mod:`tests.harness.slab_state_machine`. A fault of what both releases share is
planted once, and looked for on each.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from harness.replay.slab_2_6 import Frames
from kernel_model.errors import MmucheckError
from kernel_model.lists import Lists
from kernel_model.mm.mmzone import MemMap
from kernel_model.mm.slab import Slab
from kernel_model.mm.slab import allocator as slab_allocator
from kernel_model.mm.slab import create as slab_create
from kernel_model.mm.slab.flags import SLAB_NO_REAP
from kernel_model.mm.slab.linux_2_4.cpucache import CpuCaches
from kernel_model.mm.slab.linux_2_4.reap import Reaper as Reaper24
from kernel_model.mm.slab.linux_2_6 import reap as reap_2_6
from kernel_model.mm.slab.linux_2_6.array_cache import ArrayCaches
from kernel_model.mm.slab.linux_2_6.objects import Objects26
from kernel_model.mm.slab.linux_2_6.rcu import Rcu
from kernel_model.mm.slab.linux_2_6.tune import TunedArrays
from kernel_model.mm.slab.objects import Objects
from kernel_model.release.constants import CONSTANTS
from tests.harness.slab_state_machine import SlabMachine, SlabMachine24, SlabMachine26

PAGE_OFFSET = 0xC0000000
MACHINES: dict[str, type[SlabMachine]] = {"2.4": SlabMachine24, "2.6": SlabMachine26}
Fault = Callable[[pytest.MonkeyPatch], None]

TestSlab24 = pytest.mark.book(
    *("8.1.2", "8.1.3", "8.1.7", "8.1.8", "8.1.9", "8.2.2", "8.2.4", "8.2.5", "8.2.6", "8.2.7"),
    *("8.2.8", "8.3.1", "8.3.2", "8.3.3", "8.4.1", "8.4.2", "8.5.1", "8.5.2", "8.5.3"),
    *("8.5.4", "8.5.5", "8.7"),
)(SlabMachine24.TestCase)
TestSlab26 = pytest.mark.book("8.8")(SlabMachine26.TestCase)
TestSlab24.settings = TestSlab26.settings = settings(max_examples=20)


# -- faults of what both share -------------------------------------------------------------------


def an_object_is_given_out_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """The chain of free objects is not moved on, for every seventh object."""
    real = Objects.take_from

    def take_from(self: Any, cache: Any, slab: int) -> int:
        objp = real(self, cache, slab)
        where = self._where
        link = slab - PAGE_OFFSET >> where.link_shift
        if self.debug is None and cache.inuse(slab) == 7 and cache.free(slab) != where.bufctl_end:
            where.links[link + where.free] -= 1
        return objp

    monkeypatch.setattr(Objects, "take_from", take_from)


def an_object_too_many_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Objects.put_into

    def put_into(self: Any, cache: Any, slab: int, objp: int) -> int:
        inuse = real(self, cache, slab, objp)
        if inuse == 2:
            self._words[(slab - PAGE_OFFSET >> 2) + self._where.inuse] += 1
        return inuse

    monkeypatch.setattr(Objects, "put_into", put_into)


def empty_slabs_stay_partial(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Objects.put_into
    monkeypatch.setattr(Objects, "put_into", lambda self, *args: real(self, *args) or 1)


def a_slab_holds_one_object_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    real = slab_create.kmem_cache_estimate

    def estimate(order: int, size: int, *rest: int) -> tuple[int, int]:
        count, left_over = real(order, size, *rest)
        return (count + 1, left_over) if size > 200 else (count, left_over)

    monkeypatch.setattr(slab_create, "kmem_cache_estimate", estimate)


def the_last_colour_is_never_used(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Objects._add_slab

    def add_slab(self: Any, cache: Any, *rest: Any) -> bool:
        if cache.view.colour and cache.view.colour_next == cache.view.colour - 1:
            cache.view.colour_next = 0
        return real(self, cache, *rest)

    monkeypatch.setattr(Objects, "_add_slab", add_slab)


def colours_are_a_word_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Objects._add_slab
    monkeypatch.setattr(
        Objects,
        "_add_slab",
        lambda self, cache, flags, colour_off, *rest: real(
            self, cache, flags, colour_off // 32 * 4, *rest
        ),
    )


def a_descriptor_off_the_slab_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Objects.kmem_slab_destroy
    monkeypatch.setattr(
        Objects,
        "kmem_slab_destroy",
        lambda self, cache, slab, free: real(self, cache, slab, lambda *ignored: None),
    )


def frames_stay_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    for frames, release in ((MemMap, "2.4"), (Frames, "2.6")):
        _never_clear(monkeypatch, frames, CONSTANTS[release].page_flags.slab)


def _never_clear(monkeypatch: pytest.MonkeyPatch, frames: Any, pg_slab: int) -> None:
    real = frames.clear_bit

    def clear_bit(self: Any, page: int, bit: int) -> None:
        if bit != pg_slab or page // 64 % 4:
            real(self, page, bit)

    monkeypatch.setattr(frames, "clear_bit", clear_bit)


def half_of_a_large_slab_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def destroy(self: Any, cache: Any, slab: int, free: Any) -> None:
        pages = self.pages
        self.pages = HalfKept(pages)
        try:
            real(self, cache, slab, free)
        finally:
            self.pages = pages

    real = Objects.kmem_slab_destroy
    monkeypatch.setattr(Objects, "kmem_slab_destroy", destroy)


@dataclass
class HalfKept:
    """A page allocator that gets back half of each block."""

    pages: Any

    def free_pages_at(self, vaddr: int, order: int) -> None:
        self.pages.free_pages_at(vaddr, max(order - 1, 0))


def a_destructor_is_not_called(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Objects.kmem_slab_destroy

    def destroy(self: Any, cache: Any, slab: int, free: Any) -> None:
        functions = self.functions
        self.functions = {}
        try:
            real(self, cache, slab, free)
        finally:
            self.functions = functions

    monkeypatch.setattr(Objects, "kmem_slab_destroy", destroy)


def a_constructor_misses_the_last_object(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Objects._init_objects

    def init_objects(self: Any, cache: Any, slab: int, flags: int) -> None:
        last = cache.s_mem(slab) + cache.objsize * (cache.num - 1)
        before = self._image.ram.read(last - PAGE_OFFSET, cache.objsize)
        real(self, cache, slab, flags)
        if cache.view.ctor:
            self._image.ram.write(last - PAGE_OFFSET, before)

    monkeypatch.setattr(Objects, "_init_objects", init_objects)


def a_size_is_taken_for_a_smaller_one(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Slab.kmem_find_general_cachep
    monkeypatch.setattr(
        Slab,
        "kmem_find_general_cachep",
        lambda self, size, flags: real(self, size * 3 // 4, flags),
    )


def dma_memory_comes_from_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """The general caches for DMA and for others are confused."""
    real = Slab.kmem_find_general_cachep
    monkeypatch.setattr(
        Slab, "kmem_find_general_cachep", lambda self, size, flags: real(self, size, flags ^ 1)
    )


def a_cache_is_destroyed_with_its_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of one slab passes for empty."""
    monkeypatch.setattr(slab_allocator, "Lists", OverlooksLastSlab)


class OverlooksLastSlab(Lists):
    """Says that a list is empty when its last entry is its first."""

    def empty(self, head: int) -> bool:
        return self.first(head) == self.last(head)


# -- faults of 2.4 -------------------------------------------------------------------------------


def an_array_loses_an_object(monkeypatch: pytest.MonkeyPatch) -> None:
    real = CpuCaches._free_block
    monkeypatch.setattr(
        CpuCaches,
        "_free_block",
        lambda self, cache, first, count: real(self, cache, first, count - (count > 4)),
    )


def an_array_gives_an_object_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    real = CpuCaches.alloc

    def alloc(self: Any, cache: Any, array: int) -> int:
        objp = real(self, cache, array)
        at = array - PAGE_OFFSET >> 2
        if self._words[at] == 5:
            self._words[at] = 6
        return objp

    monkeypatch.setattr(CpuCaches, "alloc", alloc)


def only_this_cpu_is_drained(monkeypatch: pytest.MonkeyPatch) -> None:
    def drain(self: Any, cache: Any) -> None:
        if array := self.array(cache):
            self.flush(cache, array)

    monkeypatch.setattr(CpuCaches, "drain_cpu_caches", drain)


def arrays_outlive_their_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(CpuCaches, "release", lambda self, cache: None)


def old_arrays_are_forgotten_with_their_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    real = CpuCaches.kmem_tune_cpucache

    def tune(self: Any, cache: Any, limit: int, batchcount: int) -> int:
        if 0 < batchcount <= limit:
            for cpu in range(self.online):
                cache.view.cpudata[cpu] = 0
        return real(self, cache, limit, batchcount)

    monkeypatch.setattr(CpuCaches, "kmem_tune_cpucache", tune)


def reap_takes_what_is_not_to_be_reaped(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Reaper24._reapable

    def reapable(self: Any, cache: Any) -> tuple[int, int]:
        flags, dflags = cache.view.flags, cache.view.dflags
        cache.view.flags, cache.view.dflags = flags & ~SLAB_NO_REAP, 0
        try:
            slabs, pages = real(self, cache)
        finally:
            cache.view.flags, cache.view.dflags = flags, dflags
        return slabs, pages * (10 if flags & SLAB_NO_REAP else 1)

    monkeypatch.setattr(Reaper24, "_reapable", reapable)


# -- faults of 2.6 -------------------------------------------------------------------------------


def a_block_loses_an_object(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Objects26.free_block
    monkeypatch.setattr(
        Objects26,
        "free_block",
        lambda self, cache, first, count: real(self, cache, first, count - (count > 4)),
    )


def an_array_keeps_what_it_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    real = ArrayCaches.alloc

    def alloc(self: Any, cache: Any, flags: int) -> int:
        objp = real(self, cache, flags)
        at = self.array(cache) - PAGE_OFFSET >> 2
        if self._words[at] == 5:
            self._words[at] = 6
        return objp

    monkeypatch.setattr(ArrayCaches, "alloc", alloc)


def a_batch_is_shared_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """What moves to the shared array stays in the array of the CPU, too."""
    real = ArrayCaches._cache_flusharray

    def flush(self: Any, cache: Any, at: int) -> None:
        kept = self._words[at : at + 20].tolist()
        real(self, cache, at)
        if self.shared(cache) and self._words[at] > 2:
            self._words[at + 4] = kept[4]

    monkeypatch.setattr(ArrayCaches, "_cache_flusharray", flush)


def the_shared_array_is_not_drained(monkeypatch: pytest.MonkeyPatch) -> None:
    def drain(self: Any, cache: Any) -> None:
        for _ in self.on_each_cpu():
            array = self.array(cache)
            self.flush(cache, array)
            self._words[array - PAGE_OFFSET >> 2] = 0

    monkeypatch.setattr(ArrayCaches, "drain_cpu_caches", drain)


def arrays_outlive_their_cache_of_2_6(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(TunedArrays, "release", lambda self, cache: None)


def a_shared_array_is_forgotten_with_its_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    real = TunedArrays._share

    def share(self: Any, cache: Any, entries: int) -> None:
        cache.view.lists.shared = 0
        real(self, cache, entries)

    monkeypatch.setattr(TunedArrays, "_share", share)


def a_new_slab_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Objects26._add_slab

    def add_slab(self: Any, cache: Any, *rest: Any) -> bool:
        added = real(self, cache, *rest)
        if added and cache.view.colour_next == 1:
            cache.view.lists.free_objects -= 1
        return added

    monkeypatch.setattr(Objects26, "_add_slab", add_slab)


def pages_are_not_counted_back(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Objects26._account
    monkeypatch.setattr(
        Objects26, "_account", lambda self, cache, pages: real(self, cache, max(pages, 0))
    )


def a_grace_period_never_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Rcu, "end_grace_period", lambda self: 0)


def time_reaps_what_is_not_to_be_reaped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reap_2_6, "SLAB_NO_REAP", 0)


def a_cpu_reaps_once_only(monkeypatch: pytest.MonkeyPatch) -> None:
    real = reap_2_6.Reaper._schedule

    def schedule(self: Any, cpu: int, delay: int) -> None:
        if delay < 2000:
            real(self, cpu, delay)

    monkeypatch.setattr(reap_2_6.Reaper, "_schedule", schedule)


SHARED: list[Fault] = [
    an_object_is_given_out_twice,
    an_object_too_many_is_counted,
    empty_slabs_stay_partial,
    a_slab_holds_one_object_too_many,
    the_last_colour_is_never_used,
    colours_are_a_word_apart,
    a_descriptor_off_the_slab_is_kept,
    frames_stay_marked,
    half_of_a_large_slab_is_kept,
    a_destructor_is_not_called,
    a_constructor_misses_the_last_object,
    a_size_is_taken_for_a_smaller_one,
    dma_memory_comes_from_anywhere,
    a_cache_is_destroyed_with_its_objects,
]
FAULTS: dict[str, list[Fault]] = {
    "2.4": [
        *SHARED,
        an_array_loses_an_object,
        an_array_gives_an_object_twice,
        only_this_cpu_is_drained,
        arrays_outlive_their_cache,
        old_arrays_are_forgotten_with_their_objects,
        reap_takes_what_is_not_to_be_reaped,
    ],
    "2.6": [
        *SHARED,
        a_block_loses_an_object,
        an_array_keeps_what_it_gives,
        a_batch_is_shared_and_kept,
        the_shared_array_is_not_drained,
        arrays_outlive_their_cache_of_2_6,
        a_shared_array_is_forgotten_with_its_objects,
        a_new_slab_is_not_counted,
        pages_are_not_counted_back,
        a_grace_period_never_ends,
        time_reaps_what_is_not_to_be_reaped,
        a_cpu_reaps_once_only,
    ],
}


FOUND_LATE = {
    ("2.6", the_shared_array_is_not_drained),
    ("2.6", time_reaps_what_is_not_to_be_reaped),
    ("2.6", a_cache_is_destroyed_with_its_objects),
    ("2.4", only_this_cpu_is_drained),
    ("2.4", half_of_a_large_slab_is_kept),
    ("2.4", a_size_is_taken_for_a_smaller_one),
}
"""Those that take random steps more than a second."""


@pytest.mark.parametrize(
    ("release", "fault"),
    [
        pytest.param(
            release,
            fault,
            id=f"{release}-{fault.__name__}",
            marks=pytest.mark.slow if (release, fault) in FOUND_LATE else (),
        )
        for release, faults in FAULTS.items()
        for fault in faults
    ],
)
def test_planted_faults_are_found(
    release: str, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pointer out of RAM is an IndexError, a count below 0 a ValueError."""
    fault(monkeypatch)
    with pytest.raises((AssertionError, MmucheckError, IndexError, ValueError)):
        run_state_machine_as_test(
            MACHINES[release],
            settings=settings(
                max_examples=100, derandomize=True, database=None, phases=[Phase.generate]
            ),
        )
