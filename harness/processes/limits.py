# SPDX-License-Identifier: GPL-2.0-or-later
"""What ends a run of programs that does not end by itself."""

import time
from typing import Final

from harness.cpu import Stop, StopReason
from harness.machine import GuestStopped, Limits

INSTRUCTIONS_OF_A_CALL: Final = 500
"""What a system call counts for: code of ring 0 that it runs restarts the emulator's count."""


class RunLimits:
    """The limits of one run: instructions of all processes together, and seconds."""

    def __init__(self, limits: Limits) -> None:
        self.instructions = limits.instructions
        self._seconds = limits.seconds
        self._end = time.monotonic() + limits.seconds if limits.seconds else 0.0

    def seconds_left(self) -> float:
        """For the CPU's next run; 0: no limit. :class:`GuestStopped` when none are left."""
        if not self._end:
            return 0.0
        self.check_time()
        return max(self._end - time.monotonic(), 0.001)

    def check_time(self) -> None:
        if self._end and time.monotonic() >= self._end:
            raise self.out_of_time()

    def out_of_time(self) -> GuestStopped:
        """Names the whole time, of which a run of the CPU knows only what was left."""
        return GuestStopped(StopReason(Stop.TIMEOUT, f"{self._seconds:g} s"))

    def check_instructions(self, instructions: int) -> None:
        if self.instructions and instructions >= self.instructions:
            raise GuestStopped(StopReason(Stop.LIMIT_INSTRUCTIONS, f"{self.instructions}"))
