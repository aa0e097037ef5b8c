# SPDX-License-Identifier: GPL-2.0-or-later
"""Page tables in high memory: programs run on them, and every slot of kmap_atomic() comes back."""

from collections.abc import Callable

import pytest

from harness.monitors.frames import PageNotMapped
from harness.monitors.kmap_slots import SlotLeaked
from kernel_model.arch_i386.fault import FaultKind
from kernel_model.arch_i386.highmem import KmType26
from kernel_model.arch_i386.linux_2_6.highpte import UnmappedSlot
from kernel_model.arch_i386.page import PAGE_SHIFT
from kernel_model.config import Highmem, KernelConfig
from kernel_model.errors import KernelBug
from kernel_model.kernel import boot
from kernel_model.linux_2_6.preempt import SleepInAtomic
from kernel_model.mm.memory.linux_2_6.highpte import HighTables
from tests.harness.process_machine import CONFIGS, PAGE, ProcessMachine
from tests.harness.test_cow import AT

HIGHPTE = ["2.6 chains, highpte", "2.6 highpte"]
VALUE = 0x12345678
pytestmark = pytest.mark.book("3.10")


@pytest.fixture(scope="module", params=HIGHPTE)
def world(request: pytest.FixtureRequest) -> ProcessMachine:
    return ProcessMachine(CONFIGS[request.param])


def is_high(world: ProcessMachine, paddr: int) -> bool:
    memmap = world.kernel.allocator.memmap
    return memmap.test(
        memmap.page(paddr >> PAGE_SHIFT), world.kernel.image.constants.page_flags.highmem
    )


def table(world: ProcessMachine, pgd: int, vaddr: int) -> int:
    return world.kernel.memory.tables.pte_offset(pgd, vaddr)


def test_every_page_table_of_a_program_lies_in_high_memory(world: ProcessMachine) -> None:
    world.map(AT)
    assert world.write(world.first, AT, VALUE) == VALUE
    tables = world.kernel.memory.tables
    starts = [start for start, _ in tables.spans(world.first, 0, 0xC0000000)]
    assert len(starts) >= 3
    assert all(is_high(world, table(world, world.first, start)) for start in starts)
    assert world.kernel.spaces.do_munmap(world.spaces.mm(world.first), AT, PAGE) == 0


def test_the_kernels_own_tables_and_the_directories_do_not(world: ProcessMachine) -> None:
    vmalloc = world.kernel.vmalloc
    area = vmalloc.vmalloc(PAGE)
    try:
        tables = world.kernel.tables
        pmdp = tables.pmd_offset(tables.pgd_offset(0x101000, area), area)
        assert not is_high(world, tables.pte_offset(pmdp, area))
    finally:
        vmalloc.vfree(area)
    assert not is_high(world, world.first)


def test_without_high_memory_left_they_lie_in_low_memory(world: ProcessMachine) -> None:
    """A pointer into such a table is counted and given back all the same."""
    allocator, gfp = world.kernel.allocator, world.kernel.image.constants.gfp
    taken = []
    while is_high(
        world, allocator.memmap.pfn(page := allocator.alloc_page(gfp.highuser)) << PAGE_SHIFT
    ):
        taken.append(page)
    taken.append(page)
    try:
        world.map(AT)
        assert world.write(world.first, AT, VALUE) == VALUE
        assert not is_high(world, table(world, world.first, AT))
        assert world.kernel.spaces.do_munmap(world.spaces.mm(world.first), AT, PAGE) == 0
    finally:
        for page in taken:
            allocator.free_page(page)
    world.owners()


def test_a_pointer_is_an_address_in_a_slot_and_means_what_the_slot_maps(
    world: ProcessMachine,
) -> None:
    tables, entries = world.kernel.memory.tables, world.kernel.tables
    pgd = world.first
    text, stack = next(tables.spans(pgd, 0, 0xC0000000))[0], world.esp
    first = tables.pte_offset_map(pgd, text)
    other = tables.pte_offset_map_nested(pgd, stack)
    assert entries.ptep_to_paddr(first) == tables.pte_offset(pgd, text)
    assert entries.ptep_to_paddr(other) == tables.pte_offset(pgd, stack)
    assert first >> PAGE_SHIFT == (other >> PAGE_SHIFT) + KmType26.PTE1 - KmType26.PTE0
    tables.pte_unmap_nested(other)
    tables.pte_unmap(first)
    again = tables.pte_offset_map(pgd, stack)
    assert first >> PAGE_SHIFT == again >> PAGE_SHIFT
    assert entries.ptep_to_paddr(first) >> PAGE_SHIFT == tables.pte_offset(pgd, stack) >> PAGE_SHIFT
    tables.pte_unmap(again)


def test_with_debug_highmem_a_pointer_that_was_given_back_leads_nowhere() -> None:
    world = ProcessMachine(CONFIGS["2.6 chains, highpte"])
    tables = world.kernel.memory.tables
    ptep = tables.pte_offset_map(world.first, world.esp)
    tables.pte_unmap(ptep)
    with pytest.raises(UnmappedSlot, match="is not mapped"):
        world.kernel.tables.entry(ptep)


# -- what must not be done with a slot -----------------------------------------------------------


@pytest.fixture
def fresh() -> ProcessMachine:
    return ProcessMachine(CONFIGS["2.6 highpte"])


SLEEPERS: dict[str, Callable[[ProcessMachine, int], object]] = {
    "alloc_pages": lambda world, gfp: world.kernel.allocator.alloc_page(gfp),
    "kmem_cache_alloc": lambda world, gfp: world.kernel.slab.kmalloc(64, gfp),
    "kmap": lambda world, gfp: world.kernel.highmem.kmap(world.kernel.allocator.memmap.page(0)),
    "anon_vma_prepare": lambda world, gfp: world.spaces.kernel.spaces.anon_vmas.anon_vma_prepare(0),
}


@pytest.mark.parametrize("sleeper", SLEEPERS)
def test_who_sleeps_with_a_slot_is_found(fresh: ProcessMachine, sleeper: str) -> None:
    gfp = fresh.kernel.image.constants.gfp
    fresh.kernel.memory.tables.pte_offset_map(fresh.first, fresh.esp)
    with pytest.raises(SleepInAtomic, match=rf"{sleeper}\(\) may sleep, with preempt_count 1"):
        SLEEPERS[sleeper](fresh, gfp.kernel)
    assert fresh.kernel.allocator.alloc_page(gfp.atomic)
    assert fresh.kernel.slab.kmalloc(64, gfp.atomic)


def test_an_unmap_that_comes_too_late_is_found(
    fresh: ProcessMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy on write that asks for its ``anon_vma`` with the old PTE still mapped."""
    fresh.map(AT)
    assert fresh.write(fresh.first, AT, VALUE) == VALUE
    child = fresh.spaces.fork(fresh.first)
    fresh.spaces.enter(child)
    faults = fresh.kernel.memory.faults
    mm = fresh.spaces.mm(child)
    vma, pgd = fresh.kernel.spaces.find_vma(mm, AT), fresh.kernel.memory.tables.pgd(mm)
    kept: list[int] = []
    real = HighTables.pte_unmap
    monkeypatch.setattr(HighTables, "pte_unmap", lambda self, ptep: kept.append(ptep))
    ptep = fresh.kernel.memory.tables.pte_offset_map(pgd, AT)
    with pytest.raises(SleepInAtomic, match="anon_vma_prepare"):
        faults._do_wp_page(mm, pgd, vma, AT, ptep, fresh.kernel.tables.entry(ptep))
    assert kept == [ptep]
    monkeypatch.setattr(HighTables, "pte_unmap", real)


def test_what_was_given_back_cannot_be_given_back_again(fresh: ProcessMachine) -> None:
    tables = fresh.kernel.memory.tables
    ptep = tables.pte_offset_map(fresh.first, fresh.esp)
    tables.pte_unmap(ptep)
    with pytest.raises((KernelBug, PageNotMapped)):
        tables.pte_unmap(ptep)


def test_ram_at_the_addresses_of_the_slots_is_no_slot() -> None:
    """With 4 GiB, the first page tables lie at 0xffff0000, where slots have their addresses."""
    config = KernelConfig(release="2.6", ram=4 << 30, highmem=Highmem.GB4, highpte=True)
    kernel = boot(config)
    mm = kernel.fork.mm_alloc()
    tables, pgd = kernel.memory.tables, kernel.memory.tables.pgd(mm)
    tables.pte_unmap(tables.pte_alloc_map(mm, pgd, AT))
    paddr = tables.pte_offset(pgd, AT)
    assert paddr > 0xFFFF0000
    assert kernel.tables.entry(paddr) == 0
    ptep = tables.pte_offset_map(pgd, AT)
    kernel.tables.set_pte(ptep, 0x1234067)
    tables.pte_unmap(ptep)
    assert kernel.tables.entry(paddr) == 0x1234067


def test_a_fault_meanwhile_gets_no_page(fresh: ProcessMachine) -> None:
    """``in_atomic()``: the process gets SIGSEGV where it would have got a page."""
    fresh.map(AT)
    ptep = fresh.kernel.memory.tables.pte_offset_map(fresh.first, fresh.esp)
    assert fresh.write(fresh.first, AT, VALUE) == "SEGV_MAPERR"
    assert fresh.faults[-1][2] is FaultKind.SIGNAL
    fresh.kernel.memory.tables.pte_unmap(ptep)
    assert fresh.write(fresh.first, AT, VALUE) == VALUE


def test_a_leak_names_the_slot_and_who_mapped_it(fresh: ProcessMachine) -> None:
    assert fresh.machine.kmap_slots is not None
    fresh.machine.kmap_slots.check()
    fresh.kernel.memory.follow_page(fresh.spaces.mm(fresh.first), fresh.esp)
    fresh.machine.kmap_slots.check()
    real = HighTables.pte_unmap
    HighTables.pte_unmap = lambda self, ptep: None  # type: ignore[method-assign]
    try:
        fresh.kernel.memory.follow_page(fresh.spaces.mm(fresh.first), fresh.esp)
    finally:
        HighTables.pte_unmap = real  # type: ignore[method-assign]
    pfn = table(fresh, fresh.first, fresh.esp) >> PAGE_SHIFT
    with pytest.raises(
        SlotLeaked,
        match=rf"preempt_count 1: slot KM_PTE0 of CPU 0, frame {pfn:#x}, mapped by "
        r"kmap_atomic\(\) <- pte_offset_map\(\) <- follow_page\(\)",
    ):
        fresh.machine.kmap_slots.check()
