# SPDX-License-Identifier: GPL-2.0-or-later
"""Each thing that the censuses of slabs and of the vmalloc range hold against each other: RAM is
changed behind the kernel's back, and the census says what is wrong."""

from collections.abc import Callable

import pytest

from harness.monitors.frames import FrameLedger
from harness.monitors.slabs import SlabInconsistent, slab_census
from harness.monitors.vmlist import VmlistInconsistent, vmlist_census
from kernel_model.config import MIB, KernelConfig
from kernel_model.events import Rights
from kernel_model.kernel import Kernel
from kernel_model.mm.page_flags import PG_RESERVED, PG_SLAB
from kernel_model.mm.slab.flags import SLAB_KERNEL

PAGE_OFFSET, PAGE, SWAPPER = 0xC0000000, 4096, 0x101000


class Caches:
    """A kernel with a cache of objects of 100 bytes, one slab of it in partial use, and one of
    2,048 bytes, whose descriptors stand off the slab."""

    def __init__(self, nr_cpus: int = 1, debug_slab: bool = False) -> None:
        self.kernel = Kernel(KernelConfig(ram=16 * MIB, nr_cpus=nr_cpus, debug_slab=debug_slab))
        self.kernel.start_kernel()
        self.slab = self.kernel.slab
        self.large = self.slab.kmem_cache_create("large", 2048, 0, 0)
        self.cachep = self.slab.kmem_cache_create("small", 100, 0, 0)
        self.objp = self.slab.kmem_cache_alloc(self.cachep, SLAB_KERNEL)
        self.large_objp = self.slab.kmem_cache_alloc(self.large, SLAB_KERNEL)
        self.page = self.kernel.allocator.memmap.page(self.objp - PAGE_OFFSET >> 12)
        slabs = slab_census(self.kernel)[self.cachep].slabs
        (self.slabp,) = slabs
        self.used = slabs[self.slabp].used

    def add(self, vaddr: int, number: int = 1) -> None:
        self.kernel.ram.words[vaddr - PAGE_OFFSET >> 2] += number

    def in_cache(self, name: str) -> int:
        return self.cachep + self.kernel.image.structs.kmem_cache_t.offset(name)

    def in_slab(self, name: str) -> int:
        return self.slabp + self.kernel.image.structs.slab_t.offset(name)

    def array(self) -> int:
        assert self.slab.cpu_caches is not None
        return self.slab.cpu_caches.array(self.slab.objects.cache(self.cachep))

    def repeat_an_entry(self) -> None:
        at = self.array() - PAGE_OFFSET >> 2
        self.kernel.ram.words[at + 2] = self.kernel.ram.words[at + 3]

    def move_to_full(self) -> None:
        cache = self.slab.objects.cache(self.cachep)
        cache.lists.delete(self.slabp)
        cache.lists.add(self.slabp, cache.slabs_full)

    def share_a_slab(self) -> None:
        """The two caches' slabs have a frame in common."""
        other = next(iter(slab_census(self.kernel)[self.large].slabs))
        shift = (self.objp & -PAGE) - (self.large_objp & -PAGE)
        self.add(other + self.kernel.image.structs.slab_t.offset("s_mem"), shift)


@pytest.mark.book("8.1.1", "8.2", "8.2.3", "8.2.7")
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.add(c.slabp + 4, 8), "does not point back"),
        (lambda c: c.add(c.in_cache("slabs_free") + 4, 8), "the head does not point back"),
        (lambda c: c.add(c.in_slab("inuse")), "2 of .* objects in use, but"),
        (lambda c: c.add(c.in_slab("free"), 90), "the chain of free objects names"),
        (lambda c: c.add(c.slabp + 24 + 8, -2), "objects in use, but|chain of free objects"),
        (lambda c: c.move_to_full(), "slabs_full.*1 of .* objects are in use"),
        (lambda c: c.add(c.in_slab("s_mem"), 4), "its pages begin at"),
        (lambda c: c.add(c.in_slab("colouroff"), PAGE), "do not fit"),
        (lambda c: c.add(c.in_cache("growing")), "it is growing"),
        (lambda c: c.add(c.page), "names another cache or slab"),
        (lambda c: c.add(c.page + 4), "names another cache or slab"),
        (lambda c: c.kernel.allocator.memmap.clear_bit(c.page, PG_SLAB), "lacks PG_slab"),
        (lambda c: c.kernel.allocator.memmap.set_bit(c.page + 64 * 99, PG_SLAB), "but in no slab"),
        (lambda c: c.share_a_slab(), "it belongs to slab"),
        (
            lambda c: c.slab.kmem_cache_free(c.slab.cache_cache.vaddr, c.cachep),
            "its kmem_cache_t is no object in use",
        ),
        (
            lambda c: c.slab.kfree(next(iter(slab_census(c.kernel)[c.large].slabs))),
            "large, slab .* not allocated",
        ),
    ],
)
def test_what_contradicts_itself_in_a_slab(change: Callable[[Caches], None], said: str) -> None:
    caches = Caches()
    change(caches)
    with pytest.raises(SlabInconsistent, match=said):
        slab_census(caches.kernel)


@pytest.mark.book("8.5")
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.add(c.array(), 10_000), "array of CPU 0: .* objects of"),
        (lambda c: c.add(c.array() + 8, 4), "in its slab, or in two arrays"),
        (lambda c: c.repeat_an_entry(), "in its slab, or in two arrays"),
        (lambda c: c.slab.kfree(c.array()), "its array .* is not allocated"),
    ],
)
def test_what_contradicts_itself_in_an_array(change: Callable[[Caches], None], said: str) -> None:
    caches = Caches(nr_cpus=2)
    change(caches)
    with pytest.raises(SlabInconsistent, match=said):
        slab_census(caches.kernel)


@pytest.mark.book("8.1.2")
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.add(c.objp - 4), "object 0: wrong red zone"),
        (lambda c: c.add(c.objp + 100), "object 0: wrong red zone"),
        (lambda c: c.add(c.objp + 108 + 40), "object 1: its poison is gone"),
        (lambda c: c.add(c.in_cache("num_active")), "num_active is not the objects in use"),
    ],
)
def test_what_debugging_leaves_in_ram(change: Callable[[Caches], None], said: str) -> None:
    caches = Caches(debug_slab=True)
    change(caches)
    with pytest.raises(SlabInconsistent, match=said):
        slab_census(caches.kernel)


@pytest.mark.book("8.2.8")
def test_a_census_counts_what_users_have() -> None:
    caches = Caches(nr_cpus=2, debug_slab=True)
    seen = slab_census(caches.kernel)[caches.cachep]
    assert seen.name == "small"
    assert seen.live == {caches.objp}
    in_array = seen.arrays[caches.array()]
    assert in_array
    assert caches.objp not in in_array
    assert sum(len(slab.used) for slab in seen.slabs.values()) == len(in_array) + 1


class Areas:
    """A kernel with two areas of three pages and one of a device, and a ledger."""

    def __init__(self) -> None:
        self.kernel = Kernel(KernelConfig(ram=16 * MIB))
        self.ledger = FrameLedger().listen(self.kernel.image.events)
        self.kernel.start_kernel()
        vmalloc = self.kernel.vmalloc
        self.first, self.second = vmalloc.vmalloc(3 * PAGE), vmalloc.vmalloc(3 * PAGE)
        self.device = vmalloc.ioremap(0xF0000000, PAGE)
        self.structs = [area.vaddr for area in vmlist_census(self.kernel)]

    def add(self, index: int, field: str, number: int) -> None:
        offset = self.kernel.image.structs.vm_struct.offset(field)
        self.kernel.ram.words[self.structs[index] + offset - PAGE_OFFSET >> 2] += number

    def ptep(self, vaddr: int) -> int:
        tables = self.kernel.tables
        pmdp = tables.pmd_offset(tables.pgd_offset(SWAPPER, vaddr), vaddr)
        return tables.pte_offset(pmdp, vaddr)

    def put(self, vaddr: int, pte: int) -> None:
        self.kernel.tables.set_pte(self.ptep(vaddr), pte)

    def pte(self, vaddr: int) -> int:
        return self.kernel.tables.entry(self.ptep(vaddr))

    def page(self, vaddr: int) -> int:
        return self.kernel.allocator.memmap.page(self.pte(vaddr) >> 12)

    def say(self, vaddr: int, pfn: int) -> None:
        self.ledger.page_mapped(SWAPPER, vaddr, pfn, Rights(write=True, user=False))

    def lead_out_of_ram(self) -> None:
        pgdp = self.kernel.tables.pgd_offset(SWAPPER, self.first + 64 * MIB)
        self.kernel.ram.write32(pgdp, 0x0F000063)


@pytest.mark.book("7.1", "7.2", "7.3")
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda a: a.add(0, "size", PAGE), "the area before it ends at"),
        (lambda a: a.add(0, "addr", -PAGE), "the area before it ends at"),
        (lambda a: a.add(2, "size", 0x3F000000), "the range ends at"),
        (lambda a: a.add(1, "flags", 4), "flags 0x6"),
        (lambda a: a.add(2, "size", -PAGE), "size 0x1000"),
        (lambda a: a.put(a.first + PAGE, 0), "2 of 3 pages are mapped"),
        (lambda a: a.put(a.first + 3 * PAGE, a.pte(a.first)), "that is in no area"),
        (lambda a: a.put(a.first, a.pte(a.first) | 4), "user code may reach"),
        (lambda a: a.put(a.second, a.pte(a.first)), "is in the areas"),
        (lambda a: a.kernel.allocator.memmap.set_count(a.page(a.first), 0), "is nobody's"),
        (lambda a: a.kernel.allocator.memmap.set_bit(a.page(a.first), PG_RESERVED), "is nobody's"),
        (lambda a: a.say(a.first, 0x123), "the ledger was told of other pages"),
        (lambda a: a.say(a.first + 3 * PAGE, 0x123), "the ledger was told of other pages"),
        (lambda a: a.lead_out_of_ram(), "points to a table outside RAM"),
    ],
)
def test_what_contradicts_itself_in_the_vmalloc_range(
    change: Callable[[Areas], None], said: str
) -> None:
    areas = Areas()
    change(areas)
    with pytest.raises(VmlistInconsistent, match=said):
        vmlist_census(areas.kernel)
