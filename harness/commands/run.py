# SPDX-License-Identifier: GPL-2.0-or-later
"""``mmucheck run``: runs a static i386 program under the model; its exit status is ours."""

import os
import sys
from pathlib import Path
from typing import Annotated, Any, Final

import typer
from rich.table import Table

from harness.commands.options import JsonOption, MachineOptions
from harness.commands.output import STANDARD_OUTPUT, Output
from harness.elf import ElfImage, load_elf
from harness.numbers import MAX_U64, parse_number
from kernel_model.errors import BadInput

_RING_3: Final = 3
_STOPPED: Final = 124
"""Exit status when a limit ended the guest, as ``timeout(1)`` has it."""


def run(
    machine: MachineOptions,
    program: Annotated[
        Path, typer.Argument(metavar="PROGRAM", help="A static ELF program for i386.")
    ],
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="ARGS", help="Its arguments.")
    ] = None,
    stats: Annotated[
        bool, typer.Option("--stats", help="Print system calls and pages when it has ended.")
    ] = False,
    max_instructions: Annotated[
        str, typer.Option("--max-insns", metavar="N", help="End it after N; 0: never.")
    ] = "0",
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", min=0.0, help="0: no limit.")
    ] = 60.0,
    json: JsonOption = None,
) -> int:
    """Run a static i386 program under the model; exit with its status.

    What follows PROGRAM belongs to it, options included. The program's standard output is
    mmucheck's; tables and messages go to standard error. A program linked for ring 0 takes
    the place of the kernel's own guest code. A program that dies of signal n gives 128 + n,
    one that a limit ended gives 124.

    **Examples**

    - `mmucheck run ./hello`
    - `mmucheck run --ram 16M --stats ./hello one two`
    - `mmucheck run --timeout 10 --json run.json ./a.out`
    """
    from harness.machine import GuestDied, GuestStopped, Limits

    if json == STANDARD_OUTPUT:
        raise BadInput("--json -: the program's own output goes there: give a file")
    output = Output(json)
    config = machine.config()
    limits = Limits(parse_number(max_instructions, "--max-insns", maximum=MAX_U64), timeout)
    image = load_elf(program, ram=config.ram)
    try:
        if image.ring == _RING_3:
            result = _run_program(machine, image, [str(program), *(arguments or ())], limits)
        else:
            result = _run_kernel(machine, program, limits)
    except GuestStopped as stopped:
        result = {"status": _STOPPED, "message": f"{program}: {stopped}"}
    except GuestDied as died:
        result = {"status": 128 + 6, "message": f"{program}: {died}"}
    if message := result.get("message"):
        output.diagnostics.print(message, markup=False, soft_wrap=True)
    if stats and "statistics" in result:
        output.diagnostics.print(_table(result["statistics"]))
    output.json({"command": "run", "program": str(program)} | result)
    return int(result["status"])


def _write(descriptor: int, data: bytes) -> None:
    stream = sys.stdout if descriptor == 1 else sys.stderr
    stream.buffer.write(data)
    stream.buffer.flush()


def _run_program(
    machine: MachineOptions, image: ElfImage, argv: list[str], limits: Any
) -> dict[str, Any]:
    from harness.machine import Machine
    from harness.process import Process
    from kernel_model.kernel import Kernel

    pc = Machine(Kernel(machine.config()), limits=limits)
    process = Process(pc, image, [os.fsencode(text) for text in argv], output=_write)
    ended = process.run()
    calls = process.system_calls
    result: dict[str, Any] = {
        "status": ended.exit_status,
        "signal": ended.signal or None,
        "statistics": {
            "page faults": {kind.value: count for kind, count in pc.faults.items()},
            "system calls": sum(calls.counts.values()),
            "unknown system calls": dict(calls.unknown),
        },
    }
    if ended.report is not None:
        result["message"] = f"{image.name}: {ended.signal_name}\n{ended.report}"
        result["report"] = ended.report.as_dict()
    return result


def _run_kernel(machine: MachineOptions, program: Path, limits: Any) -> dict[str, Any]:
    """A ring-0 image: it boots the model and runs its own ``kernel_main()``."""
    from harness.machine import Machine
    from kernel_model.kernel import Kernel

    pc = Machine(Kernel(machine.config()), image=program, limits=limits)
    _write(1, bytes(pc.console))
    status = 0 if pc.exit_status is None else pc.exit_status
    result: dict[str, Any] = {"status": status, "failures": pc.failures}
    if pc.failures:
        result["message"] = "\n".join(f"{program}: assertion failed: {t}" for t in pc.failures)
    return result


def _table(statistics: dict[str, Any]) -> Table:
    table = Table("what", "how many", title="run")
    for name, value in statistics.items():
        table.add_row(name, str(value))
    return table
