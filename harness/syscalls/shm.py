# SPDX-License-Identifier: GPL-2.0-or-later
"""System V's shared memory, by the one call that i386 has for all of System V's IPC.

Models linux-2.6.11 ``arch/i386/kernel/sys_i386.c: sys_ipc()`` and what of ``ipc/shm.c`` moves
structures to and from programs. Semaphores and message queues are not modelled.

What can fail: what the model answers, as a negative error; ``ENOSYS`` for the others' calls.
"""

import errno
import struct
from collections.abc import Callable
from typing import Any, Final

from harness.syscalls.caller import Caller
from harness.syscalls.requests import Call
from harness.syscalls.user_copy import copy_in, copy_out, signed, words
from kernel_model.ipc.shm import IpcCaller, Shm, ShmidDs

SHMAT, SHMDT, SHMGET, SHMCTL = 21, 22, 23, 24
IPC_RMID, IPC_SET, IPC_STAT = 0, 1, 2
IPC_64: Final = 0x100
"""In the command: the structure is the wide one."""
_SHMID64_DS: Final = struct.Struct("<5I 2H 2H 2I I 6I 2i I 2I")
_SHMID_DS: Final = struct.Struct("<I 6H i 3I 4H 2I")


def sys_ipc(
    task: Caller, call: int, first: int, second: int, third: int, address: int, fifth: int
) -> int | Call:
    """``call`` says which; its upper half is a version, of which only 1 differs."""
    del fifth
    version, number = call >> 16, call & 0xFFFF
    if number == SHMAT:
        return -errno.EINVAL if version == 1 else _shmat(task, first, second, third, address)
    if number == SHMDT:
        return _shm(task).sys_shmdt(address)
    if number == SHMGET:
        return _shm(task).sys_shmget(signed(first), second, third, _caller(task))
    if number == SHMCTL:
        return _shmctl(task, signed(first), second, address)
    return -errno.ENOSYS


def _shm(task: Caller) -> Shm:
    shm = task.system.kernel.shm
    shm.get_seconds = lambda: task.system.clock.realtime() // 1_000_000_000
    return shm


def _caller(task: Caller) -> IpcCaller:
    who = task.fs.credentials
    return IpcCaller(who.euid, who.egid, tuple(who.groups), who.privileged)


def _shmat(task: Caller, shmid: int, flags: int, result: int, address: int) -> Call:
    where = _shm(task).do_shmat(signed(shmid), address, flags, _caller(task))
    if where < 0:
        return where
    yield from copy_out(result, words(where))
    return 0


def _shmctl(task: Caller, shmid: int, command: int, address: int) -> int | Call:
    wide, command = bool(command & IPC_64), command & ~IPC_64
    if shmid < 0:
        return -errno.EINVAL
    if command == IPC_RMID:
        return _shm(task).shmctl_rmid(shmid, _caller(task))
    if command == IPC_STAT:
        return _stat(task, shmid, address, wide=wide)
    if command == IPC_SET:
        return _set(task, shmid, address, wide=wide)
    return -errno.EINVAL


def _stat(task: Caller, shmid: int, address: int, *, wide: bool) -> Call:
    found = _shm(task).shmctl_stat(shmid, _caller(task))
    if isinstance(found, int):
        return found
    yield from copy_out(address, _shmid64_ds(found) if wide else _shmid_ds(found))
    return 0


def _shmid64_ds(of: ShmidDs) -> bytes:
    who = (of.key & 0xFFFFFFFF, of.uid, of.gid, of.cuid, of.cgid, of.mode, 0, of.seq, 0, 0, 0)
    times = (of.atime, 0, of.dtime, 0, of.ctime, 0)
    return _SHMID64_DS.pack(*who, of.segsz, *times, of.cpid, of.lpid, of.nattch, 0, 0)


def _shmid_ds(of: ShmidDs) -> bytes:
    """The old one has 16 bits for most."""
    who = (of.uid, of.gid, of.cuid, of.cgid, of.mode, of.seq)
    times, last = (of.atime, of.dtime, of.ctime), (of.cpid, of.lpid, of.nattch)
    narrow = [value & 0xFFFF for value in who]
    return _SHMID_DS.pack(
        of.key & 0xFFFFFFFF, *narrow, of.segsz, *times, *(v & 0xFFFF for v in last), 0, 0, 0
    )


def _set(task: Caller, shmid: int, address: int, *, wide: bool) -> Call:
    layout = _SHMID64_DS if wide else _SHMID_DS
    fields = layout.unpack((yield from copy_in(address, layout.size)))
    return _shm(task).shmctl_set(shmid, fields[1], fields[2], fields[5], _caller(task))


SHM_CALLS: Final[dict[int, Callable[..., Any]]] = {117: sys_ipc}
