# SPDX-License-Identifier: GPL-2.0-or-later
"""The expectation in columns against the scalar reference walk, case by case."""

from typing import Any

import numpy as np
import pytest

from harness.architecture import Access, Ring
from harness.conformance import layout
from harness.conformance.expected import Entries, Met, expect, touches
from harness.conformance.flags import ACCESSES, CHANGES, MODES, Mode
from harness.conformance.placing import place
from harness.conformance.suites import FULL, QUICK, suite
from harness.mmu_faults import PageFault
from harness.mmu_spec import check_pdptes, walk
from harness.paging_modes import MmuFeatures
from kernel_model.ram import Ram
from tests.harness.conformance.quick_parts import quick

FEATURES = {
    "unicorn": MmuFeatures(physical_bits=40, nx=True),
    "qemu": MmuFeatures(physical_bits=36, nx=True),
    "old": MmuFeatures(physical_bits=32, nx=True, pse36=False, pat=False),
}
SAMPLE = 200


class Tables:
    """The tables of one case in a RAM of their own."""

    def __init__(self, mode: Mode, placed: Any, row: int) -> None:
        self.mode, self.placed, self.row = mode, placed, row
        self.ram = Ram(layout.TABLES_END)
        size = mode.entry_size
        slot = int(placed.slot[row])
        group, number = divmod(slot, layout.SLOTS_PER_TABLE[size])
        first = layout.FIRST_SLOT[size] + slot
        self.places = {
            "pde": layout.TABLES + first * size,
            "pte": layout.CASE_TABLES + group * 4096 + number * 2 * size,
            "second": layout.CASE_TABLES + group * 4096 + (number * 2 + 1) * size,
        }
        self._pdpte = layout.PDPT + (first >> 9) * 8

    def write(self, entries: dict[str, int]) -> None:
        write = self.ram.write64 if self.mode.pae else self.ram.write32
        for name, address in zip(("pde", "pte", "second"), self.placed.addresses, strict=True):
            write(self.places[name], entries[name] | int(address[self.row]))
        if self.mode.pae:
            table = layout.TABLES + (self._pdpte - layout.PDPT) // 8 * 4096
            self.ram.write64(self._pdpte, entries["pdpte"] | table)


def scalar_touch(tables: Tables, case: Any, access: int, ring: int, features: MmuFeatures) -> Any:
    """(error code or None, page, {entry: A and D set}) of one touch by the reference walk."""
    kind = ACCESSES[access]
    registers = tables.mode.registers(bool(case["wp"]), bool(case["pge"]))
    how = Access.FETCH if kind.fetch else Access.WRITE if kind.write else Access.READ
    who = Ring.USER if ring and not kind.implicit else Ring.KERNEL
    va = int(tables.placed.va[tables.row])
    sets = dict.fromkeys(tables.places, 0)
    by_place = {paddr: name for name, paddr in tables.places.items()}
    for page, address in enumerate((va, (va | 0xFFF) + 1) if kind.across else (va,)):
        met = walk(tables.ram, registers, address & 0xFFFFFFFF, how, who, features)
        if met.fault is not None:
            assert isinstance(met.fault, PageFault)
            return met.fault.error_code, page, None, address
        for update in met.updates:
            sets[by_place[update.paddr]] |= update.new & ~update.old
    return None, 0, sets, va


def said(met: Met, row: int) -> tuple[int | None, int]:
    return (int(met.error_code[row]), int(met.page[row])) if met.fault[row] else (None, 0)


def sets_of(entries: Entries, row: int) -> dict[str, int]:
    return {name: int(getattr(entries, name)[row]) for name in ("pde", "pte", "second")}


@pytest.mark.parametrize(
    ("number", "features"),
    [
        pytest.param(number, features, id=f"{mode.name}-{name}")
        for number, mode in enumerate(MODES)
        for name, features in FEATURES.items()
        if mode.paging and (features.pse36 or mode.name != "pse36")
    ],
)
def test_columns_say_what_the_walk_says(number: int, features: MmuFeatures) -> None:
    mode = MODES[number]
    cases = np.concatenate([part for got, part in quick(features) if got is mode])
    chosen = np.random.default_rng(number).choice(len(cases), SAMPLE, replace=False)
    placed = place(cases[chosen], mode, mode.shape(features))
    expected = expect(placed.cases, mode.shape(features))
    first, last = touches(placed.cases)
    for row, case in enumerate(placed.cases):
        tables = Tables(mode, placed, row)
        entries = {name: int(case[name]) for name in ("pdpte", "pde", "pte", "second")}
        tables.write(entries)
        registers = mode.registers(bool(case["wp"]), bool(case["pge"]))
        refused = bool(check_pdptes(tables.ram, registers, features))
        assert bool(expected.refused[row]) == refused
        if refused:
            continue
        touch = (int(first.access[row]), int(first.ring[row]))
        code, page, sets, _ = scalar_touch(tables, case, *touch, features)
        assert said(expected.first, row) == (code, page)
        newly_set = {
            name: bits & ~entries[name] for name, bits in sets_of(expected.first.sets, row).items()
        }
        assert newly_set == (sets or dict.fromkeys(tables.places, 0))
        change = CHANGES[int(case["change"])]
        if not expected.twice[row] or change.entry == layout.CHANGE_PDPTE:
            continue
        for name in tables.places:
            entries[name] |= (sets or {}).get(name, 0)
        changed = {layout.CHANGE_PDE: "pde", layout.CHANGE_PTE: "pte"}.get(change.entry)
        if changed:
            entries[changed] = entries[changed] & ~change.clear | change.set
        tables.write(entries)
        touch = (int(last.access[row]), int(last.ring[row]))
        code, page, sets, _ = scalar_touch(tables, case, *touch, features)
        assert said(expected.late, row) == (code, page)
        for name, bits in (sets or {}).items():
            entries[name] |= bits
        after = {name: int(getattr(expected.after, name)[row]) for name in tables.places}
        assert after == {name: entries[name] for name in tables.places}


def test_the_comparison_above_can_fail() -> None:
    """A wrong format is noticed: 36 address bits are not 40."""
    mode = MODES[4]
    wide, narrow = FEATURES["unicorn"], FEATURES["qemu"]
    cases = np.concatenate([part for got, part in quick(narrow) if got is mode])
    one = expect(cases, mode.shape(narrow)).first
    other = expect(cases, mode.shape(wide)).first
    assert (one.error_code != other.error_code).any()


def test_may_set_accessed_is_that_of_the_walk() -> None:
    """Section 4.8: on the way to a fault A may be set where an entry was used, and only there."""
    mode, features = MODES[1], FEATURES["unicorn"]
    cases = np.concatenate([part for got, part in quick(features) if got is mode])
    cases = cases[(cases["before"] == 0) & (cases["second"] == 0)][::37]
    placed = place(cases, mode, mode.shape(features))
    met = expect(placed.cases, mode.shape(features)).first
    for row, case in enumerate(placed.cases):
        tables = Tables(mode, placed, row)
        tables.write({name: int(case[name]) for name in ("pdpte", "pde", "pte", "second")})
        access, ring = ACCESSES[int(case["access"])], int(case["ring"])
        how = Access.FETCH if access.fetch else Access.WRITE if access.write else Access.READ
        who = Ring.USER if ring and not access.implicit else Ring.KERNEL
        registers = mode.registers(bool(case["wp"]))
        got = walk(tables.ram, registers, int(placed.va[row]), how, who, features)
        if got.fault is None:
            continue
        allowed = {
            paddr
            for name, paddr in tables.places.items()
            if int(getattr(met.may_set, name)[row]) & ~int(case[name])
        }
        assert allowed == set(got.may_set_accessed)


@pytest.mark.parametrize("name", [QUICK, pytest.param(FULL, marks=pytest.mark.slow)])
def test_suites(name: str) -> None:
    """Enough cases, none twice, in parts that the guest's tables hold."""
    features = FEATURES["unicorn"]
    total = 0
    for _, cases in suite(name, features):
        assert 0 < len(cases) <= layout.MAX_CASES
        total += len(cases)
        if name == QUICK:
            assert len(np.unique(cases)) == len(cases)
    assert total >= (100_000 if name == QUICK else 2_000_000)


def test_quick_keeps_every_word() -> None:
    """Every mode, access, ring, change and flush, and every bit at every level, is met."""
    features = FEATURES["unicorn"]
    every = np.concatenate([cases for _, cases in quick(features)])
    for column, table in (("mode", MODES), ("access", ACCESSES), ("change", CHANGES)):
        assert set(every[column].tolist()) == set(range(len(table)))
    assert set(every["flush"].tolist()) == set(range(5))
    assert set(every["ring"].tolist()) == {0, 1}
    pae = MODES[5].shape(features)
    assert pae is not None
    for level, name in ((-2, "pde"), (-1, "pte")):
        seen = int(np.bitwise_or.reduce(every[name][every["mode"] == 5]))
        wanted = pae.levels[level].plain.reserved | pae.levels[level].plain.flags | 0xE00
        assert wanted & ~seen == 0
    pdptes = int(np.bitwise_or.reduce(every["pdpte"]))
    assert pae.pdpte_reserved & ~pdptes == 0
