# SPDX-License-Identifier: GPL-2.0-or-later
"""A ring-3 program: its process, its address space, its run.

Models what linux-2.4.22 ``fs/exec.c``, ``fs/binfmt_elf.c`` and ``kernel/exit.c`` make of a program.
Its file is mapped into an address space of the model's own; pages come as they are touched, and
at the end all of them go back.

What can fail: :class:`~kernel_model.errors.BadInput` when the program does not fit into the
machine's memory. A program that faults ends with a signal: :attr:`Ended.signal`.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from harness.architecture import Ring
from harness.binfmt_elf import ElfLoader
from harness.crash import CrashReport
from harness.elf import ElfImage
from harness.machine import Machine
from harness.program_file import ProgramFile
from harness.syscalls import SYSCALL_VECTOR, SystemCalls
from harness.traps import PAGE_FAULT
from harness.uaccess import UserAccess
from kernel_model.arch_i386.page import TASK_SIZE
from kernel_model.arch_i386.signal import SIGKILL, SIGSEGV, SigInfo
from kernel_model.errors import BadInput, EndlessLoop
from kernel_model.mm.gfp import PF_MEMALLOC, PF_MEMDIE
from kernel_model.mm.oom_kill import Candidate
from kernel_model.structs.fs import FMODE_READ

FIRST_PID: Final = 2
_SIGNALS: Final = {0: 8, 3: 5, 4: 11, 5: 11, 6: 4, 11: 11, 12: 11, 13: 11, 14: 11, 16: 8, 17: 7}
"""Trap -> signal, as ``arch/i386/kernel/traps.c`` sends them."""
_SIGNAL_NAMES: Final = {
    **{4: "SIGILL", 5: "SIGTRAP", 7: "SIGBUS", 8: "SIGFPE", 9: "SIGKILL", 11: "SIGSEGV"},
}


@dataclass(frozen=True, slots=True)
class Ended:
    """How a program ended: by ``exit(status)``, or by a signal with the report of its fault."""

    status: int
    signal: int = 0
    report: CrashReport | None = None

    @property
    def exit_status(self) -> int:
        """As a shell has it: 128 + n for signal n."""
        return 128 + self.signal if self.signal else self.status

    @property
    def signal_name(self) -> str:
        return _SIGNAL_NAMES.get(self.signal, f"signal {self.signal}")


class Process:
    """One program in an address space of its own, on ``machine``."""

    def __init__(
        self,
        machine: Machine,
        program: ElfImage,
        argv: Sequence[bytes] = (),
        envp: Sequence[bytes] = (),
        output: Callable[[int, bytes], None] | None = None,
    ) -> None:
        self._machine = machine
        self._kernel = machine.kernel
        self.program = program
        self._output = output
        self.written: dict[int, bytearray] = {1: bytearray(), 2: bytearray()}
        self.system_calls = SystemCalls(self)
        self.uaccess = UserAccess(machine)
        self._ended: Ended | None = None
        self._siginfo: SigInfo | None = None
        self.task = self._new_task()
        self._candidate = Candidate(
            FIRST_PID, program.name, 0, kill=self._oom_kill, measure=self._total_vm
        )
        self._kernel.oom_killer.processes.append(self._candidate)
        with self.current():
            try:
                self._exec(argv or (program.name.encode(),), envp)
            except BaseException:
                self.release()
                raise

    def _new_task(self) -> int:
        tasks = self._kernel.tasks
        task = tasks.dup_task_struct()
        if not task:
            raise BadInput("no memory for a process: give the machine more --ram")
        view = tasks.view(task)
        view.mm = view.active_mm = 0
        view.addr_limit, view.pid = TASK_SIZE, FIRST_PID
        tasks.set_name(task, self.program.name.rpartition("/")[2])
        return task

    def _total_vm(self) -> int:
        """Pages of all VMAs; a process that is only being made is worth killing, too."""
        return max(int(self._kernel.spaces.areas.mm(self.mm).total_vm) if self.mm else 0, 1)

    def _oom_kill(self) -> None:
        """Until it dies, it may use the last frames; then its allocations fail."""
        self._kernel.tasks.view(self.task).flags |= PF_MEMALLOC | PF_MEMDIE

    def _exec(self, argv: Sequence[bytes], envp: Sequence[bytes]) -> None:
        name = self.program.name
        try:
            file = self._kernel.hostfs.open(ProgramFile(self.program.file), name, FMODE_READ)
            if not file:
                raise BadInput(f"{name}: does not fit into memory: give more --ram")
            try:
                loader = ElfLoader(self._kernel, self.uaccess)
                self.entry, self.esp = loader.load(self.program, file, argv, envp)
            finally:
                self._kernel.files.fput(file)
            if self._candidate.dying:
                raise BadInput(f"{name}: does not fit into memory: give more --ram")
        except EndlessLoop as error:
            raise BadInput(f"{name}: does not fit into memory: give more --ram") from error

    @property
    def mm(self) -> int:
        """Its ``struct mm_struct *``; 0 when it has ended."""
        return int(self._kernel.tasks.view(self.task).mm) if self.task else 0

    @property
    def pgd(self) -> int:
        """Physical address of its page directory."""
        return self._kernel.memory.tables.pgd(self.mm)

    @contextmanager
    def current(self) -> Iterator[None]:
        """Let it be the current process for a while."""
        before = self._kernel.image.current
        if before == self.task:
            yield
            return
        self._kernel.tasks.context_switch(self.task)
        try:
            yield
        finally:
            if self._kernel.image.current == self.task:
                self._kernel.tasks.context_switch(before)

    def release(self) -> None:
        """The process ends: everything it has goes back."""
        kernel = self._kernel
        kernel.oom_killer.processes.remove(self._candidate)
        with self.current():
            kernel.exit.exit_mm()
        if kernel.image.current == self.task:
            kernel.tasks.context_switch(kernel.image.init_task)
        kernel.tasks.leave_borrowed_mm()
        kernel.tasks.free_task_struct(self.task)
        self.task = 0

    # -- its run -----------------------------------------------------------------------------

    def run(self) -> Ended:
        """Run to the end, and free everything."""
        machine, faults = self._machine, self._kernel.page_faults
        handler, machine.on_trap = machine.on_trap, self._trap
        forced, faults.force_sig_info = faults.force_sig_info, self._force_sig_info
        try:
            with self.current():
                machine.call("enter_user", self.entry, self.esp)
        finally:
            machine.on_trap, faults.force_sig_info = handler, forced
            self.release()
        assert self._ended is not None
        return self._ended

    def _force_sig_info(self, info: SigInfo) -> None:
        self._siginfo = info

    def _trap(self, regs: Any, vector: int, error_code: int, cr2: int) -> None:
        if vector == SYSCALL_VECTOR:
            self.system_calls.call(regs)
            return
        if not regs.xcs & Ring.USER:
            self._machine.oops(regs, vector, error_code, cr2)
        signal = _SIGNALS.get(vector, SIGSEGV)
        if vector == PAGE_FAULT and self._siginfo is not None:
            signal = self._siginfo.signo
        report = None
        if signal != SIGKILL:
            report = self._machine.trap_report(regs, vector, error_code, cr2)
        self._end(Ended(0, signal, report))

    def _end(self, ended: Ended) -> None:
        self._ended = ended
        self._machine.cpu.stop()

    # -- what system calls ask -----------------------------------------------------------------

    def read(self, vaddr: int, length: int) -> bytes:
        """Its memory; fewer bytes where it may not read all of them itself."""
        return self.uaccess.copy_from_user(vaddr, length)

    def output(self, descriptor: int, data: bytes) -> None:
        self.written[descriptor] += data
        if self._output is not None:
            self._output(descriptor, data)

    def exit(self, status: int) -> None:
        self._end(Ended(status))
