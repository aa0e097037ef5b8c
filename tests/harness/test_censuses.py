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
from kernel_model.mm.slab.linux_2_6.constants import SLAB_DESTROY_BY_RCU
from tests.harness.slab_worlds import end_grace_period, world_of

PAGE_OFFSET, PAGE, SWAPPER = 0xC0000000, 4096, 0x101000


RELEASES = ("2.4", "2.6")
on_both = pytest.mark.parametrize("release", RELEASES)


class Caches:
    """An allocator with a cache of objects of 100 bytes, one slab of it in partial use, and one of
    2,048 bytes, whose descriptors stand off the slab."""

    def __init__(self, release: str, nr_cpus: int = 1, debug_slab: bool = False) -> None:
        config = KernelConfig(ram=16 * MIB, release=release, nr_cpus=nr_cpus, debug_slab=debug_slab)
        self.world = world_of(config)
        self.slab, self.image = self.world.slab, self.world.image
        gfp, self.pg_slab = self.image.constants.gfp.kernel, self.image.constants.page_flags.slab
        self.large = self.slab.kmem_cache_create("large", 2048, 0, 0)
        self.cachep = self.slab.kmem_cache_create("small", 100, 0, 0)
        self.objp = self.slab.kmem_cache_alloc(self.cachep, gfp)
        self.large_objp = self.slab.kmem_cache_alloc(self.large, gfp)
        self.cache = self.slab.objects.cache(self.cachep)
        page, page_list = self.image.structs.page, self.slab.objects.constants.page_list
        mem_map = int(self.image.statics.mem_map)
        self.page = mem_map + (self.objp - PAGE_OFFSET >> 12) * page.size + page.offset(page_list)
        slabs = slab_census(self.world)[self.cachep].slabs
        (self.slabp,) = slabs
        self.used = slabs[self.slabp].used

    def add(self, vaddr: int, number: int = 1) -> None:
        self.image.ram.words[vaddr - PAGE_OFFSET >> 2] += number

    def in_cache(self, name: str) -> int:
        return self.cachep + self.image.structs.kmem_cache_t.offset(name)

    def in_lists(self, name: str) -> int:
        """A field of 2.6's ``struct kmem_list3``."""
        return self.in_cache("lists") + self.image.structs.kmem_list3.offset(name)

    def in_slab(self, name: str) -> int:
        return self.slabp + self.image.structs.slab_t.offset(name)

    def link(self, index: int, number: int) -> None:
        """Change what follows an object in the chain of free ones."""
        where = self.cache.where
        at = (self.slabp - PAGE_OFFSET >> where.link_shift) + where.bufctl + index
        where.links[at] += number

    def array(self) -> int:
        assert self.slab.cpu_caches is not None
        return self.slab.cpu_caches.array(self.cache)

    def entry(self, index: int) -> int:
        """The place of an object in the array of CPU 0."""
        return self.array() + (16 if self.image.config.release == "2.6" else 8) + 4 * index

    def shared(self) -> int:
        return int(self.image.ram.words[self.in_lists("shared") - PAGE_OFFSET >> 2])

    def share_an_object(self) -> None:
        """One of the array of CPU 0 waits in the shared array, too."""
        words, at = self.image.ram.words, self.shared() - PAGE_OFFSET >> 2
        words[at], words[at + 4] = 1, words[self.entry(0) - PAGE_OFFSET >> 2]

    def static(self, name: str, field: str = "") -> int:
        """A static object of 2.6, or a field of it."""
        inside = self.image.structs.page_state.offset(field) if field else 0
        return self.image.symbol(name) + inside

    def wait_for_rcu(self, slab: int) -> None:
        self.image.statics.rcu_callbacks = slab

    def leave_the_chain(self) -> None:
        where = self.slab.cache_cache
        self.cache.lists.delete(where.vaddr + where.where.next)

    def repeat_an_entry(self) -> None:
        words, at = self.image.ram.words, self.entry(0) - PAGE_OFFSET >> 2
        words[at] = words[at + 1]

    def move_to_full(self) -> None:
        self.cache.lists.delete(self.slabp)
        self.cache.lists.add(self.slabp, self.cache.slabs_full)

    def mark(self, page: int, *, marked: bool) -> None:
        """Set or clear ``PG_slab`` of the frame ``page`` frames behind that of the object."""
        entry, page_list = self.image.structs.page, self.slab.objects.constants.page_list
        flags = self.page - entry.offset(page_list) + entry.offset("flags")
        bit = 1 << self.pg_slab
        self.add(flags + page * entry.size, bit if marked else -bit)

    def share_a_slab(self) -> None:
        """The two caches' slabs have a frame in common; no array has a large object."""
        self.slab.kmem_cache_alloc(self.large, self.image.constants.gfp.kernel)
        other = next(iter(slab_census(self.world)[self.large].slabs))
        shift = (self.objp & -PAGE) - (self.large_objp & -PAGE)
        self.add(other + self.image.structs.slab_t.offset("s_mem"), shift)


@pytest.mark.book("8.1.1", "8.2", "8.2.3", "8.2.7", "8.8")
@on_both
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.add(c.slabp + 4, 8), "does not point back"),
        (lambda c: c.add(c.cache.slabs_free + 4, 8), "the head does not point back"),
        (lambda c: c.add(c.in_slab("inuse")), "of .* objects in use, but"),
        (lambda c: c.add(c.in_slab("free"), 90), "the chain of free objects names"),
        (lambda c: c.link(c.cache.free(c.slabp), -2), "objects in use, but|chain of free objects"),
        (lambda c: c.move_to_full(), "slabs_full.* of .* objects are in use"),
        (lambda c: c.add(c.in_slab("s_mem"), 4), "its pages begin at"),
        (lambda c: c.add(c.in_slab("colouroff"), PAGE), "do not fit"),
        (lambda c: c.add(c.page), "names another cache or slab"),
        (lambda c: c.add(c.page + 4), "names another cache or slab"),
        (lambda c: c.mark(0, marked=False), "lacks PG_slab"),
        (lambda c: c.mark(99, marked=True), "but in no slab"),
        (lambda c: c.share_a_slab(), "it belongs to slab"),
        (
            lambda c: c.slab.kmem_cache_free(c.slab.cache_cache.vaddr, c.cachep),
            "its kmem_cache_t is no object in use",
        ),
        (
            lambda c: c.slab.kfree(next(iter(slab_census(c.world)[c.large].slabs))),
            "large, slab .* not allocated",
        ),
    ],
)
def test_what_contradicts_itself_in_a_slab(
    change: Callable[[Caches], None], said: str, release: str
) -> None:
    contradicts(Caches(release), change, said)


def contradicts(caches: Caches, change: Callable[[Caches], None], said: str) -> None:
    slab_census(caches.world)
    change(caches)
    with pytest.raises(SlabInconsistent, match=said):
        slab_census(caches.world)


@pytest.mark.book("8.1.1")
def test_a_cache_that_grows_while_nobody_runs() -> None:
    contradicts(Caches("2.4"), lambda c: c.add(c.in_cache("growing")), "it is growing")


@pytest.mark.book("8.8")
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.add(c.in_lists("free_objects")), "objects are free, not"),
        (lambda c: c.add(c.in_cache("slab_size"), -90), "no descriptor fits"),
        (lambda c: c.add(c.shared(), 10_000), "shared array: .* objects of"),
        (lambda c: c.share_an_object(), "in its slab, or in two arrays"),
        (lambda c: c.add(c.static("page_states", "nr_slab")), "nr_slab is .*, but slabs have"),
        (lambda c: c.add(c.static("slab_reclaim_pages")), "slab_reclaim_pages is not"),
        (lambda c: c.wait_for_rcu(c.slabp), "is no slab that may wait"),
        (lambda c: c.leave_the_chain(), "cache_cache is not on it"),
    ],
)
def test_what_contradicts_itself_in_2_6(change: Callable[[Caches], None], said: str) -> None:
    contradicts(Caches("2.6", nr_cpus=2), change, said)


@pytest.mark.book("8.8")
def test_a_slab_that_waits_for_rcu_has_its_frames() -> None:
    """It is on no list of its cache; its frames stay marked and counted until the end."""
    caches = Caches("2.6")
    gfp = caches.image.constants.gfp.kernel
    cachep = caches.slab.kmem_cache_create("by rcu", 2048, 0, SLAB_DESTROY_BY_RCU)
    caches.slab.kmem_cache_free(cachep, caches.slab.kmem_cache_alloc(cachep, gfp))
    caches.slab.kmem_cache_shrink(cachep)
    assert not slab_census(caches.world)[cachep].slabs
    head = int(caches.image.statics.rcu_callbacks)
    assert head
    free = caches.world.free_pages()
    caches.image.statics.rcu_callbacks = 0
    with pytest.raises(SlabInconsistent, match="nr_slab is"):
        slab_census(caches.world)
    caches.image.statics.rcu_callbacks = head
    end_grace_period(caches.slab)
    slab_census(caches.world)
    assert caches.world.free_pages() == free + 1


@pytest.mark.book("8.5", "8.8")
@on_both
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.add(c.array(), 10_000), "array of CPU 0: .* objects of"),
        (lambda c: c.add(c.entry(0), 4), "in its slab, or in two arrays"),
        (lambda c: c.repeat_an_entry(), "in its slab, or in two arrays"),
        (lambda c: c.slab.kfree(c.array()), "its array .* is not allocated"),
    ],
)
def test_what_contradicts_itself_in_an_array(
    change: Callable[[Caches], None], said: str, release: str
) -> None:
    contradicts(Caches(release, nr_cpus=2), change, said)


@pytest.mark.book("8.1.2", "8.8")
@on_both
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.add(c.objp - 4), "wrong red zone"),
        (lambda c: c.add(c.objp + 100), "wrong red zone"),
        (lambda c: c.add(c.objp + c.cache.objsize + 40), "its poison is gone"),
        (lambda c: c.add(c.in_cache("num_active")), "num_active is not the objects in use"),
    ],
)
def test_what_debugging_leaves_in_ram(
    change: Callable[[Caches], None], said: str, release: str
) -> None:
    contradicts(Caches(release, debug_slab=True), change, said)


@pytest.mark.book("8.8")
def test_an_object_in_an_array_of_2_6_is_poisoned() -> None:
    """The one that will be given out next; 2.4 has poisoned objects in slabs only."""
    caches = Caches("2.6", debug_slab=True)
    entry = caches.image.ram.words[caches.entry(14) - PAGE_OFFSET >> 2]
    contradicts(caches, lambda c: c.add(entry + 40), "its poison is gone")


@pytest.mark.book("8.2.8", "8.8")
@on_both
def test_a_census_counts_what_users_have(release: str) -> None:
    caches = Caches(release, nr_cpus=2, debug_slab=True)
    seen = slab_census(caches.world)[caches.cachep]
    assert seen.name == "small"
    assert seen.live == {caches.objp}
    in_array = seen.arrays[caches.array()]
    assert in_array
    assert caches.objp not in in_array
    assert sum(len(slab.used) for slab in seen.slabs.values()) == len(in_array) + 1


class Areas:
    """A kernel with two areas of three pages and one of a device, and a ledger."""

    def __init__(self, release: str = "2.4") -> None:
        self.kernel = Kernel(KernelConfig(release=release, ram=16 * MIB))
        self.ledger = FrameLedger().listen(self.kernel.image.events)
        self.kernel.start_kernel()
        vmalloc = self.kernel.vmalloc
        self.first, self.second = vmalloc.vmalloc(3 * PAGE), vmalloc.vmalloc(3 * PAGE)
        self.device = vmalloc.ioremap(0xF0000000, PAGE)
        self.reserved = self.kernel.image.constants.page_flags.reserved
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
@pytest.mark.parametrize("release", ["2.4", "2.6"])
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
        (lambda a: a.kernel.allocator.memmap.set_bit(a.page(a.first), a.reserved), "is nobody's"),
        (lambda a: a.say(a.first, 0x123), "the ledger was told of other pages"),
        (lambda a: a.say(a.first + 3 * PAGE, 0x123), "the ledger was told of other pages"),
        (lambda a: a.lead_out_of_ram(), "points to a table outside RAM"),
    ],
)
def test_what_contradicts_itself_in_the_vmalloc_range(
    change: Callable[[Areas], None], said: str, release: str
) -> None:
    areas = Areas(release)
    change(areas)
    with pytest.raises(VmlistInconsistent, match=said):
        vmlist_census(areas.kernel)


@pytest.mark.book("7.4")
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda a: a.add(0, "nr_pages", -1), "nr_pages is 2, 3 of its pages are mapped"),
        (lambda a: a.add(2, "nr_pages", 1), "nr_pages is 1, 0 of its pages are mapped"),
        (lambda a: a.add(0, "pages", 4), "page 0 is frame .*, the array has"),
        (lambda a: a.add(0, "pages", 16 * MIB), "an array of pages leaves RAM"),
    ],
)
def test_an_array_of_pages_that_is_not_what_is_mapped(
    change: Callable[[Areas], None], said: str
) -> None:
    areas = Areas("2.6")
    change(areas)
    with pytest.raises(VmlistInconsistent, match=said):
        vmlist_census(areas.kernel)
