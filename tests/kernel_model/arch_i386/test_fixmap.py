# SPDX-License-Identifier: GPL-2.0-or-later
"""The top of the address space: no two regions meet, in any build."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel_model.arch_i386.fixmap import (
    FIXADDR_TOP,
    PKMAP_BASE,
    fixed_addresses,
    last_pkmap,
    vmalloc_end,
    vmalloc_start,
)
from kernel_model.config import MIB, Highmem, KernelConfig
from kernel_model.kernel import boot

BUILDS = [
    KernelConfig(highmem=highmem, nr_cpus=cpus, apic=apic, f00f_bug=f00f)
    for highmem, cpus, apic, f00f in itertools.product(
        Highmem, (1, 2, 32), (False, True), (False, True)
    )
]


@pytest.mark.book("3.6.2", "4.1")
@pytest.mark.parametrize("config", BUILDS)
def test_regions_lie_in_order_and_apart(config: KernelConfig) -> None:
    fixed = fixed_addresses(config)
    highmem = config.highmem is not Highmem.NONE
    pkmap = (PKMAP_BASE, PKMAP_BASE + last_pkmap(config.pae) * 4096) if highmem else ()
    edges = [vmalloc_end(config), *pkmap, fixed.start, FIXADDR_TOP]
    assert edges == sorted(edges)
    assert all(edge % 4096 == 0 for edge in edges)
    below = pkmap[0] if highmem else fixed.start
    assert below - vmalloc_end(config) == 2 * 4096
    # The 16 slots for ioremap() during boot lie below that, where vmalloc() may map later on.
    assert fixed.start - fixed.lowest == 15 * 4096


@pytest.mark.book("3.6.2")
@pytest.mark.parametrize("config", BUILDS)
def test_each_slot_that_the_build_has_follows_the_one_before(config: KernelConfig) -> None:
    """A slot for the local APIC, 8 for IO APICs, one for the F00F bug, 8 of kmap for each CPU."""
    expected: list[tuple[str, int]] = []
    if config.apic or config.smp:
        expected += [("FIX_APIC_BASE", 1), ("FIX_IO_APIC_BASE_0", 8)]
    if config.f00f_bug:
        expected += [("FIX_F00F_IDT", 1)]
    if config.highmem is not Highmem.NONE:
        expected += [("FIX_KMAP_BEGIN", 8 * config.nr_cpus)]
    expected += [("FIX_BTMAP_END", 15), ("FIX_BTMAP_BEGIN", 1)]
    fixed, position = fixed_addresses(config), 0
    assert list(fixed.slots) == [name for name, _ in expected]
    for name, count in expected:
        assert fixed.slots[name] == position
        assert fixed.to_virt(position) == 0xFFFFE000 - 4096 * position
        position += count
    assert fixed.end == position
    assert fixed.end_of_permanent == position - 16


@pytest.mark.book("3.6.2")
@pytest.mark.parametrize("config", BUILDS)
def test_a_kmap_window_is_one_page_table(config: KernelConfig) -> None:
    large = 2 * MIB if config.pae else 4 * MIB
    assert last_pkmap(config.pae) * 4096 == large
    assert PKMAP_BASE % large == 0


@pytest.mark.book("4.1")
@given(frames=st.integers(5 << 8, 896 << 8))
def test_vmalloc_begins_8_to_16_mib_above_the_direct_map(frames: int) -> None:
    high_memory = 0xC0000000 + (frames << 12)
    start = vmalloc_start(high_memory)
    assert start % (8 * MIB) == 0
    assert 8 * MIB <= start - high_memory < 16 * MIB


def test_the_largest_low_memory_still_leaves_room_for_vmalloc() -> None:
    for highmem in Highmem:
        kernel = boot(KernelConfig(ram=1024 * MIB, highmem=highmem))
        start, end = kernel.vmalloc_range
        assert start == 0xF8800000
        assert end - start > 80 * MIB
