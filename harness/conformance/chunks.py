# SPDX-License-Identifier: GPL-2.0-or-later
"""The matrix in chunks of one paging mode, access and ring: as many as a test runner can show.

A chunk that fails is a :class:`ChunkFailed` with its kinds of failure, its failing cases and for
each kind a command that repeats it and the section of the manual. The results of chunks, from
whatever processes, are put together again by :func:`merged`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from typing import Any, Final

import numpy as np

from harness.concerned import MANUAL, section_of_case
from harness.conformance import layout
from harness.conformance.cases import CASE, Cases
from harness.conformance.divergences import DIVERGENCES
from harness.conformance.flags import ACCESSES, MODES, RINGS
from harness.conformance.matrix import CpuResult, run_part
from harness.conformance.subject import Subject
from harness.conformance.suites import suite
from harness.paging_modes import MmuFeatures
from kernel_model.errors import MmucheckError

__all__ = ["CHUNKS", "Chunk", "ChunkFailed", "merged", "run_chunk"]

_SHOWN: Final = 12
_LISTED: Final = 40


@dataclass(frozen=True, slots=True)
class Chunk:
    """All cases of one paging mode in which ``ring`` makes ``access``."""

    mode: str
    access: str
    ring: str

    def __str__(self) -> str:
        return f"{self.mode}-{self.ring}-{self.access}"

    def cases(self, name: str, features: MmuFeatures) -> Cases:
        """Its part of suite ``name``; empty if the CPU lacks the mode."""
        cases = _mode_cases(name, self.mode, features)
        access = [row.name for row in ACCESSES].index(self.access)
        rows = (cases["access"] == access) & (cases["ring"] == RINGS.index(self.ring))
        return np.asarray(cases[rows])


CHUNKS: Final = tuple(
    Chunk(mode.name, access.name, ring) for mode, access, ring in product(MODES, ACCESSES, RINGS)
)


@lru_cache(maxsize=2)
def _mode_cases(name: str, mode: str, features: MmuFeatures) -> Cases:
    (wanted,) = (row for row in MODES if row.name == mode)
    parts = [cases for _, cases in suite(name, features, (wanted,))]
    return np.concatenate(parts) if parts else np.zeros(0, CASE)


class ChunkFailed(MmucheckError):
    """A CPU differs from the manual; ``result`` has what was found."""

    def __init__(self, chunk: Chunk, result: CpuResult) -> None:
        super().__init__("\n".join(_told(chunk, result)))
        self.chunk = chunk
        self.result = result
        first = result.findings[0]
        self.headline = f"{result.name}: {first} ({result.failing:,} cases of {chunk})"


def _told(chunk: Chunk, result: CpuResult) -> Iterator[str]:
    yield (
        f"EMULATOR BUG: {result.name} is not what the manual says in {result.failing:,} of "
        f"{result.cases:,} cases of {chunk}"
    )
    for finding in result.findings[:_SHOWN]:
        yield ""
        yield f"  {finding}"
        yield f"    alike   {finding.count:,}"
        yield f"    manual  {MANUAL}, {section_of_case(finding.field, finding.setting)}"
        yield f"    repeat  {finding.command}"
    if len(result.findings) > _SHOWN:
        yield f"  and {len(result.findings) - _SHOWN} more kinds"
    yield ""
    yield f"failing cases ({result.failing:,}), each to be repeated by --case:"
    yield from (f"  {case}" for case in result.failing_cases[:_LISTED])
    if result.failing > _LISTED:
        yield f"  and {result.failing - _LISTED:,} more"


def run_chunk(subject: Subject, chunk: Chunk, name: str, option: str = "") -> CpuResult | None:
    """Put the chunk to ``subject``; None if it has no cases there.

    ``option`` is how ``mmucheck conform`` names the subject.
    """
    cases = chunk.cases(name, subject.features)
    if not len(cases):
        return None
    (mode,) = (row for row in MODES if row.name == chunk.mode)
    result = CpuResult(subject.name)
    for start in range(0, len(cases), layout.MAX_CASES):
        run_part(subject, mode, cases[start : start + layout.MAX_CASES], result)
    result.findings = [replace(finding, option=option) for finding in result.findings]
    return result


def as_json(chunk: Chunk, result: CpuResult, name: str) -> dict[str, Any]:
    return {"chunk": str(chunk), "suite": name} | result.as_json()


def merged(parts: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """One document of the results of chunks: as ``mmucheck conform --json`` has it, and each
    chunk by name."""
    parts = sorted(parts, key=lambda part: str(part["chunk"]))
    names = list(dict.fromkeys(part["cpu"] for part in parts))
    cpus = [_of_one_cpu([part for part in parts if part["cpu"] == name]) for name in names]
    return {
        "ok": all(cpu["ok"] for cpu in cpus),
        "suite": parts[0]["suite"] if parts else "",
        "cpus": cpus,
        "chunks": [
            {key: part[key] for key in ("chunk", "cpu", "ok", "cases", "failing")} for part in parts
        ],
    }


def _of_one_cpu(parts: list[dict[str, Any]]) -> dict[str, Any]:
    modes: dict[str, dict[str, int]] = {}
    known: dict[str, dict[str, Any]] = {}
    for part in parts:
        for mode, counts in part["modes"].items():
            total = modes.setdefault(mode, dict.fromkeys(counts, 0))
            for key, count in counts.items():
                total[key] += count
        for entry in part["known_divergences"]:
            before = known.get(entry["name"], {"cases": 0})["cases"]
            known[entry["name"]] = entry | {"cases": entry["cases"] + before}
    summed = ("cases", "failing", "either_allowed", "answered_by_tlb", "guest_seconds")
    return {
        "cpu": parts[0]["cpu"],
        "ok": all(part["ok"] for part in parts),
        **{key: sum(part[key] for part in parts) for key in summed},
        "modes": modes,
        "known_divergences": [known[e.name] for e in DIVERGENCES if e.name in known],
        "findings": [finding for part in parts for finding in part["findings"]],
        "failing_cases": [case for part in parts for case in part["failing_cases"]],
    }
