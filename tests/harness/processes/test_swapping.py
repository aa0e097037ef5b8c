# SPDX-License-Identifier: GPL-2.0-or-later
"""A program that uses more than there is of RAM swaps, and does not notice."""

from typing import Any

import pytest

from harness.guests import guest_path
from harness.machine import Limits
from harness.processes.linux import Setup
from kernel_model.arch_i386.fault import FaultKind
from tests.harness.processes.one_machine import MIB, PROGRAM, OneMachine

FILLED_MIB = 8
SWAP_PAGES = 4096


def filled(machine: OneMachine, mib: int = FILLED_MIB) -> bytes:
    """Have a program fill so many MiB; what it prints of them."""
    printed = bytearray()
    setup = Setup(
        files={PROGRAM: guest_path("greedy").read_bytes()},
        output=printed.extend,
        limits=Limits(seconds=100),
    )
    machine.run(setup, [b"greedy", b"write", b"%d" % mib])
    return bytes(printed)


def expected() -> bytes:
    """The sum by which ``guest/user/greedy.c`` tells what it read."""
    total = 0
    for _ in range(2):
        for word in range(0, FILLED_MIB * MIB // 4, 16):
            total = (total * 31 + word * 2654435761) & 0xFFFFFFFF
    return b"%08x\n" % total


BUILDS: dict[str, dict[str, Any]] = {
    "2.4": {},
    "2.6": {"release": "2.6"},
    "2.6 chains": {"release": "2.6", "rmap": "pte_chain"},
}


@pytest.mark.book("11", "3.10")
@pytest.mark.parametrize(
    "build", ["2.4", "2.6", pytest.param("2.6 chains", marks=pytest.mark.slow)]
)
def test_more_memory_than_ram_holds_the_same(build: str) -> None:
    small = OneMachine(8 * MIB, SWAP_PAGES, **BUILDS[build])
    filled(small, 1)  # each CPU of 2.6 now keeps what it does not give back
    for run in range(2):
        with small.nothing_left():
            assert filled(small) == expected()
        assert small.machine.faults[FaultKind.MAJOR] > (run + 1) * FILLED_MIB * MIB // 4096 // 2
    assert small.kernel.statics.nr_swap_pages == SWAP_PAGES - 1


def test_with_ram_enough_nothing_is_swapped() -> None:
    large = OneMachine(32 * MIB, SWAP_PAGES)
    with large.nothing_left():
        assert filled(large) == expected()
    assert large.machine.faults[FaultKind.MAJOR] < 10


def test_a_page_lost_in_swap_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    planted = OneMachine(8 * MIB, SWAP_PAGES)
    monkeypatch.setattr(planted.kernel.swap_areas, "read", lambda entry, paddr: None)
    with planted.nothing_left():
        assert filled(planted) != expected()
