# SPDX-License-Identifier: GPL-2.0-or-later
"""The reference walk against another implementation of the same manual: Unicorn's MMU.

Address, error code, accessed and dirty flags, for every access from both rings. Where the two
are known to part, the test says so by name:

* a table outside RAM reads as zeros in Unicorn, the reference makes no statement;
* Unicorn faults with RSVD on PDPTE bits that the manual has checked by the load of CR3.
"""

from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings

from harness.architecture import (
    CR0_PE,
    CR0_PG,
    CR0_WP,
    CR4_PAE,
    EFER_NXE,
    Access,
    ControlRegisters,
    Ring,
)
from harness.mmu_spec import BadTable, MmuFeatures, Walk, check_pdptes, walk
from kernel_model.ram import Ram
from tests.harness.random_tables import ATTEMPTS, TABLE_FRAMES, Tables, new_ram, tables
from tests.harness.unicorn_mmu import FEATURES, UnicornMmu
from tests.harness.walk_vectors import RAM_BYTES, VECTORS, Vector

PAGING = CR0_PG | CR0_PE | CR0_WP
TABLES_END = (TABLE_FRAMES.stop + 1) << 12


@pytest.fixture(scope="module")
def ram() -> Ram:
    return new_ram()


@pytest.fixture(scope="module")
def mmu(ram: Ram) -> UnicornMmu:
    return UnicornMmu(ram)


def disagreement(expected: Walk, ram: Ram, mmu: UnicornMmu, *, entry_size: int) -> str:
    """Make the access of ``expected`` on the CPU; tables are put back afterwards."""
    before = ram.read(0, TABLES_END)
    answer = mmu.access(expected.va, expected.access, expected.ring)
    after = ram.read(0, TABLES_END)
    ram.write(0, before)
    if (answer.paddr, answer.error_code) != (expected.paddr, expected.error_code):
        return f"{answer} instead of\n{expected}"
    changed = {
        paddr: int.from_bytes(after[paddr : paddr + entry_size], "little")
        for paddr in (range(0, TABLES_END, entry_size) if after != before else ())
        if before[paddr : paddr + entry_size] != after[paddr : paddr + entry_size]
    }
    if expected.fault is None:
        updates = {update.paddr: update.new for update in expected.updates}
        return "" if changed == updates else f"changed {changed} instead of\n{expected}"
    surplus = changed.keys() - set(expected.may_set_accessed)
    return f"changed {surplus} on the way to\n{expected}" if surplus else ""


def comparable(found: Walk) -> bool:
    """Whether the two are bound to agree on this walk."""
    top = found.steps[0] if found.steps else None
    refused = top is not None and top.level == "PDPTE" and top.present and top.entry >> 40
    return not isinstance(found.fault, BadTable) and not refused


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(case=tables(features=FEATURES))
def test_random_tables(case: Tables, ram: Ram, mmu: UnicornMmu) -> None:
    case.load(ram)
    mmu.load(case.registers)
    for va in case.probes()[::2]:
        for access, ring in ATTEMPTS:
            found = walk(ram, case.registers, va, access, ring, FEATURES)
            if comparable(found):
                assert disagreement(found, ram, mmu, entry_size=case.entry_size) == ""


@pytest.fixture(scope="module")
def small_ram() -> Ram:
    return Ram(RAM_BYTES)


@pytest.fixture(scope="module")
def small_mmu(small_ram: Ram) -> UnicornMmu:
    return UnicornMmu(small_ram)


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.name)
def test_tables_of_the_vectors(vector: Vector, small_ram: Ram, small_mmu: UnicornMmu) -> None:
    """Every vector's tables, by every access, as a CPU with Unicorn's features has them."""
    vector.load(small_ram)
    small_mmu.load(vector.registers)
    for access, ring in ATTEMPTS:
        found = walk(small_ram, vector.registers, vector.va, access, ring, FEATURES)
        if comparable(found):
            size = vector.entry_size
            assert disagreement(found, small_ram, small_mmu, entry_size=size) == ""


# The witness can disagree: each wrong belief about this CPU is contradicted by one entry.


@pytest.mark.parametrize(
    ("features", "pte"),
    [
        (replace(FEATURES, physical_bits=36), 0x10_0000_5067),
        (replace(FEATURES, physical_bits=52), 0x100_0000_5067),
        (replace(FEATURES, nx=False), 1 << 63 | 0x5067),
        (replace(FEATURES, pat=False), 0x50E7),
    ],
)
def test_a_wrong_belief_is_contradicted(
    features: MmuFeatures, pte: int, small_ram: Ram, small_mmu: UnicornMmu
) -> None:
    small_ram.fill(0, RAM_BYTES)
    small_ram.write64(0x1000, 0x2001)
    small_ram.write64(0x2000, 0x3027)
    small_ram.write64(0x3000, pte)
    registers = ControlRegisters(PAGING, 0x1000, CR4_PAE, EFER_NXE)
    small_mmu.load(registers)
    right, wrong = (walk(small_ram, registers, 0, features=f) for f in (FEATURES, features))
    assert disagreement(right, small_ram, small_mmu, entry_size=8) == ""
    assert disagreement(wrong, small_ram, small_mmu, entry_size=8) != ""


# Where the two part, pinned: an upgrade of Unicorn that mends these must be noticed.


def test_unicorn_reads_zeros_outside_ram(small_ram: Ram, small_mmu: UnicornMmu) -> None:
    small_ram.fill(0, RAM_BYTES)
    small_ram.write32(0x1000, 0x50027)
    registers = ControlRegisters(PAGING, 0x1000)
    small_mmu.load(registers)
    assert isinstance(walk(small_ram, registers, 0, features=FEATURES).fault, BadTable)
    assert small_mmu.access(0, Access.READ, Ring.KERNEL).error_code == 0


@pytest.mark.parametrize(("bit", "error_code"), [(1, None), (5, None), (8, None), (40, 9), (63, 9)])
def test_unicorn_checks_pdptes_in_the_walk(
    bit: int, error_code: int | None, small_ram: Ram, small_mmu: UnicornMmu
) -> None:
    small_ram.fill(0, RAM_BYTES)
    small_ram.write64(0x1000, 0x2001 | 1 << bit)
    small_ram.write64(0x2000, 0x600083)
    registers = ControlRegisters(PAGING, 0x1000, CR4_PAE)
    small_mmu.load(registers)
    assert len(check_pdptes(small_ram, registers, FEATURES)) == 1
    assert walk(small_ram, registers, 0, features=FEATURES).paddr == 0x600000
    assert small_mmu.access(0, Access.READ, Ring.KERNEL).error_code == error_code
