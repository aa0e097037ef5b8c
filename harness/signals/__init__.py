# SPDX-License-Identifier: GPL-2.0-or-later
"""Signals of Linux on the i386: sending, waiting, handlers and the way back from them.

Models linux-2.4.22 ``kernel/signal.c``, ``kernel/itimer.c`` and ``arch/i386/kernel/signal.c``. The
state of a task is :class:`SignalState`; on the way back to ring 3 :func:`do_signal` handles what
waits. What goes to and from user memory is asked for by requests
(:mod:`harness.syscalls.requests`), so each part that does so is a generator.
"""

from harness.signals.children import notify_ended
from harness.signals.delivery import (
    Died,
    GoesOn,
    Next,
    Stopped,
    do_signal,
    force_sig_info,
    force_sigsegv,
)
from harness.signals.process import SignalledProcess
from harness.signals.siginfo import SigInfo, kernel_info, page_fault_info, user_info
from harness.signals.state import SignalGroup, SignalState
from harness.signals.traps import exception_info

__all__ = [
    "Died",
    "GoesOn",
    "Next",
    "SigInfo",
    "SignalGroup",
    "SignalState",
    "SignalledProcess",
    "Stopped",
    "do_signal",
    "exception_info",
    "force_sig_info",
    "force_sigsegv",
    "kernel_info",
    "notify_ended",
    "page_fault_info",
    "user_info",
]
