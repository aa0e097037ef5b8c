# SPDX-License-Identifier: GPL-2.0-or-later
"""Signals that were sent and not yet taken.

Models linux-2.4.22 ``include/linux/signal.h: struct sigpending`` and ``kernel/signal.c:
send_signal, dequeue_signal``. What can fail: :meth:`Pending.add` says ``False`` when the queue is
full.
"""

from dataclasses import dataclass, field
from typing import Final

from harness.signals.numbers import SI_USER, SYNCHRONOUS, bit, is_realtime
from harness.signals.siginfo import SigInfo

QUEUE_LIMIT: Final = 1024
"""``max_queued_signals``, here of each queue."""


def first_signal(signals: int) -> int:
    """The one that is taken first: what the program just did itself, then the lowest number."""
    chosen = signals & SYNCHRONOUS or signals
    return (chosen & -chosen).bit_length()


@dataclass(slots=True)
class Pending:
    """One queue: :attr:`signals` is the set of those that wait, :attr:`queue` what they say."""

    signals: int = 0
    queue: list[SigInfo] = field(default_factory=list)
    added: int = field(default=0, compare=False)
    """How many have come, all in all."""

    def add(self, info: SigInfo) -> bool:
        """Only signals from :data:`~harness.signals.numbers.SIGRTMIN` on wait more than once."""
        if not is_realtime(info.signo) and self.signals & bit(info.signo):
            return True
        if len(self.queue) < QUEUE_LIMIT:
            self.queue.append(info)
        elif is_realtime(info.signo) and info.code != SI_USER:
            return False
        self.signals |= bit(info.signo)
        self.added += 1
        return True

    def take(self, signal: int) -> SigInfo:
        """The oldest ``signal``. Where the queue was full, nothing is known about it."""
        mine = [info for info in self.queue if info.signo == signal]
        if len(mine) <= 1:
            self.signals &= ~bit(signal)
        if not mine:
            return SigInfo(signal, SI_USER)
        self.queue.remove(mine[0])
        return mine[0]

    def discard(self, signals: int) -> None:
        """Forget all of the set ``signals``."""
        if self.signals & signals:
            self.signals &= ~signals
            self.queue = [info for info in self.queue if not bit(info.signo) & signals]
