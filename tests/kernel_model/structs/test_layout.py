# SPDX-License-Identifier: GPL-2.0-or-later
"""Structures as i386 lays them out: no holes, views that reach RAM, statics inside the image."""

import ctypes
import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel_model.config import Highmem, KernelConfig
from kernel_model.image import END, GUEST_TEXT, KernelImage
from kernel_model.ram import PAGE_SIZE, Ram
from kernel_model.structs import Abi, CType, Structs
from kernel_model.structs.declare import INT, UCHAR, ULONG, USHORT, array, pointer, struct
from kernel_model.structs.statics import STATICS

ABIS = [
    Abi(highmem=highmem, pae=pae, smp=smp, spinlock_bytes=4 if smp else spinlock)
    for highmem, pae, smp, spinlock in itertools.product(
        (False, True), (False, True), (False, True), (0, 4)
    )
    if highmem or not pae
]
EVERY_ABI = pytest.mark.parametrize("abi", ABIS)


def leaf_alignment(kind: CType) -> int:
    """What i386 aligns the type to: its own size up to 4 bytes; a structure as its members."""
    if kind.members:
        return max((leaf_alignment(member) for _, member in kind.members), default=1)
    element = kind.ctype._type_ if issubclass(kind.ctype, ctypes.Array) else kind.ctype
    return min(ctypes.sizeof(element), 4) or 1


@EVERY_ABI
def test_fields_follow_each_other_with_no_more_padding_than_c_needs(abi: Abi) -> None:
    """The oracle lays the members out again by the i386 rules, without ctypes."""
    for kind in Structs.of(abi).all():
        position = 0
        for name, member in kind.members:
            position = -(-position // leaf_alignment(member)) * leaf_alignment(member)
            assert kind.offset(name) == position, f"{kind.spelling}.{name}"
            position += member.size
        alignment = leaf_alignment(kind) if kind.members else 1
        assert kind.size == -(-position // alignment) * alignment, kind.spelling


@EVERY_ABI
def test_statics_lie_behind_the_guest_and_inside_the_image(abi: Abi) -> None:
    statics = Structs.of(abi).kernel_statics
    assert GUEST_TEXT < STATICS
    assert STATICS % PAGE_SIZE == 0
    assert STATICS + statics.size <= END
    assert statics.offset("mmu_cr4_features") == 0


@pytest.mark.book("2.5")
@pytest.mark.parametrize(("highmem", "size"), [(False, 44), (True, 48)])
def test_a_page_has_a_virtual_address_of_its_own_with_highmem_only(
    highmem: bool, size: int
) -> None:
    page = Structs.of(Abi(highmem=highmem)).page
    assert page.size == size
    assert ("virtual" in dict(page.members)) == highmem


@pytest.mark.parametrize(("spinlock", "smp", "size"), [(0, False, 0), (4, False, 4), (0, True, 4)])
def test_a_spinlock_is_empty_on_one_cpu_with_a_modern_compiler(
    spinlock: int, smp: bool, size: int
) -> None:
    config = KernelConfig(spinlock_bytes=spinlock, nr_cpus=2 if smp else 1)
    structs = Structs.of(Abi.of(config))
    assert structs.spinlock_t.size == size
    assert structs.zone_t.offset("free_pages") == size


def test_the_layouts_of_a_build_are_made_once() -> None:
    assert Structs.of(Abi()) is Structs.of(Abi())
    assert Structs.of(Abi()) is not Structs.of(Abi(highmem=True))
    for highmem in Highmem:
        abi = Abi.of(KernelConfig(highmem=highmem))
        assert (abi.highmem, abi.pae) == (highmem is not Highmem.NONE, highmem is Highmem.GB64)


@given(count=st.integers(-(1 << 31), (1 << 31) - 1), flags=st.integers(0, (1 << 32) - 1))
def test_a_view_reads_and_writes_ram(count: int, flags: int) -> None:
    ram, page = Ram(PAGE_SIZE), Structs.of(Abi()).page
    view = page.at(ram, 100)
    view.count, view.flags = count, flags
    assert ram.read32(100 + page.offset("flags")) == flags
    assert ram.read32(100 + page.offset("count")) == count & 0xFFFFFFFF
    ram.write32(100 + page.offset("index"), 77)
    assert view.index == 77
    assert not any(ram.read(0, 100))
    assert not any(ram.read(100 + page.size, 100))


def test_nested_structures_and_arrays_are_views_too() -> None:
    kernel = KernelImage(KernelConfig(highmem=Highmem.GB4))
    pg_data, zone_t = kernel.structs.pg_data_t, kernel.structs.zone_t
    kernel.statics.contig_page_data.node_zones[2].free_area[9].free_list.prev = 0xC0DEC0DE
    paddr = (
        STATICS
        + kernel.structs.kernel_statics.offset("contig_page_data")
        + pg_data.offset("node_zones")
        + 2 * zone_t.size
        + zone_t.offset("free_area")
        + 9 * 12
        + 4
    )
    assert kernel.ram.read32(paddr) == 0xC0DEC0DE
    assert kernel.symbol("contig_page_data") == 0xC0000000 + STATICS + (
        kernel.structs.kernel_statics.offset("contig_page_data")
    )


def test_a_structure_at_the_end_of_ram_is_refused() -> None:
    page = Structs.of(Abi()).page
    with pytest.raises(ValueError, match="Buffer size too small"):
        page.at(Ram(PAGE_SIZE), PAGE_SIZE - page.size + 4)


def test_small_types_are_aligned_to_themselves_and_large_ones_to_4() -> None:
    odd = struct(
        "struct odd",
        [("a", UCHAR), ("b", USHORT), ("c", UCHAR), ("d", INT), ("e", array(UCHAR, 3))],
    )
    assert [odd.offset(name) for name in "abcde"] == [0, 2, 4, 8, 12]
    assert odd.size == 16
    assert odd.word("d") == 2


@pytest.mark.parametrize(
    ("kind", "declaration"),
    [
        (ULONG, "unsigned long x"),
        (pointer("struct page"), "struct page *x"),
        (pointer("struct page *"), "struct page **x"),
        (array(ULONG, 4), "unsigned long x[4]"),
        (array(pointer("zone_t"), 4), "zone_t *x[4]"),
    ],
)
def test_a_declaration_is_spelled_as_in_c(kind: CType, declaration: str) -> None:
    assert kind.declaration("x").replace("* *", "**") == declaration
