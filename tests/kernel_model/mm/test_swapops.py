# SPDX-License-Identifier: GPL-2.0-or-later
"""What a PTE holds of a page that is not there: every number comes back, and looks absent."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel_model.arch_i386.pgtable import pte_present
from kernel_model.mm.swapops import FilePtes, SwapPtes, ThreeLevelPtes, TwoLevelPtes

BOTH = pytest.mark.parametrize("ptes", [TwoLevelPtes(), ThreeLevelPtes()], ids=["two", "pae"])


@BOTH
@pytest.mark.book("4.6")
@given(area=st.integers(0, 31), offset=st.integers(1, (1 << 24) - 1))
def test_a_slot_comes_back_from_its_pte(ptes: FilePtes, area: int, offset: int) -> None:
    entry = ptes.swp_entry(area, offset)
    assert (ptes.swp_type(entry), ptes.swp_offset(entry)) == (area, offset)
    pte = ptes.swp_entry_to_pte(entry)
    assert pte
    assert not pte_present(pte)
    assert not ptes.pte_file(pte)
    assert ptes.pte_to_swp_entry(pte) == entry < 1 << 32


@BOTH
@pytest.mark.book("4.8")
@given(data=st.data())
def test_a_page_number_of_a_file_comes_back_from_its_pte(
    ptes: FilePtes, data: st.DataObject
) -> None:
    pgoff = data.draw(st.integers(0, (1 << ptes.file_bits) - 1))
    pte = ptes.pgoff_to_pte(pgoff)
    assert ptes.pte_file(pte)
    assert not pte_present(pte)
    assert ptes.pte_to_pgoff(pte) == pgoff


def test_what_2_4_and_2_6_write_for_the_same_slot() -> None:
    """Two levels: the PTE is the same, the entry is not (2.4's is the PTE itself)."""
    old, new = SwapPtes(), TwoLevelPtes()
    assert old.swp_entry(1, 5) == old.swp_entry_to_pte(old.swp_entry(1, 5)) == 0x502
    assert new.swp_entry(1, 5) == 1 << 27 | 5
    assert new.swp_entry_to_pte(new.swp_entry(1, 5)) == 0x502
