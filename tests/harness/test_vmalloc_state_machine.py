# SPDX-License-Identifier: GPL-2.0-or-later
"""Areas of the vmalloc range, mixed, over the real buddy allocator.

Truth is a first fit that tries every gap, the record of the calls, the census of
:mod:`harness.monitors.vmlist` (the reference walk of the kernel's page tables), the frame
ledger, and the bytes that users wrote.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from harness.monitors.frames import FrameLedger
from harness.monitors.slabs import slab_census
from harness.monitors.vmlist import VM_ALLOC, VM_IOREMAP, vmlist_census
from kernel_model.arch_i386.pgalloc import PageTables
from kernel_model.config import MIB, Highmem, KernelConfig
from kernel_model.errors import MmucheckError
from kernel_model.events import Announcer
from kernel_model.kernel import Kernel
from kernel_model.mm.vmalloc import Vmalloc, areas, linux_2_4
from tests.harness.frame_accounting import check_machine
from tests.kernel_model.mm.slab_settling import settle

PAGE_OFFSET, PAGE = 0xC0000000, 4096
DMA_FRAMES, HIGH_FRAMES = 16 * MIB // PAGE, 64 * MIB // PAGE
DEVICE = 0xF0000000
MOST_PAGES = 900
MACHINES = {
    "low memory": KernelConfig(ram=32 * MIB),
    "high memory": KernelConfig(ram=72 * MIB, highmem=Highmem.GB4, highmem_pages=8 * MIB // PAGE),
    "PAE": KernelConfig(ram=72 * MIB, highmem=Highmem.GB64, highmem_pages=8 * MIB // PAGE),
}
KINDS = {"vmalloc": 1 << 20, "vmalloc_32": HIGH_FRAMES, "vmalloc_dma": DMA_FRAMES}
"""The frames below which each must stay."""
PAGES = st.one_of(st.integers(1, 8), st.integers(1, 300))


@dataclass
class Area:
    """An area as its user knows it: ``size`` in whole pages, and the bytes at some places."""

    kind: str
    size: int
    first_frame: int
    written: dict[int, bytes]


def first_fit(areas: list[tuple[int, int]], start: int, end: int, size: int) -> int:
    """The lowest place for ``size`` bytes, 0: none. ``areas`` are (address, size).

    Only behind another area does the kernel look at the end of the range.
    """
    places = [start] + [addr + length for addr, length in areas]
    free = [
        place
        for place in places
        if all(place + size <= addr or addr + length <= place for addr, length in areas)
    ]
    place = min(free)
    return place if place == start or place + size <= end else 0


class VmallocMachine(RuleBasedStateMachine):
    """What a kernel does with the range. ``areas`` is what it holds, by address."""

    @initialize(name=st.sampled_from(sorted(MACHINES)), before_table_end=st.integers(0, 9))
    def boot(self, name: str, before_table_end: int) -> None:
        """A machine whose next area begins some pages before the end of a page table."""
        self.kernel = Kernel(MACHINES[name])
        self.ledger = FrameLedger().listen(self.kernel.image.events)
        self.kernel.start_kernel()
        self.vmalloc, self.ram = self.kernel.vmalloc, self.kernel.ram
        self.areas: dict[int, Area] = {}
        self.start, self.end = self.kernel.vmalloc_range
        self.serial = 0
        settle(self.kernel.slab)
        self.live_at_boot = {v: c.live for v, c in slab_census(self.kernel).items()}
        self.free_at_boot = self.kernel.allocator.nr_free_pages()
        self.free_when_checked = -1
        self.tables_at_boot = self._page_tables()
        self.reserve(self.kernel.tables.shape.pmd_size - (before_table_end + 1) * PAGE)

    def _page_tables(self) -> int:
        """Page tables of the range. They stay for good: the kernel never frees one of its own."""
        return sum(1 for owner in self.ledger._owners.values() if owner == "page table")

    def _place(self, size: int) -> int:
        taken = [(addr, area.size + PAGE) for addr, area in self.areas.items()]
        return first_fit(taken, self.start, self.end, size + PAGE)

    def _pages_held(self) -> int:
        return sum(area.size // PAGE for area in self.areas.values() if area.kind in KINDS)

    # -- allocating --------------------------------------------------------------------------

    @rule(kind=st.sampled_from(sorted(KINDS)), pages=PAGES, less=st.integers(0, PAGE - 1))
    def allocate(self, kind: str, pages: int, less: int) -> None:
        if self._pages_held() + pages > MOST_PAGES:
            return
        place = self._place(pages * PAGE)
        addr = getattr(self.vmalloc, kind)(pages * PAGE - less)
        assert addr == place, "not the first gap that fits"
        if addr:
            self.areas[addr] = Area(kind, pages * PAGE, 0, {})

    @rule(size=st.sampled_from([0, 40 * MIB * 2, 0xFFFFFFFF]))
    def allocate_what_cannot_be(self, size: int) -> None:
        """Nothing, or more than all of RAM."""
        assert self.vmalloc.vmalloc(size) == 0

    @rule(size=st.sampled_from([1, 4, 300, 450, 800]).map(lambda size: size * MIB))
    def reserve(self, size: int) -> None:
        """An area that nobody maps: these fill the range."""
        place = self._place(size)
        addr = self.vmalloc.get_vm_area(size, VM_IOREMAP)
        assert addr == place, "not the first gap that fits"
        if addr:
            self.areas[addr] = Area("reserved", size, 0, {})

    @rule(over=st.integers(-2, 1))
    def reserve_up_to_the_end(self, over: int) -> None:
        """What is left behind the last area, or a page more, or less."""
        last = max((addr + area.size + PAGE for addr, area in self.areas.items()), default=0)
        if self.areas and self.end - last > 4 * PAGE:
            self.reserve(self.end - last + (over - 1) * PAGE)

    @rule(page=st.integers(0, 5000), offset=st.integers(0, PAGE - 1), size=st.integers(1, 70_000))
    def ioremap(self, page: int, offset: int, size: int) -> None:
        paddr = DEVICE + page * PAGE + offset
        whole = (offset + size + PAGE - 1) // PAGE * PAGE
        place = self._place(whole)
        vaddr = self.vmalloc.ioremap(paddr, size, 0x10)
        assert vaddr == (place + offset if place else 0)
        if place:
            self.areas[place] = Area("ioremap", whole, paddr // PAGE, {})

    @rule(paddr=st.integers(0, 2 * MIB), size=st.integers(1, 20_000))
    def ioremap_low(self, paddr: int, size: int) -> None:
        """The hole below 1 MiB is in the direct map; other RAM that is in use is refused."""
        if paddr >= 0xA0000 and paddr + size <= 0x100000:
            assert self.vmalloc.ioremap(paddr, size) == PAGE_OFFSET + paddr
            self.vmalloc.iounmap(PAGE_OFFSET + paddr)
        elif paddr >= 0x10000 and paddr + size <= 0x90000:
            assert self.vmalloc.ioremap(paddr, size) == 0

    # -- freeing -----------------------------------------------------------------------------

    @precondition(lambda self: self.areas)
    @rule(which=st.integers(0, 50), offset=st.integers(0, PAGE - 1))
    def free(self, which: int, offset: int) -> None:
        addr = sorted(self.areas)[which % len(self.areas)]
        self._check_bytes(addr)
        if self.areas.pop(addr).kind == "ioremap":
            self.vmalloc.iounmap(addr + offset)
        else:
            self.vmalloc.vfree(addr)

    @rule(page=st.integers(0, 2000), offset=st.sampled_from([0, 1, 2048]))
    def free_what_is_no_area(self, page: int, offset: int) -> None:
        """Leaves a line in the log and nothing else."""
        addr = self.start + page * PAGE + offset
        if addr not in self.areas:
            lines = len(self.kernel.image.log)
            self.vmalloc.vfree(addr)
            assert len(self.kernel.image.log) == lines + 1

    # -- using -------------------------------------------------------------------------------

    @precondition(lambda self: any(area.kind in KINDS for area in self.areas.values()))
    @rule(which=st.integers(0, 50), start=st.integers(0, 300 * PAGE), count=st.integers(1, 9000))
    def write(self, which: int, start: int, count: int) -> None:
        addrs = [addr for addr, area in sorted(self.areas.items()) if area.kind in KINDS]
        addr = addrs[which % len(addrs)]
        area = self.areas[addr]
        start %= area.size
        count = min(count, area.size - start)
        self.serial += 1
        data = (self.serial.to_bytes(4, "little") * (count // 4 + 1))[:count]
        assert self.vmalloc.vwrite(addr + start, data) == count
        overlapping = [at for at, old in area.written.items() if at < start + count]
        for at in [at for at in overlapping if at + len(area.written[at]) > start]:
            del area.written[at]
        area.written[start] = data

    def _check_bytes(self, addr: int) -> None:
        for start, data in self.areas[addr].written.items():
            same = self.vmalloc.vread(addr + start, len(data)) == data
            assert same, f"the bytes at {addr + start:#x} changed"

    @rule(page=st.integers(0, 1200), count=st.integers(1, 30_000))
    def read_across(self, page: int, count: int) -> None:
        """What /dev/kmem shows of a stretch: bytes where somebody wrote, zeros in guard pages."""
        at = self.start + self.kernel.tables.shape.pmd_size + page * PAGE
        data = self.vmalloc.vread(at, count)
        assert len(data) == count
        for addr, area in self.areas.items():
            guard = addr + area.size - at
            shown = data[max(guard, 0) : max(guard + PAGE, 0)]
            assert not any(shown), f"the guard page behind {addr:#x} shows something"
            for start, written in area.written.items():
                first = addr + start - at
                if first >= 0 and first + len(written) <= count:
                    same = data[first : first + len(written)] == written
                    assert same, f"{addr + start:#x} shows something else"

    # -- what must hold ----------------------------------------------------------------------

    @invariant()
    def what_ram_says_is_what_was_done(self) -> None:
        if not hasattr(self, "live_at_boot"):
            return
        if self.kernel.allocator.nr_free_pages() != self.free_when_checked:
            check_machine(self.kernel, self.ledger)
            self.free_when_checked = self.kernel.allocator.nr_free_pages()
        seen = vmlist_census(self.kernel)
        assert [(area.addr, area.size - PAGE) for area in seen] == sorted(
            (addr, area.size) for addr, area in self.areas.items()
        )
        for found in seen:
            area, pages = self.areas[found.addr], (found.size >> 12) - 1
            assert found.flags == (VM_ALLOC if area.kind in KINDS else VM_IOREMAP)
            if area.kind in KINDS:
                assert max(found.frames) < KINDS[area.kind], f"{area.kind}: a frame too high"
                assert all(self.ledger.owner(frame) == "vmalloc" for frame in found.frames)
            elif area.kind == "ioremap":
                first = area.first_frame
                assert found.frames == tuple(range(first, first + pages))
        owned = sum(1 for owner in self.ledger._owners.values() if owner == "vmalloc")
        assert owned == self._pages_held(), "frames without a page"

    def teardown(self) -> None:
        if not hasattr(self, "live_at_boot"):
            return
        for addr in sorted(self.areas):
            self._check_bytes(addr)
            self.vmalloc.vfree(addr)
        self.areas.clear()
        self.what_ram_says_is_what_was_done()
        check_machine(self.kernel, self.ledger)
        settle(self.kernel.slab)
        assert {v: c.live for v, c in slab_census(self.kernel).items()} == self.live_at_boot
        lost = self.free_at_boot - self.kernel.allocator.nr_free_pages()
        assert lost == self._page_tables() - self.tables_at_boot, "frames were lost"


TestVmalloc = pytest.mark.book("7.1", "7.2", "7.3")(VmallocMachine.TestCase)


# -- planted faults ------------------------------------------------------------------------------


def the_guard_page_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Vmalloc.get_vm_area
    monkeypatch.setattr(
        Vmalloc, "get_vm_area", lambda self, size, flags: real(self, size - PAGE, flags)
    )


def areas_go_to_the_front(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Vmalloc._first_fit

    def first_fit_in_front(self: Any, size: int) -> tuple[int, int] | None:
        place = real(self, size)
        return (place[0], self._image.symbol("vmlist")) if place else None

    monkeypatch.setattr(Vmalloc, "_first_fit", first_fit_in_front)


def gaps_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    def last_fit(self: Any, size: int) -> tuple[int, int]:
        addr, link = self.start, self._image.symbol("vmlist")
        for vaddr, area in self._areas():
            addr, link = area.addr + area.size, vaddr + self._kind.offset("next")
        return addr, link

    monkeypatch.setattr(Vmalloc, "_first_fit", last_fit)


def the_end_of_the_range_is_overlooked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Vmalloc, "end", 0xFFFFE000)


def the_last_page_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Vmalloc._vmfree_area_pages
    monkeypatch.setattr(
        Vmalloc, "_vmfree_area_pages", lambda self, addr, size: real(self, addr, size - 2 * PAGE)
    )


def pages_stay_mapped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PageTables, "ptep_get_and_clear", PageTables.entry)


def the_vm_struct_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Vmalloc.vfree

    def vfree(self: Any, addr: int) -> None:
        kfree, self._kfree = self._kfree, lambda vaddr: None
        try:
            real(self, addr)
        finally:
            self._kfree = kfree

    monkeypatch.setattr(Vmalloc, "vfree", vfree)


def one_page_table_serves_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """The walk runs on behind the end of a page table."""

    def ptes(self: Any, addr: int, size: int) -> Iterator[tuple[int, int]]:
        _, first = next(real(self, addr, size))
        for page in range(size // PAGE):
            yield addr + page * PAGE, first + page * self._tables.shape.entry_bytes

    real = Vmalloc._ptes
    monkeypatch.setattr(Vmalloc, "_ptes", ptes)


def page_tables_go_with_their_area(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Vmalloc._vmfree_area_pages

    def free(self: Any, addr: int, size: int) -> None:
        real(self, addr, size)
        pmdp = self._pmd_of(addr)
        if pmdp:
            self._page_tables.pte_free(pmdp)

    monkeypatch.setattr(Vmalloc, "_vmfree_area_pages", free)


def the_next_device_is_mapped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(areas, "mk_pte_phys", lambda paddr, prot: (paddr | prot) + PAGE)


def two_pages_share_a_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linux_2_4, "mk_pte", lambda pfn, prot: (pfn & ~1) << 12 | prot)


def dma_comes_from_anywhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Vmalloc, "vmalloc_dma", Vmalloc.vmalloc_32)


def high_frames_for_those_who_cannot_reach_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Vmalloc, "vmalloc_32", Vmalloc.vmalloc)


def a_page_is_mapped_unsaid(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Announcer.page_mapped

    def silent(self: Any, mm: int, vaddr: int, pfn: int, rights: Any) -> None:
        if vaddr & 0xF000 != 0x7000:
            real(self, mm, vaddr, pfn, rights)

    monkeypatch.setattr(Announcer, "page_mapped", silent)


def users_may_reach_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(areas, "PAGE_KERNEL", areas.PAGE_KERNEL | 4)


def iounmap_takes_the_address_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Vmalloc, "iounmap", lambda self, addr: self.vfree(addr))


def bytes_go_to_the_start_of_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Vmalloc._paddr

    def paddr(self: Any, vaddr: int) -> int | None:
        found = real(self, vaddr)
        return found & -PAGE if found is not None else None

    monkeypatch.setattr(Vmalloc, "_paddr", paddr)


@pytest.mark.parametrize(
    "fault",
    [
        the_guard_page_is_forgotten,
        areas_go_to_the_front,
        gaps_are_passed_over,
        the_end_of_the_range_is_overlooked,
        the_last_page_stays,
        pages_stay_mapped,
        the_vm_struct_is_kept,
        one_page_table_serves_all,
        page_tables_go_with_their_area,
        the_next_device_is_mapped,
        two_pages_share_a_frame,
        dma_comes_from_anywhere,
        high_frames_for_those_who_cannot_reach_them,
        a_page_is_mapped_unsaid,
        users_may_reach_it,
        iounmap_takes_the_address_as_it_is,
        bytes_go_to_the_start_of_the_page,
    ],
)
def test_planted_faults_are_found(
    fault: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    with pytest.raises((AssertionError, MmucheckError, IndexError)):
        run_state_machine_as_test(
            VmallocMachine,
            settings=settings(
                max_examples=100, derandomize=True, database=None, phases=[Phase.generate]
            ),
        )
