# SPDX-License-Identifier: GPL-2.0-or-later
"""Lists in RAM: what comes off is clean, and a broken list does not hold us for ever."""

import pytest

from kernel_model.errors import EndlessLoop
from kernel_model.lists import Lists
from kernel_model.ram import Ram

HEAD = 0xC0000100
ENTRIES = [0xC0000200, 0xC0000300, 0xC0000400]


@pytest.fixture
def ram() -> Ram:
    return Ram(1 << 20)


@pytest.fixture
def lists(ram: Ram) -> Lists:
    lists = Lists(ram)
    lists.init(HEAD)
    for entry in ENTRIES:
        lists.add_tail(entry, HEAD)
    return lists


def test_entries_in_order(lists: Lists) -> None:
    assert list(lists.entries(HEAD)) == ENTRIES
    lists.delete(ENTRIES[1])
    assert list(lists.entries(HEAD)) == [ENTRIES[0], ENTRIES[2]]
    assert lists.first(ENTRIES[1]) == lists.last(ENTRIES[1]) == 0


def test_a_list_whose_link_turns_back_never_ends(ram: Ram, lists: Lists) -> None:
    ram.write32(ENTRIES[2] - 0xC0000000, ENTRIES[0])
    with pytest.raises(EndlessLoop, match=r"the list at 0xc0000100 never comes back"):
        list(lists.entries(HEAD))


def test_a_link_out_of_ram_is_an_index_error(ram: Ram, lists: Lists) -> None:
    ram.write32(ENTRIES[2] - 0xC0000000, 0xF0000000)
    with pytest.raises(IndexError):
        list(lists.entries(HEAD))
