# SPDX-License-Identifier: GPL-2.0-or-later
"""Signals that the CPU's faults turn into, and what they say.

Models linux-2.4.22 ``include/asm-i386/signal.h`` and ``include/asm-i386/siginfo.h``, as far as
page faults send them. Nothing here can fail.
"""

from dataclasses import dataclass
from typing import Final

SIGBUS: Final = 7
SIGKILL: Final = 9
SIGSEGV: Final = 11

SEGV_MAPERR: Final = 1
"""``si_code``: no VMA has the address."""
SEGV_ACCERR: Final = 2
"""``si_code``: the VMA does not allow the access."""
BUS_ADRERR: Final = 2
"""``si_code``: the file behind the VMA has no such page."""


@dataclass(frozen=True, slots=True)
class SigInfo:
    """``siginfo_t`` of a fault: signal, cause, address touched."""

    signo: int
    code: int
    addr: int
