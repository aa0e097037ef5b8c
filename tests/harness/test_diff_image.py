# SPDX-License-Identifier: GPL-2.0-or-later
"""The comparison of memory images: real kernels' tables agree, and planted changes are found."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from harness.architecture import CR0_PE, CR0_PG, CR0_WP, CR4_PAE, CR4_PSE, ControlRegisters
from harness.diff import Report, diff_image
from harness.expectation import Expectation
from harness.mappings import PAGES
from harness.mmu_spec import walk
from harness.verdict import Verdict
from kernel_model.config import MIB
from kernel_model.errors import BadInput
from kernel_model.ram import Ram
from tests.linux_images import AddressSpace, LinuxImage, linux_address_spaces, linux_image

pytestmark = pytest.mark.usefixtures("either_release")

PAGE = 4096
NX = 1 << 63
PAGING = CR0_PE | CR0_PG | CR0_WP


# -- real kernels ------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "space"),
    tuple(linux_address_spaces()),
    ids=lambda value: getattr(value, "name", None) or f"{value.registers.cr3:#x}",
)
def test_real_kernels_agree(image: LinuxImage, space: AddressSpace) -> None:
    ram = image.new_ram()
    report = diff_image(ram, space.registers, space.expectation)
    assert report.ok, report.findings
    assert report.mapped == int(space.expectation.size.astype(np.int64).sum()) >> 12
    assert report.left_out.devices >= 4


def test_asking_changes_no_byte_of_the_image() -> None:
    image = linux_image("nonpae64")
    ram = image.new_ram()
    before = ram.read(0, ram.size)
    assert diff_image(ram, image.address_spaces[0].registers).ok
    assert ram.read(0, ram.size) == before


def test_reserved_pdpte_bits_are_noted_and_tolerated() -> None:
    image = linux_image("pae128_nonx")
    report = diff_image(image.new_ram(), image.address_spaces[0].registers)
    assert report.ok
    assert any("reserved bits 0x20" in note for note in report.notes)


# -- twenty changes to image or list -------------------------------------------------------------


class Changed:
    """An image and its list, both free to be spoiled; ``va`` is where that must show."""

    def __init__(self, name: str, space: int = 0) -> None:
        image = linux_image(name)
        known = image.address_spaces[space]
        self.ram = image.new_ram()
        self.registers = known.registers
        self.rows: dict[str, Any] = {
            column: getattr(known.expectation, column).copy()
            for column in ("va", "pa", "size", "rights", "absent")
        }

    def row(self, size: int = PAGE, user: bool = True, writable: bool = True) -> int:
        """A row of this kind from the middle of the list, whose frame is RAM."""
        rights = self.rows["rights"]
        alike = (self.rows["size"] == size) & (self.rows["pa"] < self.ram.size)
        alike &= (rights & 4 != 0) == user
        alike &= (rights & 2 != 0) == writable
        found = np.flatnonzero(alike)
        return int(found[len(found) // 2])

    def va(self, row: int) -> int:
        return int(self.rows["va"][row])

    def entry(
        self, va: int, *, put: int = 0, clear: int = 0, flip: int = 0, level: int = -1
    ) -> None:
        step = walk(self.ram, self.registers, va).steps[level]
        entry = (step.entry & ~clear | put) ^ flip
        if self.registers.pae:
            self.ram.write64(step.paddr, entry)
        else:
            self.ram.write32(step.paddr, entry)

    def delete(self, row: int) -> None:
        for column in ("va", "pa", "size", "rights"):
            self.rows[column] = np.delete(self.rows[column], row)

    def diff(self) -> Report:
        return diff_image(self.ram, self.registers, Expectation(**self.rows))


def _large(changed: Changed) -> int:
    return (2 if changed.registers.pae else 4) * MIB


def _change_entry(**bits: int) -> Callable[[Changed], int]:
    def change(changed: Changed) -> int:
        va = changed.va(changed.row())
        changed.entry(va, **bits)
        return va

    return change


def _change_large(**bits: int) -> Callable[[Changed], int]:
    def change(changed: Changed) -> int:
        va = changed.va(changed.row(_large(changed), user=False))
        changed.entry(va, **bits)
        return va

    return change


def _swap_frames(changed: Changed) -> int:
    one = changed.row()
    other = changed.row(writable=False)
    first, second = changed.va(one), changed.va(other)
    frames = (1 << 36) - PAGE
    entries = [walk(changed.ram, changed.registers, va).steps[-1].entry for va in (first, second)]
    changed.entry(first, clear=frames, put=entries[1] & frames)
    changed.entry(second, clear=frames, put=entries[0] & frames)
    return min(first, second)


def _map_absent(changed: Changed) -> int:
    """An unused PTE beside a used one becomes a page."""
    for row in range(len(changed.rows["va"])):
        va = changed.va(row) + PAGE
        steps = walk(changed.ram, changed.registers, va).steps
        if steps[-1].level == "PTE" and not steps[-1].present:
            changed.entry(va, put=0x5067)
            return va
    raise AssertionError("no unused PTE")


def _map_absent_directory_entry(changed: Changed) -> int:
    va = 0x20000000
    assert not walk(changed.ram, changed.registers, va).steps[-1].present
    changed.entry(va, put=0x8000E7)
    return va


def _in_list(column: str, change: Callable[[Any], Any], **kind: Any) -> Callable[[Changed], int]:
    def apply(changed: Changed) -> int:
        row = changed.row(**kind)
        changed.rows[column][row] = change(changed.rows[column][row])
        return changed.va(row)

    return apply


def _move_row(changed: Changed) -> int:
    """The list has the page one address lower, where nothing is."""
    row = next(
        row
        for row in range(1, len(changed.rows["va"]))
        if changed.rows["va"][row] - changed.rows["va"][row - 1] > PAGE
        and changed.rows["size"][row] == changed.rows["size"][row - 1] == PAGE
    )
    changed.rows["va"][row] -= PAGE
    return changed.va(row)


def _delete_row(changed: Changed) -> int:
    row = changed.row()
    va = changed.va(row)
    changed.delete(row)
    return va


def _absent_too_many(changed: Changed) -> int:
    """The list says that an address is absent, and the tables have it."""
    va = _delete_row(changed)
    changed.rows["absent"] = np.sort(np.append(changed.rows["absent"], np.uint32(va)))
    return va


def _split_row(changed: Changed) -> int:
    """The list has the first 4 KiB of a large page as a page of its own."""
    row = changed.row(_large(changed), user=False)
    va = changed.va(row)
    changed.rows["size"][row] = PAGE
    return va


CHANGES: dict[str, Callable[[Changed], int]] = {
    "entry: frame": _change_entry(flip=PAGE * 3),
    "entry: absent": _change_entry(clear=1),
    "entry: read-only": _change_entry(clear=2),
    "entry: kernel only": _change_entry(clear=4),
    "entry: frame outside RAM": _change_entry(put=0x40000000),
    "directory: absent": _change_entry(clear=1, level=-2),
    "directory: read-only": _change_entry(clear=2, level=-2),
    "directory: kernel only": _change_entry(clear=4, level=-2),
    "directory: table outside RAM": _change_entry(put=0xF0000000, level=-2),
    "directory: table at the wrong frame": _change_entry(flip=0x7000, level=-2),
    "large page: absent": _change_large(clear=1),
    "large page: read-only": _change_large(clear=2),
    "large page: open to users": _change_large(put=4),
    "large page: displaced": _change_large(flip=8 * MIB),
    "large page: reserved bit": _change_large(put=1 << 20 | 1 << 21),
    "large page: taken for a table": _change_large(clear=0x80),
    "two frames swapped": _swap_frames,
    "unused entry mapped": _map_absent,
    "unused directory entry mapped": _map_absent_directory_entry,
    "list: frame": _in_list("pa", lambda pa: pa ^ 0x4000),
    "list: writable": _in_list("rights", lambda rights: rights ^ 2),
    "list: user": _in_list("rights", lambda rights: rights ^ 4, writable=False),
    "list: no-execute": _in_list("rights", lambda rights: rights | 0x8000),
    "list: row moved": _move_row,
    "list: row missing": _delete_row,
    "list: absent": _absent_too_many,
    "list: page size": _split_row,
}


@pytest.mark.parametrize(
    ("name", "image"),
    [(name, "nonpae64") for name in CHANGES]
    + [
        pytest.param(name, "pae128_nonx", marks=() if "entry" in name else pytest.mark.slow)
        for name in CHANGES
        if not name.startswith("list")
    ],
)
def test_change_is_found(name: str, image: str) -> None:
    changed = Changed(image)
    va = CHANGES[name](changed)
    report = changed.diff()
    assert not report.ok
    assert {finding.verdict for finding in report.findings} == {Verdict.UNEXPECTED}
    assert any(finding.va <= va <= finding.end for finding in report.findings)


def test_page_size_alone_is_a_difference() -> None:
    """The list has 1,024 small pages where the tables have one large one: all else is equal."""
    changed = Changed("nonpae64")
    row = changed.row(4 * MIB, user=False)
    va, pa, rights = (int(changed.rows[column][row]) for column in ("va", "pa", "rights"))
    changed.delete(row)
    extra = np.arange(1024) * PAGE
    for column, values in (
        ("va", va + extra),
        ("pa", pa + extra),
        ("size", np.full(1024, PAGE)),
        ("rights", np.full(1024, rights)),
    ):
        joined = np.append(changed.rows[column], values.astype(changed.rows[column].dtype))
        changed.rows[column] = joined
    report = changed.diff()
    assert [(finding.va, finding.length) for finding in report.findings] == [(va, 4 * MIB)]
    assert "page of 0x400000 bytes, the list has 0x1000" in str(report.findings[0])


def test_change_to_nothing_that_counts_is_none() -> None:
    """Accessed, dirty and cache bits are no translation."""
    changed = Changed("nonpae64")
    va = changed.va(changed.row())
    changed.entry(va, clear=0x60)
    changed.entry(va, put=0x18)
    assert changed.diff().ok


# -- made images ------------------------------------------------------------


def _pae_image(entry: int) -> Ram:
    """One page at 0x201000: PDPTE at 0x1000, PD at 0x2000, PT at 0x3000."""
    ram = Ram(MIB)
    ram.write64(0x1000, 0x2001)
    ram.write64(0x2008, 0x3007)
    ram.write64(0x3008, entry)
    return ram


@pytest.mark.parametrize("model", ["pentium3", "486"])
def test_a_model_without_what_the_registers_turn_on_is_refused(model: str) -> None:
    registers = ControlRegisters(PAGING, 0x1000, CR4_PAE, 1 << 11)
    with pytest.raises(BadInput, match=f"a {model} lacks: choose another"):
        diff_image(_pae_image(0x5067), registers, cpu_model=model)


@pytest.mark.parametrize("model", [None, "coreduo"])
def test_no_execute(model: str | None) -> None:
    """NX needs a CPU that has it; one is chosen if none was asked for."""
    registers = ControlRegisters(PAGING, 0x1000, CR4_PAE, 1 << 11)
    known = Expectation(
        va=np.array([0x201000], np.uint32),
        pa=np.array([0x5000], np.uint64),
        size=np.array([PAGE], np.uint32),
        rights=np.array([0x8006], np.uint16),
    )
    ram = _pae_image(0x5067 | NX)
    report = diff_image(ram, registers, known, cpu_model=model)
    assert report.ok, report.findings
    assert "coreduo" in report.subject
    executable = replace(known, rights=np.array([6], np.uint16))
    finding = diff_image(ram, registers, executable).findings[0]
    assert finding.va == 0x201000
    assert finding.accesses == "kernel fetch, user fetch"


def test_table_outside_ram_without_a_list() -> None:
    ram = _pae_image(0x5067)
    ram.write64(0x2010, 0xF0000007)
    registers = ControlRegisters(PAGING, 0x1000, CR4_PAE)
    report = diff_image(ram, registers)
    assert [(f.verdict, f.va, f.length) for f in report.findings] == [
        (Verdict.BAD_TABLE, 0x400000, 2 * MIB)
    ]
    assert "PDE 0xf0000007" in str(report.findings[0])
    assert "outside RAM" in report.notes[0]


def test_root_outside_ram() -> None:
    registers = ControlRegisters(PAGING, 0x10000000, CR4_PSE)
    report = diff_image(Ram(MIB), registers)
    assert [(f.verdict, f.va, f.length) for f in report.findings] == [
        (Verdict.BAD_TABLE, 0, PAGES * PAGE)
    ]
    assert report.findings[0].entry is not None
    assert report.findings[0].entry.level == "CR3"


def test_reserved_bits_are_no_disagreement() -> None:
    """Spec and CPU agree that every access faults; the entry is noted."""
    report = diff_image(_pae_image(0x5067 | 1 << 45), ControlRegisters(PAGING, 0x1000, CR4_PAE))
    assert report.ok
    assert "reserved bits 0x200000000000" in report.notes[0]


def test_pdpte_that_no_cpu_would_load() -> None:
    """Address bits beyond the CPU's in a PDPTE: noted; of its pages nothing is said."""
    ram = _pae_image(0x5067)
    ram.write64(0x1000, 0x2001 | 1 << 45)
    report = diff_image(ram, ControlRegisters(PAGING, 0x1000, CR4_PAE))
    assert report.ok, report.findings
    assert "a load of CR3 raises #GP" in report.notes[0]


@pytest.mark.slow
def test_paging_off() -> None:
    report = diff_image(Ram(MIB), ControlRegisters(CR0_PE, 0))
    assert report.ok
    assert "paging off" in report.subject
