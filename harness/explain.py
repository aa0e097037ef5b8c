# SPDX-License-Identifier: GPL-2.0-or-later
"""One address explained: each level of its walk, and each reading of every access to it.

:func:`explain` is for a booted machine, :func:`explain_image` for a memory image. What can
fail: an address of more than 32 bits is :class:`~kernel_model.errors.BadInput`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from harness.architecture import ControlRegisters
from harness.diff_image import EXPECTED, cpu_for_image, expected_pages
from harness.expectation import Expectation
from harness.machine import GuestDied, GuestStopped, Machine
from harness.mappings import I64, PAGE_SHIFT, PAGES
from harness.mmu_faults import BadTable
from harness.mmu_spec import Walk
from harness.paging_modes import VA_BITS
from harness.progress import Meter
from harness.readings import intent as intents
from harness.readings.cpu_mmu import ask_mmu
from harness.readings.cpu_probe import ProbeTrapped, access_pages
from harness.readings.probe_place import NoPlace
from harness.readings.reading import (
    QUESTIONS,
    UNSAID,
    Reading,
    answer_text,
    disagree,
    error_code_of,
    read_pages,
)
from harness.readings.spec import SpecView, mmu_features
from kernel_model.errors import BadInput
from kernel_model.ram import Ram

__all__ = ["Explanation", "explain", "explain_image"]


@dataclass(frozen=True, slots=True)
class Explanation:
    """Everything there is to say of ``va``.

    ``walks`` are the reference walks of the six accesses, in the order of ``QUESTIONS``;
    ``readings`` have one page, that of ``va``.
    """

    va: int
    walks: tuple[Walk, ...]
    readings: tuple[Reading, ...]
    notes: tuple[str, ...] = ()

    @property
    def bad_table(self) -> bool:
        """The walk leaves RAM: the architecture does not say what comes of it."""
        return any(isinstance(walk.fault, BadTable) for walk in self.walks)

    @property
    def ok(self) -> bool:
        """The architecture says what happens, and no two readings contradict each other."""
        return not self.bad_table and not any(
            disagree(one.answers, other.answers).any()
            for number, one in enumerate(self.readings)
            for other in self.readings[:number]
        )

    def as_json(self) -> dict[str, Any]:
        walk = self.walks[0]
        return {
            "va": self.va,
            "ok": self.ok,
            "mode": walk.mode,
            "cr3": walk.cr3,
            "steps": [
                {
                    "level": step.level,
                    "index": step.index,
                    "paddr": step.paddr,
                    "entry": step.entry,
                    "text": str(step),
                }
                for step in walk.steps
            ],
            "paddr": walk.paddr,
            "page_size": walk.page_size,
            "rights": walk.rights if walk.page_size else None,
            "accesses": [self._access_as_json(row) for row in range(len(QUESTIONS))],
            "notes": list(self.notes),
        }

    def _access_as_json(self, row: int) -> dict[str, Any]:
        ring, access = QUESTIONS[row]
        answers = {}
        for reading in self.readings:
            code = int(reading.answers[row, 0])
            answers[reading.name] = {
                "pfn": code if code >= 0 else None,
                "error_code": error_code_of(code),
                "text": answer_text(code),
            }
        fault = self.walks[row].fault
        return {
            "ring": int(ring),
            "access": access.value,
            "fault": None if fault is None else str(fault),
            "answers": answers,
        }

    def __rich__(self) -> RenderableType:
        walk = self.walks[0]
        parts: list[RenderableType] = [Text(f"{self.va:#010x}: {walk.mode}, CR3 {walk.cr3:#x}")]
        parts += [Text(f"  {step}") for step in walk.steps]
        if walk.page_size:
            parts.append(Text(f"  physical {walk.paddr:#x}: {walk.rights}"))
        table = Table(title_justify="left")
        table.add_column("access", no_wrap=True)
        for reading in self.readings:
            table.add_column(reading.name, overflow="fold")
        table.add_column("why it faults", overflow="fold")
        for row, question in enumerate(QUESTIONS):
            answers = [answer_text(int(reading.answers[row, 0])) for reading in self.readings]
            fault = self.walks[row].fault
            table.add_row(str(question), *answers, "" if fault is None else str(fault))
        parts.append(table)
        parts += [Text(f"note: {note}") for note in self.notes]
        verdict = "the readings agree" if self.ok else "THE READINGS DISAGREE"
        if self.bad_table:
            verdict = "A TABLE LIES OUTSIDE RAM"
        parts.append(Text(verdict, style="bold green" if self.ok else "bold red"))
        return Group(*parts)


def explain(machine: Machine, va: int) -> Explanation:
    """Explain ``va`` in the address space that CR3 of ``machine`` names."""
    page = _page(va)
    cpu = machine.cpu
    spec = SpecView(machine.ram, cpu.control, mmu_features(cpu))
    asked = ask_mmu(cpu, page, Meter())
    meant = intents.intended_space(machine.kernel, spec)
    said = spec.reading(page)
    readings = [read_pages(intents.NAME, meant, page, spec.registers), said, asked]
    settled = np.ones(PAGES, np.bool_)
    settled[page] = not disagree(asked.answers, said.answers).any()
    notes = list(map(str, spec.refused))
    try:
        accessed, _ = access_pages(machine, spec, page, settled, Meter())
        readings.append(accessed)
        if (accessed.answers == UNSAID).all():
            notes.append("no loads, stores and fetches here: not RAM, or nothing to tell it by")
    except (NoPlace, ProbeTrapped, GuestDied, GuestStopped) as error:
        notes.append(f"no loads, stores and fetches by the guest: {str(error).splitlines()[0]}")
    return _explanation(spec, va, readings, notes)


def explain_image(
    ram: Ram,
    registers: ControlRegisters,
    va: int,
    *,
    expectation: Expectation | None = None,
    cpu_model: str | None = None,
) -> Explanation:
    """Explain ``va`` in the memory image ``ram``."""
    page = _page(va)
    cpu = cpu_for_image(ram, registers, cpu_model)
    spec = SpecView(ram, registers, mmu_features(cpu))
    readings = [spec.reading(page), ask_mmu(cpu, page, Meter())]
    if expectation is not None:
        listed = expected_pages(expectation, no_execute=spec.pages.no_execute)
        readings.insert(0, read_pages(EXPECTED, listed, page, registers))
    return _explanation(spec, va, readings, list(map(str, spec.refused)))


def _page(va: int) -> I64:
    if not 0 <= va < 1 << VA_BITS:
        raise BadInput(f"VA {va:#x}: give an address of 32 bits")
    return np.array([va >> PAGE_SHIFT])


def _explanation(
    spec: SpecView, va: int, readings: Sequence[Reading], notes: Sequence[str]
) -> Explanation:
    walks = tuple(spec.walk(va, access, ring) for ring, access in QUESTIONS)
    return Explanation(va, walks, tuple(readings), tuple(notes))
