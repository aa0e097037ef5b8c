# SPDX-License-Identifier: GPL-2.0-or-later
"""``mmucheck report``: one machine in pictures and verdicts, as a page that needs no network."""

import enum
import os
import shlex
import sys
import tempfile
from dataclasses import dataclass
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
_PROGRAM: Final = "The program to follow"


class Conform(enum.StrEnum):
    """How much of the conformance matrix goes into the report."""

    NONE = "none"
    QUICK = "quick"
    FULL = "full"


@dataclass(frozen=True, slots=True)
class Followed:
    """The program to follow, as typed."""

    program: Annotated[
        Path | None,
        typer.Option(
            "--program",
            metavar="ELF",
            help="The static i386 program to follow; a built-in tour of page faults if not given.",
            rich_help_panel=_PROGRAM,
        ),
    ] = None
    root: Annotated[
        Path | None,
        typer.Option(
            "--root",
            metavar="DIR",
            help="A folder that it sees as /, read-only.",
            rich_help_panel=_PROGRAM,
        ),
    ] = None
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout",
            metavar="SECONDS",
            min=0.0,
            help="Its time; 0: no limit.",
            rich_help_panel=_PROGRAM,
        ),
    ] = 60.0

    def program_to_run(self, arguments: list[str], seed: int) -> "Program":
        """The program with its surroundings; the output of the tour is nobody's.

        :raises BadInput: for options that do not fit each other.
        """
        from harness.guests import guest_path
        from harness.machine import Limits
        from harness.processes.linux import Setup
        from harness.report.program import Program

        if self.program is None and (arguments or self.root):
            raise BadInput("ARGS and --root are for a program: give --program ELF too")
        if self.root is not None and not self.root.is_dir():
            raise BadInput(f"--root {printable(str(self.root))}: not a folder")
        setup = Setup(seed=seed, root=self.root, limits=Limits(0, self.timeout))
        if self.program is None:
            inside = f"/{_TOUR}".encode()
            setup.files = {inside: guest_path(_TOUR).read_bytes()}
            return Program(inside, [inside], setup)
        inside = os.path.normpath(b"/" + os.fsencode(self.program).lstrip(b"/"))
        if self.root is None or not os.path.lexists(f"{self.root}/{self.program}"):
            setup.files = {inside: self.program.read_bytes()}
        setup.output = setup.error = _to_stderr
        argv = [os.fsencode(text) for text in (str(self.program), *arguments)]
        return Program(inside, argv, setup)


def report(
    machine: MachineOptions,
    followed: Followed,
    out: Annotated[Path, typer.Argument(metavar="OUT.html", help="The page to write.")],
    arguments: Annotated[
        list[str] | None,
        typer.Argument(metavar="ARGS", help="Of the program; -- in front of them, if they have -."),
    ] = None,
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
    program = followed.program_to_run(arguments or [], machine.seed_number())

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
        made = report_on_program(pc, program, gather)
        page = made.html(Meter(progress))
    _write(out, page)
    output.json({"command": "report"} | made.as_json())
    for line in made.verdicts.summaries:
        output.text(line)
    output.text(f"{out}: {len(page.encode()) >> 10:,} KiB")
    return 0 if made.ok else 1


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
    if out.exists() and not out.is_file():
        raise BadInput(f"{name}: a device or a pipe: give a file, which is replaced as a whole")
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
