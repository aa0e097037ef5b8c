# SPDX-License-Identifier: GPL-2.0-or-later
"""A program that uses more than there is of RAM swaps, and does not notice."""

import pytest

from harness.guests import guest_path
from harness.machine import Limits
from harness.processes.linux import Setup
from kernel_model.arch_i386.fault import FaultKind
from tests.harness.processes.one_machine import MIB, PROGRAM, OneMachine

FILLED_MIB = 9
SWAP_PAGES = 4096


def filled(machine: OneMachine) -> bytes:
    """Have a program fill :data:`FILLED_MIB`; what it prints of them."""
    printed = bytearray()
    setup = Setup(
        files={PROGRAM: guest_path("greedy").read_bytes()},
        output=printed.extend,
        limits=Limits(seconds=100),
    )
    with machine.nothing_left():
        machine.run(setup, [b"greedy", b"write", b"%d" % FILLED_MIB])
    return bytes(printed)


def expected() -> bytes:
    """The sum by which ``guest/user/greedy.c`` tells what it read."""
    total = 0
    for _ in range(2):
        for word in range(0, FILLED_MIB * MIB // 4, 16):
            total = (total * 31 + word * 2654435761) & 0xFFFFFFFF
    return b"%08x\n" % total


@pytest.mark.book("11")
def test_more_memory_than_ram_holds_the_same() -> None:
    small = OneMachine(8 * MIB, SWAP_PAGES)
    for run in range(2):
        assert filled(small) == expected()
        assert small.machine.faults[FaultKind.MAJOR] > (run + 1) * FILLED_MIB * MIB // 4096 // 2
    assert small.kernel.statics.nr_swap_pages == SWAP_PAGES - 1


def test_with_ram_enough_nothing_is_swapped() -> None:
    large = OneMachine(32 * MIB, SWAP_PAGES)
    assert filled(large) == expected()
    assert large.machine.faults[FaultKind.MAJOR] < 10


def test_a_page_lost_in_swap_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    planted = OneMachine(8 * MIB, SWAP_PAGES)
    monkeypatch.setattr(planted.kernel.swap_areas, "read", lambda entry, paddr: None)
    assert filled(planted) != expected()
