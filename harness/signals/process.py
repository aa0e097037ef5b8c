# SPDX-License-Identifier: GPL-2.0-or-later
"""What signals need of a process.

Models the parts of linux-2.4.22 ``struct task_struct`` and ``struct thread_struct`` that
``arch/i386/kernel/signal.c`` reads and writes. Processes themselves are made elsewhere.
"""

from collections.abc import Collection, Iterable
from typing import Any, Protocol, cast

from harness.signals.state import SignalState
from harness.syscalls.task import System, Task


class SignalledProcess(Task, Protocol):
    """A :class:`~harness.syscalls.task.Task` that gets signals."""

    signals: SignalState
    fs_selector: int
    """FS as ring 3 has it; not on the kernel stack."""
    gs_selector: int

    @property
    def registers(self) -> Any:
        """``struct pt_regs`` at the upper end of its kernel stack."""

    @property
    def faulted(self) -> tuple[int, int, int]:
        """CR2, trap number and error code of its last fault."""

    @property
    def parent_process(self) -> "SignalledProcess | None":
        """Who is told when it stops or goes on."""

    @property
    def has_fxsr(self) -> bool:
        """Whether its CPU has ``FXSAVE``; else :meth:`fpu_state` is what ``FNSAVE`` writes."""

    @property
    def sigreturn_addresses(self) -> tuple[int, int] | None:
        """Where its handlers return to, plain and with ``SA_SIGINFO``, unless that is its stack."""

    @property
    def thread_selectors(self) -> Collection[int]:
        """Selectors (ring 3) of its own descriptors in the GDT: any data segment register may
        hold them."""

    def fpu_state(self) -> bytes:
        """512 bytes."""

    def set_fpu_state(self, image: bytes) -> None: ...


def find(system: System, pid: int) -> SignalledProcess | None:
    return cast("SignalledProcess | None", system.find(pid))


def processes(system: System) -> Iterable[SignalledProcess]:
    """All; of a process with several threads, the first."""
    return [cast(SignalledProcess, task) for task in system.tasks() if task.pid == task.tgid]
