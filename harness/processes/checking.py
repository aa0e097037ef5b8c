# SPDX-License-Identifier: GPL-2.0-or-later
"""Comparing while programs run: what the model means, what the tables hold, what the CPU sees.

``faults`` looks, before a process goes back to ring 3, at every page whose meaning was announced
since the last look (:mod:`harness.monitors.frames`): it is walked by the specification and put to
the CPU's MMU; and nobody may still hold a slot of ``kmap_atomic()``. ``full`` also compares the
whole address space, intent against specification, when a process is made, begins a program, or
ends.

What can fail is what this is for: :class:`CheckFailed` names the page, what each one says, whose
fault that is, and everything about the entry; :class:`~harness.monitors.kmap_slots.SlotLeaked`
names a slot and who mapped it.
"""

import enum
from typing import TYPE_CHECKING, Final

import numpy as np

from harness.architecture import Access, Ring
from harness.failures import finding_text
from harness.machine import Machine
from harness.mappings import I64, PAGE_SHIFT, RIGHT_PRESENT, RIGHT_WRITE, Pages
from harness.mmu_spec import walk
from harness.readings.intent import contradicts, intended_space
from harness.readings.reading import AFTER_FLUSH, FAULT, Question, read_pages
from harness.readings.spec import SpecView, mmu_features
from harness.verdict import Answer, Finding, Verdict, Witness, findings
from kernel_model.arch_i386.page import PAGE_OFFSET
from kernel_model.errors import MmucheckError

if TYPE_CHECKING:
    from harness.processes.linux import Linux
    from harness.processes.process import Process

_FIRST_KERNEL_PAGE: Final = PAGE_OFFSET >> PAGE_SHIFT


class Check(enum.StrEnum):
    """How much is compared while programs run."""

    NONE = "none"
    FAULTS = "faults"
    FULL = "full"


class CheckFailed(MmucheckError):
    """The readings of a page differ: somebody is wrong.

    ``finding`` says who, and where; the message has the walk and the writer of the entry.
    """

    def __init__(self, finding: Finding, machine: Machine, pgd: int, more: int = 0) -> None:
        text = finding_text(machine, finding)
        also = f" (and {more} more pages)" if more else ""
        super().__init__(f"{text}\nin the address space with CR3 {pgd:#x}{also}")
        self.finding = finding
        answers = ", ".join(map(str, finding.answers))
        self.headline = (
            f"{finding.verdict.value} at {finding.va:#010x} of {pgd:#x}, {finding.accesses}: "
            f"{answers}{also}"
        )


class Checker:
    """The comparisons of one machine."""

    def __init__(self, linux: "Linux", check: Check) -> None:
        self._linux = linux
        self._machine = linux.machine
        self.check = check
        self.pages = 0
        self.spaces = 0

    def changed_pages(self, process: "Process") -> None:
        """Look at the pages of the current process that have changed."""
        if self.check is Check.NONE or not process.mm:
            return
        if self._machine.kmap_slots:
            self._machine.kmap_slots.check()
        self.pages += compare_changed(self._machine, process.pgd)

    def whole_space(self, process: "Process") -> None:
        """Compare all of the current process's address space, by tables alone."""
        if self.check is not Check.FULL or not process.mm:
            return
        self.spaces += 1
        machine, pgd = self._machine, process.pgd
        spec = SpecView(machine.ram, machine.cpu.control, mmu_features(machine.cpu))
        intent = intended_space(machine.kernel, spec)
        wrong = np.flatnonzero(contradicts(intent, spec.pages))
        if len(wrong):
            raise CheckFailed(
                _first_finding(intent, spec, wrong), machine, pgd, more=len(wrong) - 1
            )


def _first_finding(intent: Pages, spec: SpecView, wrong: I64) -> Finding:
    """The first of the pages whose tables do not hold what is meant."""
    first, registers = wrong[:1], spec.registers
    meant = Witness(read_pages("intent", intent, first, registers), intent.rights)
    held = Witness(spec.reading(first), spec.pages.rights)
    return next(findings(Verdict.MODEL_BUG, first, meant, held, (), spec.walk, np.not_equal))


def compare_changed(machine: Machine, pgd: int) -> int:
    """Compare the readings of the user pages that were announced as changed since the last time.

    ``pgd`` is the page directory that CR3 has. Returns how many pages these were.

    :raises CheckFailed: at the first one whose readings differ.
    """
    changed = machine.ledger.take_changed(pgd)
    pages = changed[changed < _FIRST_KERNEL_PAGE].tolist()
    differing: tuple[int, Access, tuple[int | None, ...]] | None = None
    with machine.cpu.asking():
        for page in pages:
            differing = differing or _differing(machine, pgd, page)
    if differing is not None:
        raise _failed(machine, pgd, *differing)
    return len(pages)


def _differing(
    machine: Machine, pgd: int, page: int
) -> tuple[int, Access, tuple[int | None, ...]] | None:
    """An access to the page about which intent, specification and CPU differ, with what each
    says."""
    pfn, rights = machine.ledger.meaning(pgd, page)
    va, cpu = page << PAGE_SHIFT, machine.cpu
    for access, needed in ((Access.READ, RIGHT_PRESENT), (Access.WRITE, RIGHT_WRITE)):
        meant = pfn << PAGE_SHIFT if rights & needed and pfn >= 0 else None
        spec = walk(machine.ram, cpu.control, va, access, Ring.USER).paddr
        seen = cpu.translate(va, access, Ring.USER)
        if not meant == spec == seen:
            return va, access, (meant, spec, seen)
    return None


def _failed(
    machine: Machine, pgd: int, va: int, access: Access, said: tuple[int | None, ...]
) -> CheckFailed:
    meant, spec, _ = said
    verdict = Verdict.MODEL_BUG
    witnesses = list(zip(("intent", "spec", "cpu"), said, strict=True))
    if meant == spec:
        machine.cpu.flush_tlb_global()
        again = machine.cpu.translate(va, access, Ring.USER)
        verdict = Verdict.MISSING_FLUSH if again == spec else Verdict.EMULATOR_BUG
        witnesses.append((AFTER_FLUSH, again))
    answers = tuple(
        Answer(name, FAULT if paddr is None else paddr >> PAGE_SHIFT) for name, paddr in witnesses
    )
    question = (Question(Ring.USER, access),)
    return CheckFailed(Finding(verdict, va, 1 << PAGE_SHIFT, question, answers), machine, pgd)
