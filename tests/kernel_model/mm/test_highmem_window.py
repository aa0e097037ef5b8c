# SPDX-License-Identifier: GPL-2.0-or-later
"""The PKMAP window against a dictionary: which page has which address, and how many users."""

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

from kernel_model.arch_i386.fixmap import fixed_addresses
from kernel_model.config import Highmem
from kernel_model.mm.highmem import BadKmap, WouldSleep
from tests.kernel_model.mm.highmem_kernel import PAGE, WINDOW, HighmemKernel

pytestmark = pytest.mark.usefixtures("either_release")

FREE_ENTRIES = 5
PAGES = 8
NUMBERS = st.integers(0, PAGES - 1)


class WindowAgainstDictionary(RuleBasedStateMachine):
    """More pages than free entries; every other entry of the window has a user all along."""

    highmem = Highmem.GB4

    @initialize(gap=st.integers(1, 1000))
    def start(self, gap: int) -> None:
        self.machine = HighmemKernel(self.highmem)
        size, base = WINDOW[self.highmem], fixed_addresses(self.machine.kernel.config).pkmap_base
        pinned = [self.machine.page(100 + number) for number in range(size)]
        for page in pinned:
            self.machine.highmem.kmap(page)
        free = {(gap * step) % size for step in range(FREE_ENTRIES)}
        for page in pinned:
            entry = self.machine.highmem.page_address(page) - base >> 12
            if entry in free:
                self.machine.highmem.kunmap(page)
        self.machine.pkmaps.flush_all_zero_pkmaps()
        self.entries = {base + entry * PAGE for entry in free}
        self.users: dict[int, int] = dict.fromkeys(range(PAGES), 0)
        self.address: dict[int, int] = {}

    def _page(self, number: int) -> int:
        return self.machine.page(number)

    def _mapped(self, number: int, vaddr: int) -> None:
        """``kmap()`` of the page gave ``vaddr``."""
        if self.users[number]:
            assert vaddr == self.address[number]
        taken = {self.address[n] for n, users in self.users.items() if users and n != number}
        assert vaddr in self.entries - taken
        self.users[number] += 1
        self.address[number] = vaddr

    def _full(self, number: int) -> bool:
        """Whether every entry has a user, so that this page finds none."""
        in_use = sum(1 for users in self.users.values() if users)
        return not self.users[number] and in_use == len(self.entries)

    @rule(number=NUMBERS)
    def kmap(self, number: int) -> None:
        if self._full(number):
            with pytest.raises(WouldSleep):
                self.machine.highmem.kmap(self._page(number))
        else:
            self._mapped(number, self.machine.highmem.kmap(self._page(number)))

    @rule(number=NUMBERS)
    def kmap_nonblock(self, number: int) -> None:
        vaddr = self.machine.highmem.kmap_nonblock(self._page(number))
        if self._full(number):
            assert vaddr == 0
        elif vaddr:
            self._mapped(number, vaddr)

    @precondition(lambda self: any(self.users.values()))
    @rule(data=st.data())
    def kunmap(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from([n for n, users in self.users.items() if users]))
        self.machine.highmem.kunmap(self._page(number))
        self.users[number] -= 1

    @rule(number=NUMBERS)
    def kunmap_without_user(self, number: int) -> None:
        if not self.users[number]:
            with pytest.raises(BadKmap):
                self.machine.highmem.kunmap(self._page(number))

    @rule()
    def flush(self) -> None:
        self.machine.pkmaps.flush_all_zero_pkmaps()

    @invariant()
    def every_user_reaches_its_frame(self) -> None:
        for number, users in self.users.items():
            assert self.machine.pkmaps.users(self._page(number)) == users
            if users:
                pfn = self.machine.memmap.pfn(self._page(number))
                assert self.machine.access(self.address[number]) == pfn

    @invariant()
    def no_translation_is_stale(self) -> None:
        for vaddr, pfn in self.machine.tlb.pages.items():
            assert self.machine.walk(vaddr) == pfn

    @invariant()
    def records_and_page_tables_agree(self) -> None:
        meant = {kmap.vaddr: kmap.pfn for kmap in self.machine.pkmaps.kmaps()}
        for vaddr in self.entries:
            assert self.machine.walk(vaddr) == meant.get(vaddr)
        used = {self.address[n] for n, users in self.users.items() if users}
        assert used <= set(meant)


class PaeWindowAgainstDictionary(WindowAgainstDictionary):
    highmem = Highmem.GB64


class WindowThatForgetsToFlush(WindowAgainstDictionary):
    """A planted fault: unused entries are unmapped, and the TLB keeps them."""

    @initialize(gap=st.integers(1, 1000))
    def start(self, gap: int) -> None:
        super().start(gap)
        self.machine.kernel.tlb.flush_tlb_all = lambda: None  # type: ignore[method-assign]


class WindowThatReusesAtOnce(WindowAgainstDictionary):
    """A planted fault: an entry counts as free as soon as its last user is gone."""

    @initialize(gap=st.integers(1, 1000))
    def start(self, gap: int) -> None:
        super().start(gap)
        pkmaps = self.machine.pkmaps
        count = pkmaps.count
        pkmaps.count = lambda entry: 0 if count(entry) == 1 else count(entry)  # type: ignore[method-assign]


@pytest.mark.book("2.7")
@pytest.mark.parametrize("window", [WindowAgainstDictionary, PaeWindowAgainstDictionary])
def test_window_is_a_dictionary(window: type[RuleBasedStateMachine]) -> None:
    run_state_machine_as_test(window, settings=settings(max_examples=10, stateful_step_count=40))


@pytest.mark.parametrize("window", [WindowThatForgetsToFlush, WindowThatReusesAtOnce])
def test_dictionary_finds_planted_faults(window: type[RuleBasedStateMachine]) -> None:
    once = settings(max_examples=100, database=None, derandomize=True, phases=[Phase.generate])
    with pytest.raises((AssertionError, BadKmap)):
        run_state_machine_as_test(window, settings=once)
