# SPDX-License-Identifier: GPL-2.0-or-later
"""The comparison of a booted machine with another CPU in the place of ours: QEMU.

Intent and architecture are read as in :mod:`harness.diff`; loads, stores and fetches of the
guest's probe run on QEMU, over a copy of the machine's RAM, and QEMU delivers their faults. The
machine itself is only read. What can fail: what :mod:`harness.cpu.qemu_peer` raises.
"""

import time
from itertools import islice
from typing import Final

import numpy as np
import numpy.typing as npt
from rich.progress import Progress

from harness.coverage import pages_to_ask
from harness.cpu.qemu import QemuFailed
from harness.cpu.qemu_peer import QemuPeer
from harness.diff_report import MAX_FINDINGS, Report
from harness.machine import Machine
from harness.mappings import PAGES, Pages
from harness.mmu_spec import check_pdptes
from harness.progress import Meter
from harness.readings import intent as intents
from harness.readings.cpu_probe import LeftOut, access_pages
from harness.readings.probe_place import NoPlace
from harness.readings.reading import QUESTIONS, Reading, disagree, read_pages
from harness.readings.spec import SpecView
from harness.verdict import Finding, Verdict, Witness, findings

NAME: Final = "qemu"


def diff_on_qemu(
    machine: Machine,
    *,
    exhaustive: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> Report:
    """Compare intent, architecture and QEMU in the address space that CR3 names."""
    began = time.perf_counter()
    meter = Meter(progress)
    with QemuPeer(machine) as peer:
        spec = SpecView(peer.ram, peer.control, peer.features)
        no_execute = spec.pages.no_execute
        intent = intents.intended_pages(machine.kernel, spec.registers.cr3, no_execute=no_execute)
        contradicted = np.flatnonzero(intents.contradicts(intent, spec.pages))
        pages = np.arange(PAGES)
        if not exhaustive:
            each = spec.pages_per_directory_entry
            pages = pages_to_ask(
                spec.pages, each, seed, contradicted, np.flatnonzero(spec.pages.pfn >= 0)
            )
        # By the machine's own memory: QEMU marks PDPTEs accessed, which no CPU does.
        refused = check_pdptes(machine.ram, spec.registers, spec.features)
        notes = [f"{pdpte}" for pdpte in refused]
        left_out, untried = LeftOut(), ""
        accessed = Reading(NAME, np.empty(0, np.int64), np.empty((len(QUESTIONS), 0), np.int64))
        try:
            met, left_out = access_pages(peer, spec, pages, np.ones(PAGES, np.bool_), meter)
            accessed = Reading(NAME, met.pages, met.answers)
        except NoPlace as error:
            notes.append(f"no loads, stores and fetches by the guest: {error}")
        except QemuFailed as error:
            untried = str(error)
        meter.finish()
        said = spec.reading(pages)
        wrong = _contradictions(spec, intent, contradicted, said, accessed)
    kept = list(islice(wrong, MAX_FINDINGS))
    mode = spec.mode.name if spec.mode else "paging off"
    config = machine.kernel.config
    return Report(
        subject=(
            f"Linux {config.release}, {config.ram >> 20} MiB, {config.cpu_model} of QEMU, {mode}, "
            f"CR3 {spec.registers.cr3:#x}"
        ),
        pages=PAGES,
        mapped=int(np.count_nonzero(spec.pages.pfn >= 0)),
        asked=len(pages),
        questions={
            intents.NAME: read_pages(intents.NAME, intent, pages, spec.registers).asked,
            said.name: said.asked,
            NAME: accessed.asked,
        },
        findings=tuple(sorted(kept, key=lambda finding: finding.va)),
        omitted=len(wrong) - len(kept),
        left_out=left_out,
        notes=tuple(notes),
        seconds=time.perf_counter() - began,
        untried=untried,
    )


def _contradictions(
    spec: SpecView,
    intent: Pages,
    contradicted: npt.NDArray[np.int64],
    said: Reading,
    accessed: Reading,
) -> list[Finding]:
    """Where the tables do not hold what is meant, and where QEMU does not do what they say."""
    astray = disagree(accessed.answers, said.at(accessed.pages)).any(axis=0)
    deviating = accessed.pages[astray]
    meant = Witness(read_pages(intents.NAME, intent, contradicted, spec.registers), intent.rights)
    held = Witness(spec.reading(contradicted), spec.pages.rights)
    seen, by_manual = Witness(accessed), Witness(said, spec.pages.rights)
    walk = spec.walk
    return [
        *findings(Verdict.MODEL_BUG, contradicted, meant, held, (seen,), walk, np.not_equal),
        *findings(Verdict.EMULATOR_BUG, deviating, by_manual, seen, (), walk),
    ]
