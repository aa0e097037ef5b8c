# SPDX-License-Identifier: GPL-2.0-or-later
"""Caches and objects of every kind, mixed: after each step RAM is held against what was done.

:class:`SlabMachine` does what a kernel of either release does with caches; what only one has, its
subclass adds. Truth is the record of the calls, the census of :mod:`harness.monitors.slabs`, which
shares no code with the allocator, the frames that are free, and the bytes that users wrote into
their objects.
"""

import errno
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import ClassVar

from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from harness.monitors.slabs import CacheSeen, slab_census
from kernel_model.config import MIB, KernelConfig
from kernel_model.mm.slab.flags import (
    SLAB_CACHE_DMA,
    SLAB_CTOR_VERIFY,
    SLAB_DEBUG_INITIAL,
    SLAB_DMA,
    SLAB_HWCACHE_ALIGN,
    SLAB_MUST_HWCACHE_ALIGN,
    SLAB_NO_REAP,
    SLAB_POISON,
    SLAB_RED_ZONE,
)
from kernel_model.mm.slab.linux_2_6 import Slab26
from kernel_model.mm.slab.linux_2_6.constants import (
    SLAB_DESTROY_BY_RCU,
    SLAB_RECLAIM_ACCOUNT,
    SLAB_STORE_USER,
)
from tests.harness.slab_worlds import end_grace_period, world_of

PAGE_OFFSET = 0xC0000000
CONSTRUCTED = 0xC0457AC7
MOST_PAGES = 1200
SIZES = st.one_of(
    st.sampled_from([4, 20, 32, 60, 128, 500, 512, 1024, 2000, 3000, 4096, 9000, 60_000, 131_072]),
    st.integers(4, 1500),
)
FLAGS = st.sets(
    st.sampled_from(
        [
            *(SLAB_HWCACHE_ALIGN, SLAB_MUST_HWCACHE_ALIGN, SLAB_NO_REAP, SLAB_CACHE_DMA),
            *(SLAB_RECLAIM_ACCOUNT, SLAB_DESTROY_BY_RCU),
        ]
    )
).map(sum)
CPUS = st.integers(0, 1)
DEBUG_FLAGS = st.sets(
    st.sampled_from([SLAB_DEBUG_INITIAL, SLAB_RED_ZONE, SLAB_POISON, SLAB_STORE_USER])
).map(sum)


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

    machines: ClassVar[tuple[KernelConfig, ...]]

    @initialize(number=st.integers(0, 4), count=st.integers(0, 60))
    def boot(self, number: int, count: int) -> None:
        """A machine with four caches, and ``count`` objects of each."""
        self.world = world_of(self.machines[number % len(self.machines)])
        self.slab, self.image = self.world.slab, self.world.image
        self.ram = self.image.ram
        self.gfp = self.image.constants.gfp.kernel
        self.world.settle()
        self.free_at_boot = self.world.free_pages()
        self.free_when_checked = -1
        self.census = slab_census(self.world)
        self.live_at_boot = {vaddr: cache.live for vaddr, cache in self.census.items()}
        self.turns = {vaddr: cache.colour_next for vaddr, cache in self.census.items()}
        self.made: list[Made] = []
        self.mallocs: dict[int, tuple[int, bytes]] = {}
        self.serial = 0
        self._create(100, SLAB_RECLAIM_ACCOUNT | SLAB_DESTROY_BY_RCU, 0, None, False)
        self._create(60, SLAB_HWCACHE_ALIGN | SLAB_NO_REAP, 0, None, False)
        self._create(32, 0, 0, self._ctor, True)
        self._create(900, SLAB_CACHE_DMA, 0, None, False)
        self.tune(2, 6, 3, 2)
        for which in range(4):
            self.alloc(which, count, grow=True, cpu=0)

    # -- caches ------------------------------------------------------------------------------

    @precondition(lambda self: len(self.made) < 8)
    @rule(size=SIZES, flags=FLAGS, debug_flags=DEBUG_FLAGS, offset=st.integers(0, 64))
    def create(self, size: int, flags: int, debug_flags: int, offset: int) -> None:
        self._create(
            size, flags | self._debug(debug_flags), self._offset(offset, size), None, False
        )

    @precondition(lambda self: len(self.made) < 8)
    @rule(size=SIZES, flags=FLAGS, debug_flags=DEBUG_FLAGS, dtor=st.booleans())
    def create_with_constructor(self, size: int, flags: int, debug_flags: int, dtor: bool) -> None:
        self._create(size, flags | self._debug(debug_flags), 0, self._ctor, dtor)

    def _debug(self, flags: int) -> int:
        return flags if self.image.config.debug_slab else 0

    def _create(
        self, size: int, flags: int, offset: int, ctor: Callable[..., None] | None, dtor: bool
    ) -> None:
        self.serial += 1
        flags = self._allowed(flags, dtor=dtor)
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

    def _offset(self, offset: int, size: int) -> int:
        """The fourth argument of ``kmem_cache_create()``."""
        raise NotImplementedError

    def _allowed(self, flags: int, *, dtor: bool) -> int:
        """What this build knows of ``flags``."""
        constants = self.slab.objects.constants
        debug = self.image.config.debug_slab
        return flags & (constants.debug_create_mask if debug else constants.create_mask)

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
        made = self.made[which % len(self.made)]
        free = self.world.free_pages()
        self._shrunk(made, self.slab.kmem_cache_shrink(made.cachep), free)
        cache = self.slab.objects.cache(made.cachep)
        assert not cache.slabs(cache.slabs_free)

    def _shrunk(self, made: Made, answer: int, free_before: int) -> None:
        """What ``kmem_cache_shrink()`` says."""
        raise NotImplementedError

    @rule(times=st.integers(1, 8))
    def reap(self, times: int) -> None:
        for _ in range(times):
            self._spare_what_is_not_to_be_reaped()

    def _spare_what_is_not_to_be_reaped(self) -> None:
        kept = [c for c in map(self.slab.objects.cache, self.census) if c.flags & SLAB_NO_REAP]
        before = [set(cache.all_slabs()) for cache in kept]
        self._reap()
        assert [set(cache.all_slabs()) for cache in kept] == before, "reaped what may not be"

    def _reap(self) -> None:
        """Let the kernel take back what caches do not need."""
        raise NotImplementedError

    # -- objects -----------------------------------------------------------------------------

    def _room(self, size: int) -> bool:
        used = self.free_at_boot - self.world.free_pages()
        return used + (2 * size >> 12) < MOST_PAGES

    @precondition(lambda self: self.made)
    @rule(which=st.integers(0, 7), count=st.integers(1, 60), grow=st.booleans(), cpu=CPUS)
    def alloc(self, which: int, count: int, grow: bool, cpu: int) -> None:
        self._run_on(cpu)
        made = self.made[which % len(self.made)]
        no_grow = 0 if grow else self.slab.objects.constants.no_grow
        flags = self.gfp | (SLAB_DMA if made.flags & SLAB_CACHE_DMA else 0)
        for _ in range(count):
            if not self._room(made.size):
                return
            objp = self.slab.kmem_cache_alloc(made.cachep, flags | no_grow)
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
        objp = self.slab.kmalloc(size, self.gfp | (SLAB_DMA if dma else 0))
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
            self.slab.cpu_caches.processor = cpu % self.slab.cpu_caches.online

    @precondition(lambda self: self.made)
    @rule(
        which=st.integers(0, 7),
        limit=st.integers(0, 60),
        batchcount=st.integers(0, 40),
        shared=st.integers(-1, 8),
    )
    def tune(self, which: int, limit: int, batchcount: int, shared: int) -> None:
        """As a write to /proc/slabinfo does."""
        cpu_caches = self.slab.cpu_caches
        if cpu_caches is None:
            return
        cache = self.slab.objects.cache(self.made[which % len(self.made)].cachep)
        error = cpu_caches.tune(cache, [limit, batchcount, shared])
        good = self._is_good(limit, batchcount, shared)
        assert error == (0 if good else -errno.EINVAL)

    def _is_good(self, limit: int, batchcount: int, shared: int) -> bool:
        """Whether arrays may be of that size."""
        raise NotImplementedError

    # -- what must hold ----------------------------------------------------------------------

    @invariant()
    def what_ram_says_is_what_was_done(self) -> None:
        if not hasattr(self, "made"):
            return
        if self.world.free_pages() != self.free_when_checked:
            self.world.check_frames()
            self.free_when_checked = self.world.free_pages()
        before, self.census = self.census, slab_census(self.world)
        assert set(self.turns) == set(self.census), "another cache came or went"
        for made in self.made:
            cache = self.census[made.cachep]
            assert cache.live == set(made.live), f"{cache.name}: other objects live"
            if made.has_dtor:
                # What is poisoned while it is free is constructed for its user only.
                kept = len(made.live) if cache.flags & SLAB_POISON else cache.num * len(cache.slabs)
                assert len(made.constructed) == kept
        general = set().union(*(c.live for c in self.census.values() if c.name[:5] == "size-"))
        assert general.issuperset(self.mallocs)
        for vaddr, cache in self.census.items():
            if self._is_watched(cache):
                self._colours_rotated(before.get(vaddr), cache)
        self._no_two_objects_overlap()

    def _is_watched(self, cache: CacheSeen) -> bool:
        """Whether no slab of a cache can come and go within a step."""
        return True

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
            self._spare_what_is_not_to_be_reaped()
        self._idle()
        for made in list(self.made):
            self.destroy(self.made.index(made))
        assert not self.made
        self.world.settle()
        self.census = slab_census(self.world)
        assert {v: c.live for v, c in self.census.items()} == self.live_at_boot
        self.world.check_frames()
        assert self.world.free_pages() == self.free_at_boot, "pages were lost"

    def _idle(self) -> None:
        """Nobody uses any cache for a while."""


class SlabMachine24(SlabMachine):
    """Caches of 2.4: reaped when memory is short, shrunk page by page."""

    machines = (
        KernelConfig(ram=16 * MIB),
        KernelConfig(ram=16 * MIB, l1_cache_bytes=128),
        KernelConfig(ram=16 * MIB, nr_cpus=2),
        KernelConfig(ram=16 * MIB, debug_slab=True),
        KernelConfig(ram=16 * MIB, nr_cpus=2, debug_slab=True),
    )

    def _offset(self, offset: int, size: int) -> int:
        return min(offset, size)

    def _shrunk(self, made: Made, answer: int, free_before: int) -> None:
        assert self.world.free_pages() == free_before + answer

    def _reap(self) -> None:
        """A cache that grew is spared the first time, and one round looks at ten caches."""
        free = self.world.free_pages()
        pages = self.slab.kmem_cache_reap(self.gfp)
        assert self.world.free_pages() == free + pages

    def _is_good(self, limit: int, batchcount: int, shared: int) -> bool:
        return batchcount <= limit and bool(batchcount) == bool(limit)


class SlabMachine26(SlabMachine):
    """Caches of 2.6: reaped as time passes, freed by RCU, with arrays on every build."""

    machines = tuple(
        KernelConfig(ram=64 * MIB, release="2.6", **build)
        for build in (
            dict[str, int](),
            {"l1_cache_bytes": 128},
            {"nr_cpus": 2},
            {"debug_slab": True},
            {"nr_cpus": 2, "debug_slab": True},
        )
    )
    slab: Slab26

    def _offset(self, offset: int, size: int) -> int:
        """An alignment, a power of two."""
        return offset & -offset

    def _allowed(self, flags: int, *, dtor: bool) -> int:
        flags = super()._allowed(flags, dtor=dtor)
        if dtor:
            flags &= ~SLAB_DESTROY_BY_RCU
        return flags & ~SLAB_POISON if flags & SLAB_DESTROY_BY_RCU else flags

    def _shrunk(self, made: Made, answer: int, free_before: int) -> None:
        assert answer == bool(made.live)
        assert self.world.free_pages() >= free_before

    def _reap(self) -> None:
        free = self.world.free_pages()
        self.slab.reaper.pass_time(1000)
        assert self.world.free_pages() >= free

    @rule()
    def end_grace_period(self) -> None:
        end_grace_period(self.slab)
        assert not self.image.statics.rcu_callbacks

    @precondition(lambda self: any(made.live for made in self.made))
    @rule(which=st.integers(0, 7), off=st.sampled_from([-4, -1, 0, 1, 1 << 28]))
    def validate(self, which: int, off: int) -> None:
        """A pointer passes when a word begins there, in a slab of the cache."""
        used = [made for made in self.made if made.live]
        made = used[which % len(used)]
        assert self.slab.kmem_cache_size(made.cachep) >= made.size
        assert self.slab.kmem_cache_name(made.cachep) == self.census[made.cachep].name
        for objp in made.live:
            valid = self.slab.kmem_ptr_validate(made.cachep, objp + off)
            slabs = self.census[made.cachep].slabs.values()
            pages = self.census[made.cachep].pages << 12
            inside = any(0 <= objp + off - slab.memory < pages for slab in slabs)
            assert valid == (inside and off % 4 == 0)

    def _is_good(self, limit: int, batchcount: int, shared: int) -> bool:
        return 1 <= batchcount <= limit and shared >= 0

    def _is_watched(self, cache: CacheSeen) -> bool:
        """A new array may take the frames of a slab that went with the old one."""
        return any(made.cachep == cache.vaddr for made in self.made)

    def _idle(self) -> None:
        """Time empties every array, and destroys every free slab."""
        self.slab.reaper.pass_time(100_000)
        for cache in slab_census(self.world).values():
            if not cache.flags & SLAB_NO_REAP:
                assert not any(cache.arrays.values()), f"{cache.name}: an array is not drained"
                kept = {slab.kept_in for slab in cache.slabs.values()}
                assert "slabs_free" not in kept, f"{cache.name}: a free slab is kept"
