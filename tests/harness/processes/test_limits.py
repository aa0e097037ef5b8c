# SPDX-License-Identifier: GPL-2.0-or-later
"""Programs that take without end: each is ended by what bounds it, with a line that says so."""

import pytest

from harness.guests import guest_path
from harness.machine import Limits
from harness.processes import births
from harness.processes.deaths import Deaths
from harness.processes.linux import Setup
from harness.processes.scheduler import Deadlock
from kernel_model.errors import EndlessLoop
from kernel_model.kernel import Kernel
from kernel_model.mm.linux_2_6.vmscan import Vmscan26
from kernel_model.mm.mmzone import for_each_zone
from tests.harness.processes.one_machine import MIB, PROGRAM, OneMachine, Outcome
from tests.harness.processes.releases import RELEASES

ENOMEM = 12
MAX_INSTRUCTIONS = 1_000_000


def walk_tables(kernel: Kernel) -> None:
    """2.4 goes through page tables for pages to unmap."""
    for zone in list(for_each_zone(kernel.image)) * 4:
        kernel.vmscan.refill_inactive(1000)
        kernel.swapper.swap_out(kernel.allocator.zone(zone.vaddr))


def ask_each_frame(kernel: Kernel) -> None:
    """2.6 asks frames who maps them."""
    assert isinstance(kernel.vmscan, Vmscan26)
    zones = [zone.vaddr for zone in for_each_zone(kernel.image)]
    for _ in range(4):
        kernel.vmscan.try_to_free_pages(zones, kernel.image.constants.gfp.kernel, 0)


RECLAIM = {"2.4": walk_tables, "2.6": ask_each_frame}


@pytest.fixture(scope="module", params=RELEASES)
def machine(request: pytest.FixtureRequest) -> OneMachine:
    return OneMachine(8 * MIB, release=request.param)


def setup(traced: list[str] | None = None, seconds: float = 60) -> Setup:
    return Setup(
        files={PROGRAM: guest_path("greedy").read_bytes()},
        limits=Limits(MAX_INSTRUCTIONS, seconds),
        trace=None if traced is None else traced.append,
    )


def greedy(machine: OneMachine, how: bytes, traced: list[str] | None = None) -> Outcome:
    with machine.nothing_left():
        return machine.run(setup(traced), [b"greedy", how])


def test_a_loop_ends_at_the_limit_on_instructions(machine: OneMachine) -> None:
    for _ in range(2):
        stopped = greedy(machine, b"loop").stopped
        assert str(stopped) == (
            f"the guest was stopped: the limit on instructions was reached: {MAX_INSTRUCTIONS}"
        )


def test_a_loop_ends_at_the_limit_on_time(machine: OneMachine) -> None:
    limits = Limits(seconds=0.2)
    with machine.nothing_left():
        files = {PROGRAM: guest_path("greedy").read_bytes()}
        outcome = machine.run(Setup(files=files, limits=limits), [b"greedy", b"loop"])
    assert str(outcome.stopped).endswith("the limit on time was reached: 0.2 s")


def test_a_process_that_nothing_wakes_is_named(machine: OneMachine) -> None:
    with (
        machine.nothing_left(),
        pytest.raises(Deadlock, match=r"nothing can wake one: 2 \(program\)$"),
    ):
        machine.run(setup(), [b"greedy", b"pause"])


def test_a_process_that_only_calls_gives_way(machine: OneMachine) -> None:
    """Nothing but its calls ends its time slice: they restart the emulator's count."""
    ended = greedy(machine, b"calls").ended
    assert ended is not None
    assert (ended.status, ended.signal) == (0, 0)


@pytest.mark.book("4.8")
@pytest.mark.parametrize("how", [b"mmap", b"brk"])
def test_memory_that_is_taken_at_once_ends_in_enomem(machine: OneMachine, how: bytes) -> None:
    """``vm_enough_memory()`` refuses before anything has to be killed."""
    ended = greedy(machine, how).ended
    assert ended is not None
    assert (ended.status, ended.signal) == (ENOMEM, 0)


@pytest.mark.book("13.4")
def test_memory_that_was_promised_ends_in_a_kill(machine: OneMachine) -> None:
    ended = greedy(machine, b"overcommit").ended
    assert ended is not None
    assert ended.signal == 9
    assert ended.exit_status == 128 + 9


def test_processes_without_end_get_eagain(
    machine: OneMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(births, "MAX_PROCESSES", 20)
    traced: list[str] = []
    stopped = greedy(machine, b"fork", traced).stopped
    assert "the limit on instructions" in str(stopped)
    assert any(line.endswith("fork() = -11") for line in traced)
    born = {line.split()[-1] for line in traced if " fork() = " in line} - {"0", "-11"}
    assert len(born) == 19


@pytest.mark.book("4.3")
def test_a_page_may_go_while_its_table_is_copied(
    machine: OneMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The child's page table takes the last memory: a page of the program's file is dropped."""
    kernel = machine.kernel
    pte_alloc = kernel.memory.tables.pte_alloc_map

    def with_the_last_memory(mm: int, pgd: int, vaddr: int) -> int:
        RECLAIM[kernel.config.release](kernel)
        return pte_alloc(mm, pgd, vaddr)

    monkeypatch.setattr(births, "MAX_PROCESSES", 3)
    monkeypatch.setattr(kernel.memory.tables, "pte_alloc_map", with_the_last_memory)
    assert "the limit on instructions" in str(greedy(machine, b"fork").stopped)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_more_processes_than_memory_are_killed_until_a_limit(machine: OneMachine) -> None:
    outcome = None
    with machine.nothing_left():
        outcome = machine.run(setup(seconds=20), [b"greedy", b"fork"])
    assert "the limit on" in str(outcome.stopped)
    assert "Out of Memory: Killed process" in "".join(machine.kernel.image.log)


def test_a_kernel_that_retries_for_ever_is_a_line(
    machine: OneMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With room in the swap area nobody is killed, though nothing can be swapped out."""

    def never(process: object, *arguments: object) -> None:
        raise EndlessLoop("__alloc_pages: nothing can be reclaimed and nobody will free any")

    with machine.linux(setup()) as linux:
        process = linux.start(PROGRAM, [b"greedy", b"fork"])
        monkeypatch.setattr(linux.births, "fork", never)
        with pytest.raises(Exception, match="its kernel would never come back: __alloc_pages"):
            linux.run(process)


def test_a_victim_that_lived_on_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    planted = OneMachine(8 * MIB)
    monkeypatch.setattr(Deaths, "_kill_for_memory", lambda self, candidate: None)
    outcome = planted.run(setup(), [b"greedy", b"overcommit"])
    assert outcome.ended is None or outcome.ended.signal != 9
