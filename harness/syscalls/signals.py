# SPDX-License-Identifier: GPL-2.0-or-later
"""Handlers, masks, waiting for signals, and the way back from a handler.

Models linux-2.4.22 ``kernel/signal.c`` and ``arch/i386/kernel/signal.c``; :data:`FUNCTIONS` lists
the calls by number, those of :mod:`harness.syscalls.kill` and
:mod:`harness.syscalls.interval_timers` among them. What can fail: what Linux makes fail.
"""

import errno
from collections.abc import Callable
from typing import Any, Final

from harness.signals.actions import Action
from harness.signals.delivery import force_sigsegv
from harness.signals.numbers import (
    ALL,
    NSIG,
    SA_FLAGS,
    SA_NODEFER,
    SA_RESETHAND,
    SIG_BLOCK,
    SIG_SETMASK,
    SIG_UNBLOCK,
    SIGSET_SIZE,
    UNBLOCKABLE,
    bit,
)
from harness.signals.process import SignalledProcess
from harness.signals.sigreturn import BadFrame, restore_frame, restore_rt_frame
from harness.signals.structures import OldSigaction, Sigaction, SignalStack
from harness.syscalls import interval_timers, kill
from harness.syscalls.requests import (
    ERESTARTNOHAND,
    Call,
    Interrupted,
    Part,
    RestartSystemCall,
    WaitUntil,
)
from harness.syscalls.structures import Timespec, Timespec64
from harness.syscalls.timespec import TimeLayout, read_time
from harness.syscalls.user_copy import (
    copy_in,
    copy_out,
    copy_struct_in,
    copy_struct_out,
    words,
)
from harness.vfs.failure import fail

_LOW: Final = 0xFFFFFFFF


# -- actions -------------------------------------------------------------------------------------


def _check_signal(signal: int, *, changes: bool) -> None:
    if not 1 <= signal <= NSIG or (changes and bit(signal) & UNBLOCKABLE):
        fail(errno.EINVAL)


def _set_action(process: SignalledProcess, signal: int, action: Action) -> None:
    """What waits and is ignored from now on is forgotten."""
    signals = process.signals
    signals.actions[signal] = action
    if signals.actions.ignores(signal):
        signals.group.discard(bit(signal))


def _action(handler: int, flags: int, restorer: int, mask: int) -> Action:
    return Action(handler, flags & SA_FLAGS, restorer, mask & ~UNBLOCKABLE)


def sys_rt_sigaction(process: SignalledProcess, signal: int, act: int, old: int, size: int) -> Call:
    if size != SIGSET_SIZE:
        return -errno.EINVAL
    wanted = (yield from copy_struct_in(act, Sigaction)) if act else None
    _check_signal(signal, changes=bool(act))
    before = process.signals.actions[signal]
    if wanted is not None:
        action = _action(wanted.sa_handler, wanted.sa_flags, wanted.sa_restorer, wanted.sa_mask)
        _set_action(process, signal, action)
    if old:
        told = Sigaction(before.handler, before.flags, before.restorer, before.mask)
        yield from copy_struct_out(old, told)
    return 0


def sys_sigaction(process: SignalledProcess, signal: int, act: int, old: int) -> Call:
    wanted = (yield from copy_struct_in(act, OldSigaction)) if act else None
    _check_signal(signal, changes=bool(act))
    before = process.signals.actions[signal]
    if wanted is not None:
        action = _action(wanted.sa_handler, wanted.sa_flags, wanted.sa_restorer, wanted.sa_mask)
        _set_action(process, signal, action)
    if old:
        told = OldSigaction(before.handler, before.mask & _LOW, before.flags, before.restorer)
        yield from copy_struct_out(old, told)
    return 0


def sys_signal(process: SignalledProcess, signal: int, handler: int) -> int:
    """A handler for one time, as the first Unix had it."""
    _check_signal(signal, changes=True)
    before = process.signals.actions[signal].handler
    _set_action(process, signal, Action(handler, SA_RESETHAND | SA_NODEFER))
    return before


# -- masks ---------------------------------------------------------------------------------------


def _change_mask(process: SignalledProcess, how: int, chosen: int, *, width: int = ALL) -> None:
    """``width``: the signals that the caller knows of."""
    blocked = process.signals.blocked
    masks = {
        SIG_BLOCK: blocked | chosen,
        SIG_UNBLOCK: blocked & ~chosen,
        SIG_SETMASK: blocked & ~width | chosen,
    }
    if how not in masks:
        fail(errno.EINVAL)
    process.signals.set_blocked(masks[how])


def _read_set(address: int, size: int = SIGSET_SIZE) -> Part[int]:
    return int.from_bytes((yield from copy_in(address, size)), "little")


def sys_rt_sigprocmask(process: SignalledProcess, how: int, new: int, old: int, size: int) -> Call:
    if size != SIGSET_SIZE:
        return -errno.EINVAL
    before = process.signals.blocked
    if new:
        _change_mask(process, how, (yield from _read_set(new)))
    if old:
        yield from copy_out(old, words(before, size=8))
    return 0


def sys_sigprocmask(process: SignalledProcess, how: int, new: int, old: int) -> Call:
    before = process.signals.blocked
    if new:
        _change_mask(process, how, (yield from _read_set(new, 4)), width=_LOW)
    if old:
        yield from copy_out(old, words(before))
    return 0


def sys_sgetmask(process: SignalledProcess) -> int:
    return process.signals.blocked & _LOW


def sys_ssetmask(process: SignalledProcess, mask: int) -> int:
    before = process.signals.blocked & _LOW
    process.signals.set_blocked(mask)
    return before


def _waiting(process: SignalledProcess) -> bytes:
    """The signals that wait because they are blocked."""
    return words(process.signals.pending & process.signals.blocked, size=8)


def sys_rt_sigpending(process: SignalledProcess, signals: int, size: int) -> Call:
    if size > SIGSET_SIZE:
        return -errno.EINVAL
    yield from copy_out(signals, _waiting(process)[:size])
    return 0


def sys_sigpending(process: SignalledProcess, signals: int) -> Call:
    yield from copy_out(signals, _waiting(process)[:4])
    return 0


# -- waiting -------------------------------------------------------------------------------------


def _never() -> bool:
    return False


def sys_pause(process: SignalledProcess) -> Call:
    del process
    try:
        yield WaitUntil(_never)
    except Interrupted as signal:
        raise RestartSystemCall(ERESTARTNOHAND) from signal
    return 0


def _suspend(process: SignalledProcess, mask: int) -> Call:
    """``do_signal()`` brings the old mask back."""
    process.signals.suspend(mask)
    return (yield from sys_pause(process))


def sys_rt_sigsuspend(process: SignalledProcess, mask: int, size: int) -> Call:
    if size != SIGSET_SIZE:
        return -errno.EINVAL
    return (yield from _suspend(process, (yield from _read_set(mask))))


def sys_sigsuspend(process: SignalledProcess, unused: int, unused_too: int, mask: int) -> Call:
    del unused, unused_too
    return (yield from _suspend(process, mask))


def _deadline(process: SignalledProcess, timeout: int, layout: TimeLayout) -> Part[int | None]:
    if not timeout:
        return None
    time = yield from read_time(timeout, layout)
    return process.system.clock.monotonic() + time


def _sigtimedwait(
    process: SignalledProcess, address: int, info: int, timeout: int, size: int, layout: TimeLayout
) -> Call:
    if size != SIGSET_SIZE:
        return -errno.EINVAL
    wanted = (yield from _read_set(address)) & ~UNBLOCKABLE
    deadline = yield from _deadline(process, timeout, layout)
    signals = process.signals
    signals.awaited = wanted
    try:
        yield WaitUntil(lambda: bool(signals.pending & wanted), deadline)
    except Interrupted:
        return -errno.EINTR
    finally:
        signals.awaited = 0
    taken = signals.dequeue(wanted)
    if taken is None:
        return -errno.EAGAIN
    if info:
        yield from copy_out(info, bytes(taken))
    return taken.signo


def sys_rt_sigtimedwait(
    process: SignalledProcess, wanted: int, info: int, timeout: int, size: int
) -> Call:
    return (yield from _sigtimedwait(process, wanted, info, timeout, size, Timespec))


def sys_rt_sigtimedwait_time64(
    process: SignalledProcess, wanted: int, info: int, timeout: int, size: int
) -> Call:
    return (yield from _sigtimedwait(process, wanted, info, timeout, size, Timespec64))


# -- handlers: their stack, and back from them ---------------------------------------------------


def sys_sigaltstack(process: SignalledProcess, new: int, old: int) -> Call:
    before, esp = process.signals.stack, int(process.registers.esp)
    told = SignalStack(before.start, before.flags(esp), before.size)
    if new:
        wanted = yield from copy_struct_in(new, SignalStack)
        process.signals.stack = before.replaced(esp, wanted.ss_sp, wanted.ss_flags, wanted.ss_size)
    if old:
        yield from copy_struct_out(old, told)
    return 0


def _back(process: SignalledProcess, restore: Callable[[SignalledProcess], Part[int]]) -> Call:
    try:
        return (yield from restore(process))
    except BadFrame:
        force_sigsegv(process)
        return 0


def sys_sigreturn(process: SignalledProcess) -> Call:
    return (yield from _back(process, restore_frame))


def sys_rt_sigreturn(process: SignalledProcess) -> Call:
    return (yield from _back(process, restore_rt_frame))


FUNCTIONS: Final[dict[int, Callable[..., Any]]] = {
    48: sys_signal,
    67: sys_sigaction,
    174: sys_rt_sigaction,
    68: sys_sgetmask,
    69: sys_ssetmask,
    126: sys_sigprocmask,
    175: sys_rt_sigprocmask,
    73: sys_sigpending,
    176: sys_rt_sigpending,
    29: sys_pause,
    72: sys_sigsuspend,
    179: sys_rt_sigsuspend,
    177: sys_rt_sigtimedwait,
    421: sys_rt_sigtimedwait_time64,
    186: sys_sigaltstack,
    119: sys_sigreturn,
    173: sys_rt_sigreturn,
    # kill
    37: kill.sys_kill,
    238: kill.sys_tkill,
    270: kill.sys_tgkill,
    178: kill.sys_rt_sigqueueinfo,
    335: kill.sys_rt_tgsigqueueinfo,
    # interval_timers
    27: interval_timers.sys_alarm,
    104: interval_timers.sys_setitimer,
    105: interval_timers.sys_getitimer,
}
"""The calls on signals by number, for :data:`harness.syscalls.table.TABLE`."""
