# SPDX-License-Identifier: GPL-2.0-or-later
"""The FPU in a signal frame: from the image that the CPU keeps, and back.

Models linux-2.4.22 ``arch/i386/kernel/i387.c: save_i387, restore_i387`` and the conversions between
the layouts of ``FNSAVE`` and ``FXSAVE``. A program may put anything there; what comes back from it
is masked to what ``FXRSTOR`` loads without a fault. Nothing here can fail.
"""

import ctypes
import struct
from ctypes import c_uint8, c_uint16, c_uint32
from typing import Final

from harness.signals.structures import Fpstate
from harness.syscalls.structures import Layout

FXSAVE_SIZE: Final = 512
FNSAVE_SIZE: Final = 108
MAGIC_FNSAVE: Final = 0xFFFF
_MXCSR_MASK: Final = 0xFFBF
"""What MXCSR may hold where the CPU does not say."""
_HIGH: Final = 0xFFFF0000
_EXPONENT: Final = 0x7FFF
_INTEGER_BIT: Final = 1 << 63
_VALID, _ZERO, _SPECIAL, _EMPTY = range(4)


class Fxsave(Layout):
    """What ``FXSAVE`` writes."""

    _fields_ = (
        ("cwd", c_uint16),
        ("swd", c_uint16),
        ("twd", c_uint8),
        ("_reserved", c_uint8),
        ("fop", c_uint16),
        ("fip", c_uint32),
        ("fcs", c_uint32),
        ("foo", c_uint32),
        ("fos", c_uint32),
        ("mxcsr", c_uint32),
        ("mxcsr_mask", c_uint32),
        ("st_space", c_uint8 * 128),
        ("xmm_space", c_uint8 * 128),
        ("_padding", c_uint8 * 224),
    )


def fresh_image(has_fxsr: bool) -> bytes:
    """As ``FNINIT`` leaves it, every exception masked."""
    if has_fxsr:
        return bytes(Fxsave(cwd=0x37F, mxcsr=0x1F80))
    return struct.pack("<3I", 0xFFFF037F, _HIGH, 0xFFFFFFFF) + bytes(FXSAVE_SIZE - 12)


def _tag(register: bytes) -> int:
    """What the tag word says of a register that is not empty."""
    significand, exponent = struct.unpack("<QH", register)
    exponent &= _EXPONENT
    if exponent == 0:
        return _SPECIAL if significand else _ZERO
    return _VALID if exponent != _EXPONENT and significand & _INTEGER_BIT else _SPECIAL


def _full_tags(image: Fxsave) -> int:
    """The tag word from FXSAVE's one bit a register (``twd_fxsr_to_i387``).

    Bits are of physical registers, contents lie in the order of the stack.
    """
    top, tags = image.swd >> 11 & 7, 0
    for physical in range(8):
        at = 16 * ((physical - top) & 7)
        used = image.twd >> physical & 1
        tag = _tag(bytes(image.st_space[at : at + 10])) if used else _EMPTY
        tags |= tag << 2 * physical
    return tags


def _short_tags(tags: int) -> int:
    """``twd_i387_to_fxsr``."""
    used = (tags >> 2 * physical & 3 != _EMPTY for physical in range(8))
    return sum(1 << physical for physical, is_used in enumerate(used) if is_used)


def to_frame(image: bytes, has_fxsr: bool) -> Fpstate:
    """The ``struct _fpstate`` of a frame."""
    state = Fpstate()
    if not has_fxsr:
        ctypes.memmove(ctypes.addressof(state), image, FNSAVE_SIZE)
        state.status, state.magic = state.sw & 0xFFFF, MAGIC_FNSAVE
        return state
    fx = Fxsave.from_buffer_copy(image)
    state.cw, state.sw, state.tag = (_HIGH | word for word in (fx.cwd, fx.swd, _full_tags(fx)))
    state.ipoff, state.cssel = fx.fip, fx.fcs & 0xFFFF | fx.fop << 16
    state.dataoff, state.datasel = fx.foo, fx.fos
    for register in range(8):
        state._st[10 * register : 10 * register + 10] = fx.st_space[
            16 * register : 16 * register + 10
        ]
    state.status = fx.swd
    ctypes.memmove(ctypes.addressof(state) + Fpstate._fxsr.offset, image, FXSAVE_SIZE)
    return state


def from_frame(state: Fpstate, current: bytes, has_fxsr: bool) -> bytes:
    """The image to go on with; of ``current`` only what the CPU says of itself counts."""
    if not has_fxsr:
        return bytes(state)[:FNSAVE_SIZE].ljust(FXSAVE_SIZE, b"\0")
    mask = Fxsave.from_buffer_copy(current).mxcsr_mask or _MXCSR_MASK
    if state.magic == MAGIC_FNSAVE:
        fx = Fxsave.from_buffer_copy(current)
    else:
        fx = Fxsave.from_buffer_copy(bytes(state._fxsr))
    fx.cwd, fx.swd, fx.twd = state.cw & 0xFFFF, state.sw & 0xFFFF, _short_tags(state.tag)
    fx.fip, fx.fcs, fx.fop = state.ipoff, state.cssel & 0xFFFF, state.cssel >> 16 & 0x7FF
    fx.foo, fx.fos = state.dataoff, state.datasel & 0xFFFF
    for register in range(8):
        fx.st_space[16 * register : 16 * register + 10] = state._st[
            10 * register : 10 * register + 10
        ]
    fx.mxcsr &= mask & 0xFFFF
    fx.mxcsr_mask = mask
    return bytes(fx)
