# SPDX-License-Identifier: GPL-2.0-or-later
"""The comparison after much vmalloc and ioremap, and the flush that must not be forgotten."""

from collections.abc import Callable

import pytest

from harness.diff import Report, diff
from harness.machine import GuestDied
from harness.verdict import Verdict
from kernel_model.image import SWAPPER_PG_DIR
from kernel_model.mm.vmalloc import VmallocRange
from tests.harness.vmalloc_machine import PAGE, SHAPES, VmallocMachine, expected_sum
from tests.harness.vmalloc_traffic import Traffic
from tests.kernel_model.mm.hugetlb.huge_kernel import slowly

PAGES = 8
BOTH = pytest.mark.parametrize("shape", ["pentium3", "2.6"])


def agree(traffic: Traffic, *spaces: int) -> None:
    """In the loaded address space, whose TLB is as the last operations left it, and in others."""
    for mm in dict.fromkeys((traffic.loaded, *spaces)):
        report = diff(traffic.vm.machine, mm=mm)
        assert report.ok, (traffic.operations, report.findings)


def stale(report: Report) -> set[int]:
    """The pages that the report says were not flushed; it must say nothing else."""
    assert {finding.verdict for finding in report.findings} <= {Verdict.MISSING_FLUSH}
    return {va for finding in report.findings for va in range(finding.va, finding.end, PAGE)}


def without_flush(vm: VmallocMachine, call: Callable[..., int | None], *arguments: int) -> int:
    """Plant the fault: ``call`` forgets its ``flush_tlb_all()``."""
    tlb = vm.kernel.tlb
    tlb.flush_tlb_all = lambda: None  # type: ignore[method-assign]
    try:
        return call(*arguments) or 0
    finally:
        del tlb.flush_tlb_all


# -- it agrees --------------------------------------------------------------------------------


@pytest.mark.book("7.2", "7.3", "3.8")
@pytest.mark.parametrize("shape", slowly(["pentium3", "PAE", "2.6"], "pentium3", "PAE"))
def test_agrees_after_thousands_of_operations(shape: str) -> None:
    vm = VmallocMachine(shape, spaces=2)
    traffic = Traffic(vm, seed=4)
    traffic.run(2000)
    traffic.enter(vm.spaces[0])
    traffic.free(next(area for area in traffic.live if area.sum is not None))
    agree(traffic)
    traffic.check()
    assert (vm.vmalloc_faults > 0) == vm.lazy


@pytest.mark.slow
@pytest.mark.parametrize("shape", ["486", "highmem", "2.6 PAE"])
def test_agrees_in_every_address_space_on_the_way(shape: str) -> None:
    vm = VmallocMachine(shape, spaces=2)
    traffic = Traffic(vm, seed=22)
    for _ in range(3):
        traffic.run(2000)
        agree(traffic, SWAPPER_PG_DIR, vm.spaces[0])
        traffic.check()


@pytest.mark.book("7.3")
@pytest.mark.parametrize("shape", SHAPES)
def test_all_frames_come_back(shape: str) -> None:
    """What stays are the page tables of the kernel's part, which are never freed."""
    vm = VmallocMachine(shape, spaces=2)
    traffic = Traffic(vm, seed=7)
    traffic.run(500)
    for area in list(traffic.live):
        traffic.free(area)
    traffic.check()
    owners = vm.ledger._owners.values()
    assert "vmalloc" not in owners
    assert not vm.kernel.statics.vmlist


# -- a flush that is missing ------------------------------------------------------------------


@pytest.mark.book("3.8", "7.3")
@pytest.mark.parametrize(
    ("shape", "process"),
    [("486", False), ("pentium3", True), ("PAE", True), ("2.6", True), ("2.6 PAE", True)],
)
def test_vfree_without_its_flush_is_found(shape: str, process: bool) -> None:
    vm = VmallocMachine(shape)
    vm.enter(vm.spaces[0] if process else SWAPPER_PG_DIR)
    kept, addr = vm.vmalloc.vmalloc(PAGES * PAGE), vm.vmalloc.vmalloc(PAGES * PAGE)
    vm.store(addr, PAGES)
    vm.store(kept, PAGES)
    without_flush(vm, vm.vmalloc.vfree, addr)
    report = diff(vm.machine)
    assert stale(report) == set(range(addr, addr + PAGES * PAGE, PAGE))
    first = report.findings[0].answer("spec")
    assert first is not None
    assert first.pfn is None


@pytest.mark.book("3.8", "7.3")
@BOTH
def test_the_guest_reads_freed_memory_when_the_flush_is_missing(shape: str) -> None:
    """What the report warns of, seen by a load; with the flush it is an oops."""
    vm = VmallocMachine(shape)
    addr = vm.vmalloc.vmalloc(PAGES * PAGE)
    vm.store(addr, PAGES)
    without_flush(vm, vm.vmalloc.vfree, addr)
    assert vm.sum(addr, PAGES) == expected_sum(addr, PAGES)
    vm.kernel.tlb.flush_tlb_all()
    with pytest.raises(GuestDied, match=f"#PF at {addr:#010x}, error code 0"):
        vm.sum(addr, PAGES)


@pytest.mark.book("3.8", "7.3")
@BOTH
def test_an_area_mapped_anew_after_a_missing_flush_is_found(shape: str) -> None:
    """Its old frames are somebody else's by now."""
    vm = VmallocMachine(shape)
    addr = vm.vmalloc.vmalloc(PAGES * PAGE)
    vm.store(addr, PAGES)
    old = set(vm.ledger.pages(SWAPPER_PG_DIR)[1].tolist())
    without_flush(vm, vm.vmalloc.vfree, addr)
    taken: set[int] = set()
    while old - taken:
        page = vm.kernel.allocator.alloc_page(vm.kernel.image.constants.gfp.kernel, "somebody else")
        taken.add(vm.kernel.allocator.memmap.pfn(page))
    assert vm.vmalloc.vmalloc(PAGES * PAGE) == addr
    report = diff(vm.machine)
    assert stale(report) == set(range(addr, addr + PAGES * PAGE, PAGE))
    for finding in report.findings:
        cached, meant = finding.answer("cpu"), finding.answer("spec")
        assert cached is not None
        assert meant is not None
        assert cached.pfn in old
        assert meant.pfn not in old


@pytest.mark.book("3.8")
@BOTH
def test_missing_flush_is_found_in_the_middle_of_traffic(
    shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One vfree of many forgets it, the last one before the comparison."""
    vm = VmallocMachine(shape, spaces=2)
    traffic = Traffic(vm, seed=12)
    traffic.run(300)
    victim = next(area for area in traffic.live if not area.ioremapped)
    kind = type(vm.vmalloc)
    vfree = kind.vfree

    def forgetful(self: VmallocRange, addr: int) -> None:
        if addr == victim.addr:
            without_flush(vm, vfree, self, addr)  # type: ignore[arg-type]
        else:
            vfree(self, addr)

    monkeypatch.setattr(kind, "vfree", forgetful)
    traffic.free(victim)
    pages = set(range(victim.addr, victim.addr + victim.pages * PAGE, PAGE))
    assert stale(diff(vm.machine)) == pages


@pytest.mark.book("3.8", "7.3")
@BOTH
def test_iounmap_without_its_flush_is_found_and_ioremap_needs_none(shape: str) -> None:
    vm = VmallocMachine(shape)
    start = vm.machine.guest.start
    kept = without_flush(vm, vm.vmalloc.ioremap, start - 0xC0000000, 2 * PAGE)
    addr = without_flush(vm, vm.vmalloc.ioremap, start - 0xC0000000, 2 * PAGE)
    assert vm.sum(kept, 2) == vm.sum(addr, 2) == vm.sum(start, 2)
    without_flush(vm, vm.vmalloc.iounmap, addr)
    assert stale(diff(vm.machine)) == {addr, addr + PAGE}


@pytest.mark.book("3.8")
@pytest.mark.parametrize("shape", SHAPES)
def test_mapping_needs_no_flush_because_absent_pages_are_not_cached(shape: str) -> None:
    """The guest faults on pages and where their tables will be; then they are mapped, unflushed."""
    vm = VmallocMachine(shape)
    vm.enter(vm.spaces[0])
    start = vm.machine.guest.start
    addr = vm.vmalloc.start
    for page in range(PAGES):
        with pytest.raises(GuestDied):
            vm.sum(addr + page * PAGE, 1)
    assert without_flush(vm, vm.vmalloc.ioremap, start - 0xC0000000, 2 * PAGE) == addr
    other = without_flush(vm, vm.vmalloc.vmalloc, 2 * PAGE)
    assert other == addr + 3 * PAGE
    assert vm.sum(addr, 2) == vm.sum(start, 2)
    vm.store(other, 2)
    assert vm.sum(other, 2) == expected_sum(other, 2)
