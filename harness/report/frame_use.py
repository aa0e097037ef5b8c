# SPDX-License-Identifier: GPL-2.0-or-later
"""What each frame of a machine is used for: free lists, ``page->flags``, and the frame ledger.

The free lists and flags stand in RAM (:func:`kernel_model.proc.pagetypeinfo.frame_kinds`); the
ledger (:mod:`harness.monitors.frames`) knows for what a frame was taken. Of reserved frames, their
place tells: the kernel's image, ``mem_map``, other memory of the boot, or no RAM at all.
Nothing here can fail.
"""

from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from kernel_model.arch_i386.page import PAGE_SHIFT, PAGE_SIZE, virt_to_phys
from kernel_model.image import END, TEXT
from kernel_model.proc.pagetypeinfo import KINDS, frame_kinds
from kernel_model.proc.zones import node_zones

if TYPE_CHECKING:
    from harness.machine import Machine

Uses = npt.NDArray[np.uint8]

USES: Final[dict[str, str]] = {
    "free": "panel",
    "no RAM": "line",
    "kernel image": "ink",
    "mem_map": "muted",
    "boot memory": "grey",
    "slab": "orange",
    "page tables": "red",
    "page cache": "sky",
    "user pages": "blue",
    "vmalloc": "purple",
    "other kernel": "green",
}
"""Each use with its colour in the palette."""
_NAMES: Final = tuple(USES)
_OWNERS: Final = {
    "user page": "user pages",
    "argument page": "user pages",
    "page cache": "page cache",
    "page table": "page tables",
    "page directory": "page tables",
    "page middle directory": "page tables",
    "vmalloc": "vmalloc",
    "slab": "slab",
}
"""What the ledger writes down -> a use; anything else is the kernel's."""
_BY_KIND: Final = {
    "free": "free",
    "reserved": "boot memory",
    "slab": "slab",
    "active": "page cache",
    "inactive": "page cache",
    "other": "other kernel",
}


def frame_use(machine: "Machine") -> Uses:
    """For each frame, from 0 to the end of RAM, the index of its use in :data:`USES`."""
    kernel = machine.kernel
    uses = np.full(kernel.ram.frames, _NAMES.index("no RAM"), np.uint8)
    by_kind = np.array([_NAMES.index(_BY_KIND[kind]) for kind in KINDS], np.uint8)
    reserved = np.zeros(len(uses), np.bool_)
    for place in node_zones(kernel):
        kinds = frame_kinds(kernel, place.zone)
        span = slice(place.zone.start_pfn, place.zone.start_pfn + place.zone.size)
        uses[span] = by_kind[kinds]
        reserved[span] = kinds == KINDS.index("reserved")
    _name_reserved(machine, uses, reserved)
    _ask_ledger(machine, uses)
    return uses


def _name_reserved(machine: "Machine", uses: Uses, reserved: npt.NDArray[np.bool_]) -> None:
    kernel = machine.kernel
    page_bytes = kernel.allocator.memmap.page_bytes
    spans = [("kernel image", TEXT, END)]
    for place in node_zones(kernel):
        start = virt_to_phys(int(place.zone.view.zone_mem_map))
        spans.append(("mem_map", start, start + place.zone.size * page_bytes))
    for name, start, end in spans:
        frames = slice(start >> PAGE_SHIFT, -(-end // PAGE_SIZE))
        uses[frames][reserved[frames]] = _NAMES.index(name)
    present = np.zeros(len(uses), np.bool_)
    for start, end in kernel.ram.ranges:
        present[start >> PAGE_SHIFT : end >> PAGE_SHIFT] = True
    uses[reserved & ~present] = _NAMES.index("no RAM")


def _ask_ledger(machine: "Machine", uses: Uses) -> None:
    asked = [_NAMES.index(name) for name in ("slab", "page cache", "other kernel")]
    for pfn in np.flatnonzero(np.isin(uses, asked)).tolist():
        owner = machine.ledger.owner(pfn)
        if owner is not None:
            uses[pfn] = _NAMES.index(_OWNERS.get(owner, "other kernel"))


def shares(uses: Uses, cells: int, frames_per_cell: int) -> npt.NDArray[np.int64]:
    """Frames by cell and use: the frames cut into ``cells`` runs of ``frames_per_cell``."""
    cell = np.arange(len(uses)) // frames_per_cell
    key = cell * len(USES) + uses
    counted = np.bincount(key, minlength=cells * len(USES))
    return counted.reshape(cells, len(USES)).astype(np.int64)
