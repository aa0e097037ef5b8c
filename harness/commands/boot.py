# SPDX-License-Identifier: GPL-2.0-or-later
"""``mmucheck boot``: boots the model with no CPU and prints what the kernel says of itself."""

from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Annotated, Final

import typer

from harness.commands.completion import words
from harness.commands.options import JsonOption, MachineOptions
from harness.commands.output import Output
from kernel_model.errors import BadInput
from kernel_model.kernel import Kernel
from kernel_model.kernel import boot as boot_kernel
from kernel_model.proc import ALL_NAMES, proc_files

_E820_TYPES: Final = {1: "usable", 2: "reserved", 3: "ACPI data", 4: "ACPI NVS"}


def _e820(kernel: Kernel) -> Iterable[str]:
    for entry in kernel.config.e820:
        kind = _E820_TYPES.get(entry.type, f"type {entry.type}")
        yield f"{entry.addr:#018x} - {entry.end:#018x} ({kind})"


def _mappings(kernel: Kernel) -> Iterable[str]:
    for mapping in kernel.kernel_mappings():
        end = mapping.vaddr + mapping.size - 1
        yield f"{mapping.vaddr:#010x} - {end:#010x} -> {mapping.paddr:#011x} {mapping.purpose}"


def _proc(name: str) -> Callable[[Kernel], Iterable[str]]:
    def lines(kernel: Kernel) -> Iterable[str]:
        files = proc_files(kernel)
        if name not in files:
            raise BadInput(f"--show {name}: this Linux {kernel.config.release} has no such file")
        return files[name].text(kernel).splitlines()

    return lines


SHOWN: Final[dict[str, Callable[[Kernel], Iterable[str]]]] = {
    "e820": _e820,
    "mappings": _mappings,
    **{name: _proc(name) for name in ALL_NAMES},
}
"""What ``--show`` knows, by name: functions that give lines."""


def boot(
    machine: MachineOptions,
    show: Annotated[
        list[str] | None,
        typer.Option(
            "--show",
            metavar="NAME",
            help=f"Print this too; repeatable: {', '.join(SHOWN)}.",
            autocompletion=words(*SHOWN),
        ),
    ] = None,
    json: JsonOption = None,
) -> int:
    """Boot the model; print the boot log and any text asked for.

    **Examples**

    - `mmucheck boot --ram 1G --highmem 4G`
    - `mmucheck boot --show e820 --show mappings`
    - `mmucheck boot --ram 1G --highmem 4G --show meminfo --show zoneinfo`
    - `mmucheck boot --ram 4G --highmem 64G --json boot.json`
    - `mmucheck boot --kernel 2.6 --cpus 2 --show zoneinfo --show vmstat`
    - `mmucheck boot --kernel 2.6 --nodes 2 --show numastat --show node_meminfo`
    """
    names = show or []
    for name in names:
        if name not in SHOWN:
            raise BadInput(f"--show {name!r}: one of {', '.join(SHOWN)}")
    output = Output(json)
    kernel = boot_kernel(machine.config())
    output.text(kernel.log.rstrip("\n"))
    texts = {name: list(SHOWN[name](kernel)) for name in names}
    for name, lines in texts.items():
        output.text("\n".join(["", f"{name}:", *lines]))
    output.json(
        {
            "command": "boot",
            "config": asdict(kernel.config),
            "log": kernel.log.splitlines(),
            "show": texts,
            "data": {n: file.data(kernel) for n, file in proc_files(kernel).items() if n in names},
        }
    )
    return 0
