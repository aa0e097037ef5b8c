# SPDX-License-Identifier: GPL-2.0-or-later
"""What a thread has registered by ``rseq``, and the numbers that are written there.

Models the ``rseq`` members of linux-6 ``struct task_struct``, and ``struct rseq`` in the memory of
the program. What can fail: ``EFAULT``.
"""

from dataclasses import dataclass, replace
from typing import Final

from harness.syscalls.requests import Part
from harness.syscalls.user_copy import copy_out, words

AREA_SIZE: Final = 32
"""``struct rseq`` as it was first; all that is written lies in there. Its alignment, too."""
SECTION, FLAGS, NODE_ID = 8, 16, 20
"""Offsets of ``rseq_cs``, ``flags`` and ``node_id``; ``mm_cid`` follows it."""
NO_CPU: Final = 0xFFFFFFFF
"""``RSEQ_CPU_ID_UNINITIALIZED``."""


@dataclass(slots=True)
class RestartableSequences:
    """What a thread has registered: ``struct rseq`` at ``area``; 0: nothing."""

    area: int = 0
    length: int = 0
    signature: int = 0
    """What stands before the address that a section aborts to."""
    pending: bool = False
    """The area is to be looked at before ring 3 goes on."""

    def interrupted(self) -> None:
        """Another process ran, or a signal is about to be handled."""
        self.pending = self.area != 0

    def fork(self, *, share_memory: bool) -> "RestartableSequences":
        """For a child. One that shares memory must have an area of its own."""
        return RestartableSequences() if share_memory else replace(self)


def write_numbers(area: int, start: int = 0, number: int = 0) -> Part[None]:
    """Of the processor, its node, and the concurrency of the thread: there is one of each."""
    yield from copy_out(area, words(start, number))
    yield from copy_out(area + NODE_ID, words(0, 0))
