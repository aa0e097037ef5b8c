# SPDX-License-Identifier: GPL-2.0-or-later
"""Page tables of real i386 Linux kernels with what QEMU saw in them, as the tests use them.

``tests/data/linux-images/README.md`` gives the format. Only the frames that hold page tables are
recorded; the rest of each machine's RAM is zero here.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from harness.architecture import ControlRegisters
from harness.image import Expectation
from kernel_model.ram import PAGE_SIZE, Ram

DATA = Path(__file__).resolve().parent / "data" / "linux-images"
NAMES = tuple(sorted(path.stem for path in DATA.glob("*.npz")))


@dataclass(frozen=True)
class AddressSpace:
    """One page directory of an image, and every translation QEMU found under it.

    ``leaf`` has the flag bits of the leaf entry of each row (bit 15: no-execute).
    """

    registers: ControlRegisters
    expectation: Expectation
    leaf: npt.NDArray[np.uint16]

    def write_expectation(self, path: Path) -> None:
        """Write what ``--expect`` reads."""
        known = self.expectation
        np.savez(
            path,
            va=known.va,
            pa=known.pa,
            size=known.size,
            rights=known.rights,
            absent=known.absent,
        )


@dataclass(frozen=True)
class LinuxImage:
    """One stopped machine; ``address_spaces`` begin with the one that was running."""

    name: str
    mode: str
    ranges: tuple[tuple[int, int], ...]
    frames: tuple[tuple[int, bytes], ...]
    address_spaces: tuple[AddressSpace, ...]

    def new_ram(self) -> Ram:
        """The machine's RAM, a fresh one for each caller to change as it likes."""
        ram = Ram(max(end for _, end in self.ranges), self.ranges)
        for paddr, content in self.frames:
            ram.write(paddr, content)
        return ram

    def write_raw(self, path: Path) -> None:
        """Write a raw physical memory dump, sparse where nothing was recorded."""
        with path.open("wb") as stream:
            for paddr, content in self.frames:
                stream.seek(paddr)
                stream.write(content)
            stream.truncate(max(end for _, end in self.ranges))


@cache
def linux_image(name: str) -> LinuxImage:
    """The image ``name``, one of :data:`NAMES`."""
    facts = json.loads((DATA / f"{name}.json").read_text())
    with np.load(DATA / f"{name}.npz", allow_pickle=False) as arrays:
        frames = zip(arrays["pfn"], arrays["data"], strict=True)
        return LinuxImage(
            name=name,
            mode=facts["mode"],
            ranges=tuple((start, end) for start, end in facts["phys_ranges"]),
            frames=tuple((int(pfn) * PAGE_SIZE, content.tobytes()) for pfn, content in frames),
            address_spaces=tuple(_address_space(facts, cr3, arrays) for cr3 in facts["cr3s"]),
        )


def linux_address_spaces() -> Iterator[tuple[LinuxImage, AddressSpace]]:
    """Every recorded page directory of every image."""
    for name in NAMES:
        image = linux_image(name)
        for space in image.address_spaces:
            yield image, space


def _address_space(facts: dict[str, int], cr3: int, arrays: np.lib.npyio.NpzFile) -> AddressSpace:
    columns = {
        column: arrays[f"{column}_{cr3:08x}"]
        for column in ("va", "pa", "size", "rights", "absent", "leaf")
    }
    leaf = columns.pop("leaf")
    order = np.argsort(columns["va"], kind="stable")
    rows = {name: columns[name][order] for name in ("va", "pa", "size", "rights")}
    return AddressSpace(
        ControlRegisters(cr0=facts["cr0"], cr3=cr3, cr4=facts["cr4"], efer=facts["efer"]),
        Expectation(**rows, absent=np.sort(columns["absent"])),
        leaf[order],
    )
