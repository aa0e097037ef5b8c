# SPDX-License-Identifier: GPL-2.0-or-later
"""Guest code walks 2.6's caches, slabs and arrays, and agrees with the model; what is spoilt in RAM
it finds by itself."""

import random
from collections.abc import Callable
from typing import Any

import pytest

from harness.guests import guest_path
from harness.monitors import guest_slab_walk
from harness.monitors.walk_report import differences
from harness.slab_walk_layout import SLAB_WALK, SlabFault
from kernel_model.config import MIB, KernelConfig
from kernel_model.mm.slab import Cache
from kernel_model.mm.slab.linux_2_6 import Slab26
from kernel_model.mm.slab.linux_2_6.constants import SLAB_DESTROY_BY_RCU
from tests.harness.bare_guest import BareGuest
from tests.harness.slab_worlds import world_of

pytestmark = pytest.mark.book("8.8")
PAGE_OFFSET = 0xC0000000
BUILDS: dict[str, dict[str, Any]] = {
    "nohm_2_6": {},
    "smp_2_6": {"nr_cpus": 2},
    "debug_2_6": {"debug_slab": True},
}
SIZES = (20, 32, 100, 500, 700, 1500, 4000, 4096, 9000)


class Walked:
    """An allocator, and a guest that walks it."""

    def __init__(self, variant: str) -> None:
        self.world = world_of(KernelConfig(ram=64 * MIB, release="2.6", **BUILDS[variant]))
        assert isinstance(self.world.slab, Slab26)
        self.slab: Slab26 = self.world.slab
        self.image = self.world.image
        self.ram = self.image.ram
        self.image.statics.max_mapnr = self.ram.frames
        self.gfp = self.image.constants.gfp.kernel
        self.guest = BareGuest(self.image, guest_path("slab_test", variant))
        self.held: list[tuple[int, int]] = []

    def report(self) -> Any:
        """A copy of the guest's ``struct slab_walk``."""
        report = self.guest.call("walk_slabs") - PAGE_OFFSET
        return SLAB_WALK.ctype.from_buffer_copy(self.ram.read(report, SLAB_WALK.size))

    def faults(self) -> list[SlabFault]:
        report = self.report()
        return [SlabFault(fault.kind) for fault in report.faults[: report.nr_faults]]

    def check(self) -> None:
        """The guest complains of nothing, and counts what the model counts."""
        report = self.report()
        assert report.nr_faults == 0, [str(fault.kind) for fault in report.faults[:5]]
        model = guest_slab_walk.model_walk(self.world)  # type: ignore[arg-type]
        model.slab_pages = report.slab_pages
        assert list(differences(report, model)) == []

    def cache(self, size: int) -> Cache:
        known = self.slab.find(f"test-{size}")
        if known is not None:
            return known
        flags = SLAB_DESTROY_BY_RCU if size == 700 else 0
        cachep = self.slab.kmem_cache_create(f"test-{size}", size, 0, flags)
        cache = self.slab.objects.cache(cachep)
        if size <= 4096:
            assert self.slab.cpu_caches.tune(cache, [6, 3, 2]) == 0
        return cache

    def fill(self, randomness: random.Random, count: int) -> None:
        arrays = self.slab.cpu_caches
        for _ in range(count):
            if self.held and randomness.random() < 0.4:
                self.slab.kmem_cache_free(*self.held.pop(randomness.randrange(len(self.held))))
            cachep = self.cache(randomness.choice(SIZES)).vaddr
            arrays.processor = randomness.randrange(arrays.online)
            self.held.append((cachep, self.slab.kmem_cache_alloc(cachep, self.gfp)))


@pytest.mark.parametrize("variant", BUILDS)
def test_guest_agrees_after_every_few_hundred_operations(variant: str) -> None:
    walked, randomness = Walked(variant), random.Random(variant)
    walked.check()
    for _ in range(3):
        walked.fill(randomness, 250)
        walked.check()
        for cachep, objp in walked.held[::2]:
            walked.slab.kmem_cache_free(cachep, objp)
        del walked.held[::2]
        walked.check()
        walked.slab.reaper.pass_time(9000)
        walked.slab.kmem_cache_shrink(walked.cache(700).vaddr)
        walked.check()
        walked.slab.objects.rcu.end_grace_period()
        walked.check()


def test_what_the_guest_counts() -> None:
    walked = Walked("smp_2_6")
    walked.fill(random.Random(4), 300)
    for cachep, objp in walked.held[::2]:
        walked.slab.kmem_cache_free(cachep, objp)
    del walked.held[::2]
    report = walked.report()
    chain = list(walked.slab.chain())
    assert [slot.address for slot in report.caches[: report.nr_caches]] == [c.vaddr for c in chain]
    counted = {cache.name: slot for cache, slot in zip(chain, report.caches, strict=False)}
    for size in SIZES:
        slot = counted[f"test-{size}"]
        in_arrays = sum(cpu.avail for cpu in slot.cpus) + slot.shared.avail
        live = sum(1 for cachep, _ in walked.held if cachep == slot.address)
        assert sum(list_.inuse for list_ in slot.lists) == live + in_arrays
    assert any(slot.shared.avail for slot in counted.values())
    states = walked.image.statics.page_states
    assert report.slab_pages == sum(int(state.nr_slab) for state in states)


def _word(walked: Walked, vaddr: int, number: int) -> None:
    walked.ram.words[vaddr - PAGE_OFFSET >> 2] += number


def _in_lists(walked: Walked, name: str) -> int:
    structs = walked.image.structs
    cache = walked.cache(100).vaddr
    return cache + structs.kmem_cache_t.offset("lists") + structs.kmem_list3.offset(name)


def _partial(walked: Walked) -> int:
    return walked.cache(100).slabs(walked.cache(100).slabs_partial)[0]


def _link(walked: Walked) -> None:
    """The chain of free objects names one that is not there."""
    where, slab = walked.cache(100).where, _partial(walked)
    where.links[(slab - PAGE_OFFSET >> where.link_shift) + where.free] = 0x7FFF


def _array(walked: Walked, shared: bool) -> int:
    arrays, cache = walked.slab.cpu_caches, walked.cache(100)
    return arrays.shared(cache) if shared else arrays.array(cache)


def _repeat(walked: Walked, shared: bool) -> None:
    """An object of an array is one that is in its slab."""
    at = _array(walked, shared) - PAGE_OFFSET >> 2
    free = walked.cache(100).free(_partial(walked))
    objp = walked.cache(100).s_mem(_partial(walked)) + free * walked.cache(100).objsize
    walked.ram.words[at] = 1
    walked.ram.words[at + 4] = objp


def _bit(walked: Walked) -> None:
    """A frame of a slab is not marked."""
    frame = _partial(walked) - PAGE_OFFSET >> 12
    page = int(walked.image.statics.mem_map) + frame * walked.image.structs.page.size
    _word(walked, page, -(1 << walked.image.constants.page_flags.slab))


PLANTED: list[tuple[Callable[[Walked], None], SlabFault]] = [
    (
        lambda w: _word(w, w.cache(100).vaddr + w.cache(100).where.next + 4, 8),
        SlabFault.CACHE_CHAIN,
    ),
    (lambda w: setattr(w.cache(100).view, "num", 0), SlabFault.CACHE_FIELDS),
    (lambda w: _word(w, _partial(w) + 4, 8), SlabFault.SLAB_LIST),
    (lambda w: _word(w, _partial(w) + 12, 4), SlabFault.SLAB_MEMORY),
    (lambda w: setattr(w.cache(4096).view, "slabp_cache", w.cache(100).vaddr), SlabFault.OFF_SLAB),
    (lambda w: _word(w, _partial(w) + 16, 1), SlabFault.BUFCTL),
    (lambda w: _link(w), SlabFault.BUFCTL),
    (lambda w: _bit(w), SlabFault.PAGE),
    (lambda w: _bit(w), SlabFault.SLAB_PAGES),
    (lambda w: _word(w, _in_lists(w, "free_objects"), 1), SlabFault.FREE_OBJECTS),
    (lambda w: _word(w, _array(w, False), 1000), SlabFault.CPU_ARRAY),
    (lambda w: _word(w, _array(w, True), 1000), SlabFault.CPU_ARRAY),
    (lambda w: _repeat(w, False), SlabFault.CPU_OBJECT),
    (lambda w: _repeat(w, True), SlabFault.CPU_OBJECT),
]


@pytest.mark.parametrize("variant", ["nohm_2_6", "smp_2_6"])
@pytest.mark.parametrize(("plant", "fault"), PLANTED)
def test_planted_corruption_is_found(
    variant: str, plant: Callable[[Walked], None], fault: SlabFault
) -> None:
    walked = Walked(variant)
    walked.slab.cpu_caches.processor = 0
    walked.fill(random.Random(1), 300)
    walked.check()
    plant(walked)
    assert fault in walked.faults()


@pytest.mark.parametrize("waits", [False, True])
@pytest.mark.parametrize(
    ("offset", "fault"),
    [(-4, SlabFault.RED_ZONE), (100, SlabFault.RED_ZONE), (0, SlabFault.POISON)],
)
def test_bytes_of_a_free_object(waits: bool, offset: int, fault: SlabFault) -> None:
    """In its slab, or waiting in an array: it bears the marks of a free one."""
    walked = Walked("debug_2_6")
    cache = walked.cache(100)
    objp = walked.slab.kmem_cache_alloc(cache.vaddr, walked.gfp)
    walked.check()
    walked.slab.kmem_cache_free(cache.vaddr, objp)
    if not waits:
        walked.slab.cpu_caches.drain_cpu_caches(cache)
    walked.check()
    walked.ram.write8(objp + offset - PAGE_OFFSET, 0x33)
    assert walked.faults() == [fault]


def test_red_zone_of_an_object_in_use() -> None:
    walked = Walked("debug_2_6")
    objp = walked.slab.kmalloc(50, walked.gfp)
    walked.check()
    walked.ram.write8(objp + 64 - PAGE_OFFSET, 0)
    assert walked.faults() == [SlabFault.RED_ZONE]
