# SPDX-License-Identifier: GPL-2.0-or-later
"""How processes come to be.

Models linux-2.4.22 ``kernel/fork.c: do_fork()``, ``copy_thread()`` (book 4.3). The child's
``task_struct`` and kernel stack are two frames of the model's; its registers are a copy of its
parent's with 0 in EAX. What can fail, as :class:`OSError`: ``EAGAIN`` at the limit of processes,
``ENOMEM``; nothing of the child is left then.
"""

import errno
import struct
from typing import TYPE_CHECKING, Final

from harness.processes.process import PT_REGS_BYTES, Process
from harness.signals import SignalState
from harness.syscalls.requests import Call, CopyToUser, WaitUntil
from harness.vfs.credentials import Credentials
from harness.vfs.failure import fail
from kernel_model.arch_i386.page import TASK_SIZE, virt_to_phys
from kernel_model.structs.sched import (
    CLONE_FILES,
    CLONE_FS,
    CLONE_PARENT,
    CLONE_SIGHAND,
    CLONE_THREAD,
    CLONE_VM,
)

if TYPE_CHECKING:
    from harness.processes.linux import Linux

CSIGNAL: Final = 0xFF
LAST_SIGNAL: Final = 64
FIRST_PID: Final = 2
MAX_PROCESSES: Final = 256


class Births:
    """Makes the processes of one machine."""

    def __init__(self, linux: "Linux") -> None:
        self._linux = linux
        self._kernel = linux.kernel
        self._next_pid = FIRST_PID

    def _new_task(self) -> int:
        """Memory for a process; :class:`OSError` when there is none, or there are too many."""
        if len(self._linux.processes) >= MAX_PROCESSES:
            fail(errno.EAGAIN)
        task = self._kernel.tasks.dup_task_struct()
        if not task:
            fail(errno.ENOMEM)
        return task

    def _new_pid(self) -> int:
        self._next_pid += 1
        return self._next_pid - 1

    def first(self) -> Process:
        """A process without a program, the child of nobody here."""
        linux, kernel = self._linux, self._kernel
        task = self._new_task()
        view = kernel.tasks.view(task)
        view.mm = view.active_mm = 0
        view.addr_limit = TASK_SIZE
        setup = linux.setup
        files = linux.files.standard_streams(
            setup.output, setup.error, setup.input, setup.host_input
        )
        context = linux.files.context(Credentials())
        pid = self._new_pid()
        process = Process(linux, pid, task, files, context, SignalState())
        process.group = process.session = pid
        self._register(process)
        return process

    def fork(self, parent: Process, flags: int, stack: int) -> Process:
        """A child of the current process; ``stack`` is its ESP, 0 for the same."""
        linux, kernel = self._linux, self._kernel
        if flags & CLONE_THREAD and not flags & CLONE_SIGHAND:
            fail(errno.EINVAL)
        if flags & CLONE_SIGHAND and not flags & CLONE_VM:
            fail(errno.EINVAL)
        linux.scheduler.save_fpu(parent)
        task = self._new_task()
        if kernel.fork.copy_mm(flags, kernel.tasks.view(task)):
            kernel.tasks.free_task_struct(task)
            fail(errno.ENOMEM)
        pid = self._new_pid()
        child = Process(
            linux,
            pid,
            task,
            parent.files if flags & CLONE_FILES else parent.files.fork(),
            parent.fs if flags & CLONE_FS else parent.fs.fork(parent.fs.credentials.copy()),
            parent.signals.thread()
            if flags & CLONE_THREAD
            else parent.signals.fork(
                share_actions=bool(flags & CLONE_SIGHAND), keep_stack=not flags & CLONE_VM
            ),
            parent_process=parent.parent_process if flags & CLONE_PARENT else parent,
            tgid=parent.tgid if flags & CLONE_THREAD else pid,
            group=parent.group,
            session=parent.session,
            limits=parent.limits.copy(),
            thread_areas=parent.thread_areas.copy(),
            executable=parent.executable,
            personality=parent.personality,
            nice=parent.nice,
            no_new_privileges=parent.no_new_privileges,
            rseq=parent.rseq.fork(share_memory=bool(flags & CLONE_VM)),
            exit_signal=_exit_signal(flags),
        )
        self._copy_thread(parent, child, stack)
        self._register(child)
        linux.checker.whole_space(parent)
        return child

    def _copy_thread(self, parent: Process, child: Process, stack: int) -> None:
        ram = self._linux.machine.ram
        saved = ram.read(virt_to_phys(parent.registers_at), PT_REGS_BYTES)
        ram.write(virt_to_phys(child.registers_at), saved)
        child.registers.eax = 0
        if stack:
            child.registers.esp = stack
        child.saved_selectors = self._linux.scheduler.selectors(parent)
        child.call, child.waiting = _first_steps(child), WaitUntil(lambda: True)
        next(child.call)

    def _register(self, process: Process) -> None:
        linux = self._linux
        linux.processes[process.pid] = process
        if process.parent_process is not None:
            process.parent_process.children.append(process)
        linux.deaths.watch_memory(process)
        linux.scheduler.add(process)

    def undo(self, child: Process) -> None:
        """The child does not come to be after all."""
        self._linux.deaths.vanish(child)


def _exit_signal(flags: int) -> int:
    """What the parent is sent at the end; a number that is no signal goes to nobody."""
    signal = flags & CSIGNAL
    return signal if signal <= LAST_SIGNAL else 0


def _first_steps(child: Process) -> Call:
    """What a child does before it returns to ring 3: leave its PID where its C library looks."""
    yield WaitUntil(lambda: True)
    if child.set_child_tid:
        yield CopyToUser(child.set_child_tid, struct.pack("<I", child.pid))
    return 0
