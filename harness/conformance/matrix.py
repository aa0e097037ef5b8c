# SPDX-License-Identifier: GPL-2.0-or-later
"""The matrix on one or more CPUs: each against the manual, and against each other.

Every CPU gets the cases that its features have. Two are compared in the cases that both had:
by what was wrong and how, because addresses differ from run to run. What can fail: what a
:class:`~harness.conformance.subject.Subject` can.
"""

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from harness.conformance import layout
from harness.conformance.cases import Cases, case_text
from harness.conformance.check import BATCH_FIELDS, FIELDS, Checked, check
from harness.conformance.divergences import Divergence, explain_known, known_for, names_of
from harness.conformance.findings import Finding, findings
from harness.conformance.flags import MODES, Mode
from harness.conformance.placing import Placed, place, write_records
from harness.conformance.subject import Subject
from harness.progress import Meter

U64 = npt.NDArray[np.uint64]
Mask = npt.NDArray[np.uint32]

MAX_FINDINGS: Final = 24
MAX_LISTED: Final = 200
"""Failing cases that a result names."""
_UNWRITTEN: Final = 0xEE
_FACTORS: Final = np.array(
    [
        *(0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9),
        *(0xD6E8FEB86659FD93, 0xA0761D6478BD642F),
    ],
    np.uint64,
)
"""Odd numbers, one for each eight bytes of a case."""


@dataclass
class CpuResult:
    """One CPU against the manual."""

    name: str
    cases: int = 0
    failing: int = 0
    by_mode: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Cases and failing cases."""
    known: dict[str, int] = field(default_factory=dict)
    gone: tuple[Divergence, ...] = ()
    findings: list[Finding] = field(default_factory=list)
    failing_cases: list[str] = field(default_factory=list)
    """The first of them, as ``--case`` takes them."""
    either: int = 0
    cached: int = 0
    seconds: float = 0.0
    """In the guest."""

    @property
    def ok(self) -> bool:
        return not self.failing

    def as_json(self) -> dict[str, Any]:
        return {
            "cpu": self.name,
            "ok": self.ok,
            "cases": self.cases,
            "failing": self.failing,
            "modes": {
                mode: {"cases": cases, "failing": failing}
                for mode, (cases, failing) in self.by_mode.items()
            },
            "known_divergences": [
                _divergence_json(entry) | {"cases": self.known[entry.name]}
                for entry in known_for(self.name)
                if entry.name in self.known
            ],
            "gone_divergences": [_divergence_json(entry) for entry in self.gone],
            "findings": [finding.as_json() for finding in self.findings],
            "failing_cases": self.failing_cases,
            "either_allowed": self.either,
            "answered_by_tlb": self.cached,
            "guest_seconds": self.seconds,
        }


def _divergence_json(entry: Divergence) -> dict[str, str]:
    return {"name": entry.name, "reason": entry.reason, "upstream": entry.upstream}


@dataclass
class PeerResult:
    """Two CPUs against each other in ``common`` cases.

    ``known`` counts cases in which they differ by the divergences that explain it;
    ``unexplained`` are the others, each of which is a finding of one CPU too.
    """

    names: tuple[str, str]
    common: int
    known: dict[str, int]
    unexplained: int

    @property
    def ok(self) -> bool:
        return not self.unexplained

    def as_json(self) -> dict[str, Any]:
        return {
            "cpus": list(self.names),
            "common_cases": self.common,
            "differing_as_known": self.known,
            "unexplained": self.unexplained,
        }


@dataclass
class _Memory:
    """What is kept of a CPU's answers, to compare them with another's, a number a case: the case,
    how it deviates from the manual (0: not at all), what explains that, whether all of it."""

    cases: list[U64] = field(default_factory=list)
    deviations: list[U64] = field(default_factory=list)
    known: list[npt.NDArray[np.uint32]] = field(default_factory=list)
    failing: list[npt.NDArray[np.bool_]] = field(default_factory=list)


@dataclass
class MatrixReport:
    """The whole run."""

    suite: str
    cpus: list[CpuResult]
    peers: list[PeerResult]
    seconds: float

    @property
    def ok(self) -> bool:
        return all(cpu.ok for cpu in self.cpus) and all(peer.ok for peer in self.peers)

    def as_json(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "suite": self.suite,
            "cpus": [cpu.as_json() for cpu in self.cpus],
            "peers": [peer.as_json() for peer in self.peers],
            "seconds": self.seconds,
        }


Parts = Iterable[tuple[Mode, Cases]]


def run_matrix(
    name: str,
    subjects: Sequence[Subject],
    parts: Callable[[Subject], Parts],
    meter: Meter | None = None,
    *,
    complete: bool = True,
) -> MatrixReport:
    """Put ``parts`` to each subject.

    ``complete``: all cases are among them, so a known divergence that does not show is gone.
    """
    began = time.perf_counter()
    meter = meter or Meter()
    memories = [_Memory() for _ in subjects]
    results = []
    for subject, memory in zip(subjects, memories, strict=True):
        result = CpuResult(subject.name)
        meter.start(f"{name} on {subject.name}", len(MODES))
        last = ""
        for mode, cases in parts(subject):
            if last and mode.name != last:
                meter.advance(1)
            last = mode.name
            run_part(subject, mode, cases, result, memory if len(subjects) > 1 else None)
        result.findings = _merged(result.findings)
        if complete:
            known = known_for(subject.name)
            result.gone = tuple(entry for entry in known if entry.name not in result.known)
        results.append(result)
    meter.finish()
    peers = [
        _compare((results[a].name, results[b].name), memories[a], memories[b])
        for a, b in combinations(range(len(subjects)), 2)
    ]
    return MatrixReport(name, results, peers, time.perf_counter() - began)


def run_part(
    subject: Subject, mode: Mode, cases: Cases, result: CpuResult, memory: _Memory | None = None
) -> None:
    """Put ``cases``, all of ``mode``, to ``subject``, and add what comes of it to ``result``."""
    if not len(cases):
        return
    began = time.perf_counter()
    placed, checked = _judged(subject, mode, cases)
    result.seconds += time.perf_counter() - began
    explained = explain_known(subject.name, placed.cases, checked)
    for entry, count in explained.counts.items():
        result.known[entry] = result.known.get(entry, 0) + count
    failing = int(np.count_nonzero(explained.left))
    before = result.by_mode.get(mode.name, (0, 0))
    result.by_mode[mode.name] = (before[0] + len(cases), before[1] + failing)
    result.cases += len(cases)
    result.failing += failing
    result.either += int(np.count_nonzero(checked.either))
    result.cached += int(np.count_nonzero(checked.cached))
    left = explained.left
    if failing:
        left = _narrowed(subject, mode, placed.cases, left)
    result.findings += findings(subject.name, placed.cases, left, checked)
    room = MAX_LISTED - len(result.failing_cases)
    listed = np.flatnonzero(left)[: max(room, 0)]
    result.failing_cases += [case_text(placed.cases[row]) for row in listed]
    if memory is not None:
        memory.cases.append(_numbered(placed.cases))
        memory.deviations.append(_deviations(checked))
        memory.known.append(explained.known)
        memory.failing.append(explained.left != 0)


def _judged(subject: Subject, mode: Mode, cases: Cases) -> tuple[Placed, Checked]:
    shape = mode.shape(subject.features)
    placed = place(cases, mode, shape)
    batches = write_records(placed, subject.cases, subject.batches)
    # What the guest leaves out must not pass for what it found last time.
    subject.results[: len(cases)].view(np.uint8)[:] = _UNWRITTEN
    subject.run(batches)
    return placed, check(placed, shape, subject.results, subject.batches[:batches])


def _narrowed(subject: Subject, mode: Mode, cases: Cases, left: Mask) -> Mask:
    """``left``, with what is seen of whole batches only at a case that does it alone."""
    of_batches = sum(1 << FIELDS.index(name) for name in BATCH_FIELDS)
    suspects = np.flatnonzero(left & np.uint32(of_batches))
    if not len(suspects):
        return left

    def shows(rows: npt.NDArray[np.int64]) -> bool:
        placed, checked = _judged(subject, mode, cases[rows])
        rest = explain_known(subject.name, placed.cases, checked).left
        return bool((rest & np.uint32(of_batches)).any())

    culprit = suspects[: layout.SLOTS]
    while len(culprit) > 1:
        half = len(culprit) // 2
        culprit = culprit[:half] if shows(culprit[:half]) else culprit[half:]
    narrowed = left & ~np.uint32(of_batches)
    narrowed[culprit] = left[culprit]
    return narrowed


def _merged(found: list[Finding]) -> list[Finding]:
    """The most frequent findings."""
    return sorted(found, key=lambda finding: -finding.count)[:MAX_FINDINGS]


def _numbered(cases: Cases) -> U64:
    """One number for each case."""
    words = cases.view(np.uint64).reshape(len(cases), -1)
    mixed = np.zeros(len(cases), np.uint64)
    for column, factor in zip(words.T, _FACTORS, strict=True):
        mixed = (mixed ^ column) * factor
        mixed ^= mixed >> np.uint64(29)
    return mixed


def _deviations(checked: Checked) -> U64:
    """One number for what is wrong of each case and by which bits; 0 where nothing is."""
    deviation = checked.wrong.astype(np.uint64)
    for number, name in enumerate(FIELDS):
        # Numbers that tell of a frame or a slot are different in every run.
        if name not in checked.expected or name.endswith(("value", "memory", "CR2", "stray")):
            continue
        wrong = checked.wrong >> np.uint32(number) & np.uint32(1) != 0
        bits = (checked.expected[name] ^ checked.actual[name]).astype(np.uint64)
        deviation = np.where(wrong, deviation * _FACTORS[0] ^ bits, deviation)
    return deviation


def _compare(names: tuple[str, str], one: _Memory, two: _Memory) -> PeerResult:
    """Where two CPUs differ in cases that both had."""
    first, second = (np.concatenate(memory.cases) for memory in (one, two))
    common, *rows = np.intersect1d(first, second, assume_unique=True, return_indices=True)
    deviations, known, failing = (
        [
            np.concatenate(getattr(memory, name))[row]
            for memory, row in zip((one, two), rows, strict=True)
        ]
        for name in ("deviations", "known", "failing")
    )
    differ = deviations[0] != deviations[1]
    unexplained = differ & (failing[0] | failing[1])
    # What both do alike explains no difference.
    masks, counts = np.unique((known[0] ^ known[1])[differ & ~unexplained], return_counts=True)
    by_name = {
        names_of(mask) or "the same divergence in another way": count
        for mask, count in zip(masks.tolist(), counts.tolist(), strict=True)
    }
    return PeerResult(names, len(common), by_name, int(np.count_nonzero(unexplained)))
