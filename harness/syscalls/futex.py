# SPDX-License-Identifier: GPL-2.0-or-later
"""``futex``, and the calls by which a C library announces its threads.

Models linux-2.6 ``kernel/futex.c`` as far as a library needs it that locks and waits: wait, wake,
with bit sets, and moving who waits.
"""

import errno
from typing import Final

from harness.syscalls.futex_queues import MATCH_ANY, Key, Waiter
from harness.syscalls.requests import Call, WaitUntil
from harness.syscalls.structures import Timespec, Timespec64
from harness.syscalls.task import Task
from harness.syscalls.timespec import TimeLayout, read_time
from harness.syscalls.user_copy import (
    copy_out,
    copy_words_in,
    signed,
    words,
)
from harness.vfs.failure import fail
from kernel_model.arch_i386.page import TASK_SIZE

FUTEX_WAIT, FUTEX_WAKE, FUTEX_REQUEUE, FUTEX_CMP_REQUEUE = 0, 1, 3, 4
FUTEX_WAIT_BITSET, FUTEX_WAKE_BITSET = 9, 10
FUTEX_PRIVATE_FLAG: Final = 128
FUTEX_CLOCK_REALTIME: Final = 256


def futex_key(task: Task, address: int, *, private: bool = False) -> Key:
    """``get_futex_key()``; ``EFAULT`` for one of all processes where nothing can be read."""
    if address & 3:
        fail(errno.EINVAL)
    if address >= TASK_SIZE:
        fail(errno.EFAULT)
    backing = None if private else task.backing(address)
    owner, offset = backing or (task.address_space, address)
    return Key(owner, offset, private)


def _deadline(task: Task, operation: int, timeout: int, layout: TimeLayout) -> Call:
    """On the monotonic clock. ``FUTEX_WAIT`` says how long, the other until when."""
    time, clock = (yield from read_time(timeout, layout)), task.system.clock
    if operation & 127 == FUTEX_WAIT:
        return clock.monotonic() + time
    if operation & FUTEX_CLOCK_REALTIME:
        return clock.monotonic() + time - clock.realtime()
    return time


def _wait(
    task: Task, key: Key, address: int, expected: int, bits: int, deadline: int | None
) -> Call:
    """Sleep until woken, unless the word is no longer what it was."""
    if not bits:
        return -errno.EINVAL
    (value,) = yield from copy_words_in(address, 1)
    if value != expected:
        return -errno.EAGAIN
    queues, waiter = task.system.futexes, Waiter(key, bits)
    queues.waiters.append(waiter)
    try:
        woken: bool = yield WaitUntil(lambda: waiter.woken, deadline)
    finally:
        if waiter in queues.waiters:
            queues.waiters.remove(waiter)
    return 0 if woken else -errno.ETIMEDOUT


def _requeue(
    task: Task, key: Key, address: int, wake: int, move: int, other: Key, expected: int | None
) -> Call:
    if signed(wake) < 0 or signed(move) < 0:
        return -errno.EINVAL
    if expected is not None:
        (value,) = yield from copy_words_in(address, 1)
        if value != expected:
            return -errno.EAGAIN
    queues = task.system.futexes
    woken = queues.wake(key, wake)
    moved = queues.move(key, other, move)
    return woken if expected is None else woken + moved


def _futex(
    task: Task,
    address: int,
    operation: int,
    value: int,
    timeout: int,
    second: int,
    third: int,
    layout: TimeLayout,
) -> Call:
    command = operation & ~(FUTEX_PRIVATE_FLAG | FUTEX_CLOCK_REALTIME)
    private = bool(operation & FUTEX_PRIVATE_FLAG)
    if command in (FUTEX_WAIT, FUTEX_WAIT_BITSET):
        deadline: int | None = None
        if timeout:
            deadline = yield from _deadline(task, operation, timeout, layout)
        bits = third if command == FUTEX_WAIT_BITSET else MATCH_ANY
        key = futex_key(task, address, private=private)
        return (yield from _wait(task, key, address, value, bits, deadline))
    if command in (FUTEX_WAKE, FUTEX_WAKE_BITSET):
        bits = third if command == FUTEX_WAKE_BITSET else MATCH_ANY
        if not bits:
            return -errno.EINVAL
        key = futex_key(task, address, private=private)
        # Linux counts after it has woken: who asks for none gets one.
        return task.system.futexes.wake(key, max(signed(value), 1), bits)
    if command in (FUTEX_REQUEUE, FUTEX_CMP_REQUEUE):
        expected = third if command == FUTEX_CMP_REQUEUE else None
        key, other = (futex_key(task, at, private=private) for at in (address, second))
        return (yield from _requeue(task, key, address, value, timeout, other, expected))
    return -errno.ENOSYS


def sys_futex(
    task: Task, address: int, operation: int, value: int, timeout: int, second: int, third: int
) -> Call:
    return (yield from _futex(task, address, operation, value, timeout, second, third, Timespec))


def sys_futex_time64(
    task: Task, address: int, operation: int, value: int, timeout: int, second: int, third: int
) -> Call:
    return (yield from _futex(task, address, operation, value, timeout, second, third, Timespec64))


# -- what a library announces --------------------------------------------------------------------

ROBUST_LIST_SIZE: Final = 12
"""``sizeof(struct robust_list_head)``."""


def sys_set_tid_address(task: Task, address: int) -> int:
    task.clear_child_tid = address
    return task.pid


def sys_set_robust_list(task: Task, head: int, length: int) -> int:
    if length != ROBUST_LIST_SIZE:
        return -errno.EINVAL
    task.robust_list = head
    return 0


def sys_get_robust_list(task: Task, pid: int, head: int, length: int) -> Call:
    other = task if pid in (0, task.pid) else task.system.find(pid)
    if other is None:
        return -errno.ESRCH
    yield from copy_out(length, words(ROBUST_LIST_SIZE))
    yield from copy_out(head, words(other.robust_list))
    return 0


def sys_sched_yield(task: Task) -> Call:
    """Let the others run: the condition holds at once, but the task has slept."""
    del task
    yield WaitUntil(lambda: True)
    return 0


def sys_membarrier(task: Task, command: int, flags: int, cpu: int) -> int:
    """With one processor there is nothing to do; the query names no command."""
    del task, cpu
    return 0 if command == 0 and not flags else -errno.EINVAL
