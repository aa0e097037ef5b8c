# SPDX-License-Identifier: GPL-2.0-or-later
"""``mmucheck run``: runs a static i386 program under the model; its exit status is ours."""

import os
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from rich.console import Console
from rich.table import Table

from harness.commands.completion import guests, words
from harness.commands.options import JsonOption, MachineOptions
from harness.commands.output import STANDARD_OUTPUT, Output
from harness.elf import load_elf
from harness.elf_headers import printable
from harness.guests import guest_or_file
from harness.numbers import MAX_U64, parse_number, parse_size
from kernel_model.arch_i386.page import PAGE_SIZE
from kernel_model.errors import BadInput

if TYPE_CHECKING:
    from harness.machine import Limits
    from harness.processes.linux import Linux, Setup
    from harness.processes.process import Ended

_RING_3: Final = 3
_STOPPED: Final = 124
"""Exit status when a limit ended the guest, as ``timeout(1)`` has it."""
_KERNEL_DIED: Final = 128 + 6
_PROGRAM: Final = "The program and its surroundings"
_LIMITS: Final = "Limits"
_REPORT: Final = "What is told of it"
_MAX_SWAP: Final = 2 << 30
_ENVIRONMENT: Final = ("PATH=/bin:/sbin:/usr/bin:/usr/sbin", "HOME=/")
_STANDARD_INPUT: Final = 0
_WORDS: Final = {
    "instructions": "instructions, about",
    "peak_frames": "frames in use at most",
}


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the program finds, as typed."""

    root: Annotated[
        Path | None,
        typer.Option(
            "--root",
            metavar="DIR",
            help="A folder to show as /, read-only; what is written stays in memory.",
            rich_help_panel=_PROGRAM,
        ),
    ] = None
    env: Annotated[
        list[str] | None,
        typer.Option(
            "--env",
            metavar="NAME=VALUE",
            help=f"More of its environment than {' '.join(_ENVIRONMENT)}. Repeatable.",
            rich_help_panel=_PROGRAM,
        ),
    ] = None
    swap: Annotated[
        str,
        typer.Option(
            "--swap", metavar="SIZE", help="Swap area; 0: none.", rich_help_panel=_PROGRAM
        ),
    ] = "64M"
    max_instructions: Annotated[
        str,
        typer.Option(
            "--max-insns", metavar="N", help="End it after N; 0: never.", rich_help_panel=_LIMITS
        ),
    ] = "0"
    timeout: Annotated[
        float,
        typer.Option(
            "--timeout", metavar="SECONDS", min=0.0, help="0: no limit.", rich_help_panel=_LIMITS
        ),
    ] = 60.0

    no_mmu: Annotated[
        bool,
        typer.Option(
            "--no-mmu",
            help="Run it on 2.6 without MMU, whatever --kernel says. Takes static PIEs.",
            rich_help_panel=_PROGRAM,
        ),
    ] = False

    def has(self, program: Path) -> bool:
        """Whether the folder of ``--root`` has the program, by the name it has in there."""
        return self.root is not None and os.path.lexists(f"{self.root}/{program}")

    def environment(self) -> list[bytes]:
        for text in self.env or ():
            if "=" not in text:
                raise BadInput(f"--env {text}: give NAME=VALUE")
        return [os.fsencode(text) for text in (*_ENVIRONMENT, *(self.env or ()))]

    def limits(self) -> "Limits":
        from harness.machine import Limits

        maximum = parse_number(self.max_instructions, "--max-insns", maximum=MAX_U64)
        return Limits(maximum, self.timeout)

    def swap_pages(self) -> int:
        return parse_size(self.swap, "--swap", maximum=_MAX_SWAP) // PAGE_SIZE


def run(
    machine: MachineOptions,
    surroundings: Surroundings,
    program: Annotated[
        Path,
        typer.Argument(
            metavar="PROGRAM",
            help="A static ELF program for i386, or the name of one that mmucheck brings: hello.",
            autocompletion=guests,
        ),
    ],
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="ARGS", help="Its arguments.")
    ] = None,
    check: Annotated[
        str,
        typer.Option(
            "--check",
            metavar="none|faults|full",
            autocompletion=words("none", "faults", "full"),
            help="Compare model, specification and CPU while it runs: each page that changes; "
            "full: also whole address spaces at fork, exec and exit.",
            rich_help_panel=_REPORT,
        ),
    ] = "none",
    stats: Annotated[
        bool,
        typer.Option(
            "--stats",
            help="Faults, system calls, memory and instructions at the end; counting the last "
            "costs half of the speed.",
            rich_help_panel=_REPORT,
        ),
    ] = False,
    trace: Annotated[
        bool,
        typer.Option("--trace", help="One line a fault and system call.", rich_help_panel=_REPORT),
    ] = False,
    json: JsonOption = None,
) -> int:
    """Run a static i386 program under the model; exit with its status.

    What follows PROGRAM belongs to it, options included. Its standard streams are mmucheck's;
    tables and messages go to standard error. It sees an empty tree with /dev, /proc, /tmp and
    itself, or the folder given by --root, where PROGRAM is looked for first; nothing it writes
    reaches the host. A program linked for
    ring 0 takes the place of the kernel's own guest code. A program that dies of signal n gives
    128 + n, one that a limit ended gives 124.

    **Examples**

    - `mmucheck run hello`
    - `mmucheck run ./a.out one two`
    - `mmucheck run --ram 8M --check full --stats ./busybox sh -c 'ls -l / | sort'`
    - `mmucheck run --root ./tree ./busybox find / -name '*.c'`
    - `mmucheck run --no-mmu nommu_maps_pie`
    - `mmucheck run --trace --timeout 10 --json run.json ./a.out`
    """
    if json == STANDARD_OUTPUT:
        raise BadInput("--json -: the program's own output goes there: give a file")
    output, limits = Output(json), surroundings.limits()
    file = program if surroundings.has(program) else guest_or_file(program)
    if surroundings.no_mmu:
        result = _run_without_mmu(machine, file, [str(program), *(arguments or ())], limits)
    elif not surroundings.has(program) and _ring(machine, file) != _RING_3:
        result = _run_kernel(machine, program, limits)
    else:
        argv = [os.fsencode(text) for text in (str(program), *(arguments or ()))]
        setup = _setup(machine, surroundings, check, output if trace else None)
        if not surroundings.has(program):
            setup.files[_path_inside(program)] = file.read_bytes()
        setup.count = stats
        result = _run_program(machine, surroundings, setup, argv)
    if message := result.get("message"):
        output.diagnostics.print(message, markup=False, soft_wrap=True)
    if stats and "statistics" in result:
        _print_statistics(output.diagnostics, result["statistics"])
    output.json({"command": "run", "program": str(program)} | result)
    return int(result["status"])


def _ring(machine: MachineOptions, program: Path) -> int:
    return load_elf(program, ram=machine.config().ram).ring


def _setup(
    machine: MachineOptions,
    surroundings: Surroundings,
    check: str,
    trace: Output | None,
) -> "Setup":
    from harness.processes.checking import Check
    from harness.processes.linux import Setup

    if check not in list(Check):
        raise BadInput(f"--check {check}: one of {', '.join(Check)}")
    if surroundings.root is not None and not surroundings.root.is_dir():
        raise BadInput(f"--root {surroundings.root}: not a folder")
    lines: Callable[[str], None] | None = None
    if trace is not None:

        def lines(line: str) -> None:
            trace.diagnostics.print(line, markup=False, highlight=False, soft_wrap=True)

    return Setup(
        root=surroundings.root,
        output=lambda data: _write(sys.stdout, data),
        error=lambda data: _write(sys.stderr, data),
        host_input=_STANDARD_INPUT,
        seed=machine.seed_number(),
        limits=surroundings.limits(),
        trace=lines,
        check=Check(check),
    )


def _path_inside(program: Path) -> bytes:
    """Where the program lies for itself, so that its argv[0] leads to it from ``/``."""
    return os.path.normpath(b"/" + os.fsencode(program))


def _write(stream: Any, data: bytes) -> None:
    stream.buffer.write(data)
    stream.buffer.flush()


def _run_program(
    machine: MachineOptions, surroundings: Surroundings, setup: "Setup", argv: list[bytes]
) -> dict[str, Any]:
    from harness.machine import GuestDied, GuestStopped, Machine
    from harness.monitors.entry_writers import EntryWriters
    from harness.processes.checking import Check
    from harness.processes.linux import Linux
    from harness.processes.scheduler import Deadlock
    from kernel_model.errors import KernelPanic
    from kernel_model.kernel import Kernel

    config = replace(machine.config(), swap_pages=surroundings.swap_pages())
    kernel = Kernel(config)
    if setup.check is not Check.NONE:
        # A verdict names the function that wrote the entry.
        EntryWriters(kernel)
    pc = Machine(kernel, limits=setup.limits)
    with ExitStack() as closing:
        linux = Linux(pc, setup)
        closing.callback(linux.close)
        name = argv[0].decode("utf-8", "backslashreplace")
        ended, message = None, None
        try:
            ended = linux.run(linux.start(argv[0], argv, surroundings.environment()))
        except (GuestStopped, Deadlock) as stopped:
            message = f"{name}: {stopped}"
        except (GuestDied, KernelPanic) as died:
            closing.pop_all()
            return {"status": _KERNEL_DIED, "message": f"{name}: {died}"}
        return _outcome(linux, name, ended, message)


def _outcome(
    linux: "Linux", name: str, ended: "Ended | None", message: str | None
) -> dict[str, Any]:
    """The result of a run, as it goes into JSON."""
    statistics = linux.watching.statistics()
    result: dict[str, Any] = {
        "status": _STOPPED if ended is None else ended.exit_status,
        "signal": ended.signal or None if ended else None,
        "statistics": statistics._asdict(),
    }
    if message is not None:
        result["message"] = printable(message)
    elif ended is not None and ended.report is not None:
        result["message"] = f"{name}: {ended.signal_name}\n{ended.report}"
        result["report"] = ended.report.as_dict()
    elif ended is not None and ended.signal:
        result["message"] = f"{name}: {ended.signal_name}"
    return result


def _run_kernel(machine: MachineOptions, program: Path, limits: "Limits") -> dict[str, Any]:
    """A ring-0 image: it boots the model and runs its own ``kernel_main()``."""
    from harness.machine import GuestDied, GuestStopped, Machine
    from kernel_model.kernel import Kernel

    try:
        pc = Machine(Kernel(machine.config()), image=program, limits=limits)
    except GuestStopped as stopped:
        return {"status": _STOPPED, "message": f"{program}: {stopped}"}
    except GuestDied as died:
        return {"status": _KERNEL_DIED, "message": f"{program}: {died}"}
    _write(sys.stdout, bytes(pc.console))
    status = 0 if pc.exit_status is None else pc.exit_status
    result: dict[str, Any] = {"status": status, "failures": pc.failures}
    if pc.failures:
        result["message"] = "\n".join(f"{program}: assertion failed: {t}" for t in pc.failures)
    return result


def _run_without_mmu(
    machine: MachineOptions, program: Path, words: list[str], limits: "Limits"
) -> dict[str, Any]:
    """A program that shares the physical address space with the kernel."""
    from harness.machine import GuestDied, GuestStopped
    from harness.nommu import NoMmuMachine

    config = replace(machine.config(), release="2.6", mmu=False)
    pc = NoMmuMachine.boot(config, limits=limits)
    try:
        status = pc.run(load_elf(program), [os.fsencode(word) for word in words])
    except GuestStopped as stopped:
        return {"status": _STOPPED, "message": f"{words[0]}: {stopped}"}
    except GuestDied as died:
        return {"status": _KERNEL_DIED, "message": f"{words[0]}: {died}"}
    finally:
        _write(sys.stdout, bytes(pc.output))
    return {"status": status}


def _print_statistics(console: Console, statistics: dict[str, Any]) -> None:
    """One table: groups of numbers, those that are 0 left out."""
    table = Table("what", "how many", title="run")
    for name, value in statistics.items():
        words = _WORDS.get(name, name.replace("_", " "))
        if not isinstance(value, dict):
            table.add_row(words, f"{value:,}")
            continue
        table.add_row(words, f"{sum(value.values()):,}")
        for kind, count in value.items():
            if count:
                table.add_row(f"  {kind}", f"{count:,}")
    console.print(table)
