# SPDX-License-Identifier: GPL-2.0-or-later
"""The conformance guest on QEMU: the same image, booted by multiboot, over shared RAM.

What can fail: :mod:`harness.cpu.qemu` without QEMU; a guest that does not come back is
:class:`~harness.cpu.qemu.QemuFailed`.
"""

import struct
from typing import Final

import numpy as np

from harness.conformance import layout
from harness.conformance.subject import GUEST, stamp_high_frames, tables
from harness.cpu.qemu import QemuPc
from harness.elf import load_elf
from harness.guests import guest_path
from harness.paging_modes import MmuFeatures

CPU: Final = "coreduo,+pse36"
"""QEMU has 36 physical address bits where PSE-36 is announced, and 32 otherwise."""
FEATURES: Final = MmuFeatures(physical_bits=36, pse36=True, nx=True)
_SECONDS: Final = 8.0


class QemuSubject:
    """See :class:`harness.conformance.subject.Subject`."""

    name = "qemu"
    features = FEATURES

    def __init__(self) -> None:
        path = guest_path(GUEST, GUEST)
        symbols = load_elf(path).symbols
        self._request, self._ready = symbols["request"], symbols["ready"]
        size = layout.LOW_RAM + layout.HIGH_RAM
        self._pc = QemuPc(size, layout.LOW_RAM, CPU, path, "harness")
        self._ram = self._pc.ram
        self.cases, self.results, self.batches = tables(self._ram)
        frames = layout.FRAMES_END - layout.FRAMES
        high = np.frombuffer(self._ram, np.uint32, frames // 4, layout.LOW_RAM + layout.FRAMES)
        stamp_high_frames(high)
        self._pc.run_until(lambda: self._word(self._ready) == 1, _SECONDS)

    def _word(self, paddr: int) -> int:
        return int.from_bytes(self._ram[paddr : paddr + 4], "little")

    def run(self, batches: int) -> None:
        self._ram[self._request : self._request + 4] = struct.pack("<I", batches)
        self._pc.run_until(lambda: self._word(self._request) == 0, _SECONDS)

    def close(self) -> None:
        self._pc.close()
