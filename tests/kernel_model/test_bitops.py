# SPDX-License-Identifier: GPL-2.0-or-later
"""Bits in RAM against a plain list of booleans."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel_model.bitops import Bitmap, lowest_set
from kernel_model.ram import PAGE_SIZE, Ram

LENGTH = 203
"""Neither a multiple of 8 nor of 32, so that the last byte is shared with what follows."""


def bits_of(ram: Ram, paddr: int, length: int) -> list[bool]:
    return [bool(ram.read8(paddr + i // 8) >> i % 8 & 1) for i in range(length)]


@given(
    start=st.binary(min_size=64, max_size=64),
    steps=st.lists(
        st.tuples(st.integers(0, LENGTH), st.integers(0, LENGTH), st.integers(-1, 1 << LENGTH)),
        max_size=8,
    ),
)
def test_ranges_read_and_write_as_single_bits_would(
    start: bytes, steps: list[tuple[int, int, int]]
) -> None:
    ram = Ram(PAGE_SIZE)
    ram.write(0, start)
    bitmap, oracle = Bitmap(ram, 16, LENGTH), bits_of(ram, 16, LENGTH)
    for one, other, value in steps:
        first, end = sorted((one, other))
        bitmap.write(first, end, value)
        for index in range(first, end):
            oracle[index] = bool(value >> (index - first) & 1)
        assert bitmap.read(first, end) == value & ((1 << (end - first)) - 1)
    assert bits_of(ram, 16, LENGTH) == oracle
    assert [bitmap.test(i) for i in range(LENGTH)] == oracle
    assert bitmap.value() == sum(bit << i for i, bit in enumerate(oracle))
    neighbours = bits_of(ram, 0, 128) + bits_of(ram, 16 + LENGTH // 8, 64)[LENGTH % 8 :]
    fresh = Ram(PAGE_SIZE)
    fresh.write(0, start)
    assert neighbours == bits_of(fresh, 0, 128) + bits_of(fresh, 41, 64)[LENGTH % 8 :]


@given(st.binary(min_size=26, max_size=26), st.integers(0, LENGTH - 1))
def test_toggle_flips_one_bit_and_tells_what_it_was(start: bytes, index: int) -> None:
    ram = Ram(PAGE_SIZE)
    ram.write(0, start)
    bitmap, before = Bitmap(ram, 0, LENGTH), bits_of(ram, 0, 208)
    assert bitmap.toggle(index) == before[index]
    after = bits_of(ram, 0, 208)
    assert [i for i in range(208) if before[i] != after[i]] == [index]


@pytest.mark.parametrize(("value", "index"), [(0, -1), (1, 0), (6, 1), (1 << 9999, 9999)])
def test_lowest_set(value: int, index: int) -> None:
    assert lowest_set(value) == index
