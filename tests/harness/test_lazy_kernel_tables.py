# SPDX-License-Identifier: GPL-2.0-or-later
"""Comparing an address space that does not have all of the kernel's tables yet.

An entry that waits for its vmalloc fault may be absent. Everything else is a model bug: a wrong
entry, one that was there and is gone, one for memory that nobody has mapped.
"""

import numpy as np
import pytest

from harness.diff import diff
from harness.explain import explain
from harness.readings.intent import contradicts, intended_space
from harness.readings.spec import SpecView, mmu_features
from harness.verdict import Verdict
from kernel_model.arch_i386.pgtable import PAGE_KERNEL
from kernel_model.image import SWAPPER_PG_DIR
from tests.harness.vmalloc_machine import PAGE, SHAPES, TABLE, VmallocMachine

HALF = 40
"""Pages of the area in each of its two tables."""


def runs(pages: list[int]) -> list[tuple[int, int]]:
    """(first address, pages) of each run of neighbours among these addresses."""
    starts = [va for va in pages if va - PAGE not in pages]
    ends = [va for va in pages if va + PAGE not in pages]
    return [(va, (end - va) // PAGE + 1) for va, end in zip(starts, ends, strict=True)]


class Waiting(VmallocMachine):
    """``mm`` is loaded, and waits for two entries: the area at ``addr`` reaches into the second
    table, at ``other``."""

    def __init__(self, shape: str = "pentium3") -> None:
        super().__init__(shape)
        (self.mm,) = self.spaces
        self.vmalloc.get_vm_area(TABLE - (HALF + 1) * PAGE, 1)
        self.addr = self.vmalloc.vmalloc(2 * HALF * PAGE)
        self.other = self.addr + HALF * PAGE
        assert self.other % TABLE == 0
        self.enter(self.mm)

    def put(self, mm: int, va: int, entry: int) -> None:
        self.machine.ram.write32(mm + (va >> 22) * 4, entry)
        self.machine.cpu.flush_tlb_global()

    def wrong(self) -> list[tuple[int, int]]:
        """What the comparison calls a model bug in the loaded directory, in runs."""
        spec = SpecView(self.machine.ram, self.machine.cpu.control, mmu_features(self.machine.cpu))
        differ = contradicts(intended_space(self.kernel, spec), spec.pages)
        return runs((np.flatnonzero(differ) * PAGE).tolist())

    def new_table(self, *ptes: int) -> int:
        """A page table with these first entries, as an entry of the directory names it."""
        table = self.kernel.allocator.get_free_page(0x1F0, "planted table") - 0xC0000000
        self.machine.ram.fill(table, PAGE)
        for number, pte in enumerate(ptes):
            self.machine.ram.write32(table + 4 * number, pte)
        return table | 0x67


@pytest.mark.book("7.2", "4.6")
@pytest.mark.parametrize("shape", SHAPES)
def test_agrees_when_one_of_two_entries_has_come(shape: str) -> None:
    vm = Waiting(shape)
    vm.store(vm.addr, 1)
    assert vm.vmalloc_faults == (1 if vm.lazy else 0)
    report = diff(vm.machine)
    assert report.ok, report.findings
    assert report.left_out.hidden == 0
    assert explain(vm.machine, vm.addr + PAGE).ok
    assert explain(vm.machine, vm.other).ok


@pytest.mark.book("7.2")
@pytest.mark.parametrize("shape", SHAPES)
def test_agrees_before_and_after_and_in_the_kernels_own_directory(shape: str) -> None:
    vm = Waiting(shape)
    assert vm.wrong() == []
    vm.store(vm.addr, 2 * HALF)
    assert vm.vmalloc_faults == (2 if vm.lazy else 0)
    assert vm.wrong() == []
    vm.enter()
    assert vm.wrong() == []


def test_the_comparison_itself_fills_nothing() -> None:
    """The probe touches absent pages in ring 0; its faults are results, and not served."""
    vm = Waiting()
    assert diff(vm.machine).ok
    assert vm.entry(vm.mm, vm.addr) == 0
    assert vm.vmalloc_faults == 0


def test_explain_shows_the_absent_entry_and_agrees() -> None:
    vm = Waiting()
    found = explain(vm.machine, vm.addr)
    assert found.ok
    assert found.walks[0].steps[-1].level == "PDE"
    assert found.readings[0].name == "intent"
    assert found.readings[0].answers[0, 0] == found.readings[1].answers[0, 0] < 0


@pytest.mark.book("3.5", "7.2")
def test_a_directory_from_the_quicklist_agrees() -> None:
    vm = Waiting()
    vm.store(vm.addr, 1)
    vm.enter()
    vm.kernel.page_tables.pgd_free(vm.mm)
    vm.vmalloc.vmalloc(3 * TABLE)
    assert vm.kernel.page_tables.pgd_alloc() == vm.mm
    vm.enter(vm.mm)
    assert vm.wrong() == []
    vm.put(vm.mm, vm.addr, 0)
    assert vm.wrong() == [(vm.addr, HALF)]


# -- it can fail ------------------------------------------------------------------------------


def test_an_entry_that_came_and_went() -> None:
    vm = Waiting()
    vm.store(vm.addr, 2 * HALF)
    vm.put(vm.mm, vm.other, 0)
    assert vm.wrong() == [(vm.other, HALF)]
    report = diff(vm.machine)
    assert set(report.verdicts()) == {Verdict.MODEL_BUG}
    found = [va for finding in report.findings for va in range(finding.va, finding.end, PAGE)]
    assert runs(found) == [(vm.other, HALF)]


def test_an_entry_that_a_fresh_directory_never_got() -> None:
    vm = Waiting()
    fresh = vm.kernel.page_tables.pgd_alloc()
    vm.enter(fresh)
    assert vm.wrong() == []
    vm.put(fresh, vm.addr, 0)
    assert vm.wrong() == [(vm.addr, HALF)]


def test_the_entry_of_another_table() -> None:
    vm = Waiting()
    vm.put(vm.mm, vm.addr, vm.entry(SWAPPER_PG_DIR, vm.other))
    start = vm.addr & -TABLE
    assert vm.wrong() == [(start, HALF), (vm.addr, HALF)]


def test_an_empty_table_is_not_an_absent_entry() -> None:
    vm = Waiting()
    vm.put(vm.mm, vm.addr, vm.new_table())
    assert vm.wrong() == [(vm.addr, HALF)]


def test_one_page_is_wrong_in_a_table_of_its_own() -> None:
    vm = Waiting()
    kernel_table = vm.entry(SWAPPER_PG_DIR, vm.other) & ~0xFFF
    ptes = [vm.machine.ram.read32(kernel_table + 4 * number) for number in range(HALF)]
    ptes[7] = 0
    vm.put(vm.mm, vm.other, vm.new_table(*ptes))
    assert vm.wrong() == [(vm.other + 7 * PAGE, 1)]


def test_an_entry_for_memory_that_init_mm_does_not_have() -> None:
    vm = Waiting()
    va = vm.other + 8 * TABLE
    vm.put(vm.mm, va, vm.new_table(0x104000 | PAGE_KERNEL))
    assert vm.wrong() == [(va, 1)]


def test_a_stale_entry_under_a_freed_area() -> None:
    """A table of the process's own keeps a page that init_mm gave up."""
    vm = Waiting()
    pte = vm.machine.ram.read32(vm.entry(SWAPPER_PG_DIR, vm.other) & ~0xFFF)
    vm.put(vm.mm, vm.other, vm.new_table(pte))
    vm.vmalloc.vfree(vm.addr)
    assert vm.wrong() == [(vm.other, 1)]


def test_the_direct_map_may_not_be_absent() -> None:
    vm = Waiting()
    vm.put(vm.mm, 0xC1800000, 0)
    assert vm.wrong() == [(0xC1800000, TABLE // PAGE)]


def test_swapper_pg_dir_itself_waits_for_nothing() -> None:
    vm = Waiting()
    vm.enter()
    vm.put(SWAPPER_PG_DIR, vm.addr, 0)
    assert vm.wrong() == [(vm.addr, HALF)]
