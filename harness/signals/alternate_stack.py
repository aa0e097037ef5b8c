# SPDX-License-Identifier: GPL-2.0-or-later
"""The stack that handlers with ``SA_ONSTACK`` run on.

Models the ``sas_ss`` members of linux-2.4.22 ``struct task_struct`` and ``kernel/signal.c:
do_sigaltstack``; ``SS_AUTODISARM`` is of later kernels. What can fail:
:meth:`AlternateStack.replaced`.
"""

import errno
from dataclasses import dataclass
from typing import Final

from harness.signals.numbers import MINSIGSTKSZ, SS_AUTODISARM, SS_DISABLE, SS_ONSTACK
from harness.vfs.failure import fail


@dataclass(frozen=True, slots=True)
class AlternateStack:
    """``size`` bytes from ``start`` on, none if there is no such stack; ``asked`` are the flags
    that it was set up with."""

    start: int = 0
    size: int = 0
    asked: int = 0

    @property
    def autodisarm(self) -> bool:
        """Whether a handler takes it away while it runs, so that it may set up another one."""
        return bool(self.asked & SS_AUTODISARM)

    @property
    def top(self) -> int:
        return self.start + self.size

    def contains(self, esp: int) -> bool:
        """``on_sig_stack``: a stack that is empty or in use has its ESP above ``start``."""
        return not self.autodisarm and 0 < esp - self.start <= self.size

    def flags(self, esp: int) -> int:
        """``ss_flags`` as seen by a program with this ESP."""
        state = (SS_ONSTACK if self.contains(esp) else 0) if self.size else SS_DISABLE
        return state | self.asked & SS_AUTODISARM

    def replaced(self, esp: int, start: int, flags: int, size: int) -> "AlternateStack":
        """By what a ``stack_t`` asks for: ``EPERM`` while it is in use, ``EINVAL``, ``ENOMEM``."""
        if self.contains(esp):
            fail(errno.EPERM)
        mode = flags & ~SS_AUTODISARM
        if mode not in (0, SS_ONSTACK, SS_DISABLE):
            fail(errno.EINVAL)
        if mode == SS_DISABLE:
            return AlternateStack(asked=flags)
        if size < MINSIGSTKSZ:
            fail(errno.ENOMEM)
        return AlternateStack(start, size, flags)


NO_STACK: Final = AlternateStack()
