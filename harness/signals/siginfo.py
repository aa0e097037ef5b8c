# SPDX-License-Identifier: GPL-2.0-or-later
"""What comes with a signal: ``siginfo_t``.

Models linux-2.4.22 ``include/asm-i386/siginfo.h``: three words that every kind has, then a union.
Nothing here can fail.
"""

import struct
from dataclasses import dataclass, replace
from typing import Final

from harness.signals.numbers import SI_KERNEL, SI_QUEUE, SI_TIMER, SI_TKILL, SI_USER
from kernel_model.arch_i386.signal import SigInfo as FaultInfo

SIGINFO_SIZE: Final = 128
_HEADER: Final = struct.Struct("<iii")
_SIGN: Final = 0xFFFFFFFF


def _words(*values: int) -> bytes:
    return b"".join((value & _SIGN).to_bytes(4, "little") for value in values)


@dataclass(frozen=True, slots=True)
class SigInfo:
    """One ``siginfo_t``; ``fields`` is the union ``_sifields``, without the zeros at its end."""

    signo: int
    code: int = SI_KERNEL
    fields: bytes = b""
    errno: int = 0

    def __bytes__(self) -> bytes:
        header = _HEADER.pack(self.signo, self.errno, self.code)
        return (header + self.fields)[:SIGINFO_SIZE].ljust(SIGINFO_SIZE, b"\0")

    @classmethod
    def from_bytes(cls, data: bytes) -> "SigInfo":
        signo, errno, code = _HEADER.unpack_from(data)
        return cls(signo, code, bytes(data[_HEADER.size : SIGINFO_SIZE]), errno)

    def with_signal(self, signal: int) -> "SigInfo":
        return replace(self, signo=signal)

    @property
    def address(self) -> int:
        """``si_addr`` of a fault."""
        return int.from_bytes(self.fields[:4], "little")

    @property
    def sender(self) -> int:
        """``si_pid``."""
        return int.from_bytes(self.fields[:4], "little")


def kernel_info(signal: int) -> SigInfo:
    """From the kernel, with nothing to say (``SEND_SIG_PRIV``)."""
    return SigInfo(signal)


def user_info(signal: int, pid: int, uid: int) -> SigInfo:
    """By ``kill()``."""
    return SigInfo(signal, SI_USER, _words(pid, uid))


def thread_info(signal: int, pid: int, uid: int) -> SigInfo:
    """By ``tkill()`` and ``tgkill()``."""
    return SigInfo(signal, SI_TKILL, _words(pid, uid))


def queued_info(signal: int, pid: int, uid: int, value: int) -> SigInfo:
    """By ``sigqueue()``: ``value`` is the ``sigval_t``."""
    return SigInfo(signal, SI_QUEUE, _words(pid, uid, value))


def timer_info(signal: int, timer: int, overrun: int, value: int) -> SigInfo:
    """By a POSIX timer."""
    return SigInfo(signal, SI_TIMER, _words(timer, overrun, value))


def fault_info(signal: int, code: int, address: int) -> SigInfo:
    """By an instruction: ``SEGV_*``, ``BUS_*``, ``ILL_*``, ``FPE_*``, ``TRAP_*``."""
    return SigInfo(signal, code, _words(address))


def page_fault_info(info: FaultInfo) -> SigInfo:
    """As ``do_page_fault()`` found it."""
    return fault_info(info.signo, info.code, info.addr)


def child_info(
    signal: int, code: int, pid: int, uid: int, status: int, ticks: tuple[int, int] = (0, 0)
) -> SigInfo:
    """About a child: ``CLD_*``; ``ticks`` is its user and system time."""
    return SigInfo(signal, code, _words(pid, uid, status, *ticks))
