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
from kernel_model.arch_i386.pgtable import PAGE_SHARED
from kernel_model.config import MIB, KernelConfig
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
TestUserMemory.settings = settings(max_examples=20)


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
