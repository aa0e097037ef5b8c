# SPDX-License-Identifier: GPL-2.0-or-later
"""Limits, what a process has used, and its priority.

Models linux-2.4.22 ``kernel/sys.c``; ``prlimit64`` is of later kernels. Of the limits, those on
open files, on the size of a file, on the stack and on the number of processes are kept to; the
others are remembered.
"""

import errno
from typing import Final

from harness.syscalls.requests import Call
from harness.syscalls.structures import Rlimit, Rlimit64, Rusage, Timeval
from harness.syscalls.task import (
    RLIM_INFINITY,
    RLIM_NLIMITS,
    RLIMIT_NOFILE,
    Task,
    Usage,
)
from harness.syscalls.user_copy import copy_struct_in, copy_struct_out, signed
from harness.vfs.descriptors import NR_OPEN

_INFINITY_64: Final = (1 << 64) - 1
_INFINITY_OLD: Final = 0x7FFFFFFF
"""``getrlimit()`` of old knew signed numbers only."""


def _set(task: Task, resource: int, soft: int, hard: int) -> int:
    if soft > hard:
        return -errno.EINVAL
    before = task.limits.get(resource)[1]
    if hard > before and not task.fs.credentials.privileged:
        return -errno.EPERM
    if resource == RLIMIT_NOFILE and hard > NR_OPEN:
        return -errno.EPERM
    task.limits.values[resource] = soft, hard
    return 0


def sys_ugetrlimit(task: Task, resource: int, address: int) -> Call:
    if resource >= RLIM_NLIMITS:
        return -errno.EINVAL
    return (yield from copy_struct_out(address, Rlimit(*task.limits.get(resource))))


def sys_getrlimit(task: Task, resource: int, address: int) -> Call:
    if resource >= RLIM_NLIMITS:
        return -errno.EINVAL
    values = (min(value, _INFINITY_OLD) for value in task.limits.get(resource))
    return (yield from copy_struct_out(address, Rlimit(*values)))


def sys_setrlimit(task: Task, resource: int, address: int) -> Call:
    if resource >= RLIM_NLIMITS:
        return -errno.EINVAL
    wanted = yield from copy_struct_in(address, Rlimit)
    return _set(task, resource, wanted.rlim_cur, wanted.rlim_max)


def sys_prlimit64(task: Task, pid: int, resource: int, new: int, old: int) -> Call:
    if resource >= RLIM_NLIMITS:
        return -errno.EINVAL
    wanted = (yield from copy_struct_in(new, Rlimit64)) if new else None
    other = task if pid in (0, task.pid) else task.system.find(pid)
    if other is None:
        return -errno.ESRCH
    values = [
        _INFINITY_64 if value == RLIM_INFINITY else value for value in other.limits.get(resource)
    ]
    if wanted is not None:
        soft, hard = (min(value, RLIM_INFINITY) for value in (wanted.rlim_cur, wanted.rlim_max))
        if result := _set(other, resource, soft, hard):
            return result
    if old:
        yield from copy_struct_out(old, Rlimit64(*values))
    return 0


# -- usage ---------------------------------------------------------------------------------------

RUSAGE_SELF, RUSAGE_CHILDREN, RUSAGE_THREAD = 0, -1, 1


def _timeval(nanoseconds: int) -> Timeval:
    return Timeval(nanoseconds // 1_000_000_000, nanoseconds // 1000 % 1_000_000)


def rusage(usage: Usage) -> Rusage:
    """For ``getrusage()`` and ``wait4()``."""
    return Rusage(
        ru_utime=_timeval(usage.user_time),
        ru_stime=_timeval(usage.system_time),
        ru_maxrss=usage.max_rss_pages * 4,
        ru_minflt=usage.minor_faults,
        ru_majflt=usage.major_faults,
        ru_nvcsw=usage.voluntary_switches,
        ru_nivcsw=usage.involuntary_switches,
    )


def sys_getrusage(task: Task, who: int, address: int) -> Call:
    whose = signed(who)
    if whose not in (RUSAGE_SELF, RUSAGE_CHILDREN, RUSAGE_THREAD):
        return -errno.EINVAL
    usage = task.children_usage() if whose == RUSAGE_CHILDREN else task.usage()
    return (yield from copy_struct_out(address, rusage(usage)))


# -- priority ------------------------------------------------------------------------------------

PRIO_PROCESS, PRIO_PGRP, PRIO_USER = range(3)


def _chosen(task: Task, which: int, who: int) -> list[Task]:
    """Whom ``getpriority`` and ``setpriority`` mean."""
    if which == PRIO_PROCESS:
        other = task if who in (0, task.pid) else task.system.find(who)
        return [] if other is None else [other]
    tasks = list(task.system.tasks())
    if which == PRIO_PGRP:
        return [other for other in tasks if other.group == (who or task.group)]
    uid = who or task.fs.credentials.uid
    return [other for other in tasks if other.fs.credentials.uid == uid]


def sys_getpriority(task: Task, which: int, who: int) -> int:
    """20 - the nice value, so that it is never negative."""
    if which > PRIO_USER:
        return -errno.EINVAL
    chosen = _chosen(task, which, who)
    return 20 - min(other.nice for other in chosen) if chosen else -errno.ESRCH


def _renice(task: Task, other: Task, nice: int) -> int:
    credentials = task.fs.credentials
    if not credentials.privileged:
        if other.fs.credentials.uid not in (credentials.uid, credentials.euid):
            return -errno.EPERM
        if nice < other.nice:
            return -errno.EACCES
    other.nice = nice
    return 0


def sys_setpriority(task: Task, which: int, who: int, nice: int) -> int:
    if which > PRIO_USER:
        return -errno.EINVAL
    chosen = _chosen(task, which, who)
    if not chosen:
        return -errno.ESRCH
    value = max(-20, min(19, signed(nice)))
    return min(_renice(task, other, value) for other in chosen)


def sys_nice(task: Task, increment: int) -> int:
    value = max(-20, min(19, task.nice + max(-40, min(40, signed(increment)))))
    result = _renice(task, task, value)
    return -errno.EPERM if result else 0
