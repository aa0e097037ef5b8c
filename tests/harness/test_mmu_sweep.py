# SPDX-License-Identifier: GPL-2.0-or-later
"""The sweep of a whole address space: against the manual's vectors and the scalar walk."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from harness import mmu_sweep
from harness.architecture import (
    CR0_PE,
    CR0_PG,
    CR0_WP,
    CR4_PAE,
    CR4_PGE,
    CR4_PSE,
    Access,
    ControlRegisters,
    Ring,
)
from harness.mappings import (
    ALLOWED,
    BAD_TABLE,
    PAGES,
    RIGHT_BAD_TABLE,
    RIGHT_GLOBAL,
    RIGHT_NX,
    RIGHT_PRESENT,
    RIGHT_RESERVED,
    RIGHT_USER,
    RIGHT_WRITE,
    MalformedEntry,
    Mappings,
    Pages,
    Range,
    outcome,
)
from harness.mmu_spec import BadTable, PageFault, Walk, walk
from harness.mmu_sweep import sweep
from kernel_model.ram import Ram
from tests.harness.random_tables import ATTEMPTS, Tables, new_ram, tables
from tests.harness.walk_vectors import RAM_BYTES, VECTORS, Vector

PAGING = CR0_PG | CR0_PE | CR0_WP
TWO_LEVEL = ControlRegisters(PAGING, 0x1000)
WITH_PSE = replace(TWO_LEVEL, cr4=CR4_PSE)
RANDOM_RAM = new_ram()


@pytest.fixture
def ram() -> Ram:
    return Ram(RAM_BYTES)


def words(ram: Ram) -> np.ndarray[Any, np.dtype[np.uint32]]:
    return np.frombuffer(ram.buffer, np.uint32)


def one_page(pages: Pages, va: int) -> Pages:
    """The page of ``va`` alone, so that an outcome need not be worked out for all."""
    page = slice(va >> 12, (va >> 12) + 1)
    return Pages(pages.pfn[page], pages.rights[page], pages.no_execute)


def disagreement(vector: Vector, ram: Ram) -> str:
    """How the sweep differs from what the manual says of ``vector``; empty if it does not."""
    vector.load(ram)
    mappings = mmu_sweep.sweep(words(ram), vector.registers, vector.features)
    page = one_page(mappings.pages(), vector.va)
    code = int(outcome(page, vector.access, vector.ring, vector.registers)[0])
    if code != vector.error_code:
        return f"outcome {code}"
    if code != ALLOWED:
        return ""
    if int(page.pfn[0]) << 12 | vector.va & 0xFFF != vector.paddr:
        return f"frame {int(page.pfn[0]):#x}"
    if bool(page.rights[0] & RIGHT_GLOBAL) != vector.global_page:
        return f"rights {int(page.rights[0]):#x}"
    return ""


@pytest.mark.book("3.2")
@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.name)
def test_vector(vector: Vector, ram: Ram) -> None:
    assert disagreement(vector, ram) == ""


# Planted: one wrong rule at a time in the sweep.


def _inherit_nothing(form: Any, entry: Any, inherited: Any) -> Any:
    return ORIGINAL_COMBINE(form, entry, np.full_like(inherited, RIGHT_WRITE | RIGHT_USER))


def _inherit_only(form: Any, entry: Any, inherited: Any) -> Any:
    return inherited.copy()


def _no_nx(form: Any, entry: Any) -> Any:
    return np.zeros(len(entry), np.uint16)


def _no_pse36(form: Any, entry: Any) -> Any:
    return ORIGINAL_TARGET(replace(form, high_address=0), entry)


def _four_gib(form: Any, entry: Any) -> Any:
    return ORIGINAL_TARGET(form, entry) & np.uint64(0xFFFFFFFF)


def _no_reserved_bits(mode: Any, number: Any, form: Any, *rest: Any) -> Any:
    return ORIGINAL_FOLLOW(mode, number, replace(form, reserved=0), *rest)


ORIGINAL_COMBINE = mmu_sweep._combine
ORIGINAL_TARGET = mmu_sweep._target
ORIGINAL_FOLLOW = mmu_sweep._follow

MUTANTS: dict[str, tuple[str, Callable[..., Any]]] = {
    "rights of the last level only": ("_combine", _inherit_nothing),
    "rights of the root only": ("_combine", _inherit_only),
    "NX lost": ("_no_execute", _no_nx),
    "PSE-36 lost": ("_target", _no_pse36),
    "addresses of 32 bits": ("_target", _four_gib),
    "reserved bits ignored": ("_follow", _no_reserved_bits),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_wrong_rule_is_noticed(name: str, ram: Ram, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mmu_sweep, *MUTANTS[name])
    assert 0 < sum(bool(disagreement(vector, ram)) for vector in VECTORS) < len(VECTORS)


# The two forms of the reference walk say the same.


def leaf_of(found: Walk) -> int:
    entry = found.steps[-1].entry
    return entry & 0x1FF | (entry >> 63) << 15


def rights_of(found: Walk) -> int:
    """What the sweep's dense rights should be, from the scalar walk."""
    if isinstance(found.fault, BadTable):
        return RIGHT_BAD_TABLE
    if isinstance(found.fault, PageFault) and found.fault.error_code & 8:
        return RIGHT_RESERVED
    if not found.page_size:
        return 0
    return (
        RIGHT_PRESENT
        | (RIGHT_WRITE if found.writable else 0)
        | (RIGHT_USER if found.user else 0)
        | (0 if found.executable else RIGHT_NX)
        | (RIGHT_GLOBAL if found.global_page else 0)
    )


def scalar_mappings(ram: Ram, case: Tables) -> dict[int, tuple[int, int, int, int]]:
    """Rows by page address, as (pa, size, rights, leaf), of all pages that the probes meet."""
    rows = {}
    for va in case.probes():
        found = walk(ram, case.registers, va, features=case.features)
        if found.page_size:
            assert found.paddr is not None
            inside = va & found.page_size - 1
            rights = rights_of(found) & ~RIGHT_PRESENT
            rows[va - inside] = (found.paddr - inside, found.page_size, rights, leaf_of(found))
    return rows


def scalar_malformed(ram: Ram, case: Tables) -> set[MalformedEntry]:
    """The broken entries that the probes meet, each with the whole range that it spoils."""
    shifts = {"CR3": 32, "PDPTE": 30, "PDE": 22 if case.entry_size == 4 else 21, "PTE": 12}
    met = set()
    for va in case.probes():
        found = walk(ram, case.registers, va, features=case.features)
        fault = found.fault
        reserved = found.steps[-1].reserved if found.steps else 0
        if fault is not None and (reserved or isinstance(fault, BadTable)):
            size = 1 << shifts[fault.level]
            base = va & ~(size - 1)
            met.add(MalformedEntry(base, size, fault.level, fault.paddr, fault.entry, reserved))
    return met


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(case=tables())
def test_rows_equal_the_scalar_walk(case: Tables) -> None:
    ram = RANDOM_RAM
    case.load(ram)
    found = sweep(words(ram), case.registers, case.features, ram.ranges)
    columns = (found.pa, found.size, found.rights, found.leaf)
    rows = dict(
        zip(found.va.tolist(), zip(*(c.tolist() for c in columns), strict=True), strict=True)
    )
    assert rows == scalar_mappings(ram, case)
    assert found.va.tolist() == sorted(rows)
    assert set(found.malformed) == scalar_malformed(ram, case)
    assert len(found.malformed) == len(set(found.malformed))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(case=tables())
def test_outcomes_equal_the_scalar_walk(case: Tables) -> None:
    ram = RANDOM_RAM
    case.load(ram)
    pages = sweep(words(ram), case.registers, case.features, ram.ranges).pages()
    probes = case.probes()
    page = np.array(probes) >> 12
    probed = Pages(pages.pfn[page], pages.rights[page], pages.no_execute)
    for access, ring in ATTEMPTS:
        codes = outcome(probed, access, ring, case.registers).tolist()
        for va, pfn, rights, code in zip(
            probes, probed.pfn.tolist(), probed.rights.tolist(), codes, strict=True
        ):
            found = walk(ram, case.registers, va, access, ring, case.features)
            assert rights == rights_of(found)
            if found.fault is None:
                assert (code, pfn) == (ALLOWED, (found.paddr or 0) >> 12)
            else:
                assert code == (BAD_TABLE if found.error_code is None else found.error_code)
                assert (pfn >= 0) == bool(found.page_size)


# Particular shapes.


def test_paging_off_is_the_identity(ram: Ram) -> None:
    found = sweep(words(ram), ControlRegisters(CR0_PE, 0))
    assert found.ranges() == [Range(0, 0, 1 << 32, RIGHT_WRITE | RIGHT_USER)]
    assert len(found) == PAGES
    assert (outcome(found.pages(), Access.WRITE, Ring.USER, TWO_LEVEL) == ALLOWED).all()
    assert len(found.malformed) == 0


def test_empty_directory(ram: Ram) -> None:
    found = sweep(words(ram), TWO_LEVEL)
    assert (len(found), found.ranges(), list(found.malformed)) == (0, [], [])
    pages = found.pages()
    assert (pages.pfn == -1).all()
    assert not pages.rights.any()


@pytest.mark.book("3.6.1")
def test_shared_table_maps_twice(ram: Ram) -> None:
    """As pg0 does at boot: one table, low and at 3 GiB, with the rights of each PDE."""
    ram.write32(0x1000, 0x2007)
    ram.write32(0x1000 + 4 * 768, 0x2003)
    ram.write32(0x2004, 0x5007)
    assert sweep(words(ram), TWO_LEVEL).ranges() == [
        Range(0x1000, 0x5000, 0x1000, RIGHT_WRITE | RIGHT_USER),
        Range(0xC0001000, 0x5000, 0x1000, RIGHT_WRITE),
    ]


def test_directory_that_maps_itself(ram: Ram) -> None:
    ram.write32(0x1000, 0x2007)
    ram.write32(0x1FFC, 0x1003)
    assert [r[:3] for r in sweep(words(ram), TWO_LEVEL).ranges()] == [
        (0xFFC00000, 0x2000, 0x1000),
        (0xFFFFF000, 0x1000, 0x1000),
    ]


def test_ranges_join_only_equal_neighbours(ram: Ram) -> None:
    """Breaks: a right, a gap in va, a gap in pa; not: the size of the page."""
    ram.write32(0x1000, 0x00000083)
    ram.write32(0x1004, 0x2007)
    frames = [0x400003, 0x401003, 0x402001, 0x403001, 0, 0x405001, 0x407001]
    for slot, pte in enumerate(frames):
        ram.write32(0x2000 + 4 * slot, pte)
    assert sweep(words(ram), WITH_PSE).ranges() == [
        Range(0, 0, 0x402000, RIGHT_WRITE),
        Range(0x402000, 0x402000, 0x2000, 0),
        Range(0x405000, 0x405000, 0x1000, 0),
        Range(0x406000, 0x407000, 0x1000, 0),
    ]


def test_range_text() -> None:
    mapped = Range(0xC0000000, 0, 64 << 20, RIGHT_WRITE | RIGHT_GLOBAL)
    assert str(mapped) == "0xc0000000..0xc3ffffff -> 0x0  kernel rwx global"


def test_the_last_page_of_the_address_space(ram: Ram) -> None:
    ram.write32(0x1FFC, 0xFFC00087)
    found = sweep(words(ram), WITH_PSE)
    assert found.ranges() == [Range(0xFFC00000, 0xFFC00000, 4 << 20, RIGHT_WRITE | RIGHT_USER)]
    pages = found.pages()
    assert pages.pfn[[PAGES - 1025, PAGES - 1024, PAGES - 1]].tolist() == [-1, 0xFFC00, 0xFFFFF]


def test_pae_frames_above_4_gib(ram: Ram) -> None:
    ram.write64(0x1000, 0x2001)
    ram.write64(0x2000, 0xF_FFE0_00E7)
    registers = ControlRegisters(PAGING, 0x1000, CR4_PAE | CR4_PGE)
    found = sweep(words(ram), registers)
    assert found.pa.tolist() == [0xF_FFE0_0000]
    assert found.pages().pfn[511] == 0xFFFFFF


def test_malformed_entries_say_where(ram: Ram) -> None:
    ram.write32(0x1004, 0x00600083)
    ram.write32(0x1008, 0x00050027)
    found = sweep(words(ram), WITH_PSE)
    assert list(map(str, found.malformed)) == [
        "va 0x00400000..0x007fffff: PDE 0x00600083 at paddr 0x1004: reserved bits 0x200000 set",
        "va 0x00800000..0x00bfffff: PDE 0x00050027 at paddr 0x1008: points to a table outside RAM",
    ]
    rights = found.pages().rights
    assert (rights[0x400:0x800] == RIGHT_RESERVED).all()
    assert (rights[0x800:0xC00] == RIGHT_BAD_TABLE).all()
    assert np.count_nonzero(rights) == 2048


def test_root_outside_ram(ram: Ram) -> None:
    found = sweep(words(ram), replace(TWO_LEVEL, cr3=0x90000))
    assert list(found.malformed) == [MalformedEntry(0, 1 << 32, "CR3", None, 0x90000, 0)]
    assert (outcome(found.pages(), Access.READ, Ring.USER, TWO_LEVEL) == BAD_TABLE).all()


@pytest.mark.parametrize(("table", "lost"), [(0x2000, False), (0x3000, True), (0x4000, False)])
def test_table_in_a_hole(table: int, lost: bool) -> None:
    ram = Ram(RAM_BYTES, ((0x1000, 0x3000), (0x4000, RAM_BYTES)))
    ram.write32(0x1000, table | 7)
    assert bool(list(sweep(words(ram), TWO_LEVEL, ranges=ram.ranges).malformed)) == lost


def test_root_below_all_ranges() -> None:
    ram = Ram(RAM_BYTES, ((0x2000, RAM_BYTES),))
    assert len(sweep(words(ram), TWO_LEVEL, ranges=ram.ranges).malformed) == 1


def test_a_broken_frame_count_is_refused() -> None:
    with pytest.raises(ValueError, match="whole frames"):
        sweep(np.zeros(1023, np.uint32), TWO_LEVEL)


def test_columns_have_the_promised_types(ram: Ram) -> None:
    ram.write32(0x1000, 0x2007)
    ram.write32(0x2000, 0x5067)
    ram.write32(0x1004, 0x400083)
    for registers in (TWO_LEVEL, WITH_PSE, ControlRegisters(CR0_PE, 0), replace(TWO_LEVEL, cr3=0)):
        found: Mappings = sweep(words(ram), registers)
        kinds = [str(getattr(found, name).dtype) for name in ("va", "pa", "size", "rights", "leaf")]
        assert kinds == ["uint64", "uint64", "uint32", "uint16", "uint16"]
        pages = found.pages()
        assert (pages.pfn.dtype, pages.rights.dtype) == (np.int64, np.uint16)


@given(rights=st.integers(0, 0xFFFF), wp=st.booleans())
@settings(max_examples=50, deadline=None)
def test_a_user_is_never_allowed_more_than_the_kernel_with_wp(rights: int, wp: bool) -> None:
    pages = Pages(np.zeros(1, np.int64), np.array([rights], np.uint16), True)
    registers = ControlRegisters(CR0_PG | (CR0_WP if wp else 0), 0)
    for access in Access:
        user, kernel = (outcome(pages, access, r, registers)[0] for r in (Ring.USER, Ring.KERNEL))
        assert user != ALLOWED or kernel == ALLOWED
