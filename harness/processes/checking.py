# SPDX-License-Identifier: GPL-2.0-or-later
"""Comparing while programs run: what the model means, what the tables hold, what the CPU sees.

``faults`` looks, before a process goes back to ring 3, at every page whose meaning was announced
since the last look (:mod:`harness.monitors.frames`): it is walked by the specification and put to
the CPU's MMU. ``full`` also compares the whole address space, intent against specification, when
a process is made, begins a program, or ends.

What can fail is what this is for: :class:`CheckFailed` names the page and what each one says.
"""

import enum
from typing import TYPE_CHECKING, Final

import numpy as np

from harness.architecture import Access, Ring
from harness.mappings import PAGE_SHIFT, RIGHT_PRESENT, RIGHT_WRITE
from harness.mmu_spec import walk
from harness.readings.intent import contradicts, intended_space
from harness.readings.spec import SpecView, mmu_features
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
    """The readings of a page differ: somebody is wrong."""


class Checker:
    """The comparisons of one machine."""

    def __init__(self, linux: "Linux", check: Check) -> None:
        self._linux = linux
        self._machine = linux.machine
        self._ledger = linux.machine.ledger
        self.check = check
        self.pages = 0
        self.spaces = 0

    def changed_pages(self, process: "Process") -> None:
        """Look at the pages of the current process that have changed."""
        if self.check is Check.NONE or not process.mm:
            return
        pgd = process.pgd
        changed = self._ledger.take_changed(pgd)
        with self._machine.cpu.asking():
            for page in changed[changed < _FIRST_KERNEL_PAGE].tolist():
                self._page(pgd, page)

    def _page(self, pgd: int, page: int) -> None:
        self.pages += 1
        pfn, rights = self._ledger.meaning(pgd, page)
        va, cpu = page << PAGE_SHIFT, self._machine.cpu
        for access, needed in ((Access.READ, RIGHT_PRESENT), (Access.WRITE, RIGHT_WRITE)):
            meant = pfn << PAGE_SHIFT if rights & needed and pfn >= 0 else None
            spec = walk(self._machine.ram, cpu.control, va, access, Ring.USER).paddr
            seen = cpu.translate(va, access, Ring.USER)
            if not meant == spec == seen:
                said = ", ".join(
                    f"{name} {'a fault' if paddr is None else f'{paddr:#x}'}"
                    for name, paddr in (("intent", meant), ("spec", spec), ("cpu", seen))
                )
                raise CheckFailed(f"{va:#010x} of {pgd:#x}, user {access.value}: {said}")

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
            va = int(wrong[0]) << PAGE_SHIFT
            raise CheckFailed(
                f"{len(wrong)} pages of {pgd:#x} do not hold what is meant, the first {va:#010x}"
            )
