# SPDX-License-Identifier: GPL-2.0-or-later
"""What the fixtures give: machines by the options of the run, comparisons, runs of guests.

What can fail: :class:`~harness.failures.Mismatch` for readings that differ,
:class:`~harness.failures.GuestCrashed` for a program that a signal ended, and what
:mod:`harness.machine` and :mod:`harness.processes.checking` raise.
"""

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pytest

from harness.bare_machine import BareMachine
from harness.crash import crash_report
from harness.diff import diff
from harness.diff_image import diff_tables
from harness.diff_report import Report
from harness.elf import load_elf
from harness.expectation import Expectation, Maps, expected
from harness.failures import GuestCrashed, Mismatch
from harness.machine import GuestStopped, Limits, Machine
from harness.monitors.entry_writers import EntryWriters
from harness.monitors.frames import FrameLedger
from harness.processes.checking import Check
from harness.processes.linux import Linux, Setup
from harness.processes.process import Ended
from harness.pytest_plugin.options import config_of_test, session_options
from harness.pytest_plugin.results import TestResults
from kernel_model.config import KernelConfig
from kernel_model.errors import BadInput

_ENVIRONMENT: Final = ("PATH=/bin:/sbin:/usr/bin:/usr/sbin", "HOME=/")


class Machines:
    """Kernels and machines for one test, as options, marker and backends have them."""

    def __init__(self, item: pytest.Item) -> None:
        self.config = config_of_test(item)
        self.session = session_options(item.config)

    def _new_kernel(self, config: KernelConfig | None = None) -> Any:
        kernel = self.session.backends.kernel(config or self.config)
        if hasattr(kernel, "image") and FrameLedger.of(kernel.image.events) is None:
            FrameLedger().listen(kernel.image.events)
        EntryWriters(kernel)
        return kernel

    def kernel(self, config: KernelConfig | None = None) -> Any:
        """A booted kernel with no CPU."""
        kernel = self._new_kernel(config)
        kernel.start_kernel()
        return kernel

    def machine(self, config: KernelConfig | None = None, *, image: Path | None = None) -> Machine:
        """A PC that has booted; ``image`` is a ring-0 program to take the place of ours."""
        kernel = self._new_kernel(config)
        return Machine(kernel, image=image, cpu=self.session.backends.cpu)

    def bare_machine(
        self, program: str | os.PathLike[str] | bytes, *, limits: Limits | None = None
    ) -> BareMachine:
        """A PC with ``program`` as its kernel, in as much memory as the test's machine has."""
        return BareMachine(
            program if isinstance(program, bytes) else Path(program),
            ram=self.config.ram,
            cpu_model=self.config.cpu_model,
            cpu=self.session.backends.cpu,
            limits=limits,
        )


class Comparing:
    """The fixture ``diff``."""

    def __init__(
        self, request: pytest.FixtureRequest, machines: Machines, results: TestResults
    ) -> None:
        self._request = request
        self._results = results
        self._session = machines.session

    def __call__(
        self,
        subject: Any = None,
        *,
        expect: Iterable[Maps] | Expectation | None = None,
        absent: Iterable[int] = (),
        mm: int | None = None,
        exhaustive: bool = False,
        check: bool = True,
    ) -> Report:
        """Compare every reading of ``subject``: a :class:`Machine`, a :class:`BareMachine`, or a
        booted kernel, which gets a CPU; the test's ``machine`` if not given.

        ``expect`` are the translations that a :class:`BareMachine` must have, and no others;
        the CPU is asked about the pages of ``absent`` in any case. ``mm`` is the page directory
        of another address space of a machine. Without ``check`` a difference is only reported.
        """
        seed = self._session.seed
        if subject is None:
            subject = self._request.getfixturevalue("machine")
        elif not isinstance(subject, Machine | BareMachine):
            subject = Machine(subject, cpu=self._session.backends.cpu)
        if isinstance(subject, BareMachine):
            listed = _listed(expect, absent)
            report = diff_tables(
                subject.cpu, listed, subject="Bare machine", exhaustive=exhaustive, seed=seed
            )
        elif expect is not None:
            raise BadInput("expect is for a bare machine: a kernel says itself what it means")
        elif self._session.cpu == "qemu":
            from harness.diff_peer import diff_on_qemu

            report = diff_on_qemu(subject, seed=seed, exhaustive=exhaustive)
        else:
            report = diff(subject, seed=seed, exhaustive=exhaustive, mm=mm)
        self._results.add(report)
        if not report.ok:
            mismatch = Mismatch.of(report, subject, mm)
            if check:
                raise mismatch
            self._results.last_mismatch = mismatch
        return report


def _listed(
    expect: Iterable[Maps] | Expectation | None, absent: Iterable[int]
) -> Expectation | None:
    if expect is None or isinstance(expect, Expectation):
        return expect
    return expected(expect, absent)


@dataclass(frozen=True, slots=True)
class GuestRun:
    """How a program ended, and what it wrote. ``status`` is the shell's: 128 + n for signal n."""

    program: str
    ended: Ended
    output: bytes
    error: bytes
    statistics: Mapping[str, Any] = field(repr=False)

    @property
    def status(self) -> int:
        return self.ended.exit_status

    @property
    def signal(self) -> str | None:
        """``SIGSEGV`` and the like; None if it exited."""
        return self.ended.signal_name if self.ended.signal else None

    @property
    def report(self) -> Any:
        """The :class:`~harness.crash.CrashReport` of its last fault, if a signal ended it."""
        return self.ended.report

    def as_json(self) -> dict[str, Any]:
        report = None if self.report is None else self.report.as_dict()
        return {
            "program": self.program,
            "ok": self.signal is None,
            "status": self.status,
            "signal": self.signal,
            "statistics": dict(self.statistics),
            "report": report,
        }


class RunGuest:
    """The fixture ``run_guest``; every program runs on the test's machine."""

    def __init__(
        self, request: pytest.FixtureRequest, machines: Machines, results: TestResults
    ) -> None:
        self._request = request
        self._results = results
        self._seed = machines.session.seed
        self._linux: Linux | None = None

    def __call__(
        self,
        program: str | os.PathLike[str],
        *arguments: str | bytes,
        stdin: bytes = b"",
        env: Iterable[str] = (),
        root: str | os.PathLike[str] | None = None,
        files: Mapping[str, bytes] | None = None,
        compare: str = "full",
        check: bool = True,
        limits: Limits | None = None,
    ) -> GuestRun:
        """Run ``program`` to its end.

        ``compare`` says how much is held against specification and CPU while it runs: ``none``,
        ``faults`` (each page that changes) or ``full`` (whole address spaces at fork, exec and
        exit, too). With ``check`` it is a failure if a signal ends it.
        """
        if compare not in list(Check):
            raise BadInput(f"compare={compare!r}: one of {', '.join(Check)}")
        path, machine = Path(program), self._request.getfixturevalue("machine")
        if load_elf(path, ram=machine.kernel.config.ram).ring != 3:
            raise BadInput(f"{path}: a ring-0 program: give it to bare_machine()")
        name = b"/" + os.fsencode(path.name)
        output, error = bytearray(), bytearray()
        more = {os.fsencode(where): content for where, content in (files or {}).items()}
        setup = Setup(
            root=None if root is None else Path(root),
            files={name: path.read_bytes(), **more},
            output=output.extend,
            error=error.extend,
            input=stdin,
            seed=self._seed,
            limits=limits or Limits(),
            check=Check(compare),
        )
        linux = Linux(machine, setup)
        self._linux = linux
        argv = [name, *(os.fsencode(text) for text in arguments)]
        environment = [os.fsencode(text) for text in (*_ENVIRONMENT, *env)]
        try:
            ended = linux.run(linux.start(name, argv, environment))
        except GuestStopped as stopped:
            stopped.report = crash_report(machine.cpu, stopped.reason)
            raise
        statistics = linux.watching.statistics()._asdict()
        linux.close()
        self._linux = None
        ran = GuestRun(str(path), ended, bytes(output), bytes(error), statistics)
        self._results.add(ran)
        if check and ended.signal:
            raise GuestCrashed(path.name, ended)
        return ran

    def close(self) -> None:
        """Close the files of a program that did not come to its end; its machine ends, too."""
        if self._linux is not None:
            self._linux.files.close()
