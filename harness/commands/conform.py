# SPDX-License-Identifier: GPL-2.0-or-later
"""``mmucheck conform``: the MMU conformance matrix; exit status 1 when a case fails."""

import enum
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from harness.commands.completion import case_parts
from harness.commands.options import JsonOption
from harness.commands.output import Output
from kernel_model.errors import BadInput

if TYPE_CHECKING:
    from harness.conformance.cases import Cases
    from harness.conformance.flags import Mode
    from harness.conformance.subject import Subject


class CpuName(enum.StrEnum):
    """The CPUs that can be put to the test."""

    UNICORN = "unicorn"
    QEMU = "qemu"


class SuiteName(enum.StrEnum):
    """How much of the matrix."""

    QUICK = "quick"
    FULL = "full"


def conform(
    cpu: Annotated[
        list[CpuName] | None,
        typer.Option(
            "--cpu",
            metavar="unicorn|qemu",
            help="The CPU to test; unicorn if not given. Given twice, the two are compared too.",
        ),
    ] = None,
    suite: Annotated[
        SuiteName,
        typer.Option(
            "--suite",
            metavar="quick|full",
            help="190,000 cases in seconds, or the whole product: millions, in minutes.",
        ),
    ] = SuiteName.QUICK,
    backend: Annotated[
        str | None,
        typer.Option(
            "--backend",
            metavar="MODULE:FACTORY",
            help="Test a CPU of yours instead: an object like Cpu or Subject.",
        ),
    ] = None,
    case: Annotated[
        list[str] | None,
        typer.Option(
            "--case",
            metavar="TEXT",
            help="Only this case, as a failure names it; may be given again.",
            autocompletion=case_parts,
        ),
    ] = None,
    json: JsonOption = None,
) -> int:
    """Test a CPU's MMU against the manual, case by case, in every paging mode of an i386.

    A guest with its own fault handlers reads, writes, fetches, modifies, crosses pages and loads
    descriptors, in ring 0 and ring 3, through every combination of page-table bits. Checked
    are the fault, its error code and CR2, the value, the accessed and dirty bits of each level,
    and that nothing else has changed; then the same after each change of an entry, with and
    without each kind of flush.

    Differences that are known stand in a table with their reasons and do not fail. Any other is
    one line that names the bits, the access and the ring, and a command that repeats it.

    **Examples**

    - `mmucheck conform`
    - `mmucheck conform --cpu unicorn --cpu qemu --json conform.json`
    - `mmucheck conform --suite full`
    - `mmucheck conform --case mode=2-level,wp=1,pde=p.rw.us,pte=p.us,access=write,ring=user`
    """
    output = Output(json)
    names = list(dict.fromkeys(cpu or [CpuName.UNICORN]))
    chosen = _chosen(case or [])
    if backend and cpu:
        raise BadInput("--backend names the CPU already: leave out --cpu")

    from harness.conformance.matrix import run_matrix
    from harness.conformance.report import report_tables, summary
    from harness.conformance.suites import suite as suite_of
    from harness.progress import Meter

    def parts(subject: "Subject") -> "Iterator[tuple[Mode, Cases]]":
        return iter(chosen) if chosen else suite_of(suite.value, subject.features)

    title = "single cases" if chosen else suite.value
    subjects: list[Subject] = []
    try:
        with output.progress() as progress:
            for name in names:
                subjects.append(_backend(backend) if backend else _subject(name))
            report = run_matrix(title, subjects, parts, Meter(progress), complete=not chosen)
    finally:
        for subject in subjects:
            subject.close()
    for table in report_tables(report):
        output.console.print(table)
    for line in summary(report):
        output.text(line)
    output.json({"command": "conform"} | report.as_json())
    return 0 if report.ok else 1


def _subject(name: CpuName) -> "Subject":
    if name is CpuName.QEMU:
        from harness.conformance.qemu_subject import QemuSubject

        return QemuSubject()
    from harness.conformance.subject import UnicornSubject

    return UnicornSubject()


def _backend(text: str) -> "Subject":
    from harness.backends import load_backends

    return load_backends([text], "--backend").make_subject()


def _chosen(texts: list[str]) -> "list[tuple[Mode, Cases]]":
    """The single cases asked for, each a part of its own."""
    from harness.conformance.cases import parse_case
    from harness.conformance.flags import MODES
    from harness.conformance.suites import impossible

    chosen = []
    for text in texts:
        case = parse_case(text)
        mode = MODES[int(case["mode"][0])]
        if reason := impossible(case):
            raise BadInput(f"--case {text}: {reason}")
        chosen.append((mode, case))
    return chosen
