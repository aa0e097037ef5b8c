# SPDX-License-Identifier: GPL-2.0-or-later
"""Restartable sequences: a section of a program that others interrupted starts over.

Models linux-6 ``kernel/rseq.c: __rseq_handle_notify_resume()``. On the way back to ring 3, after
another process ran or before a signal's handler starts, the area that the thread registered
(:mod:`harness.syscalls.restartable`) says which section it is in. Inside of it, EIP goes to the
section's abort handler; the area then names no section, and the processor.

What can fail: :func:`resume` says ``False`` for an area or a section that is malformed or cannot be
read; that is ``SIGSEGV``. So is any flag: no kernel of today heeds one.
"""

import struct
from dataclasses import dataclass
from typing import Final

from harness.signals.process import SignalledProcess
from harness.syscalls.requests import Part
from harness.syscalls.restartable import FLAGS, SECTION, write_numbers
from harness.syscalls.user_copy import copy_in, copy_out, copy_words_in, words
from kernel_model.arch_i386.page import TASK_SIZE

_LAYOUT: Final = struct.Struct("<IIQQQ")
_SIGNATURE_BYTES: Final = 4


@dataclass(frozen=True, slots=True)
class Section:
    """``struct rseq_cs``: ``length`` bytes of code from ``start``."""

    version: int
    flags: int
    start: int
    length: int
    abort: int

    def contains(self, address: int) -> bool:
        return 0 <= address - self.start < self.length

    @property
    def sound(self) -> bool:
        """Whether it can be at all; its abort handler lies outside of it."""
        ends = (self.start, self.start + self.length, self.abort)
        return not self.version and max(ends) < TASK_SIZE and not self.contains(self.abort)


def resume(process: SignalledProcess) -> Part[bool]:
    """Deal with the section that the process is in, and write down where it runs."""
    area = process.rseq.area
    process.rseq.pending = False
    try:
        sound = yield from _leave_section(process, area)
        if sound:
            yield from write_numbers(area)
    except OSError:
        return False
    return sound


def _leave_section(process: SignalledProcess, area: int) -> Part[bool]:
    """Abort the section, or forget it when it was left (``rseq_ip_fixup``)."""
    (place,) = yield from copy_words_in(area + SECTION, 1, size=8)
    if not place:
        return True
    section = Section(*_LAYOUT.unpack((yield from copy_in(place, _LAYOUT.size))))
    if not section.sound:
        return False
    (signature,) = yield from copy_words_in(section.abort - _SIGNATURE_BYTES, 1)
    if signature != process.rseq.signature:
        return False
    inside = section.contains(int(process.registers.eip))
    if inside:
        (flags,) = yield from copy_words_in(area + FLAGS, 1)
        if flags or section.flags:
            return False
    yield from copy_out(area + SECTION, words(0, size=8))
    if inside:
        process.registers.eip = section.abort
    return True
