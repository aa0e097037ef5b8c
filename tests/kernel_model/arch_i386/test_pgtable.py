# SPDX-License-Identifier: GPL-2.0-or-later
"""Entries and shapes: each setter changes its bit alone, each shape covers 4 GiB once."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel_model.arch_i386 import pgtable
from kernel_model.arch_i386.pgtable import THREE_LEVEL, TWO_LEVEL, PageTableShape

ENTRIES = st.integers(0, (1 << 32) - 1) | st.integers(0, (1 << 36) - 1)

PREDICATES: list[tuple[Callable[[int], bool], int]] = [
    (pgtable.pte_read, 1 << 2),
    (pgtable.pte_exec, 1 << 2),
    (pgtable.pte_write, 1 << 1),
    (pgtable.pte_dirty, 1 << 6),
    (pgtable.pte_young, 1 << 5),
    (pgtable.pmd_present, 1 << 0),
]
SETTERS: list[tuple[Callable[[int], int], int]] = [
    (pgtable.pte_mkread, 1 << 2),
    (pgtable.pte_mkexec, 1 << 2),
    (pgtable.pte_mkwrite, 1 << 1),
    (pgtable.pte_mkdirty, 1 << 6),
    (pgtable.pte_mkyoung, 1 << 5),
]
CLEARERS: list[tuple[Callable[[int], int], int]] = [
    (pgtable.pte_rdprotect, 1 << 2),
    (pgtable.pte_exprotect, 1 << 2),
    (pgtable.pte_wrprotect, 1 << 1),
    (pgtable.pte_mkclean, 1 << 6),
    (pgtable.pte_mkold, 1 << 5),
]


def named(table: list) -> dict[str, object]:
    return {"argvalues": table, "ids": [function.__name__ for function, _ in table]}


@pytest.mark.book("3.2")
@pytest.mark.parametrize(("asks", "bit"), **named(PREDICATES))
@given(entry=ENTRIES)
def test_a_predicate_asks_its_bit_alone(asks: Callable[[int], bool], bit: int, entry: int) -> None:
    assert asks(entry) is bool(entry & bit)


@pytest.mark.book("3.2")
@pytest.mark.parametrize(("sets", "bit"), **named(SETTERS))
@given(entry=ENTRIES)
def test_a_setter_sets_its_bit_alone(sets: Callable[[int], int], bit: int, entry: int) -> None:
    assert sets(entry) == entry - (entry & bit) + bit


@pytest.mark.book("3.2")
@pytest.mark.parametrize(("clears", "bit"), **named(CLEARERS))
@given(entry=ENTRIES)
def test_a_clearer_clears_its_bit_alone(clears: Callable[[int], int], bit: int, entry: int) -> None:
    assert clears(entry) == entry - (entry & bit)


@pytest.mark.book("3.2")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PAGE_NONE", 0x0A0),
        ("PAGE_SHARED", 0x027),
        ("PAGE_COPY", 0x025),
        ("PAGE_READONLY", 0x025),
        ("PAGE_KERNEL", 0x163),
        ("PAGE_KERNEL_NOCACHE", 0x173),
        ("PAGE_TABLE", 0x067),
        ("KERNPG_TABLE", 0x063),
    ],
)
def test_protections_have_the_values_of_linux_2_4(name: str, value: int) -> None:
    assert getattr(pgtable, name) == value


@pytest.mark.book("3.2")
@pytest.mark.parametrize(
    ("pte", "present"),
    [(0, False), (0x1, True), (0x80, True), (0xA0, True), (0x7E, False), (0xFFFFF000, False)],
)
def test_a_page_without_rights_is_present_to_linux_though_not_to_the_cpu(
    pte: int, present: bool
) -> None:
    assert pgtable.pte_present(pte) is present
    assert pgtable.pte_none(pte) is (pte == 0)


@pytest.mark.book("3.4")
@given(pfn=st.integers(0, (1 << 24) - 1), prot=st.integers(0, 0xFFF))
def test_an_entry_gives_back_the_frame_and_the_protection_it_was_made_of(
    pfn: int, prot: int
) -> None:
    pte = pgtable.mk_pte(pfn, prot)
    assert pgtable.pte_pfn(pte) == pfn
    assert pte & 0xFFF == prot
    assert pgtable.mk_pte_phys(pfn << 12, prot) == pte
    assert pgtable.pmd_page(pte) == pgtable.pgd_page(pte) == pfn << 12


@pytest.mark.book("3.4")
@given(entry=ENTRIES, prot=st.sampled_from([0x0A0, 0x027, 0x025, 0x163]))
def test_modify_keeps_frame_accessed_and_dirty_and_takes_the_rest_from_the_protection(
    entry: int, prot: int
) -> None:
    changed = pgtable.pte_modify(entry, prot)
    assert pgtable.pte_pfn(changed) == pgtable.pte_pfn(entry)
    assert changed & 0xFFF == (entry & 0x60) | prot


@pytest.mark.parametrize(
    ("pmd", "large", "bad"),
    [
        (0x00400063, False, False),
        (0x00400067, False, False),
        (0x004001E3, True, True),
        (0x004000E7, True, True),
        (0x00400080, False, True),
        (0x00400061, False, True),
        (0x00400023, False, True),
        (0, False, True),
    ],
)
@pytest.mark.book("3.3")
def test_a_middle_entry_is_a_table_a_large_page_or_bad(pmd: int, large: bool, bad: bool) -> None:
    assert (pgtable.pmd_large(pmd), pgtable.pmd_bad(pmd)) == (large, bad)


SHAPES = pytest.mark.parametrize("shape", [TWO_LEVEL, THREE_LEVEL], ids=["two", "three"])


@pytest.mark.book("3.0", "3.1")
@SHAPES
@given(vaddr=st.integers(0, (1 << 32) - 1))
def test_indices_and_offset_name_each_address_once(shape: PageTableShape, vaddr: int) -> None:
    indices = (shape.pgd_index(vaddr), shape.pmd_index(vaddr), shape.pte_index(vaddr))
    sizes = (shape.ptrs_per_pgd, shape.ptrs_per_pmd, shape.ptrs_per_pte)
    assert all(0 <= index < size for index, size in zip(indices, sizes, strict=True))
    back = 0
    for index, size in zip(indices, sizes, strict=True):
        back = back * size + index
    assert back * 4096 + vaddr % 4096 == vaddr


@pytest.mark.book("3.0", "3.1")
@SHAPES
def test_a_shape_covers_4_gib_with_tables_of_a_page_or_less(shape: PageTableShape) -> None:
    pages = shape.ptrs_per_pgd * shape.ptrs_per_pmd * shape.ptrs_per_pte
    assert pages << 12 == 1 << 32
    for entries in (shape.ptrs_per_pgd, shape.ptrs_per_pmd, shape.ptrs_per_pte):
        assert entries * shape.entry_bytes <= 4096
    assert shape.pgdir_size * shape.ptrs_per_pgd == 1 << 32
    assert shape.pmd_size * shape.ptrs_per_pmd == shape.pgdir_size
    assert shape.user_ptrs_per_pgd * shape.pgdir_size == 0xC0000000
    assert shape.folded == (shape.ptrs_per_pmd == 1)


@SHAPES
@given(
    one=st.integers(0, (1 << 20) - 1).map(lambda page: page << 12),
    other=st.integers(0, (1 << 20) - 1).map(lambda page: page << 12),
)
def test_no_two_pages_share_all_indices(shape: PageTableShape, one: int, other: int) -> None:
    def path(vaddr: int) -> tuple[int, int, int]:
        return shape.pgd_index(vaddr), shape.pmd_index(vaddr), shape.pte_index(vaddr)

    assert (path(one) == path(other)) == (one == other)
