# SPDX-License-Identifier: GPL-2.0-or-later
"""The frame that a handler finds on its stack.

Models linux-2.4.22 ``arch/i386/kernel/signal.c: setup_frame, setup_rt_frame``. ESP of the frame is
aligned as later kernels do, because the C code of today counts on it, and a handler starts with DF
clear. What can fail: :func:`setup_frame` says ``False`` where the frame cannot be written.
"""

from ctypes import sizeof
from typing import Final

from harness.signals.actions import Action
from harness.signals.alternate_stack import NO_STACK
from harness.signals.fpstate import to_frame
from harness.signals.numbers import SA_ONSTACK, SA_RESTORER, SA_SIGINFO
from harness.signals.process import SignalledProcess
from harness.signals.siginfo import SigInfo
from harness.signals.structures import RtSigframe, Sigcontext, Sigframe, SignalStack, Ucontext
from harness.syscalls.requests import CopyToUser, Part
from kernel_model.arch_i386.page import TASK_SIZE
from kernel_model.arch_i386.segment import USER_CS, USER_DS

EFLAGS_TF: Final = 1 << 8
EFLAGS_DF: Final = 1 << 10
EFLAGS_RF: Final = 1 << 16
_CLEARED: Final = EFLAGS_TF | EFLAGS_DF | EFLAGS_RF

RETCODE: Final = bytes.fromhex("58 b8 77 00 00 00 cd 80")
"""``popl %eax; movl $__NR_sigreturn, %eax; int $0x80``."""
RT_RETCODE: Final = bytes.fromhex("b8 ad 00 00 00 cd 80 00")
"""``movl $__NR_rt_sigreturn, %eax; int $0x80``."""
COPIED_REGISTERS: Final = ("edi", "esi", "ebp", "esp", "ebx", "edx", "ecx", "eax", "eip", "eflags")
"""Those that ``struct pt_regs`` and ``struct sigcontext`` call the same."""


def _sigcontext(process: SignalledProcess, fpstate: int, mask: int) -> Sigcontext:
    regs, (cr2, trap_number, error_code) = process.registers, process.faulted
    return Sigcontext(
        **{name: getattr(regs, name) & 0xFFFFFFFF for name in COPIED_REGISTERS},
        gs=process.gs_selector & 0xFFFF,
        fs=process.fs_selector & 0xFFFF,
        es=regs.xes & 0xFFFF,
        ds=regs.xds & 0xFFFF,
        cs=regs.xcs & 0xFFFF,
        ss=regs.xss & 0xFFFF,
        esp_at_signal=regs.esp,
        trapno=trap_number,
        err=error_code,
        cr2=cr2,
        oldmask=mask & 0xFFFFFFFF,
        fpstate=fpstate,
    )


def _frame_place(process: SignalledProcess, action: Action, size: int) -> int | None:
    """Where the frame goes (``get_sigframe``); ``None`` when the other stack has no room."""
    esp, stack = int(process.registers.esp), process.signals.stack
    inside = stack.contains(esp)
    if action.flags & SA_ONSTACK and stack.size and not inside:
        esp, inside = stack.top, True
    # So that ESP + 4 is a multiple of 16, as after a call.
    place = ((esp - size + 4) & ~15) - 4
    if inside and not stack.autodisarm and not stack.contains(place):
        return None
    return place if place >= 0 and place + size <= TASK_SIZE else None


def _return_code(process: SignalledProcess, action: Action, retcode: int) -> int:
    """Where the handler returns to: its own restorer, the kernel's page, or code in the frame."""
    if action.flags & SA_RESTORER:
        return action.restorer
    addresses = process.sigreturn_addresses
    return addresses[bool(action.flags & SA_SIGINFO)] if addresses else retcode


def _plain_frame(process: SignalledProcess, action: Action, signal: int, mask: int) -> Part[bool]:
    place = _frame_place(process, action, sizeof(Sigframe))
    if place is None:
        return False
    frame = Sigframe(
        pretcode=_return_code(process, action, place + Sigframe.retcode.offset),
        sig=signal,
        sc=_sigcontext(process, place + Sigframe.fpstate.offset, mask),
        fpstate=to_frame(process.fpu_state(), process.has_fxsr),
        extramask=mask >> 32,
    )
    frame.retcode[:] = RETCODE
    left: int = yield CopyToUser(place, bytes(frame))
    if left:
        return False
    _enter_handler(process, action, place, (signal, 0, 0))
    return True


def _rt_frame(process: SignalledProcess, action: Action, info: SigInfo, mask: int) -> Part[bool]:
    place = _frame_place(process, action, sizeof(RtSigframe))
    if place is None:
        return False
    stack = process.signals.stack
    frame = RtSigframe(
        pretcode=_return_code(process, action, place + RtSigframe.retcode.offset),
        sig=info.signo,
        pinfo=place + RtSigframe.info.offset,
        puc=place + RtSigframe.uc.offset,
        uc=Ucontext(
            uc_stack=SignalStack(stack.start, stack.asked, stack.size),
            uc_mcontext=_sigcontext(process, place + RtSigframe.fpstate.offset, mask),
            uc_sigmask=mask,
        ),
        fpstate=to_frame(process.fpu_state(), process.has_fxsr),
    )
    frame.info[:] = bytes(info)
    frame.retcode[:] = RT_RETCODE
    left: int = yield CopyToUser(place, bytes(frame))
    if left:
        return False
    if stack.autodisarm:
        process.signals.stack = NO_STACK
    _enter_handler(process, action, place, (info.signo, frame.pinfo, frame.puc))
    return True


def _enter_handler(
    process: SignalledProcess, action: Action, place: int, arguments: tuple[int, int, int]
) -> None:
    """Let ring 3 go on in the handler; its arguments are in registers, too (``regparm``)."""
    regs = process.registers
    regs.eax, regs.edx, regs.ecx = arguments
    regs.esp, regs.eip = place, action.handler
    regs.xds = regs.xes = regs.xss = USER_DS
    regs.xcs = USER_CS
    regs.eflags &= ~_CLEARED


def setup_frame(process: SignalledProcess, action: Action, info: SigInfo, mask: int) -> Part[bool]:
    """Write the frame and go to the handler; ``mask`` is what ``sigreturn()`` brings back."""
    if action.flags & SA_SIGINFO:
        return (yield from _rt_frame(process, action, info, mask))
    return (yield from _plain_frame(process, action, info.signo, mask))
