# SPDX-License-Identifier: GPL-2.0-or-later
"""The three interval timers of a process.

Models linux-2.4.22 ``kernel/itimer.c`` and ``kernel/timer.c: it_real_fn, do_it_virt, do_it_prof``.
All times are nanoseconds: of the machine's own clock for ``ITIMER_REAL``, of the process's running
for the other two. Nothing here can fail.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from harness.signals.numbers import SIGALRM, SIGPROF, SIGVTALRM

ITIMER_REAL: Final = 0
ITIMER_VIRTUAL: Final = 1
ITIMER_PROF: Final = 2
_SIGNALS: Final = {ITIMER_REAL: SIGALRM, ITIMER_VIRTUAL: SIGVTALRM, ITIMER_PROF: SIGPROF}


@dataclass(slots=True)
class Timer:
    """``deadline`` on its clock, ``None`` when it does not run; ``interval`` 0: only once."""

    deadline: int | None = None
    interval: int = 0

    def left(self, now: int) -> int:
        """Until it expires; a timer that runs has always a little left."""
        return 0 if self.deadline is None else max(1000, self.deadline - now)

    def expired(self, now: int) -> bool:
        """Whether its time has come; it then starts again, or stops."""
        if self.deadline is None or now < self.deadline:
            return False
        if self.interval:
            self.deadline += ((now - self.deadline) // self.interval + 1) * self.interval
        else:
            self.deadline = None
        return True


@dataclass(slots=True)
class IntervalTimers:
    """Those of one process; no child has them, and ``execve()`` keeps them."""

    user_time: int = 0
    """How long the process ran in ring 3."""
    cpu_time: int = 0
    """How long it ran in all."""
    timers: dict[int, Timer] = field(default_factory=lambda: {which: Timer() for which in _SIGNALS})

    def now(self, which: int, monotonic: int) -> int:
        """The time on the clock of timer ``which``."""
        return {ITIMER_REAL: monotonic, ITIMER_VIRTUAL: self.user_time}.get(which, self.cpu_time)

    @property
    def armed(self) -> bool:
        """Whether one of them runs."""
        return any(timer.deadline is not None for timer in self.timers.values())

    def charge(self, nanoseconds: int) -> None:
        """The process has run in ring 3 for a while."""
        self.user_time += nanoseconds
        self.cpu_time += nanoseconds

    def next_deadline(self) -> int | None:
        """When ``ITIMER_REAL`` expires."""
        return self.timers[ITIMER_REAL].deadline

    def expired(self, monotonic: int) -> Iterator[int]:
        """The signals of the timers whose time has come."""
        for which, timer in self.timers.items():
            if timer.expired(self.now(which, monotonic)):
                yield _SIGNALS[which]
