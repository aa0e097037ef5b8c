# SPDX-License-Identifier: GPL-2.0-or-later
"""What a parent hears of its children.

Models linux-2.4.22 ``kernel/signal.c: do_notify_parent, notify_parent`` and ``kernel/exit.c:
exit_notify``, as far as signals go. Nothing here can fail.
"""

from typing import Final

from harness.signals.numbers import (
    CLD_CONTINUED,
    CLD_DUMPED,
    CLD_EXITED,
    CLD_KILLED,
    CLD_STOPPED,
    SA_NOCLDSTOP,
    SA_NOCLDWAIT,
    SIG_IGN,
    SIGCHLD,
    SIGCONT,
)
from harness.signals.process import SignalledProcess
from harness.signals.siginfo import child_info

_TICK: Final = 10_000_000
_CORE: Final = 0x80


def _tell(
    parent: SignalledProcess, child: SignalledProcess, signal: int, code: int, status: int
) -> None:
    usage = child.usage()
    ticks = usage.user_time // _TICK, usage.system_time // _TICK
    uid = child.fs.credentials.uid
    parent.signals.send(child_info(signal, code, child.tgid, uid, status, ticks))


def notify_ended(child: SignalledProcess, wait_status: int, exit_signal: int = SIGCHLD) -> bool:
    """``child`` has ended with ``wait_status``, as ``wait4()`` gives it.

    ``True``: nobody will wait for it, it is to be reaped at once. A child without a parent here is
    of that kind.
    """
    parent = child.parent_process
    if parent is None:
        return True
    action = parent.signals.actions[SIGCHLD]
    ignored = action.handler == SIG_IGN
    reaped = exit_signal == SIGCHLD and (ignored or bool(action.flags & SA_NOCLDWAIT))
    if exit_signal and not (reaped and ignored):
        signal = wait_status & 0x7F
        code = CLD_EXITED if not signal else CLD_DUMPED if wait_status & _CORE else CLD_KILLED
        _tell(parent, child, exit_signal, code, signal or wait_status >> 8 & 0xFF)
    return reaped


def notify_stopped(child: SignalledProcess, signal: int) -> None:
    _tell_of_job(child, CLD_STOPPED, signal)


def notify_continued(child: SignalledProcess) -> None:
    _tell_of_job(child, CLD_CONTINUED, SIGCONT)


def _tell_of_job(child: SignalledProcess, code: int, status: int) -> None:
    """A parent that does not want to know is only told when it asks (``wait4()``)."""
    parent = child.parent_process
    if parent is None:
        return
    action = parent.signals.actions[SIGCHLD]
    if action.handler != SIG_IGN and not action.flags & SA_NOCLDSTOP:
        _tell(parent, child, SIGCHLD, code, status)
