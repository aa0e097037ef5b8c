# SPDX-License-Identifier: GPL-2.0-or-later
"""What a process does on each signal, and where its handlers run.

Models linux-2.4.22 ``include/linux/sched.h: struct signal_struct`` (the actions, which threads
share) and the ``sas_ss`` members of ``struct task_struct``. Nothing here can fail.
"""

from dataclasses import dataclass, field
from typing import Final

from harness.signals.numbers import (
    IGNORED,
    NSIG,
    SIG_DFL,
    SIG_IGN,
    SS_AUTODISARM,
    SS_DISABLE,
    SS_ONSTACK,
    bit,
)


@dataclass(frozen=True, slots=True)
class Action:
    """``struct k_sigaction``: ``mask`` is blocked while the handler runs."""

    handler: int = SIG_DFL
    flags: int = 0
    restorer: int = 0
    mask: int = 0


DEFAULT: Final = Action()


@dataclass(slots=True)
class Actions:
    """Those of all signals; shared by tasks that were cloned with ``CLONE_SIGHAND``."""

    table: dict[int, Action] = field(default_factory=dict)

    def __getitem__(self, signal: int) -> Action:
        return self.table.get(signal, DEFAULT)

    def __setitem__(self, signal: int, action: Action) -> None:
        self.table[signal] = action

    def ignores(self, signal: int) -> bool:
        """Whether nothing at all would happen."""
        handler = self[signal].handler
        return handler == SIG_IGN or (handler == SIG_DFL and bool(bit(signal) & IGNORED))

    def copy(self) -> "Actions":
        return Actions(dict(self.table))

    def after_exec(self) -> "Actions":
        """Handlers are gone with the program that had them; what is ignored stays so."""
        ignored = (s for s in range(1, NSIG + 1) if self[s].handler == SIG_IGN)
        return Actions({signal: Action(SIG_IGN) for signal in ignored})


@dataclass(frozen=True, slots=True)
class AlternateStack:
    """``sigaltstack()``: ``size`` bytes from ``start`` on; no bytes: there is none."""

    start: int = 0
    size: int = 0
    autodisarm: bool = False

    def contains(self, esp: int) -> bool:
        """``on_sig_stack``: a stack that is empty or in use has its ESP above ``start``."""
        return not self.autodisarm and 0 < esp - self.start <= self.size

    def flags(self, esp: int) -> int:
        """``ss_flags`` as seen by a program with this ESP."""
        disarm = SS_AUTODISARM if self.autodisarm else 0
        if not self.size:
            return SS_DISABLE | disarm
        return (SS_ONSTACK if self.contains(esp) else 0) | disarm

    @property
    def top(self) -> int:
        return self.start + self.size


NO_STACK: Final = AlternateStack()
