# SPDX-License-Identifier: GPL-2.0-or-later
"""Linux's system calls on the i386: ``int $0x80``, number in EAX, result in EAX.

Models linux-2.4.22 ``arch/i386/kernel/entry.S: sys_call_table`` for the calls listed in
:data:`TABLE`; any other returns ``-ENOSYS``. A system call never raises for what a program
passes: a bad pointer is ``-EFAULT``, a bad descriptor ``-EBADF``.
"""

import errno
from collections import Counter
from collections.abc import Callable
from typing import Any, Final, Protocol

SYSCALL_VECTOR: Final = 0x80
WRITE_CHUNK: Final = 1 << 16
"""Bytes that one ``write`` moves at most; a program that wants more calls again."""


class Caller(Protocol):
    """The process that calls."""

    def read(self, vaddr: int, length: int) -> bytes:
        """Its memory; fewer bytes where it may not read all of them."""

    def output(self, descriptor: int, data: bytes) -> None: ...

    def exit(self, status: int) -> None: ...


def sys_exit(caller: Caller, status: int, *_: int) -> int:
    caller.exit(status & 0xFF)
    return 0


def sys_write(caller: Caller, descriptor: int, buffer: int, count: int, *_: int) -> int:
    """To standard output and standard error only."""
    if descriptor not in (1, 2):
        return -errno.EBADF
    if count > 0x7FFFFFFF:
        return -errno.EINVAL
    data = caller.read(buffer, min(count, WRITE_CHUNK))
    if count and not data:
        return -errno.EFAULT
    caller.output(descriptor, data)
    return len(data)


TABLE: Final[dict[int, Callable[..., int]]] = {
    1: sys_exit,
    4: sys_write,
    252: sys_exit,
}


class SystemCalls:
    """Dispatches calls and counts them: ``counts`` by number, ``unknown`` those not modelled."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller
        self.counts: Counter[int] = Counter()
        self.unknown: Counter[int] = Counter()

    def call(self, regs: Any) -> None:
        """Serve the call in ``regs`` (``struct pt_regs``) and put its result into EAX."""
        number = int(regs.orig_eax)
        self.counts[number] += 1
        handler = TABLE.get(number)
        if handler is None:
            self.unknown[number] += 1
            result = -errno.ENOSYS
        else:
            result = handler(self._caller, int(regs.ebx), int(regs.ecx), int(regs.edx))
        regs.eax = result & 0xFFFFFFFF
