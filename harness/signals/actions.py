# SPDX-License-Identifier: GPL-2.0-or-later
"""What a process does on each signal.

Models linux-2.4.22 ``include/linux/sched.h: struct signal_struct`` (the actions, which threads
share). Nothing here can fail.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from harness.signals.numbers import (
    IGNORED,
    NSIG,
    SIG_DFL,
    SIG_IGN,
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

    def with_handler(self, wanted: Callable[[int], bool]) -> int:
        """The set of signals whose handler is one of the wanted."""
        return sum(bit(signal) for signal, action in self.table.items() if wanted(action.handler))

    def copy(self) -> "Actions":
        return Actions(dict(self.table))

    def after_exec(self) -> "Actions":
        """Handlers are gone with the program that had them; what is ignored stays so."""
        ignored = (s for s in range(1, NSIG + 1) if self[s].handler == SIG_IGN)
        return Actions({signal: Action(SIG_IGN) for signal in ignored})
