# SPDX-License-Identifier: GPL-2.0-or-later
"""Page locks: who sleeps where, who is woken, in which order."""

from collections import defaultdict
from itertools import groupby
from typing import Any, ClassVar

import pytest
from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from kernel_model.config import MIB, KernelConfig
from kernel_model.errors import KernelBug
from kernel_model.kernel import Kernel, boot
from kernel_model.lists import Lists
from kernel_model.mm.gfp import GFP_ATOMIC, GFP_DMA
from kernel_model.mm.page_flags import PG_LOCKED
from kernel_model.mm.page_lock import PageLocks

PAGE_OFFSET = 0xC0000000
GOLDEN_RATIO = 0x9E370001
TASKS = [0xC1000000 + number * 0x2000 for number in range(6)]
WAITER_BYTES = 32


def slot(kernel: Kernel, page: int) -> tuple[int, int]:
    """(zone, queue) that a page hashes to, computed from the definition."""
    zone = kernel.allocator.page_zone(page)
    bits = int(zone.view.wait_table_size).bit_length() - 1
    return zone.vaddr, (page * GOLDEN_RATIO & 0xFFFFFFFF) >> 32 - bits if bits else 0


def colliding(kernel: Kernel, count: int) -> list[int]:
    """``count`` frames of one zone that share a queue."""
    first, frames = kernel.allocator.memmap.page, range(0x400, 0x480)
    by_slot = sorted((slot(kernel, first(pfn)), first(pfn)) for pfn in frames)
    groups = ([page for _, page in group] for _, group in groupby(by_slot, key=lambda x: x[0]))
    return next(pages[:count] for pages in groups if len(pages) >= count)


class Sleepers:
    """A frame for the records of those who sleep."""

    def __init__(self, kernel: Kernel) -> None:
        self._base = kernel.allocator.get_free_page(GFP_ATOMIC)
        self.view = kernel.image.structs.page_waiter

    def record(self, task: int) -> int:
        return self._base + TASKS.index(task) * WAITER_BYTES


@pytest.fixture(scope="module", params=["2.4", pytest.param("2.6", marks=pytest.mark.slow)])
def kernel(request: pytest.FixtureRequest) -> Kernel:
    return boot(KernelConfig(ram=32 * MIB, release=request.param))


@pytest.fixture
def pages(kernel: Kernel) -> list[int]:
    """Three frames that share a queue, unlocked again afterwards."""
    found = colliding(kernel, 3)
    assert not any(kernel.allocator.memmap.test(page, PG_LOCKED) for page in found)
    return found


@pytest.mark.book("2.2.3")
def test_a_free_lock_is_taken_at_once(kernel: Kernel, pages: list[int]) -> None:
    locks, sleepers = kernel.page_locks, Sleepers(kernel)
    assert locks.lock_page(pages[0], TASKS[0], sleepers.record(TASKS[0]))
    assert kernel.allocator.memmap.test(pages[0], PG_LOCKED)
    assert not locks.waiters(pages[0])
    assert not locks.try_lock(pages[0])
    assert locks.unlock_page(pages[0]) == []
    assert not kernel.allocator.memmap.test(pages[0], PG_LOCKED)


@pytest.mark.book("2.2.3")
def test_only_those_who_wait_for_the_frame_get_it(kernel: Kernel, pages: list[int]) -> None:
    """Two frames share a queue: unlocking one leaves the other's sleepers asleep."""
    locks, sleepers = kernel.page_locks, Sleepers(kernel)
    one, two, _ = pages
    assert locks.page_waitqueue(one) == locks.page_waitqueue(two)
    assert locks.try_lock(one)
    assert locks.try_lock(two)
    for task, page in [(TASKS[0], two), (TASKS[1], one), (TASKS[2], two), (TASKS[3], one)]:
        assert not locks.lock_page(page, task, sleepers.record(task))
    assert locks.waiters(one) == [TASKS[1], TASKS[3]]
    assert locks.waiters(two) == [TASKS[0], TASKS[2]]
    assert locks.unlock_page(one) == [TASKS[1]]
    assert locks.waiters(two) == [TASKS[0], TASKS[2]]
    assert locks.unlock_page(one) == [TASKS[3]]
    assert locks.unlock_page(one) == []
    assert locks.unlock_page(two) == [TASKS[0]]
    assert locks.unlock_page(two) == [TASKS[2]]
    assert locks.unlock_page(two) == []


def test_the_queue_lies_in_the_wait_table_of_the_zone(kernel: Kernel) -> None:
    queue_bytes = kernel.image.structs.wait_queue_head_t.size
    used = defaultdict(set)
    for pfn in range(0, kernel.statics.max_mapnr, 3):
        page = kernel.allocator.memmap.page(pfn)
        zone, index = slot(kernel, page)
        view = kernel.allocator.zone(zone).view
        assert kernel.page_locks.page_waitqueue(page) == view.wait_table + index * queue_bytes
        used[zone].add(index)
    for zone, indices in used.items():
        assert indices == set(range(kernel.allocator.zone(zone).view.wait_table_size))


@pytest.mark.parametrize(("release", "number"), [("2.4", 1), ("2.6", 4)])
def test_a_small_zone_has_few_queues(release: str, number: int) -> None:
    """With one, a shift by 32 must not leave the hash as it is; 2.6 makes four at least."""
    kernel = boot(KernelConfig(ram=17 * MIB, release=release))
    pages = [kernel.allocator.memmap.page(pfn) for pfn in range(0x1000, 0x1100)]
    queues = {kernel.page_locks.page_waitqueue(page) for page in pages}
    first = int(kernel.allocator.page_zone(pages[0]).view.wait_table)
    size = kernel.image.structs.wait_queue_head_t.size
    assert queues == {first + at * size for at in range(number)}


def laundering(kernel: Kernel) -> int:
    """The mark of a frame that reclaim writes; 2.6 has none."""
    return kernel.image.constants.page_flags.mask("launder")


@pytest.mark.parametrize("launder", [False, True])
def test_unlocking_what_is_not_locked_is_a_bug(
    kernel: Kernel, pages: list[int], launder: bool
) -> None:
    memmap, mark = kernel.allocator.memmap, laundering(kernel)
    if launder:
        memmap.set_flags(pages[0], memmap.flags(pages[0]) | mark)
    pfn = kernel.allocator.memmap.pfn(pages[0])
    with pytest.raises(KernelBug, match=f"frame {pfn:#x} is not locked"):
        kernel.page_locks.unlock_page(pages[0])
    assert not memmap.flags(pages[0]) & mark


def test_unlocking_ends_the_laundering(kernel: Kernel, pages: list[int]) -> None:
    memmap = kernel.allocator.memmap
    kernel.page_locks.try_lock(pages[0])
    memmap.set_flags(pages[0], memmap.flags(pages[0]) | laundering(kernel))
    kernel.page_locks.unlock_page(pages[0])
    assert not memmap.flags(pages[0]) & laundering(kernel)


class LockMachine(RuleBasedStateMachine):
    """Tasks lock and unlock frames, three of which share a queue, against a naive book."""

    release: ClassVar = "2.4"

    def __init__(self) -> None:
        super().__init__()
        self.kernel = boot(KernelConfig(ram=20 * MIB, release=self.release))
        self.locks, self.sleepers = self.kernel.page_locks, Sleepers(self.kernel)
        allocator = self.kernel.allocator
        self.pages = [
            *colliding(self.kernel, 3),
            allocator.alloc_page(GFP_ATOMIC),
            allocator.alloc_page(GFP_DMA),
        ]
        self.locked: set[int] = set()
        self.asleep: list[tuple[int, int]] = []
        """(task, page) of all sleepers, by the time they fell asleep."""

    @rule(task=st.sampled_from(TASKS), which=st.integers(0, 4))
    def lock(self, task: int, which: int) -> None:
        if any(sleeper == task for sleeper, _ in self.asleep):
            return
        page = self.pages[which]
        got = self.locks.lock_page(page, task, self.sleepers.record(task))
        assert got == (page not in self.locked)
        if got:
            self.locked.add(page)
        else:
            self.asleep.append((task, page))

    @rule(which=st.integers(0, 4))
    def try_lock(self, which: int) -> None:
        page = self.pages[which]
        assert self.locks.try_lock(page) == (page not in self.locked)
        self.locked.add(page)

    @rule(which=st.integers(0, 4))
    def unlock(self, which: int) -> None:
        page = self.pages[which]
        if page not in self.locked:
            with pytest.raises(KernelBug):
                self.locks.unlock_page(page)
            return
        self.locked.remove(page)
        heir = next(((task, p) for task, p in self.asleep if p == page), None)
        assert self.locks.unlock_page(page) == ([heir[0]] if heir else [])
        if heir:
            self.locked.add(page)
            self.asleep.remove(heir)

    @invariant()
    def ram_says_the_same(self) -> None:
        memmap, lists, kind = self.kernel.allocator.memmap, self.kernel.ram, self.sleepers.view
        assert {p for p in self.pages if memmap.test(p, PG_LOCKED)} == self.locked
        for page in self.pages:
            sleepers = [task for task, p in self.asleep if p == page]
            assert self.locks.waiters(page) == sleepers
            _, index = slot(self.kernel, page)
            view = self.kernel.allocator.page_zone(page).view
            size = self.kernel.image.structs.wait_queue_head_t.size
            head = link = int(view.wait_table) + index * size
            found: list[tuple[int, int]] = []
            while (link := lists.read32(link - PAGE_OFFSET)) != head:
                record: Any = kind.at(lists, link - PAGE_OFFSET - kind.offset("task_list"))
                found.append((int(record.task), int(record.page)))
                assert len(found) <= len(TASKS)
            mates = {p for p in self.pages if slot(self.kernel, p) == slot(self.kernel, page)}
            assert found == [(task, p) for task, p in self.asleep if p in mates]


class LockMachine26(LockMachine):
    """The same with the tables of 2.6."""

    release = "2.6"


MACHINES = {"2.4": LockMachine, "2.6": LockMachine26}
TestPageLocks = pytest.mark.book("2.2.3")(LockMachine.TestCase)
TestPageLocks26 = pytest.mark.slow(pytest.mark.book("2.2.3", release="2.6")(LockMachine26.TestCase))


def last_come_first_served(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Lists, "add_tail", Lists.add)


def whoever_sleeps_in_the_queue_is_served(monkeypatch: pytest.MonkeyPatch) -> None:
    real = PageLocks.try_lock
    monkeypatch.setattr(PageLocks, "try_lock", lambda self, page: real(self, page) or True)


def one_queue_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        PageLocks,
        "page_waitqueue",
        lambda self, page: int(self._allocator.page_zone(page).view.wait_table),
    )


def sleepers_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Lists, "entries", lambda self, head: iter(()))


@pytest.mark.parametrize(
    "fault",
    [
        last_come_first_served,
        whoever_sleeps_in_the_queue_is_served,
        one_queue_for_all,
        sleepers_are_forgotten,
    ],
)
def test_the_state_machine_finds_planted_faults(
    fault: Any, either_release: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    with pytest.raises(AssertionError):
        run_state_machine_as_test(
            MACHINES[either_release],
            settings=settings(
                max_examples=100, derandomize=True, database=None, phases=[Phase.generate]
            ),
        )
