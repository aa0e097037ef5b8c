# SPDX-License-Identifier: GPL-2.0-or-later
"""User pages: what is written stays, through swapping, in every address space; and goes away.

Programs are played by the reference walk: it says whether an access faults and which A and D
bits the CPU sets, so the page tables are read by nobody that wrote them.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from harness.architecture import CR0_PE, CR0_PG, CR0_WP, CR4_PAE, Access, ControlRegisters, Ring
from harness.mmu_spec import walk
from harness.monitors.frames import FrameLedger
from kernel_model.arch_i386.pgalloc import PageTables
from kernel_model.arch_i386.pgtable import PAGE_READONLY, PAGE_SHARED
from kernel_model.config import MIB, Highmem, KernelConfig
from kernel_model.errors import EndlessLoop, MmucheckError
from kernel_model.kernel import Kernel
from kernel_model.mm.filemap import PageCache
from kernel_model.mm.gfp import GFP_KERNEL
from kernel_model.mm.memory.fault import FaultHandler
from kernel_model.mm.mmzone import for_each_zone
from kernel_model.mm.swap_state import SwapCache
from kernel_model.mm.swapfile import SwapAreas
from tests.kernel_model.mm.user_spaces import UserSpaces

PAGE = 4096
BASE = 0x08048000
FAR = 0x10000000
SMALL = KernelConfig(ram=6 * MIB, swap_pages=400)


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """An allocation that nothing can help gives up soon: it costs a round over all pages a try."""
    monkeypatch.setattr("kernel_model.mm.vmscan._FRUITLESS_YIELDS", 3)


class Programs:
    """A kernel with a ledger, and programs that touch their pages as a CPU would."""

    def __init__(self, config: KernelConfig = SMALL) -> None:
        self.kernel = Kernel(config)
        self.ledger = FrameLedger().listen(self.kernel.image.events)
        self.kernel.start_kernel()
        self.memory = UserSpaces(self.kernel)
        self._cr4 = CR4_PAE if config.pae else 0
        self.at_start = self.free_frames()
        self.swap_at_start = int(self.kernel.statics.nr_swap_pages)

    def free_frames(self) -> int:
        """Frames that are free, or kept for the next page table or object."""
        return self.memory.free_frames()

    def start(self) -> int:
        return self.memory.start()

    def exit(self, pgd: int) -> None:
        self.memory.exit(pgd)

    def paddr(self, pgd: int, vaddr: int, access: Access) -> int:
        """Where the CPU finds the page, after the faults that it takes; -1: refused."""
        registers = ControlRegisters(CR0_PE | CR0_PG | CR0_WP, pgd, self._cr4)
        for _ in range(3):
            found = walk(self.kernel.ram, registers, vaddr, access, Ring.USER)
            if found.fault is None:
                assert found.paddr is not None
                for paddr, _, new in found.updates:
                    self.kernel.ram.write32(paddr, new & 0xFFFFFFFF)
                return found.paddr
            if not self.memory.handle_fault(pgd, vaddr, write=access is Access.WRITE):
                return -1
        raise AssertionError(f"{vaddr:#x} faults for ever")

    def write(self, pgd: int, vaddr: int, content: bytes) -> None:
        paddr = self.paddr(pgd, vaddr, Access.WRITE)
        assert paddr >= 0
        self.kernel.ram.write(paddr, content)

    def read(self, pgd: int, vaddr: int) -> bytes:
        paddr = self.paddr(pgd, vaddr, Access.READ)
        assert paddr >= 0
        return self.kernel.ram.read(paddr, PAGE)

    def evict(self) -> None:
        """Unmap, write and free what can be. Several rounds, for the first finds all pages young
        and their frames active."""
        kernel = self.kernel
        for zone in list(for_each_zone(kernel.image)) * 4:
            classzone = kernel.allocator.zone(zone.vaddr)
            kernel.vmscan.refill_inactive(10_000)
            while self.memory.swap_out(classzone):
                pass
            kernel.vmscan.shrink_cache(10_000, classzone, GFP_KERNEL, 1)

    def nothing_is_left(self) -> None:
        statics = self.kernel.statics
        assert self.free_frames() == self.at_start
        assert statics.nr_swap_pages == self.swap_at_start
        assert statics.page_cache_size == 0
        assert statics.nr_active_pages == statics.nr_inactive_pages == 0
        assert not any(self.kernel.swap_areas.counts(0)[1:])
        assert not self.memory.tasks


def pattern(number: int) -> bytes:
    return number.to_bytes(4, "little") * (PAGE // 4)


class UserMachine(RuleBasedStateMachine):
    """Programs start, touch pages, are evicted and exit; a dictionary knows each page."""

    CONFIG = SMALL

    def __init__(self) -> None:
        super().__init__()
        self.programs = Programs(self.CONFIG)
        self.spaces = [self.programs.start()]
        self.contents: dict[tuple[int, int], int] = {}
        self.serial = 0

    def _new(self, pgd: int, vaddr: int) -> bool:
        try:
            pfn = self.programs.memory.new_page(pgd, vaddr, PAGE_SHARED)
        except EndlessLoop:
            return False
        assert pfn > 0
        self.serial += 1
        self.programs.kernel.ram.write(pfn << 12, pattern(self.serial))
        self.contents[pgd, vaddr] = self.serial
        return True

    @precondition(lambda self: len(self.spaces) < 3)
    @rule()
    def start(self) -> None:
        self.spaces.append(self.programs.start())

    @precondition(lambda self: len(self.contents) < 500)
    @rule(which=st.integers(0, 2), base=st.sampled_from([BASE, FAR]), pages=st.integers(1, 120))
    def grow(self, which: int, base: int, pages: int) -> None:
        pgd = self.spaces[which % len(self.spaces)]
        have = sum(pgd == space and vaddr >> 27 == base >> 27 for space, vaddr in self.contents)
        for number in range(have, have + pages):
            if not self._new(pgd, base + number * PAGE):
                return

    @precondition(lambda self: self.contents)
    @rule(start=st.integers(0, 500), count=st.integers(1, 60), write=st.booleans())
    def touch(self, start: int, count: int, write: bool) -> None:
        pages = sorted(self.contents)
        start %= len(pages)
        for pgd, vaddr in pages[start : start + count]:
            self._check_content(pgd, vaddr)
            if write:
                self.serial += 1
                self.programs.write(pgd, vaddr, pattern(self.serial))
                self.contents[pgd, vaddr] = self.serial

    @precondition(lambda self: self.contents)
    @rule()
    def evict(self) -> None:
        self.programs.evict()

    @precondition(lambda self: self.contents)
    @rule()
    def swap_out(self) -> None:
        allocator = self.programs.kernel.allocator
        for zone in for_each_zone(self.programs.kernel.image):
            self.programs.memory.swap_out(allocator.zone(zone.vaddr))

    @precondition(lambda self: len(self.spaces) > 1)
    @rule(which=st.integers(0, 2))
    def exit(self, which: int) -> None:
        pgd = self.spaces.pop(which % len(self.spaces))
        self.programs.exit(pgd)
        self.contents = {key: value for key, value in self.contents.items() if key[0] != pgd}

    @invariant()
    def slots_are_meant_by_ptes_and_cached_frames(self) -> None:
        kernel, memory = self.programs.kernel, self.programs.memory
        meant: Counter[int] = Counter()
        frames: Counter[int] = Counter()
        for pgd, vaddr in self.contents:
            pte = kernel.tables.entry(memory.ptep(pgd, vaddr))
            assert pte
            if pte & 1:
                frames[pte >> 12] += 1
            else:
                meant[pte >> 8] += 1
        assert all(users == 1 for users in frames.values())
        cached = [slot for slot in range(1, 400) if self._is_cached(slot << 8)]
        meant.update(cached)
        counts = kernel.swap_areas.counts(0)
        assert {slot: count for slot, count in enumerate(counts) if slot and count} == dict(meant)

    def _check_content(self, pgd: int, vaddr: int) -> None:
        # A plain truth value: pytest would spend minutes on the difference of two pages.
        intact = self.programs.read(pgd, vaddr) == pattern(self.contents[pgd, vaddr])
        assert intact, f"{vaddr:#x} of the space {pgd:#x} lost its content"

    def _is_cached(self, entry: int) -> bool:
        cache = self.programs.kernel.swap_cache
        return bool(cache.cache.find_page(cache.swapper_space, entry))

    @invariant()
    def the_ledger_means_what_the_tables_say(self) -> None:
        kernel, memory = self.programs.kernel, self.programs.memory
        for pgd in self.spaces:
            numbers, pfns, _ = self.programs.ledger.pages(pgd)
            for number, pfn in zip(numbers.tolist(), pfns.tolist(), strict=True):
                pte = kernel.tables.entry(memory.ptep(pgd, number << 12))
                assert (pte & 1, pte >> 12) == (1, pfn)

    def teardown(self) -> None:
        for pgd, vaddr in self.contents:
            self._check_content(pgd, vaddr)
        for pgd in self.spaces:
            self.programs.exit(pgd)
        self.programs.nothing_is_left()


TestUserMemory = pytest.mark.book("3.4", "3.5")(UserMachine.TestCase)


def slots_are_written_one_too_high(monkeypatch: pytest.MonkeyPatch) -> None:
    real = SwapAreas.read
    monkeypatch.setattr(SwapAreas, "read", lambda self, e, paddr: real(self, e ^ 0x100, paddr))


def dirt_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PageCache, "set_page_dirty", lambda self, page: None)


def writing_does_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SwapAreas, "write", lambda self, entry, paddr: None)


def a_page_comes_back_writable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its slot stays what it was, and is what the page is when it is evicted again, clean."""
    real = FaultHandler._map

    def writable(
        self: Any, pgd: int, vaddr: int, ptep: int, pte: int, *rest: Any, **own: Any
    ) -> None:
        real(self, pgd, vaddr, ptep, pte | 2, *rest, **own)

    monkeypatch.setattr(FaultHandler, "_map", writable)
    monkeypatch.setattr("kernel_model.mm.swap_out.pte_dirty", lambda pte: False)


def slots_leak_on_exit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SwapCache, "free_swap_and_cache", lambda self, entry: None)


def the_slot_is_freed_too_early(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SwapAreas, "swap_duplicate", lambda self, entry: True)


def the_pte_stays_when_a_page_goes(monkeypatch: pytest.MonkeyPatch) -> None:
    real = PageTables.set_pte

    def only_present(self: Any, ptep: int, pte: int) -> None:
        if pte & 1 or not pte:
            real(self, ptep, pte)

    monkeypatch.setattr(PageTables, "set_pte", only_present)


@pytest.mark.parametrize(
    "fault",
    [
        slots_are_written_one_too_high,
        dirt_is_forgotten,
        writing_does_nothing,
        a_page_comes_back_writable,
        slots_leak_on_exit,
        the_slot_is_freed_too_early,
        the_pte_stays_when_a_page_goes,
    ],
)
def test_the_state_machine_finds_planted_faults(
    fault: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    with pytest.raises((AssertionError, MmucheckError)):
        run_state_machine_as_test(
            UserMachine,
            settings=settings(
                max_examples=60, derandomize=True, database=None, phases=[Phase.generate]
            ),
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
