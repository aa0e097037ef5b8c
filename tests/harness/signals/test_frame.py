# SPDX-License-Identifier: GPL-2.0-or-later
"""The frame on the user stack, and what becomes of one that cannot be written.

The truth is what ``guest/user/signal_frames.c`` printed on a real kernel.
"""

import struct
from ctypes import sizeof

import pytest

from harness.signals import Died, GoesOn
from harness.signals.alternate_stack import AlternateStack
from harness.signals.fpstate import Fxsave
from harness.signals.numbers import SIGSEGV
from harness.signals.structures import Fpstate, RtSigframe, Sigcontext, Sigframe, Ucontext
from tests.harness.signals.ring3 import Ring3, recorded

SIGINFO, ONSTACK, RESTORER = 4, 1 << 27, 1 << 26
HUP, INT, QUIT, USR1, USR2, TERM = 1, 2, 3, 10, 12, 15
DF, CF = 1 << 10, 1
KNOWN = {"edi": 0xD1D1D1D1, "esi": 0x51515151, "ebp": 0xBBBB, "ecx": USR1, "edx": 0x0804B010}
REGISTERS = ("gs", "fs", "es", "ds", "edi", "esi", "ebp", "esp", "ebx", "edx", "ecx", "eax")
OTHERS = (
    "trapno",
    "err",
    "eip",
    "cs",
    "eflags",
    "esp_at_signal",
    "ss",
    "fpstate",
    "oldmask",
    "cr2",
)
PI = bytes.fromhex("35c26821a2da0fc90040")


def test_sizes_are_those_of_the_i386() -> None:
    sizes = {kind.__name__: sizeof(kind) for kind in (Sigcontext, Ucontext, Fpstate)}
    assert sizes == {"Sigcontext": 88, "Ucontext": 116, "Fpstate": 624}
    assert (sizeof(Sigframe), sizeof(RtSigframe)) == (732, 892)


class Frames(Ring3):
    """``signal_frames.c``."""

    def main(self) -> None:
        with_info = self.handler(self.with_info)
        self.show("rt_sigaction", self.set_action(USR1, with_info, SIGINFO, 1 << TERM - 1))
        self.kill_with_known_registers()
        without_info = self.handler(self.without_info)
        self.show("rt_sigaction", self.set_action(USR1, without_info, 0, 1 << QUIT - 1))
        self.block(2, 1 << HUP - 1)
        self.kill_with_known_registers()

    def kill_with_known_registers(self) -> None:
        regs, image = self.regs, Fxsave(cwd=0x37F, swd=0x3800, twd=0x80, mxcsr=0x1F80)
        image.st_space[:10] = PI
        image.xmm_space[16:32] = struct.pack("<4f", 1, 2, 3, 4)
        self.program.set_fpu_state(bytes(image))
        for name, value in KNOWN.items():
            setattr(regs, name, value)
        regs.ebx, regs.eflags = self.program.pid, 0x202 | DF | CF
        result = self.kill_self(USR1)
        after = Fxsave.from_buffer_copy(self.program.fpu_state())
        self.show("edi after", regs.edi)
        self.show("esi after", regs.esi)
        self.show("eax after", result)
        self.show("flags after", regs.eflags & 0x7701)
        self.show("xmm1 after", int.from_bytes(after.xmm_space[16:20], "little"))
        self.show("blocked after", self.blocked())

    def show_context(self, at: int) -> None:
        words = dict(zip((*REGISTERS, *OTHERS), self.words(at, 22), strict=True))
        fpstate = self.words(words["fpstate"], 156)
        for name in ("edi", "esi"):
            self.show(name, words[name])
        self.show("ebx == pid", int(words["ebx"] == self.program.pid))
        for name in ("ecx", "edx", "ebp", "eax"):
            self.show(name, words[name])
        self.show("eip after int 0x80", int(words["eip"] == 0x1002))
        self.show("esp == esp_at_signal", int(words["esp"] == words["esp_at_signal"]))
        for name in ("cs", "ds", "es", "ss", "gs"):
            self.show(name, words[name])
        self.show("DF in the program", words["eflags"] >> 10 & 1)
        self.show("CF in the program", words["eflags"] & 1)
        self.show("oldmask", words["oldmask"])
        self.show("x87 control word", fpstate[0] & 0xFFFF)
        self.show("x87 status word", fpstate[1] & 0xFFFF)
        self.show("x87 tag word", fpstate[2] & 0xFFFF)
        self.show("st0 exponent", fpstate[9] & 0xFFFF)
        self.show("st0 significand", fpstate[8])
        self.show("fxsave control word", fpstate[28] & 0xFFFF)
        self.show("fxsave tags", fpstate[29] & 0xFF)
        self.show("mxcsr", fpstate[34])
        self.show("xmm1", fpstate[72])
        self.show("xmm1 end", fpstate[75])

    def store(self, address: int, *values: int) -> None:
        assert not self.program.user.write(address, struct.pack(f"<{len(values)}I", *values))

    def with_info(self, signal: int, frame: int) -> None:
        code, _, info, context = self.words(frame, 4)
        flags = int(self.regs.eflags)
        siginfo, at = self.words(info, 5), context + 20
        self.show("handler of signal", signal)
        self.show("ESP + 4 modulo 16", (frame + 4) % 16)
        self.show("siginfo at", info - frame)
        self.show("ucontext at", context - frame)
        self.show("si_signo", siginfo[0])
        self.show("si_errno", siginfo[1])
        self.show("si_code", siginfo[2])
        self.show("si_pid is mine", int(siginfo[3] == self.program.pid))
        self.show("si_uid", siginfo[4])
        self.show("uc_link", self.words(context, 2)[1])
        self.show("uc_stack flags", self.words(context + 12, 1)[0])
        mask = self.words(context + 108, 2)
        self.show("uc_sigmask", mask[0])
        self.show("uc_sigmask high", mask[1])
        self.show("blocked", self.blocked())
        self.show("DF in the handler", flags >> 10 & 1)
        self.show("return code", self.words(code, 1)[0])
        self.show_context(at)
        self.store(at + 16, 0x1111, 0x2222)
        self.store(at + 44, 0x3333)
        self.store(at + 64, (self.words(at + 64, 1)[0] | 1 | 0x3000 | 0x4000) & ~0x200)
        self.store(context + 108, 1 << HUP - 1 | 1 << 8 | 1 << 18)

    def without_info(self, signal: int, frame: int) -> None:
        self.show("plain handler of signal", signal)
        self.show("ESP + 4 modulo 16", (frame + 4) % 16)
        self.show("return code", self.words(self.words(frame, 1)[0], 1)[0])
        self.show("blocked", self.blocked())
        self.show_context(frame + 8)
        self.store(frame + 8 + 16, 0x4444, 0x5555)
        self.store(frame + 8 + 44, 0x6666)
        self.store(frame + 8 + 80, 1 << INT - 1)


def test_frames_and_what_they_bring_back_are_those_of_linux() -> None:
    program = Frames()
    program.main()
    assert program.lines == recorded("signal_frames")


def test_three_arguments_are_in_registers_too() -> None:
    ring3, seen = Ring3(), []

    def handler(signal: int, frame: int) -> None:
        seen.append((ring3.regs.eax, ring3.regs.edx, ring3.regs.ecx))
        assert tuple(ring3.words(frame + 4, 3)) == seen[0]

    ring3.set_action(USR1, ring3.handler(handler), SIGINFO)
    ring3.kill_self(USR1)
    assert seen[0][0] == USR1


def test_the_program_may_bring_its_own_return_code() -> None:
    ring3, seen = Ring3(), []
    code = ring3.program.put(bytes.fromhex("b8 ad 00 00 00 cd 80 00"))
    handler = ring3.handler(lambda signal, frame: seen.append(ring3.words(frame, 1)[0]))
    action = struct.pack("<IIIQ", handler, SIGINFO | RESTORER, code, 0)
    ring3.call("rt_sigaction", USR1, ring3.program.put(action), 0, 8)
    assert ring3.kill_self(USR1) == 0
    assert seen == [code]


@pytest.mark.book("4.8", release="2.6")
@pytest.mark.parametrize("flags", [0, SIGINFO])
def test_a_kernel_with_a_vsyscall_page_lets_handlers_return_there(flags: int) -> None:
    ring3, seen = Ring3(), []
    plain = ring3.program.put(bytes.fromhex("58 b8 77 00 00 00 cd 80"))
    with_information = ring3.program.put(bytes.fromhex("b8 ad 00 00 00 cd 80 00"))
    ring3.program.sigreturn_addresses = (plain, with_information)
    handler = ring3.handler(lambda signal, frame: seen.append(ring3.words(frame, 1)[0]))
    ring3.set_action(USR1, handler, flags)
    assert ring3.kill_self(USR1) == 0
    assert seen == [with_information if flags else plain]


@pytest.mark.parametrize("esp", [0, 4, 100, 0x7000000, 0xBFFFFFF0, 0xFFFFFFFC])
@pytest.mark.parametrize("flags", [0, SIGINFO])
def test_without_a_stack_the_signal_is_sigsegv(esp: int, flags: int) -> None:
    ring3 = Ring3()
    ring3.set_action(USR1, ring3.handler(lambda signal, frame: None), flags)
    ring3.regs.esp = esp
    ring3.kill_self(USR1)
    assert isinstance(ring3.next, Died)
    assert ring3.next.signal == SIGSEGV
    assert not ring3.next.core


def test_a_handler_of_sigsegv_on_another_stack_saves_the_program() -> None:
    """It gets SIGSEGV for the frame that has no place, with the mask of before."""
    ring3, seen = Ring3(), []
    ring3.signals.stack = AlternateStack(ring3.program.room(8192), 8192)
    ring3.set_action(USR1, ring3.handler(lambda signal, frame: seen.append(signal)))

    def rescue(signal: int, frame: int) -> None:
        seen.append(signal)
        context = frame + 144 + 20
        stack = ring3.program.base + ring3.program.size // 2
        assert not ring3.program.user.write(context + 28, stack.to_bytes(4, "little"))

    ring3.set_action(SIGSEGV, ring3.handler(rescue), SIGINFO | ONSTACK)
    ring3.regs.esp = 0x100
    assert ring3.kill_self(USR1) == 0
    assert isinstance(ring3.next, GoesOn)
    assert seen == [SIGSEGV]


def test_a_sigsegv_handler_without_a_stack_is_the_end() -> None:
    ring3 = Ring3()
    ring3.set_action(SIGSEGV, ring3.handler(lambda signal, frame: None))
    ring3.regs.esp = 0x100
    ring3.kill_self(SIGSEGV)
    assert ring3.next == Died(ring3.next.info, False)
    assert ring3.next.signal == SIGSEGV


def test_a_full_alternate_stack_is_not_left_downwards() -> None:
    ring3 = Ring3()
    start = ring3.program.room(4096)
    ring3.signals.stack = AlternateStack(start, 2048)
    ring3.set_action(USR1, ring3.handler(lambda signal, frame: None), SIGINFO | ONSTACK)
    ring3.regs.esp = start + 500
    ring3.kill_self(USR1)
    assert isinstance(ring3.next, Died)
    assert ring3.next.signal == SIGSEGV
