# SPDX-License-Identifier: GPL-2.0-or-later
"""The comparison of all readings of an address space, and who is wrong where they differ.

1. *intent* and *spec* over all 1,048,576 pages: a difference is a bug of the kernel model; so is
   a user page of *intent* beyond what its VMA allows.
2. The CPU's MMU is asked, without a flush, first about pages that changed since the last
   comparison (their old translations may still be in the TLB, and asking about others would
   evict them). Where it contradicts *spec* it is asked again after a flush: if it agrees then, the
   kernel model forgot the flush, else the emulator is wrong.
3. Guest code loads, stores and fetches over stamped frames, in ring 0 and ring 3.

Afterwards RAM, registers and CR2 are as they were; the TLB has been flushed.

What can fail: a kernel that has not started, or an address space nobody kept book of, raises
:class:`~kernel_model.errors.MmucheckError`. A guest that cannot run is a note in the report.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Final
from weakref import WeakKeyDictionary

import numpy as np
from rich.progress import Progress

from harness.coverage import pages_to_ask
from harness.cpu.interface import Cpu
from harness.diff_image import diff_image
from harness.diff_report import MAX_FINDINGS, Report
from harness.machine import GuestDied, GuestStopped, Machine
from harness.mappings import I64, PAGES, RIGHT_PRESENT, Mappings, Pages
from harness.monitors.frames import FrameLedger
from harness.progress import Meter
from harness.readings import areas
from harness.readings import intent as intents
from harness.readings.cpu_mmu import ask_mmu
from harness.readings.cpu_probe import LeftOut, ProbeTrapped, access_pages
from harness.readings.probe_place import NoPlace
from harness.readings.reading import AFTER_FLUSH, Reading, disagree, read_pages
from harness.readings.spec import SpecView, mmu_features
from harness.verdict import Finding, Verdict, Witness, findings
from kernel_model.arch_i386.page import PAGE_OFFSET, PAGE_SHIFT
from kernel_model.image import SWAPPER_PG_DIR

__all__ = ["Report", "diff", "diff_image", "remember"]

_KERNEL: Final = PAGE_OFFSET >> PAGE_SHIFT

_last_walks: "WeakKeyDictionary[Machine, dict[int, Mappings]]" = WeakKeyDictionary()
"""What each machine's address spaces looked like when they were last compared."""
_KEPT_WALKS: Final = 16


def diff(
    machine: Machine,
    *,
    exhaustive: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
    mm: int | None = None,
) -> Report:
    """Compare every reading of one address space of ``machine``.

    ``mm`` is the physical address of its page directory; the default is the one that CR3 holds.
    ``exhaustive`` puts every page to the CPU; else absent ones are sampled with ``seed``
    (:mod:`harness.coverage`).
    """
    began = time.perf_counter()
    meter = Meter(progress)
    with _loaded(machine.cpu, mm):
        compared = _Comparison.begin(machine)
        changed = _changed_pages(machine, compared.spec)
        pages = np.arange(PAGES) if exhaustive else compared.choose_pages(seed, changed)
        compared.ask(pages, changed, meter)
        compared.access(meter)
        remember(machine, compared.spec)
    meter.finish()
    return compared.report(time.perf_counter() - began)


def remember(machine: Machine, spec: SpecView | None = None) -> None:
    """Keep the current tables as what later changes are told from; :func:`diff` does so itself."""
    if spec is None:
        spec = _spec(machine)
    walks = _last_walks.setdefault(machine, {})
    walks.pop(spec.registers.cr3, None)
    walks[spec.registers.cr3] = spec.mappings
    if len(walks) > _KEPT_WALKS:
        del walks[next(iter(walks))]


def _spec(machine: Machine) -> SpecView:
    return SpecView(machine.ram, machine.cpu.control, mmu_features(machine.cpu))


@contextmanager
def _loaded(cpu: Cpu, mm: int | None) -> Iterator[None]:
    """Let CR3 hold ``mm`` for the time being."""
    before = cpu.read_cr3()
    if mm is None or mm == before:
        yield
        return
    cpu.load_cr3(mm)
    try:
        yield
    finally:
        cpu.load_cr3(before)


def _changed_pages(machine: Machine, spec: SpecView) -> I64:
    """Pages whose translation is not what it was at the last comparison.

    Before the first one: whatever the ledger heard of, and what is mapped for users.
    """
    cr3 = spec.registers.cr3
    ledger = FrameLedger.of(machine.kernel.image.events)
    announced = np.empty(0, np.int64)
    if ledger is not None:
        announced = np.union1d(ledger.take_changed(SWAPPER_PG_DIR), ledger.take_changed(cr3))
    last = _last_walks.get(machine, {}).get(cr3)
    if last is None:
        user = np.flatnonzero(spec.pages.rights[:_KERNEL] & RIGHT_PRESENT)
        return np.union1d(announced, user)
    before = last.pages()
    changed = (before.pfn != spec.pages.pfn) | (before.rights != spec.pages.rights)
    return np.union1d(announced, np.flatnonzero(changed))


@dataclass
class _Comparison:
    """One comparison under way: the readings so far, and the pages found wrong."""

    machine: Machine
    spec: SpecView
    intent: Pages
    contradicted: np.ndarray[tuple[int], np.dtype[np.bool_]]
    beyond: I64
    """User pages that no VMA allows so."""

    @staticmethod
    def begin(machine: Machine) -> "_Comparison":
        spec = _spec(machine)
        intent = intents.intended_space(machine.kernel, spec)
        beyond = intents.beyond_areas(machine.kernel, spec.registers.cr3)
        return _Comparison(machine, spec, intent, intents.contradicts(intent, spec.pages), beyond)

    def choose_pages(self, seed: int, changed: I64) -> I64:
        each = self.spec.pages_per_directory_entry
        wrong = np.union1d(np.flatnonzero(self.contradicted), self.beyond)
        return pages_to_ask(self.spec.pages, each, seed, wrong, changed)

    def ask(self, pages: I64, changed: I64, meter: Meter) -> None:
        """Ask the MMU as it stands, and again after a flush where it is wrong."""
        cpu = self.machine.cpu
        self.pages = pages
        self.said = self.spec.reading(pages)
        # An absent page is not cached, so that asking about many evicts no other translation.
        absent = self.spec.pages.rights[changed] == 0
        urgent = np.concatenate((changed[absent], changed[~absent]))
        self.first = ask_mmu(cpu, pages, meter, urgent)
        wrong = self.pages[disagree(self.first.answers, self.said.answers).any(axis=0)]
        cpu.flush_tlb_global()
        again = ask_mmu(cpu, wrong, meter)
        self.flushed = Reading(AFTER_FLUSH, again.pages, again.answers)
        still = disagree(again.answers, self.said.at(wrong)).any(axis=0)
        self.stale, self.refused = wrong[~still], wrong[still]

    def access(self, meter: Meter) -> None:
        """Make the guest load, store and fetch."""
        settled = np.ones(PAGES, np.bool_)
        settled[self.refused] = False
        self.notes = [f"{pdpte}" for pdpte in self.spec.refused]
        self.left_out = LeftOut()
        self.untried = ""
        self.accessed = Reading("access", np.empty(0, np.int64), np.empty((6, 0), np.int64))
        try:
            self.accessed, self.left_out = access_pages(
                self.machine, self.spec, self.pages, settled, meter
            )
        except NoPlace as error:
            self.notes.append(f"no loads, stores and fetches by the guest: {error}")
        except (ProbeTrapped, GuestDied, GuestStopped) as error:
            self.untried = str(error).splitlines()[0]

    def _intent(self, pages: I64) -> Reading:
        return read_pages(intents.NAME, self.intent, pages, self.spec.registers)

    def _beyond_areas(self, asked: Witness) -> Iterator[Finding]:
        """What the ledger was told of user pages, against their VMAs."""
        if not len(self.beyond):
            return
        registers = self.spec.registers
        allowed = intents.allowed_pages(
            self.machine.kernel, registers.cr3, self.intent, self.beyond
        )
        most = read_pages(areas.NAME, allowed, self.beyond, registers)
        yield from findings(
            Verdict.MODEL_BUG,
            self.beyond,
            Witness(most, allowed.rights),
            Witness(self._intent(self.beyond), self.intent.rights),
            (asked,),
            self.spec.walk,
            np.not_equal,
        )

    def _findings(self) -> Iterator[Finding]:
        said = Witness(self.said, self.spec.pages.rights)
        asked, flushed = Witness(self.first), Witness(self.flushed)
        accessed = Witness(self.accessed)
        walker = self.spec.walk
        tried = self.accessed.pages
        astray = disagree(self.accessed.answers, self.said.at(tried)).any(axis=0)
        deviating = np.setdiff1d(tried[astray], self.refused)
        contradicted = np.flatnonzero(self.contradicted)
        meant = Witness(self._intent(contradicted), self.intent.rights)
        held = Witness(self.spec.reading(contradicted), self.spec.pages.rights)
        yield from findings(
            Verdict.MODEL_BUG, contradicted, meant, held, (asked,), walker, np.not_equal
        )
        yield from self._beyond_areas(asked)
        yield from findings(Verdict.MISSING_FLUSH, self.stale, said, asked, (flushed,), walker)
        yield from findings(Verdict.EMULATOR_BUG, self.refused, said, flushed, (), walker)
        yield from findings(Verdict.EMULATOR_BUG, deviating, said, accessed, (asked,), walker)

    def report(self, seconds: float) -> Report:
        found = self._findings()
        readings = (self._intent(self.pages), self.said, self.first, self.accessed)
        kept = list(islice(found, MAX_FINDINGS))
        return Report(
            subject=self._subject(),
            pages=PAGES,
            mapped=int(np.count_nonzero(self.spec.pages.pfn >= 0)),
            asked=len(self.pages),
            questions={reading.name: reading.asked for reading in readings},
            findings=tuple(sorted(kept, key=lambda finding: finding.va)),
            omitted=sum(1 for _ in found),
            left_out=self.left_out,
            notes=tuple(self.notes),
            seconds=seconds,
            untried=self.untried,
        )

    def _subject(self) -> str:
        config = self.machine.kernel.config
        mode = self.spec.mode.name if self.spec.mode else "paging off"
        return (
            f"Linux {config.release}, {config.ram >> 20} MiB, {config.cpu_model}, {mode}, "
            f"CR3 {self.spec.registers.cr3:#x}"
        )
