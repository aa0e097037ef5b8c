# SPDX-License-Identifier: GPL-2.0-or-later
"""Which signal an exception of ring 3 is.

Models linux-2.4.22 ``arch/i386/kernel/traps.c: do_trap`` and its callers, ``math_error`` and
``simd_math_error`` among them. Page faults are the memory manager's. Nothing here can fail.
"""

import struct
from typing import Final

from harness.signals.numbers import SI_KERNEL, SIGBUS, SIGFPE, SIGILL, SIGSEGV, SIGTRAP
from harness.signals.process import SignalledProcess
from harness.signals.siginfo import SigInfo, fault_info, kernel_info

FPE_INTDIV: Final = 1
FPE_FLTDIV: Final = 3
FPE_FLTOVF: Final = 4
FPE_FLTUND: Final = 5
FPE_FLTRES: Final = 6
FPE_FLTINV: Final = 7
ILL_ILLOPN: Final = 2
TRAP_TRACE: Final = 2
BUS_ADRALN: Final = 1

_X87_FAULT, _SIMD_FAULT = 16, 19
_AT_INSTRUCTION: Final = {
    0: (SIGFPE, FPE_INTDIV),
    1: (SIGTRAP, TRAP_TRACE),
    6: (SIGILL, ILL_ILLOPN),
}
"""Trap -> signal and code; ``si_addr`` is that of the instruction."""
_WITHOUT_ADDRESS: Final = {3: SIGTRAP, 4: SIGSEGV, 5: SIGSEGV, 11: SIGBUS, 12: SIGBUS, 13: SIGSEGV}
_FPU_CODES: Final = (
    (0x01, FPE_FLTINV),
    (0x02, FPE_FLTUND),
    (0x04, FPE_FLTDIV),
    (0x08, FPE_FLTOVF),
    (0x10, FPE_FLTUND),
    (0x20, FPE_FLTRES),
)
"""Exception bits as the x87 status word and MXCSR have them; the first one counts."""


def _unmasked(process: SignalledProcess, vector: int) -> int:
    """The floating-point exceptions that are raised and not masked."""
    image = process.fpu_state()
    if vector == _SIMD_FAULT:
        (mxcsr,) = struct.unpack_from("<I", image, 24)
        return int(mxcsr & ~(mxcsr >> 7) & 0x3F)
    (control,) = struct.unpack_from("<H", image)
    (status,) = struct.unpack_from("<H", image, 2 if process.has_fxsr else 4)
    return int(status & ~control & 0x3F)


def exception_info(process: SignalledProcess, vector: int) -> SigInfo:
    """For any exception but a page fault."""
    eip = int(process.registers.eip)
    if vector in _AT_INSTRUCTION:
        return fault_info(*_AT_INSTRUCTION[vector], eip)
    if vector in (_X87_FAULT, _SIMD_FAULT):
        raised = _unmasked(process, vector)
        code = next((code for mask, code in _FPU_CODES if raised & mask), SI_KERNEL)
        return fault_info(SIGFPE, code, eip)
    if vector == 17:
        return fault_info(SIGBUS, BUS_ADRALN, 0)
    return kernel_info(_WITHOUT_ADDRESS.get(vector, SIGSEGV))
