# SPDX-License-Identifier: GPL-2.0-or-later
"""``kmem_cache_alloc_node()`` against the rule read once more, on lists read straight from RAM."""

from collections.abc import Callable
from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from harness.monitors.slabs import slab_census
from kernel_model.config import MIB, KernelConfig
from kernel_model.kernel import Kernel, boot
from kernel_model.mm.linux_2_6.numa import NodePageAllocator26
from kernel_model.mm.slab import Cache
from kernel_model.mm.slab.linux_2_6.allocator import Slab26
from kernel_model.mm.slab.linux_2_6.nodes import NodeSlab26
from kernel_model.proc import proc_files
from kernel_model.release.constants import LINUX_2_6

pytestmark = pytest.mark.book("8.8")
GFP = LINUX_2_6.gfp
NODES = 3
SPANS = ((0, 5120), (5120, 7168), (7168, 9216))


def booted(**choices: object) -> Kernel:
    config = {"ram": 36 * MIB, "release": "2.6", "nodes": NODES, "node_spans": SPANS} | choices
    return boot(KernelConfig(**config))  # type: ignore[arg-type]


class NodeCache:
    """A cache of a machine with nodes, and what its next object must be."""

    def __init__(self, size: int, **choices: object) -> None:
        self.kernel = kernel = booted(**choices)
        assert isinstance(kernel.slab, NodeSlab26)
        assert isinstance(kernel.allocator, NodePageAllocator26)
        self.slab, self.allocator = kernel.slab, kernel.allocator
        self.cachep = self.slab.kmem_cache_create("of-nodes", size, 0, 0)
        self.cache: Cache = self.slab.objects.cache(self.cachep)
        self.held: list[int] = []

    def node(self, objp: int) -> int:
        pfn = objp - 0xC0000000 >> 12
        return next(nid for nid, (start, end) in enumerate(SPANS) if start <= pfn < end)

    def lists(self) -> list[list[int]]:
        """The slabs that have objects in use and free ones, and those that are free."""
        heads = (self.cache.slabs_partial, self.cache.slabs_free)
        return [list(self.cache.slabs(head)) for head in heads]

    def slabs(self) -> list[int]:
        """All of them."""
        return [*self.cache.slabs(self.cache.slabs_full), *chain.from_iterable(self.lists())]

    def first_free(self, slab: int) -> int:
        view = self.kernel.image.at(self.kernel.image.structs.slab_t, slab)
        return int(view.s_mem) + int(view.free) * self.cache.objsize

    def expected(self, nid: int) -> int | None:
        """The next object of a node, if a slab with room is there."""
        known = chain.from_iterable(self.lists())
        of_node = [slab for slab in known if self.node(self.cache.s_mem(slab)) == nid]
        return self.first_free(of_node[0]) if of_node else None

    def take(self, nid: int) -> int:
        """``kmem_cache_alloc_node()``, held against :meth:`expected`."""
        expected, before = self.expected(nid), len(self.slabs())
        arrays = self.slab.cpu_caches
        kept = arrays.entries(arrays.array(self.cache))
        objp = self.slab.kmem_cache_alloc_node(self.cachep, nid)
        assert self.node(objp) == nid, "of another node"
        assert expected in (None, objp), "not the first free object of the first slab"
        assert len(self.slabs()) - before == (expected is None), "the cache grows when it must"
        assert arrays.entries(arrays.array(self.cache)) == kept, "arrays are passed by"
        self.held.append(objp)
        return objp


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("take"), st.integers(0, NODES - 1)),
        st.tuples(st.just("any"), st.integers(0, NODES - 1)),
        st.tuples(st.just("free"), st.integers(0, 1 << 16)),
    ),
    min_size=20,
    max_size=60,
)


@settings(max_examples=15, deadline=None)
@given(size=st.sampled_from([600, 1900, 4096]), steps=STEPS)
def test_an_object_is_of_the_first_slab_of_the_node(
    size: int, steps: list[tuple[str, int]]
) -> None:
    cache = NodeCache(size)
    for step, number in steps:
        if step == "take":
            cache.take(number)
        elif step == "any":
            cache.allocator.node_id = number
            cache.held.append(cache.slab.kmem_cache_alloc(cache.cachep, GFP.kernel))
        elif cache.held:
            cache.slab.kmem_cache_free(cache.cachep, cache.held.pop(number % len(cache.held)))
    slab_census(cache.kernel)
    for objp in cache.held:
        cache.slab.kmem_cache_free(cache.cachep, objp)
    assert cache.slab.kmem_cache_destroy(cache.cachep) == 0


def fill(cache: NodeCache, nid: int) -> None:
    """Take the memory of a node until nothing of it is above the marks."""
    allocator = cache.allocator
    for order in range(10, -1, -1):
        while page := allocator.alloc_pages_node(nid, GFP.atomic, order):
            if allocator.memmap.page_to_nid(page) != nid:
                allocator.free_pages(page, order)
                break


def test_a_node_without_memory_gets_three_slabs_elsewhere_before_any_will_do() -> None:
    """Each try adds a slab of the next node, which is none of the node that was asked for."""
    cache = NodeCache(4096)
    fill(cache, 2)
    objp = cache.slab.kmem_cache_alloc_node(cache.cachep, 2)
    assert cache.node(objp) == 0
    # A slab has one object; one of the three is in use now.
    assert [len(slabs) for slabs in cache.lists()] == [0, 2]
    assert len(cache.slabs()) == 3
    slab_census(cache.kernel)


def test_an_array_lies_near_its_cpu_and_the_shared_one_anywhere() -> None:
    cache = NodeCache(100, nr_cpus=2)
    arrays = cache.slab.cpu_caches
    for each in cache.slab.chain():
        assert [cache.node(arrays.array(each, cpu)) for cpu in range(2)] == [0, 1], each.name


def test_statistics_tell_of_objects_that_were_wanted_on_a_node() -> None:
    cache = NodeCache(600, debug_slab=True)
    for _ in range(5):
        cache.slab.kmem_cache_alloc_node(cache.cachep, 1)
    rows = {row["name"]: row for row in proc_files(cache.kernel)["slabinfo"].data(cache.kernel)}
    told = rows["of-nodes"]
    assert (told["node_allocs"], cache.cache.view.num_active) == (5, 5)
    slab_census(cache.kernel)


def test_uniform_memory_asks_the_array_of_the_cpu() -> None:
    kernel = boot(KernelConfig(ram=16 * MIB, release="2.6"))
    assert type(kernel.slab) is Slab26
    slab = kernel.slab
    cachep = slab.kmem_cache_create("plain", 600, 0, 0)
    slab.kmem_cache_free(cachep, slab.kmem_cache_alloc(cachep, GFP.kernel))
    array = slab.cpu_caches.entries(slab.cpu_caches.array(slab.objects.cache(cachep)))
    assert slab.kmem_cache_alloc_node(cachep, 0) == array[-1]


# -- planted -------------------------------------------------------------------------------------


def any_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NodeSlab26, "_of_node", lambda self, slabs, cache, nid: slabs)


def last_slab(monkeypatch: pytest.MonkeyPatch) -> None:
    real = NodeSlab26._with_room
    monkeypatch.setattr(NodeSlab26, "_with_room", lambda s, c: reversed(list(real(s, c))))


def at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        NodePageAllocator26,
        "alloc_pages_node",
        lambda self, nid, gfp, order, purpose: self.alloc_pages(gfp, order, purpose),
    )


def past_the_array(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NodeSlab26, "kmem_cache_alloc_node", Slab26.kmem_cache_alloc_node)


@pytest.mark.parametrize("plant", [any_node, last_slab, at_home, past_the_array])
def test_planted_faults_are_found(
    plant: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = NodeCache(600)

    def some_objects() -> None:
        for nid in (0, 1, 0, 2, 1, 0, 0, 2):
            for _ in range(5):
                cache.take(nid)
        for objp in cache.held[::3]:
            cache.slab.kmem_cache_free(cache.cachep, objp)
        del cache.held[::3]
        cache.slab.cpu_caches.drain_cpu_caches(cache.cache)
        for nid in (2, 1, 0, 0, 1, 2, 2):
            cache.take(nid)

    plant(monkeypatch)
    with pytest.raises(AssertionError):
        some_objects()


def test_a_count_of_free_objects_that_is_left_alone_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cache = NodeCache(600)
    cache.take(1)
    word = cache.cache.base + cache.slab.objects.free_objects_word
    cache.kernel.ram.words[word] += 1
    with pytest.raises(Exception, match="free"):
        slab_census(cache.kernel)
