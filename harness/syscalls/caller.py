# SPDX-License-Identifier: GPL-2.0-or-later
"""What the system calls on memory and processes need of the process that calls.

They change what the model keeps, so their process has an address space in the model, and the
machine around it makes and ends processes. Both are made elsewhere (:mod:`harness.processes`),
which this package knows nothing of.
"""

from collections.abc import Sequence
from typing import Protocol, Self, TypeVar

from harness.syscalls.task import System, Task
from harness.syscalls.tls import ThreadAreas
from harness.vfs.regular import RegularFile
from kernel_model.kernel import Kernel

C = TypeVar("C")
"""The processes of one machine."""


class FilesToMap(Protocol):
    """The files of programs, as the model maps them."""

    def open(self, file: RegularFile, name: str, mode: int) -> int:
        """A ``struct file *`` with one reference; 0: no memory."""


class Machine(System, Protocol[C]):
    """The machine; what fails raises :class:`OSError`."""

    @property
    def kernel(self) -> Kernel: ...

    @property
    def mapped_files(self) -> FilesToMap: ...

    def fork(self, parent: C, flags: int, stack: int) -> C:
        """``do_fork()``; ``stack`` is the child's ESP, 0 for the same."""

    def abandon(self, child: C) -> None:
        """One that never ran does not come to be after all."""

    def execve(self, process: C, path: bytes, argv: list[bytes], envp: list[bytes]) -> None:
        """Let the current process run another program."""

    def exit(self, process: C, status: int) -> None: ...

    def exit_group(self, process: C, status: int) -> None:
        """The same of all its threads."""

    def children_to_wait_for(self, process: C, pid: int) -> Sequence[C]:
        """Those that ``wait4(pid)`` means."""

    def waitable(self, children: Sequence[C], options: int) -> tuple[C, int] | None:
        """The first that has something to tell, and the status word that tells it."""

    def waited_for(self, parent: C, child: C) -> None:
        """The parent knows now."""

    def load_thread_areas(self, process: C) -> None:
        """Its segments have changed while it runs."""


class Caller(Task, Protocol):
    """A :class:`~harness.syscalls.task.Task` with an address space in the model."""

    thread_areas: ThreadAreas
    set_child_tid: int
    """Where its PID is to be written when it first runs."""
    vfork_done: bool
    """Whether the parent that waits for it in ``vfork()`` may go on."""

    @property
    def system(self) -> Machine[Self]: ...

    @property
    def mm(self) -> int:
        """Its ``struct mm_struct *``."""
