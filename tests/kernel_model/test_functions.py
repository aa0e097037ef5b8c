# SPDX-License-Identifier: GPL-2.0-or-later
"""Functions that RAM points to: each has one address, and an address calls its function."""

import pytest

from kernel_model.errors import KernelBug
from kernel_model.functions import KernelFunctions
from kernel_model.structs.statics import STATICS


class Counter:
    def __init__(self) -> None:
        self.calls: list[int] = []

    def call(self, argument: int) -> int:
        self.calls.append(argument)
        return argument * 2


def nothing(argument: int) -> None:
    """A function of no value."""


def test_a_function_has_one_address_in_the_kernels_text() -> None:
    functions, one, other = KernelFunctions(), Counter(), Counter()
    addresses = [functions.address(f) for f in (one.call, other.call, nothing, one.call)]
    assert addresses[0] == addresses[3]
    assert len(set(addresses)) == 3
    assert all(0xC0106000 < vaddr < 0xC0000000 + STATICS for vaddr in addresses)


def test_an_address_calls_its_function() -> None:
    functions, counter = KernelFunctions(), Counter()
    functions.address(nothing)
    assert functions.call(functions.address(counter.call), 21) == 42
    assert counter.calls == [21]
    assert functions.call(functions.address(nothing), 1) == 0


def test_no_function_is_null_and_a_wild_address_is_an_oops() -> None:
    functions = KernelFunctions()
    assert functions.address(None) == 0
    with pytest.raises(KernelBug, match="0xc0370000"):
        functions.call(0xC0370000, 0)
