# SPDX-License-Identifier: GPL-2.0-or-later
"""Options that several commands share, each declared once.

A group of options is a dataclass whose fields are typer options. A command takes the group as
one parameter; :func:`takes_groups` gives its command line one option for each field. Numbers
stay text until they are asked for, so that a mistake is reported in the words of
:mod:`harness.numbers`, with the option's name.

What can fail: :class:`~kernel_model.errors.BadInput` for a value that no machine can have.
"""

import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from harness.architecture import CR0_PE, CR0_PG, CR0_WP, ControlRegisters
from harness.commands import completion
from harness.image import Expectation, read_expectation, read_image
from harness.numbers import MAX_U64, parse_number, parse_size
from kernel_model.config import CPU_MODELS, Highmem, KernelConfig
from kernel_model.errors import BadInput
from kernel_model.ram import MAX_RAM, Ram

MACHINE: Final = "The machine and its kernel"
IMAGE: Final = "A memory image instead of a booted model"
USUAL_MODEL: Final = "pentium3"
USUAL_CR0: Final = CR0_PE | CR0_WP | CR0_PG
"""What a running Linux has of the bits that matter here."""

JsonOption = Annotated[
    str | None,
    typer.Option(
        "--json", metavar="FILE", help="Write the result as JSON too; - is standard output."
    ),
]


@dataclass(frozen=True, slots=True)
class MachineOptions:
    """The machine to model, as typed."""

    ram: Annotated[
        str,
        typer.Option(
            "--ram",
            metavar="SIZE",
            help="Physical memory, up to 64G.",
            autocompletion=completion.sizes,
            rich_help_panel=MACHINE,
        ),
    ] = "64M"
    kernel: Annotated[
        str,
        typer.Option(
            "--kernel",
            metavar="2.4|2.6",
            help="Linux release.",
            autocompletion=completion.releases,
            rich_help_panel=MACHINE,
        ),
    ] = "2.4"
    rmap: Annotated[
        str,
        typer.Option(
            "--rmap",
            metavar="object|pte_chain",
            help="Reverse map of 2.6: by object as in 2.6.11, or the chains of 2.6.0.",
            autocompletion=completion.reverse_maps,
            rich_help_panel=MACHINE,
        ),
    ] = "object"
    highmem: Annotated[
        Highmem,
        typer.Option(
            "--highmem",
            case_sensitive=False,
            metavar="none|4G|64G",
            help="Memory above 896 MiB: 64G builds a PAE kernel.",
            autocompletion=completion.highmem,
            rich_help_panel=MACHINE,
        ),
    ] = Highmem.NONE
    highpte: Annotated[
        bool,
        typer.Option(
            "--highpte",
            help="Page tables of processes in high memory (2.6 with --highmem).",
            rich_help_panel=MACHINE,
        ),
    ] = False
    cpu_model: Annotated[
        str | None,
        typer.Option(
            "--cpu-model",
            metavar="NAME",
            help=f"One of {', '.join(CPU_MODELS)}; {USUAL_MODEL} if not given.",
            autocompletion=completion.cpu_models,
            rich_help_panel=MACHINE,
        ),
    ] = None
    nodes: Annotated[
        str,
        typer.Option("--nodes", metavar="N", help="NUMA nodes.", rich_help_panel=MACHINE),
    ] = "1"
    cpus: Annotated[
        str,
        typer.Option(
            "--cpus", metavar="N", help="CPUs; more than 1 is SMP.", rich_help_panel=MACHINE
        ),
    ] = "1"
    nr_hugepages: Annotated[
        str,
        typer.Option(
            "--nr-hugepages",
            metavar="N",
            help="Huge pages to take at boot (2.6).",
            rich_help_panel=MACHINE,
        ),
    ] = "0"
    seed: Annotated[
        str,
        typer.Option(
            "--seed", metavar="N", help="Of every random choice.", rich_help_panel=MACHINE
        ),
    ] = "0"

    def config(self, prefix: str = "--") -> KernelConfig:
        """The configuration these options mean; ``prefix`` makes their names in messages.

        :raises BadInput: if one is malformed or no machine could boot with them.
        """
        # A command without random choices has no use for it, and names a wrong one all the same.
        self.seed_number(prefix)
        return KernelConfig(
            ram=parse_size(self.ram, f"{prefix}ram", maximum=MAX_RAM),
            release=self.kernel,
            rmap=self.rmap,
            highmem=self.highmem,
            highpte=self.highpte,
            cpu_model=self.cpu_model or USUAL_MODEL,
            nodes=parse_number(self.nodes, f"{prefix}nodes"),
            nr_cpus=parse_number(self.cpus, f"{prefix}cpus"),
            nr_hugepages=parse_number(self.nr_hugepages, f"{prefix}nr-hugepages"),
        )

    def seed_number(self, prefix: str = "--") -> int:
        return parse_number(self.seed, f"{prefix}seed", maximum=MAX_U64)


@dataclass(frozen=True, slots=True)
class ImageSubject:
    """A memory image with the registers of its CPU and, if given, what it must translate to."""

    ram: Ram
    registers: ControlRegisters
    expectation: Expectation | None


@dataclass(frozen=True, slots=True)
class ImageOptions:
    """The memory image to look at, as typed; with no ``image``, none of the others may be given."""

    image: Annotated[
        Path | None,
        typer.Option(
            "--image",
            metavar="FILE",
            help="Raw physical memory dump or ELF core.",
            rich_help_panel=IMAGE,
        ),
    ] = None
    cr3: Annotated[
        str | None,
        typer.Option(
            "--cr3",
            metavar="X",
            help="Physical address of the page directory.",
            rich_help_panel=IMAGE,
        ),
    ] = None
    cr0: Annotated[
        str | None,
        typer.Option(
            "--cr0",
            metavar="X",
            help=f"PG and WP are bits 31 and 16; {USUAL_CR0:#x} if not given.",
            rich_help_panel=IMAGE,
        ),
    ] = None
    cr4: Annotated[
        str | None,
        typer.Option(
            "--cr4",
            metavar="X",
            help="PSE, PAE and PGE are bits 4, 5 and 7; 0 if not given.",
            rich_help_panel=IMAGE,
        ),
    ] = None
    efer: Annotated[
        str | None,
        typer.Option(
            "--efer",
            metavar="X",
            help="NXE is bit 11; 0 if not given.",
            rich_help_panel=IMAGE,
        ),
    ] = None
    expect: Annotated[
        Path | None,
        typer.Option(
            "--expect",
            metavar="FILE.npz",
            help="Translations it must have: va, pa, size, rights, absent.",
            rich_help_panel=IMAGE,
        ),
    ] = None

    def subject(self) -> ImageSubject | None:
        """The image, read and checked; None if none was asked for.

        :raises BadInput: if an option is missing, malformed, or its file is.
        """
        if self.image is None:
            for option in ("cr3", "cr0", "cr4", "efer", "expect"):
                if getattr(self, option) is not None:
                    raise BadInput(f"--{option} describes a memory image: give --image FILE too")
            return None
        registers = self.registers()
        expectation = read_expectation(self.expect) if self.expect else None
        return ImageSubject(read_image(self.image), registers, expectation)

    def registers(self) -> ControlRegisters:
        """The control registers, with what Linux has where an option is missing."""
        if self.cr3 is None:
            raise BadInput("--image needs --cr3 X: the physical address of the page directory")
        registers = ControlRegisters(
            cr0=USUAL_CR0 if self.cr0 is None else parse_number(self.cr0, "--cr0"),
            cr3=parse_number(self.cr3, "--cr3"),
            cr4=parse_number(self.cr4 or "0", "--cr4"),
            efer=parse_number(self.efer or "0", "--efer", maximum=MAX_U64),
        )
        if registers.paging and not registers.cr0 & CR0_PE:
            raise BadInput(
                f"--cr0 {registers.cr0:#x}: paging (bit 31) without protection (bit 0), which no "
                f"CPU accepts; set bit 0"
            )
        return registers


def takes_groups(command: Callable[..., int]) -> Callable[..., int]:
    """Let ``command`` take groups of options: each field becomes an option of its own."""
    signature = inspect.signature(command)
    groups = {p.name: p.annotation for p in signature.parameters.values() if _is_group(p)}
    fields = {
        name: list(inspect.signature(group).parameters.values()) for name, group in groups.items()
    }

    @functools.wraps(command)
    def spread(**values: Any) -> int:
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in fields[name]})
        return command(**values)

    own = [p for p in signature.parameters.values() if not _is_group(p)]
    flat = own + [field for group in fields.values() for field in group]
    keyword_only = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in flat]
    spread.__signature__ = signature.replace(parameters=keyword_only)  # type: ignore[attr-defined]
    return spread


def _is_group(parameter: inspect.Parameter) -> bool:
    return is_dataclass(parameter.annotation)
