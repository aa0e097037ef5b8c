# SPDX-License-Identifier: GPL-2.0-or-later
"""The structures of signals that a program sees, as the i386 lays them out.

Models linux-2.4.22 ``include/asm-i386/signal.h``, ``sigcontext.h``, ``ucontext.h`` and
``arch/i386/kernel/signal.c: struct sigframe, struct rt_sigframe``. Nothing here can fail.
"""

from ctypes import c_int32, c_uint8, c_uint16, c_uint32, c_uint64

from harness.signals.siginfo import SIGINFO_SIZE
from harness.syscalls.structures import Layout


class Sigaction(Layout):
    """``struct sigaction``, as ``rt_sigaction()`` has it."""

    _fields_ = (
        ("sa_handler", c_uint32),
        ("sa_flags", c_uint32),
        ("sa_restorer", c_uint32),
        ("sa_mask", c_uint64),
    )


class OldSigaction(Layout):
    """``struct old_sigaction``."""

    _fields_ = (
        ("sa_handler", c_uint32),
        ("sa_mask", c_uint32),
        ("sa_flags", c_uint32),
        ("sa_restorer", c_uint32),
    )


class SignalStack(Layout):
    """``stack_t``."""

    _fields_ = (("ss_sp", c_uint32), ("ss_flags", c_uint32), ("ss_size", c_uint32))


class Fpstate(Layout):
    """``struct _fpstate``: what FNSAVE writes, then the whole image of FXSAVE.

    ``magic`` is 0xFFFF where the CPU has no FXSAVE and only the first part counts.
    """

    _fields_ = (
        ("cw", c_uint32),
        ("sw", c_uint32),
        ("tag", c_uint32),
        ("ipoff", c_uint32),
        ("cssel", c_uint32),
        ("dataoff", c_uint32),
        ("datasel", c_uint32),
        ("_st", c_uint8 * 80),
        ("status", c_uint16),
        ("magic", c_uint16),
        ("_fxsr", c_uint8 * 512),
    )


class Sigcontext(Layout):
    """``struct sigcontext``: the registers of the program before the handler."""

    _fields_ = (
        ("gs", c_uint16),
        ("__gsh", c_uint16),
        ("fs", c_uint16),
        ("__fsh", c_uint16),
        ("es", c_uint16),
        ("__esh", c_uint16),
        ("ds", c_uint16),
        ("__dsh", c_uint16),
        ("edi", c_uint32),
        ("esi", c_uint32),
        ("ebp", c_uint32),
        ("esp", c_uint32),
        ("ebx", c_uint32),
        ("edx", c_uint32),
        ("ecx", c_uint32),
        ("eax", c_uint32),
        ("trapno", c_uint32),
        ("err", c_uint32),
        ("eip", c_uint32),
        ("cs", c_uint16),
        ("__csh", c_uint16),
        ("eflags", c_uint32),
        ("esp_at_signal", c_uint32),
        ("ss", c_uint16),
        ("__ssh", c_uint16),
        ("fpstate", c_uint32),
        ("oldmask", c_uint32),
        ("cr2", c_uint32),
    )


class Ucontext(Layout):
    """``struct ucontext``."""

    _fields_ = (
        ("uc_flags", c_uint32),
        ("uc_link", c_uint32),
        ("uc_stack", SignalStack),
        ("uc_mcontext", Sigcontext),
        ("uc_sigmask", c_uint64),
    )


class Sigframe(Layout):
    """``struct sigframe``: what a handler without ``SA_SIGINFO`` finds at ESP."""

    _fields_ = (
        ("pretcode", c_uint32),
        ("sig", c_int32),
        ("sc", Sigcontext),
        ("fpstate", Fpstate),
        ("extramask", c_uint32),
        ("retcode", c_uint8 * 8),
    )


class RtSigframe(Layout):
    """``struct rt_sigframe``: the same with ``SA_SIGINFO``."""

    _fields_ = (
        ("pretcode", c_uint32),
        ("sig", c_int32),
        ("pinfo", c_uint32),
        ("puc", c_uint32),
        ("info", c_uint8 * SIGINFO_SIZE),
        ("uc", Ucontext),
        ("fpstate", Fpstate),
        ("retcode", c_uint8 * 8),
    )


class Itimerval(Layout):
    """``struct itimerval``."""

    _fields_ = (
        ("interval_sec", c_int32),
        ("interval_usec", c_int32),
        ("value_sec", c_int32),
        ("value_usec", c_int32),
    )
