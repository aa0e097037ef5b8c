# SPDX-License-Identifier: GPL-2.0-or-later
"""The scalar reference walk against the manual's vectors, and against broken walkers."""

import pickle
from collections.abc import Callable
from dataclasses import replace

import pytest

from harness import mmu_spec
from harness.architecture import (
    CR0_PE,
    CR0_PG,
    CR4_PAE,
    EFER_LMA,
    PTE_A,
    PTE_NX,
    PTE_RW,
    PTE_US,
    Access,
    ControlRegisters,
    Ring,
)
from harness.mmu_spec import BadTable, MmuFeatures, PageFault, UnsupportedPaging, Walk, walk
from harness.paging_modes import Level, PagingMode, paging_mode
from kernel_model.errors import MmucheckError
from kernel_model.ram import Ram
from tests.harness.walk_vectors import RAM_BYTES, VECTORS, Vector

TWO_LEVEL = ControlRegisters(CR0_PG | CR0_PE, 0x1000)


@pytest.fixture(scope="module")
def ram() -> Ram:
    return Ram(RAM_BYTES)


def disagreement(vector: Vector, ram: Ram) -> str:
    """How the walk of ``vector`` differs from what the manual says; empty if it does not."""
    vector.load(ram)
    found = mmu_spec.walk(
        ram, vector.registers, vector.va, vector.access, vector.ring, vector.features
    )
    level = found.fault.level if found.fault else ""
    code = -2 if isinstance(found.fault, BadTable) else found.error_code
    got = (found.paddr, level, -1 if code is None else code)
    if got != (vector.paddr, vector.level, vector.error_code):
        return f"{got} in\n{found}"
    if vector.paddr is not None and found.global_page != vector.global_page:
        return f"global {found.global_page}"
    if vector.page_size and found.page_size != vector.page_size:
        return f"page of {found.page_size}"
    if vector.after is not None and {u.paddr: u.new for u in found.updates} != vector.after:
        return f"updates {found.updates}"
    return ""


@pytest.mark.book("3.2")
@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector.name)
def test_vector(vector: Vector, ram: Ram) -> None:
    assert disagreement(vector, ram) == ""


# Broken walkers. Each does one thing wrong that a walker may plausibly do wrong; the vectors
# must notice. A data mutant rewrites the paging mode, a code mutant replaces a function.


def _every_format(mode: PagingMode, **fields: int) -> PagingMode:
    levels = tuple(
        replace(
            level,
            plain=replace(level.plain, **fields),
            large=level.large and replace(level.large, **fields),
        )
        for level in mode.levels
    )
    return replace(mode, levels=levels)


def _large(mode: PagingMode, change: Callable[[Level], Level]) -> PagingMode:
    return replace(
        mode, levels=tuple(change(level) if level.large else level for level in mode.levels)
    )


def _large_field(**masks: int) -> Callable[[PagingMode], PagingMode]:
    """Clear bits in fields of the large-page format."""

    def change(level: Level) -> Level:
        assert level.large
        cleared = {name: getattr(level.large, name) & ~mask for name, mask in masks.items()}
        return replace(level, large=replace(level.large, **cleared))

    return lambda mode: _large(mode, change)


def _always_large(mode: PagingMode) -> PagingMode:
    """PS honoured although CR4.PSE is clear."""
    pse = ControlRegisters(CR0_PG, 0, 1 << 4)
    return paging_mode(pse, MmuFeatures()) or mode if mode.name == "2-level" else mode


def _rights_in_pdpte(mode: PagingMode) -> PagingMode:
    if mode.entry_size == 4:
        return mode
    top = mode.levels[0]
    plain = replace(top.plain, flags=top.plain.flags | PTE_RW | PTE_US | PTE_A)
    return replace(mode, levels=(replace(top, plain=plain), *mode.levels[1:]))


DATA_MUTANTS: dict[str, Callable[[PagingMode], PagingMode]] = {
    "no reserved bits": lambda mode: _every_format(mode, reserved=0),
    "no PSE-36": _large_field(high_address=-1),
    "bit 21 of a 4 MiB PDE not reserved": _large_field(reserved=1 << 21),
    "bits 13-20 of a large PDE not reserved": _large_field(reserved=0x1FE000),
    "no large pages": lambda mode: _large(mode, lambda level: replace(level, large=None)),
    "PS without CR4.PSE": _always_large,
    "rights and A in a PDPTE": _rights_in_pdpte,
    "PDPT aligned to 4 KiB": lambda mode: replace(mode, root=0xFFFFF000),
    "flag bits of CR3 in the address": lambda mode: replace(mode, root=0xFFFFFFFC),
    "NX never in effect": lambda mode: replace(_every_format(mode, flags=0x1FF), nx=False),
    "I in the code of every fetch": lambda mode: replace(mode, nx=True),
    "G ignored": lambda mode: replace(mode, global_pages=False),
    "G without CR4.PGE": lambda mode: replace(mode, global_pages=True),
    "addresses of 32 bits": lambda mode: _every_format(mode, address=0xFFFFF000),
    "PAT bit of a large page in the address": lambda mode: _large(
        mode,
        lambda level: replace(
            level,
            large=level.large and replace(level.large, address=level.large.address | 1 << 12),
        ),
    ),
}


def _leaf_only(function: str) -> Callable[..., object]:
    original = getattr(mmu_spec, function)
    if function == "_denial":
        return lambda mode, registers, steps, *rest: original(mode, registers, steps[-1:], *rest)
    return lambda steps, access: original(steps[-1:], access)


def _without_wp(*, honoured: bool) -> Callable[..., object]:
    original = mmu_spec._denial
    bits = CR0_PG | (1 << 16 if honoured else 0)
    return lambda mode, registers, *rest: original(mode, replace(registers, cr0=bits), *rest)


def _first_entry_only() -> Callable[..., object]:
    original = mmu_spec._denial
    return lambda mode, registers, steps, *rest: original(mode, registers, steps[:-1], *rest)


def _dirty_on_read() -> Callable[..., object]:
    original = mmu_spec._updates
    return lambda steps, access: original(steps, Access.WRITE)


def _code_without(bit: int) -> Callable[..., object]:
    original = mmu_spec._page_fault

    def fault(*arguments: object) -> PageFault:
        made = original(*arguments)  # type: ignore[arg-type]
        made.error_code &= ~bit
        return made

    return fault


CODE_MUTANTS: dict[str, tuple[str, Callable[[], Callable[..., object]]]] = {
    "rights of the last level only": ("_denial", lambda: _leaf_only("_denial")),
    "rights of the upper levels only": ("_denial", _first_entry_only),
    "CR0.WP ignored": ("_denial", lambda: _without_wp(honoured=False)),
    "CR0.WP always on": ("_denial", lambda: _without_wp(honoured=True)),
    "A in the last level only": ("_updates", lambda: _leaf_only("_updates")),
    "D on a read": ("_updates", _dirty_on_read),
    "P missing in the code": ("_page_fault", lambda: _code_without(1)),
    "W missing in the code": ("_page_fault", lambda: _code_without(2)),
    "U missing in the code": ("_page_fault", lambda: _code_without(4)),
    "RSVD missing in the code": ("_page_fault", lambda: _code_without(8)),
    "I missing in the code": ("_page_fault", lambda: _code_without(16)),
}


def _noticed(ram: Ram) -> bool:
    """Whether vectors contradict the walk as it now stands; if all do, that proves nothing."""
    return 0 < sum(bool(disagreement(vector, ram)) for vector in VECTORS) < len(VECTORS)


@pytest.mark.parametrize("name", DATA_MUTANTS)
def test_wrong_level_table_is_noticed(name: str, ram: Ram, monkeypatch: pytest.MonkeyPatch) -> None:
    def mutated(registers: ControlRegisters, features: MmuFeatures) -> PagingMode | None:
        mode = paging_mode(registers, features)
        return mode and DATA_MUTANTS[name](mode)

    monkeypatch.setattr(mmu_spec, "paging_mode", mutated)
    assert _noticed(ram)


@pytest.mark.parametrize("name", CODE_MUTANTS)
def test_wrong_rule_is_noticed(name: str, ram: Ram, monkeypatch: pytest.MonkeyPatch) -> None:
    function, mutant = CODE_MUTANTS[name]
    monkeypatch.setattr(mmu_spec, function, mutant())
    assert _noticed(ram)


# What a walk tells.


def _walk(ram: Ram, pde: int, pte: int, access: Access, ring: Ring) -> Walk:
    ram.fill(0, ram.size)
    ram.write32(0x1004, pde)
    ram.write32(0x2000, pte)
    return walk(ram, TWO_LEVEL, 0x400000, access, ring)


def test_fault_message_is_symbolic(ram: Ram) -> None:
    fault = _walk(ram, 0x2007, 0x5005, Access.WRITE, Ring.USER).fault
    assert str(fault) == "PTE 0x00005005 at paddr 0x2000: R/W=0, user write: error code 7 (P|W|U)"


def test_describe_tells_every_step(ram: Ram) -> None:
    text = str(_walk(ram, 0x2027, 0x5007, Access.WRITE, Ring.USER))
    assert text.splitlines() == [
        "va 0x00400000, user write: 2-level, CR3 0x1000",
        "  PDE[1] 0x00002027 at paddr 0x1004  P RW US A -> table 0x2000",
        "  PTE[0] 0x00005007 at paddr 0x2000  P RW US -> 4 KiB page 0x5000",
        "  paddr 0x5000, 4 KiB page: user rwx",
        "  sets 0x60 in 0x5007 at 0x2000",
    ]


def test_describe_tells_where_the_tables_end(ram: Ram) -> None:
    found = _walk(ram, 0x90027, 0, Access.READ, Ring.KERNEL)
    assert isinstance(found.fault, BadTable)
    assert found.fault.table == 0x90000
    assert "PDE 0x00090027 at paddr 0x1004: the table at 0x90000 lies outside RAM" in str(found)


def test_a_denied_page_still_tells_its_rights(ram: Ram) -> None:
    found = _walk(ram, 0x2007, 0x5003, Access.READ, Ring.USER)
    assert (found.paddr, found.page_size) == (None, 4096)
    assert (found.writable, found.user, found.executable) == (True, False, True)
    assert found.may_set_accessed == (0x1004, 0x2000)
    assert found.updates == ()


@pytest.mark.parametrize("pte", [0, 0x5001])
def test_faults_survive_pickling(ram: Ram, pte: int) -> None:
    fault = _walk(ram, 0x2007, pte, Access.READ, Ring.USER).fault
    again = pickle.loads(pickle.dumps(fault))
    assert isinstance(again, PageFault)
    assert isinstance(again, MmucheckError)
    assert (str(again), again.error_code) == (str(fault), 5 if pte else 4)


def test_the_walk_never_writes(ram: Ram) -> None:
    _walk(ram, 0x2007, 0x5007, Access.WRITE, Ring.USER)
    assert (ram.read32(0x1004), ram.read32(0x2000)) == (0x2007, 0x5007)


def test_a_hole_is_outside_ram() -> None:
    holed = Ram(0x8000, ((0, 0x2000), (0x3000, 0x8000)))
    holed.write32(0x1004, 0x2027)
    assert isinstance(walk(holed, TWO_LEVEL, 0x400000).fault, BadTable)


@pytest.mark.parametrize("va", [-1, 1 << 32])
def test_an_address_has_32_bits(ram: Ram, va: int) -> None:
    with pytest.raises(ValueError, match="32 bits"):
        walk(ram, TWO_LEVEL, va)


def test_long_mode_is_refused(ram: Ram) -> None:
    registers = ControlRegisters(CR0_PG | CR0_PE, 0x1000, CR4_PAE, EFER_LMA)
    with pytest.raises(UnsupportedPaging, match="LMA"):
        walk(ram, registers, 0)


@pytest.mark.parametrize("bits", [31, 53])
def test_absurd_physical_width_is_refused(bits: int) -> None:
    with pytest.raises(ValueError, match="MAXPHYADDR"):
        MmuFeatures(physical_bits=bits)


# The CR3 load of PAE (section 4.4.1).

PAE = ControlRegisters(CR0_PG | CR0_PE, 0x1020, CR4_PAE)


@pytest.mark.parametrize("bit", [1, 2, 5, 6, 7, 8, 36, 52, 63])
def test_reserved_pdpte_bit_is_reported(ram: Ram, bit: int) -> None:
    ram.fill(0, ram.size)
    ram.write64(0x1030, 0x2001 | 1 << bit)
    (refused,) = mmu_spec.check_pdptes(ram, PAE)
    assert (refused.index, refused.paddr, refused.reserved) == (2, 0x1030, 1 << bit)
    assert f"reserved bits {1 << bit:#x} set, a load of CR3 raises #GP" in str(refused)


@pytest.mark.parametrize("entry", [0x2001, 0x2019, 0x2E01, 0xF_FFFF_F001, 0x21E6 | PTE_NX])
def test_lawful_or_absent_pdpte_is_not_reported(ram: Ram, entry: int) -> None:
    ram.fill(0, ram.size)
    ram.write64(0x1030, entry)
    assert mmu_spec.check_pdptes(ram, PAE) == ()


def test_pdptes_are_checked_in_pae_only(ram: Ram) -> None:
    ram.write64(0x1030, 0x21E7)
    assert mmu_spec.check_pdptes(ram, TWO_LEVEL) == ()
    assert mmu_spec.check_pdptes(ram, replace(PAE, cr0=CR0_PE)) == ()


def test_pdpt_outside_ram(ram: Ram) -> None:
    with pytest.raises(BadTable, match="CR3"):
        mmu_spec.check_pdptes(ram, replace(PAE, cr3=RAM_BYTES))
