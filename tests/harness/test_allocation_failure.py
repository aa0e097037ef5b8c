# SPDX-License-Identifier: GPL-2.0-or-later
"""Memory runs out at every request for frames in turn: what failed leaves nothing behind.

The first request fails, then the second, until the operation needs no more; each time once
with memory to be had again behind it, and once with none for good. What the real 2.4.22
leaves behind too is named, with its reason, by :data:`KEPT`; anything else is a fault.
"""

import errno
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from harness.monitors.frames import FrameLedger
from harness.monitors.slabs import CacheSeen, slab_census
from harness.monitors.vmlist import AreaSeen, vmlist_census
from kernel_model.config import MIB, Highmem, KernelConfig
from kernel_model.errors import MmucheckError
from kernel_model.kernel import Kernel
from kernel_model.mm.slab import Slab
from kernel_model.mm.slab.flags import SLAB_CACHE_DMA, SLAB_DMA, SLAB_KERNEL, SLAB_NO_GROW
from kernel_model.mm.slab.linux_2_4.cpucache import CpuCaches
from kernel_model.mm.slab.objects import Objects
from kernel_model.mm.vmalloc import Vmalloc
from kernel_model.structs.mmzone import VM_IOREMAP
from kernel_model.structs.slab import CACHE_SIZES
from tests.harness.frame_accounting import check_machine
from tests.kernel_model.mm.slab_settling import settle

PAGE = 4096
KEPT = {
    "colour": "kmem_cache_grow() takes the colour before it asks for the frames",
    "free slab": "a slab that was made for an object given back is kept until somebody reaps",
    "array": "an object given back, and those of its batch, stay in the array of the CPU",
    "page table": "page tables of the kernel are never freed: other address spaces share them",
}
"""What may be left after a failure: the kernel keeps it on purpose and will use it."""

BUILDS = {
    "UP": KernelConfig(ram=16 * MIB),
    "SMP": KernelConfig(ram=16 * MIB, nr_cpus=2),
    "debug": KernelConfig(ram=16 * MIB, debug_slab=True),
    "PAE": KernelConfig(ram=72 * MIB, highmem=Highmem.GB64, highmem_pages=2048),
}


@dataclass(frozen=True)
class Moment:
    """Everything that an operation could leave behind."""

    caches: dict[int, CacheSeen]
    areas: list[AreaSeen]
    owners: dict[int, str]
    free_pages: int


class ScarceKernel:
    """A kernel whose caches have no free object at all, so that whatever is asked needs frames;
    and whose page allocator fails when it is told to."""

    def __init__(self, build: str) -> None:
        self.kernel = Kernel(BUILDS[build])
        self.ledger = FrameLedger().listen(self.kernel.image.events)
        self.kernel.start_kernel()
        self.slab = self.kernel.slab
        self.requests = 0
        self.failing: range | tuple[()] = ()
        self._real: Callable[[int, int], int] = self.kernel.allocator._alloc_pages
        self.kernel.allocator._alloc_pages = self._alloc_pages  # type: ignore[method-assign]

    def _alloc_pages(self, gfp_mask: int, order: int) -> int:
        number, self.requests = self.requests, self.requests + 1
        return 0 if number in self.failing else self._real(gfp_mask, order)

    def use_up(self) -> None:
        """Take every free object of every cache."""
        for cache in list(self.slab.chain()):
            flags = SLAB_KERNEL | SLAB_NO_GROW | (SLAB_DMA if cache.flags & SLAB_CACHE_DMA else 0)
            while self.slab.kmem_cache_alloc(cache.vaddr, flags):
                pass

    def moment(self) -> Moment:
        check_machine(self.kernel, self.ledger)
        free = self.kernel.allocator.nr_free_pages()
        owners = dict(self.ledger._owners)
        return Moment(slab_census(self.kernel), vmlist_census(self.kernel), owners, free)

    def failures(self, operation: Callable[[], Any], for_good: bool) -> Iterator[Any]:
        """Run ``operation`` with one request after the other failing; yields what it returned
        each time, until it needs no request that fails."""
        for number in range(200):
            self.requests = 0
            self.failing = range(number, 1 << 30 if for_good else number + 1)
            returned = operation()
            self.failing = ()
            if self.requests <= number:
                return
            yield returned
        raise AssertionError("it never has enough")


def left_behind(before: Moment, after: Moment) -> set[str]:
    """The names of what is there that was not there, by the words of :data:`KEPT` if it has one."""
    names = {f"cache {after.caches[v].name}" for v in after.caches.keys() - before.caches.keys()}
    names |= {
        f"no cache {before.caches[v].name}" for v in before.caches.keys() - after.caches.keys()
    }
    descriptors = _slabs(after) - _slabs(before)
    for vaddr in before.caches.keys() & after.caches.keys():
        names |= _left_in_cache(before.caches[vaddr], after.caches[vaddr], descriptors)
    if before.areas != after.areas:
        names.add("area")
    for frame in before.owners.keys() ^ after.owners.keys():
        owner = after.owners.get(frame) or f"no frame of {before.owners[frame]}"
        names |= {owner} - {"slab"}
    return names


def _slabs(moment: Moment) -> set[int]:
    return {slab for cache in moment.caches.values() for slab in cache.slabs}


def _left_in_cache(old: CacheSeen, new: CacheSeen, descriptors: set[int]) -> set[str]:
    """``descriptors`` of new slabs may be objects of this cache: they are no users' objects."""
    names = {"colour"} if old.colour_next != new.colour_next else set()
    if old.live != new.live - descriptors:
        names.add(f"object of {old.name}")
    if old.arrays != new.arrays:
        names.add("array" if old.arrays.keys() == new.arrays.keys() else f"arrays of {old.name}")
    if old.slabs.keys() - new.slabs.keys():
        names.add(f"no slab of {old.name}")
    if new.slabs.keys() - old.slabs.keys():
        names.add("free slab")
    return names


def check_failures(
    scarce: ScarceKernel, operation: Callable[[], Any], failed: Any, *, for_good: bool
) -> int:
    """Each failure returns ``failed`` and leaves only what is :data:`KEPT`, which can all be
    given back. Returns how many requests were made to fail."""
    count = 0
    before = scarce.moment()
    for returned in scarce.failures(operation, for_good):
        count += 1
        assert returned == failed
        after = scarce.moment()
        assert left_behind(before, after) <= KEPT.keys()
        settle(scarce.slab)
        settled = scarce.moment()
        assert left_behind(before, settled) <= {"colour"}
        assert settled.owners == before.owners
        assert settled.free_pages == before.free_pages
    return count


@pytest.fixture(params=[False, True], ids=["once", "for good"])
def for_good(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


# -- caches and objects ----------------------------------------------------------------------


@pytest.mark.book("8.1.6")
@pytest.mark.parametrize("build", ["UP", "SMP", "debug"])
def test_a_cache_that_cannot_be_made(build: str, for_good: bool) -> None:
    """Without memory for the descriptor there is no cache. Without memory for the arrays of the
    CPUs there is one that has none, and a line in the log: so the real kernel has it."""
    scarce = ScarceKernel(build)
    scarce.use_up()
    slab, before = scarce.slab, scarce.moment()
    made: list[int] = []

    def create() -> int:
        return slab.kmem_cache_create("new", 100, 0, 0)

    for cachep in scarce.failures(create, for_good):
        made.append(cachep)
        if cachep:
            assert slab_census(scarce.kernel)[cachep].arrays == {}
            assert scarce.kernel.image.log[-1] == "<3>enable_cpucache failed for new, error 12.\n"
            assert slab.kmem_cache_destroy(cachep) == 0
        assert left_behind(before, scarce.moment()) <= KEPT.keys()
        settle(slab)
        assert left_behind(before, scarce.moment()) <= {"colour"}
        assert scarce.kernel.allocator.nr_free_pages() == before.free_pages
    assert [bool(cachep) for cachep in made] == [False, *[True] * (len(made) - 1)]
    assert len(made) == {"UP": 1, "SMP": 3, "debug": 1}[build]


@pytest.mark.book("8.2.2", "8.3.1", "8.3.2")
@pytest.mark.parametrize("build", ["UP", "SMP", "debug"])
@pytest.mark.parametrize(("size", "requests"), [(100, 1), (2048, 2), (60_000, 1), (65_536, 2)])
def test_a_slab_that_cannot_be_made(build: str, size: int, requests: int, for_good: bool) -> None:
    """Frames for the slab, then, when its descriptor stands off the slab, those for it."""
    scarce = ScarceKernel(build)
    cachep = scarce.slab.kmem_cache_create("small", size, 0, 0)
    off_slab = scarce.slab.objects.cache(cachep).off_slab
    scarce.use_up()
    count = check_failures(
        scarce, lambda: scarce.slab.kmem_cache_alloc(cachep, SLAB_KERNEL), 0, for_good=for_good
    )
    assert count == requests == 1 + off_slab


@pytest.mark.book("8.4.1")
@pytest.mark.parametrize("build", ["UP", "SMP", "debug"])
def test_kmalloc_without_memory(build: str, for_good: bool) -> None:
    scarce = ScarceKernel(build)
    scarce.use_up()
    for size in CACHE_SIZES:
        for flags in (SLAB_KERNEL, SLAB_KERNEL | SLAB_DMA):
            objects: list[int] = []

            def kmalloc(size: int = size, flags: int = flags, objects: list[int] = objects) -> int:
                objects.append(scarce.slab.kmalloc(size, flags))
                return objects[-1]

            assert check_failures(scarce, kmalloc, 0, for_good=for_good) in (1, 2)
            scarce.slab.kfree(objects[-1])
            settle(scarce.slab)


@pytest.mark.book("8.5.1", "8.5.4")
def test_arrays_that_cannot_be_made(for_good: bool) -> None:
    """The arrays that are there stay, with their objects; those made so far go."""
    scarce = ScarceKernel("SMP")
    cache = scarce.slab.objects.cache(scarce.slab.kmem_cache_create("tuned", 100, 0, 0))
    cpu_caches = scarce.slab.cpu_caches
    assert cpu_caches is not None
    scarce.use_up()
    objp = scarce.slab.kmem_cache_alloc(cache.vaddr, SLAB_KERNEL)
    in_array = cpu_caches.entries(cpu_caches.array(cache))
    scarce.use_up()
    for held in [objp, *in_array]:
        scarce.slab.kmem_cache_free(cache.vaddr, held)

    def tune() -> int:
        arrays = scarce.moment().caches[cache.vaddr].arrays
        error = cpu_caches.kmem_tune_cpucache(cache, 1000, 500)
        same = scarce.moment().caches[cache.vaddr].arrays == arrays
        assert same == bool(error)
        return error

    before = scarce.moment()
    errors = 0
    for error in scarce.failures(tune, for_good):
        errors += 1
        assert error == -errno.ENOMEM
        assert left_behind(before, scarce.moment()) <= KEPT.keys()
        settle(scarce.slab, undrained=cache.vaddr)
        assert left_behind(before, scarce.moment()) <= {"colour"}
    assert errors == 3, "a page for each array, and one for the descriptors of both"


# -- vmalloc ---------------------------------------------------------------------------------


def before_a_table_ends(scarce: ScarceKernel, pages: int) -> None:
    """Reserve so much that the next area has ``pages`` pages before a page table ends."""
    size = scarce.kernel.tables.shape.pmd_size - (pages + 1) * PAGE
    assert scarce.kernel.vmalloc.get_vm_area(size, VM_IOREMAP)


def what_vmalloc_leaves(
    build: str, operation: Callable[[Vmalloc], int], *, for_good: bool
) -> list[set[str]]:
    """What each failure of ``operation`` leaves, two pages before a page table ends.

    A table that is made once stays, so each failure has a kernel of its own.
    """
    left: list[set[str]] = []
    for number in range(20):
        scarce = ScarceKernel(build)
        before_a_table_ends(scarce, 2)
        scarce.use_up()
        before = scarce.moment()
        scarce.requests, scarce.failing = 0, range(number, 1 << 30 if for_good else number + 1)
        if operation(scarce.kernel.vmalloc):
            return left
        left.append(left_behind(before, scarce.moment()))
        settle(scarce.slab)
        settled = scarce.moment()
        assert left_behind(before, settled) <= {"colour", "page table"}
        tables = list(settled.owners.values()).count("page table")
        tables -= list(before.owners.values()).count("page table")
        assert settled.free_pages == before.free_pages - tables
    raise AssertionError("it never has enough")


@pytest.mark.book("7.2", "7.3")
@pytest.mark.parametrize("build", ["UP", "SMP", "PAE"])
def test_vmalloc_without_memory(build: str, for_good: bool) -> None:
    """The vm_struct, a page table, two frames, another page table, two more frames: in turn."""
    left = what_vmalloc_leaves(build, lambda vmalloc: vmalloc.vmalloc(4 * PAGE), for_good=for_good)
    assert ["page table" in names for names in left] == [False, False, True, True, True, True, True]
    assert left[0] <= {"colour"}, "no vm_struct"
    assert left[-1] <= {"free slab", "colour", "array", "page table"}


@pytest.mark.book("7.2")
@pytest.mark.parametrize("build", ["UP", "SMP", "PAE"])
def test_ioremap_without_memory(build: str, for_good: bool) -> None:
    left = what_vmalloc_leaves(
        build, lambda vmalloc: vmalloc.ioremap(0xF0000010, 4 * PAGE - 0x10), for_good=for_good
    )
    assert ["page table" in names for names in left] == [False, False, True]
    assert left[0] <= {"colour"}, "no vm_struct"


# -- planted faults --------------------------------------------------------------------------


class Grasping:
    """A page allocator that gets nothing back."""

    def __init__(self, pages: Any) -> None:
        self.get_free_pages = pages.get_free_pages

    def free_pages_at(self, vaddr: int, order: int) -> None:
        """Lost."""


def frames_are_lost_without_a_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    def add_slab(self: Any, *args: Any) -> bool:
        pages, self.pages = self.pages, Grasping(self.pages)
        try:
            return real(self, *args)
        finally:
            self.pages = pages

    real = Objects._add_slab
    monkeypatch.setattr(Objects, "_add_slab", add_slab)


def a_cache_that_failed_grows_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    def grow(self: Any, cache: Any, *args: Any) -> bool:
        grown = real(self, cache, *args)
        cache.view.growing += not grown
        return grown

    real = Objects.kmem_cache_grow
    monkeypatch.setattr(Objects, "kmem_cache_grow", grow)


def the_arrays_made_so_far_are_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    real = CpuCaches.kmem_tune_cpucache

    def tune(self: Any, *args: Any) -> int:
        kfree, self._kfree = self._kfree, lambda vaddr: None
        try:
            return real(self, *args)
        finally:
            self._kfree = kfree

    monkeypatch.setattr(CpuCaches, "kmem_tune_cpucache", tune)


def the_old_arrays_go_before_the_new_ones_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    real = CpuCaches.kmem_tune_cpucache

    def tune(self: Any, cache: Any, limit: int, batchcount: int) -> int:
        self.drain_cpu_caches(cache)
        return real(self, cache, limit, batchcount)

    monkeypatch.setattr(CpuCaches, "kmem_tune_cpucache", tune)


def a_cache_without_arrays_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Slab.kmem_cache_create

    def create(self: Any, *args: Any) -> int:
        cachep = real(self, *args)
        failed = (
            cachep and self.cpu_caches and not self.cpu_caches.array(self.objects.cache(cachep))
        )
        return 0 if failed else cachep

    monkeypatch.setattr(Slab, "kmem_cache_create", create)


def an_area_is_kept_half_mapped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Vmalloc, "vfree", lambda self, addr: None)


def half_an_area_is_given_out(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Vmalloc._vmalloc_area_pages
    monkeypatch.setattr(
        Vmalloc, "_vmalloc_area_pages", lambda self, *args: real(self, *args) or True
    )


def the_last_frame_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was mapped last, before memory ran out, is not unmapped."""

    def free(self: Any, addr: int, size: int) -> None:
        mapped = [a for a in range(addr, addr + size, PAGE) if self._paddr(a) is not None]
        real(self, addr, mapped[-1] - addr if mapped else size)

    real = Vmalloc._vmfree_area_pages
    monkeypatch.setattr(Vmalloc, "_vmfree_area_pages", free)


@pytest.mark.parametrize(
    ("fault", "shown_by"),
    [
        (
            frames_are_lost_without_a_descriptor,
            lambda: test_a_slab_that_cannot_be_made("UP", 2048, 2, False),
        ),
        (
            a_cache_that_failed_grows_for_ever,
            lambda: test_a_slab_that_cannot_be_made("UP", 100, 1, False),
        ),
        (the_arrays_made_so_far_are_lost, lambda: test_arrays_that_cannot_be_made(False)),
        (
            the_old_arrays_go_before_the_new_ones_are_there,
            lambda: test_arrays_that_cannot_be_made(False),
        ),
        (a_cache_without_arrays_is_none, lambda: test_a_cache_that_cannot_be_made("SMP", False)),
        (an_area_is_kept_half_mapped, lambda: test_ioremap_without_memory("UP", False)),
        (an_area_is_kept_half_mapped, lambda: test_vmalloc_without_memory("UP", True)),
        (half_an_area_is_given_out, lambda: test_vmalloc_without_memory("PAE", False)),
        (the_last_frame_is_lost, lambda: test_vmalloc_without_memory("UP", False)),
    ],
)
def test_planted_faults_are_found(
    fault: Callable[[pytest.MonkeyPatch], None],
    shown_by: Callable[[], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fault(monkeypatch)
    with pytest.raises((AssertionError, MmucheckError)):
        shown_by()
