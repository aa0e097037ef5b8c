# SPDX-License-Identifier: GPL-2.0-or-later
"""Random areas of the vmalloc range, on both releases; each of many planted faults is found.

The machine is :mod:`tests.harness.vmalloc_state_machine`.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from kernel_model.arch_i386.pgalloc import PageTables
from kernel_model.errors import MmucheckError
from kernel_model.events import Announcer
from kernel_model.mm.vmalloc import Vmalloc, VmallocRange, areas, linux_2_4, linux_2_6
from tests.harness.vmalloc_state_machine import (
    KINDS,
    MIB,
    PAGE,
    VmallocMachine,
    VmallocMachine24,
    VmallocMachine26,
)

MACHINES: dict[str, type[VmallocMachine]] = {"2.4": VmallocMachine24, "2.6": VmallocMachine26}
Fault = Callable[[pytest.MonkeyPatch], None]

TestVmalloc24 = pytest.mark.book("7.1", "7.2", "7.3")(VmallocMachine24.TestCase)
TestVmalloc26 = pytest.mark.book("7.4")(VmallocMachine26.TestCase)
TestVmalloc26.settings = settings(max_examples=12)


@pytest.mark.slow
@pytest.mark.parametrize("release", MACHINES)
def test_many_longer_lives_of_the_range(release: str) -> None:
    run_state_machine_as_test(
        MACHINES[release], settings=settings(max_examples=150, stateful_step_count=60)
    )


def test_an_area_that_is_passed_over_hides_the_end_of_the_range() -> None:
    """2.6 looks at the end only behind an area that does not begin below the place in mind."""
    _reserve_behind_an_area_that_is_passed_over()


def test_that_the_end_is_looked_at_all_the_same_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    real = linux_2_6.Vmalloc._first_fit

    def first_fit(self: Any, size: int, align: int) -> tuple[int, int] | None:
        place = real(self, size, align)
        return place if place and place[0] + size <= self.end else None

    monkeypatch.setattr(linux_2_6.Vmalloc, "_first_fit", first_fit)
    with pytest.raises(AssertionError, match="not the first gap"):
        _reserve_behind_an_area_that_is_passed_over()


def _reserve_behind_an_area_that_is_passed_over() -> None:
    machine = VmallocMachine26()
    machine.boot(0, 0)
    machine.reserve(machine.end - machine.start - 10 * MIB)
    machine.allocate("vmalloc", 300, 0)
    last = max(machine.areas) + 301 * PAGE
    size = machine.end - last
    assert size > MIB
    machine.reserve(size - PAGE)
    machine.what_ram_says_is_what_was_done()
    assert max(machine.areas) + size > machine.end
    machine.teardown()


STEPS: list[tuple[str, dict[str, Any]]] = [
    *(("allocate", {"kind": kind, "pages": 20, "less": 0}) for kind in sorted(KINDS)),
    ("ioremap", {"page": 7, "offset": 100, "size": 70_000}),
    ("reserve", {"size": 4 * MIB}),
    ("vmap", {"pages": 12}),
    *(("write", {"which": which, "start": 5000, "count": 9000}) for which in range(4)),
    *(("write", {"which": 1, "start": start, "count": 60}) for start in (300, 400)),
    ("free", {"which": 1, "offset": 0}),
    ("allocate", {"kind": "vmalloc", "pages": 8, "less": 1}),
    *(("free", {"which": 0, "offset": 0}) for _ in range(4)),
]
"""Areas of every kind are made, written to, and go; what a release does not have is left out."""


def tour(release: str) -> None:
    """The first area lies under two page tables, and some memory is high."""
    machine = MACHINES[release]()
    machine.boot(sorted(machine.machines).index("high memory"), 5)
    for name, arguments in STEPS:
        if hasattr(machine, name):
            getattr(machine, name)(**arguments)
            machine.what_ram_says_is_what_was_done()
    machine.teardown()


@pytest.mark.parametrize("release", MACHINES)
def test_a_tour_of_the_range(release: str) -> None:
    tour(release)


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
    monkeypatch.setattr(VmallocRange, "end", 0xFFFFE000)


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

    real = VmallocRange._ptes
    monkeypatch.setattr(VmallocRange, "_ptes", ptes)


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
    monkeypatch.setattr(VmallocRange, "vmalloc_dma", VmallocRange.vmalloc_32)


def high_frames_for_those_who_cannot_reach_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VmallocRange, "vmalloc_32", VmallocRange.vmalloc)


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
    real = VmallocRange._paddr

    def paddr(self: Any, vaddr: int) -> int | None:
        found = real(self, vaddr)
        return found & -PAGE if found is not None else None

    monkeypatch.setattr(VmallocRange, "_paddr", paddr)


# -- faults of 2.6 -------------------------------------------------------------------------------


def devices_lie_where_others_would(monkeypatch: pytest.MonkeyPatch) -> None:
    """A first fit by 2.4's rule."""
    real = linux_2_6.Vmalloc._first_fit
    monkeypatch.setattr(
        linux_2_6.Vmalloc, "_first_fit", lambda self, size, align: real(self, size, 1)
    )


def devices_are_aligned_to_all_of_their_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linux_2_6, "IOREMAP_MAX_ORDER", 31)


def the_guard_page_is_forgotten_by_2_6(monkeypatch: pytest.MonkeyPatch) -> None:
    real = linux_2_6.Vmalloc.get_vm_area
    monkeypatch.setattr(
        linux_2_6.Vmalloc, "get_vm_area", lambda self, size, flags: real(self, size - PAGE, flags)
    )


def a_frame_of_the_array_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    real = linux_2_6.Vmalloc._free
    monkeypatch.setattr(
        linux_2_6.Vmalloc, "_free", lambda self, area, pages: real(self, area, pages[1:])
    )


def the_array_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    def free(self: Any, area: int, pages: list[int]) -> None:
        for page in pages:
            self._allocator.free_page(page)

    monkeypatch.setattr(linux_2_6.Vmalloc, "_free", free)


def a_long_array_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    real = linux_2_6.Vmalloc._free

    def free(self: Any, area: int, pages: list[int]) -> None:
        if len(pages) > PAGE // 4:
            self.area(area).nr_pages = self.area(area).pages = 0
        real(self, area, pages)

    monkeypatch.setattr(linux_2_6.Vmalloc, "_free", free)


def the_array_has_another_order(monkeypatch: pytest.MonkeyPatch) -> None:
    real = linux_2_6.Vmalloc._store
    monkeypatch.setattr(
        linux_2_6.Vmalloc,
        "_store",
        lambda self, array, pages, count: real(self, array, pages[::-1], count),
    )


def two_pages_of_2_6_share_a_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linux_2_6, "mk_pte", lambda pfn, prot: (pfn & ~1) << 12 | prot)


def vunmap_takes_the_frames_of_its_caller(monkeypatch: pytest.MonkeyPatch) -> None:
    def vunmap(self: Any, addr: int) -> None:
        _, area, view = self._find(addr)
        pages = [self._memmap.page(pte >> 12) for pte in self._clear_ptes(addr, int(view.size))]
        self._kfree(self.remove_vm_area(addr))
        self._free(area, pages)

    monkeypatch.setattr(linux_2_6.Vmalloc, "vunmap", vunmap)


def the_ptes_of_a_device_are_not_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    real = linux_2_6.Vmalloc._device_area
    monkeypatch.setattr(
        linux_2_6.Vmalloc,
        "_device_area",
        lambda self, phys_addr, size, flags: real(self, phys_addr, size, 0),
    )


SHARED: list[Fault] = [
    the_end_of_the_range_is_overlooked,
    pages_stay_mapped,
    a_page_is_mapped_unsaid,
    users_may_reach_it,
]
"""Of what both releases share, but for what each would say alike."""
FAULTS: dict[str, list[Fault]] = {
    "2.4": [
        *SHARED,
        the_next_device_is_mapped,
        the_guard_page_is_forgotten,
        areas_go_to_the_front,
        gaps_are_passed_over,
        the_last_page_stays,
        the_vm_struct_is_kept,
        page_tables_go_with_their_area,
        two_pages_share_a_frame,
        iounmap_takes_the_address_as_it_is,
    ],
    "2.6": [
        *SHARED,
        the_guard_page_is_forgotten_by_2_6,
        devices_lie_where_others_would,
        a_frame_of_the_array_is_forgotten,
        the_array_is_kept,
        a_long_array_is_kept,
        the_array_has_another_order,
        two_pages_of_2_6_share_a_frame,
        the_ptes_of_a_device_are_not_noted,
    ],
}


TOURED: dict[str, list[Fault]] = {
    "2.4": [
        one_page_table_serves_all,
        dma_comes_from_anywhere,
        high_frames_for_those_who_cannot_reach_them,
        bytes_go_to_the_start_of_the_page,
    ],
    "2.6": [
        one_page_table_serves_all,
        bytes_go_to_the_start_of_the_page,
        devices_are_aligned_to_all_of_their_size,
        vunmap_takes_the_frames_of_its_caller,
    ],
}
"""Faults that random steps may meet late: the tour meets them."""


def each(faults: dict[str, list[Fault]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        ("release", "fault"),
        [
            pytest.param(release, fault, id=f"{release}-{fault.__name__}")
            for release in faults
            for fault in faults[release]
        ],
    )


@each(TOURED)
def test_planted_faults_are_met_by_the_tour(
    release: str, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    with pytest.raises((AssertionError, MmucheckError, IndexError)):
        tour(release)


@each(FAULTS)
def test_planted_faults_are_found(
    release: str, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    with pytest.raises((AssertionError, MmucheckError, IndexError)):
        run_state_machine_as_test(
            MACHINES[release],
            settings=settings(
                max_examples=100, derandomize=True, database=None, phases=[Phase.generate]
            ),
        )
