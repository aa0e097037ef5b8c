# SPDX-License-Identifier: GPL-2.0-or-later
"""The table that the guest carries with it, for a PC where no harness is.

A part of the quick suite, evenly spread, with the answer of each case; the guest compares by
itself and prints a summary. Left out is what depends on the very CPU: reserved address bits, high
frames, and second touches that have two right answers. :func:`header_text` makes the guest's
``conformance_table.h`` when it is built. Nothing here can fail.
"""

from typing import Any, Final

import numpy as np
import numpy.typing as npt

from harness.conformance import layout
from harness.conformance.cases import Cases
from harness.conformance.check import Answers
from harness.conformance.expected import expect, touches
from harness.conformance.flags import Mode
from harness.conformance.placing import Placed, place, write_records
from harness.conformance.suites import QUICK, suite
from harness.paging_modes import MmuFeatures, bits

CASES_PER_MODE: Final = 480
_FEATURES: Final = MmuFeatures(physical_bits=36, nx=True)
_UNCERTAIN: Final = bits(62, 32) | bits(21, 13)
"""Bits that are reserved on one CPU and part of an address on another."""

EXPECTATION: Final = np.dtype(
    [
        *((name, "<u4") for name in ("checks", "unsure")),
        *((name, "<u4") for name in ("outcome", "error_code", "cr2", "value")),
        *((name, "<u4") for name in ("outcome2", "error_code2", "cr2_2", "value2")),
        *((name, "<u8") for name in ("pde", "pte", "second")),
        *((name, "<u4") for name in ("memory", "memory_second")),
    ]
)
"""``checks`` has bit n set where word n of the result counts; ``unsure`` has the A and D bits of
PDE, PTE and second PTE, 8 bits each, about which nothing is said."""

_FIRST: Final = ("outcome", "error_code", "cr2", "value")
_SECOND: Final = ("outcome2", "error_code2", "cr2_2", "value2")
_WORDS: Final = {name: place[1] // 4 for name, place in (layout.RESULT.fields or {}).items()}
_WIDE: Final = ("pde", "pte", "second")


def _chosen(cases: Cases, mode: Mode) -> Cases:
    """Cases with one right answer on every CPU, evenly spread."""
    shape = mode.shape(_FEATURES)
    said = expect(cases, shape)
    certain = ~said.lenient & ~said.refused & (cases["pdpte"] == 1)
    for name in _WIDE:
        certain &= cases[name] & np.uint64(_UNCERTAIN) == 0
    cases = cases[certain]
    step = max(1, len(cases) // CASES_PER_MODE)
    # An odd step meets every access and ring, whose product is even.
    return np.asarray(cases[:: step | 1])


def expectations(placed: Placed) -> npt.NDArray[np.void]:
    """What the guest must find, one row for each placed case."""
    said = expect(placed.cases, placed.mode.shape(_FEATURES))
    answers = Answers(placed, said)
    first, last = touches(placed.cases)
    table = np.zeros(len(placed), EXPECTATION)
    for columns, met, touch, rows in (
        (_FIRST, said.first, first, ~said.refused),
        (_SECOND, said.late, last, said.twice),
    ):
        answer = answers.touch(met, touch, moved=columns is _SECOND)
        for column, (applies, expected) in zip(columns, answer.values(), strict=True):
            table[column] = expected
            table["checks"] |= _check(column, applies & rows)
    if placed.mode.paging:
        for number, (expected, unsure) in enumerate(answers.entries().values()):
            column = _WIDE[number]
            table[column] = expected
            table["unsure"] |= (unsure & np.uint64(0xFF)).astype(np.uint32) << np.uint32(8 * number)
            table["checks"] |= _check(column, np.ones(len(placed), np.bool_))
    fault = np.where(said.twice, said.late.fault, said.first.fault)
    for column, (stores, expected) in zip(
        ("memory", "memory_second"), answers.memory(~fault).values(), strict=True
    ):
        table[column] = expected
        table["checks"] |= _check(column, stores)
    return table


def _check(column: str, rows: npt.NDArray[np.bool_]) -> npt.NDArray[np.uint32]:
    return np.where(rows, np.uint32(1 << _WORDS[column]), np.uint32(0))


def build() -> tuple[list[tuple[str, int, int]], Any, Any, Any]:
    """(mode, first batch, batches) of each mode; then the batches, cases and expectations."""
    modes: list[tuple[str, int, int]] = []
    tables: tuple[list[Any], list[Any], list[Any]] = ([], [], [])
    batches_so_far = cases_so_far = 0
    for mode, cases in suite(QUICK, _FEATURES):
        if mode.name == "pse36":
            continue
        chosen = _chosen(cases, mode)
        placed = place(chosen, mode, mode.shape(_FEATURES))
        records = np.zeros(len(placed), layout.CASE)
        batches = np.zeros(len(placed), layout.BATCH)
        count = write_records(placed, records, batches)
        batches = batches[:count]
        batches["first"] += cases_so_far
        for kept, table in zip(tables, (batches, records, expectations(placed)), strict=True):
            kept.append(table)
        modes.append((mode.name, batches_so_far, count))
        batches_so_far, cases_so_far = batches_so_far + count, cases_so_far + len(placed)
    return modes, *(np.concatenate(table) for table in tables)  # type: ignore[return-value]


def header_text() -> str:
    """The header ``conformance_table.h``."""
    modes, *tables = build()
    lines = [
        "/* SPDX-License-Identifier: GPL-2.0-or-later */",
        "/* Made from harness/conformance/builtin.py. */",
        "#pragma once",
        '#include "types.h"',
        "struct builtin_mode { const char *name; u32 first, batches; };",
        f"static const struct builtin_mode builtin_modes[{len(modes)}] = {{",
        *(f'\t{{"{name}", {first}, {count}}},' for name, first, count in modes),
        "};",
    ]
    for name, table in zip(("batches", "cases", "expectations"), tables, strict=True):
        words = table.view(np.uint32).reshape(len(table), -1)
        lines.append(f"static const u32 builtin_{name}[{len(words)}][{words.shape[1]}] = {{")
        lines += [f"{{{','.join(map(hex, row))}}}," for row in words.tolist()]
        lines.append("};")
    return "\n".join(lines) + "\n"
