# SPDX-License-Identifier: GPL-2.0-or-later
"""What a cache of 2.6 is made of, what its flags do, and what can be asked of it."""

import errno

import pytest

from kernel_model.config import MIB, KernelConfig
from kernel_model.errors import KernelBug, KernelPanic
from kernel_model.mm.slab import Cache
from kernel_model.mm.slab.flags import SLAB_HWCACHE_ALIGN
from kernel_model.mm.slab.linux_2_6 import Slab26
from kernel_model.mm.slab.linux_2_6.constants import (
    SLAB_DESTROY_BY_RCU,
    SLAB_PANIC,
    SLAB_RECLAIM_ACCOUNT,
    malloc_sizes,
)
from kernel_model.proc.slabinfo import slabinfo, slabinfo_write
from tests.harness.slab_worlds import Blocks, end_grace_period, world_of

pytestmark = pytest.mark.book("8.8")
PAGE_OFFSET = 0xC0000000


class Caches:
    """An allocator, and what is asked of it most."""

    def __init__(self, **build: int) -> None:
        self.world = world_of(KernelConfig(ram=64 * MIB, release="2.6", **build))
        assert isinstance(self.world.slab, Slab26)
        self.slab: Slab26 = self.world.slab
        self.statics = self.world.image.statics
        self.gfp = self.world.image.constants.gfp.kernel

    def create(self, size: int, align: int = 0, flags: int = 0, name: str = "made") -> Cache:
        return self.slab.objects.cache(self.slab.kmem_cache_create(name, size, align, flags))

    def alloc(self, cache: Cache, count: int = 1) -> list[int]:
        return [self.slab.kmem_cache_alloc(cache.vaddr, self.gfp) for _ in range(count)]


def test_sizes_between_powers_of_two_are_for_short_cache_lines() -> None:
    assert malloc_sizes(32)[:6] == (32, 64, 96, 128, 192, 256)
    assert malloc_sizes(64)[:5] == (32, 64, 128, 192, 256)
    assert malloc_sizes(128)[:4] == (32, 64, 128, 256)
    slab = Caches().slab
    names = {
        size: slab.objects.cache(slab.kmem_find_general_cachep(size, 0)).name
        for size in (65, 96, 97, 129, 192, 193)
    }
    assert names == {
        **{65: "size-96", 96: "size-96", 97: "size-128"},
        **{129: "size-192", 192: "size-192", 193: "size-256"},
    }


@pytest.mark.parametrize("align", [4, 16, 64, 256])
def test_every_object_is_aligned_as_asked(align: int) -> None:
    caches = Caches()
    for objp in caches.alloc(caches.create(100, align), 90):
        assert objp % align == 0


def test_bufctl_entries_are_half_words() -> None:
    """A slab of objects of 4 bytes has 678 of them beside a descriptor of 24 bytes."""
    caches = Caches()
    cache = caches.create(4)
    (objp,) = caches.alloc(cache)
    slab = caches.slab.objects.page_slab_of(objp)
    assert cache.num == 678
    assert cache.s_mem(slab) - slab == (24 + 2 * 678 + 3) // 4 * 4
    assert cache.bufctl(slab)[16:20] == [17, 18, 19, 20]


def test_a_cache_always_has_an_array_and_a_shared_one() -> None:
    """On a uniprocessor the shared one has no room."""
    for nr_cpus, room in ((1, 0), (2, 480)):
        caches = Caches(nr_cpus=nr_cpus)
        cache, arrays = caches.create(100), caches.slab.cpu_caches
        assert arrays.limit(arrays.array(cache)) == 120
        assert arrays.limit(arrays.shared(cache)) == room


def test_another_cpu_takes_what_one_gave_back() -> None:
    """Through the shared array, without touching a slab."""
    caches = Caches(nr_cpus=2)
    cache, arrays = caches.create(100), caches.slab.cpu_caches
    held = caches.alloc(cache, 300)
    for objp in held:
        caches.slab.kmem_cache_free(cache.vaddr, objp)
    shared = arrays.entries(arrays.shared(cache))
    free = int(cache.view.lists.free_objects)
    assert shared
    arrays.processor = 1
    (objp,) = caches.alloc(cache)
    assert objp == shared[-1]
    assert len(arrays.entries(arrays.array(cache))) == 15, "16 at a time while nobody used it"
    assert int(cache.view.lists.free_objects) == free


def test_slabs_beyond_the_limit_go_at_once() -> None:
    caches = Caches()
    cache = caches.create(2048)
    held = caches.alloc(cache, 400)
    before = caches.world.free_pages()
    for objp in held:
        caches.slab.kmem_cache_free(cache.vaddr, objp)
    assert cache.view.lists.free_objects <= cache.view.free_limit
    assert caches.world.free_pages() - before > 150


def test_what_can_be_had_back_is_counted_and_comes_in_single_pages() -> None:
    caches = Caches()
    plain = caches.create(1400, name="plain")
    cache = caches.create(1400, flags=SLAB_RECLAIM_ACCOUNT)
    assert (plain.gfporder, cache.gfporder) == (1, 0)
    caches.alloc(plain)
    assert caches.statics.slab_reclaim_pages == 0
    held = caches.alloc(cache, 5)
    assert caches.statics.slab_reclaim_pages == len(list(cache.all_slabs())) == 3
    for objp in held:
        caches.slab.kmem_cache_free(cache.vaddr, objp)
    assert caches.slab.kmem_cache_destroy(cache.vaddr) == 0
    assert caches.statics.slab_reclaim_pages == 0


def test_pages_freed_by_rcu_stay_until_the_grace_period_ends() -> None:
    """On the slab or off it, the descriptor stays as long."""
    for size in (100, 2048):
        caches = Caches()
        cache = caches.create(size, flags=SLAB_DESTROY_BY_RCU)
        (objp,) = caches.alloc(cache)
        caches.slab.kmem_cache_free(cache.vaddr, objp)
        before = caches.world.free_pages()
        assert caches.slab.kmem_cache_shrink(cache.vaddr) == 0
        assert caches.world.free_pages() == before
        end_grace_period(caches.slab)
        assert caches.world.free_pages() > before


def test_destroying_a_cache_waits_for_rcu() -> None:
    caches = Caches()
    cache = caches.create(100, flags=SLAB_DESTROY_BY_RCU)
    before = caches.world.free_pages()
    (objp,) = caches.alloc(cache)
    assert caches.slab.kmem_cache_destroy(cache.vaddr) == 1
    caches.slab.kmem_cache_free(cache.vaddr, objp)
    assert caches.slab.kmem_cache_destroy(cache.vaddr) == 0
    assert caches.statics.rcu_callbacks == 0
    assert caches.world.free_pages() == before


def test_without_memory_a_cache_that_must_be_is_a_panic(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another one is refused."""
    caches = Caches()
    while int(caches.slab.cache_cache.view.lists.free_objects) + len(
        caches.slab.cpu_caches.entries(caches.slab.cpu_caches.array(caches.slab.cache_cache))
    ):
        caches.create(100, name=f"another-{len(list(caches.slab.chain()))}")
    monkeypatch.setattr(Blocks, "get_free_pages", lambda self, *_: 0)
    assert caches.slab.kmem_cache_create("may be", 100, 0, 0) == 0
    with pytest.raises(KernelPanic, match="failed to create slab `must be'"):
        caches.slab.kmem_cache_create("must be", 100, 0, SLAB_PANIC)


def test_without_memory_for_its_array_a_cache_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel says so, goes on, and follows NULL when the cache is used."""
    caches = Caches()
    monkeypatch.setattr(Slab26, "kmalloc", lambda self, size, flags: 0)
    monkeypatch.setattr(type(caches.slab.cpu_caches), "_alloc_arraycache", lambda self, *_: 0)
    cache = caches.create(100)
    assert caches.world.image.log[-1] == "<3>enable_cpucache failed for made, error 12.\n"
    with pytest.raises(KernelBug, match="cache made has no array for CPU 0"):
        caches.alloc(cache)


def test_requests_that_are_serious_usage_bugs() -> None:
    slab = Caches().slab
    for size, flags in ((3, 0), (131_073, 0)):
        with pytest.raises(KernelBug, match=r"slab\.c:1204"):
            slab.kmem_cache_create("wrong", size, 0, flags)
    with pytest.raises(KernelBug, match="unknown flags"):
        slab.kmem_cache_create("wrong", 100, 0, 1 << 30)
    with pytest.raises(KernelBug, match="destroyed by RCU have no destructor"):
        slab.kmem_cache_create(
            "wrong", 100, 0, SLAB_DESTROY_BY_RCU, lambda *_: None, lambda *_: None
        )
    slab.kmem_cache_create("twice", 100, 0, 0)
    with pytest.raises(KernelBug, match="exists already"):
        slab.kmem_cache_create("twice", 100, 0, 0)
    with pytest.raises(KernelBug, match="31 characters"):
        slab.kmem_cache_create("n" * 32, 100, 0, 0)


def test_a_pointer_is_validated_by_where_it_lies() -> None:
    caches = Caches()
    cache, other = caches.create(100), caches.create(100, name="other")
    (objp,), (stranger,) = caches.alloc(cache), caches.alloc(other)
    valid = caches.slab.kmem_ptr_validate
    assert valid(cache.vaddr, objp)
    assert valid(cache.vaddr, objp + 4), "no more than a look at the frame"
    end = int(caches.statics.high_memory)
    for wrong in (0, objp + 1, stranger, PAGE_OFFSET - 4, PAGE_OFFSET + (15 << 20), end, end - 4):
        assert not valid(cache.vaddr, wrong)


def test_size_and_name_of_a_cache() -> None:
    for debug in (False, True):
        caches = Caches(debug_slab=debug)
        cache = caches.create(90, flags=SLAB_HWCACHE_ALIGN)
        assert caches.slab.kmem_cache_name(cache.vaddr) == "made"
        assert caches.slab.kmem_cache_size(cache.vaddr) == (92 if debug else 96)


def test_names_are_used_again() -> None:
    caches = Caches()
    for number in range(600):
        cache = caches.create(100, name=f"passing-{number}")
        assert cache.name == f"passing-{number}"
        assert caches.slab.kmem_cache_destroy(cache.vaddr) == 0


@pytest.mark.parametrize(
    ("text", "result"),
    [
        ("made 60 30 4\n", 13),
        ("made 60 30\n", -errno.EINVAL),
        ("made 0 0 0\n", -errno.EINVAL),
        ("made 10 11 1\n", -errno.EINVAL),
        ("made 10 5 -1\n", -errno.EINVAL),
        ("made\n", -errno.EINVAL),
        ("nobody 60 30 4\n", -errno.EINVAL),
        ("made 60 30 4" + " " * 120, -errno.EINVAL),
    ],
)
def test_slabinfo_takes_three_numbers(text: str, result: int) -> None:
    caches = Caches(nr_cpus=2)
    cache = caches.create(100)
    caches.alloc(cache)
    assert slabinfo_write(caches.slab, text) == result
    (line,) = (line for line in slabinfo(caches.slab).splitlines() if line.startswith("made "))
    # Other arrays take their objects out of the old ones, which go back to the slab.
    active, tuned = (1, "  60   30    4") if result > 0 else (16, " 120   60    8")
    assert line == (
        f"made              {active:>6}     39    100   39    1 : tunables {tuned} "
        ": slabdata      1      1      0"
    )
