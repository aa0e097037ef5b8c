# SPDX-License-Identifier: GPL-2.0-or-later
"""Time as programs see it: the same in every run.

It goes on by a little with each trap that a process makes and with each time slice that it uses
up, and leaps to the next deadline when everybody sleeps. The kernel is told of every millisecond.
Nothing here can fail.
"""

from collections.abc import Callable
from typing import Final

EPOCH: Final = 1_072_915_200_000_000_000
"""When a machine starts: 1 January 2004, in nanoseconds since 1970."""
MILLISECOND: Final = 1_000_000
TRAP_NANOSECONDS: Final = 1_000
SLICE_NANOSECONDS: Final = 10_000_000
"""A time slice, one tick of a 2.4 kernel."""


class VirtualClock:
    """A :class:`~harness.syscalls.task.Clock`."""

    def __init__(self, pass_time: Callable[[int], None] = lambda milliseconds: None) -> None:
        self._now = 0
        self._told = MILLISECOND
        """When the next millisecond is over."""
        self._pass_time = pass_time

    def monotonic(self) -> int:
        """Nanoseconds since the machine was started."""
        return self._now

    def realtime(self) -> int:
        """Nanoseconds since 1970."""
        return EPOCH + self._now

    def advance(self, nanoseconds: int) -> None:
        self._now += nanoseconds
        if self._now >= self._told:
            self._tell()

    def leap(self, deadline: int) -> None:
        """Nobody can do anything before ``deadline``."""
        self.advance(max(deadline - self._now, 0))

    def _tell(self) -> None:
        milliseconds = (self._now - self._told) // MILLISECOND + 1
        self._told += milliseconds * MILLISECOND
        self._pass_time(milliseconds)
