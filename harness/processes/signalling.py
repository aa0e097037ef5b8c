# SPDX-License-Identifier: GPL-2.0-or-later
"""Signals between the machine and its processes: sent, handled on the way to ring 3, told.

Where :mod:`harness.signals` says what a signal does, this says when: faults of ring 3 become
signals, a process that is about to return handles what waits, and one that dies of a fault leaves
a report of it. Nothing here can fail.
"""

from typing import TYPE_CHECKING, Final

from harness.processes.process import Ended, Process, State
from harness.signals import (
    Died,
    Stopped,
    do_signal,
    exception_info,
    force_sig_info,
    force_sigsegv,
    kernel_info,
    notify_ended,
    page_fault_info,
)
from harness.signals.rseq import resume
from kernel_model.arch_i386.signal import SigInfo

if TYPE_CHECKING:
    from harness.processes.linux import Linux

_FAULTS: Final = frozenset({4, 5, 7, 8, 11})
"""SIGILL, SIGTRAP, SIGBUS, SIGFPE, SIGSEGV: what a report may tell of."""


class Signalling:
    """The signals of one machine's processes."""

    def __init__(self, linux: "Linux") -> None:
        self._linux = linux

    # -- sending -------------------------------------------------------------------------------

    def send(self, process: Process, signal: int) -> None:
        """From the kernel."""
        process.signals.send(kernel_info(signal))

    def forced(self, process: Process, info: SigInfo) -> None:
        """A page fault of the current process became a signal."""
        force_sig_info(process, page_fault_info(info))

    def exception(self, process: Process, vector: int, error_code: int) -> None:
        """Any other exception of ring 3."""
        process.view.trap_no, process.view.error_code = vector, error_code
        force_sig_info(process, exception_info(process, vector))

    def child_ended(self, child: Process, ended: Ended) -> bool:
        """Tell its parent; whether the parent may still ask for it."""
        return not notify_ended(child, ended.wait_status, child.exit_signal)

    # -- handling ------------------------------------------------------------------------------

    def handle(self, process: Process) -> bool:
        """What the current process does instead of going back to ring 3, if anything.

        False: it has ended, or stands still.
        """
        while self._handle_signals(process):
            if not process.rseq.pending:
                return True
            if not self._linux.driver.start(process, resume(process)):
                force_sigsegv(process)
        return False

    def _handle_signals(self, process: Process) -> bool:
        signals = process.signals
        while process.unfinished or signals.wants_handling:
            outcome, process.unfinished = process.unfinished, None
            done = self._linux.driver.start(process, do_signal(process, outcome))
            if isinstance(done, Died):
                self._die(process, done)
                return False
            if isinstance(done, Stopped):
                process.unfinished = outcome
                return False
            if not signals.has_deliverable():
                break
        return not signals.stopped

    def _die(self, process: Process, died: Died) -> None:
        report = None
        if died.signal in _FAULTS and process.last_trap is not None:
            report = self._linux.machine.trap_report(process.registers, *process.last_trap)
        self._linux.kill_threads(process)
        self._linux.deaths.exit(process, Ended(0, died.signal, died.core, report))

    # -- timers --------------------------------------------------------------------------------

    def next_deadline(self) -> int | None:
        """When the next alarm of any process is due."""
        deadlines = (
            process.signals.group.timers.next_deadline()
            for process in self._linux.processes.values()
            if process.state is State.RUNNING
        )
        return min((moment for moment in deadlines if moment is not None), default=None)

    def expire_timers(self) -> None:
        """Send what is due by now."""
        now = self._linux.clock.monotonic()
        for process in list(self._linux.processes.values()):
            if process.pid == process.tgid and process.state is State.RUNNING:
                process.signals.group.expire_timers(now)
