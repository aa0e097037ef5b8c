# SPDX-License-Identifier: GPL-2.0-or-later
"""Faults of one page step by step, and without memory."""

import pytest

from harness.architecture import CR0_PE, CR0_PG, CR0_WP, Access, ControlRegisters, Ring
from harness.mmu_spec import walk
from kernel_model.arch_i386.pgtable import PAGE_READONLY, PAGE_SHARED
from kernel_model.config import MIB, Highmem, KernelConfig
from kernel_model.kernel import Kernel
from tests.kernel_model.mm.test_memory import (
    BASE,
    FAR,
    PAGE,
    Programs,
    pattern,
    writing_does_nothing,
)

# -- one page, step by step ----------------------------------------------------------------------

SHAPES = [
    KernelConfig(ram=6 * MIB, swap_pages=400),
    KernelConfig(ram=70 * MIB, swap_pages=400, highmem=Highmem.GB4, highmem_pages=6 << 8),
    KernelConfig(ram=70 * MIB, swap_pages=400, highmem=Highmem.GB64, highmem_pages=6 << 8),
    KernelConfig(ram=64 * MIB, swap_pages=400, nodes=2),
]


@pytest.fixture(params=SHAPES, ids=["low", "highmem", "PAE", "nodes"])
def programs(request: pytest.FixtureRequest) -> Programs:
    return Programs(request.param)


def out(programs: Programs, pgd: int, vaddr: int) -> bool:
    pte = programs.kernel.tables.entry(programs.memory.ptep(pgd, vaddr))
    return bool(pte) and not pte & 1


def one_page(programs: Programs, prot: int = PAGE_SHARED) -> int:
    pgd = programs.start()
    pfn = programs.memory.new_page(pgd, BASE, prot)
    programs.kernel.ram.write(pfn << 12, pattern(1))
    return pgd


def test_a_page_goes_out_when_it_was_not_used_lately(programs: Programs) -> None:
    pgd = one_page(programs)
    programs.read(pgd, BASE)
    programs.evict()
    assert out(programs, pgd, BASE)
    assert programs.swap_at_start - programs.kernel.statics.nr_swap_pages == 1
    # Two for task and stack, one each for its mm_struct, its VMA, its directory, a page table; PAE
    # has three middle directories more.
    assert programs.free_frames() == programs.at_start - (9 if programs._cr4 else 6)
    programs.exit(pgd)
    programs.nothing_is_left()


def test_a_page_that_was_read_back_is_written_without_a_copy(programs: Programs) -> None:
    """It comes back read-only, for its slot is worth something; the first write ends that."""
    pgd = one_page(programs)
    programs.evict()
    frame = programs.paddr(pgd, BASE, Access.READ)
    assert programs.kernel.ram.read(frame, PAGE) == pattern(1)
    registers = ControlRegisters(CR0_PE | CR0_PG | CR0_WP, pgd, programs._cr4)
    found = walk(programs.kernel.ram, registers, BASE, Access.WRITE, Ring.USER)
    assert found.fault is not None
    free = programs.free_frames()
    assert programs.paddr(pgd, BASE, Access.WRITE) == frame
    assert programs.free_frames() == free
    programs.write(pgd, BASE, pattern(2))
    programs.evict()
    assert programs.read(pgd, BASE) == pattern(2)
    programs.exit(pgd)
    programs.nothing_is_left()


def test_a_page_that_was_only_read_is_not_written_again(
    programs: Programs, monkeypatch: pytest.MonkeyPatch
) -> None:
    pgd = one_page(programs)
    programs.evict()
    assert programs.read(pgd, BASE) == pattern(1)
    with monkeypatch.context() as patch:
        writing_does_nothing(patch)
        programs.evict()
    assert out(programs, pgd, BASE)
    assert programs.read(pgd, BASE) == pattern(1)


def test_a_page_that_comes_back_for_a_write_is_writable_at_once(programs: Programs) -> None:
    pgd = one_page(programs)
    programs.evict()
    assert programs.memory.handle_fault(pgd, BASE + 0x123, write=True)
    registers = ControlRegisters(CR0_PE | CR0_PG | CR0_WP, pgd, programs._cr4)
    assert walk(programs.kernel.ram, registers, BASE, Access.WRITE, Ring.USER).fault is None
    programs.exit(pgd)
    programs.nothing_is_left()


def test_faults_that_nothing_can_help(programs: Programs) -> None:
    pgd = one_page(programs, PAGE_READONLY)
    memory = programs.memory
    assert not memory.handle_fault(pgd, BASE, write=True)
    assert not memory.handle_fault(pgd, BASE + PAGE, write=False)
    assert not memory.handle_fault(pgd, FAR, write=False)
    assert not memory.handle_fault(pgd, 0xC0100000, write=False)
    assert not memory.handle_fault(programs.start(), BASE, write=False)
    programs.evict()
    assert not memory.handle_fault(pgd, BASE, write=True)
    assert out(programs, pgd, BASE)
    assert memory.handle_fault(pgd, BASE, write=False)
    assert programs.paddr(pgd, BASE, Access.WRITE) == -1


def test_mapping_a_place_again_gives_a_fresh_page(programs: Programs) -> None:
    """What was there is gone, frame or slot; the new page is all zeros until it is written."""
    pgd = one_page(programs)
    free, slots = programs.free_frames(), int(programs.kernel.statics.nr_swap_pages)
    for _ in range(2):
        assert programs.memory.new_page(pgd, BASE, PAGE_SHARED) > 0
        assert not any(programs.read(pgd, BASE))
        assert programs.free_frames() == free
        programs.write(pgd, BASE, pattern(7))
        programs.evict()
    assert programs.memory.new_page(pgd, BASE, PAGE_SHARED) > 0
    assert programs.kernel.statics.nr_swap_pages == slots
    programs.exit(pgd)
    programs.nothing_is_left()


def test_with_swap_full_pages_stay() -> None:
    programs = Programs(KernelConfig(ram=6 * MIB, swap_pages=3))
    pgd = programs.start()
    for number in range(5):
        programs.memory.new_page(pgd, BASE + number * PAGE, PAGE_SHARED)
        programs.write(pgd, BASE + number * PAGE, pattern(number))
    programs.evict()
    assert [out(programs, pgd, BASE + number * PAGE) for number in range(5)].count(True) == 2
    for number in range(5):
        assert programs.read(pgd, BASE + number * PAGE) == pattern(number)
    programs.exit(pgd)
    programs.nothing_is_left()


# -- memory fails --------------------------------------------------------------------------------


def life(programs: Programs) -> None:
    """Two programs with pages in several tables, swapped out and back; failures are borne."""
    pgds = [pgd for pgd in (programs.start(), programs.start()) if pgd]
    places = [(pgd, base) for pgd in pgds for base in (BASE, BASE + PAGE, FAR, 0xBFFFF000)]
    mapped = {
        place: number
        for number, place in enumerate(places)
        if programs.memory.new_page(*place, PAGE_SHARED) > 0
    }
    for place, number in mapped.items():
        programs.write(*place, pattern(number))
    programs.evict()
    for place, number in mapped.items():
        paddr = programs.paddr(*place, Access.READ)
        assert paddr < 0 or programs.kernel.ram.read(paddr, PAGE) == pattern(number)
    programs.evict()
    for place, number in mapped.items():
        paddr = programs.paddr(*place, Access.WRITE)
        assert paddr < 0 or programs.kernel.ram.read(paddr, PAGE) == pattern(number)
    for pgd in pgds:
        programs.exit(pgd)


class Failing:
    """Counts the calls of ``alloc_pages()``; the ``fail_at``th returns NULL."""

    def __init__(self, kernel: Kernel, fail_at: int) -> None:
        self.calls = 0
        self._real = kernel.allocator.alloc_pages
        self._fail_at = fail_at
        kernel.allocator.alloc_pages = self  # type: ignore[method-assign, assignment]

    def __call__(self, gfp_mask: int, order: int, purpose: str = "kernel") -> int:
        self.calls += 1
        return 0 if self.calls == self._fail_at else self._real(gfp_mask, order, purpose)


@pytest.mark.parametrize("config", [SHAPES[0], SHAPES[2]], ids=["low", "PAE"])
def test_each_allocation_may_fail_and_nothing_is_left(config: KernelConfig) -> None:
    programs = Programs(config)
    counting = Failing(programs.kernel, 0)
    life(programs)
    programs.nothing_is_left()
    assert counting.calls > 20
    for fail_at in range(1, counting.calls + 1):
        programs = Programs(config)
        failing = Failing(programs.kernel, fail_at)
        life(programs)
        assert failing.calls >= fail_at
        programs.nothing_is_left()
