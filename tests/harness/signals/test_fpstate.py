# SPDX-License-Identifier: GPL-2.0-or-later
"""FNSAVE's and FXSAVE's layouts, one from the other; tag words are those of the Intel manual."""

import struct

import pytest

from harness.signals.fpstate import Fxsave, fresh_image, from_frame, to_frame
from harness.signals.structures import Fpstate
from tests.harness.signals.ring3 import Ring3

ONE = struct.pack("<QH", 1 << 63, 0x3FFF)
VALUES = {
    "valid": (ONE, 0),
    "negative": (struct.pack("<QH", 1 << 63, 0xBFFF), 0),
    "zero": (bytes(10), 1),
    "infinity": (struct.pack("<QH", 1 << 63, 0x7FFF), 2),
    "denormal": (struct.pack("<QH", 1, 0), 2),
    "unnormal": (struct.pack("<QH", 1, 0x3FFF), 2),
}


@pytest.mark.parametrize("name", VALUES)
@pytest.mark.parametrize("top", range(8))
def test_tags_tell_what_a_register_holds(name: str, top: int) -> None:
    """FXSAVE has a bit a physical register, the contents in the order of the stack."""
    value, tag = VALUES[name]
    image = Fxsave(swd=top << 11, twd=1 << top)
    image.st_space[:10] = value
    state = to_frame(bytes(image), has_fxsr=True)
    assert state.tag & 0xFFFF == 0xFFFF & ~(3 << 2 * top) | tag << 2 * top
    assert bytes(state._st[:10]) == value


def test_there_and_back_again() -> None:
    image = Fxsave(cwd=0x27F, swd=0x2800, twd=0xE0, fop=0x123, fip=1, fcs=0x23, foo=2, fos=0x2B)
    image.mxcsr, image.mxcsr_mask = 0x1FA0, 0xFFBF
    for register in range(3):
        image.st_space[16 * register : 16 * register + 10] = ONE
    image.xmm_space[:] = bytes(range(128))
    frame = to_frame(bytes(image), has_fxsr=True)
    assert from_frame(frame, bytes(image), has_fxsr=True) == bytes(image)


def test_a_frame_of_fnsave_leaves_sse_alone() -> None:
    current = Fxsave(mxcsr=0x1F80)
    current.xmm_space[0] = 7
    frame = Fpstate(cw=0x27F, tag=0xFFFF, magic=0xFFFF)
    image = Fxsave.from_buffer_copy(from_frame(frame, bytes(current), has_fxsr=True))
    assert (image.cwd, image.mxcsr, image.xmm_space[0]) == (0x27F, 0x1F80, 7)


def test_the_cpu_says_which_bits_mxcsr_has() -> None:
    frame = Fpstate()
    frame._fxsr[24:28] = b"\xff" * 4
    current = bytes(Fxsave(mxcsr_mask=0xFFFF))
    assert Fxsave.from_buffer_copy(from_frame(frame, current, has_fxsr=True)).mxcsr == 0xFFFF


def test_without_fxsave_only_the_first_part_counts() -> None:
    ring3 = Ring3()
    ring3.program.has_fxsr = False
    ring3.program.fpu = fresh_image(has_fxsr=False)
    before, seen = ring3.program.fpu, []

    def handler(signal: int, frame: int) -> None:
        at = ring3.words(frame + 8 + 76, 1)[0]
        seen.extend(ring3.words(at, 28))
        assert not ring3.program.user.write(at, struct.pack("<I", 0xFFFF027F))

    ring3.set_action(10, ring3.handler(handler))
    ring3.kill_self(10)
    assert (seen[0], seen[2], seen[27]) == (0xFFFF037F, 0xFFFFFFFF, 0xFFFF0000)
    assert ring3.program.fpu == struct.pack("<I", 0xFFFF027F) + before[4:]
