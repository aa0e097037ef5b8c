# SPDX-License-Identifier: GPL-2.0-or-later
"""Who a process is: its IDs, its user and groups, its process group and session.

Models linux-2.4.22 ``kernel/sys.c`` and ``kernel/timer.c: sys_getpid``, and ``kernel/uid16.c`` for
the calls with 16-bit IDs.
"""

import errno
from collections.abc import Callable
from typing import Final

from harness.syscalls.requests import Call
from harness.syscalls.task import Task
from harness.syscalls.user_copy import copy_out, copy_words_in, signed, words
from harness.vfs.credentials import Credentials

NGROUPS_MAX: Final = 65536
_KEEP: Final = 0xFFFFFFFF
"""-1: leave this one as it is."""


def _to_short(number: int) -> int:
    """``high2lowuid``: what has no place in 16 bits is the overflow ID."""
    return number if number <= 0xFFFF else 0xFFFE


def _from_short(number: int) -> int:
    """``low2highuid``."""
    number &= 0xFFFF
    return _KEEP if number == 0xFFFF else number


# -- processes -----------------------------------------------------------------------------------


def sys_getpid(task: Task) -> int:
    return task.tgid


def sys_gettid(task: Task) -> int:
    return task.pid


def sys_getppid(task: Task) -> int:
    return task.parent


def sys_getpgrp(task: Task) -> int:
    return task.group


def _find(task: Task, pid: int) -> Task | None:
    return task if pid in (0, task.pid) else task.system.find(pid)


def sys_getpgid(task: Task, pid: int) -> int:
    other = _find(task, pid)
    return -errno.ESRCH if other is None else other.group


def sys_getsid(task: Task, pid: int) -> int:
    other = _find(task, pid)
    return -errno.ESRCH if other is None else other.session


def sys_setsid(task: Task) -> int:
    if any(other.group == task.tgid for other in task.system.tasks()):
        return -errno.EPERM
    task.session = task.group = task.tgid
    return task.tgid


def sys_setpgid(task: Task, pid: int, group: int) -> int:
    pid, group = pid or task.tgid, signed(group or pid or task.tgid)
    if group < 0:
        return -errno.EINVAL
    other = _find(task, pid)
    if other is None or (other is not task and other.parent != task.tgid):
        return -errno.ESRCH
    if other is not task:
        if other.session != task.session:
            return -errno.EPERM
        if other.has_executed:
            return -errno.EACCES
    if other.session == other.tgid:
        return -errno.EPERM
    if group != other.tgid:
        members = (t for t in task.system.tasks() if t.group == group)
        if not any(member.session == task.session for member in members):
            return -errno.EPERM
    other.group = group
    return 0


# -- user and group ------------------------------------------------------------------------------


def sys_getuid32(task: Task) -> int:
    return task.fs.credentials.uid


def sys_geteuid32(task: Task) -> int:
    return task.fs.credentials.euid


def sys_getgid32(task: Task) -> int:
    return task.fs.credentials.gid


def sys_getegid32(task: Task) -> int:
    return task.fs.credentials.egid


def sys_getuid(task: Task) -> int:
    return _to_short(sys_getuid32(task))


def sys_geteuid(task: Task) -> int:
    return _to_short(sys_geteuid32(task))


def sys_getgid(task: Task) -> int:
    return _to_short(sys_getgid32(task))


def sys_getegid(task: Task) -> int:
    return _to_short(sys_getegid32(task))


class _Ids:
    """The four IDs of one kind, user or group, as one reads and sets them."""

    def __init__(self, letter: str) -> None:
        self._letter = letter

    def get(self, credentials: Credentials) -> tuple[int, int, int]:
        """Real, effective, saved."""
        return (
            getattr(credentials, f"{self._letter}id"),
            getattr(credentials, f"e{self._letter}id"),
            getattr(credentials, f"s{self._letter}id"),
        )

    def set(self, credentials: Credentials, real: int, effective: int, saved: int) -> int:
        """The file-system ID follows the effective one."""
        setattr(credentials, f"{self._letter}id", real)
        setattr(credentials, f"e{self._letter}id", effective)
        setattr(credentials, f"s{self._letter}id", saved)
        setattr(credentials, f"fs{self._letter}id", effective)
        return 0

    def file_id(self, credentials: Credentials) -> int:
        return int(getattr(credentials, f"fs{self._letter}id"))

    def set_file_id(self, credentials: Credentials, number: int) -> None:
        setattr(credentials, f"fs{self._letter}id", number)


_USER, _GROUP = _Ids("u"), _Ids("g")


def _setid(task: Task, ids: _Ids, number: int) -> int:
    credentials = task.fs.credentials
    if number == _KEEP:
        return -errno.EINVAL
    if credentials.privileged:
        return ids.set(credentials, number, number, number)
    real, _, saved = ids.get(credentials)
    if number not in (real, saved):
        return -errno.EPERM
    return ids.set(credentials, real, number, saved)


def _setreid(task: Task, ids: _Ids, real: int, effective: int) -> int:
    credentials = task.fs.credentials
    old = ids.get(credentials)
    allowed = real in (_KEEP, old[0], old[1]) and effective in (_KEEP, *old)
    if not credentials.privileged and not allowed:
        return -errno.EPERM
    new_real = old[0] if real == _KEEP else real
    new_effective = old[1] if effective == _KEEP else effective
    follows = real != _KEEP or (effective != _KEEP and effective != old[0])
    return ids.set(credentials, new_real, new_effective, new_effective if follows else old[2])


def _setresid(task: Task, ids: _Ids, wanted: tuple[int, int, int]) -> int:
    credentials = task.fs.credentials
    old = ids.get(credentials)
    if not credentials.privileged and any(number not in (_KEEP, *old) for number in wanted):
        return -errno.EPERM
    new = [was if number == _KEEP else number for was, number in zip(old, wanted, strict=True)]
    return ids.set(credentials, *new)


def _getresid(task: Task, ids: _Ids, addresses: tuple[int, int, int], size: int) -> Call:
    for address, number in zip(addresses, ids.get(task.fs.credentials), strict=True):
        value = number if size == 4 else _to_short(number)
        yield from copy_out(address, words(value, size=size))
    return 0


def _setfsid(task: Task, ids: _Ids, number: int) -> int:
    """Gives the ID of before, whether or not it was changed."""
    credentials = task.fs.credentials
    before = ids.file_id(credentials)
    if number != _KEEP and (credentials.privileged or number in (before, *ids.get(credentials))):
        ids.set_file_id(credentials, number)
    return before


def sys_setuid32(task: Task, uid: int) -> int:
    return _setid(task, _USER, uid)


def sys_setgid32(task: Task, gid: int) -> int:
    return _setid(task, _GROUP, gid)


def sys_setuid(task: Task, uid: int) -> int:
    return _setid(task, _USER, _from_short(uid))


def sys_setgid(task: Task, gid: int) -> int:
    return _setid(task, _GROUP, _from_short(gid))


def sys_setreuid32(task: Task, real: int, effective: int) -> int:
    return _setreid(task, _USER, real, effective)


def sys_setregid32(task: Task, real: int, effective: int) -> int:
    return _setreid(task, _GROUP, real, effective)


def sys_setreuid(task: Task, real: int, effective: int) -> int:
    return _setreid(task, _USER, _from_short(real), _from_short(effective))


def sys_setregid(task: Task, real: int, effective: int) -> int:
    return _setreid(task, _GROUP, _from_short(real), _from_short(effective))


def sys_setresuid32(task: Task, real: int, effective: int, saved: int) -> int:
    return _setresid(task, _USER, (real, effective, saved))


def sys_setresgid32(task: Task, real: int, effective: int, saved: int) -> int:
    return _setresid(task, _GROUP, (real, effective, saved))


def sys_setresuid(task: Task, real: int, effective: int, saved: int) -> int:
    wanted = _from_short(real), _from_short(effective), _from_short(saved)
    return _setresid(task, _USER, wanted)


def sys_setresgid(task: Task, real: int, effective: int, saved: int) -> int:
    wanted = _from_short(real), _from_short(effective), _from_short(saved)
    return _setresid(task, _GROUP, wanted)


def sys_getresuid32(task: Task, real: int, effective: int, saved: int) -> Call:
    return (yield from _getresid(task, _USER, (real, effective, saved), 4))


def sys_getresgid32(task: Task, real: int, effective: int, saved: int) -> Call:
    return (yield from _getresid(task, _GROUP, (real, effective, saved), 4))


def sys_getresuid(task: Task, real: int, effective: int, saved: int) -> Call:
    return (yield from _getresid(task, _USER, (real, effective, saved), 2))


def sys_getresgid(task: Task, real: int, effective: int, saved: int) -> Call:
    return (yield from _getresid(task, _GROUP, (real, effective, saved), 2))


def sys_setfsuid32(task: Task, uid: int) -> int:
    return _setfsid(task, _USER, uid)


def sys_setfsgid32(task: Task, gid: int) -> int:
    return _setfsid(task, _GROUP, gid)


def sys_setfsuid(task: Task, uid: int) -> int:
    return _to_short(_setfsid(task, _USER, _from_short(uid)))


def sys_setfsgid(task: Task, gid: int) -> int:
    return _to_short(_setfsid(task, _GROUP, _from_short(gid)))


# -- further groups ------------------------------------------------------------------------------


def _getgroups(task: Task, size: int, address: int, width: int) -> Call:
    groups, size = task.fs.credentials.groups, signed(size)
    if size < 0 or 0 < size < len(groups):
        return -errno.EINVAL
    if size:
        narrow: Callable[[int], int] = _to_short if width == 2 else int
        yield from copy_out(address, words(*map(narrow, groups), size=width))
    return len(groups)


def _setgroups(task: Task, size: int, address: int, width: int) -> Call:
    if not task.fs.credentials.privileged:
        return -errno.EPERM
    if size > NGROUPS_MAX:
        return -errno.EINVAL
    task.fs.credentials.groups = yield from copy_words_in(address, size, width)
    return 0


def sys_getgroups32(task: Task, size: int, groups: int) -> Call:
    return (yield from _getgroups(task, size, groups, 4))


def sys_setgroups32(task: Task, size: int, groups: int) -> Call:
    return (yield from _setgroups(task, size, groups, 4))


def sys_getgroups(task: Task, size: int, groups: int) -> Call:
    return (yield from _getgroups(task, size, groups, 2))


def sys_setgroups(task: Task, size: int, groups: int) -> Call:
    return (yield from _setgroups(task, size, groups, 2))
