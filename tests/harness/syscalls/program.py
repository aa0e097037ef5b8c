# SPDX-License-Identifier: GPL-2.0-or-later
"""A program of a test: memory, a task, and a driver that answers what its system calls ask.

Memory is a few ranges of bytes; everything else faults, as the kernel's half does. Several tasks
of one :class:`Machine` run in turn, so that what blocks one may be done by another.
"""

import errno
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from harness.signals import SignalState
from harness.signals.fpstate import fresh_image
from harness.syscalls.futex_queues import Futexes
from harness.syscalls.names import NAMES
from harness.syscalls.requests import (
    Call,
    CopyFromUser,
    CopyToUser,
    Interrupted,
    RestartSystemCall,
    SignalPending,
    StrncpyFromUser,
    WaitUntil,
)
from harness.syscalls.restartable import RestartableSequences
from harness.syscalls.table import TABLE
from harness.syscalls.task import Limits, MemoryUse, Names, Usage
from harness.vfs.credentials import Credentials
from harness.vfs.descriptors import DescriptorTable
from harness.vfs.filesystem import FileSystem
from harness.vfs.namei import Context
from harness.vfs.quota import Quota
from kernel_model.arch_i386.segment import USER_CS, USER_DS
from kernel_model.structs.ptrace import PT_REGS

NUMBERS = {name: number for number, name in NAMES.items()}
START = 1_700_000_000_000_000_000


class Memory:
    """Writable ranges; all else faults."""

    def __init__(self, *ranges: tuple[int, int]) -> None:
        self.ranges = {start: bytearray(length) for start, length in ranges}

    def _find(self, address: int) -> tuple[bytearray, int] | None:
        for start, data in self.ranges.items():
            if start <= address < start + len(data):
                return data, address - start
        return None

    def read(self, address: int, length: int) -> bytes:
        """Up to the first byte that is not there."""
        found = self._find(address)
        if found is None:
            return b""
        data, at = found
        return bytes(data[at : at + length])

    def write(self, address: int, content: bytes) -> int:
        """How many bytes were not written."""
        found = self._find(address)
        if found is None:
            return len(content)
        data, at = found
        part = content[: len(data) - at]
        data[at : at + len(part)] = part
        return len(content) - len(part)


@dataclass
class FakeClock:
    now: int = 0

    def monotonic(self) -> int:
        return self.now

    def realtime(self) -> int:
        self.now += 1000
        return START + self.now


@dataclass
class Machine:
    """What all tasks share."""

    files: FileSystem
    clock: FakeClock
    names: Names = field(default_factory=Names)
    futexes: Futexes = field(default_factory=Futexes)
    programs: list["Program"] = field(default_factory=list)
    source: Random = field(default_factory=lambda: Random(1))

    def random(self, count: int) -> bytes:
        return self.source.randbytes(count)

    def memory(self) -> MemoryUse:
        return MemoryUse(total=4096, free=1024, total_swap=8, free_swap=7)

    def find(self, pid: int) -> "Program | None":
        return next((task for task in self.programs if task.pid == pid), None)

    def tasks(self) -> Iterable["Program"]:
        return self.programs

    # -- for /proc ---------------------------------------------------------------------------

    def current(self) -> int:
        return self.programs[0].pid

    def pids(self) -> list[int]:
        return [task.pid for task in self.programs]

    def descriptors(self, pid: int) -> dict[int, Any]:
        return self._program(pid).files.files

    def root(self, pid: int) -> Any:
        return self._program(pid).fs.root

    def cwd(self, pid: int) -> Any:
        return self._program(pid).fs.cwd

    def executable(self, pid: int) -> bytes:
        return b"/bin/" + self._program(pid).comm

    def _program(self, pid: int) -> "Program":
        task = self.find(pid)
        if task is None:
            raise OSError(errno.ENOENT, "no such process")
        return task


def new_machine(root: Path | None = None, quota: Quota | None = None) -> Machine:
    clock = FakeClock()
    source = Random(7)
    machine = Machine(FileSystem(clock.realtime, source.randbytes, root, quota), clock)
    machine.files.proc.processes = machine
    return machine


@dataclass(eq=False)
class Program:
    """A task with memory at :attr:`base`, and a place there to pass texts and structures."""

    system: Machine
    pid: int = 1
    parent: int = 0
    comm: bytes = b"test"
    base: int = 0x08000000
    size: int = 1 << 20

    def __post_init__(self) -> None:
        self.tgid = self.group = self.session = self.pid
        self.output, self.error = bytearray(), bytearray()
        files = self.system.files
        self.files: DescriptorTable = files.standard_streams(
            self.output.extend, self.error.extend, b"input\n"
        )
        self.fs: Context = files.context(Credentials())
        self.limits = Limits()
        self.personality = self.nice = self.clear_child_tid = self.robust_list = 0
        self.parent_death_signal, self.dumpable, self.no_new_privileges = 0, 1, 0
        self.has_executed = False
        self.rseq = RestartableSequences()
        self.restart: Callable[[], Call] | None = None
        self.sent: list[int] = []
        self.user = Memory((self.base, self.size))
        self.interrupt = False
        self.signals = SignalState()
        self.registers: Any = PT_REGS.ctype(
            xcs=USER_CS, xds=USER_DS, xes=USER_DS, xss=USER_DS, eflags=0x202, eip=self.base
        )
        self.registers.esp = self.base + self.size // 2
        self.fs_selector = self.gs_selector = 0
        self.faulted = (0, 0, 0)
        self.parent_process: Program | None = None
        self.has_fxsr = True
        self.sigreturn_addresses: tuple[int, int] | None = None
        self.thread_selectors: tuple[int, ...] = ()
        self.fpu = fresh_image(has_fxsr=True)
        self.system.programs.append(self)
        self._next = self.base

    @property
    def address_space(self) -> Hashable:
        return self.pid

    def backing(self, address: int) -> tuple[Hashable, int] | None:
        if not self.user.read(address, 1):
            raise OSError(errno.EFAULT, "no memory there")
        return None

    def send_signal(self, signal: int) -> None:
        self.sent.append(signal)

    def usage(self) -> Usage:
        return Usage(user_time=1_500_000_000, minor_faults=44)

    def children_usage(self) -> Usage:
        return Usage()

    def fpu_state(self) -> bytes:
        return self.fpu

    def set_fpu_state(self, image: bytes) -> None:
        assert len(image) == 512
        self.fpu = image

    # -- its memory --------------------------------------------------------------------------

    def put(self, data: bytes) -> int:
        """Store ``data`` somewhere: the address."""
        if self._next + len(data) + 16 > self.base + self.size:
            self._next = self.base
        address = self._next
        assert not self.user.write(address, data)
        self._next += len(data) + 15 & ~15
        return address

    def text(self, text: bytes) -> int:
        return self.put(text + b"\0")

    def room(self, length: int) -> int:
        return self.put(bytes(length))

    def get(self, address: int, length: int) -> bytes:
        return self.user.read(address, length)

    # -- its calls ---------------------------------------------------------------------------

    def start(self, name: str, *arguments: int | bytes) -> "Running":
        """Begin a call; ``bytes`` are passed as the address of a text."""
        values = [
            self.text(value) if isinstance(value, bytes) else value & 0xFFFFFFFF
            for value in arguments
        ]
        call = TABLE[NUMBERS[name]]
        values += [0] * (call.argument_count - len(values))
        return Running(self, call.start(self, *values))

    def call(self, name: str, *arguments: int | bytes) -> int:
        """A call that does not have to wait for anybody else."""
        running = self.start(name, *arguments)
        running.go()
        assert running.result is not None, f"{name} waits"
        return running.result


class Running:
    """A call under way."""

    def __init__(self, program: Program, call: Call) -> None:
        self.program = program
        self._call = call
        self.result: int | None = None
        self.waiting: WaitUntil | None = None
        self.restart: RestartSystemCall | None = None
        self.requests = 0

    def go(self) -> "Running":
        """On to the end, or to where it waits for what does not hold; time is no wait."""
        answer: Any = None
        if self.waiting is not None:
            if not self.waiting.condition():
                return self
            answer = True
        try:
            while True:
                self.waiting = None
                self.requests += 1
                request = self._call.send(answer)
                if isinstance(request, WaitUntil) and not self._may_go_on(request):
                    self.waiting = request
                    return self
                answer = self._answer(request)
        except StopIteration as stop:
            self.result = stop.value
        except RestartSystemCall as restart:
            self.restart, self.result = restart, -restart.code
        return self

    def interrupt(self) -> "Running":
        """A signal comes while it waits."""
        assert self.waiting is not None
        try:
            request = self._call.throw(Interrupted())
            while True:
                request = self._call.send(self._answer(request))
        except StopIteration as stop:
            self.result = stop.value
        except RestartSystemCall as restart:
            self.restart, self.result = restart, -restart.code
        return self

    def _may_go_on(self, request: WaitUntil) -> bool:
        return request.condition() or request.deadline is not None

    def _answer(self, request: Any) -> Any:
        user = self.program.user
        match request:
            case CopyFromUser(address, length):
                assert length <= 1 << 21
                return user.read(address, length)
            case CopyToUser(address, data):
                return user.write(address, data)
            case StrncpyFromUser(address, limit):
                data = user.read(address, limit)
                if b"\0" in data:
                    return data.partition(b"\0")[0]
                return data if len(data) == limit else None
            case SignalPending():
                return self.program.interrupt
            case WaitUntil(condition, deadline):
                if condition():
                    return True
                assert deadline is not None
                clock = self.program.system.clock
                clock.now = max(clock.now, deadline)
                return False
        raise AssertionError(f"unknown request {request}")
