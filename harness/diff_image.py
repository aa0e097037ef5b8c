# SPDX-License-Identifier: GPL-2.0-or-later
"""The comparison without a kernel model: what the architecture and the CPU make of the tables.

There is no intent here, and nothing of the guest is run: the MMU is asked. With a list of known
translations both must say exactly what it lists, no page more or less. :func:`diff_image` does
so for a memory image, on a CPU made for it; :func:`diff_tables` for whatever a CPU has loaded,
its TLB as it stands: what it answers otherwise after a flush was a missing flush.

Mapped frames outside RAM are devices, and no error. Reserved bits of a PDPTE are a matter of
the load of CR3: they are noted, and tolerated. A table outside RAM is a finding: the image is
incomplete, or its tables are broken.

What can fail: control registers that no CPU model offers are
:class:`~kernel_model.errors.BadInput`.
"""

import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from rich.progress import Progress

from harness.architecture import CR4_PAE, CR4_PGE, CR4_PSE, ControlRegisters
from harness.coverage import pages_to_ask
from harness.cpu import Cpu, create
from harness.diff_report import MAX_FINDINGS, Report
from harness.expectation import Expectation
from harness.mappings import (
    COMPARED_RIGHTS,
    I64,
    PAGE_SHIFT,
    PAGES,
    RIGHT_BAD_TABLE,
    RIGHT_PRESENT,
    Pages,
)
from harness.progress import Meter
from harness.readings.cpu_mmu import ask_mmu
from harness.readings.cpu_probe import LeftOut
from harness.readings.probe_place import frames_in_ram
from harness.readings.reading import AFTER_FLUSH, QUESTIONS, Reading, disagree, read_pages
from harness.readings.spec import SpecView, mmu_features
from harness.verdict import Finding, Verdict, Witness, findings
from kernel_model.config import CPU_MODELS
from kernel_model.ram import Ram

__all__ = ["cpu_for_image", "diff_image", "diff_tables", "expected_pages"]

EXPECTED: Final = "list"
MAX_NOTES: Final = 20
"""Malformed entries that a report names."""

USUAL_MODEL: Final = "pentium3"
Addresses = npt.NDArray[np.unsignedinteger[Any]]


def diff_image(
    ram: Ram,
    registers: ControlRegisters,
    expectation: Expectation | None = None,
    *,
    cpu_model: str | None = None,
    exhaustive: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> Report:
    """Compare spec, CPU and the list of translations over the image in ``ram``.

    Without a ``cpu_model`` the CPU is one that has what the registers turn on.
    """
    return diff_tables(
        cpu_for_image(ram, registers, cpu_model),
        expectation,
        exhaustive=exhaustive,
        seed=seed,
        progress=progress,
    )


def diff_tables(
    cpu: Cpu,
    expectation: Expectation | None = None,
    *,
    subject: str = "Memory image",
    exhaustive: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> Report:
    """Compare spec, CPU and the list of translations over the tables that ``cpu`` has loaded.

    Afterwards its TLB has been flushed.
    """
    began = time.perf_counter()
    meter = Meter(progress)
    compared = _Comparison(SpecView(cpu.ram, cpu.control, mmu_features(cpu)), expectation)
    compared.ask(cpu, compared.choose_pages(exhaustive, seed), meter)
    meter.finish()
    return compared.report(f"{subject}, {cpu.model}", time.perf_counter() - began)


def cpu_for_image(ram: Ram, registers: ControlRegisters, cpu_model: str | None) -> Cpu:
    """A CPU over ``ram`` with ``registers`` loaded.

    Without a ``cpu_model`` it is one that has what the registers turn on; a model that was
    asked for and has not is refused.
    """
    fitting = (name for name in (USUAL_MODEL, *CPU_MODELS) if _offers(name, registers))
    cpu = create(ram, cpu_model or next(fitting, USUAL_MODEL))
    cpu.load_control(registers)
    return cpu


def _offers(model: str, registers: ControlRegisters) -> bool:
    features = CPU_MODELS[model]
    return (
        (features.pse or not registers.cr4 & CR4_PSE)
        and (features.pae or not registers.cr4 & CR4_PAE)
        and (features.pge or not registers.cr4 & CR4_PGE)
        and (features.nx or not registers.efer)
    )


def expected_pages(expectation: Expectation, *, no_execute: bool) -> Pages:
    """The list spread over all pages."""
    pfn = np.full(PAGES, -1, np.int64)
    rights = np.zeros(PAGES, np.uint16)
    pages, row, offset = _pages_of(expectation.va, expectation.size)
    pfn[pages] = (expectation.pa >> np.uint64(PAGE_SHIFT)).astype(np.int64)[row] + offset
    rights[pages] = expectation.rights[row] | np.uint16(RIGHT_PRESENT)
    return Pages(pfn, rights, no_execute)


def _pages_of(va: Addresses, size: Addresses) -> tuple[I64, I64, I64]:
    """Every page of rows of ``size`` bytes at ``va``: its number, its row, its place there."""
    count = size.astype(np.int64) >> PAGE_SHIFT
    row = np.repeat(np.arange(len(count)), count)
    offset = np.arange(len(row)) - (np.cumsum(count) - count)[row]
    return (va.astype(np.int64) >> PAGE_SHIFT)[row] + offset, row, offset


def _sizes(va: Addresses, size: Addresses) -> I64:
    """The page size at every page, 0 where nothing is mapped."""
    sizes = np.zeros(PAGES, np.int64)
    pages, row, _ = _pages_of(va, size)
    sizes[pages] = size[row]
    return sizes


class _Comparison:
    """One comparison under way."""

    def __init__(self, spec: SpecView, expectation: Expectation | None) -> None:
        self.spec = spec
        self.listed: Pages | None = None
        self.absent = self.unlisted = np.empty(0, np.int64)
        self.sizes = (np.empty(0, np.int64), np.empty(0, np.int64))
        if expectation is not None:
            self.listed = expected_pages(expectation, no_execute=spec.pages.no_execute)
            self.absent = expectation.absent.astype(np.int64) >> PAGE_SHIFT
            self.sizes = (
                _sizes(expectation.va, expectation.size),
                _sizes(spec.mappings.va, spec.mappings.size),
            )
            self.unlisted = self._differences(self.listed)

    def _differences(self, listed: Pages) -> I64:
        """Pages that the list and the tables have otherwise: frame, rights, or page size."""
        compared = np.uint16(COMPARED_RIGHTS | RIGHT_PRESENT)
        wrong = listed.pfn != self.spec.pages.pfn
        wrong |= (listed.rights ^ self.spec.pages.rights) & compared != 0
        wrong |= self.sizes[0] != self.sizes[1]
        return np.flatnonzero(wrong)

    def choose_pages(self, exhaustive: bool, seed: int) -> I64:
        if exhaustive:
            return np.arange(PAGES)
        each = self.spec.pages_per_directory_entry
        return pages_to_ask(self.spec.pages, each, seed, self.unlisted, self.absent)

    def ask(self, cpu: Cpu, pages: I64, meter: Meter) -> None:
        """Ask the MMU, and again after a flush where it is wrong."""
        # An absent page is not cached: asking about it evicts no stale translation of another.
        absent = pages[self.spec.pages.rights[pages] == 0] if len(pages) < PAGES else pages[:0]
        self.asked = ask_mmu(cpu, pages, meter, absent)
        self.said = self.spec.reading(pages)
        wrong = pages[disagree(self.asked.answers, self.said.answers).any(axis=0)]
        cpu.flush_tlb_global()
        again = ask_mmu(cpu, wrong, meter)
        self.flushed = Reading(AFTER_FLUSH, again.pages, again.answers)
        still = disagree(again.answers, self.said.at(wrong)).any(axis=0)
        self.stale, self.refused = wrong[~still], wrong[still]

    def _findings(self) -> Iterator[Finding]:
        walker = self.spec.walk
        said = Witness(self.said, self.spec.pages.rights)
        asked, flushed = Witness(self.asked), Witness(self.flushed)
        yield from findings(Verdict.MISSING_FLUSH, self.stale, said, asked, (flushed,), walker)
        yield from findings(Verdict.EMULATOR_BUG, self.refused, said, flushed, (), walker)
        if self.listed is None:
            lost = np.flatnonzero(self.spec.pages.rights == RIGHT_BAD_TABLE)
            silent = Witness(self.spec.reading(lost))
            yield from findings(Verdict.BAD_TABLE, lost, silent, silent, (), walker)
            return
        unlisted, registers = self.unlisted, self.spec.registers
        listed = Witness(read_pages(EXPECTED, self.listed, unlisted, registers), self.listed.rights)
        said = Witness(self.spec.reading(unlisted), self.spec.pages.rights)
        found = findings(Verdict.UNEXPECTED, unlisted, listed, said, (asked,), walker, np.not_equal)
        yield from map(self._with_sizes, found)

    def _with_sizes(self, finding: Finding) -> Finding:
        listed, said = (int(sizes[finding.va >> PAGE_SHIFT]) for sizes in self.sizes)
        if listed == said or not listed or not said:
            return finding
        return replace(finding, remark=f"page of {said:#x} bytes, the list has {listed:#x}")

    def report(self, subject: str, seconds: float) -> Report:
        found = self._findings()
        kept = list(islice(found, MAX_FINDINGS))
        mapped = self.spec.pages.pfn[self.spec.pages.pfn >= 0]
        devices = np.count_nonzero(~frames_in_ram(self.spec.ram, mapped))
        mode = self.spec.mode.name if self.spec.mode else "paging off"
        questions = {reading.name: reading.asked for reading in (self.said, self.asked)}
        if self.listed is not None:
            questions[EXPECTED] = len(self.asked.pages) * len(QUESTIONS)
        return Report(
            subject=f"{subject}, {mode}, CR3 {self.spec.registers.cr3:#x}",
            pages=PAGES,
            mapped=len(mapped),
            asked=len(self.asked.pages),
            questions=questions,
            findings=tuple(sorted(kept, key=lambda finding: finding.va)),
            omitted=sum(1 for _ in found),
            left_out=LeftOut(devices=int(devices)),
            notes=tuple(self._notes()),
            seconds=seconds,
        )

    def _notes(self) -> Iterator[str]:
        yield from map(str, self.spec.refused)
        yield from map(str, islice(self.spec.mappings.malformed, MAX_NOTES))
        more = len(self.spec.mappings.malformed) - MAX_NOTES
        if more > 0:
            yield f"{more} more malformed entries"
