# SPDX-License-Identifier: GPL-2.0-or-later
"""The signal programs of ``guest/user``, told in Python, print what they print on Linux.

The truth is ``tests/data/linux-i386-signals``: the output of the C programs on a real kernel.
"""

import struct

from harness.signals.numbers import SIG_BLOCK, SIG_DFL, SIG_IGN, SIG_SETMASK, SIG_UNBLOCK, bit
from tests.harness.signals.ring3 import Ring3, recorded

SIGINFO, ONSTACK, RESTART, NODEFER, RESETHAND = 4, 1 << 27, 1 << 28, 1 << 30, 1 << 31
HUP, INT, KILL, USR1, SEGV, USR2, ALRM, STOP, WINCH = 1, 2, 9, 10, 11, 12, 14, 19, 28


class Masks(Ring3):
    """``signal_masks.c``."""

    depth = 0
    raised = False

    def told(self, signal: int, frame: int) -> None:
        info = self.words(frame + 16, 6)
        self.depth += 1
        self.show("handler", signal)
        self.show(" depth", self.depth)
        self.show(" code", info[2])
        self.show(" value", info[5] if signal >= 32 else 0)
        self.show(" blocked", self.blocked())
        self.depth -= 1

    def raising(self, signal: int, frame: int) -> None:
        self.told(signal, frame)
        if not self.raised:
            self.raised = True
            self.depth += 1
            self.kill_self(signal)
            self.kill_self(USR2)
            self.depth -= 1
            self.print("end of the outer handler")

    def queue(self, signal: int, code: int, value: int) -> int:
        pid = self.program.pid
        info = struct.pack("<iiiIII", signal, 0, code, pid, 0, value).ljust(128, b"\0")
        return self.call("rt_sigqueueinfo", pid, signal, self.program.put(info))

    def pending(self) -> None:
        room = self.program.room(8)
        self.call("rt_sigpending", room, 8)
        low, high = self.words(room, 2)
        self.show("pending", low)
        self.show("pending high", high)
        self.call("sigpending", room)
        self.show("pending of old", self.words(room, 1)[0])

    def main(self) -> None:
        self.told_at, self.raising_at = self.handler(self.told), self.handler(self.raising)
        self.order()
        self.nesting()
        self.ignoring()
        self.waiting()
        self.refusals()

    def order(self) -> None:
        self.print("-- order")
        for signal in (USR1, USR2, SEGV, 34, 35):
            self.set_action(signal, self.told_at, SIGINFO)
        chosen = bit(USR1) | bit(USR2) | bit(SEGV) | 6 << 32
        self.block(SIG_BLOCK, chosen)
        for signal in (USR2, USR1, USR1, SEGV):
            self.kill_self(signal)
        self.show("queued", self.queue(34, -1, 1))
        self.show("queued", self.queue(35, -1, 2))
        self.show("queued", self.queue(34, -1, 3))
        self.show("forged", self.queue(34, -6, 4))
        self.pending()
        self.block(SIG_UNBLOCK, chosen)
        self.pending()

    def action(self, signal: int) -> list[int]:
        room = self.program.room(20)
        self.call("rt_sigaction", signal, 0, room, 8)
        return self.words(room, 5)

    def nesting(self) -> None:
        self.print("-- nesting")
        self.set_action(USR1, self.raising_at, SIGINFO)
        self.kill_self(USR1)
        self.print("-- NODEFER, RESETHAND")
        self.set_action(USR1, self.told_at, SIGINFO | NODEFER | RESETHAND, bit(USR2))
        self.kill_self(USR1)
        handler, flags, _, low, _ = self.action(USR1)
        self.show("handler after", handler)
        self.show("flags after", flags)
        self.show("mask after", low)

    def ignoring(self) -> None:
        self.print("-- ignoring")
        self.set_action(USR1, SIG_IGN)
        self.block(SIG_SETMASK, bit(USR1) | bit(WINCH))
        self.kill_self(USR1)
        self.kill_self(WINCH)
        self.pending()
        self.set_action(USR1, SIG_IGN)
        self.pending()
        self.set_action(WINCH, SIG_DFL)
        self.pending()
        self.block(SIG_SETMASK, 0)

    def waiting(self) -> None:
        put, room = self.program.put, self.program.room(128)
        chosen = put((bit(USR1) | 4 << 32).to_bytes(8, "little"))
        moment = put(struct.pack("<ii", 0, 1000))
        self.print("-- waiting")
        self.set_action(USR1, self.told_at, SIGINFO)
        self.block(SIG_BLOCK, bit(USR1) | 4 << 32)
        self.show("none", self.call("rt_sigtimedwait", chosen, room, moment, 8))
        self.queue(35, -1, 77)
        self.kill_self(USR1)
        self.show("first", self.call("rt_sigtimedwait", chosen, room, moment, 8))
        self.show("code", self.words(room, 3)[2])
        self.show("second", self.call("rt_sigtimedwait", chosen, room, 0, 8))
        self.show("code", self.words(room, 3)[2])
        self.show("value", self.words(room, 6)[5])
        moment = put(struct.pack("<ii", 0, 1000000000))
        self.show("bad time", self.call("rt_sigtimedwait", chosen, 0, moment, 8))
        self.kill_self(USR1)
        self.show("sigsuspend", self.call("rt_sigsuspend", put(bytes(8)), 8))
        self.show("blocked", self.blocked())
        self.kill_self(USR1)
        self.show("old sigsuspend", self.call("sigsuspend", 0, 0, bit(USR2)))
        self.show("blocked", self.blocked())

    def refusals(self) -> None:
        pid, room, full = self.program.pid, self.program.room(20), self.program.put(b"\xff" * 20)
        self.print("-- refusals and old calls")
        self.show("SIGKILL", self.set_action(KILL, SIG_IGN))
        self.show("signal 0", self.set_action(0, SIG_IGN))
        self.show("signal 65", self.set_action(65, SIG_IGN))
        self.show("size", self.call("rt_sigaction", USR1, 0, 0, 4))
        self.show("address", self.call("rt_sigaction", USR1, 4, 0, 8))
        self.show("read SIGKILL", self.call("rt_sigaction", KILL, 0, room, 8))
        self.show("how", self.call("rt_sigprocmask", 3, full, 0, 8))
        self.show("kill 65", self.kill_self(65))
        self.show("kill -1", self.kill_self(-1))
        self.show("tkill 0", self.call("tkill", 0, USR1))
        self.show("no process", self.call("kill", 0x3FFFFFFF, 0))
        self.show("myself", self.call("kill", pid, 0))
        flags = 0xFFFFFFFF & ~SIGINFO
        self.show("all flags", self.set_action(40, SIG_IGN, flags, (1 << 64) - 1))
        low, high = self.action(40)[3:]
        self.show("mask", low)
        self.show("mask high", high)
        self.show("signal", int(self.call("signal", USR2, SIG_IGN) != SIG_IGN))
        self.show("signal again", self.call("signal", USR2, SIG_DFL))
        self.show("flags", self.action(USR2)[1])
        self.call("ssetmask", 0xFFFFFFFF)
        self.show("ssetmask", self.call("ssetmask", 0))
        old = self.program.put(bit(INT).to_bytes(4, "little"))
        self.show("old block", self.call("sigprocmask", SIG_BLOCK, old, old))
        self.show("old mask", self.words(old, 1)[0])
        self.show("sgetmask", self.call("sgetmask"))


class Stack(Ring3):
    """``signal_stack.c`` up to its stack overflow, which needs real instructions."""

    size = 16384

    def main(self) -> None:
        self.stack = self.program.room(self.size)
        told, nested = self.handler(self.told), self.handler(self.nested)
        self.show_stack("at first")
        self.set_stack("too small", 0, 2047)
        self.set_stack("unknown flags", 4, self.size)
        self.set_stack("set", 0, self.size)
        self.show_stack("set")
        self.set_action(USR1, told, SIGINFO | ONSTACK)
        self.set_action(USR2, nested, ONSTACK)
        self.kill_self(USR1)
        self.show_stack("after")
        self.set_action(USR1, told, SIGINFO)
        self.kill_self(USR1)
        self.set_stack("disarming", 1 << 31, self.size)
        self.show_stack("disarming")
        self.set_action(USR1, told, SIGINFO | ONSTACK)
        self.kill_self(USR1)
        self.show_stack("after")

    def on_stack(self, address: int) -> int:
        return int(self.stack <= address < self.stack + self.size)

    def show_stack(self, name: str) -> None:
        room = self.program.room(12)
        self.show(name, self.call("sigaltstack", 0, room))
        start, flags, size = self.words(room, 3)
        self.show(" sp", start - self.stack if start else -1)
        self.show(" flags", flags)
        self.show(" size", size)

    def set_stack(self, name: str, flags: int, size: int) -> None:
        wanted = self.program.put(struct.pack("<III", self.stack, flags, size))
        self.show(name, self.call("sigaltstack", wanted, 0))

    def told(self, signal: int, frame: int) -> None:
        start, flags, size = self.words(frame + 144 + 8, 3)
        esp = self.words(frame + 144 + 20 + 28, 1)[0]
        self.show("handler on the stack", self.on_stack(frame))
        self.show(" program on the stack", self.on_stack(esp))
        self.show(" uc_stack sp", int(start == self.stack))
        self.show(" uc_stack flags", flags)
        self.show(" uc_stack size", size)
        self.show_stack(" sigaltstack in the handler")
        self.set_stack(" change in the handler", 0, self.size)
        if signal == USR1:
            self.kill_self(USR2)

    def nested(self, signal: int, frame: int) -> None:
        self.show("nested handler on the stack", self.on_stack(frame))


class Restart(Ring3):
    """``signal_restart.c`` up to the timer of the program's own time."""

    handled = 0

    def main(self) -> None:
        self.plain, self.feed = self.handler(self.nothing), self.handler(self.feeding)
        ends, self.byte = self.program.room(8), self.program.text(b"x")
        self.call("pipe", ends)
        self.read_end, self.write_end = self.words(ends, 2)
        self.interrupted_calls()
        self.timers()

    def nothing(self, signal: int, frame: int) -> None:
        self.handled += 1

    def feeding(self, signal: int, frame: int) -> None:
        self.handled += 1
        self.call("write", self.write_end, self.byte, 1)

    def timer(self, *words: int) -> int:
        return self.program.put(struct.pack("<4i", *words))

    def after_alarm(self, name: str, call: str, *arguments: int, blocked: int = 0) -> None:
        self.handled = 0
        self.call("setitimer", 0, self.timer(0, 0, 0, 20000), 0)
        self.block(SIG_SETMASK, blocked)
        self.show(name, self.call(call, *arguments))
        self.show(" handled", self.handled)

    def interrupted_calls(self) -> None:
        put, info = self.program.put, self.program.room(128)
        sleep, left = put(struct.pack("<ii", 0, 400_000_000)), self.program.room(8)
        none, alarm = put(bytes(8)), put(bit(ALRM).to_bytes(8, "little"))
        read = ("read", self.read_end, self.byte, 1)
        self.set_action(ALRM, self.plain)
        self.after_alarm("read", *read)
        self.set_action(ALRM, self.feed, RESTART)
        self.after_alarm("read with SA_RESTART", *read)
        self.after_alarm("pause with SA_RESTART", "pause")
        self.after_alarm("nanosleep", "nanosleep", sleep, left)
        rest = self.words(left, 2)
        self.show(" left of it", int(rest[0] == 0 and 300_000_000 < rest[1] < 400_000_000))
        self.after_alarm("sigsuspend", "rt_sigsuspend", none, 8)
        wait = ("rt_sigtimedwait", alarm, info, 0, 8)
        self.after_alarm("sigtimedwait", *wait, blocked=bit(ALRM))
        self.show(" code", self.words(info, 3)[2])
        self.show(" pid", self.words(info, 4)[3])
        other = put(bit(USR1).to_bytes(8, "little"))
        self.after_alarm("sigtimedwait for another", "rt_sigtimedwait", other, 0, 0, 8)
        self.set_action(ALRM, SIG_IGN)
        sleep = put(struct.pack("<ii", 0, 60_000_000))
        self.after_alarm("nanosleep undisturbed", "nanosleep", sleep, 0)

    def timers(self) -> None:
        room = self.program.room(16)
        bad = self.timer(0, 0, 0, 1_000_000)
        self.show("bad timer", self.call("setitimer", 0, bad, 0))
        self.show("no timer", self.call("setitimer", 3, bad, 0))
        self.show("setitimer", self.call("setitimer", 0, self.timer(5, 0, 100, 0), 0))
        self.show("getitimer", self.call("getitimer", 0, room))
        interval, _, seconds, rest = self.words(room, 4)
        self.show(" interval", interval)
        self.show(" seconds", int(seconds == 99 or (seconds == 100 and rest == 0)))
        for seconds in (50, 0, 0):
            self.show("alarm", self.call("alarm", seconds))
        self.set_action(ALRM, self.plain)
        self.handled = 0
        self.call("setitimer", 0, self.timer(0, 10000, 0, 10000), 0)
        while self.handled < 3:
            self.call("pause")
        self.show("interval timer", int(self.handled >= 3))


def test_masks_queues_and_order_are_those_of_linux() -> None:
    program = Masks()
    program.main()
    assert program.lines == recorded("signal_masks")


def test_other_stacks_are_used_as_on_linux() -> None:
    program = Stack()
    program.main()
    lines = recorded("signal_stack")
    assert program.lines == lines[: len(program.lines)]
    assert len(lines) - len(program.lines) == 10


def test_interrupted_calls_end_or_start_again_as_on_linux() -> None:
    program = Restart()
    program.main()
    lines = recorded("signal_restart")
    assert program.lines == lines[: len(program.lines)]
    assert lines[len(program.lines) :] == ["virtual timer 1"]
