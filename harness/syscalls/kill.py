# SPDX-License-Identifier: GPL-2.0-or-later
"""Sending signals.

Models linux-2.4.22 ``kernel/signal.c: sys_kill, sys_tkill, sys_rt_sigqueueinfo``; ``tgkill()`` and
``rt_tgsigqueueinfo()`` are of later kernels. What can fail: ``ESRCH``, ``EPERM``, ``EINVAL``, and
``EAGAIN`` where a queue is full.
"""

import errno
from collections.abc import Iterable

from harness.signals.numbers import NSIG, SI_TKILL, SIGCONT
from harness.signals.process import SignalledProcess, find, processes
from harness.signals.siginfo import SIGINFO_SIZE, SigInfo, thread_info, user_info
from harness.syscalls.requests import Call
from harness.syscalls.user_copy import copy_in, signed


def _may_send(sender: SignalledProcess, target: SignalledProcess, signal: int) -> bool:
    """``EPERM`` else (``bad_signal``)."""
    mine, others = sender.fs.credentials, target.fs.credentials
    if mine.privileged or sender.tgid == target.tgid:
        return True
    if {mine.euid, mine.uid} & {others.suid, others.uid}:
        return True
    return signal == SIGCONT and sender.session == target.session


def _send(
    sender: SignalledProcess, target: SignalledProcess, info: SigInfo, *, thread: bool = False
) -> int:
    """Signal 0 only asks whether one may."""
    if not _may_send(sender, target, info.signo):
        return -errno.EPERM
    if not info.signo:
        return 0
    signals = target.signals
    sent = signals.send_to_thread(info) if thread else signals.send(info)
    return 0 if sent else -errno.EAGAIN


def _send_to_all(
    sender: SignalledProcess, targets: Iterable[SignalledProcess], info: SigInfo
) -> int:
    """Well done if it was for one of them."""
    results = [_send(sender, target, info) for target in targets]
    if not results:
        return -errno.ESRCH
    return 0 if 0 in results else results[-1]


def _info_of(sender: SignalledProcess, signal: int, *, thread: bool = False) -> SigInfo:
    make = thread_info if thread else user_info
    return make(signal, sender.tgid, sender.fs.credentials.uid)


def sys_kill(process: SignalledProcess, pid: int, signal: int) -> int:
    if signal > NSIG:
        return -errno.EINVAL
    target, info = signed(pid), _info_of(process, signal)
    if target > 0:
        other = find(process.system, target)
        return -errno.ESRCH if other is None else _send(process, other, info)
    everybody = processes(process.system)
    if target == -1:
        others = [other for other in everybody if other.pid > 1 and other.tgid != process.tgid]
        return _send_to_all(process, others, info)
    group = -target or process.group
    return _send_to_all(process, [other for other in everybody if other.group == group], info)


def _send_to_thread(process: SignalledProcess, group: int | None, pid: int, info: SigInfo) -> int:
    other = find(process.system, pid)
    if other is None or group not in (None, other.tgid):
        return -errno.ESRCH
    return _send(process, other, info, thread=True)


def sys_tkill(process: SignalledProcess, pid: int, signal: int) -> int:
    if signed(pid) <= 0 or signal > NSIG:
        return -errno.EINVAL
    return _send_to_thread(process, None, pid, _info_of(process, signal, thread=True))


def sys_tgkill(process: SignalledProcess, group: int, pid: int, signal: int) -> int:
    if signed(pid) <= 0 or signed(group) <= 0 or signal > NSIG:
        return -errno.EINVAL
    return _send_to_thread(process, group, pid, _info_of(process, signal, thread=True))


def _is_forged(process: SignalledProcess, pid: int, info: SigInfo) -> bool:
    """Whether it would look to somebody else as if the kernel or ``kill()`` had sent it."""
    return (info.code >= 0 or info.code == SI_TKILL) and pid != process.pid


def sys_rt_sigqueueinfo(process: SignalledProcess, pid: int, signal: int, info: int) -> Call:
    told = SigInfo.from_bytes((yield from copy_in(info, SIGINFO_SIZE)))
    if _is_forged(process, pid, told):
        return -errno.EPERM
    if signal > NSIG:
        return -errno.EINVAL
    other = find(process.system, pid)
    if other is None:
        return -errno.ESRCH
    return _send(process, other, told.with_signal(signal))


def sys_rt_tgsigqueueinfo(
    process: SignalledProcess, group: int, pid: int, signal: int, info: int
) -> Call:
    told = SigInfo.from_bytes((yield from copy_in(info, SIGINFO_SIZE)))
    if signed(pid) <= 0 or signed(group) <= 0 or signal > NSIG:
        return -errno.EINVAL
    if _is_forged(process, pid, told):
        return -errno.EPERM
    return _send_to_thread(process, group, pid, told.with_signal(signal))
