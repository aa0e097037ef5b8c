# SPDX-License-Identifier: GPL-2.0-or-later
"""A report on a machine: its data, its pictures, its page.

:meth:`Report.of` gathers everything at once, so a report stays as it is when the machine goes on.
In a notebook a report shows itself, and so does each figure.

What can fail: an unknown picture is :class:`~kernel_model.errors.BadInput`; comparing may raise
what :func:`harness.diff.diff` raises.
"""

from dataclasses import dataclass
from functools import cached_property
from html import escape
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Final

from harness.progress import Meter
from harness.report.picture import NARROW, WIDE
from harness.report.pictures import PICTURES
from harness.report.verdicts import Verdicts, verdicts
from kernel_model.errors import BadInput

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.progress import Progress

    from harness.conformance.matrix import MatrixReport
    from harness.machine import Machine
    from harness.report.faults import FaultLog

_FRAME_HEIGHT: Final = 720
"""Pixels of a report in a notebook; it scrolls."""
_GIB: Final = 1 << 30


@dataclass(frozen=True)
class Report:
    """``machine`` are facts for the head of the page, ``pictures`` the data of each by name.

    ``notes`` are for a person: what could not be done, and why.
    """

    machine: dict[str, str]
    pictures: dict[str, Any]
    verdicts: Verdicts
    command: str = ""
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        machine: "Machine",
        *,
        compare: bool = True,
        seed: int = 0,
        conformance: "MatrixReport | None" = None,
        faults: "FaultLog | None" = None,
        command: str = "",
        notes: tuple[str, ...] = (),
        problem: str = "",
        progress: "Progress | None" = None,
    ) -> "Report":
        """Gather the report of ``machine`` as it stands.

        ``compare`` has all readings of its address space compared; ``conformance`` and
        ``faults`` are what :func:`harness.conformance.matrix.run_matrix` and a
        :class:`~harness.report.faults.FaultLog` found. ``problem`` is what ended the machine: it
        is a failure, and nothing can be compared any more.
        """
        from harness.diff import diff

        pictures = {name: picture.gather(machine) for name, picture in PICTURES.items()}
        if faults is not None:
            pictures["faults"] = faults.as_data()
        comparison = (
            diff(machine, seed=seed, progress=progress) if compare and not problem else None
        )
        if comparison is not None:
            notes = (*notes, *comparison.notes)
        found = verdicts(comparison, conformance, pictures["page_tables"]["ranges"], problem)
        program = pictures["faults"]["program"] or pictures["address_space"]["program"]
        facts = _facts(machine, pictures["page_tables"]["mode"], program)
        return cls(facts, pictures, found, command, notes)

    @property
    def ok(self) -> bool:
        """All readings agree, and the CPU conforms, as far as that was asked."""
        return self.verdicts.ok

    @property
    def title(self) -> str:
        """What was looked at, in a line."""
        facts = self.machine
        return f"Linux {facts['release']} on a {facts['CPU']}, {facts['RAM']}"

    # -- pictures ------------------------------------------------------------------------------

    def figure(self, name: str, width: int = WIDE) -> "Figure":
        """The picture ``name`` as a matplotlib figure of ``width`` pixels at 72 dots an inch.

        :raises BadInput: if there is none of that name.
        """
        if name not in PICTURES:
            raise BadInput(f"no picture {name!r}: one of {', '.join(PICTURES)}")
        return PICTURES[name].draw(self.pictures[name], width).figure

    def svg(self, name: str, width: int = WIDE) -> str:
        """The same as inline SVG, whose colours are variables of the page's style sheet."""
        from harness.report.sheet import svg_text

        figure, picture = self.figure(name, width), PICTURES[name]
        where = f"{name}-{'narrow' if width <= NARROW else 'wide'}"
        return svg_text(figure, where, picture.title, picture.caption(self.pictures[name]))

    # -- the page --------------------------------------------------------------------------------

    def html(self, meter: Meter | None = None) -> str:
        """The whole page, which needs nothing beside itself."""
        from harness.report.page import render

        return render(self, meter or Meter())

    @cached_property
    def _in_a_notebook(self) -> str:
        return escape(self.html(), quote=True)

    def _repr_html_(self) -> str:
        return (
            f'<iframe title="mmucheck report" style="width:100%;height:{_FRAME_HEIGHT}px;border:0" '
            f'srcdoc="{self._in_a_notebook}"></iframe>'
        )

    def as_json(self) -> dict[str, Any]:
        """Everything the page shows, as plain data."""
        return {
            "ok": self.ok,
            "title": self.title,
            "machine": self.machine,
            "made_by": self.command,
            "pictures": self.pictures,
            "verdicts": self.verdicts.as_json(),
            "notes": list(self.notes),
        }


def _facts(machine: "Machine", mode: str, program: str) -> dict[str, str]:
    """The machine in words, for the head of the page."""
    config = machine.kernel.config
    ram = f"{config.ram / _GIB:g} GiB" if config.ram >= _GIB else f"{config.ram >> 20} MiB"
    facts = {
        "RAM": ram,
        "release": config.release,
        "CPU": config.cpu_model,
        "CPUs": str(config.nr_cpus),
        "nodes": str(config.nodes),
        "high memory": str(config.highmem.value),
        "paging": f"{mode}, CR3 {machine.cpu.read_cr3():#x}",
        "program": program or "none",
    }
    if machine.kernel.image.constants.has_reverse_map:
        facts["reverse map"] = config.rmap
    made = [f"{name} {_version(name)}" for name in ("mmucheck", "unicorn")]
    return facts | {"versions": ", ".join(made)}


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "(not installed)"
