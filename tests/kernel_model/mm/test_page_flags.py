# SPDX-License-Identifier: GPL-2.0-or-later
"""Each macro of the book's table 2.1 touches its own bit of ``page->flags`` and no other."""

import pytest

from kernel_model.config import KernelConfig
from kernel_model.kernel import boot
from kernel_model.mm.gfp import GFP_KERNEL
from kernel_model.mm.page_flags import MACROS, NAMES, PG_LOCKED, FlagOperation, flag_names

KERNEL = boot(KernelConfig(ram=16 << 20))
ALL = sum(1 << bit for bit in NAMES)


@pytest.mark.book("2.5")
@pytest.mark.parametrize("name", MACROS)
def test_a_macro_touches_its_bit_only(name: str) -> None:
    operation, bit = MACROS[name]
    memmap = KERNEL.allocator.memmap
    page = memmap.page(0)
    zone = memmap.flags(page) & ~ALL
    for before in (zone, zone | ALL, zone | 1 << bit, (zone | ALL) & ~(1 << bit)):
        memmap.set_flags(page, before)
        was = memmap.macro(name, page)
        after = memmap.flags(page)
        assert was == bool(before >> bit & 1)
        assert after & ~(1 << bit) == before & ~(1 << bit)
        if operation is FlagOperation.TEST:
            assert after == before
        else:
            sets = operation in (FlagOperation.SET, FlagOperation.TEST_AND_SET)
            assert bool(after >> bit & 1) == sets


def test_flags_are_told_by_name() -> None:
    assert flag_names(0) == "-"
    assert flag_names(1 << PG_LOCKED | 1 << 14) == "PG_locked|PG_reserved"


@pytest.mark.book("2.5", "6.3")
def test_references_are_counted_and_the_last_one_frees() -> None:
    allocator = KERNEL.allocator
    free = allocator.nr_free_pages()
    page = allocator.alloc_page(GFP_KERNEL)
    allocator.get_page(page)
    assert allocator.memmap.count(page) == 2
    allocator.put_page(page)
    assert allocator.nr_free_pages() == free - 1
    allocator.put_page(page)
    assert allocator.nr_free_pages() == free
