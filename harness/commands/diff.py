# SPDX-License-Identifier: GPL-2.0-or-later
"""``mmucheck diff``: every reading of every address, compared; exit status 1 at a mismatch."""

import enum
from typing import Annotated

import typer

from harness.commands.options import ImageOptions, JsonOption, MachineOptions
from harness.commands.output import Output
from kernel_model.errors import BadInput


class CpuName(enum.StrEnum):
    """The CPUs whose answers can be compared."""

    UNICORN = "unicorn"
    QEMU = "qemu"


def diff(
    machine: MachineOptions,
    image: ImageOptions,
    exhaustive: Annotated[
        bool,
        typer.Option("--exhaustive", help="Try absent pages all, instead of a seeded sample."),
    ] = False,
    cpu: Annotated[
        CpuName,
        typer.Option(
            "--cpu",
            metavar="unicorn|qemu",
            help="The CPU that loads, stores and fetches; qemu gets the booted machine's memory.",
        ),
    ] = CpuName.UNICORN,
    json: JsonOption = None,
) -> int:
    """Compare what the kernel means, the architecture says and the CPU does, over all 4 GiB.

    With --image the tables of a memory image are compared instead, and there is no intent:
    the architecture, the CPU and, with --expect, a list of known translations.

    **Examples**

    - `mmucheck diff`
    - `mmucheck diff --cpu qemu`
    - `mmucheck diff --ram 4G --highmem 64G --cpu-model coreduo --json diff.json`
    - `mmucheck diff --image dump.elf --cr3 0x34bf000 --cr4 0x650 --expect known.npz`
    """
    output = Output(json)
    config = machine.config()
    seed = machine.seed_number()
    subject = image.subject()
    on_qemu = cpu is CpuName.QEMU
    if on_qemu and subject is not None:
        raise BadInput("--image brings no kernel to run on QEMU: choose --cpu unicorn")

    from harness.diff import diff as compare
    from harness.diff import diff_image
    from harness.machine import Machine
    from kernel_model.kernel import Kernel

    with output.progress() as progress:
        if subject is None:
            pc = Machine(Kernel(config))
            if on_qemu:
                from harness.diff_peer import diff_on_qemu

                report = diff_on_qemu(pc, seed=seed, exhaustive=exhaustive, progress=progress)
            else:
                report = compare(pc, seed=seed, exhaustive=exhaustive, progress=progress)
        else:
            report = diff_image(
                subject.ram,
                subject.registers,
                subject.expectation,
                cpu_model=machine.cpu_model,
                seed=seed,
                exhaustive=exhaustive,
                progress=progress,
            )
    output.console.print(report)
    output.json({"command": "diff"} | report.as_json())
    return 0 if report.ok else 1
