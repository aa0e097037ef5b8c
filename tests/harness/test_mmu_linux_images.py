# SPDX-License-Identifier: GPL-2.0-or-later
"""The reference walk over page tables of real kernels, against what QEMU saw in them."""

import numpy as np
import numpy.typing as npt
import pytest

from harness.architecture import PTE_A, PTE_P, PTE_RW, PTE_US, Access, Ring
from harness.mappings import COMPARED_RIGHTS, RIGHT_NX, Mappings
from harness.mmu_spec import Walk, check_pdptes, walk
from harness.mmu_sweep import sweep
from kernel_model.ram import Ram
from tests.linux_images import NAMES, AddressSpace, linux_address_spaces, linux_image

LEAF_FLAGS = 0x1FE | RIGHT_NX
"""Every flag but P, which no recorded row could lack."""

SPACES = [
    pytest.param(image.name, index, id=f"{image.name}-{space.registers.cr3:#x}")
    for image, index, space in (
        (image, image.address_spaces.index(space), space) for image, space in linux_address_spaces()
    )
]


@pytest.fixture(scope="module", params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def rams() -> dict[str, Ram]:
    return {name: linux_image(name).new_ram() for name in NAMES}


def swept(ram: Ram, space: AddressSpace) -> Mappings:
    words = np.frombuffer(ram.buffer, np.uint32)
    return sweep(words, space.registers, ranges=ram.ranges)


def recorded_rows(space: AddressSpace) -> npt.NDArray[np.int64]:
    """va, pa, size, rights and leaf flags as QEMU gave them, a row a mapping."""
    known = space.expectation
    columns = (known.va, known.pa, known.size, known.rights, space.leaf & LEAF_FLAGS)
    return np.stack([column.astype(np.int64) for column in columns], axis=1)


def swept_rows(found: Mappings) -> npt.NDArray[np.int64]:
    rights, leaf = found.rights & COMPARED_RIGHTS, found.leaf & LEAF_FLAGS
    columns = (found.va, found.pa, found.size, rights, leaf)
    return np.stack([column.astype(np.int64) for column in columns], axis=1)


def differing_pages(ram: Ram, space: AddressSpace) -> set[int]:
    """Addresses of the rows that one side has and the other has not."""
    both = [{tuple(row) for row in rows.tolist()} for rows in _rows(ram, space)]
    return {row[0] for row in both[0] ^ both[1]}


def _rows(ram: Ram, space: AddressSpace) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    return swept_rows(swept(ram, space)), recorded_rows(space)


@pytest.mark.book("3.6.2")
@pytest.mark.parametrize(("image", "index"), SPACES)
def test_every_mapping_is_the_recorded_one(image: str, index: int, rams: dict[str, Ram]) -> None:
    space = linux_image(image).address_spaces[index]
    found = swept(rams[image], space)
    np.testing.assert_array_equal(swept_rows(found), recorded_rows(space))
    assert list(found.malformed) == []
    pages = found.pages()
    absent = space.expectation.absent >> 12
    assert len(absent) > 100
    assert (pages.pfn[absent] == -1).all()
    assert np.count_nonzero(pages.rights) == int(space.expectation.size.sum(dtype=np.int64) >> 12)


@pytest.mark.parametrize(("image", "index"), SPACES)
def test_the_scalar_walk_agrees(image: str, index: int, rams: dict[str, Ram]) -> None:
    """A seventh of the rows, another one in each address space, and absent addresses."""
    space = linux_image(image).address_spaces[index]
    ram = rams[image]

    def ask(va: int) -> Walk:
        return walk(ram, space.registers, va, Access.READ, Ring.KERNEL)

    for va, pa, size, rights, leaf in recorded_rows(space)[index % 7 :: 7].tolist():
        found = ask(va + size - 1)
        assert (found.paddr, found.page_size) == (pa + size - 1, size)
        assert (found.writable, found.user) == (bool(rights & PTE_RW), bool(rights & PTE_US))
        assert found.executable == (not rights & RIGHT_NX)
        assert found.steps[-1].entry & 0x1FE == leaf & 0x1FE
    for va in space.expectation.absent[::7].tolist():
        assert ask(va).error_code == 0


def test_pdptes_that_qemu_marked_are_reported(rams: dict[str, Ram]) -> None:
    """QEMU sets the accessed bit, which a PDPTE reserves; the walks above tolerated it."""
    (pae,) = (linux_image(name) for name in NAMES if linux_image(name).mode == "PAE")
    running = pae.address_spaces[0]
    refused = check_pdptes(rams[pae.name], running.registers)
    assert refused
    assert {pdpte.reserved for pdpte in refused} == {PTE_A}


# Planted changes: each is found, at its address and nowhere else.


def _leaf_steps(ram: Ram, space: AddressSpace) -> tuple[Walk, Walk]:
    """The walks of the last 4 KiB page and of the last large page."""
    known = space.expectation
    small, large = (
        int(known.va[np.flatnonzero(known.size == size)[-1]])
        for size in (4096, int(known.size.max()))
    )
    return walk(ram, space.registers, small), walk(ram, space.registers, large)


FLIPS: dict[str, tuple[int, int]] = {
    # name: (0 for the 4 KiB page's entry or 1 for the large page's, the bits to flip)
    "small page lost": (0, PTE_P),
    "small page R/W": (0, PTE_RW),
    "small page U/S": (0, PTE_US),
    "small page PWT": (0, 1 << 3),
    "small page PCD": (0, 1 << 4),
    "small page A": (0, 1 << 5),
    "small page D": (0, 1 << 6),
    "small page G": (0, 1 << 8),
    "small page, next frame": (0, 1 << 12),
    "small page, far frame": (0, 1 << 31),
    "large page lost": (1, PTE_P),
    "large page R/W": (1, PTE_RW),
    "large page U/S": (1, PTE_US),
    "large page A": (1, 1 << 5),
    "large page D": (1, 1 << 6),
    "large page G": (1, 1 << 8),
    "large page PS": (1, 1 << 7),
    "large page, reserved bit": (1, 1 << 20),
    "large page, next frame": (1, 1 << 22),
    "large page, far frame": (1, 1 << 31),
}


@pytest.mark.parametrize("flip", FLIPS)
def test_a_changed_entry_is_found(flip: str, name: str, rams: dict[str, Ram]) -> None:
    ram, space = rams[name], linux_image(name).address_spaces[0]
    page, bits = FLIPS[flip]
    found = _leaf_steps(ram, space)[page]
    leaf = found.steps[-1]
    flipped = leaf.entry ^ bits
    assert differing_pages(ram, space) == set()
    ram.write(leaf.paddr, flipped.to_bytes(8, "little")[:4])
    try:
        assert found.va in differing_pages(ram, space)
        spared = {
            va for va in differing_pages(ram, space) if not 0 <= va - found.va < found.page_size
        }
        assert spared == set()
    finally:
        ram.write(leaf.paddr, leaf.entry.to_bytes(8, "little")[:4])
    assert differing_pages(ram, space) == set()
