# SPDX-License-Identifier: GPL-2.0-or-later
"""What becomes of a signal: a handler, nothing, a stop, or the end.

Models linux-2.4.22 ``arch/i386/kernel/signal.c: do_signal, handle_signal`` and ``kernel/signal.c:
force_sig_info``. As in later kernels, a frame is made for each signal that waits before ring 3 goes
on, so the last one's handler runs first; and a fault that the program blocks kills it.

What can fail: nothing. A frame that cannot be written is ``SIGSEGV``, which kills a program whose
``SIGSEGV`` handler it was.
"""

from dataclasses import dataclass, replace
from typing import Final

from harness.signals.actions import DEFAULT, Action
from harness.signals.children import notify_continued, notify_stopped
from harness.signals.frame import setup_frame
from harness.signals.numbers import (
    DUMPING,
    SA_NODEFER,
    SA_RESETHAND,
    SA_RESTART,
    SIG_DFL,
    SIG_IGN,
    SIGSEGV,
    STOPPING,
    bit,
)
from harness.signals.process import SignalledProcess
from harness.signals.rseq import resume
from harness.signals.siginfo import SigInfo, kernel_info
from harness.syscalls.requests import (
    ERESTART_RESTARTBLOCK,
    ERESTARTNOINTR,
    ERESTARTSYS,
    Part,
    RestartSystemCall,
)

EINTR: Final = 4
RESTART_SYSCALL: Final = 0
"""Number of ``restart_syscall()``."""
RLIMIT_CORE: Final = 4
_INT_80_BYTES: Final = 2


@dataclass(frozen=True, slots=True)
class GoesOn:
    """Back to ring 3, in a handler or where it was."""

    handlers: int = 0
    """How many frames were made."""


@dataclass(frozen=True, slots=True)
class Stopped:
    """The process stands still; once it goes on, its signals are to be handled again, with the
    same outcome of its system call."""

    signal: int


@dataclass(frozen=True, slots=True)
class Died:
    """The whole process ends. ``core``: Linux would tell of a core dump."""

    info: SigInfo
    core: bool

    @property
    def signal(self) -> int:
        return self.info.signo


Next = GoesOn | Stopped | Died


def force_sig_info(process: SignalledProcess, info: SigInfo) -> None:
    """Send what the program cannot escape: ignored or blocked, it kills."""
    signals, signal = process.signals, info.signo
    if signals.blocked & bit(signal) or signals.actions[signal].handler == SIG_IGN:
        signals.actions[signal] = replace(signals.actions[signal], handler=SIG_DFL)
        signals.blocked &= ~bit(signal)
    signals.send_to_thread(info)


def force_sigsegv(process: SignalledProcess, signal: int = 0) -> None:
    """After a frame for ``signal`` could not be written or read."""
    if signal == SIGSEGV:
        process.signals.actions[SIGSEGV] = DEFAULT
    force_sig_info(process, kernel_info(SIGSEGV))


def _restart(process: SignalledProcess, outcome: RestartSystemCall) -> None:
    """No handler ran: the system call is made again."""
    regs = process.registers
    regs.eax = regs.orig_eax
    if outcome.code == ERESTART_RESTARTBLOCK:
        process.restart, regs.eax = outcome.restart, RESTART_SYSCALL
    regs.eip -= _INT_80_BYTES


def _interrupt(process: SignalledProcess, outcome: RestartSystemCall, action: Action) -> None:
    """A handler is about to run: ``EINTR``, or the call is made again after it."""
    again = outcome.code == ERESTARTNOINTR
    if again or (outcome.code == ERESTARTSYS and action.flags & SA_RESTART):
        _restart(process, outcome)
    else:
        process.registers.eax = -EINTR & 0xFFFFFFFF


def _handle(process: SignalledProcess, action: Action, info: SigInfo) -> Part[bool]:
    """Go to the handler (``handle_signal``)."""
    signals, signal = process.signals, info.signo
    if action.flags & SA_RESETHAND:
        signals.actions[signal] = replace(action, handler=SIG_DFL)
    process.rseq.interrupted()
    if process.rseq.pending and not (yield from resume(process)):
        # The frame is made all the same: the handler of SIGSEGV runs above it.
        force_sigsegv(process, signal)
    mask = signals.blocked if signals.saved is None else signals.saved
    if not (yield from setup_frame(process, action, info, mask)):
        force_sigsegv(process, signal)
        return False
    signals.saved = None
    added = action.mask | (0 if action.flags & SA_NODEFER else bit(signal))
    signals.set_blocked(signals.blocked | added)
    return True


def _dies(process: SignalledProcess, info: SigInfo) -> Died:
    """No core is ever written; a program with a limit of 0 would not have left one either."""
    dumps = bool(bit(info.signo) & DUMPING) and process.limits.soft(RLIMIT_CORE) > 0
    return Died(info, dumps)


def do_signal(process: SignalledProcess, outcome: RestartSystemCall | None) -> Part[Next]:
    """Handle all signals that are not blocked, and what they make of the system call.

    Called on the way back to ring 3 of a process that is not stopped, when
    :attr:`~harness.signals.state.SignalState.wants_handling`, or when its system call has an
    ``outcome``.
    """
    signals, handlers = process.signals, 0
    if signals.group.continue_notice:
        signals.group.continue_notice = False
        notify_continued(process)
    while (info := signals.dequeue()) is not None:
        signal, action = info.signo, signals.actions[info.signo]
        if signals.actions.ignores(signal):
            continue
        if action.handler == SIG_DFL:
            if not bit(signal) & STOPPING:
                return _dies(process, info)
            signals.group.stop(signal)
            notify_stopped(process, signal)
            return Stopped(signal)
        if outcome is not None:
            _interrupt(process, outcome, action)
            outcome = None
        handlers += yield from _handle(process, action, info)
    if outcome is not None:
        _restart(process, outcome)
    signals.resume()
    return GoesOn(handlers)
