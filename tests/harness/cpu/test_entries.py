# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the table entries of an address lie, in tables laid out by hand."""

import pytest

from harness.architecture import CR0_PE, CR0_PG, CR4_PAE, CR4_PSE, PTE_PS, ControlRegisters
from harness.cpu.entries import entry_addresses, entry_words, table_frames
from kernel_model.ram import Ram

CR0 = CR0_PE | CR0_PG
TWO_LEVEL = ControlRegisters(CR0, 0x1000)
PSE = ControlRegisters(CR0, 0x1000, CR4_PSE)
PAE = ControlRegisters(CR0, 0x1020, CR4_PAE)


@pytest.fixture
def ram() -> Ram:
    """2-level tables at 0x1000 and PAE ones at 0x1020, in RAM with a hole."""
    ram = Ram(1 << 20, [(0, 0x80000), (0x90000, 1 << 20)])
    ram.write32(0x1000 + 4, 0x2007)
    ram.write32(0x1000 + 8, 0x80000 | 7)
    ram.write32(0x1000 + 12, 0x400000 | PTE_PS | 7)
    ram.write32(0x1000 + 16, 0xFEC00007)
    ram.write64(0x1020 + 8, 0x5001)
    ram.write64(0x5000, 0x6007)
    ram.write64(0x5008, 0x200000 | PTE_PS | 7)
    ram.write64(0x5010, 0x80007)
    return ram


@pytest.mark.parametrize(
    ("control", "va", "expected"),
    [
        (TWO_LEVEL, 0x00400000 + 0x5678, [0x1004, 0x2014]),
        (TWO_LEVEL, 0xFFC00000, [0x1FFC]),
        (TWO_LEVEL, 0x00800000, [0x1008]),
        (TWO_LEVEL, 0x01000000, [0x1010]),
        (PSE, 0x00C00000, [0x100C]),
        (PAE, 0x40000000 + 0x5678, [0x1028, 0x5000, 0x6028]),
        (PAE, 0x40200000, [0x1028, 0x5008]),
        (PAE, 0x40400000, [0x1028, 0x5010]),
        (PAE, 0, [0x1020]),
        (ControlRegisters(CR0, 0x80000), 0, []),
        (ControlRegisters(CR0_PE, 0x1000), 0x400000, []),
    ],
)
def test_entries_of_an_address(
    ram: Ram, control: ControlRegisters, va: int, expected: list[int]
) -> None:
    assert entry_addresses(ram, control, va) == expected


def test_ps_means_nothing_without_cr4_pse(ram: Ram) -> None:
    """The entry then points to a table, here beyond RAM, and the list ends."""
    assert entry_addresses(ram, TWO_LEVEL, 0x00C00000) == [0x100C]
    ram.write32(0x100C, 0x2000 | PTE_PS | 7)
    assert entry_addresses(ram, TWO_LEVEL, 0x00C00000) == [0x100C, 0x2000]
    assert entry_addresses(ram, PSE, 0x00C00000) == [0x100C]


def test_words_of_wide_entries_come_in_pairs(ram: Ram) -> None:
    assert entry_words(ram, TWO_LEVEL, 0x400000) == [0x1004 >> 2, 0x2000 >> 2]
    words = [0x1028 >> 2, (0x1028 >> 2) + 1, 0x5008 >> 2, (0x5008 >> 2) + 1]
    assert entry_words(ram, PAE, 0x40200000) == words


@pytest.mark.parametrize(
    ("control", "expected"),
    [
        (TWO_LEVEL, [1, 2]),
        (PSE, [1, 2]),
        (PAE, [5, 6]),
        (ControlRegisters(CR0, 0xFEC00000), []),
        (ControlRegisters(CR0_PE, 0x1000), []),
    ],
)
def test_all_tables_of_an_address_space(
    ram: Ram, control: ControlRegisters, expected: list[int]
) -> None:
    """Tables in the hole and beyond RAM are left out, as are large pages."""
    if not control.pae:
        ram.fill(0x1020, 32)
    assert table_frames(ram, control).tolist() == expected
