# SPDX-License-Identifier: GPL-2.0-or-later
"""Time as programs see it: the same in every run.

It goes on by a little with each trap that a process makes and with each time slice that it uses
up, and leaps to the next deadline when everybody sleeps. Nothing here can fail.
"""

from typing import Final

EPOCH: Final = 1_072_915_200_000_000_000
"""When a machine starts: 1 January 2004, in nanoseconds since 1970."""
TRAP_NANOSECONDS: Final = 1_000
SLICE_NANOSECONDS: Final = 10_000_000
"""A time slice, one tick of a 2.4 kernel."""


class VirtualClock:
    """A :class:`~harness.syscalls.task.Clock`."""

    def __init__(self) -> None:
        self._now = 0

    def monotonic(self) -> int:
        """Nanoseconds since the machine was started."""
        return self._now

    def realtime(self) -> int:
        """Nanoseconds since 1970."""
        return EPOCH + self._now

    def advance(self, nanoseconds: int) -> None:
        self._now += nanoseconds

    def leap(self, deadline: int) -> None:
        """Nobody can do anything before ``deadline``."""
        self._now = max(self._now, deadline)
