# SPDX-License-Identifier: GPL-2.0-or-later
"""``mmucheck explain``: one address, each level of its walk, each reading, each fault."""

from typing import Annotated

import typer

from harness.commands.options import ImageOptions, JsonOption, MachineOptions
from harness.commands.output import Output
from harness.numbers import parse_number


def explain(
    machine: MachineOptions,
    image: ImageOptions,
    va: Annotated[str, typer.Argument(metavar="VA", help="A virtual address, in any C notation.")],
    json: JsonOption = None,
) -> int:
    """Explain one address: each level of the walk, each reading, what would fault and how.

    **Examples**

    - `mmucheck explain 0xC0100000`
    - `mmucheck explain 0xFFFFE000 --highmem 4G --ram 1G`
    - `mmucheck explain 0xC0000000 --image dump.raw --cr3 0x101000 --cr4 0x10`
    """
    output = Output(json)
    address = parse_number(va, "VA")
    config = machine.config()
    subject = image.subject()

    from harness.explain import explain as explain_model
    from harness.explain import explain_image
    from harness.machine import Machine
    from kernel_model.kernel import Kernel

    if subject is None:
        explanation = explain_model(Machine(Kernel(config)), address)
    else:
        explanation = explain_image(
            subject.ram,
            subject.registers,
            address,
            expectation=subject.expectation,
            cpu_model=machine.cpu_model,
        )
    output.console.print(explanation)
    output.json({"command": "explain"} | explanation.as_json())
    return 0 if explanation.ok else 1
