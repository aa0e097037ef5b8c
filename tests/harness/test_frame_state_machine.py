# SPDX-License-Identifier: GPL-2.0-or-later
"""Random users of frames, on both releases; each of many planted faults is found.

The machine is :mod:`tests.harness.frame_state_machine`. A fault of what both releases share is
planted once, and looked for on each. Those that take a random search long are in
:mod:`tests.harness.test_frame_tours`.
"""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from kernel_model.errors import MmucheckError
from kernel_model.events import Announcer
from kernel_model.mm.buddy import Buddy
from kernel_model.mm.filemap import PageCache
from kernel_model.mm.linux_2_6.buddy import Buddy26
from kernel_model.mm.linux_2_6.mmzone import PerCpuPages
from tests.harness.frame_state_machine import FrameMachine, FrameMachine24, FrameMachine26

Fault = Callable[[pytest.MonkeyPatch], None]
MACHINES: dict[str, type[FrameMachine]] = {"2.4": FrameMachine24, "2.6": FrameMachine26}


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """An allocation that nothing can help gives up soon: it costs a round over all pages a try."""
    monkeypatch.setattr("kernel_model.mm.vmscan._FRUITLESS_YIELDS", 3)
    monkeypatch.setattr("kernel_model.mm.linux_2_6.vmscan._FRUITLESS", 2)


TestFrames24 = pytest.mark.book("2.6", "6.1", "6.2", "6.3", "6.4", "6.5")(FrameMachine24.TestCase)
TestFrames26 = pytest.mark.book("2.8", "6.7")(FrameMachine26.TestCase)
TestFrames24.settings = settings(max_examples=20)
TestFrames26.settings = settings(max_examples=12)


@pytest.mark.slow
@pytest.mark.timeout(0)
@pytest.mark.parametrize("release", MACHINES)
def test_many_longer_lives_of_frames(release: str) -> None:
    run_state_machine_as_test(
        MACHINES[release], settings=settings(max_examples=200, stateful_step_count=60)
    )


# -- faults of what both share -------------------------------------------------------------------


def a_single_frame_comes_back_unsaid(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Announcer.frame_given_back

    def silent(self: Any, pfn: int, order: int) -> None:
        if order:
            real(self, pfn, order)

    monkeypatch.setattr(Announcer, "frame_given_back", silent)


def a_wrong_frame_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Announcer.frame_taken
    monkeypatch.setattr(
        Announcer,
        "frame_taken",
        lambda self, pfn, order, purpose: real(self, pfn ^ (1 << order), order, purpose),
    )


def a_block_is_taken_as_one_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Announcer.frame_taken
    monkeypatch.setattr(
        Announcer, "frame_taken", lambda self, pfn, order, purpose: real(self, pfn, 0, purpose)
    )


# -- faults of 2.4 -------------------------------------------------------------------------------


def the_bit_of_the_neighbour_is_flipped(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Buddy._toggle
    monkeypatch.setattr(
        Buddy,
        "_toggle",
        lambda self, order, index: real(self, order, index ^ (2 << order if order == 2 else 0)),
    )


def the_wrong_half_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Buddy._expand

    def lower(self: Any, page: int, index: int, low: int, high: int) -> int:
        upper = real(self, page, index, low, high)
        return page if high > low else upper

    monkeypatch.setattr(Buddy, "_expand", lower)


def free_pages_counts_one_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Buddy.merge

    def miscounting(self: Any, index: int, order: int) -> None:
        real(self, index, order)
        self.free_pages += 1

    monkeypatch.setattr(Buddy, "merge", miscounting)


def a_freed_frame_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Buddy, "merge", lambda self, index, order: None)


def a_frame_stays_in_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    def only_off_the_chain(self: Any, page: int) -> None:
        self._remove_from_hash(page)

    monkeypatch.setattr(PageCache, "remove_inode_page", only_off_the_chain)


# -- faults of 2.6 -------------------------------------------------------------------------------


def a_list_is_lost_when_it_is_drained(monkeypatch: pytest.MonkeyPatch) -> None:
    def free_pages_bulk(self: Any, pcp: PerCpuPages, count: int) -> int:
        if count == pcp.count:
            self._lists.init(pcp.list)
            return count
        return real(self, pcp, count)

    real = Buddy26.free_pages_bulk
    monkeypatch.setattr(Buddy26, "free_pages_bulk", free_pages_bulk)


def a_block_is_given_out_and_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Buddy26.rmqueue
    monkeypatch.setattr(
        Buddy26,
        "rmqueue",
        lambda self, order: (real(self, order) or 0) + (self._page_bytes << order) * (order == 2),
    )


def a_free_block_keeps_its_mark(monkeypatch: pytest.MonkeyPatch) -> None:
    real = Buddy26._forget_order

    def forget_order(self: Any, page: int, order: int) -> None:
        real(self, page, order)
        if order == 1:
            self._memmap.set_flags(page, self._memmap.flags(page) | self._pg_private)

    monkeypatch.setattr(Buddy26, "_forget_order", forget_order)


def a_freed_block_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Buddy26, "merge", lambda self, page, order: None)


SHARED: list[Fault] = [
    a_single_frame_comes_back_unsaid,
    a_wrong_frame_is_named,
    a_block_is_taken_as_one_frame,
]
FAULTS: dict[str, Sequence[Fault]] = {
    "2.4": [
        *SHARED,
        the_bit_of_the_neighbour_is_flipped,
        the_wrong_half_is_kept,
        free_pages_counts_one_too_many,
        a_freed_frame_is_lost,
        a_frame_stays_in_the_cache,
    ],
    "2.6": [
        *SHARED,
        a_list_is_lost_when_it_is_drained,
        a_block_is_given_out_and_kept,
        a_free_block_keeps_its_mark,
        a_freed_block_is_lost,
    ],
}


def check_that_it_is_found(machine: type[FrameMachine]) -> None:
    with pytest.raises((AssertionError, MmucheckError)):
        run_state_machine_as_test(
            machine,
            settings=settings(
                max_examples=600, derandomize=True, database=None, phases=[Phase.generate]
            ),
        )


@pytest.mark.parametrize(
    ("release", "fault"),
    [
        pytest.param(release, fault, id=f"{release}-{fault.__name__}")
        for release, faults in FAULTS.items()
        for fault in faults
    ],
)
def test_planted_faults_are_found(
    release: str, fault: Fault, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    check_that_it_is_found(MACHINES[release])
