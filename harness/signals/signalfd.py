# SPDX-License-Identifier: GPL-2.0-or-later
"""Signals that are read from a file.

Models linux-6 ``fs/signalfd.c``. The file takes the signals of the thread that made it, whoever
reads; on Linux it is those of the reader, which differ after ``fork()`` only. What can fail:
``EINVAL`` for a read of less than one signal; ``EAGAIN`` (``BlockingIOError``) when none waits.
"""

import errno
from ctypes import sizeof
from typing import Final

from harness.signals.numbers import SI_KERNEL, SI_TIMER, SI_USER, SIGCHLD, SYNCHRONOUS, bit
from harness.signals.siginfo import SigInfo
from harness.signals.state import SignalState
from harness.syscalls.structures import SignalfdSiginfo
from harness.vfs.anonymous import AnonymousFile
from harness.vfs.failure import fail
from harness.vfs.flags import POLLIN
from harness.vfs.inode import SuperBlock

_FIELDS: Final = {
    "sender": ("ssi_pid", "ssi_uid"),
    "queued": ("ssi_pid", "ssi_uid", "ssi_int"),
    "timer": ("ssi_tid", "ssi_overrun", "ssi_int"),
    "child": ("ssi_pid", "ssi_uid", "ssi_status", "ssi_utime", "ssi_stime"),
    "fault": ("ssi_addr",),
}
"""Kind of signal -> what the words of its union are called here."""


class SignalFile(AnonymousFile):
    """The signals of the set ``mask``."""

    kind = b"signalfd"

    def __init__(self, superblock: SuperBlock, flags: int, signals: SignalState, mask: int) -> None:
        super().__init__(superblock, flags)
        self._signals = signals
        self.mask = mask

    def read(self, count: int) -> bytes:
        """As many as fit and wait."""
        room, data = count // sizeof(SignalfdSiginfo), b""
        if not room:
            fail(errno.EINVAL)
        while room and self._waiting:
            info = self._signals.dequeue(self.mask)
            assert info is not None
            data += bytes(_told(info))
            room -= 1
        if not data:
            fail(errno.EAGAIN)
        return data

    def unread(self, data: bytes) -> None:
        """What could not be delivered is gone, as on Linux."""

    @property
    def _waiting(self) -> int:
        return self._signals.pending & self.mask

    def poll(self) -> int:
        return POLLIN if self._waiting else 0

    @property
    def wakeups(self) -> int:
        return self._signals.arrivals


def _kind(info: SigInfo) -> str:
    """Which of the union's members a signal has (``siginfo_layout()``)."""
    if SI_USER < info.code < SI_KERNEL:
        if info.signo == SIGCHLD:
            return "child"
        return "fault" if bit(info.signo) & SYNCHRONOUS else "sender"
    if info.code == SI_TIMER:
        return "timer"
    return "queued" if info.code < 0 else "sender"


def _told(info: SigInfo) -> SignalfdSiginfo:
    kind = _kind(info)
    told = SignalfdSiginfo(ssi_signo=info.signo, ssi_errno=info.errno, ssi_code=info.code)
    for number, name in enumerate(_FIELDS[kind]):
        word = info.fields[4 * number : 4 * number + 4].ljust(4, b"\0")
        setattr(told, name, int.from_bytes(word, "little"))
    told.ssi_ptr = told.ssi_int & 0xFFFFFFFF
    return told
