# SPDX-License-Identifier: GPL-2.0-or-later
"""Tests the tables of ``kernel.c``: in RAM as the manual reads them, and as the CPU does.

    python -m ziglang cc -target x86-freestanding-none -nostdlib -static -O2 \\
        -Wl,--image-base=0x100000 kernel.c -o kernel.elf
    pytest
"""

from pathlib import Path

import pytest

from harness.bare_machine import BareMachine
from harness.expectation import Maps

MIB = 1 << 20
USER_PAGE = 0x08048000
OWN = [
    Maps(0x00001000, 0x1000, 4 * MIB - 4096, write=True),
    Maps(0xC0001000, 0x1000, 4 * MIB - 4096, write=True),
]


@pytest.fixture
def kernel(bare_machine) -> BareMachine:
    return bare_machine(Path(__file__).with_name("kernel.elf")).run()


def test_it_maps_itself_and_one_page_for_programs(kernel, diff):
    diff(kernel, expect=[*OWN, Maps(USER_PAGE, 0x200000, user=True)])


def test_a_page_that_is_taken_away_is_gone(kernel, diff):
    kernel.run()
    diff(kernel, expect=OWN, absent=[USER_PAGE])
