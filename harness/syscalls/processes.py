# SPDX-License-Identifier: GPL-2.0-or-later
"""System calls that make, change and end processes.

Models linux-2.4.22 ``kernel/fork.c: do_fork()``, ``kernel/exit.c: sys_wait4()``, ``fs/exec.c:
sys_execve()`` and ``set_thread_area()``. What they do to memory is the model's; see
:class:`~harness.syscalls.caller.Machine`.

What can fail: ``EAGAIN`` at the limit of processes, ``ENOMEM``, ``ECHILD``, and for ``execve()``
what the file and its path fail with.
"""

import errno
import struct
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from harness.syscalls.caller import Caller
from harness.syscalls.requests import Call, Part, WaitUntil
from harness.syscalls.tls import USER_DESC_BYTES, UserDesc
from harness.syscalls.user_copy import copy_in, copy_out, copy_path, copy_words_in, signed
from kernel_model.structs.sched import (
    CLONE_CHILD_CLEARTID,
    CLONE_CHILD_SETTID,
    CLONE_PARENT_SETTID,
    CLONE_SETTLS,
    CLONE_VFORK,
    CLONE_VM,
)

CSIGNAL: Final = 0xFF
SIGCHLD: Final = 17

WNOHANG: Final = 1
WUNTRACED: Final = 2
WCONTINUED: Final = 8
_WAIT_OPTIONS: Final = WNOHANG | WUNTRACED | WCONTINUED | 0x20000000 | 0x40000000 | 0x80000000
_MAX_STRINGS: Final = 32768
_MAX_STRING: Final = 32 * 4096


# -- making ------------------------------------------------------------------------------------


def sys_fork(task: Caller) -> Call:
    return sys_clone(task, SIGCHLD, 0, 0, 0, 0)


def sys_vfork(task: Caller) -> Call:
    return sys_clone(task, SIGCHLD | CLONE_VFORK | CLONE_VM, 0, 0, 0, 0)


def sys_clone(
    task: Caller, flags: int, stack: int, parent_tid: int, tls: int, child_tid: int
) -> Call:
    """A child that goes on here with 0 in EAX."""
    area = None
    if flags & CLONE_SETTLS:
        area = UserDesc.parse((yield from copy_in(tls, USER_DESC_BYTES)))
    child = task.system.fork(task, flags, stack)
    if area is not None:
        try:
            child.thread_areas.set(area)
        except OSError:
            task.system.abandon(child)
            raise
    if flags & CLONE_PARENT_SETTID:
        # As Linux has it since 2.6.24: nobody is told when the place is bad. 2.6.11 made no child.
        with suppress(OSError):
            yield from copy_out(parent_tid, struct.pack("<I", child.pid))
    if flags & CLONE_CHILD_CLEARTID:
        child.clear_child_tid = child_tid
    if flags & CLONE_CHILD_SETTID:
        child.set_child_tid = child_tid
    if flags & CLONE_VFORK:
        child.vfork_done = False
        yield WaitUntil(lambda: child.vfork_done)
    return child.pid


# -- another program -----------------------------------------------------------------------------


def sys_execve(task: Caller, path: int, argv: int, envp: int) -> Call:
    """On success ring 3 begins anew; this returns to it with 0 in EAX."""
    name = yield from copy_path(path)
    arguments = yield from _strings(argv)
    environment = yield from _strings(envp)
    task.system.execve(task, name, arguments, environment)
    return 0


def _strings(vector: int) -> Part[list[bytes]]:
    """The texts that a NULL-terminated array points to; NULL is an empty array."""
    texts: list[bytes] = []
    total = 0
    while vector:
        (address,) = yield from copy_words_in(vector + 4 * len(texts), 1)
        if not address:
            break
        text = yield from _text(address)
        total += len(text) + 1
        if len(texts) >= _MAX_STRINGS or total > _MAX_STRING:
            raise OSError(errno.E2BIG, "arguments")
        texts.append(text)
    return texts


def _text(address: int) -> Part[bytes]:
    """A C string of any length that arguments may have."""
    text = b""
    while len(text) < _MAX_STRING:
        room = 4096 - (address + len(text)) % 4096
        part = yield from copy_in(address + len(text), room)
        head, found, _ = part.partition(b"\0")
        text += head
        if found:
            return text
    raise OSError(errno.E2BIG, "arguments")


# -- ending and waiting -----------------------------------------------------------------------


def sys_exit(task: Caller, status: int) -> None:
    task.system.exit(task, status & 0xFF)


def sys_exit_group(task: Caller, status: int) -> None:
    task.system.exit_group(task, status & 0xFF)


def sys_wait4(task: Caller, pid: int, status: int, options: int, rusage: int) -> Call:
    """A child that has ended, stopped or gone on."""
    if options & ~_WAIT_OPTIONS:
        return -errno.EINVAL
    wanted, system = signed(pid), task.system
    while True:
        children = system.children_to_wait_for(task, wanted)
        if not children:
            return -errno.ECHILD
        found = system.waitable(children, options)
        if found is not None:
            break
        if options & WNOHANG:
            return 0
        yield WaitUntil(lambda: _waitable(task, wanted, options))
    child, word = found
    number, usage = child.pid, child.usage()
    if status:
        yield from copy_out(status, struct.pack("<I", word))
    if rusage:
        counts = (usage.max_rss_pages * 4, 0, 0, 0, usage.minor_faults, usage.major_faults)
        yield from copy_out(rusage, struct.pack("<18I", *(0,) * 4, *counts, *(0,) * 8))
    system.waited_for(task, child)
    return number


def _waitable(task: Caller, wanted: int, options: int) -> bool:
    children = task.system.children_to_wait_for(task, wanted)
    return not children or task.system.waitable(children, options) is not None


def sys_waitpid(task: Caller, pid: int, status: int, options: int) -> Call:
    return sys_wait4(task, pid, status, options, 0)


# -- thread data -----------------------------------------------------------------------------


def sys_set_thread_area(task: Caller, description: int) -> Call:
    wanted = UserDesc.parse((yield from copy_in(description, USER_DESC_BYTES)))
    number = task.thread_areas.set(wanted)
    task.system.load_thread_areas(task)
    if wanted.entry_number == 0xFFFFFFFF:
        yield from copy_out(description, struct.pack("<I", number))
    return 0


def sys_get_thread_area(task: Caller, description: int) -> Call:
    (number,) = yield from copy_words_in(description, 1)
    yield from copy_out(description, task.thread_areas.get(number).pack())
    return 0


PROCESS_CALLS: Final[dict[int, Callable[..., Any]]] = {
    1: sys_exit,
    2: sys_fork,
    7: sys_waitpid,
    11: sys_execve,
    114: sys_wait4,
    120: sys_clone,
    190: sys_vfork,
    243: sys_set_thread_area,
    244: sys_get_thread_area,
    252: sys_exit_group,
}
