# SPDX-License-Identifier: GPL-2.0-or-later
"""``kmap()`` and ``kmap_atomic()`` as the emulated CPU sees them.

The guest's probe loads and stores in ring 0 through the addresses that the model hands out;
what it must meet was put into the frame behind its back, and the other way round.
"""

import numpy as np
import pytest

from harness.diff import diff, remember
from harness.machine import Machine
from harness.monitors.frames import FrameLedger
from harness.readings.intent import intended_pages
from harness.readings.probe_place import PROBE
from harness.verdict import Verdict
from kernel_model.arch_i386.fixmap import fixed_addresses
from kernel_model.arch_i386.highmem import KmType
from kernel_model.arch_i386.page import virt_to_phys
from kernel_model.config import Highmem, KernelConfig
from kernel_model.image import SWAPPER_PG_DIR
from kernel_model.kernel import Kernel
from kernel_model.mm.gfp import GFP_HIGHUSER, GFP_KERNEL

pytestmark = pytest.mark.usefixtures("either_release")

READ, WRITE = 0, 1
PAGE = 4096
STAMP = 0x5EED0000
GIB = 1 << 30


class HighmemMachine:
    """A machine with high memory, its ledger, and a table for the guest's probe."""

    def __init__(self, highmem: Highmem = Highmem.GB4, ram: int = GIB, **choices: object) -> None:
        kernel = Kernel(KernelConfig(ram=ram, highmem=highmem, **choices))  # type: ignore[arg-type]
        events = kernel.image.events
        self.ledger = FrameLedger.of(events) or FrameLedger().listen(events)
        self.machine = Machine(kernel)
        self.kernel = kernel
        self.highmem = kernel.highmem
        self.memmap = kernel.allocator.memmap
        self._table = kernel.allocator.get_free_page(GFP_KERNEL)

    def high_page(self) -> int:
        """A fresh frame of high memory, its words stamped with its own number."""
        page = self.kernel.allocator.alloc_page(GFP_HIGHUSER)
        pfn = self.memmap.pfn(page)
        assert pfn >= self.kernel.statics.highstart_pfn
        self.machine.ram.table(pfn << 12)[:] = STAMP | pfn & 0xFFFF
        return page

    def stamp(self, page: int) -> int:
        return STAMP | self.memmap.pfn(page) & 0xFFFF

    def _probe(self, va: int, access: int, value: int = 0) -> np.void:
        row = np.frombuffer(self.machine.ram.buffer, PROBE, 1, virt_to_phys(self._table))
        row[0] = (va, access, value, 0, 0, 0)
        self.machine.call("probe_kernel", self._table, 1)
        met: np.void = row[0].copy()
        return met

    def read(self, va: int) -> int | None:
        """The word that ring 0 loads; None for a fault on an absent page."""
        met = self._probe(va, READ)
        if met["fault"]:
            assert (met["error_code"], met["cr2"]) == (0, va)
            return None
        return int(met["value"])

    def write(self, va: int, value: int) -> None:
        assert not self._probe(va, WRITE, value)["fault"]

    def wrap(self) -> None:
        """The next new ``kmap()`` comes to the start of the window."""
        self.kernel.statics.last_pkmap_nr = len(self.kernel.statics.pkmap_count) - 1

    def remap_first_entry(self) -> tuple[int, int, int]:
        """The guest reads one page through entry 0, then another page gets that entry."""
        first, second = self.high_page(), self.high_page()
        self.wrap()
        vaddr = self.highmem.kmap(first)
        assert self.read(vaddr) == self.stamp(first)
        self.highmem.kunmap(first)
        self.wrap()
        remember(self.machine)
        assert self.highmem.kmap(second) == vaddr
        return vaddr, first, second

    def forget_to_flush(self) -> None:
        """Plant the fault: ``flush_all_zero_pkmaps()`` without its flush."""
        self.kernel.tlb.flush_tlb_all = lambda: None  # type: ignore[method-assign]


CONFIGS = {
    "4G": (Highmem.GB4, GIB),
    "PAE": (Highmem.GB64, GIB),
    "PAE above 4 GiB": (Highmem.GB64, 5 * GIB),
}


@pytest.fixture(params=CONFIGS)
def high(request: pytest.FixtureRequest) -> HighmemMachine:
    return HighmemMachine(*CONFIGS[request.param])


@pytest.mark.book("2.7")
def test_guest_reads_and_writes_high_frames_through_kmap(high: HighmemMachine) -> None:
    pages = [high.high_page() for _ in range(4)]
    vaddrs = [high.highmem.kmap(page) for page in pages]
    assert [high.read(vaddr + 8) for vaddr in vaddrs] == [high.stamp(page) for page in pages]
    for page, vaddr in zip(pages, vaddrs, strict=True):
        high.write(vaddr + 0xFFC, ~high.stamp(page) & 0xFFFFFFFF)
    for page in pages:
        paddr = (high.memmap.pfn(page) << 12) + 0xFFC
        assert high.machine.ram.read32(paddr) == ~high.stamp(page) & 0xFFFFFFFF


def test_frames_above_4_gib_are_reached() -> None:
    high = HighmemMachine(*CONFIGS["PAE above 4 GiB"])
    end = int(high.kernel.statics.highend_pfn)
    page = high.memmap.page(end - 1)
    high.machine.ram.table(end - 1 << 12)[:] = STAMP
    assert high.read(high.highmem.kmap(page)) == STAMP
    assert high.read(high.highmem.kmap_atomic(page, KmType.USER1) + PAGE - 4) == STAMP


@pytest.mark.book("2.7")
def test_unmapped_entries_fault_after_the_window_wrapped(high: HighmemMachine) -> None:
    page, other = high.high_page(), high.high_page()
    vaddr = high.highmem.kmap(page)
    high.highmem.kunmap(page)
    assert high.read(vaddr) == high.stamp(page)
    high.wrap()
    high.highmem.kmap(other)
    assert high.read(vaddr) is None


@pytest.mark.book("2.7", "3.8")
def test_entry_used_again_shows_the_new_frame(high: HighmemMachine) -> None:
    vaddr, _, second = high.remap_first_entry()
    assert high.read(vaddr) == high.stamp(second)


@pytest.mark.parametrize("name", ["4G", "PAE"])
def test_planted_missing_flush_shows_the_old_frame(name: str) -> None:
    high = HighmemMachine(*CONFIGS[name])
    high.forget_to_flush()
    vaddr, first, _ = high.remap_first_entry()
    assert high.read(vaddr) == high.stamp(first)


@pytest.fixture(params=[Highmem.GB4, Highmem.GB64], ids=["4G", "PAE"])
def small(request: pytest.FixtureRequest) -> HighmemMachine:
    """With 8 MiB of high memory only, for whole comparisons."""
    return HighmemMachine(request.param, 72 << 20, highmem_pages=2048)


@pytest.mark.book("2.7", "3.8")
def test_comparison_agrees_with_every_kind_of_kmap(small: HighmemMachine) -> None:
    _, first, second = small.remap_first_entry()
    small.highmem.kmap(first)
    small.highmem.kunmap(second)
    slot = small.highmem.kmap_atomic(first, KmType.USER0)
    small.highmem.kunmap_atomic(slot, KmType.USER0)
    small.highmem.kmap_atomic(second, KmType.USER1)
    report = diff(small.machine)
    assert report.ok, report.findings


@pytest.mark.book("2.7", "3.8")
def test_comparison_finds_missing_flushes_and_a_wrong_frame(small: HighmemMachine) -> None:
    first, second, third = (small.high_page() for _ in range(3))
    slot = small.highmem.kmap_atomic(first, KmType.USER0)
    assert small.read(slot) == small.stamp(first)
    small.highmem.kunmap_atomic(slot, KmType.USER0)
    small.forget_to_flush()
    stale, _, _ = small.remap_first_entry()
    small.machine.cpu.flush_tlb_one = lambda vaddr: None  # type: ignore[method-assign]
    small.highmem.kmap_atomic(second, KmType.USER0)
    wrong = small.highmem.kmap(third)
    entry_bytes = 8 if small.kernel.config.pae else 4
    table = virt_to_phys(small.kernel.statics.pkmap_page_table)
    base = fixed_addresses(small.kernel.config).pkmap_base
    ptep = table + entry_bytes * (wrong - base >> 12)
    small.machine.ram.write32(ptep, small.machine.ram.read32(ptep) + PAGE)
    report = diff(small.machine)
    assert [(finding.verdict, finding.va, finding.length) for finding in report.findings] == [
        (Verdict.MISSING_FLUSH, stale, PAGE),
        (Verdict.MODEL_BUG, wrong, PAGE),
        (Verdict.MISSING_FLUSH, slot, PAGE),
    ]


@pytest.mark.book("2.7")
def test_kmaps_mean_the_same_in_every_address_space(high: HighmemMachine) -> None:
    kept, atomic, unused = (high.high_page() for _ in range(3))
    mm = high.kernel.page_tables.pgd_alloc()
    meant = {
        high.highmem.kmap(kept): kept,
        high.highmem.kmap_atomic(atomic, KmType.BH_IRQ): atomic,
        high.highmem.kmap(unused): unused,
    }
    high.highmem.kunmap(unused)
    for space in (SWAPPER_PG_DIR, mm):
        high.machine.cpu.load_cr3(space)
        pages = intended_pages(high.kernel, space, no_execute=False)
        for vaddr, page in meant.items():
            assert pages.pfn[vaddr >> 12] == high.memmap.pfn(page)
            assert high.read(vaddr) == high.stamp(page)


@pytest.mark.book("2.7")
def test_atomic_slots_of_other_cpus_are_seen_as_well() -> None:
    high = HighmemMachine(nr_cpus=4)
    seen = {}
    for cpu in range(4):
        high.kernel.image.current_task.processor = cpu
        page = high.high_page()
        seen[high.highmem.kmap_atomic(page, KmType.USER0)] = high.stamp(page)
    assert len(seen) == 4
    assert {vaddr: high.read(vaddr) for vaddr in seen} == seen


def test_debug_kernel_makes_a_left_slot_fault() -> None:
    high = HighmemMachine(debug_highmem=True)
    page = high.high_page()
    vaddr = high.highmem.kmap_atomic(page, KmType.USER0)
    assert high.read(vaddr) == high.stamp(page)
    high.highmem.kunmap_atomic(vaddr, KmType.USER0)
    assert high.read(vaddr) is None
