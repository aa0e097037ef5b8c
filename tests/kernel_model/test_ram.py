# SPDX-License-Identifier: GPL-2.0-or-later
"""RAM: bounds, holes, byte order, and that its three ways in show the same bytes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel_model.errors import BadConfig, BadPhysicalAddress
from kernel_model.ram import MAX_RAM, PAGE_SIZE, Ram

HOLED = ((0, 2 * PAGE_SIZE), (4 * PAGE_SIZE, 5 * PAGE_SIZE), (5 * PAGE_SIZE, 8 * PAGE_SIZE))
"""RAM, a hole of two pages, then two ranges that meet."""


def in_ram(paddr: int, length: int) -> bool:
    """The oracle: every single byte lies in some range."""
    touched = range(paddr, paddr + max(length, 1))
    return all(any(start <= byte < end for start, end in HOLED) for byte in touched)


@pytest.mark.parametrize("size", [-PAGE_SIZE, 0, 1, PAGE_SIZE - 1, PAGE_SIZE + 4, MAX_RAM + 4096])
def test_a_size_that_no_memory_has_is_refused(size: int) -> None:
    with pytest.raises(BadConfig, match=f"RAM of {size} bytes"):
        Ram(size)


@pytest.mark.parametrize(
    "ranges",
    [
        ((4096, 8192), (0, 4096)),
        ((0, 8192), (4096, 12288)),
        ((0, 4096), (0, 4096)),
        ((0, 0),),
        ((8192, 4096),),
        ((0, 100),),
        ((2048, 8192),),
        ((-4096, 4096),),
        ((0, 20480),),
    ],
    ids=[
        "unsorted",
        "overlapping",
        "twice",
        "empty",
        "backwards",
        "end",
        "start",
        "negative",
        "beyond",
    ],
)
def test_ranges_that_are_no_map_are_refused(ranges: tuple[tuple[int, int], ...]) -> None:
    with pytest.raises(BadConfig, match="sorted, disjoint, page-aligned"):
        Ram(16384, ranges)


@given(
    paddr=st.integers(-8, 8 * PAGE_SIZE + 8)
    | st.sampled_from([edge + d for pair in HOLED for edge in pair for d in range(-9, 3)]),
    length=st.sampled_from([1, 4, 8, 100, PAGE_SIZE, 3 * PAGE_SIZE]),
)
def test_an_access_is_let_in_exactly_when_all_its_bytes_are_ram(paddr: int, length: int) -> None:
    ram = Ram(8 * PAGE_SIZE, HOLED)
    if in_ram(paddr, length):
        assert ram.read(paddr, length) == bytes(length)
        return
    with pytest.raises(BadPhysicalAddress) as caught:
        ram.read(paddr, length)
    assert (caught.value.paddr, caught.value.length) == (paddr, length)


@pytest.mark.parametrize(
    "access",
    [
        lambda ram, at: ram.read8(at),
        lambda ram, at: ram.write8(at, 1),
        lambda ram, at: ram.read32(at - 3),
        lambda ram, at: ram.write32(at - 3, 1),
        lambda ram, at: ram.read64(at - 7),
        lambda ram, at: ram.write64(at - 7, 1),
        lambda ram, at: ram.read(at - 9, 10),
        lambda ram, at: ram.write(at - 1, b"ab"),
        lambda ram, at: ram.fill(at - 1, 2, 0xFF),
        lambda ram, at: ram.copy(at - 1, 0, 2),
        lambda ram, at: ram.copy(0, at - 1, 2),
        lambda ram, at: ram.table(at - 4, 2),
    ],
)
@pytest.mark.parametrize(
    ("at", "why"), [(2 * PAGE_SIZE, "in a hole of the e820 map"), (8 * PAGE_SIZE, "outside RAM")]
)
def test_every_way_in_checks_its_last_byte_and_changes_nothing(access, at: int, why: str) -> None:
    ram = Ram(8 * PAGE_SIZE, HOLED)
    with pytest.raises(IndexError, match=why):
        access(ram, at)
    assert not any(ram.buffer[:])


@given(st.data())
def test_bytes_words_and_tables_show_the_same_memory(data: st.DataObject) -> None:
    ram, oracle = Ram(2 * PAGE_SIZE), bytearray(2 * PAGE_SIZE)
    for _ in range(12):
        width = data.draw(st.sampled_from([1, 4, 8]))
        paddr = data.draw(st.integers(0, 2 * PAGE_SIZE - width))
        value = data.draw(st.integers(0, (1 << 8 * width) - 1))
        {1: ram.write8, 4: ram.write32, 8: ram.write64}[width](paddr, value)
        oracle[paddr : paddr + width] = value.to_bytes(width, "little")
        reread = {1: ram.read8, 4: ram.read32, 8: ram.read64}[width](paddr)
        assert reread == value
    assert ram.read(0, 2 * PAGE_SIZE) == oracle
    words = np.frombuffer(oracle, "<u4")
    assert ram.table(0, 2048).tolist() == words.tolist() == ram.words.tolist()
    assert ram.table(PAGE_SIZE, 512, np.uint64).tolist() == ram.quads.tolist()[512:]


def test_a_table_is_a_view_and_not_a_copy() -> None:
    ram = Ram(PAGE_SIZE)
    table = ram.table(0)
    table[3] = 0xDEADBEEF
    assert ram.read32(12) == 0xDEADBEEF
    ram.write32(16, 7)
    assert table[4] == 7


@pytest.mark.parametrize("value", [-1, 1 << 32])
def test_a_value_that_does_not_fit_is_an_error_and_not_cut(value: int) -> None:
    with pytest.raises(OverflowError):
        Ram(PAGE_SIZE).write32(0, value)


@given(start=st.integers(0, PAGE_SIZE), length=st.integers(0, PAGE_SIZE), value=st.integers(0, 255))
def test_fill_sets_its_bytes_and_no_others(start: int, length: int, value: int) -> None:
    ram = Ram(3 * PAGE_SIZE)
    ram.write(0, b"\x5a" * (3 * PAGE_SIZE))
    ram.fill(start, length, value)
    rest = 3 * PAGE_SIZE - start - length
    assert ram.read(0, 3 * PAGE_SIZE) == b"\x5a" * start + bytes([value]) * length + b"\x5a" * rest


@given(
    to=st.integers(0, PAGE_SIZE), source=st.integers(0, PAGE_SIZE), length=st.integers(0, PAGE_SIZE)
)
def test_copy_moves_its_bytes_and_no_others(to: int, source: int, length: int) -> None:
    """The two may overlap."""
    ram = Ram(2 * PAGE_SIZE)
    oracle = bytearray(n * 7 & 0xFF for n in range(2 * PAGE_SIZE))
    ram.write(0, oracle)
    ram.copy(to, source, length)
    oracle[to : to + length] = oracle[source : source + length]
    assert ram.read(0, 2 * PAGE_SIZE) == oracle


def test_64_gib_cost_nothing_until_touched() -> None:
    def resident_kib() -> int:
        with open("/proc/self/statm") as statm:
            return int(statm.read().split()[1]) * 4

    before = resident_kib()
    ram = Ram(MAX_RAM)
    ram.write64(MAX_RAM - 8, 0x0123456789ABCDEF)
    assert ram.read8(MAX_RAM - 1) == 0x01
    assert ram.frames == 1 << 24
    assert resident_kib() - before < 4096
