# SPDX-License-Identifier: GPL-2.0-or-later
"""Who runs, and what becomes of each trap.

Models linux-2.4.22 ``kernel/sched.c: schedule()``, ``arch/i386/kernel/process.c: __switch_to()``
and the way back to ring 3 of ``entry.S``. Every process has a kernel stack; whoever waits for
the CPU stands on his own behind the hypercall of a trap, with his registers at its upper end, so
letting another go on means: CR3, the stack of the TSS, the descriptors of thread data, and ESP.
The FPU, FS and GS are changed by guest code (``switch_to`` in ``guest/kernel/entry.S``).

Processes take turns in a fixed order. One that does not trap is interrupted after a number of
instructions, which are counted from the moment when a second one can run: so every run is the same.

What can fail: a trap of ring 0 that nobody serves ends the machine
(:class:`~harness.machine.GuestDied`); :class:`Deadlock` when everybody waits for ever.
"""

import select
from collections import deque
from typing import TYPE_CHECKING, Any, Final

from harness.cpu import Stop, StopReason
from harness.machine import GuestDied, GuestStopped
from harness.processes.clock import SLICE_NANOSECONDS, TRAP_NANOSECONDS
from harness.processes.driver import WAITS, Driver
from harness.processes.limits import INSTRUCTIONS_OF_A_CALL
from harness.processes.process import Process, State
from harness.syscalls.requests import RestartSystemCall
from harness.syscalls.tls import FIRST_ENTRY
from harness.traps import PAGE_FAULT
from kernel_model.arch_i386.page import virt_to_phys
from kernel_model.errors import MmucheckError

if TYPE_CHECKING:
    from harness.processes.linux import Linux

TIMER_VECTOR: Final = 0x20
SYSCALL_VECTOR: Final = 0x80
SLICE_INSTRUCTIONS: Final = 500_000
_TSS_ESP0: Final = 4
_RING: Final = 3
_SELECTOR_TRAPS: Final = frozenset({11, 12, 13})
"""#NP, #SS and #GP: what loading a bad selector raises."""
_HOST_WAIT_SECONDS: Final = 0.1


class Deadlock(MmucheckError):
    """Every process waits, and nothing can wake one."""


class Scheduler:
    """The processes of one machine, and the CPU between them."""

    def __init__(self, linux: "Linux", driver: Driver) -> None:
        self._linux = linux
        self._machine = machine = linux.machine
        self._kernel = linux.kernel
        self._driver = driver
        self._queue: deque[Process] = deque()
        self.current: Process | None = None
        """Whose kernel stack and address space the CPU works on."""
        self._fpu_owner: Process | None = None
        """Whose FPU state, FS and GS the CPU holds."""
        self._slice_used_up = False
        self._uncounted = 0
        """Instructions that system calls stand for, since the current process came."""
        self._counting = linux.setup.count
        self._dead_tasks: list[int] = []
        self.switches = 0
        self.instructions = 0
        """Those of whole slices, once they are counted, and what system calls stand for."""
        suffix = "" if linux.kernel.config.features.fxsr else "_fnsave"
        self._switch_to = machine.symbol(f"switch_to{suffix}")
        self._save_fpu = machine.symbol(f"save_fpu{suffix}")
        self._restore_all = machine.symbol("restore_all")
        self._tss = virt_to_phys(machine.symbol("tss"))
        self._gdt = virt_to_phys(machine.symbol("gdt"))

    # -- processes come and go -----------------------------------------------------------------

    def add(self, process: Process) -> None:
        """A new process waits for its turn; behind all others."""
        self._queue.append(process)

    def remove(self, process: Process) -> None:
        """It will never run again. Its stack may be in use until another one's is."""
        if process in self._queue:
            self._queue.remove(process)
        if self._fpu_owner is process:
            self._fpu_owner = None

    def free_later(self, task: int) -> None:
        """Free a ``task_struct`` once nobody stands on its stack."""
        self._dead_tasks.append(task)

    def enter(self, process: Process | None) -> None:
        """Let the kernel work for ``process`` from now on; ``None``: for nobody."""
        if process is self.current:
            return
        image, registers = self._kernel.image, self._machine.cpu.registers
        self._kernel.tasks.context_switch(process.task if process else image.init_task)
        if self.current is not None:
            self.current.rseq.interrupted()
        self.current = process
        registers.esp = process.registers_at if process else image.kernel_stack_top(image.init_task)
        self.switches += 1
        for task in self._dead_tasks:
            self._kernel.tasks.free_task_struct(task)
        self._dead_tasks.clear()

    # -- the FPU ---------------------------------------------------------------------------------

    def save_fpu(self, process: Process) -> None:
        """Have the state of ``process`` in its ``task_struct``."""
        if self._fpu_owner is process:
            self._machine.call(self._save_fpu, process.fpu_area)

    def fpu_changed(self, process: Process) -> None:
        """The state in the ``task_struct`` is the one that ``process`` goes on with."""
        if self._fpu_owner is process:
            self._fpu_owner = None

    def selectors(self, process: Process) -> tuple[int, int]:
        """Its FS and GS."""
        registers = self._machine.cpu.registers
        if self._fpu_owner is process:
            return registers.fs, registers.gs
        return process.saved_selectors

    def set_selectors(self, process: Process, fs: int, gs: int) -> None:
        """Guest code loads them before the process goes on: they may be no good."""
        self.save_fpu(process)
        process.saved_selectors = (fs, gs)
        self.fpu_changed(process)

    # -- running ---------------------------------------------------------------------------------

    def run(self) -> None:
        """Run until no process is left."""
        self._prepare_return()
        cpu, limits = self._machine.cpu, self._linux.limits
        entry: int | None = cpu.registers.eip
        if entry != self._switch_to:
            entry = self._restore_all
        while self.current is not None:
            count = self._instructions_for_one_run()
            reason = cpu.start(entry, max_instructions=count, timeout_seconds=limits.seconds_left())
            entry = None
            self._ended_run(reason, count)

    def _instructions_for_one_run(self) -> int:
        """How far the CPU may go; 0: as far as it likes."""
        limits = self._linux.limits
        # Once instructions were counted they stay so: this emulator, told to count no more, may
        # stand still at an instruction for ever.
        self._counting = self._counting or self._time_matters()
        left = max(limits.instructions - self.instructions, 1) if limits.instructions else 0
        if not self._counting:
            return left
        return min(left or SLICE_INSTRUCTIONS, SLICE_INSTRUCTIONS)

    def _time_matters(self) -> bool:
        """Whether somebody waits for the current process to have run for a while."""
        if self.current is not None and self.current.signals.group.timers.armed:
            return True
        return any(
            process is not self.current
            and process.state is State.RUNNING
            and self._driver.may_go_on(process)
            for process in self._queue
        )

    def _ended_run(self, reason: StopReason, count: int) -> None:
        """What to do when the CPU comes back: mostly, to go on."""
        if reason.kind is Stop.INTERRUPTED:
            raise KeyboardInterrupt
        if reason.kind is Stop.DIED:
            raise GuestDied(self._machine.crash(str(reason)))
        if reason.kind is Stop.LIMIT_INSTRUCTIONS:
            self.instructions += count
            limit = self._linux.limits.instructions
            if limit and self.instructions >= limit:
                raise GuestStopped(StopReason(Stop.LIMIT_INSTRUCTIONS, f"{limit}"))
            self._machine.cpu.interrupt(TIMER_VECTOR)
        elif reason.kind is Stop.TIMEOUT:
            raise self._linux.limits.out_of_time()
        elif reason.kind is not Stop.HYPERCALL:
            raise GuestStopped(reason)

    # -- traps -----------------------------------------------------------------------------------

    def trap(self, regs: Any, vector: int, error_code: int, cr2: int) -> None:
        """Serve a trap of the current process, then let whoever may go on."""
        process = self.current
        if not regs.xcs & _RING:
            if vector == TIMER_VECTOR:
                # The kernel is not preempted: who stands in it goes back to ring 3 first.
                self._slice_used_up = True
                return
            if fixup := self._fixup(regs, vector):
                regs.eip = fixup
                return
        if process is None or not regs.xcs & _RING:
            self._machine.oops(regs, vector, error_code, cr2)
        assert process is not None
        self._linux.clock.advance(TRAP_NANOSECONDS)
        process.last_trap = None if vector == SYSCALL_VECTOR else (vector, error_code, cr2)
        if vector == SYSCALL_VECTOR:
            self._system_call(process)
        elif vector == TIMER_VECTOR:
            self._linux.clock.advance(SLICE_NANOSECONDS)
            process.signals.group.timers.charge(SLICE_NANOSECONDS)
            self._slice_used_up = True
        elif vector != PAGE_FAULT:
            self._linux.exception(process, vector, error_code)
        self._linux.checker.changed_pages(process)
        self._linux.expire_timers()
        self._prepare_return()
        if self.current is None or (not self._counting and self._time_matters()):
            self._machine.cpu.stop()

    def _fixup(self, regs: Any, vector: int) -> int:
        """Where the way back to ring 3 goes on when a selector of the process is no good; or 0."""
        return self._kernel.exception_table.search(regs.eip) if vector in _SELECTOR_TRAPS else 0

    def _spend(self, instructions: int) -> None:
        """Let limits and the time slice know of what the emulator does not count."""
        self.instructions += instructions
        self._uncounted += instructions
        self._slice_used_up |= self._uncounted >= SLICE_INSTRUCTIONS
        self._linux.limits.check_instructions(self.instructions)

    def _system_call(self, process: Process) -> None:
        self._spend(INSTRUCTIONS_OF_A_CALL)
        call = self._linux.system_call(process)
        self._carry_on(process, lambda: self._driver.start(process, call), call)

    def _carry_on(self, process: Process, step: Any, call: Any) -> None:
        """Take a step of a system call; put its result into EAX when it has one."""
        process.call = call
        try:
            result = step()
        except RestartSystemCall as restart:
            process.call, process.unfinished = None, restart
            self._linux.returned(process, -restart.code)
            return
        if result is WAITS:
            return
        process.call = None
        if isinstance(result, int) and process.state is State.RUNNING:
            process.registers.eax = result & 0xFFFFFFFF
            self._linux.returned(process, result)

    # -- back to ring 3 --------------------------------------------------------------------------

    def _prepare_return(self) -> None:
        """Find a process that may go on, and have the CPU go on with it."""
        process = self._next()
        if process is None:
            self.enter(None)
            return
        registers, ram = self._machine.cpu.registers, self._machine.ram
        registers.esp = process.registers_at
        ram.write32(self._tss + _TSS_ESP0, self._kernel.image.kernel_stack_top(process.task))
        if self._fpu_owner is not process:
            self._load_thread_areas(process)
            area = self._scratch_area()
            if self._fpu_owner is not None:
                area = self._fpu_owner.fpu_area
                self._fpu_owner.saved_selectors = self.selectors(self._fpu_owner)
            registers.eax, registers.edx = area, process.fpu_area
            registers.ecx, registers.edi = process.saved_selectors
            registers.eip = self._switch_to
            self._fpu_owner = process

    def _scratch_area(self) -> int:
        """Where the state of nobody goes: the first process never uses the FPU."""
        return self._kernel.image.init_task

    def load_thread_areas(self, process: Process) -> None:
        """Its descriptors have changed while it runs."""
        if self._fpu_owner is process:
            self._load_thread_areas(process)

    def _load_thread_areas(self, process: Process) -> None:
        for number, descriptor in enumerate(process.thread_areas.descriptors(), FIRST_ENTRY):
            self._machine.ram.write64(self._gdt + 8 * number, descriptor)

    def _next(self) -> Process | None:
        """The process to go on with; the current one as long as it may."""
        while True:
            process = self.current
            if process is not None and not self._slice_used_up and self._returns(process):
                return process
            self._slice_used_up, self._uncounted = False, 0
            candidates = [p for p in self._queue if p.alive]
            if not candidates:
                return None
            if not any(self._go_on(candidate) for candidate in candidates):
                self._idle(candidates)

    def _go_on(self, process: Process) -> bool:
        """Make ``process`` the current one if it can do something, and its turn the last."""
        if not self._driver.may_go_on(process) or not self._linux.schedulable(process):
            return False
        self._queue.remove(process)
        self._queue.append(process)
        self.enter(process)
        if process.call is not None and process.waiting is not None:
            call = process.call
            self._carry_on(process, lambda: self._driver.go_on(process, call), call)
        return True

    def _returns(self, process: Process) -> bool:
        """Whether the process goes back to ring 3, its signals handled."""
        if process.state is not State.RUNNING or process.waiting is not None:
            return False
        return self._linux.handle_signals(process)

    def _idle(self, waiting: list[Process]) -> None:
        """Nobody can do anything: time leaps, or the host's input is waited for."""
        hosts = [
            descriptor
            for process in waiting
            if process.waiting is not None
            for descriptor in process.waiting.host_descriptors
        ]
        deadline = self._linux.next_deadline(waiting)
        if hosts:
            if deadline is not None:
                # The host's time is not the machine's: look, and let the machine's go on.
                ready = select.select(hosts, [], [], 0)[0]
                if not ready:
                    self._linux.clock.leap(deadline)
            else:
                select.select(hosts, [], [], _HOST_WAIT_SECONDS)
                self._linux.limits.check_time()
        elif deadline is not None:
            self._linux.clock.leap(deadline)
        else:
            names = ", ".join(f"{p.pid} ({p.comm.decode('latin-1')})" for p in waiting)
            raise Deadlock(f"every process waits, and nothing can wake one: {names}")
        # Should time leap for ever, the limits see it.
        self._spend(INSTRUCTIONS_OF_A_CALL)
        self._linux.limits.check_time()
        self._linux.expire_timers()
