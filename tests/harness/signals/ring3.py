# SPDX-License-Identifier: GPL-2.0-or-later
"""A ring 3 without a CPU: system calls, handlers in Python, the return code they come back by.

:class:`Ring3` is a program of ``tests.harness.syscalls.program`` whose handlers are functions, each
known by an address. After every system call signals are handled as on the way back to ring 3, and
handlers run until the program is where it was; a call that is to be made again is made again.
"""

import struct
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

from harness.signals import GoesOn, Next, do_signal
from harness.syscalls.names import NAMES
from harness.syscalls.requests import (
    CopyFromUser,
    CopyToUser,
    Interrupted,
    RestartSystemCall,
    SignalPending,
    WaitUntil,
)
from harness.syscalls.table import TABLE
from tests.harness.syscalls.program import NUMBERS, Program, new_machine

RECORDED = Path(__file__).parents[2] / "data" / "linux-i386-signals"
SITE = 0x1000
"""Where the program makes its calls; each handler has a place of its own, further on."""
HANDLER = 0x00400000

Handler = Callable[[int, int], None]
"""Gets the signal and the address of its frame."""


def recorded(name: str) -> list[str]:
    """What the guest program ``name`` printed on the host's kernel."""
    return (RECORDED / f"{name}.txt").read_text(encoding="ascii").splitlines()


class Ring3:
    """One program and what it does; ``lines`` is what it has to tell."""

    def __init__(self, program: Program | None = None) -> None:
        self.program = program or Program(new_machine())
        self.regs = self.program.registers
        self.signals = self.program.signals
        self.lines: list[str] = []
        self.next: Next = GoesOn()
        self._handlers: dict[int, Handler] = {}
        self._depth = 0

    # -- what programs do --------------------------------------------------------------------

    def print(self, text: str) -> None:
        self.lines.append(text)

    def show(self, name: str, value: int) -> None:
        """As ``show()`` of ``guest/user/signals.h`` prints it."""
        value -= 1 << 32 if value >> 31 == 1 else 0
        small = -4096 < value < 4096
        self.lines.append(f"{name} {value if small else hex(value & 0xFFFFFFFF)}")

    def handler(self, function: Handler) -> int:
        """The address of a handler."""
        address = HANDLER + 16 * len(self._handlers)
        self._handlers[address] = function
        return address

    def set_action(self, signal: int, handler: int, flags: int = 0, mask: int = 0) -> int:
        action = struct.pack("<IIIQ", handler, flags, 0, mask)
        return self.call("rt_sigaction", signal, self.program.put(action), 0, 8)

    def block(self, how: int, mask: int) -> int:
        return self.call("rt_sigprocmask", how, self.program.put(mask.to_bytes(8, "little")), 0, 8)

    def blocked(self) -> int:
        room = self.program.room(8)
        self.call("rt_sigprocmask", 0, 0, room, 8)
        return self.words(room, 1)[0]

    def kill_self(self, signal: int) -> int:
        return self.call("kill", self.program.pid, signal)

    def words(self, address: int, count: int) -> list[int]:
        return list(struct.unpack(f"<{count}I", self.program.get(address, 4 * count)))

    # -- what the machine does -----------------------------------------------------------------

    def call(self, name: str, *arguments: int) -> int:
        """A system call, and all handlers up to its return; its result as a signed number."""
        site, regs = SITE + 16 * self._depth, self.regs
        regs.eip, regs.eax = site, NUMBERS[name]
        while regs.eip == site:
            number = regs.eax
            self._trap(number, arguments)
            self._run_handlers()
        if isinstance(self.next, GoesOn):
            assert regs.eip == site + 2, hex(regs.eip)
        return int.from_bytes(int(regs.eax).to_bytes(4, "little"), "little", signed=True)

    def _trap(self, number: int, arguments: tuple[int, ...]) -> None:
        regs, call = self.regs, TABLE[number]
        regs.orig_eax, regs.eip = number, regs.eip + 2
        values = [value & 0xFFFFFFFF for value in arguments]
        values += [0] * (call.argument_count - len(values))
        outcome = None
        try:
            regs.eax = self.drive(call.start(self.program, *values)) & 0xFFFFFFFF
        except RestartSystemCall as restart:
            outcome = restart
        self.deliver(outcome)

    def deliver(self, outcome: RestartSystemCall | None = None) -> Next:
        self.next = self.drive(do_signal(self.program, outcome))
        return self.next

    def _run_handlers(self) -> None:
        while self.regs.eip in self._handlers and isinstance(self.next, GoesOn):
            self.run_handler()

    def run_handler(self) -> None:
        """One handler, and the way back by the code that its frame names."""
        regs = self.regs
        frame = int(regs.esp)
        function = self._handlers[regs.eip]
        code, signal = self.words(frame, 2)
        self._depth += 1
        function(signal, frame)
        self._depth -= 1
        regs.esp = frame + 4
        instructions = self.program.get(code, 8)
        if instructions[0] == 0x58:
            regs.esp += 4
            instructions = instructions[1:]
        assert instructions[0] == 0xB8
        assert instructions[5:7] == b"\xcd\x80"
        regs.eip = code + 5
        number = int.from_bytes(instructions[1:5], "little")
        assert NAMES[number] in ("sigreturn", "rt_sigreturn")
        self._trap(number, ())

    def drive(self, part: Generator[Any, Any, Any]) -> Any:
        answer: Any = None
        try:
            while True:
                answered = isinstance(answer, Interrupted)
                request = part.throw(answer) if answered else part.send(answer)
                answer = self._answer(request)
        except StopIteration as stop:
            return stop.value

    def _answer(self, request: Any) -> Any:
        match request:
            case CopyFromUser(address, length):
                return self.program.user.read(address, length)
            case CopyToUser(address, data):
                return self.program.user.write(address, data)
            case SignalPending():
                return self.signals.has_deliverable()
            case WaitUntil():
                return self._wait(request)
        raise AssertionError(f"unknown request {request}")

    def _wait(self, request: WaitUntil) -> Any:
        clock, group = self.program.system.clock, self.signals.group
        while True:
            if request.condition():
                return True
            if self.signals.has_deliverable():
                return Interrupted()
            if request.deadline is not None and clock.now >= request.deadline:
                return False
            moments = [request.deadline, group.timers.next_deadline()]
            known = [moment for moment in moments if moment is not None]
            assert known, "waits for ever"
            clock.now = max(clock.now, min(known))
            group.expire_timers(clock.now)
