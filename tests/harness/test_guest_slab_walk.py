# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest walks caches and slabs and agrees with the model, until something is planted."""

import random
from collections.abc import Callable

import pytest

from harness.machine import Machine
from harness.monitors import guest_slab_walk
from harness.slab_walk_layout import SlabFault, header_text
from kernel_model.config import Highmem, KernelConfig
from kernel_model.kernel import Kernel
from kernel_model.lists import Lists
from kernel_model.mm.gfp import GFP_KERNEL
from kernel_model.mm.page_flags import PG_SLAB
from kernel_model.mm.slab import Cache
from kernel_model.mm.slab.flags import SLAB_HWCACHE_ALIGN
from kernel_model.mm.slab.linux_2_4.constants import LINUX_2_4

GIB = 1 << 30
CONFIGS = {
    "uma": KernelConfig(),
    "smp": KernelConfig(nr_cpus=2),
    "debug": KernelConfig(debug_slab=True),
    "numa": KernelConfig(nodes=2),
    "highmem": KernelConfig(ram=GIB, highmem=Highmem.GB4),
    "pae": KernelConfig(ram=GIB, highmem=Highmem.GB64),
}
SIZES = (20, 32, 100, 500, 700, 1500, 4000, 4096, 9000)


def create(kernel: Kernel, size: int) -> Cache:
    """A cache whose per-CPU arrays, if it has any, are too short to hide its slabs."""
    flags = 0 if size % 3 else SLAB_HWCACHE_ALIGN
    cachep = kernel.slab.kmem_cache_create(f"test-{size}", size, 0, flags)
    cache = kernel.slab.objects.cache(cachep)
    if kernel.slab.cpu_caches is not None and size <= 4096:
        assert kernel.slab.cpu_caches.kmem_tune_cpucache(cache, 6, 3) == 0
    return cache


def fill(kernel: Kernel, randomness: random.Random, count: int) -> list[tuple[int, int]]:
    """``count`` allocations and frees in caches of several geometries; returns what is held."""
    slab = kernel.slab
    caches = [slab.find(f"test-{size}") or create(kernel, size) for size in SIZES]
    held: list[tuple[int, int]] = []
    for _ in range(count):
        if held and randomness.random() < 0.4:
            slab.kmem_cache_free(*held.pop(randomness.randrange(len(held))))
        cachep = randomness.choice(caches).vaddr
        if kernel.config.smp:
            assert slab.cpu_caches is not None
            slab.cpu_caches.processor = randomness.randrange(2)
        if objp := slab.kmem_cache_alloc(cachep, GFP_KERNEL):
            held.append((cachep, objp))
    return held


@pytest.mark.book("8.1.1", "8.2", "8.2.3", "8.2.4", "8.2.5", "8.2.6", "8.5.1")
@pytest.mark.parametrize("name", CONFIGS)
def test_guest_agrees_after_every_few_hundred_operations(name: str) -> None:
    machine = Machine(Kernel(CONFIGS[name]))
    assert guest_slab_walk.check(machine) == []
    randomness, kernel = random.Random(name), machine.kernel
    for _ in range(3):
        held = fill(kernel, randomness, 250)
        assert guest_slab_walk.check(machine) == []
        for cachep, objp in held[::2]:
            kernel.slab.kmem_cache_free(cachep, objp)
        assert guest_slab_walk.check(machine) == []
        kernel.slab.kmem_cache_shrink(held[0][0])
        kernel.slab.kmem_cache_reap(GFP_KERNEL)
        assert guest_slab_walk.check(machine) == []


def test_what_the_guest_counts() -> None:
    machine = Machine(Kernel(CONFIGS["smp"]))
    kernel = machine.kernel
    held = fill(kernel, random.Random(4), 300)
    guest = guest_slab_walk.run_walk(machine)
    chain = list(kernel.slab.chain())
    assert [slot.address for slot in guest.caches[: guest.nr_caches]] == [c.vaddr for c in chain]
    counted = {cache.name: slot for cache, slot in zip(chain, guest.caches, strict=False)}
    for size in SIZES:
        slot = counted[f"test-{size}"]
        in_arrays = sum(cpu.avail for cpu in slot.cpus)
        live = sum(1 for cachep, _ in held if cachep == slot.address)
        assert sum(list_.inuse for list_ in slot.lists) == live + in_arrays
        assert sum(list_.slabs for list_ in slot.lists) * slot.num == (
            live + in_arrays + slot.free_objects
        )
    assert any(cpu.avail for cpu in counted["test-100"].cpus)
    owners = machine.ledger._owners
    assert guest.slab_pages == sum(1 for owner in owners.values() if owner == "slab")


# -- planted ----------------------------------------------------------------------------------


@pytest.fixture(params=["uma", "smp"])
def machine(request: pytest.FixtureRequest) -> Machine:
    """A machine with full, partial and free slabs in its caches."""
    machine = Machine(Kernel(CONFIGS[request.param]))
    held = fill(machine.kernel, random.Random(1), 400)
    for cachep, objp in held[::3]:
        machine.kernel.slab.kmem_cache_free(cachep, objp)
    return machine


def cache_of(kernel: Kernel, name: str = "test-100") -> Cache:
    cache = kernel.slab.find(name)
    assert cache is not None
    return cache


def partial_slab(cache: Cache) -> int:
    return cache.slabs(cache.slabs_partial)[0]


def free_index(cache: Cache) -> int:
    """The word of RAM that holds ``free`` of a partial slab."""
    return (partial_slab(cache) - 0xC0000000 >> 2) + cache.where.free


def first_free(cache: Cache) -> int:
    slab = partial_slab(cache)
    return cache.s_mem(slab) + cache.free_objects(slab)[0] * cache.objsize


def write(kernel: Kernel, vaddr: int, value: int) -> None:
    kernel.ram.write32(vaddr - 0xC0000000, value)


def chain_leads_nowhere(kernel: Kernel) -> None:
    cache_of(kernel).view.next.next = 0xF0000000


def chain_turns_back(kernel: Kernel) -> None:
    cache_of(kernel).view.next.next = kernel.slab.cache_cache.vaddr + cache_of(kernel).where.next


def no_objects_in_a_slab(kernel: Kernel) -> None:
    cache_of(kernel).view.num = 0


def more_objects_than_fit(kernel: Kernel) -> None:
    cache_of(kernel).view.num = 100


def a_giant_order(kernel: Kernel) -> None:
    cache_of(kernel).view.gfporder = 31


def slab_list_leads_nowhere(kernel: Kernel) -> None:
    cache_of(kernel).view.slabs_partial.next = 0


def slab_list_is_not_mutual(kernel: Kernel) -> None:
    write(kernel, partial_slab(cache_of(kernel)) + 4, cache_of(kernel).vaddr)


def slab_list_ends_elsewhere(kernel: Kernel) -> None:
    cache_of(kernel).view.slabs_free.prev = cache_of(kernel).vaddr


def s_mem_moved(kernel: Kernel) -> None:
    view = kernel.image.at(kernel.image.structs.slab_t, partial_slab(cache_of(kernel)))
    view.s_mem += 4


def objects_over_the_end(kernel: Kernel) -> None:
    view = kernel.image.at(kernel.image.structs.slab_t, partial_slab(cache_of(kernel)))
    view.s_mem, view.colouroff = view.s_mem + 2048, view.colouroff + 2048


def descriptor_of_no_cache(kernel: Kernel) -> None:
    chain = kernel.slab.chain()
    cache = next(c for c in chain if c.off_slab and any(c.all_slabs()))
    cache.view.slabp_cache = cache_of(kernel).vaddr


def full_slab_called_partial(kernel: Kernel) -> None:
    cache = cache_of(kernel, "test-4000")
    lists, slab = Lists(kernel.ram), cache.slabs(cache.slabs_full)[0]
    lists.delete(slab)
    lists.add(slab, cache.slabs_partial)


def free_slab_called_full(kernel: Kernel) -> None:
    cache = cache_of(kernel)
    view = kernel.image.at(kernel.image.structs.slab_t, partial_slab(cache))
    view.inuse = 0


def page_of_another_cache(kernel: Kernel) -> None:
    slab = partial_slab(cache_of(kernel))
    memmap = kernel.allocator.memmap
    page = memmap.page(slab - 0xC0000000 >> 12)
    kernel.ram.words[memmap.word(page, memmap.list_word)] = cache_of(kernel, "size-32").vaddr


def page_not_marked(kernel: Kernel) -> None:
    memmap = kernel.allocator.memmap
    memmap.clear_bit(memmap.page(partial_slab(cache_of(kernel)) - 0xC0000000 >> 12), PG_SLAB)


def free_outside_the_slab(kernel: Kernel) -> None:
    kernel.ram.words[free_index(cache_of(kernel))] = 1000


def free_chain_ends_early(kernel: Kernel) -> None:
    kernel.ram.words[free_index(cache_of(kernel))] = LINUX_2_4.bufctl_end


def free_chain_in_a_ring(kernel: Kernel) -> None:
    cache = cache_of(kernel)
    slab = partial_slab(cache)
    index = cache.free(slab)
    at = (slab - 0xC0000000 >> 2) + cache.where.bufctl + index
    kernel.ram.words[at] = index


def one_free_page_called_slab(kernel: Kernel) -> None:
    memmap = kernel.allocator.memmap
    memmap.set_bit(memmap.page(kernel.ram.frames - 200), PG_SLAB)


PLANTED: list[tuple[Callable[[Kernel], None], SlabFault]] = [
    (chain_leads_nowhere, SlabFault.CACHE_CHAIN),
    (chain_turns_back, SlabFault.CACHE_CHAIN),
    (no_objects_in_a_slab, SlabFault.CACHE_FIELDS),
    (more_objects_than_fit, SlabFault.CACHE_FIELDS),
    (a_giant_order, SlabFault.CACHE_FIELDS),
    (slab_list_leads_nowhere, SlabFault.SLAB_LIST),
    (slab_list_is_not_mutual, SlabFault.SLAB_LIST),
    (slab_list_ends_elsewhere, SlabFault.SLAB_LIST),
    (s_mem_moved, SlabFault.SLAB_MEMORY),
    (objects_over_the_end, SlabFault.SLAB_MEMORY),
    (descriptor_of_no_cache, SlabFault.OFF_SLAB),
    (full_slab_called_partial, SlabFault.WRONG_LIST),
    (free_slab_called_full, SlabFault.WRONG_LIST),
    (page_of_another_cache, SlabFault.PAGE),
    (page_not_marked, SlabFault.PAGE),
    (page_not_marked, SlabFault.SLAB_PAGES),
    (free_outside_the_slab, SlabFault.BUFCTL),
    (free_chain_ends_early, SlabFault.BUFCTL),
    (free_chain_in_a_ring, SlabFault.BUFCTL),
    (one_free_page_called_slab, SlabFault.SLAB_PAGES),
]


def found(machine: Machine, fault: SlabFault) -> list[guest_slab_walk.Finding]:
    findings = guest_slab_walk.check(machine)
    right = [finding for finding in findings if finding.fault is fault]
    assert right, [str(finding) for finding in findings]
    return right


@pytest.mark.parametrize(
    ("plant", "fault"), PLANTED, ids=[f"{plant.__name__}-{fault.name}" for plant, fault in PLANTED]
)
def test_planted_corruption_is_found(
    machine: Machine, plant: Callable[[Kernel], None], fault: SlabFault
) -> None:
    plant(machine.kernel)
    found(machine, fault)


@pytest.fixture
def smp() -> Machine:
    machine = Machine(Kernel(CONFIGS["smp"]))
    fill(machine.kernel, random.Random(2), 200)
    return machine


def array_of(kernel: Kernel) -> int:
    """The address of a per-CPU array with at least two objects."""
    arrays = kernel.slab.cpu_caches
    assert arrays is not None
    arrays.processor = 0
    array = arrays.array(cache_of(kernel), 0)
    while len(arrays.entries(array)) < 2:
        assert kernel.slab.kmem_cache_alloc(cache_of(kernel).vaddr, GFP_KERNEL)
    return array


def array_above_its_limit(kernel: Kernel) -> None:
    write(kernel, array_of(kernel), 1000)


def array_nowhere(kernel: Kernel) -> None:
    cache_of(kernel).view.cpudata[1] = 0xB0000000


def entry_twice(kernel: Kernel) -> None:
    array = array_of(kernel)
    write(kernel, array + 12, kernel.ram.read32(array + 8 - 0xC0000000))


def entry_inside_an_object(kernel: Kernel) -> None:
    array = array_of(kernel)
    write(kernel, array + 8, kernel.ram.read32(array + 8 - 0xC0000000) + 8)


def entry_of_another_cache(kernel: Kernel) -> None:
    write(kernel, array_of(kernel) + 8, kernel.slab.kmalloc(32, GFP_KERNEL))


def entry_that_is_free(kernel: Kernel) -> None:
    cache = cache_of(kernel)
    write(kernel, array_of(kernel) + 8, first_free(cache))


@pytest.mark.parametrize(
    ("plant", "fault"),
    [
        (array_above_its_limit, SlabFault.CPU_ARRAY),
        (array_nowhere, SlabFault.CPU_ARRAY),
        (entry_twice, SlabFault.CPU_OBJECT),
        (entry_inside_an_object, SlabFault.CPU_OBJECT),
        (entry_of_another_cache, SlabFault.CPU_OBJECT),
        (entry_that_is_free, SlabFault.CPU_OBJECT),
    ],
)
def test_planted_corruption_of_a_per_cpu_array_is_found(
    smp: Machine, plant: Callable[[Kernel], None], fault: SlabFault
) -> None:
    assert guest_slab_walk.check(smp) == []
    plant(smp.kernel)
    found(smp, fault)


@pytest.mark.book("8.1.2")
@pytest.mark.parametrize(
    ("offset", "fault"),
    [
        (0, SlabFault.RED_ZONE),
        (104, SlabFault.RED_ZONE),
        (4, SlabFault.POISON),
        (60, SlabFault.POISON),
        (103, SlabFault.POISON),
    ],
)
def test_bytes_of_a_free_object(offset: int, fault: SlabFault) -> None:
    machine = Machine(Kernel(CONFIGS["debug"]))
    fill(machine.kernel, random.Random(1), 100)
    cache = cache_of(machine.kernel)
    objp = first_free(cache)
    machine.ram.write8(objp + offset - 0xC0000000, 0x33)
    (finding, *_) = found(machine, fault)
    assert f"object {objp:#x}, offset {offset}" in str(finding)
    assert f"{cache.vaddr:#x}" in finding.where


@pytest.mark.book("8.1.2")
def test_red_zone_of_an_object_in_use() -> None:
    machine = Machine(Kernel(CONFIGS["debug"]))
    objp = machine.kernel.slab.kmalloc(50, GFP_KERNEL)
    machine.ram.write8(objp + 64 - 0xC0000000, 0)
    (finding,) = found(machine, SlabFault.RED_ZONE)
    assert f"object {objp - 4:#x}, offset 68" in str(finding)


def test_every_fault_is_planted() -> None:
    planted = {fault for _, fault in PLANTED}
    later = {SlabFault.CPU_ARRAY, SlabFault.CPU_OBJECT, SlabFault.RED_ZONE, SlabFault.POISON}
    assert planted | later == set(SlabFault) - {SlabFault.FREE_OBJECTS}, "2.6 alone has that"


def test_a_model_that_sees_another_order_differs(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Cache.free_objects
    monkeypatch.setattr(Cache, "free_objects", lambda self, slab: original(self, slab)[::-1])
    findings = guest_slab_walk.check(machine)
    assert {finding.fault for finding in findings} == {None}
    assert all(finding.where.endswith(".free_sum") for finding in findings)


def test_header_has_every_fault_and_asserts_the_layout() -> None:
    text = header_text("2.4")
    for fault in SlabFault:
        assert f"#define SLAB_WALK_{fault.name} {fault.value}\n" in text
    assert "_Static_assert(__builtin_offsetof(struct slab_walk, caches) == " in text
