# SPDX-License-Identifier: GPL-2.0-or-later
"""Holds what the guest found against what the architecture says, column by column.

:func:`check` gives for each case a mask of :data:`FIELDS` that are wrong, and for each wrong one
what was expected. Checked of each touch: fault or not, vector, error code, CR2, the value
loaded; of each case: memory after a store, the accessed, dirty and all other bits of PDE and
PTEs, the PDPTE, and that no other entry of any table has changed. Nothing here can fail.
"""

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from harness.conformance import layout
from harness.conformance.cases import Cases, lookup
from harness.conformance.expected import Expected, Met, Touches, expect, touches
from harness.conformance.flags import (
    ACCESSES,
    DESCRIPTOR,
    FETCH,
    MODIFY,
    NOTHING,
    READ,
    READ_ACROSS,
    WRITE_ACROSS,
)
from harness.conformance.placing import Placed
from harness.paging_modes import PagingMode

Bools = npt.NDArray[np.bool_]
Numbers = npt.NDArray[Any]

FIELDS: Final = (
    *("CR3 load", "first outcome", "first error code", "first CR2", "first value"),
    *("outcome", "error code", "CR2", "value", "PDE after", "PTE after", "second PTE after"),
    *("memory", "second memory", "PDPTE after", "stray"),
)
"""What can be wrong, in the order in which it is told. The touch under test has no prefix."""
BATCH_FIELDS: Final = frozenset({"PDPTE after", "stray"})
"""These are seen of a whole batch: any of its cases may be the one that did it."""

_PAGE_FAULT: Final = layout.FAULTED | 14
_REFUSED: Final = layout.FAULTED | 13
_LOADS: Final = lookup(ACCESSES, "loads")
_ACROSS: Final = lookup(ACCESSES, "across")
_LOW: Final = np.uint32(0xFFFF)


@dataclass(frozen=True, slots=True)
class Checked:
    """``wrong`` has bit n set where ``FIELDS[n]`` is wrong; the columns are by field name."""

    wrong: npt.NDArray[np.uint32]
    expected: dict[str, Numbers]
    actual: dict[str, Numbers]
    cached: Bools
    """The old translation answered a second touch, where either would do."""
    either: Bools
    """Cases that either translation may answer."""

    def rows(self, rows: npt.NDArray[np.int64]) -> "Checked":
        """The same for some of the cases."""
        return Checked(
            self.wrong[rows],
            {field: values[rows] for field, values in self.expected.items()},
            {field: values[rows] for field, values in self.actual.items()},
            self.cached[rows],
            self.either[rows],
        )


def check(placed: Placed, shape: PagingMode | None, results: Any, batches: Any) -> Checked:
    """Judge the ``results`` of the guest for ``placed``."""
    cases = placed.cases
    expected = expect(cases, shape)
    comparison = _Comparison(placed, expected, results)
    first, last = touches(cases)
    comparison.refusal(batches)
    single = ~expected.twice
    ran = ~expected.refused
    comparison.touch("", expected.first, first, "", ran & single)
    comparison.touch("first ", expected.first, first, "", ran & ~single)
    comparison.second_touch(last)
    comparison.entries()
    comparison.memory()
    comparison.tables(batches)
    return Checked(
        comparison.wrong,
        comparison.expected,
        comparison.actual,
        comparison.cached,
        expected.lenient,
    )


class Answers:
    """What the guest must find for each case: the numbers of the manual, with the addresses and
    stamps of the case's slot."""

    def __init__(self, placed: Placed, said: Expected) -> None:
        self._placed, self._said, self._cases = placed, said, placed.cases
        frames = placed.frame.astype(np.uint32)
        high = placed.high.astype(np.uint32)
        self._stamp = layout.stamp(frames, high).astype(np.uint32)
        high_next = placed.high & placed.large
        if placed.mode.pae:
            high_next |= ~placed.large & (placed.cases["second"] >> np.uint64(32) & 1 != 0)
        self._next = layout.stamp(frames + 1, high_next.astype(np.uint32)).astype(np.uint32)
        # A page that has moved shows the next frame, low or high as before.
        self._moved = layout.stamp(frames + 1, high).astype(np.uint32)

    def touch(self, met: Met, touch: Touches, *, moved: bool) -> dict[str, tuple[Bools, Numbers]]:
        """Which cases have such an answer to ``touch``, and the answer."""
        fault = met.fault
        outcome = np.where(fault, np.uint32(_PAGE_FAULT), np.uint32(layout.COMPLETED))
        va = self._placed.va
        address = np.where(met.page != 0, (va | 0xFFF) + 1, va).astype(np.uint32)
        loads = ~fault & _LOADS[touch.access]
        return {
            "outcome": (np.ones(len(fault), np.bool_), outcome),
            "error code": (fault, met.error_code),
            "CR2": (fault, address),
            "value": (loads, self._value(touch, moved)),
        }

    def _value(self, touch: Touches, moved: bool) -> Numbers:
        """What a load brings: the stamp of the frame, as the place in the frame shows it."""
        stamp = np.where(self._said.moved, self._moved, self._stamp) if moved else self._stamp
        place = self._cases["access"]
        value = np.where(
            (touch.access == READ) & (place == FETCH),
            stamp << np.uint32(8) | np.uint32(0xB8),
            stamp,
        )
        value = np.where((touch.access == READ) & (place == DESCRIPTOR), stamp & _LOW, value)
        both = (self._next & _LOW) << np.uint32(16) | stamp & _LOW
        return np.asarray(np.where(touch.access == READ_ACROSS, both, value))

    def entries(self) -> dict[str, tuple[Numbers, Numbers]]:
        """Each entry afterwards, and the bits about which nothing is said."""
        names = (("PDE after", "pde"), ("PTE after", "pte"), ("second PTE after", "second"))
        return {
            field: (getattr(self._said.after, name) | address, getattr(self._said.unsure, name))
            for (field, name), address in zip(names, self._placed.addresses, strict=True)
        }

    def memory(self, done: Bools) -> dict[str, tuple[Bools, Numbers]]:
        """Memory after a store that was ``done``, or not; which cases store."""
        access, value = self._cases["access"], self._placed.value
        stored = np.where(access == MODIFY, self._stamp + value, value)
        across = access == WRITE_ACROSS
        stored = np.where(across, (value & _LOW) << np.uint32(16), stored)
        before = np.where(across, self._stamp << np.uint32(16), self._stamp)
        second = np.where(done, self._next & ~_LOW | value >> np.uint32(16), self._next)
        return {
            "memory": (np.asarray(value != 0), np.where(done, stored, before)),
            "second memory": (across, second),
        }


class _Comparison:
    def __init__(self, placed: Placed, expected: Expected, results: Any) -> None:
        count = len(placed)
        self._placed = placed
        self._cases: Cases = placed.cases
        self._said = expected
        self._results = results[:count]
        self.wrong = np.zeros(count, np.uint32)
        self.expected: dict[str, Numbers] = {}
        self.actual: dict[str, Numbers] = {}
        self.cached = np.zeros(count, np.bool_)
        self._batch = np.zeros(count, np.int64)
        self._batch[placed.first] = 1
        self._batch = np.cumsum(self._batch) - 1
        self._entry_mask = np.uint64((1 << 8 * placed.mode.entry_size) - 1)
        self._answers = Answers(placed, expected)

    def _judge(self, field: str, wrong: Bools, expected: Numbers, actual: Numbers) -> None:
        """Mark the cases where ``field`` is wrong; keep the numbers if there are any."""
        if not wrong.any():
            return
        self.wrong |= np.where(wrong, np.uint32(1 << FIELDS.index(field)), np.uint32(0))
        if field in self.expected:
            expected = np.where(wrong, expected, self.expected[field])
            actual = np.where(wrong, actual, self.actual[field])
        self.expected[field] = np.asarray(expected)
        self.actual[field] = np.asarray(actual)

    def refusal(self, batches: Any) -> None:
        """Section 4.4.1: reserved bits in a PDPTE, and the load of CR3 raises #GP."""
        actual = batches["refused"][self._batch]
        expected = np.where(self._said.refused, np.uint32(_REFUSED), np.uint32(0))
        self._judge("CR3 load", actual != expected, expected, actual)

    def touch(self, prefix: str, met: Met, touch: Touches, suffix: str, rows: Bools) -> None:
        """One touch that has only one right answer."""
        if not rows.any():
            return
        parts = self._differences(met, touch, suffix, moved=False)
        for name, (wrong, expected, actual) in parts.items():
            self._judge(f"{prefix}{name}", wrong & rows, expected, actual)

    def second_touch(self, touch: Touches) -> None:
        rows = self._said.twice
        if not rows.any():
            return
        late = self._differences(self._said.late, touch, "2", moved=True)
        excused = np.zeros(len(rows), np.bool_)
        if self._said.lenient.any():
            stale = self._differences(self._said.stale, touch, "2", moved=False)
            stale_wrong = np.logical_or.reduce([wrong for wrong, _, _ in stale.values()])
            late_wrong = np.logical_or.reduce([wrong for wrong, _, _ in late.values()])
            excused = self._said.lenient & ~stale_wrong
            self.cached = excused & late_wrong
        for name, (wrong, expected, actual) in late.items():
            self._judge(name, wrong & rows & ~excused, expected, actual)

    def _differences(
        self, met: Met, touch: Touches, suffix: str, *, moved: bool
    ) -> dict[str, tuple[Bools, Numbers, Numbers]]:
        """For each part of the answer: where it is wrong, what it should be, what it is."""
        answers = self._answers.touch(met, touch, moved=moved)
        columns = ("outcome", "error_code", "cr2", "value")
        second = ("outcome2", "error_code2", "cr2_2", "value2")
        differences = {}
        right = np.ones(len(met.fault), np.bool_)
        for (name, (applies, expected)), column in zip(
            answers.items(), second if suffix else columns, strict=True
        ):
            actual = self._results[column]
            wrong = right & applies & (actual != expected)
            if name == "outcome":
                # The rest tells nothing where it was no fault, or one that should not be.
                right = ~wrong
            differences[name] = (wrong, expected, actual)
        return differences

    def entries(self) -> None:
        """Every bit of the case's own entries; A and D as section 4.8 has them."""
        if not self._placed.mode.paging:
            return
        columns = ("pde", "pte", "second")
        for (field, (expected, unsure)), column in zip(
            self._answers.entries().items(), columns, strict=True
        ):
            # The guest writes as many words as an entry has.
            actual = self._results[column] & self._entry_mask
            wrong = (actual ^ expected) & ~unsure != 0
            self._judge(field, wrong, expected, actual)

    def memory(self) -> None:
        """A store is in memory if it completed, and only then."""
        results = self._results
        alone = self._cases["before"] == NOTHING
        outcome = np.where(alone, results["outcome"], results["outcome2"])
        said = self._answers.memory(outcome == layout.COMPLETED)
        for (field, (stores, expected)), column in zip(
            said.items(), ("memory", "memory_second"), strict=True
        ):
            actual = results[column]
            self._judge(field, stores & (actual != expected), expected, actual)

    def tables(self, batches: Any) -> None:
        """What belongs to no case: the PDPTE, and all other entries."""
        if self._placed.mode.pae:
            expected = self._said.after.pdpte
            actual = batches["pdpte_after"][self._batch]
            self._judge("PDPTE after", actual != expected, expected, actual)
        stray = batches["stray_count"][self._batch]
        place = batches["stray_paddr"][self._batch]
        self._judge("stray", stray != 0, np.zeros_like(place), place)
