# SPDX-License-Identifier: GPL-2.0-or-later
"""A report on a machine whose program has done its work, and still has its memory.

The program is followed to its end; right before its address space goes, the machine stands still
and the report is gathered (:class:`harness.processes.watching.Observer`). One that a limit stops is
looked at where it stands.

What can fail: :class:`~kernel_model.errors.BadInput` for a program that cannot be run.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Protocol

from harness.machine import GuestStopped, Machine
from harness.processes.linux import Linux, Setup
from harness.processes.scheduler import TIMER_VECTOR, Deadlock
from harness.report.faults import FaultLog
from kernel_model.errors import BadInput, MmucheckError

if TYPE_CHECKING:
    from harness.processes.process import Process
    from harness.processes.watching import FaultSeen
    from harness.report.report import Report

ENVIRONMENT: Final = (b"PATH=/bin:/sbin:/usr/bin:/usr/sbin", b"HOME=/")


class Gather(Protocol):
    """Makes the report. ``note`` says why the program was stopped, ``problem`` what killed the
    kernel: then nothing more can run."""

    def __call__(self, log: FaultLog, *, note: str = "", problem: str = "") -> "Report": ...


@dataclass
class Program:
    """What to run: its path on the machine, arguments, what the machine is given besides."""

    path: bytes
    argv: Sequence[bytes]
    setup: Setup = field(default_factory=Setup)

    @property
    def name(self) -> str:
        return self.path.rpartition(b"/")[2].decode("utf-8", "backslashreplace")


class _Observer:
    """Writes faults down, and has the report made when the first process ends."""

    def __init__(self, log: FaultLog, gather: Gather) -> None:
        self.log = log
        self.gather = gather
        self.first: Process | None = None
        self.report: Report | None = None

    def faulted(self, fault: "FaultSeen") -> None:
        self.log.faulted(fault)

    def ending(self, process: "Process") -> None:
        if process is self.first and self.report is None:
            self.log.stop()
            self.report = self.gather(self.log)


def report_on_program(machine: Machine, program: Program, gather: Gather) -> "Report":
    """Run ``program`` on ``machine`` and make the report at its end."""
    log = FaultLog(machine, program.name)
    observer = _Observer(log, gather)
    program.setup.count, program.setup.observer = True, observer
    linux = Linux(machine, program.setup)
    try:
        observer.first = linux.start(program.path, program.argv, ENVIRONMENT)
        linux.run(observer.first)
    except BadInput:
        raise
    except (GuestStopped, Deadlock) as stopped:
        log.stop()
        if machine.cpu.ring:
            machine.cpu.interrupt(TIMER_VECTOR)
        observer.report = observer.report or gather(log, note=f"{program.name}: {stopped}")
    except MmucheckError as died:
        # A bug of the kernel, or of its bookkeeping: that is news, not the end of the report.
        log.stop()
        return gather(log, problem=f"the kernel died: {str(died).splitlines()[0]}")
    assert observer.report is not None
    assert observer.first is not None
    notes = (*observer.report.notes, *_ending(program, observer.first))
    linux.close()
    return replace(observer.report, notes=notes)


def _ending(program: Program, process: "Process") -> Iterator[str]:
    """What is worth telling of how the program ended, if it did so by itself."""
    ended = process.ended
    if ended is None:
        return
    if ended.signal:
        cause = f": {str(ended.report).splitlines()[0]}" if ended.report is not None else ""
        yield f"{program.name} was ended by {ended.signal_name}{cause}"
    elif ended.status:
        yield f"{program.name} ended with status {ended.status}"
