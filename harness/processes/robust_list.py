# SPDX-License-Identifier: GPL-2.0-or-later
"""The locks that a thread holds when it ends, or runs another program.

Models linux-2.6 ``kernel/futex.c: exit_robust_list()``. A thread that announced a list of its locks
has those that it still owns marked, and who waits for one is woken: he finds that the owner died.
In RAM: the words of the locks, in the program's memory.

What can fail: nothing. The list is the program's own work: it may lead anywhere, or in a circle.
"""

import contextlib
from typing import Final

from harness.processes.process import Process
from harness.syscalls.futex import ROBUST_LIST_SIZE, futex_key
from harness.syscalls.futex_queues import Futexes
from harness.uaccess import UserAccess

ROBUST_LIST_LIMIT: Final = 2048
FUTEX_WAITERS: Final = 0x80000000
FUTEX_OWNER_DIED: Final = 0x40000000
FUTEX_TID_MASK: Final = 0x3FFFFFFF
_INHERITS_PRIORITY: Final = 1
"""The lowest bit of a pointer to a lock: who waits for it is not woken here."""
_U32: Final = 0xFFFFFFFF


class _BadList(Exception):
    """It leads where the program has no memory."""


class RobustLists:
    """``exit_robust_list()`` of one machine."""

    def __init__(self, uaccess: UserAccess, futexes: Futexes) -> None:
        self._uaccess = uaccess
        self._futexes = futexes

    def leave(self, process: Process) -> None:
        """The current process gives up its locks."""
        head, process.robust_list = process.robust_list, 0
        if head and process.mm:
            with contextlib.suppress(_BadList):
                self._walk(process, head)

    def _walk(self, process: Process, head: int) -> None:
        data = self._uaccess.copy_from_user(head, ROBUST_LIST_SIZE)
        if len(data) < ROBUST_LIST_SIZE:
            raise _BadList
        entry, offset, pending = (int.from_bytes(data[n : n + 4], "little") for n in (0, 4, 8))
        for _ in range(ROBUST_LIST_LIMIT):
            place = entry & ~_INHERITS_PRIORITY
            if place == head:
                break
            # Once it is marked, its next owner may change what follows it.
            following = self._uaccess.get_user(place)
            if place != pending & ~_INHERITS_PRIORITY:
                self._owner_died(process, entry, offset)
            if following is None:
                raise _BadList
            entry = following
        if pending & ~_INHERITS_PRIORITY:
            self._owner_died(process, pending, offset, pending=True)

    def _owner_died(
        self, process: Process, entry: int, offset: int, *, pending: bool = False
    ) -> None:
        """``handle_futex_death()``; a lock that was about to be let go may be free already."""
        place = (entry & ~_INHERITS_PRIORITY) + offset & _U32
        word = None if place & 3 else self._uaccess.get_user(place)
        if word is None:
            raise _BadList
        inherits = entry & _INHERITS_PRIORITY
        if pending and not inherits and not word:
            self._wake(process, place)
        if word & FUTEX_TID_MASK != process.pid:
            return
        if not self._uaccess.put_user(place, word & FUTEX_WAITERS | FUTEX_OWNER_DIED):
            raise _BadList
        if word & FUTEX_WAITERS and not inherits:
            self._wake(process, place)

    def _wake(self, process: Process, place: int) -> None:
        with contextlib.suppress(OSError):
            self._futexes.wake(futex_key(process, place), 1)
