# SPDX-License-Identifier: GPL-2.0-or-later
"""Where the guest's probe works from: room for its table, and a window for ring 3.

The probe (``guest/include/probe.h``) needs a table that ring 0 reaches, and for ring 3 a text
page, a stack page and the same table at user addresses. Nothing of that exists in the page
tables under test, so it is put there for the time being: the table into frames at the top of
low memory, the window under a page-directory entry that is absent.

A place hides from the accesses its own frames, and every page that its window changes: the
window itself, and more where a table hangs in the tree twice. Two places that share neither
hide nothing: what one hides is tried from the other.

What can fail: :class:`NoPlace` says why the probe cannot run, for instance because the tables
under test do not map the guest itself.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import numpy.typing as npt

from harness.architecture import PTE_P, PTE_RW, PTE_US
from harness.mappings import I64, PAGE_SHIFT, PAGES, RIGHT_PRESENT, RIGHT_WRITE
from harness.readings.spec import SpecView
from harness.readings.stamps import FRAME_WORDS
from kernel_model.arch_i386.page import PAGE_OFFSET
from kernel_model.errors import MmucheckError
from kernel_model.ram import PAGE_SIZE, Ram

__all__ = ["PROBE", "NoPlace", "Place", "find_places", "frames_in_ram"]

PROBE: Final = np.dtype(
    [(name, "<u4") for name in ("va", "access", "value", "fault", "error_code", "cr2")]
)
"""``struct probe`` of ``guest/include/probe.h``."""
CHUNK_PAGES: Final = 4096
"""Pages tried in one run of the guest, each by a read, a write and a fetch."""
_TABLE_PAGES: Final = -(-3 * CHUNK_PAGES * PROBE.itemsize // PAGE_SIZE)
_KERNEL: Final = PAGE_OFFSET >> PAGE_SHIFT
_WINDOW_TEXT, _WINDOW_STACK, _WINDOW_TABLE = 0, 1, 2
"""Pages of the window: the probe's text, its stack, and from there on its table."""
_PLACES: Final = 2

Bools = npt.NDArray[np.bool_]


class NoPlace(MmucheckError):
    """The probe cannot run in this address space; the message says why."""


@dataclass(frozen=True, slots=True)
class Place:
    """``frames`` (PFNs in a row) hold the table first, then the stack, then page tables.

    ``table`` is the kernel virtual address of the first; ``window`` the first user address of
    the window.
    """

    table: int
    frames: I64
    window: int

    @property
    def user_text(self) -> int:
        return self.window + (_WINDOW_TEXT << PAGE_SHIFT)

    @property
    def user_stack_top(self) -> int:
        return self.window + (_WINDOW_STACK + 1 << PAGE_SHIFT)

    @property
    def user_table(self) -> int:
        return self.window + (_WINDOW_TABLE << PAGE_SHIFT)

    def entries(self, ram: Ram) -> npt.NDArray[np.void]:
        """The probe's table in RAM."""
        count = _TABLE_PAGES * PAGE_SIZE // PROBE.itemsize
        return np.frombuffer(ram.buffer, PROBE, count, int(self.frames[0]) << PAGE_SHIFT)

    def hides(self, spec: SpecView, pages: I64) -> Bools:
        """Which of ``pages`` cannot be tried from here. Asked while the place is occupied."""
        now = SpecView(spec.ram, spec.registers, spec.features).pages
        pfns, rights = spec.pages.pfn[pages], spec.pages.rights[pages]
        own = (pfns >= self.frames[0]) & (pfns <= self.frames[-1])
        return np.asarray(own | (now.pfn[pages] != pfns) | (now.rights[pages] != rights))

    @contextmanager
    def occupied(
        self, spec: SpecView, text_pfn: int, also_changed: I64, flush: Callable[[], None]
    ) -> Iterator[None]:
        """Put the window into the tables; afterwards all frames here are as they were.

        ``also_changed`` are PFNs of frames that the CPU changes meanwhile: page tables (whose
        A and D flags it sets) and the guest's own data.
        """
        rows = np.frombuffer(spec.ram.buffer, np.uint32).reshape(-1, FRAME_WORDS)
        changed = np.union1d(self.frames, also_changed)
        saved = rows[changed]
        try:
            self._map_window(spec, text_pfn)
            flush()
            yield
        finally:
            rows[changed] = saved
            flush()

    def _map_window(self, spec: SpecView, text_pfn: int) -> None:
        """Write the tables of the window, from the root down.

        A table on the way that exists is replaced by a copy: it may hang in several places, as
        the empty middle directory of a PAE kernel does.
        """
        ram, mode = spec.ram, spec.mode
        assert mode is not None
        read = ram.read32 if mode.entry_size == 4 else ram.read64
        write = ram.write32 if mode.entry_size == 4 else ram.write64
        fresh = iter(self.frames[_TABLE_PAGES + 1 :].tolist())
        table = spec.registers.cr3 & mode.root
        for level, _ in pairwise(mode.levels):
            paddr = table + level.index(self.window) * mode.entry_size
            entry = read(paddr)
            table = next(fresh) << PAGE_SHIFT
            if entry & PTE_P:
                ram.write(table, ram.read(level.plain.target(entry), PAGE_SIZE))
            else:
                ram.fill(table, PAGE_SIZE)
            flags = PTE_P | (PTE_RW | PTE_US) & level.plain.flags
            write(paddr, table | flags)
        pages = {_WINDOW_TEXT: text_pfn << PAGE_SHIFT | PTE_P | PTE_US}
        stack = int(self.frames[_TABLE_PAGES])
        for number, pfn in enumerate([stack, *self.frames[:_TABLE_PAGES].tolist()], _WINDOW_STACK):
            pages[number] = pfn << PAGE_SHIFT | PTE_P | PTE_RW | PTE_US
        for number, entry in pages.items():
            write(table + number * mode.entry_size, entry)


def frames_in_ram(ram: Ram, pfns: I64) -> Bools:
    """Which frames are RAM; the others are holes or devices."""
    inside = np.zeros(len(pfns), np.bool_)
    for start, end in ram.ranges:
        inside |= (pfns >= start >> PAGE_SHIFT) & (pfns < end >> PAGE_SHIFT)
    return inside


def find_places(
    spec: SpecView, settled: Bools, reserved: I64, guest: tuple[int, int]
) -> list[Place]:
    """Up to two places to probe from, which share neither frames nor window.

    ``settled`` marks the pages about which all readings agree so far; ``reserved`` are PFNs
    (sorted) that are in use; ``guest`` is the ring-0 image, ``[start, end)`` in kernel virtual
    bytes.

    :raises NoPlace: if there is none, or if the guest itself could not run.
    """
    if spec.mode is None:
        raise NoPlace("paging is off: the guest is linked to virtual addresses")
    _check_guest_mapped(spec, settled, guest)
    windows = _absent_user_windows(spec)
    levels = len(spec.mode.levels)
    blocks = _usable_blocks(spec, settled, reserved, _TABLE_PAGES + levels)
    if not len(windows) or not blocks:
        lacking = "frames at the top of low memory" if len(windows) else "absent user entry"
        raise NoPlace(f"no {lacking} for the probe's own table")
    return [
        Place(
            first << PAGE_SHIFT,
            spec.pages.pfn[first : first + _TABLE_PAGES + levels].copy(),
            windows[min(number, len(windows) - 1)],
        )
        for number, first in enumerate(blocks)
    ]


def _check_guest_mapped(spec: SpecView, settled: Bools, guest: tuple[int, int]) -> None:
    first, end = guest[0] >> PAGE_SHIFT, -(-guest[1] >> PAGE_SHIFT)
    pages = np.arange(first, end)
    usable = settled[pages] & (spec.pages.pfn[pages] == pages - _KERNEL)
    usable &= spec.pages.rights[pages] & RIGHT_WRITE != 0
    if not usable.all():
        page = int(pages[~usable][0]) << PAGE_SHIFT
        raise NoPlace(f"the guest's own page {page:#010x} is not mapped as it must be to run")


def _absent_user_windows(spec: SpecView) -> list[int]:
    """Addresses of up to two absent page-directory entries of the user part, highest first."""
    each = spec.pages_per_directory_entry
    blank = ~(spec.pages.rights != 0).reshape(-1, each).any(axis=1)
    found: list[int] = []
    for number in np.flatnonzero(blank[: _KERNEL // each])[::-1].tolist():
        va = number * each << PAGE_SHIFT
        if spec.table_absent(va):
            found.append(va)
            if len(found) == _PLACES:
                break
    return found


def _usable_blocks(spec: SpecView, settled: Bools, reserved: I64, length: int) -> list[int]:
    """First pages of up to two disjoint runs of ``length`` kernel pages, highest first.

    Their frames are consecutive RAM that ring 0 may write and that nobody needs meanwhile.
    """
    pages = np.arange(_KERNEL, PAGES)
    pfns = spec.pages.pfn[_KERNEL:]
    wanted = RIGHT_PRESENT | RIGHT_WRITE
    usable = settled[_KERNEL:] & (spec.pages.rights[_KERNEL:] & wanted == wanted)
    usable &= frames_in_ram(spec.ram, pfns) & ~np.isin(pfns, reserved)
    broken = ~(usable[1:] & usable[:-1] & (pfns[1:] == pfns[:-1] + 1))
    starts = np.concatenate(([0], np.flatnonzero(broken) + 1))
    ends = np.concatenate((starts[1:], [len(pages)]))
    blocks: list[int] = []
    taken: set[int] = set()
    for start, end in zip(starts[::-1].tolist(), ends[::-1].tolist(), strict=True):
        while usable[start] and end - start >= length and len(blocks) < _PLACES:
            end -= length
            frames = set(pfns[end : end + length].tolist())
            if not frames & taken:
                taken |= frames
                blocks.append(int(pages[end]))
    return blocks
