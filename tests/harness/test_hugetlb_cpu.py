# SPDX-License-Identifier: GPL-2.0-or-later
"""Huge pages on the CPU: ring 3 uses them, every reading agrees, and what goes wrong is seen."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from rich.console import Console

from harness.diff import diff
from harness.explain import explain
from harness.monitors.huge_pages import huge_pages_census
from harness.verdict import Verdict
from kernel_model.arch_i386.pgtable import PAGE_RW, PAGE_USER
from kernel_model.arch_i386.tlb import Tlb
from kernel_model.config import MIB, Highmem, KernelConfig
from kernel_model.mm.hugetlb.tables import HugePageTables
from kernel_model.structs.fs import FMODE_READ, FMODE_WRITE
from tests.harness.process_machine import PAGE, RW, SHARED, ProcessMachine, R
from tests.kernel_model.mm.hugetlb.huge_kernel import slowly

pytestmark = pytest.mark.book("3.10", release="2.6")

_HIGH: dict[str, Any] = {"ram": 88 * MIB, "highmem_pages": 6144}
CONFIGS = {
    "2-level": KernelConfig(release="2.6", nr_hugepages=4, ram=48 * MIB),
    "highmem": KernelConfig(release="2.6", nr_hugepages=4, highmem=Highmem.GB4, **_HIGH),
    "PAE": KernelConfig(release="2.6", nr_hugepages=4, highmem=Highmem.GB64, **_HIGH),
}


class HugeMachine(ProcessMachine):
    """With one file of huge pages, ``inode``."""

    def __post_init__(self) -> None:
        super().__post_init__()
        assert self.kernel.hugetlbfs is not None
        self.fs = self.kernel.hugetlbfs
        self.size = self.fs.pool.huge.size
        self.inode = self.fs.hugetlbfs_get_inode(self.fs.mount())

    @property
    def free(self) -> int:
        return int(self.kernel.statics.free_huge_pages)

    def map_huge(self, pages: int, prot: int = RW, page: int = 0) -> int:
        """Map huge pages in the current process; where."""
        file = self.fs.open(self.inode, "huge", FMODE_READ | FMODE_WRITE)
        offset = page * self.size // PAGE
        at = self.kernel.spaces.do_mmap_pgoff(file, 0, pages * self.size, prot, SHARED, offset)
        self.kernel.files.fput(file)
        assert at > 0
        return at

    def unmap(self, at: int, pages: int) -> None:
        mm = int(self.kernel.image.current_task.mm)
        assert self.kernel.spaces.do_munmap(mm, at, pages * self.size) == 0


@pytest.mark.parametrize("kind", slowly(CONFIGS, "highmem"))
def test_ring_3_uses_them_and_every_reading_agrees(kind: str) -> None:
    machine = HugeMachine(CONFIGS[kind])
    first, size = machine.first, machine.size
    at = machine.map_huge(2)
    assert machine.read(first, at + 2 * size - 4) == 0
    machine.write(first, at + 2 * size - 4, 0x1234)
    child = machine.spaces.fork(first)
    assert machine.read(child, at + 2 * size - 4) == 0x1234
    machine.write(child, at + 5 * PAGE, 0x5678)
    assert machine.read(first, at + 5 * PAGE) == 0x5678
    assert machine.faults == []
    read_only = machine.map_huge(1, R)
    assert machine.read(first, read_only + 5 * PAGE) == 0x5678
    assert machine.write(first, read_only, 1) == "SEGV_ACCERR"
    for process in (first, child):
        machine.spaces.enter(process)
        report = diff(machine.machine)
        assert not report.findings, report.findings
    assert len(huge_pages_census(machine.kernel, [first, child])) == 5
    machine.spaces.enter(first)
    machine.unmap(at, 1)
    assert machine.read(first, at) == "SEGV_MAPERR"
    assert machine.read(child, at + 5 * PAGE) == 0x5678
    assert machine.fs.hugetlbfs_setattr_size(machine.inode, 0) == 0
    assert machine.read(child, at) == "BUS_ADRERR"
    assert machine.free == 4
    machine.spaces.enter(first)
    assert not diff(machine.machine).findings
    machine.spaces.exit(child)
    machine.kernel.files.iput(machine.inode)
    machine.fs.pool.set_max_huge_pages(0)
    assert "huge page" not in machine.machine.ledger._owners.values()


@pytest.mark.parametrize("kind", CONFIGS)
def test_the_walk_shows_large_pages(kind: str) -> None:
    machine = HugeMachine(CONFIGS[kind])
    at = machine.map_huge(1)
    machine.write(machine.first, at, 1)
    explanation = explain(machine.machine, at + 7 * PAGE + 12)
    assert explanation.ok
    document = json.loads(json.dumps(explanation.as_json()))
    levels = ["PDPTE", "PDE"] if kind == "PAE" else ["PDE"]
    assert [step["level"] for step in document["steps"]] == levels
    assert document["page_size"] == machine.size
    ((_, _, pfn),) = huge_pages_census(machine.kernel, [machine.first])
    assert document["paddr"] == (pfn + 7 << 12) + 12
    console = Console(width=240)
    with console.capture() as capture:
        console.print(explanation)
    assert f"{machine.size >> 20} MiB page" in capture.get()


def _set_without(bits: int) -> Callable[..., None]:
    real = HugePageTables._set_huge_pte

    def wrong(self: Any, mm: int, vma: int, address: int, page: int, ptep: int) -> None:
        real(self, mm, vma, address, page, ptep)
        self._entries.set_pte(ptep, self._entries.entry(ptep) & ~bits)

    return wrong


def _half_announced(self: Any, pgd: int, address: int, pfn: int, flags: int) -> None:
    REAL_ANNOUNCE(self, pgd, address, pfn, flags)
    self._events.page_unmapped(pgd, address + self.huge.size // 2)


REAL_ANNOUNCE = HugePageTables._announce
FAULTS: dict[str, tuple[str, Callable[..., Any]]] = {
    "PSE is forgotten": ("_set_huge_pte", _set_without(0x80)),
    "it is the kernel's alone": ("_set_huge_pte", _set_without(PAGE_USER)),
    "nobody may write": ("_set_huge_pte", _set_without(PAGE_RW)),
    "a frame of the middle is not meant": ("_announce", _half_announced),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_diff_finds_a_fault(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    monkeypatch.setattr(HugePageTables, *FAULTS[fault])
    machine = HugeMachine(CONFIGS["2-level"])
    at = machine.map_huge(1)
    found = [f for f in diff(machine.machine).findings if at <= f.va < at + machine.size]
    assert {finding.verdict for finding in found} == {Verdict.MODEL_BUG}


def test_a_flush_that_is_missing_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = HugeMachine(CONFIGS["2-level"])
    at = machine.map_huge(1)
    machine.write(machine.first, at, 77)
    monkeypatch.setattr(Tlb, "flush_tlb_range", lambda tlb, mm, start, end: None)
    monkeypatch.setattr(Tlb, "flush_tlb_mm", lambda tlb, mm: None)
    machine.unmap(at, 1)
    verdicts = {finding.verdict for finding in diff(machine.machine).findings}
    assert verdicts == {Verdict.MISSING_FLUSH}
