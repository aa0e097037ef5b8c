# SPDX-License-Identifier: GPL-2.0-or-later
"""A CPU under test, with the conformance guest loaded: tables in, tables out.

:class:`Subject` is all that the matrix needs of a CPU. :class:`UnicornSubject` runs the guest on
the embedded emulator; QEMU stands in :mod:`harness.conformance.qemu_subject`.

What can fail: :class:`GuestFailed` when the guest does not come back with its results.
"""

from typing import Any, Final, Protocol

import numpy as np

from harness.conformance import layout
from harness.cpu import Cpu, Stop
from harness.cpu.unicorn_cpu import UnicornCpu
from harness.elf import load_elf
from harness.guests import guest_path
from harness.paging_modes import MmuFeatures
from harness.readings.spec import mmu_features
from kernel_model.errors import MmucheckError
from kernel_model.ram import Ram

GUEST: Final = "conformance"
MODEL: Final = "coreduo"
"""The one model that has every paging mode of an i386."""
_SECONDS: Final = 120.0


class GuestFailed(MmucheckError):
    """The guest died, or did not end."""


class Subject(Protocol):
    """``cases``, ``results`` and ``batches`` are the guest's own tables, in its RAM."""

    name: str
    features: MmuFeatures
    cases: Any
    results: Any
    batches: Any

    def run(self, batches: int) -> None:
        """Let the guest run the first ``batches`` of its table."""

    def close(self) -> None: ...


def conformance_ram() -> Ram:
    """32 MiB, and the high frames from 4 GiB on."""
    high = (layout.HIGH, layout.HIGH + layout.HIGH_RAM)
    return Ram(high[1], ((0, layout.LOW_RAM), high))


def tables(buffer: Any) -> tuple[Any, Any, Any]:
    """Cases, results and batches as arrays over low RAM."""
    places = (
        (layout.CASE, layout.MAX_CASES, layout.CASES),
        (layout.RESULT, layout.MAX_CASES, layout.RESULTS),
        (layout.BATCH, layout.MAX_BATCHES, layout.BATCHES),
    )
    cases, results, batches = (np.frombuffer(buffer, *place) for place in places)
    return cases, results, batches


def stamp_high_frames(high: Any) -> None:
    """Give the high frames their contents; ``high`` is a u32 array over them."""
    count = (layout.FRAMES_END - layout.FRAMES) >> 12
    rows = high.reshape(count, 1024)
    stamps = layout.stamp(np.arange(count, dtype=np.uint32), 1).astype(np.uint32)
    rows[:, layout.OFFSET_SECOND // 4] = stamps
    rows[:, layout.OFFSET_WORD // 4] = stamps
    rows[:, layout.OFFSET_CODE // 4] = stamps << np.uint32(8) | np.uint32(0xB8)
    rows[:, layout.OFFSET_CODE // 4 + 1] = stamps >> np.uint32(24) | np.uint32(0xC300)
    rows[:, layout.OFFSET_DESCRIPTOR // 4] = stamps & np.uint32(0xFFFF)
    rows[:, layout.OFFSET_DESCRIPTOR // 4 + 1] = stamps & np.uint32(0xF0000) | np.uint32(0xF300)
    rows[:, layout.OFFSET_ACROSS // 4] = stamps << np.uint32(16)


class UnicornSubject:
    """The guest on Unicorn. ``cpu`` may be one that misbehaves, or another altogether."""

    def __init__(self, cpu: Cpu | None = None) -> None:
        self.name = "unicorn"
        self.cpu: Cpu = cpu or UnicornCpu(conformance_ram(), MODEL)
        ram = self.cpu.ram
        for start, end in layout.DATA_ONLY:
            self.cpu.never_execute(start, end)
        self.features = mmu_features(self.cpu)
        guest = load_elf(guest_path(GUEST, GUEST))
        for segment in guest.segments:
            ram.fill(segment.vaddr, segment.memsz)
            ram.write(segment.vaddr, segment.data)
        self._request = guest.symbols["request"]
        self.cases, self.results, self.batches = tables(ram.buffer)
        frames = layout.FRAMES_END - layout.FRAMES
        stamp_high_frames(ram.table(layout.HIGH + layout.FRAMES, frames // 4))
        self._start(guest.entry)

    def run(self, batches: int) -> None:
        self.cpu.ram.write32(self._request, batches)
        self._start(None)

    def _start(self, eip: int | None) -> None:
        self.cpu.on_hypercall = self.cpu.stop
        reason = self.cpu.start(eip, timeout_seconds=_SECONDS)
        if reason.kind is Stop.INTERRUPTED:
            raise KeyboardInterrupt
        if reason.kind is not Stop.HYPERCALL:
            raise GuestFailed(f"{self.name}: the conformance guest did not come back: {reason}")

    def close(self) -> None:
        """Nothing is open."""
