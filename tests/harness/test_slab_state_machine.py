# SPDX-License-Identifier: GPL-2.0-or-later
"""Caches and objects of every kind, mixed: after each step RAM is held against what was done.

Truth is the record of the calls, the census of :mod:`harness.monitors.slabs`, which shares no
code with the allocator, the frame ledger, and the bytes that users wrote into their objects.
"""

import errno
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from harness.monitors.frames import FrameLedger
from harness.monitors.slabs import CacheSeen, slab_census
from kernel_model.config import MIB, KernelConfig
from kernel_model.errors import MmucheckError
from kernel_model.kernel import Kernel
from kernel_model.lists import Lists
from kernel_model.mm.mmzone import MemMap
from kernel_model.mm.page_flags import PG_SLAB
from kernel_model.mm.slab import Slab
from kernel_model.mm.slab import allocator as slab_allocator
from kernel_model.mm.slab import create as slab_create
from kernel_model.mm.slab.flags import (
    SLAB_CACHE_DMA,
    SLAB_CTOR_VERIFY,
    SLAB_DEBUG_INITIAL,
    SLAB_DMA,
    SLAB_HWCACHE_ALIGN,
    SLAB_KERNEL,
    SLAB_MUST_HWCACHE_ALIGN,
    SLAB_NO_GROW,
    SLAB_NO_REAP,
    SLAB_POISON,
    SLAB_RED_ZONE,
)
from kernel_model.mm.slab.linux_2_4.constants import LINUX_2_4
from kernel_model.mm.slab.linux_2_4.cpucache import CpuCaches
from kernel_model.mm.slab.linux_2_4.objects import Objects24
from kernel_model.mm.slab.linux_2_4.reap import Reaper
from tests.harness.frame_accounting import check_machine
from tests.kernel_model.mm.slab_settling import settle

PAGE_OFFSET = 0xC0000000
CONSTRUCTED = 0xC0457AC7
MOST_PAGES = 1200
MACHINES = {
    "UP": KernelConfig(ram=16 * MIB),
    "UP, lines of 128": KernelConfig(ram=16 * MIB, l1_cache_bytes=128),
    "SMP": KernelConfig(ram=16 * MIB, nr_cpus=2),
    "debug": KernelConfig(ram=16 * MIB, debug_slab=True),
    "SMP, debug": KernelConfig(ram=16 * MIB, nr_cpus=2, debug_slab=True),
}
SIZES = st.one_of(
    st.sampled_from([4, 20, 32, 60, 128, 500, 512, 1024, 2000, 3000, 4096, 9000, 60_000, 131_072]),
    st.integers(4, 1500),
)
FLAGS = st.sets(
    st.sampled_from([SLAB_HWCACHE_ALIGN, SLAB_MUST_HWCACHE_ALIGN, SLAB_NO_REAP, SLAB_CACHE_DMA])
).map(sum)
CPUS = st.integers(0, 1)
DEBUG_FLAGS = st.sets(st.sampled_from([SLAB_DEBUG_INITIAL, SLAB_RED_ZONE, SLAB_POISON])).map(sum)


@dataclass
class Made:
    """A cache that was created, and what its user knows: size, objects, their bytes."""

    cachep: int
    size: int
    flags: int
    has_ctor: bool
    has_dtor: bool
    live: dict[int, bytes] = field(default_factory=dict)
    constructed: set[int] = field(default_factory=set)
    """Objects24 that the constructor saw and the destructor did not."""


class SlabMachine(RuleBasedStateMachine):
    """What a kernel does with caches. ``made`` and ``mallocs`` are what it holds."""

    @initialize(name=st.sampled_from(sorted(MACHINES)), count=st.integers(0, 60))
    def boot(self, name: str, count: int) -> None:
        """A machine with four caches, and ``count`` objects of each."""
        self.kernel = Kernel(MACHINES[name])
        self.ledger = FrameLedger().listen(self.kernel.image.events)
        self.kernel.start_kernel()
        self.slab, self.ram = self.kernel.slab, self.kernel.ram
        settle(self.slab)
        self.free_at_boot = self.kernel.allocator.nr_free_pages()
        self.free_when_checked = -1
        self.census = slab_census(self.kernel)
        self.live_at_boot = {vaddr: cache.live for vaddr, cache in self.census.items()}
        self.turns = {vaddr: cache.colour_next for vaddr, cache in self.census.items()}
        self.made: list[Made] = []
        self.mallocs: dict[int, tuple[int, bytes]] = {}
        self.serial = 0
        self._create(100, 0, 0, None, False)
        self._create(60, SLAB_HWCACHE_ALIGN | SLAB_NO_REAP, 0, None, False)
        self._create(32, 0, 0, self._ctor, True)
        self._create(900, SLAB_CACHE_DMA, 0, None, False)
        for which in range(4):
            self.alloc(which, count, grow=True, cpu=0)

    # -- caches ------------------------------------------------------------------------------

    @precondition(lambda self: len(self.made) < 8)
    @rule(size=SIZES, flags=FLAGS, debug_flags=DEBUG_FLAGS, offset=st.integers(0, 64))
    def create(self, size: int, flags: int, debug_flags: int, offset: int) -> None:
        self._create(size, flags | self._debug(debug_flags), min(offset, size), None, False)

    @precondition(lambda self: len(self.made) < 8)
    @rule(size=SIZES, flags=FLAGS, debug_flags=DEBUG_FLAGS, dtor=st.booleans())
    def create_with_constructor(self, size: int, flags: int, debug_flags: int, dtor: bool) -> None:
        self._create(size, flags | self._debug(debug_flags), 0, self._ctor, dtor)

    def _debug(self, flags: int) -> int:
        return flags if self.kernel.config.debug_slab else 0

    def _create(
        self, size: int, flags: int, offset: int, ctor: Callable[..., None] | None, dtor: bool
    ) -> None:
        self.serial += 1
        dtor_function = self._dtor if dtor else None
        cachep = self.slab.kmem_cache_create(
            f"made-{self.serial}", size, offset, flags, ctor, dtor_function
        )
        if not cachep:
            assert size > 131_064, "there is memory enough, and a slab of 32 pages has room"
            assert flags & SLAB_RED_ZONE
            return
        assert all(cachep != made.cachep for made in self.made)
        self.made.append(Made(cachep, size, flags, ctor is not None, dtor))
        self.turns[cachep] = 0

    def _made(self, cachep: int) -> Made:
        return next(made for made in self.made if made.cachep == cachep)

    def _ctor(self, objp: int, cachep: int, flags: int) -> None:
        word = objp - PAGE_OFFSET >> 2
        if flags & SLAB_CTOR_VERIFY:
            assert self.ram.words[word] == CONSTRUCTED, "freed as it was not constructed"
            return
        made = self._made(cachep)
        assert objp not in made.constructed or not made.has_dtor, "constructed twice"
        made.constructed.add(objp)
        self.ram.words[word] = CONSTRUCTED

    def _dtor(self, objp: int, cachep: int, flags: int) -> None:
        assert self.ram.words[objp - PAGE_OFFSET >> 2] == CONSTRUCTED
        self._made(cachep).constructed.remove(objp)

    @precondition(lambda self: len(self.made) > 3)
    @rule(which=st.integers(0, 7))
    def destroy(self, which: int) -> None:
        """Refused while objects live; then everything of the cache goes."""
        made = self.made[which % len(self.made)]
        refused = self.slab.kmem_cache_destroy(made.cachep)
        assert refused == bool(made.live)
        if not refused:
            assert not made.has_dtor or not made.constructed, "objects were not destructed"
            self.made.remove(made)
            del self.turns[made.cachep]

    @precondition(lambda self: self.made)
    @rule(which=st.integers(0, 7))
    def shrink(self, which: int) -> None:
        cachep = self.made[which % len(self.made)].cachep
        free = self.kernel.allocator.nr_free_pages()
        pages = self.slab.kmem_cache_shrink(cachep)
        assert self.kernel.allocator.nr_free_pages() == free + pages
        cache = self.slab.objects.cache(cachep)
        assert not cache.slabs(cache.slabs_free)

    @rule(times=st.integers(1, 8))
    def reap(self, times: int) -> None:
        """A cache that grew is spared the first time, and one round looks at ten caches."""
        for _ in range(times):
            self._reap()

    def _reap(self) -> None:
        free = self.kernel.allocator.nr_free_pages()
        kept = [c for c in map(self.slab.objects.cache, self.census) if c.flags & SLAB_NO_REAP]
        before = [set(cache.all_slabs()) for cache in kept]
        pages = self.slab.kmem_cache_reap(SLAB_KERNEL)
        assert self.kernel.allocator.nr_free_pages() == free + pages
        assert [set(cache.all_slabs()) for cache in kept] == before, "reaped what may not be"

    # -- objects -----------------------------------------------------------------------------

    def _room(self, size: int) -> bool:
        used = self.free_at_boot - self.kernel.allocator.nr_free_pages()
        return used + (2 * size >> 12) < MOST_PAGES

    @precondition(lambda self: self.made)
    @rule(which=st.integers(0, 7), count=st.integers(1, 60), grow=st.booleans(), cpu=CPUS)
    def alloc(self, which: int, count: int, grow: bool, cpu: int) -> None:
        self._run_on(cpu)
        made = self.made[which % len(self.made)]
        flags = SLAB_KERNEL | (SLAB_DMA if made.flags & SLAB_CACHE_DMA else 0)
        for _ in range(count):
            if not self._room(made.size):
                return
            objp = self.slab.kmem_cache_alloc(made.cachep, flags | (0 if grow else SLAB_NO_GROW))
            if not objp:
                assert not grow, "there is memory enough"
                return
            if made.has_ctor:
                assert objp in made.constructed
                assert self.ram.words[objp - PAGE_OFFSET >> 2] == CONSTRUCTED
            if made.flags & SLAB_CACHE_DMA:
                assert objp + made.size <= PAGE_OFFSET + 16 * MIB
            made.live[objp] = self._write(objp, made.size)

    def _write(self, objp: int, size: int) -> bytes:
        """Fill an object with bytes of its own; they must stay."""
        self.serial += 1
        data = (self.serial.to_bytes(4, "little") * (size // 4 + 1))[:size]
        self.ram.write(objp - PAGE_OFFSET, data)
        return data

    def _free(self, made: Made, objp: int) -> None:
        data = made.live.pop(objp)
        assert self.ram.read(objp - PAGE_OFFSET, made.size) == data, "an object was overwritten"
        if made.has_ctor:
            self.ram.words[objp - PAGE_OFFSET >> 2] = CONSTRUCTED
        self.slab.kmem_cache_free(made.cachep, objp)

    @precondition(lambda self: any(made.live for made in self.made))
    @rule(
        which=st.integers(0, 7),
        start=st.integers(0, 500),
        count=st.integers(1, 200),
        step=st.sampled_from([1, 2, 3, -1]),
        cpu=CPUS,
    )
    def free(self, which: int, start: int, count: int, step: int, cpu: int) -> None:
        self._run_on(cpu)
        used = [made for made in self.made if made.live]
        made = used[which % len(used)]
        first = start % len(made.live)
        for objp in list(made.live)[first : first + count][::step]:
            self._free(made, objp)

    @rule(size=st.one_of(SIZES, st.integers(1, 140_000)), dma=st.booleans(), cpu=CPUS)
    def kmalloc(self, size: int, dma: bool, cpu: int) -> None:
        if not self._room(size):
            return
        self._run_on(cpu)
        objp = self.slab.kmalloc(size, SLAB_KERNEL | (SLAB_DMA if dma else 0))
        assert bool(objp) == (size <= 131_072)
        if objp:
            assert objp not in self.mallocs
            self.mallocs[objp] = size, self._write(objp, size)

    @precondition(lambda self: self.mallocs)
    @rule(start=st.integers(0, 100), count=st.integers(1, 20))
    def kfree(self, start: int, count: int) -> None:
        first = start % len(self.mallocs)
        for objp in list(self.mallocs)[first : first + count]:
            size, data = self.mallocs.pop(objp)
            assert self.ram.read(objp - PAGE_OFFSET, size) == data, "kmalloc: overwritten"
            self.slab.kfree(objp)

    # -- CPUs --------------------------------------------------------------------------------

    def _run_on(self, cpu: int) -> None:
        if self.slab.cpu_caches is not None:
            self.slab.cpu_caches.processor = cpu

    @precondition(lambda self: self.made)
    @rule(which=st.integers(0, 7), limit=st.integers(0, 60), batchcount=st.integers(0, 40))
    def tune(self, which: int, limit: int, batchcount: int) -> None:
        """As a write to /proc/slabinfo does."""
        cpu_caches = self.slab.cpu_caches
        if cpu_caches is None:
            return
        cache = self.slab.objects.cache(self.made[which % len(self.made)].cachep)
        error = cpu_caches.kmem_tune_cpucache(cache, limit, batchcount)
        good = batchcount <= limit and bool(batchcount) == bool(limit)
        assert error == (0 if good else -errno.EINVAL)

    # -- what must hold ----------------------------------------------------------------------

    @invariant()
    def what_ram_says_is_what_was_done(self) -> None:
        if not hasattr(self, "made"):
            return
        if self.kernel.allocator.nr_free_pages() != self.free_when_checked:
            check_machine(self.kernel, self.ledger)
            self.free_when_checked = self.kernel.allocator.nr_free_pages()
        before, self.census = self.census, slab_census(self.kernel)
        assert set(self.turns) == set(self.census), "another cache came or went"
        for made in self.made:
            cache = self.census[made.cachep]
            assert cache.live == set(made.live), f"{cache.name}: other objects live"
            if made.has_dtor:
                assert len(made.constructed) == cache.num * len(cache.slabs)
        general = set().union(*(c.live for c in self.census.values() if c.name[:5] == "size-"))
        assert general.issuperset(self.mallocs)
        for vaddr, cache in self.census.items():
            self._colours_rotated(before.get(vaddr), cache)
        self._no_two_objects_overlap()

    def _colours_rotated(self, before: CacheSeen | None, cache: CacheSeen) -> None:
        """Each new slab took the next colour; behind the last one comes 0 again."""
        old = before.slabs if before is not None else {}
        new = sorted(s.colour // cache.colour_off for v, s in cache.slabs.items() if v not in old)
        colours = max(cache.colour, 1)
        turn = self.turns[cache.vaddr]
        assert new == sorted((turn + number) % colours for number in range(len(new))), cache.name
        self.turns[cache.vaddr] = (turn + len(new)) % colours
        assert cache.colour_next % colours == self.turns[cache.vaddr], cache.name

    def _no_two_objects_overlap(self) -> None:
        held = [(objp, made.size, data) for made in self.made for objp, data in made.live.items()]
        held += [(objp, size, data) for objp, (size, data) in self.mallocs.items()]
        held.sort()
        end = 0
        for objp, size, data in held:
            assert objp >= end, f"two live objects have {objp:#x}"
            end = objp + size
            same = self.ram.bytes[objp - PAGE_OFFSET : end - PAGE_OFFSET] == data
            assert same, f"the bytes of {objp:#x} changed"

    def teardown(self) -> None:
        if not hasattr(self, "made"):
            return
        if self.mallocs:
            self.kfree(0, len(self.mallocs))
        for made in self.made:
            for objp in list(made.live):
                self._free(made, objp)
        for _ in range(8):
            self._reap()
        for made in list(self.made):
            self.destroy(self.made.index(made))
        assert not self.made
        settle(self.slab)
        self.census = slab_census(self.kernel)
        assert {v: c.live for v, c in self.census.items()} == self.live_at_boot
        check_machine(self.kernel, self.ledger)
        assert self.kernel.allocator.nr_free_pages() == self.free_at_boot, "pages were lost"


TestSlab = pytest.mark.book(
    *("8.1.2", "8.1.3", "8.1.7", "8.1.8", "8.1.9", "8.2.2", "8.2.4", "8.2.5", "8.2.6", "8.2.7"),
    *("8.2.8", "8.3.1", "8.3.2", "8.3.3", "8.4.1", "8.4.2", "8.5.1", "8.5.2", "8.5.3"),
    *("8.5.4", "8.5.5", "8.7"),
)(SlabMachine.TestCase)


# -- planted faults ------------------------------------------------------------------------------


def an_object_is_given_out_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    """The chain of free objects is not moved on, for every seventh object."""
    real = Objects24.take

    def take(self: Any, cache: Any) -> int:
        objp = real(self, cache)
        slab = self.page_slab_of(objp) if objp else 0
        if (
            objp
            and self.debug is None
            and cache.inuse(slab) == 7
            and cache.free(slab) != LINUX_2_4.bufctl_end
        ):
            at = slab - PAGE_OFFSET >> 2
            self._words[at + self._where.free] -= 1
        return objp

    monkeypatch.setattr(Objects24, "take", take)


def an_object_too_many_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Objects24.put

    def put(self: Any, cache: Any, objp: int) -> None:
        slab = self.page_slab_of(objp)
        real(self, cache, objp)
        if cache.inuse(slab) == 2:
            self._words[(slab - PAGE_OFFSET >> 2) + self._where.inuse] += 1

    monkeypatch.setattr(Objects24, "put", put)


def empty_slabs_stay_partial(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Objects24.put

    def put(self: Any, cache: Any, objp: int) -> None:
        real(self, cache, objp)
        slab = self.page_slab_of(objp)
        if not cache.inuse(slab):
            self._lists.delete(slab)
            self._lists.add(slab, cache.slabs_partial)

    monkeypatch.setattr(Objects24, "put", put)


def a_slab_holds_one_object_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    real = slab_create.kmem_cache_estimate

    def estimate(order: int, size: int, *rest: int) -> tuple[int, int]:
        count, left_over = real(order, size, *rest)
        return (count + 1, left_over) if size > 200 else (count, left_over)

    monkeypatch.setattr(slab_create, "kmem_cache_estimate", estimate)


def the_last_colour_is_never_used(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Objects24._add_slab

    def add_slab(self: Any, cache: Any, *rest: Any) -> bool:
        if cache.view.colour and cache.view.colour_next == cache.view.colour - 1:
            cache.view.colour_next = 0
        return real(self, cache, *rest)

    monkeypatch.setattr(Objects24, "_add_slab", add_slab)


def colours_are_a_word_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Objects24._add_slab
    monkeypatch.setattr(
        Objects24,
        "_add_slab",
        lambda self, cache, flags, colour_off, *rest: real(
            self, cache, flags, colour_off // 32 * 4, *rest
        ),
    )


def a_descriptor_off_the_slab_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Objects24.kmem_slab_destroy
    monkeypatch.setattr(
        Objects24,
        "kmem_slab_destroy",
        lambda self, cache, slab, free: real(self, cache, slab, lambda *ignored: None),
    )


def frames_stay_marked(monkeypatch: pytest.MonkeyPatch) -> None:
    real = MemMap.clear_bit

    def clear_bit(self: Any, page: int, bit: int) -> None:
        if bit != PG_SLAB or page // 64 % 4:
            real(self, page, bit)

    monkeypatch.setattr(MemMap, "clear_bit", clear_bit)


def half_of_a_large_slab_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def destroy(self: Any, cache: Any, slab: int, free: Any) -> None:
        pages = self.pages
        self.pages = HalfKept(pages)
        try:
            real(self, cache, slab, free)
        finally:
            self.pages = pages

    real = Objects24.kmem_slab_destroy
    monkeypatch.setattr(Objects24, "kmem_slab_destroy", destroy)


@dataclass
class HalfKept:
    """A page allocator that gets back half of each block."""

    pages: Any

    def free_pages_at(self, vaddr: int, order: int) -> None:
        self.pages.free_pages_at(vaddr, max(order - 1, 0))


def a_destructor_is_not_called(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Objects24.kmem_slab_destroy

    def destroy(self: Any, cache: Any, slab: int, free: Any) -> None:
        functions = self.functions
        self.functions = {}
        try:
            real(self, cache, slab, free)
        finally:
            self.functions = functions

    monkeypatch.setattr(Objects24, "kmem_slab_destroy", destroy)


def a_constructor_misses_the_last_object(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Objects24._init_objects

    def init_objects(self: Any, cache: Any, slab: int, flags: int) -> None:
        last = cache.s_mem(slab) + cache.objsize * (cache.num - 1)
        before = self._image.ram.read(last - PAGE_OFFSET, cache.objsize)
        real(self, cache, slab, flags)
        if cache.view.ctor:
            self._image.ram.write(last - PAGE_OFFSET, before)

    monkeypatch.setattr(Objects24, "_init_objects", init_objects)


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


def a_cache_is_destroyed_with_its_objects(monkeypatch: pytest.MonkeyPatch) -> None:
    """A list of one slab passes for empty."""
    monkeypatch.setattr(slab_allocator, "Lists", OverlooksLastSlab)


class OverlooksLastSlab(Lists):
    """Says that a list is empty when its last entry is its first."""

    def empty(self, head: int) -> bool:
        return self.first(head) == self.last(head)


def reap_takes_what_is_not_to_be_reaped(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Reaper._reapable

    def reapable(self: Any, cache: Any) -> tuple[int, int]:
        flags, dflags = cache.view.flags, cache.view.dflags
        cache.view.flags, cache.view.dflags = flags & ~SLAB_NO_REAP, 0
        try:
            slabs, pages = real(self, cache)
        finally:
            cache.view.flags, cache.view.dflags = flags, dflags
        return slabs, pages * (10 if flags & SLAB_NO_REAP else 1)

    monkeypatch.setattr(Reaper, "_reapable", reapable)


@pytest.mark.parametrize(
    "fault",
    [
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
        an_array_loses_an_object,
        an_array_gives_an_object_twice,
        only_this_cpu_is_drained,
        arrays_outlive_their_cache,
        old_arrays_are_forgotten_with_their_objects,
        a_cache_is_destroyed_with_its_objects,
        reap_takes_what_is_not_to_be_reaped,
    ],
)
def test_planted_faults_are_found(
    fault: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pointer out of RAM is an IndexError, a count below 0 a ValueError."""
    fault(monkeypatch)
    with pytest.raises((AssertionError, MmucheckError, IndexError, ValueError)):
        run_state_machine_as_test(
            SlabMachine,
            settings=settings(
                max_examples=100, derandomize=True, database=None, phases=[Phase.generate]
            ),
        )
