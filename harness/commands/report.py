# SPDX-License-Identifier: GPL-2.0-or-later
"""``mmucheck report``: one machine in pictures and verdicts, as a page that needs no network."""

import enum
import os
import shlex
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from harness.commands.options import JsonOption, MachineOptions
from harness.commands.output import STANDARD_OUTPUT, Output
from harness.elf_headers import printable
from kernel_model.errors import BadInput

if TYPE_CHECKING:
    from rich.progress import Progress

    from harness.conformance.matrix import MatrixReport
    from harness.report.program import Program

_TOUR: Final = "tour"
"""The guest that is followed when none is given: it goes through the kinds of faults."""


class Conform(enum.StrEnum):
    """How much of the conformance matrix goes into the report."""

    NONE = "none"
    QUICK = "quick"
    FULL = "full"


def report(
    machine: MachineOptions,
    out: Annotated[Path, typer.Argument(metavar="OUT.html", help="The page to write.")],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="ARGS", help="Of the program; -- in front of them, if they have -."),
    ] = None,
    program: Annotated[
        Path | None,
        typer.Option(
            "--program",
            metavar="ELF",
            help="The static i386 program to follow; a built-in tour of page faults if not given.",
        ),
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option("--root", metavar="DIR", help="A folder that it sees as /, read-only."),
    ] = None,
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout",
            metavar="SECONDS",
            min=0.0,
            help="Its time; 0: no limit.",
            show_default=True,
        ),
    ] = 60.0,
    conform: Annotated[
        Conform,
        typer.Option(
            "--conform", metavar="none|quick|full", help="Put the MMU to the matrix, too: how much."
        ),
    ] = Conform.QUICK,
    json: JsonOption = None,
) -> int:
    """Boot the model, follow a program, compare everything; write what there is to see as one page.

    The page shows nodes, zones and frames, the buddy allocator, slab caches, the address space,
    page tables, faults over the run, and every verdict; it needs no network and no other file.
    The machine is looked at when the program ends, with its memory still in place. Exit status
    1 when something differs: the page says what.

    **Examples**

    - `mmucheck report out.html`
    - `mmucheck report out.html --ram 1G --highmem 4G --json out.json`
    - `mmucheck report out.html --program ./busybox -- sh -c 'ls -l / | sort'`
    """
    output = Output(json)
    config = machine.config()
    _check_writable(out)
    followed = _program(machine, program, root, timeout, arguments or [])

    from harness.machine import Machine
    from harness.progress import Meter
    from harness.report import Report
    from harness.report.program import report_on_program
    from kernel_model.kernel import Kernel

    with output.progress() as progress:
        matrix = _conformance(conform, progress)

        def gather(log: Any, *, note: str = "", problem: str = "") -> Report:
            return Report.of(
                pc,
                seed=machine.seed_number(),
                conformance=matrix,
                faults=log,
                command=shlex.join(["mmucheck", *sys.argv[1:]]),
                notes=(note,) if note else (),
                problem=problem,
                progress=progress,
            )

        pc = Machine(Kernel(config))
        made = report_on_program(pc, followed, gather)
        page = made.html(Meter(progress))
    _write(out, page)
    output.json({"command": "report"} | made.as_json())
    for line in made.verdicts.summaries:
        output.text(line)
    output.text(f"{out}: {len(page.encode()) >> 10:,} KiB")
    return 0 if made.ok else 1


def _program(
    machine: MachineOptions,
    path: Path | None,
    root: Path | None,
    timeout: float,
    arguments: list[str],
) -> "Program":
    """The program to follow; the tour's output is nobody's."""
    from harness.guests import guest_path
    from harness.machine import Limits
    from harness.processes.linux import Setup
    from harness.report.program import Program

    if path is None and (arguments or root):
        raise BadInput("ARGS and --root are for a program: give --program ELF too")
    if root is not None and not root.is_dir():
        raise BadInput(f"--root {printable(str(root))}: not a folder")
    setup = Setup(seed=machine.seed_number(), root=root, limits=Limits(0, timeout))
    inside = f"/{_TOUR}".encode()
    if path is None:
        setup.files = {inside: guest_path(_TOUR).read_bytes()}
        return Program(inside, [inside], setup)
    inside = os.path.normpath(b"/" + os.fsencode(path).lstrip(b"/"))
    if root is None or not os.path.lexists(f"{root}/{path}"):
        setup.files = {inside: path.read_bytes()}
    setup.output = setup.error = _to_stderr
    return Program(inside, [os.fsencode(text) for text in (str(path), *arguments)], setup)


def _to_stderr(data: bytes) -> None:
    """What the program prints: standard output is the report's."""
    sys.stderr.buffer.write(data)
    sys.stderr.buffer.flush()


def _conformance(conform: Conform, progress: "Progress") -> "MatrixReport | None":
    if conform is Conform.NONE:
        return None
    from harness.conformance.matrix import run_matrix
    from harness.conformance.subject import UnicornSubject
    from harness.conformance.suites import suite
    from harness.progress import Meter

    subject = UnicornSubject()
    try:
        return run_matrix(
            conform.value,
            [subject],
            lambda one: suite(conform.value, one.features),
            Meter(progress),
        )
    finally:
        subject.close()


def _check_writable(out: Path) -> None:
    """Say so before the work, not after it."""
    name = printable(str(out))
    if str(out) == STANDARD_OUTPUT:
        raise BadInput("OUT.html -: give a file: the page does not go to standard output")
    if out.is_dir():
        raise BadInput(f"{name}: a folder: give a file to write, such as {name}/report.html")
    if not out.parent.is_dir():
        raise BadInput(f"{name}: there is no folder {printable(str(out.parent))}: make it first")
    if not os.access(out.parent, os.W_OK | os.X_OK):
        raise BadInput(f"{name}: its folder cannot be written to: give another one")


def _write(out: Path, page: str) -> None:
    """Replace ``out`` as a whole: whoever looks sees the old page or the new one."""
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", dir=out.parent, prefix=f".{out.name}.", suffix=".tmp", delete=False
    ) as scratch:
        try:
            scratch.write(page)
            scratch.flush()
            os.chmod(scratch.name, 0o666 & ~_umask())
            os.replace(scratch.name, out)
        except BaseException:
            Path(scratch.name).unlink(missing_ok=True)
            raise


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
