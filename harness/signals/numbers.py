# SPDX-License-Identifier: GPL-2.0-or-later
"""Signal numbers, flags, codes, and what a signal does by default.

Models linux-2.4.22 ``include/asm-i386/signal.h``, ``include/asm-i386/siginfo.h`` and the classes
that ``kernel/signal.c: do_signal`` makes of the signals. A set of signals is an ``int`` with bit
``n - 1`` for signal ``n``, as in ``sigset_t``. Nothing here can fail.
"""

from collections.abc import Iterable
from typing import Final

NSIG: Final = 64
SIGRTMIN: Final = 32
SIGSET_SIZE: Final = 8

SIGHUP: Final = 1
SIGINT: Final = 2
SIGQUIT: Final = 3
SIGILL: Final = 4
SIGTRAP: Final = 5
SIGABRT: Final = 6
SIGBUS: Final = 7
SIGFPE: Final = 8
SIGKILL: Final = 9
SIGUSR1: Final = 10
SIGSEGV: Final = 11
SIGUSR2: Final = 12
SIGPIPE: Final = 13
SIGALRM: Final = 14
SIGTERM: Final = 15
SIGCHLD: Final = 17
SIGCONT: Final = 18
SIGSTOP: Final = 19
SIGTSTP: Final = 20
SIGTTIN: Final = 21
SIGTTOU: Final = 22
SIGURG: Final = 23
SIGXCPU: Final = 24
SIGXFSZ: Final = 25
SIGVTALRM: Final = 26
SIGPROF: Final = 27
SIGWINCH: Final = 28
SIGSYS: Final = 31

SIG_DFL: Final = 0
SIG_IGN: Final = 1

SA_NOCLDSTOP: Final = 1
SA_NOCLDWAIT: Final = 2
SA_SIGINFO: Final = 4
SA_RESTORER: Final = 0x04000000
SA_ONSTACK: Final = 0x08000000
SA_RESTART: Final = 0x10000000
SA_NODEFER: Final = 0x40000000
SA_RESETHAND: Final = 0x80000000
SA_FLAGS: Final = (
    SA_NOCLDSTOP
    | SA_NOCLDWAIT
    | SA_SIGINFO
    | SA_RESTORER
    | SA_ONSTACK
    | SA_RESTART
    | SA_NODEFER
    | SA_RESETHAND
)
"""All flags there are; a program that asks sees no others set."""

SIG_BLOCK: Final = 0
SIG_UNBLOCK: Final = 1
SIG_SETMASK: Final = 2

SS_ONSTACK: Final = 1
SS_DISABLE: Final = 2
SS_AUTODISARM: Final = 1 << 31
MINSIGSTKSZ: Final = 2048

SI_USER: Final = 0
SI_KERNEL: Final = 0x80
SI_QUEUE: Final = -1
SI_TIMER: Final = -2
SI_TKILL: Final = -6

CLD_EXITED: Final = 1
CLD_KILLED: Final = 2
CLD_DUMPED: Final = 3
CLD_STOPPED: Final = 5
CLD_CONTINUED: Final = 6


def bit(signal: int) -> int:
    """The set that holds only ``signal``."""
    return 1 << signal - 1


def sigset(signals: Iterable[int]) -> int:
    return sum(bit(signal) for signal in signals)


ALL: Final = (1 << NSIG) - 1
UNBLOCKABLE: Final = sigset((SIGKILL, SIGSTOP))
STOPPING: Final = sigset((SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU))
"""Stop the process by default."""
IGNORED: Final = sigset((SIGCONT, SIGCHLD, SIGWINCH, SIGURG))
"""Do nothing by default; ``SIGCONT`` has gone on with the process when it was sent."""
DUMPING: Final = sigset(
    (SIGQUIT, SIGILL, SIGTRAP, SIGABRT, SIGFPE, SIGSEGV, SIGBUS, SIGSYS, SIGXCPU, SIGXFSZ)
)
"""Kill with a core dump by default; all that are in none of these sets kill without."""
SYNCHRONOUS: Final = sigset((SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE, SIGSYS))
"""Come from what the program just did, and are taken before all others."""


def is_realtime(signal: int) -> bool:
    """Whether each one that is sent arrives."""
    return signal >= SIGRTMIN
