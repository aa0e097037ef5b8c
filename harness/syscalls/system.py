# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine as a program sees it: names, memory, processors, random numbers, ``prctl``.

Models linux-2.4.22 ``kernel/sys.c``, ``kernel/info.c``, ``kernel/sched.c``; ``getrandom`` and
``getcpu`` are of later kernels. There is one processor.
"""

import errno
from typing import Final

from harness.syscalls.requests import Call, CopyToUser, Part, SignalPending, StrncpyFromUser
from harness.syscalls.structures import NewUtsname, OldOldUtsname, OldUtsname, Sysinfo
from harness.syscalls.task import Task
from harness.syscalls.user_copy import (
    CHUNK,
    MAX_COUNT,
    check_range,
    copy_in,
    copy_out,
    copy_struct_out,
    copy_words_in,
    signed,
    words,
)
from harness.vfs.failure import fail
from kernel_model.arch_i386.page import TASK_SIZE

_NAME_LENGTH: Final = 64

# -- names ---------------------------------------------------------------------------------------


def _names(task: Task) -> tuple[bytes, ...]:
    names = task.system.names
    return names.sysname, names.nodename, names.release, names.version, names.machine


def sys_uname(task: Task, address: int) -> Call:
    texts = (*_names(task), task.system.names.domainname)
    return (yield from copy_struct_out(address, NewUtsname(*(text[:64] for text in texts))))


def sys_olduname(task: Task, address: int) -> Call:
    return (yield from copy_struct_out(address, OldUtsname(*(t[:64] for t in _names(task)))))


def sys_oldolduname(task: Task, address: int) -> Call:
    return (yield from copy_struct_out(address, OldOldUtsname(*(t[:8] for t in _names(task)))))


def _new_name(task: Task, address: int, length: int) -> Part[bytes]:
    if not task.fs.credentials.privileged:
        fail(errno.EPERM)
    if length > _NAME_LENGTH:
        fail(errno.EINVAL)
    return (yield from copy_in(address, length)).partition(b"\0")[0]


def sys_sethostname(task: Task, address: int, length: int) -> Call:
    task.system.names.nodename = yield from _new_name(task, address, length)
    return 0


def sys_setdomainname(task: Task, address: int, length: int) -> Call:
    task.system.names.domainname = yield from _new_name(task, address, length)
    return 0


# -- memory and random numbers -------------------------------------------------------------------


def sys_sysinfo(task: Task, address: int) -> Call:
    use = task.system.memory()
    page = 4096
    return (
        yield from copy_struct_out(
            address,
            Sysinfo(
                uptime=task.system.clock.monotonic() // 1_000_000_000,
                totalram=use.total * page,
                freeram=use.free * page,
                sharedram=use.shared * page,
                bufferram=use.buffers * page,
                totalswap=use.total_swap * page,
                freeswap=use.free_swap * page,
                procs=sum(1 for _ in task.system.tasks()),
                totalhigh=use.total_high * page,
                freehigh=use.free_high * page,
                mem_unit=1,
            ),
        )
    )


GRND_NONBLOCK, GRND_RANDOM, GRND_INSECURE = 1, 2, 4


def sys_getrandom(task: Task, address: int, count: int, flags: int) -> Call:
    both = GRND_RANDOM | GRND_INSECURE
    if flags & ~(GRND_NONBLOCK | both) or flags & both == both:
        return -errno.EINVAL
    count = min(count, MAX_COUNT)
    check_range(address, count)
    done = 0
    while done < count:
        data = task.system.random(min(CHUNK, count - done))
        left: int = yield CopyToUser(address + done, data)
        done += len(data) - left
        if left:
            return done or -errno.EFAULT
        if done < count and (yield SignalPending()):
            break
    return done


# -- prctl ---------------------------------------------------------------------------------------

PR_SET_PDEATHSIG, PR_GET_PDEATHSIG, PR_GET_DUMPABLE, PR_SET_DUMPABLE = 1, 2, 3, 4
PR_SET_NAME, PR_GET_NAME = 15, 16
PR_SET_NO_NEW_PRIVS, PR_GET_NO_NEW_PRIVS = 38, 39
_COMM_LENGTH: Final = 15


def sys_prctl(task: Task, option: int, argument: int, third: int, fourth: int, fifth: int) -> Call:
    if option == PR_SET_NAME:
        name: bytes | None = None
        if argument < TASK_SIZE:
            name = yield StrncpyFromUser(argument, _COMM_LENGTH)
        if name is None:
            return -errno.EFAULT
        task.comm = name
        return 0
    if option == PR_GET_NAME:
        yield from copy_out(argument, task.comm[:_COMM_LENGTH].ljust(16, b"\0"))
        return 0
    if option == PR_GET_PDEATHSIG:
        yield from copy_out(argument, words(task.parent_death_signal))
        return 0
    if option in (PR_SET_NO_NEW_PRIVS, PR_GET_NO_NEW_PRIVS):
        return _no_new_privileges(task, option, (argument, third, fourth, fifth))
    return _plain_option(task, option, argument)


def _plain_option(task: Task, option: int, argument: int) -> int:
    if option == PR_SET_PDEATHSIG and argument <= 64:
        task.parent_death_signal = argument
        return 0
    if option == PR_GET_DUMPABLE:
        return task.dumpable
    if option == PR_SET_DUMPABLE and argument in (0, 1):
        task.dumpable = argument
        return 0
    return -errno.EINVAL


def _no_new_privileges(task: Task, option: int, arguments: tuple[int, ...]) -> int:
    if option == PR_GET_NO_NEW_PRIVS:
        return task.no_new_privileges if not any(arguments) else -errno.EINVAL
    if arguments != (1, 0, 0, 0):
        return -errno.EINVAL
    task.no_new_privileges = 1
    return 0


def sys_personality(task: Task, personality: int) -> int:
    """0xFFFFFFFF only asks."""
    before = task.personality
    if personality != 0xFFFFFFFF:
        task.personality = personality
    return before


# -- processors ----------------------------------------------------------------------------------

SCHED_OTHER, SCHED_FIFO, SCHED_RR, SCHED_BATCH, SCHED_IDLE = 0, 1, 2, 3, 5
_REALTIME_POLICIES: Final = (SCHED_FIFO, SCHED_RR)
_POLICIES: Final = (SCHED_OTHER, SCHED_FIFO, SCHED_RR, SCHED_BATCH, SCHED_IDLE)


def _exists(task: Task, pid: int) -> None:
    if signed(pid) < 0:
        fail(errno.EINVAL)
    if pid not in (0, task.pid) and task.system.find(pid) is None:
        fail(errno.ESRCH)


def sys_sched_getaffinity(task: Task, pid: int, size: int, address: int) -> Call:
    """Gives the bytes written: a mask of one ``long``."""
    if size < 4 or size & 3:
        return -errno.EINVAL
    _exists(task, pid)
    yield from copy_out(address, words(1))
    return 4


def sys_sched_setaffinity(task: Task, pid: int, size: int, address: int) -> Call:
    _exists(task, pid)
    mask = yield from copy_in(address, min(size, 4))
    return 0 if mask[:1] and mask[0] & 1 else -errno.EINVAL


def sys_sched_getscheduler(task: Task, pid: int) -> int:
    _exists(task, pid)
    return SCHED_OTHER


def sys_sched_setscheduler(task: Task, pid: int, policy: int, parameters: int) -> Call:
    """Everybody shares the processor alike: real-time policies are refused."""
    if not parameters:
        return -errno.EINVAL
    (priority,) = yield from copy_words_in(parameters, 1)
    _exists(task, pid)
    if policy in _REALTIME_POLICIES and 1 <= priority <= 99:
        return -errno.EPERM
    return 0 if policy in _POLICIES and priority == 0 else -errno.EINVAL


def sys_sched_getparam(task: Task, pid: int, parameters: int) -> Call:
    if not parameters:
        return -errno.EINVAL
    _exists(task, pid)
    yield from copy_out(parameters, words(0))
    return 0


def sys_sched_setparam(task: Task, pid: int, parameters: int) -> Call:
    return (yield from sys_sched_setscheduler(task, pid, SCHED_OTHER, parameters))


def sys_sched_get_priority_max(task: Task, policy: int) -> int:
    del task
    if policy not in _POLICIES:
        return -errno.EINVAL
    return 99 if policy in _REALTIME_POLICIES else 0


def sys_sched_get_priority_min(task: Task, policy: int) -> int:
    del task
    if policy not in _POLICIES:
        return -errno.EINVAL
    return int(policy in _REALTIME_POLICIES)


def sys_getcpu(task: Task, cpu: int, node: int, unused: int) -> Call:
    del task, unused
    for address in (cpu, node):
        if address:
            yield from copy_out(address, words(0))
    return 0
