# SPDX-License-Identifier: GPL-2.0-or-later
"""Swap areas: which slot comes next, how often each is meant, what is refused."""

from dataclasses import replace
from typing import Any, ClassVar

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from kernel_model.config import MIB, RELEASES, KernelConfig
from kernel_model.errors import BadConfig, KernelBug
from kernel_model.kernel import Kernel, boot
from kernel_model.mm.gfp import GFP_ATOMIC
from kernel_model.mm.swapfile import SwapAreas
from kernel_model.mm.swapops import AbsentPtes, SwapPtes, file_ptes

EITHER = pytest.mark.usefixtures("either_release")
PTES: dict[str, AbsentPtes] = {"2.4": SwapPtes(), "2.6": file_ptes(pae=False)}
"""How a release names slot and area."""
PAGE_OFFSET = 0xC0000000
CLUSTER = 256
BAD = 0x8000
MOST = 0x7FFF


class NaiveArea:
    """The rule in words: go on behind the last slot while the cluster lasts; then the first
    cluster that is wholly free; then the first free slot. No free slot lies outside ``low`` to
    ``high``, but those two are only moved by a slot that is one of them."""

    def __init__(self, slots: int) -> None:
        self.counts = [BAD] + [0] * (slots - 1)
        self.next, self.left = 0, 0
        self.low, self.high = 1, slots - 1

    def free(self) -> list[int]:
        return [slot for slot, count in enumerate(self.counts) if not count]

    def take(self) -> int:
        slot = self._choose()
        if not slot:
            self.low, self.high = len(self.counts), 0
            return 0
        self.counts[slot] = 1
        self.next = slot + 1
        self.low += slot == self.low
        self.high -= slot == self.high
        if self.low > self.high:
            self.low, self.high = len(self.counts), 0
        return slot

    def _choose(self) -> int:
        free = self.free()
        if self.left:
            following = [slot for slot in free if slot >= self.next]
            if following:
                self.left -= 1
                return following[0]
            self.next = max(self.next, self.high + 1)
        self.left = CLUSTER
        for start, end in zip(free, free[CLUSTER - 1 :], strict=False):
            if end - start == CLUSTER - 1:
                return start
        if not free:
            return 0
        self.low = free[0] + 1
        return free[0]

    def give_back(self, slot: int) -> int:
        self.counts[slot] -= 1
        if not self.counts[slot]:
            self.low, self.high = min(self.low, slot), max(self.high, slot)
        return self.counts[slot]


def ptes_of(kernel: Kernel) -> AbsentPtes:
    return PTES[kernel.config.release]


def slots(kernel: Kernel, count: int) -> list[int]:
    """The next ``count`` slots, all of area 0."""
    entries, ptes = [kernel.swap_areas.get_swap_page() for _ in range(count)], ptes_of(kernel)
    assert all(entry and ptes.swp_type(entry) == 0 for entry in entries)
    return [ptes.swp_offset(entry) for entry in entries]


def swap_map(kernel: Kernel, area: int) -> list[int]:
    """The counts of an area, read where ``swap_info`` says."""
    info = kernel.statics.swap_info[area]
    raw = kernel.ram.read(int(info.swap_map) - PAGE_OFFSET, 2 * int(info.max))
    return [int.from_bytes(raw[at : at + 2], "little") for at in range(0, len(raw), 2)]


def swapped(*areas: int, release: str = "") -> Kernel:
    config = KernelConfig(ram=6 * MIB)
    kernel = boot(replace(config, release=release) if release else config)
    for pages in areas:
        kernel.swap_areas.swapon(pages)
    return kernel


# -- the order -----------------------------------------------------------------------------------


@EITHER
def test_a_cluster_goes_on_over_slots_that_came_free_behind_it() -> None:
    """After the slot that begins a cluster come 256 more in sequence; what is freed below
    them waits until a new cluster is looked for."""
    kernel = swapped(1000)
    assert slots(kernel, 200) == list(range(1, 201))
    for slot in (5, 6, 150):
        kernel.swap_areas.swap_free(ptes_of(kernel).swp_entry(0, slot))
    assert slots(kernel, 57) == list(range(201, 258))
    # The cluster is used up. The next one begins at the first 256 free slots in a row ...
    assert slots(kernel, 257) == list(range(258, 515))
    # ... and so does the one after it ...
    assert slots(kernel, 257) == list(range(515, 772))
    # ... but now 228 are left at the end: what is free comes first, and the search goes on there.
    assert slots(kernel, 5) == [5, 6, 150, 772, 773]


@EITHER
def test_a_cluster_skips_slots_in_use() -> None:
    """Only the first 256 slots of a cluster were seen to be free; the 257th may be in use."""
    kernel = swapped(1000)
    slots(kernel, 257 + 257 + 257)
    for slot in range(1, 257):
        kernel.swap_areas.swap_free(ptes_of(kernel).swp_entry(0, slot))
    assert slots(kernel, 257) == [*range(1, 257), 772]


@EITHER
def test_without_a_whole_free_cluster_the_first_free_slot_is_taken() -> None:
    kernel = swapped(700)
    slots(kernel, 699)
    assert kernel.swap_areas.get_swap_page() == 0
    for slot in range(3, 700, 7):
        kernel.swap_areas.swap_free(ptes_of(kernel).swp_entry(0, slot))
    assert slots(kernel, 100) == list(range(3, 700, 7))
    assert kernel.swap_areas.get_swap_page() == 0


@EITHER
@pytest.mark.parametrize("pages", [2, 255, 256, 257, 258, 513, 514])
def test_every_slot_of_an_area_is_given_once(pages: int) -> None:
    kernel = swapped(pages)
    assert kernel.statics.nr_swap_pages == pages - 1
    assert slots(kernel, pages - 1) == list(range(1, pages))
    assert (kernel.swap_areas.get_swap_page(), kernel.statics.nr_swap_pages) == (0, 0)
    info = kernel.statics.swap_info[0]
    assert (info.lowest_bit, info.highest_bit) == (pages, 0)
    kernel.swap_areas.swap_free(ptes_of(kernel).swp_entry(0, pages // 2))
    assert (info.lowest_bit, info.highest_bit) == (pages // 2, pages // 2)
    assert slots(kernel, 1) == [pages // 2]


@EITHER
def test_an_area_is_used_up_before_the_one_that_was_added_later() -> None:
    kernel = swapped(4, 3)
    infos = kernel.statics.swap_info
    assert [(infos[n].prio, infos[n].next) for n in range(2)] == [(-1, 1), (-2, -1)]
    entries = [kernel.swap_areas.get_swap_page() for _ in range(6)]
    swp_entry = ptes_of(kernel).swp_entry
    assert entries == [*(swp_entry(0, n) for n in (1, 2, 3)), *(swp_entry(1, n) for n in (1, 2)), 0]
    kernel.swap_areas.swap_free(ptes_of(kernel).swp_entry(0, 2))
    kernel.swap_areas.swap_free(ptes_of(kernel).swp_entry(1, 1))
    assert kernel.swap_areas.get_swap_page() == swp_entry(0, 2)


# -- the state machine ---------------------------------------------------------------------------


class SwapMachine(RuleBasedStateMachine):
    """Slots are taken, meant again, given back and written, against naive areas."""

    SIZES = (600, 20)
    release: ClassVar = "2.4"

    def __init__(self) -> None:
        super().__init__()
        self.kernel = swapped(*self.SIZES, release=self.release)
        self.ptes = ptes_of(self.kernel)
        self.areas = self.kernel.swap_areas
        self.naive = [NaiveArea(size) for size in self.SIZES]
        self.paddr = self.kernel.allocator.get_free_page(GFP_ATOMIC) - PAGE_OFFSET
        self.written: dict[int, bytes] = {}

    def _held(self) -> list[int]:
        return [
            self.ptes.swp_entry(number, slot)
            for number, area in enumerate(self.naive)
            for slot in range(1, len(area.counts))
            if area.counts[slot]
        ]

    @rule(times=st.one_of(st.integers(1, 4), st.integers(200, 300)))
    def take(self, times: int) -> None:
        for _ in range(times):
            expected = 0
            if any(area.free() for area in self.naive):
                for number, area in enumerate(self.naive):
                    if slot := area.take():
                        expected = self.ptes.swp_entry(number, slot)
                        break
            assert self.areas.get_swap_page() == expected

    @rule(data=st.data(), share=st.integers(1, 99), step=st.integers(1, 3))
    def free_some(self, data: st.DataObject, share: int, step: int) -> None:
        held = self._held()
        if not held:
            return
        start = data.draw(st.integers(0, len(held) - 1))
        for entry in held[start : start + len(held) * share // 100 + 1 : step]:
            area, slot = self.naive[self.ptes.swp_type(entry)], self.ptes.swp_offset(entry)
            assert self.areas.swap_free(entry) == area.give_back(slot)

    @rule(area=st.integers(0, 1), slot=st.integers(1, 19))
    def duplicate(self, area: int, slot: int) -> None:
        counts = self.naive[area].counts
        assert self.areas.swap_duplicate(self.ptes.swp_entry(area, slot)) == bool(counts[slot])
        counts[slot] += bool(counts[slot])

    @rule(area=st.integers(0, 1), slot=st.integers(1, 19))
    def free_one(self, area: int, slot: int) -> None:
        counts, entry = self.naive[area].counts, self.ptes.swp_entry(area, slot)
        if not counts[slot]:
            with pytest.raises(KernelBug, match=f"slot {slot} of swap area is free"):
                self.areas.swap_free(entry)
            return
        assert self.areas.swap_free(entry) == self.naive[area].give_back(slot)

    @rule(area=st.integers(0, 1), slot=st.integers(1, 19), content=st.binary(min_size=1))
    def write(self, area: int, slot: int, content: bytes) -> None:
        entry, page = self.ptes.swp_entry(area, slot), (content * 4096)[:4096]
        self.kernel.ram.write(self.paddr, page)
        self.areas.write(entry, self.paddr)
        self.written[entry] = page

    @invariant()
    def ram_says_the_same(self) -> None:
        for number, area in enumerate(self.naive):
            counts = swap_map(self.kernel, number)
            assert counts == area.counts == self.areas.counts(number)
            info, free = self.kernel.statics.swap_info[number], area.free()
            assert (info.lowest_bit, info.highest_bit) == (area.low, area.high)
            assert not free or area.low <= free[0] <= free[-1] <= area.high
        assert self.kernel.statics.nr_swap_pages == sum(len(a.free()) for a in self.naive)

    @invariant()
    def contents_stay(self) -> None:
        for entry, page in self.written.items():
            self.areas.read(entry, self.paddr)
            assert self.kernel.ram.read(self.paddr, 4096) == page


class SwapMachine26(SwapMachine):
    """The same with the entries of 2.6."""

    release = "2.6"


MACHINES = {"2.4": SwapMachine, "2.6": SwapMachine26}
TestSwapAreas = SwapMachine.TestCase
TestSwapAreas26 = pytest.mark.slow(SwapMachine26.TestCase)


def no_clusters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kernel_model.mm.swapfile.SWAPFILE_CLUSTER", 1)


def clusters_last_one_less(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kernel_model.mm.swapfile.SWAPFILE_CLUSTER", 255)


def the_hint_is_not_lowered(monkeypatch: pytest.MonkeyPatch) -> None:
    real = SwapAreas.swap_free

    def stale(self: Any, entry: int) -> int:
        low = int(self._info(self.ptes.swp_type(entry)).lowest_bit)
        left = real(self, entry)
        self._info(self.ptes.swp_type(entry)).lowest_bit = low
        return left

    monkeypatch.setattr(SwapAreas, "swap_free", stale)


def a_slot_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    real = SwapAreas._take

    def uncounted(self: Any, info: Any, counts: memoryview, offset: int) -> int:
        self._statics.nr_swap_pages += offset == 300
        return real(self, info, counts, offset)

    monkeypatch.setattr(SwapAreas, "_take", uncounted)


def areas_share_a_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    real = SwapAreas.write
    monkeypatch.setattr(
        SwapAreas, "write", lambda self, entry, paddr: real(self, entry & ~0xF800007E, paddr)
    )


@pytest.mark.parametrize(
    "fault",
    [
        no_clusters,
        clusters_last_one_less,
        the_hint_is_not_lowered,
        a_slot_is_not_counted,
        areas_share_a_disk,
    ],
)
def test_the_state_machine_finds_planted_faults(
    fault: Any, either_release: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    with pytest.raises((AssertionError, KernelBug)):
        run_state_machine_as_test(
            MACHINES[either_release],
            settings=settings(
                max_examples=200, derandomize=True, database=None, phases=[Phase.generate]
            ),
        )


# -- entries, counts, refusals -------------------------------------------------------------------


@given(
    release=st.sampled_from(RELEASES), area=st.integers(0, 31), offset=st.integers(0, (1 << 24) - 1)
)
def test_an_entry_names_area_and_slot_and_is_not_present(
    release: str, area: int, offset: int
) -> None:
    ptes = PTES[release]
    entry = ptes.swp_entry(area, offset)
    assert (ptes.swp_type(entry), ptes.swp_offset(entry)) == (area, offset)
    pte = ptes.swp_entry_to_pte(entry)
    assert entry < 1 << 32 > pte
    assert not pte & 0x81  # neither present nor PROT_NONE
    assert not ptes.pte_file(pte)


@EITHER
def test_a_count_that_is_full_never_falls_again() -> None:
    kernel = swapped(3)
    entry = kernel.swap_areas.get_swap_page()
    for _ in range(MOST + 5):
        assert kernel.swap_areas.swap_duplicate(entry)
    assert swap_map(kernel, 0)[1] == MOST
    assert kernel.swap_areas.swap_free(entry) == MOST
    assert kernel.swap_areas.swap_count(entry) == MOST
    assert kernel.statics.nr_swap_pages == 1


@EITHER
def test_the_header_is_no_slot() -> None:
    kernel = swapped(3)
    assert not kernel.swap_areas.swap_duplicate(ptes_of(kernel).swp_entry(0, 0))
    assert swap_map(kernel, 0) == [BAD, 0, 0]


@pytest.mark.parametrize(("area", "slot"), [(0, 3), (1, 1), (31, 0), (31, 0xFFFFFF)])
def test_an_entry_that_names_no_slot_is_a_bug(either_release: str, area: int, slot: int) -> None:
    areas, entry = swapped(3).swap_areas, PTES[either_release].swp_entry(area, slot)
    for call in (areas.swap_free, areas.swap_duplicate, areas.swap_count):
        with pytest.raises(KernelBug, match=f"swap entry {entry:#x} names no slot"):
            call(entry)


@EITHER
@pytest.mark.parametrize("pages", [-1, 0, 1, (4096 << 8) + 1, 1 << 40])
def test_an_area_of_no_possible_size_is_refused(pages: int) -> None:
    kernel = swapped()
    free = kernel.allocator.nr_free_pages()
    with pytest.raises(BadConfig, match=f"{pages} pages: give 2 to"):
        kernel.swap_areas.swapon(pages)
    assert (kernel.statics.nr_swapfiles, kernel.statics.nr_swap_pages) == (0, 0)
    assert kernel.allocator.nr_free_pages() == free


@EITHER
def test_the_33rd_area_is_refused() -> None:
    kernel = swapped(*[2] * 32)
    with pytest.raises(BadConfig):
        kernel.swap_areas.swapon(2)
    assert kernel.statics.nr_swap_pages == 32
    assert [ptes_of(kernel).swp_type(kernel.swap_areas.get_swap_page()) for _ in range(32)] == list(
        range(32)
    )


@EITHER
def test_a_map_that_does_not_fit_into_memory_is_refused() -> None:
    kernel = swapped()
    while kernel.allocator.alloc_pages(GFP_ATOMIC, 4):
        pass
    with pytest.raises(BadConfig, match="give the machine more RAM"):
        kernel.swap_areas.swapon(4096 * 8)
    assert kernel.statics.nr_swapfiles == 0
