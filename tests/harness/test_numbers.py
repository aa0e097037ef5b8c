# SPDX-License-Identifier: GPL-2.0-or-later
"""Numbers in C notation and sizes with units, and what is said about anything else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.numbers import MAX_U64, parse_number, parse_size
from kernel_model.errors import BadInput

SUFFIXES = ("", "u", "U", "l", "L", "ul", "UL", "lu", "LU", "ll", "LL", "ull", "ULL", "llu", "LLU")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0", 0),
        ("00", 0),
        ("4096", 4096),
        ("0x1000", 4096),
        ("0X1fF", 511),
        ("010", 8),
        ("0b101", 5),
        (" 7 ", 7),
        ("0xC0000000UL", 0xC0000000),
        ("0xffffffff", 0xFFFFFFFF),
    ],
)
def test_numbers(text: str, value: int) -> None:
    assert parse_number(text, "--cr3") == value


@given(st.integers(0, MAX_U64), st.sampled_from(SUFFIXES))
def test_every_notation_of_a_number_means_it(value: int, suffix: str) -> None:
    octal = f"0{value:o}"
    for text in (f"{value}{suffix}", f"{value:#x}{suffix}", f"{value:#b}{suffix}", octal + suffix):
        assert parse_number(text, "--efer", maximum=MAX_U64) == value


NO_NUMBERS = (
    *("", " ", "x", "-1", "+1", "1.5", "1e3", "1_000", "1 2", "64M"),
    *("0x", "0xg", "0o17", "0b2", "5lul", "5lL", "5uu"),
    *("\u0661", "9" * 5000, "1\n\x1b[31m"),
)


@pytest.mark.parametrize("text", NO_NUMBERS)
def test_anything_else_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(BadInput, match=r"--cr3 .*not a number") as caught:
        parse_number(text, "--cr3")
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


def test_a_decimal_that_looks_octal() -> None:
    with pytest.raises(BadInput, match="octal"):
        parse_number("0800", "VA")


def test_a_number_too_large() -> None:
    with pytest.raises(BadInput, match="at most 0xffffffff"):
        parse_number("0x100000000", "--cr0")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("64M", 64 << 20),
        ("64m", 64 << 20),
        ("1G", 1 << 30),
        ("4KiB", 4096),
        ("4 KB", 4096),
        ("2T", 2 << 40),
        ("0x10M", 16 << 20),
        ("0x4B", 75),
        ("16777216", 16 << 20),
        ("010k", 8192),
    ],
)
def test_sizes(text: str, value: int) -> None:
    assert parse_size(text, "--ram") == value


@pytest.mark.parametrize("text", ["", "M", "1.5G", "64Q", "64 i", "64iB", "64B", "-1M", "64MM"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(BadInput, match=r"--ram .*not a size"):
        parse_size(text, "--ram")


def test_a_size_too_large() -> None:
    with pytest.raises(BadInput, match="at most 4K"):
        parse_size("4097", "--ram", maximum=4096)
