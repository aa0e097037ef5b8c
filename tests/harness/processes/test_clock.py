# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel is told of every millisecond that passes for programs, once."""

from harness.processes.clock import SLICE_NANOSECONDS, TRAP_NANOSECONDS, VirtualClock


def test_every_millisecond_is_told_once() -> None:
    told: list[int] = []
    clock = VirtualClock(told.append)
    for _ in range(2500):
        clock.advance(TRAP_NANOSECONDS)
    assert told == [1, 1]
    clock.advance(SLICE_NANOSECONDS)
    assert told == [1, 1, 10]
    clock.leap(5_000_000_000)
    clock.leap(4_000_000_000)
    assert sum(told) == clock.monotonic() // 1_000_000 == 5000
    clock.advance(999_999)
    assert sum(told) == 5000
    clock.advance(1)
    assert sum(told) == 5001
