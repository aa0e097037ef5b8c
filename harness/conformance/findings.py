# SPDX-License-Identifier: GPL-2.0-or-later
"""A difference in words: bits, access, ring, what was expected, and how to see it again.

``pae-nx wp pde.p pde.us pte.p pte.rw: user write after read: error code 5 (P|U), expected
7 (P|W|U)``. Cases that fail alike are one :class:`Finding`, shown by the one with the fewest
bits. Nothing here can fail.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from harness.conformance import layout
from harness.conformance.cases import Cases, case_text
from harness.conformance.check import FIELDS, Checked
from harness.conformance.flags import (
    ACCESSES,
    BEFORE,
    CHANGES,
    FLUSHES,
    MODES,
    NOTHING,
    RINGS,
    bits_text,
)
from harness.mmu_faults import error_code_text
from harness.traps import MNEMONICS

_ENTRY_NAMES: Final = ("pdpte", "pde", "pte", "second")


@dataclass(frozen=True, slots=True)
class Finding:
    """``count`` cases of one access and ring in which the same fields are wrong."""

    cpu: str
    case: str
    """As ``--case`` takes it."""
    setting: str
    """Mode, control bits, entries, access, ring, in symbols."""
    differences: tuple[str, ...]
    count: int
    field: str = ""
    """The first one that is wrong, of :data:`~harness.conformance.check.FIELDS`."""
    option: str = ""
    """What names the CPU to ``mmucheck conform``; by itself its name."""

    @property
    def command(self) -> str:
        return f"mmucheck conform {self.option or f'--cpu {self.cpu}'} --case {self.case}"

    def __str__(self) -> str:
        return f"{self.setting}: {'; '.join(self.differences)}"

    def as_json(self) -> dict[str, Any]:
        return {
            "cpu": self.cpu,
            "case": self.case,
            "setting": self.setting,
            "differences": list(self.differences),
            "cases": self.count,
            "command": self.command,
        }


def setting_text(case: Any) -> str:
    """The case in symbols: ``pae wp pde.p pde.rw pte.p: user write after read``."""
    mode = MODES[int(case["mode"])]
    words = [mode.name]
    words += [name for name in ("wp", "pge") if case[name]]
    if mode.paging:
        for name in _ENTRY_NAMES:
            if name == "pdpte" and (not mode.pae or int(case[name]) == 1):
                continue
            bits = bits_text(int(case[name]))
            if bits == "-":
                words += [] if name == "second" else [f"{name}=0"]
            else:
                words += [f"{name}.{bit}" for bit in bits.split(".")]
    touch = f"{RINGS[int(case['ring'])]} {ACCESSES[int(case['access'])].name}"
    before, change = int(case["before"]), int(case["change"])
    if before != NOTHING:
        touch += f" after {BEFORE[before]}"
    if change:
        touch += f", {CHANGES[change].name}"
    if case["flush"] or change:
        touch += f", flush {FLUSHES[int(case['flush'])]}"
    return f"{' '.join(words)}: {touch}"


def findings(cpu: str, cases: Cases, left: Any, checked: Checked) -> Iterator[Finding]:
    """What is wrong and not known (``left``), grouped, most cases first."""
    wrong = np.flatnonzero(left)
    if not len(wrong):
        return
    subject = cases[wrong]
    key = left[wrong].astype(np.uint64) << np.uint64(16)
    key |= subject["access"].astype(np.uint64) << np.uint64(8) | subject["ring"]
    _, group, counts = np.unique(key, return_inverse=True, return_counts=True)
    weight = sum(_popcount(subject[name]) for name in _ENTRY_NAMES)
    weight = weight * 4 + (subject["change"] != 0) * 2 + (subject["before"] != 0)
    for kind in np.argsort(-counts, kind="stable").tolist():
        members = np.flatnonzero(group == kind)
        row = int(wrong[members[np.argmin(weight[members])]])
        yield Finding(
            cpu,
            case_text(cases[row]),
            setting_text(cases[row]),
            tuple(_differences(row, int(left[row]), checked)),
            int(counts[kind]),
            FIELDS[(int(left[row]) & -int(left[row])).bit_length() - 1],
        )


def _popcount(values: Any) -> Any:
    octets = np.ascontiguousarray(values).view(np.uint8).reshape(-1, 8)
    return np.unpackbits(octets, axis=1).sum(axis=1).astype(np.int64)


def _differences(row: int, wrong: int, checked: Checked) -> Iterator[str]:
    for number, field in enumerate(FIELDS):
        if wrong >> number & 1:
            expected = int(checked.expected[field][row])
            actual = int(checked.actual[field][row])
            yield _SAYINGS.get(field.removeprefix("first "), _numbers)(field, expected, actual)


def _numbers(field: str, expected: int, actual: int) -> str:
    return f"{field} {actual:#x}, expected {expected:#x}"


def _outcome(field: str, expected: int, actual: int) -> str:
    prefix = "first touch: " if field.startswith("first") else ""
    return f"{prefix}{outcome_text(actual)}, expected {outcome_text(expected)}"


def outcome_text(outcome: int) -> str:
    """``no fault``, ``#PF``, ``#GP``."""
    if outcome == layout.COMPLETED:
        return "no fault"
    if outcome == layout.NOT_RUN:
        return "not run"
    return MNEMONICS.get(outcome & 0xFF, f"vector {outcome & 0xFF}")


def _error_code(field: str, expected: int, actual: int) -> str:
    return f"{field} {error_code_text(actual)}, expected {error_code_text(expected)}"


def _entry(field: str, expected: int, actual: int) -> str:
    missing, set_ = expected & ~actual, actual & ~expected
    words = [f"{bits_text(missing)} not set"] if missing else []
    words += [f"{bits_text(set_)} set"] if set_ else []
    return f"{field}: {', '.join(words)}"


def _stray(_field: str, _expected: int, actual: int) -> str:
    return f"an entry of no case has changed, at paddr {actual:#x}"


_SAYINGS: Final[dict[str, Callable[[str, int, int], str]]] = {
    "CR3 load": _outcome,
    "outcome": _outcome,
    "error code": _error_code,
    "PDE after": _entry,
    "PTE after": _entry,
    "second PTE after": _entry,
    "PDPTE after": _entry,
    "stray": _stray,
}
