# SPDX-License-Identifier: GPL-2.0-or-later
"""The machine as its programs see it: processes, files, time, system calls.

Models linux-2.4.22 ``kernel/fork.c: do_fork()``, ``kernel/exit.c: do_exit()`` and
``fs/exec.c: do_execve()`` on top of the model's memory manager. The first program is given from
outside; :meth:`Linux.run` ends when no process is left.

What can fail: :class:`~kernel_model.errors.BadInput` for a first program that cannot be run,
:class:`~harness.machine.GuestStopped` at a limit, or when the kernel would retry for ever,
:class:`~harness.machine.GuestDied` for what kills the kernel itself. Whatever a program does wrong
is its own affair: an error or a signal.
"""

import errno
import os
import random
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from harness.binfmt_elf import ElfLoader, NoMemory, TooManyArguments
from harness.cpu import Stop, StopReason
from harness.elf import BadElf
from harness.machine import GuestStopped, Limits, Machine
from harness.processes.births import Births
from harness.processes.checking import Check, Checker
from harness.processes.clock import VirtualClock
from harness.processes.deaths import Deaths
from harness.processes.driver import Driver
from harness.processes.huge_files import mount_huge_pages
from harness.processes.limits import RunLimits
from harness.processes.mapped_files import MappedFiles
from harness.processes.proc_texts import ProcTexts
from harness.processes.process import Ended, Process, State
from harness.processes.programs import Found, Programs
from harness.processes.scheduler import TIMER_VECTOR, Scheduler
from harness.processes.signalling import Signalling
from harness.processes.watching import Observer, Trace, Watching
from harness.signals import kernel_info
from harness.syscalls.all_calls import ALL_CALLS
from harness.syscalls.caller import Caller
from harness.syscalls.futex_queues import Futexes
from harness.syscalls.names import call_name
from harness.syscalls.requests import Call
from harness.syscalls.restartable import RestartableSequences
from harness.syscalls.task import MemoryUse, Names
from harness.syscalls.tls import ThreadAreas
from harness.uaccess import UserAccess
from harness.vfs.failure import fail
from harness.vfs.filesystem import FileSystem
from harness.vfs.proc import path_of
from harness.vfs.quota import Quota
from kernel_model.arch_i386.fault import FaultKind
from kernel_model.arch_i386.signal import SIGKILL, SigInfo
from kernel_model.errors import BadInput, EndlessLoop
from kernel_model.proc import meminfo
from kernel_model.structs.fs import FMODE_READ

Sink = Callable[[bytes], None]
_VERSIONS: Final = {
    "2.4": b"#1 mmucheck, memory of 2.4.22",
    "2.6": b"#1 mmucheck, memory of 2.6.11",
}
"""What ``uname()`` says beside the release."""


@dataclass
class Setup:
    """What a machine with programs is given: its files, its streams, its bounds.

    ``root`` is a folder of the host to show read-only, ``programs`` are files (path -> bytes) put
    into the tree; ``host_input`` a descriptor of the host to read standard input from.
    ``count`` has instructions counted from the start, which costs half of the speed.
    """

    root: Path | None = None
    files: dict[bytes, bytes] = field(default_factory=dict)
    output: Sink = lambda data: None
    error: Sink = lambda data: None
    input: bytes = b""
    host_input: int | None = None
    seed: int = 0
    limits: Limits = field(default_factory=Limits)
    quota: Quota | None = None
    trace: Trace | None = None
    check: Check = Check.NONE
    count: bool = False
    observer: Observer | None = None


class Linux:
    """A :class:`~harness.syscalls.task.System` over ``machine``."""

    def __init__(self, machine: Machine, setup: Setup) -> None:
        self.machine = machine
        self.kernel = machine.kernel
        machine.cpu.virtual_8086 = False
        self.setup = setup
        self.clock = VirtualClock(self.kernel.slab.pass_time)
        self.names = Names(version=_VERSIONS[self.kernel.config.release])
        self.futexes = Futexes()
        self._random = random.Random(setup.seed)
        self.limits = RunLimits(setup.limits)
        self.files = FileSystem(self.clock.realtime, self.random, setup.root, setup.quota)
        for path, content in setup.files.items():
            self.files.add_file(path, content, 0o755)
        self.huge_files = mount_huge_pages(self.files, self.kernel)
        self.mapped_files = MappedFiles(self.kernel.hostfs)
        self.programs = Programs(self.kernel.config.ram)
        self.uaccess = UserAccess(machine)
        self.loader = ElfLoader(self.kernel, self.uaccess)
        self.driver = Driver(self.uaccess, self.clock)
        self.scheduler = Scheduler(self, self.driver)
        self.births = Births(self)
        self.deaths = Deaths(self)
        self.signalling = Signalling(self)
        self.processes: dict[int, Process] = {}
        self.calls: Counter[str] = Counter()
        self.unknown_calls: Counter[str] = Counter()
        self.watching = Watching(self, setup.trace, setup.observer)
        self.checker = Checker(self, setup.check)
        self.files.proc.processes = ProcTexts(self)

    # -- running ---------------------------------------------------------------------------------

    def start(self, path: bytes, argv: Sequence[bytes], envp: Sequence[bytes] = ()) -> Process:
        """Make the first process, which runs the program at ``path``.

        :raises BadInput: if it cannot be run; nothing of it is left then.
        """
        process = self.births.first()
        self.scheduler.enter(process)
        try:
            self.execve(process, path, list(argv), list(envp))
            if process.signals.has_deliverable():
                name = path.decode("latin-1")
                raise BadInput(f"{name}: does not fit into memory: give more --ram")
        except OSError as error:
            self.deaths.exit(process, Ended(127))
            text = os.strerror(error.errno or errno.ENOEXEC)
            raise BadInput(f"{path.decode('latin-1')}: cannot be run: {text}") from error
        except BaseException:
            self.deaths.exit(process, Ended(127))
            raise
        finally:
            # Until it runs, its kernel stack keeps its registers: nobody else may stand on it.
            self.scheduler.enter(None)
        return process

    def run(self, process: Process) -> Ended:
        """Run until no process is left; how ``process`` ended."""
        machine, faults = self.machine, self.kernel.page_faults
        handler, machine.on_trap = machine.on_trap, self.scheduler.trap
        watcher, machine.on_fault = machine.on_fault, self._faulted
        forced, faults.force_sig_info = faults.force_sig_info, self._force_sig_info
        try:
            self.scheduler.run()
        except EndlessLoop as loop:
            raise GuestStopped(StopReason(Stop.STUCK, str(loop))) from loop
        finally:
            machine.on_trap, machine.on_fault = handler, watcher
            faults.force_sig_info = forced
        assert process.ended is not None
        return process.ended

    def close(self) -> None:
        """Give back what the machine holds: every process, every cached program.

        A limit may have stopped the CPU in ring 3; an interrupt takes it out of there.
        """
        if self.machine.cpu.ring:
            self.machine.cpu.interrupt(TIMER_VECTOR)
        for process in list(self.processes.values()):
            if process.alive:
                self.scheduler.enter(process)
                # Nobody is left to whom its locks matter.
                process.robust_list = process.clear_child_tid = 0
                self.deaths.exit(process, Ended(0, SIGKILL))
        self.scheduler.enter(None)
        self.programs.release()
        self.kernel.tasks.leave_borrowed_mm()
        if self.huge_files:
            self.huge_files.unmount()
        self.files.close()

    # -- programs ----------------------------------------------------------------------------

    def execve(self, process: Process, path: bytes, argv: list[bytes], envp: list[bytes]) -> None:
        """Let the current process run the program at ``path`` instead of its own.

        :raises OSError: when it goes on with its own; past that it is killed for what fails.
        """
        found = self.programs.find(process.fs, path, argv)
        where = path_of(found.file, process.fs.root).decode("latin-1")
        file = self.mapped_files.open(found.file.inode, where, FMODE_READ)
        try:
            if not file:
                fail(errno.ENOMEM)
            leave = partial(self.deaths.leave_memory, process)
            seed = self.random(16)
            start = self.loader.load(found.image, file, found.argv, envp, seed, leave)
        except NoMemory as error:
            if process.has_executed or process.parent_process is not None:
                self.deaths.exit(process, Ended(0, SIGKILL))
                return
            raise BadInput(str(error)) from error
        except (BadElf, TooManyArguments) as error:
            if process.has_executed or process.parent_process is not None:
                fail(errno.E2BIG if isinstance(error, TooManyArguments) else errno.ENOEXEC)
            raise
        finally:
            if file:
                self.kernel.files.fput(file)
            found.file.put()
        self._become(process, found, path)
        process.start_registers(*start)
        self.checker.whole_space(process)

    def _become(self, process: Process, found: Found, path: bytes) -> None:
        """What else of a process changes with its program (``flush_old_exec()``)."""
        process.comm = path.rpartition(b"/")[2]
        process.executable = path_of(found.file, process.fs.root)
        process.has_executed = process.vfork_done = True
        process.thread_areas = ThreadAreas()
        process.rseq = RestartableSequences()
        process.files.exec()
        process.signals.exec()

    def fork(self, parent: Process, flags: int, stack: int) -> Process:
        return self.births.fork(parent, flags, stack)

    def exit(self, process: Process, status: int) -> None:
        self.deaths.exit(process, Ended(status))

    def exit_group(self, process: Process, status: int) -> None:
        """The threads of the process are killed with it."""
        self.kill_threads(process)
        self.deaths.exit(process, Ended(status))

    def kill_threads(self, process: Process) -> None:
        """End the other threads of a process that ends."""
        for other in list(self.processes.values()):
            if other is not process and other.tgid == process.tgid and other.alive:
                other.signals.send_to_thread(kernel_info(SIGKILL))

    # -- system calls --------------------------------------------------------------------------

    def system_call(self, process: Process) -> Call:
        """The call that the registers of ``process`` ask for, counted."""
        regs = process.registers
        number = int(regs.orig_eax)
        name = call_name(number)
        self.calls[name] += 1
        call = ALL_CALLS.get(number)
        if call is None:
            return _not_implemented()
        registers = (regs.ebx, regs.ecx, regs.edx, regs.esi, regs.edi, regs.ebp)
        caller: Caller = process
        return call.start(caller, *(int(register) for register in registers))

    def returned(self, process: Process, result: int) -> None:
        """A system call has a result. Unknown is also what a call does not know of its own."""
        if result == -errno.ENOSYS:
            self.unknown_calls[call_name(int(process.registers.orig_eax))] += 1
        self.watching.call(process, result)

    def _faulted(self, kind: FaultKind, regs: int, error_code: int, cr2: int) -> None:
        """A page fault was served, or became a signal."""
        self.watching.fault(kind, regs, error_code, cr2)
        if self.scheduler.current is not None:
            self.checker.changed_pages(self.scheduler.current)

    # -- signals -------------------------------------------------------------------------------

    def send_signal(self, process: Process, signal: int) -> None:
        self.signalling.send(process, signal)

    def _force_sig_info(self, info: SigInfo) -> None:
        process = self.scheduler.current
        assert process is not None
        self.signalling.forced(process, info)

    def exception(self, process: Process, vector: int, error_code: int) -> None:
        self.signalling.exception(process, vector, error_code)

    def handle_signals(self, process: Process) -> bool:
        """Whether the current process still goes back to ring 3."""
        return self.signalling.handle(process)

    def schedulable(self, process: Process) -> bool:
        return process.state is State.RUNNING and not process.signals.stopped

    def next_deadline(self, waiting: list[Process]) -> int | None:
        """The nearest moment at which something happens by itself."""
        deadlines = [p.waiting.deadline for p in waiting if p.waiting and p.waiting.deadline]
        timers = (self.signalling.next_deadline(), self.files.next_event())
        return min([*deadlines, *(t for t in timers if t is not None)], default=None)

    def expire_timers(self) -> None:
        self.signalling.expire_timers()

    # -- what system calls ask of the machine ------------------------------------------------------

    def random(self, count: int) -> bytes:
        return self._random.randbytes(count)

    def memory(self) -> MemoryUse:
        info = meminfo.read(self.kernel)
        return MemoryUse(
            total=info.mem_total,
            free=info.mem_free,
            total_swap=info.swap_total,
            free_swap=info.swap_free,
            total_high=info.high_total,
            free_high=info.high_free,
        )

    def find(self, pid: int) -> Process | None:
        return self.processes.get(pid)

    def tasks(self) -> Iterable[Process]:
        return list(self.processes.values())

    def children_to_wait_for(self, process: Process, pid: int) -> list[Process]:
        return self.deaths.children(process, pid)

    def waitable(self, children: Sequence[Process], options: int) -> tuple[Process, int] | None:
        return self.deaths.waitable(children, options)

    def waited_for(self, parent: Process, child: Process) -> None:
        self.deaths.waited_for(parent, child)

    def abandon(self, child: Process) -> None:
        self.births.undo(child)

    def load_thread_areas(self, process: Process) -> None:
        self.scheduler.load_thread_areas(process)


def _not_implemented() -> Call:
    yield from ()
    return -errno.ENOSYS
