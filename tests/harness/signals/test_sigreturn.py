# SPDX-License-Identifier: GPL-2.0-or-later
"""A frame that the program wrote itself never gives it more than it had."""

from ctypes import sizeof
from random import Random

import pytest

from harness.signals import Died
from harness.signals import sigreturn as way_back
from harness.signals.fpstate import Fxsave
from harness.signals.numbers import ALL, SIGSEGV, UNBLOCKABLE
from harness.signals.structures import Fpstate, RtSigframe, Sigcontext, Sigframe
from kernel_model.arch_i386.segment import USER_CS, USER_DS
from tests.harness.signals.ring3 import Ring3

IOPL, IF, NT, VM = 3 << 12, 1 << 9, 1 << 14, 1 << 17
TLS = 0x33
FRAMES = 20_000


def context(ring3: Ring3, **changes: int) -> Sigcontext:
    values = {"cs": USER_CS, "ss": USER_DS, "ds": USER_DS, "es": USER_DS, "eip": 0x1234}
    return Sigcontext(**values | {"esp": int(ring3.regs.esp)} | changes)


def plain_return(ring3: Ring3, sc: Sigcontext, mask: int = 0) -> bool:
    """Whether the program survives."""
    sc.oldmask = mask & 0xFFFFFFFF
    place = ring3.program.put(bytes(Sigframe(sc=sc, extramask=mask >> 32)))
    ring3.regs.esp = place + 8
    return trap(ring3, 119)


def rt_return(ring3: Ring3, frame: RtSigframe) -> bool:
    ring3.regs.esp = ring3.program.put(bytes(frame)) + 4
    return trap(ring3, 173)


def trap(ring3: Ring3, number: int) -> bool:
    ring3._trap(number, ())
    if isinstance(ring3.next, Died):
        assert ring3.next.signal == SIGSEGV
        return False
    return True


def is_ring_3(ring3: Ring3) -> bool:
    regs, program = ring3.regs, ring3.program
    data = {0, USER_DS, USER_CS, *program.thread_selectors}
    return (
        regs.xcs == USER_CS
        and regs.xss in data - {0, USER_CS}
        and {regs.xds, regs.xes, program.fs_selector, program.gs_selector} <= data
        and regs.eflags & (IOPL | IF | NT | VM) == IF
        and not program.signals.blocked & UNBLOCKABLE
        and Fxsave.from_buffer_copy(program.fpu_state()).mxcsr & ~0xFFBF == 0
    )


@pytest.mark.parametrize("cs", [0, 0x10, 0x13, 0x18, 0x2B, 0x60, 0xFFFF, TLS])
def test_no_other_code_segment(cs: int) -> None:
    ring3 = Ring3()
    assert not plain_return(ring3, context(ring3, cs=cs))


@pytest.mark.parametrize("ss", [0, 3, 0x10, 0x18, 0x23, 0x60, 0xFFFF, TLS])
def test_no_stack_segment_of_the_kernel(ss: int) -> None:
    ring3 = Ring3()
    assert not plain_return(ring3, context(ring3, ss=ss))


def test_own_segments_are_kept_and_others_become_0() -> None:
    ring3 = Ring3()
    ring3.program.thread_selectors = (TLS,)
    sc = context(ring3, ds=0x18, es=0x28, fs=0x60, gs=TLS & ~3)
    assert plain_return(ring3, sc)
    assert (ring3.regs.xds, ring3.regs.xes) == (0, USER_DS)
    assert (ring3.program.fs_selector, ring3.program.gs_selector) == (0, TLS)


def test_flags_are_those_that_popf_sets() -> None:
    ring3 = Ring3()
    assert plain_return(ring3, context(ring3, eflags=0xFFFFFFFF))
    assert ring3.regs.eflags == 0x40DD5 | 0x202
    assert plain_return(ring3, context(ring3, eflags=0))
    assert ring3.regs.eflags == 0x202


def test_kill_and_stop_cannot_be_blocked() -> None:
    ring3 = Ring3()
    assert plain_return(ring3, context(ring3), ALL)
    assert ring3.signals.blocked == ALL & ~UNBLOCKABLE


@pytest.mark.parametrize("esp", [0, 4, 0x100, 0xBFFFFFF0, 0xC0000000, 0xFFFFFFFF])
@pytest.mark.parametrize("number", [119, 173])
def test_a_frame_that_is_not_there(esp: int, number: int) -> None:
    ring3 = Ring3()
    ring3.regs.esp = esp
    assert not trap(ring3, number)


@pytest.mark.parametrize("address", [4, 0xBFFFFFFF, 0xC0000000, 0xFFFFFF00])
def test_an_fpu_state_that_is_not_there(address: int) -> None:
    ring3 = Ring3()
    assert not plain_return(ring3, context(ring3, fpstate=address))


def test_without_an_fpu_state_the_fpu_is_as_new() -> None:
    ring3 = Ring3()
    ring3.program.set_fpu_state(bytes(Fxsave(cwd=0, mxcsr=0)))
    assert plain_return(ring3, context(ring3))
    image = Fxsave.from_buffer_copy(ring3.program.fpu_state())
    assert (image.cwd, image.mxcsr) == (0x37F, 0x1F80)


def test_mxcsr_gets_no_reserved_bit() -> None:
    ring3 = Ring3()
    state = Fpstate()
    state._fxsr[24:28] = b"\xff" * 4
    assert plain_return(ring3, context(ring3, fpstate=ring3.program.put(bytes(state))))
    assert Fxsave.from_buffer_copy(ring3.program.fpu_state()).mxcsr == 0xFFBF


def random_frame(source: Random, ring3: Ring3) -> RtSigframe:
    """Random bytes, with enough right in them to get far."""
    frame = RtSigframe.from_buffer_copy(source.randbytes(sizeof(RtSigframe)))
    sc = frame.uc.uc_mcontext
    if source.random() < 0.8:
        sc.cs, sc.ss = source.choice([USER_CS, USER_CS & ~3]), source.choice([USER_DS, TLS])
    if source.random() < 0.8:
        sc.esp = source.randrange(ring3.program.base, ring3.program.base + ring3.program.size)
    if source.random() < 0.8:
        sc.fpstate = source.choice([0, ring3.program.put(source.randbytes(624))])
    return frame


def survivors(count: int) -> int:
    """How many of ``count`` hostile frames the program survives; ring 3 it is after each."""
    source, alive = Random(6), 0
    ring3 = Ring3()
    ring3.program.thread_selectors = (TLS,)
    for _ in range(count):
        frame = random_frame(source, ring3)
        survived = (
            rt_return(ring3, frame)
            if source.random() < 0.5
            else plain_return(ring3, frame.uc.uc_mcontext, frame.uc.uc_sigmask)
        )
        alive += survived
        assert is_ring_3(ring3)
    return alive


def test_hostile_frames_give_nothing() -> None:
    assert FRAMES // 4 < survivors(FRAMES) < FRAMES


def test_a_mask_that_lets_iopl_through_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(way_back, "RESTORED_EFLAGS", way_back.RESTORED_EFLAGS | IOPL)
    with pytest.raises(AssertionError):
        survivors(100)


def test_an_unchecked_selector_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(way_back, "_data_selector", lambda process, selector: selector)
    with pytest.raises(AssertionError):
        survivors(100)
