# SPDX-License-Identifier: GPL-2.0-or-later
"""2.6 gives memory back as time passes: who looks when, what is spared, what goes."""

import pytest

from harness.monitors.slabs import slab_census
from kernel_model.config import MIB, KernelConfig
from kernel_model.mm.slab import Cache
from kernel_model.mm.slab.flags import SLAB_NO_REAP
from kernel_model.mm.slab.linux_2_6 import Slab26
from kernel_model.mm.slab.linux_2_6.reap import time_after
from tests.harness.slab_worlds import SlabWorld, world_of

pytestmark = pytest.mark.book("8.8")
SECOND = 1000


class Timed:
    """An allocator whose looks are noted: [CPU, jiffies]."""

    def __init__(self, nr_cpus: int = 1, jiffies: int = -300 * SECOND) -> None:
        config = KernelConfig(ram=16 * MIB, release="2.6", nr_cpus=nr_cpus)
        self.world: SlabWorld = world_of(config)
        assert isinstance(self.world.slab, Slab26)
        self.slab: Slab26 = self.world.slab
        self.statics = self.world.image.statics
        self.gfp = self.world.image.constants.gfp.kernel
        self.looks: list[tuple[int, int]] = []
        self.slab.reaper.scheduled = lambda cpu, delay: self.looks.append((cpu, self.now))

    @property
    def now(self) -> int:
        return int(self.statics.jiffies)

    def cache(self, size: int, flags: int = 0) -> Cache:
        return self.slab.objects.cache(self.slab.kmem_cache_create("timed", size, 0, flags))

    def used(self, cache: Cache, count: int) -> list[int]:
        return [self.slab.kmem_cache_alloc(cache.vaddr, self.gfp) for _ in range(count)]

    def used_and_freed(self, cache: Cache, count: int) -> None:
        for objp in self.used(cache, count):
            self.slab.kmem_cache_free(cache.vaddr, objp)

    def fill_array(self, cache: Cache) -> int:
        """Give objects back until this CPU's array is full. Returns how many it has."""
        array = self.slab.cpu_caches.array(cache)
        limit = self.slab.cpu_caches.limit(array)
        for objp in self.used(cache, 2 * limit):
            if len(self.slab.cpu_caches.entries(array)) == limit:
                break
            self.slab.kmem_cache_free(cache.vaddr, objp)
        return limit

    def in_arrays(self, cache: Cache) -> int:
        arrays = self.slab.cpu_caches
        return sum(len(arrays.entries(array)) for array in arrays.all_arrays(cache))

    def seconds(self, number: int) -> None:
        self.slab.reaper.pass_time(number * SECOND)
        slab_census(self.world)


def test_each_cpu_looks_every_two_seconds_a_little_later_than_the_one_before() -> None:
    timed = Timed(nr_cpus=3)
    start = timed.now
    timed.seconds(6)
    assert [(cpu, when - start) for cpu, when in timed.looks] == [
        *((0, 1000), (1, 1003), (2, 1006)),
        *((0, 3000), (1, 3004), (2, 3008)),
        *((0, 5000), (1, 5005), (2, 5010)),
    ]
    assert timed.now - start == 6 * SECOND


def test_jiffies_wrap_five_minutes_after_boot() -> None:
    """The kernel starts them there, so that who compares them wrongly is found."""
    timed = Timed()
    timed.used_and_freed(timed.cache(2048), 60)
    timed.seconds(299)
    before = len(timed.looks)
    timed.seconds(500)
    assert timed.now == 499 * SECOND
    assert len(timed.looks) - before == 250
    assert time_after(5, 0xFFFFFFFF)
    assert not time_after(0xFFFFFFFF, 5)
    assert not time_after(5, 5)


def test_an_array_is_spared_once_then_drained_by_fifths() -> None:
    timed = Timed()
    cache = timed.cache(128)
    assert timed.fill_array(cache) == timed.in_arrays(cache) == 120
    left = []
    for _ in range(14):
        timed.slab.reaper.cache_reap()
        left.append(timed.in_arrays(cache))
    assert left == [120, 96, 72, 48, 24, 0, 0, 0, 0, 0, 0, 0, 0, 0]


def test_less_than_a_fifth_goes_by_halves() -> None:
    timed = Timed()
    cache = timed.cache(128)
    timed.used_and_freed(cache, 16)
    left = []
    for _ in range(6):
        timed.slab.reaper.cache_reap()
        left.append(timed.in_arrays(cache))
    assert left == [16, 8, 4, 2, 1, 0]


def test_another_cpus_array_is_left_to_that_cpu() -> None:
    timed = Timed(nr_cpus=2)
    cache, arrays = timed.cache(128), timed.slab.cpu_caches
    arrays.processor = 1
    timed.fill_array(cache)
    arrays.processor = 0
    for _ in range(12):
        timed.slab.reaper.cache_reap()
    assert len(arrays.entries(arrays.array(cache, 1))) == 120
    arrays.processor = 1
    for _ in range(12):
        timed.slab.reaper.cache_reap()
    assert not arrays.entries(arrays.array(cache, 1))


def test_free_slabs_go_a_few_at_a_look_the_first_of_the_list_first() -> None:
    """At most a fifth of the slabs that ``free_limit`` allows, every four seconds."""
    timed = Timed()
    cache = timed.cache(2048)
    timed.used_and_freed(cache, 60)
    timed.slab.cpu_caches.drain_cpu_caches(cache)
    free = cache.slabs(cache.slabs_free)
    assert len(free) > 5
    per_look = -(-int(cache.view.free_limit) // (5 * cache.num))
    cache.view.lists.free_touched = 0
    cache.view.lists.next_reap = timed.now
    timed.slab.reaper.cache_reap()
    assert cache.slabs(cache.slabs_free) == free[per_look:]
    timed.slab.reaper.cache_reap()
    assert cache.slabs(cache.slabs_free) == free[per_look:], "four seconds are not over"
    assert cache.view.lists.next_reap == (timed.now + 4 * SECOND) % (1 << 32)


def test_a_cache_whose_free_slabs_were_used_is_spared_once() -> None:
    timed = Timed()
    cache = timed.cache(2048)
    timed.used_and_freed(cache, 60)
    timed.slab.cpu_caches.drain_cpu_caches(cache)
    free = cache.slabs(cache.slabs_free)
    cache.view.lists.next_reap = timed.now
    assert cache.view.lists.free_touched
    timed.slab.reaper.cache_reap()
    assert cache.slabs(cache.slabs_free) == free
    assert not cache.view.lists.free_touched


def test_after_two_minutes_only_what_is_used_is_left() -> None:
    timed = Timed(nr_cpus=2)
    cache = timed.cache(500)
    timed.slab.cpu_caches.processor = 1
    held = timed.used(cache, 3)
    timed.used_and_freed(cache, 200)
    timed.slab.cpu_caches.processor = 0
    timed.seconds(120)
    seen = slab_census(timed.world)[cache.vaddr]
    assert seen.live == set(held)
    assert sum(len(slab.used) for slab in seen.slabs.values()) == len(held)
    assert {slab.kept_in for slab in seen.slabs.values()} == {"slabs_partial"}


def test_what_is_not_to_be_reaped_keeps_arrays_and_slabs() -> None:
    timed = Timed()
    cache = timed.cache(500, SLAB_NO_REAP)
    timed.used_and_freed(cache, 200)
    kept, waiting = list(cache.all_slabs()), timed.in_arrays(cache)
    timed.seconds(120)
    assert list(cache.all_slabs()) == kept
    assert timed.in_arrays(cache) == waiting > 0


def test_a_month_of_sleep_is_like_an_hour() -> None:
    """Further looks find nothing, so they are not taken; when the next one is due is kept."""
    short, long = Timed(nr_cpus=2), Timed(nr_cpus=2)
    for timed, seconds in ((short, 600), (long, 30 * 86400)):
        timed.used_and_freed(timed.cache(500), 200)
        timed.seconds(seconds)
    later = (30 * 86400 - 600) * SECOND
    assert (long.now - short.now) % (1 << 32) == later % (1 << 32)
    assert long.world.free_pages() == short.world.free_pages()
    for here, there in zip(long.statics.reap_work, short.statics.reap_work, strict=True):
        assert (here.expires - there.expires - later) % (1 << 32) == 0
    for cache, other in zip(long.slab.chain(), short.slab.chain(), strict=True):
        moved = 0 if cache.flags & SLAB_NO_REAP else later
        there = int(other.view.lists.next_reap)
        assert (int(cache.view.lists.next_reap) - there - moved) % (1 << 32) == 0


def test_time_that_stands_still_reaps_nothing() -> None:
    timed = Timed()
    timed.slab.reaper.pass_time(999)
    assert timed.looks == []
    timed.slab.reaper.pass_time(1)
    assert [cpu for cpu, _ in timed.looks] == [0]
