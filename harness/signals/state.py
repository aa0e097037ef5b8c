# SPDX-License-Identifier: GPL-2.0-or-later
"""The signals of one task, and what it shares with the other threads of its process.

Models the signal members of linux-2.4.22 ``struct task_struct`` and ``kernel/signal.c:
send_sig_info``; the queue that all threads share, and stopping them together, are of later kernels.
Nothing here can fail.
"""

from dataclasses import dataclass, field

from harness.signals.actions import Actions
from harness.signals.alternate_stack import NO_STACK, AlternateStack
from harness.signals.numbers import (
    ALL,
    SIGCONT,
    SIGKILL,
    STOPPING,
    UNBLOCKABLE,
    bit,
)
from harness.signals.pending import Pending, first_signal
from harness.signals.siginfo import SigInfo, kernel_info
from harness.signals.timers import IntervalTimers


@dataclass(eq=False, slots=True)
class SignalGroup:
    """What the threads of a process have in common (``struct signal_struct`` since 2.6)."""

    pending: Pending = field(default_factory=Pending)
    timers: IntervalTimers = field(default_factory=IntervalTimers)
    members: list["SignalState"] = field(default_factory=list)
    ended_faults: tuple[int, int] = (0, 0)
    """Minor and major page faults of threads that are no more."""
    stop_signal: int = 0
    """What stopped the process; 0: it is not stopped."""
    stop_report: int = 0
    """The stop that ``wait4(WUNTRACED)`` has not yet told of; the one who tells clears it."""
    continue_report: bool = False
    """The same of ``WCONTINUED``."""
    continue_notice: bool = False
    """The parent is still to get ``SIGCHLD`` for it."""

    def discard(self, signals: int) -> None:
        """Forget what waits of the set ``signals``, for the process and for each thread."""
        self.pending.discard(signals)
        for member in self.members:
            member.private.discard(signals)

    def stop(self, signal: int) -> None:
        self.stop_signal = self.stop_report = signal
        self.continue_report = self.continue_notice = False

    def resume(self) -> None:
        """By ``SIGCONT``."""
        if self.stop_signal:
            self.stop_signal = self.stop_report = 0
            self.continue_report = self.continue_notice = True

    def expire_timers(self, now: int) -> None:
        """Send what the timers have to send at ``now``, on the monotonic clock."""
        for signal in self.timers.expired(now):
            if self.members:
                self.members[0].send(kernel_info(signal))


@dataclass(eq=False, slots=True)
class SignalState:
    """Of one task."""

    actions: Actions = field(default_factory=Actions)
    group: SignalGroup = field(default_factory=SignalGroup)
    blocked: int = 0
    saved: int | None = None
    """The mask to come back to after ``sigsuspend()``, ``ppoll()`` or ``pselect()``."""
    private: Pending = field(default_factory=Pending)
    stack: AlternateStack = NO_STACK
    awaited: int = 0
    """What ``sigtimedwait()`` waits for: it is kept even if it is ignored."""

    def __post_init__(self) -> None:
        self.group.members.append(self)

    # -- where it comes from and goes to -------------------------------------------------------

    def fork(self, *, share_actions: bool = False, keep_stack: bool = True) -> "SignalState":
        """For a new process; a stack is not kept by one that shares memory (``CLONE_VM``)."""
        return SignalState(
            self.actions if share_actions else self.actions.copy(),
            blocked=self.blocked,
            stack=self.stack if keep_stack else NO_STACK,
        )

    def thread(self) -> "SignalState":
        """For a new thread of the same process (``CLONE_THREAD``)."""
        return SignalState(self.actions, self.group, self.blocked)

    def exec(self) -> None:
        """A new program begins; what is blocked and what waits stays so."""
        self.actions, self.stack = self.actions.after_exec(), NO_STACK

    def release(self) -> None:
        """The task ends."""
        if self in self.group.members:
            self.group.members.remove(self)

    # -- sending ---------------------------------------------------------------------------------

    def send(self, info: SigInfo) -> bool:
        """To the whole process; ``False``: there is no room to queue it."""
        return self._send(info, self.group.pending)

    def send_to_thread(self, info: SigInfo) -> bool:
        """To this task alone."""
        return self._send(info, self.private)

    def _send(self, info: SigInfo, pending: Pending) -> bool:
        signal = info.signo
        if bit(signal) & STOPPING:
            self.group.discard(bit(SIGCONT))
        elif signal == SIGCONT:
            self.group.discard(STOPPING)
            self.group.resume()
        elif signal == SIGKILL:
            self.group.stop_signal = 0
        if self.actions.ignores(signal) and not bit(signal) & (self.blocked | self.awaited):
            return True
        return pending.add(info)

    # -- taking ----------------------------------------------------------------------------------

    @property
    def pending(self) -> int:
        """The set of all that wait, blocked or not."""
        return self.private.signals | self.group.pending.signals

    @property
    def arrivals(self) -> int:
        """How many signals came to the task or its process, all in all."""
        return self.private.added + self.group.pending.added

    def has_deliverable(self) -> bool:
        """Whether a signal wants to be handled; nothing that waits goes on waiting then."""
        return bool(self.pending & ~self.blocked)

    @property
    def wants_handling(self) -> bool:
        """Whether ``do_signal()`` has anything to do, apart from the outcome of a system call."""
        return self.has_deliverable() or self.saved is not None or self.group.continue_notice

    @property
    def stopped(self) -> bool:
        """Whether the process stands still until ``SIGCONT`` or ``SIGKILL``."""
        return self.group.stop_signal != 0

    def dequeue(self, signals: int | None = None) -> SigInfo | None:
        """Take one of the set ``signals``, by default of all that are not blocked."""
        chosen = ALL & ~self.blocked if signals is None else signals
        for queue in (self.private, self.group.pending):
            if queue.signals & chosen:
                return queue.take(first_signal(queue.signals & chosen))
        return None

    # -- masks -----------------------------------------------------------------------------------

    def set_blocked(self, mask: int) -> None:
        self.blocked = mask & ALL & ~UNBLOCKABLE

    def suspend(self, mask: int) -> None:
        """Block ``mask`` until a handler starts or :meth:`resume` is called."""
        if self.saved is None:
            self.saved = self.blocked
        self.set_blocked(mask)

    def resume(self) -> None:
        """Back to the mask from before :meth:`suspend`."""
        if self.saved is not None:
            self.blocked, self.saved = self.saved, None
