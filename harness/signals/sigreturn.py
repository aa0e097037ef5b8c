# SPDX-License-Identifier: GPL-2.0-or-later
"""The way back from a handler: what its frame says becomes the program's state again.

Models linux-2.4.22 ``arch/i386/kernel/signal.c: restore_sigcontext, sys_sigreturn,
sys_rt_sigreturn``. The program may have written anything into the frame; whatever it is, ring 3
goes on with its own code segment, with selectors it could have loaded itself, and without a flag
that it could not have set with ``POPF``. What can fail: :class:`BadFrame`, which is ``SIGSEGV``.
"""

import contextlib
from ctypes import sizeof
from typing import Final

from harness.signals.fpstate import MAGIC_FNSAVE, fresh_image, from_frame
from harness.signals.frame import COPIED_REGISTERS
from harness.signals.process import SignalledProcess
from harness.signals.structures import Fpstate, RtSigframe, Sigcontext, Sigframe, SignalStack
from harness.syscalls.requests import CopyFromUser, Part
from kernel_model.arch_i386.page import TASK_SIZE
from kernel_model.arch_i386.segment import USER_CS, USER_DS
from kernel_model.errors import MmucheckError

RESTORED_EFLAGS: Final = 0x00040DD5
"""AC, OF, DF, TF, SF, ZF, AF, PF, CF; not IOPL, IF, NT, RF, VM."""
_FNSAVE_PART: Final = Fpstate._fxsr.offset


class BadFrame(MmucheckError):
    """The frame cannot be read, or no program can go on as it says."""


def _read(address: int, length: int) -> Part[bytes]:
    if not 0 <= address <= TASK_SIZE - length:
        raise BadFrame(f"frame at {address:#x}")
    data: bytes = yield CopyFromUser(address, length)
    if len(data) < length:
        raise BadFrame(f"frame at {address:#x}")
    return data


def _restore_fpu(process: SignalledProcess, address: int) -> Part[None]:
    if not address:
        process.set_fpu_state(fresh_image(process.has_fxsr))
        return
    data = yield from _read(address, _FNSAVE_PART)
    magic = int.from_bytes(data[-2:], "little")
    if process.has_fxsr and magic != MAGIC_FNSAVE:
        data += yield from _read(address + _FNSAVE_PART, sizeof(Fpstate) - _FNSAVE_PART)
    state = Fpstate.from_buffer_copy(data.ljust(sizeof(Fpstate), b"\0"))
    process.set_fpu_state(from_frame(state, process.fpu_state(), process.has_fxsr))


def _data_selector(process: SignalledProcess, selector: int) -> int:
    """``selector`` at ring 3; 0 for one that the CPU would refuse, as Linux's fixups leave it."""
    selector = selector | 3 if selector & ~3 else 0
    allowed = (USER_DS, USER_CS, *process.thread_selectors)
    return selector if selector in allowed else 0


def _restore_sigcontext(process: SignalledProcess, context: Sigcontext) -> Part[int]:
    """All registers; EAX is given back, as the result of the call."""
    stack = _data_selector(process, context.ss)
    if context.cs | 3 != USER_CS or stack in (0, USER_CS):
        raise BadFrame(f"cs {context.cs:#x}, ss {context.ss:#x}")
    yield from _restore_fpu(process, context.fpstate)
    regs = process.registers
    kept = regs.eflags & ~RESTORED_EFLAGS
    for name in COPIED_REGISTERS:
        setattr(regs, name, getattr(context, name))
    regs.eflags = kept | context.eflags & RESTORED_EFLAGS
    regs.xcs, regs.xss = USER_CS, stack
    regs.xds = _data_selector(process, context.ds)
    regs.xes = _data_selector(process, context.es)
    process.fs_selector = _data_selector(process, context.fs)
    process.gs_selector = _data_selector(process, context.gs)
    # No system call is left that could be started again.
    regs.orig_eax = 0xFFFFFFFF
    process.restart = None
    return int(context.eax)


def restore_frame(process: SignalledProcess) -> Part[int]:
    """From the ``struct sigframe`` whose first two words were taken off the stack."""
    place = int(process.registers.esp) - 8
    frame = Sigframe.from_buffer_copy((yield from _read(place, sizeof(Sigframe))))
    process.signals.set_blocked(frame.extramask << 32 | frame.sc.oldmask)
    return (yield from _restore_sigcontext(process, frame.sc))


def restore_rt_frame(process: SignalledProcess) -> Part[int]:
    """From the ``struct rt_sigframe`` whose first word was taken off the stack."""
    place = int(process.registers.esp) - 4
    frame = RtSigframe.from_buffer_copy((yield from _read(place, sizeof(RtSigframe))))
    process.signals.set_blocked(frame.uc.uc_sigmask)
    eax = yield from _restore_sigcontext(process, frame.uc.uc_mcontext)
    _restore_stack(process, frame.uc.uc_stack)
    return eax


def _restore_stack(process: SignalledProcess, wanted: SignalStack) -> None:
    """As by ``sigaltstack()`` after the return; that it cannot be is no failure."""
    signals, esp = process.signals, int(process.registers.esp)
    with contextlib.suppress(OSError):
        signals.stack = signals.stack.replaced(esp, wanted.ss_sp, wanted.ss_flags, wanted.ss_size)
