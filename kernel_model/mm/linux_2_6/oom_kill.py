# SPDX-License-Identifier: GPL-2.0-or-later
"""Choosing who dies when memory is out, in 2.6.

Models linux-2.6.11 ``mm/oom_kill.c``: ``badness()``, ``select_bad_process()``,
``oom_kill_process()``, ``out_of_memory()``, and ``lib/int_sqrt.c``. Whether swap has room is
nobody's question here. A process answers for its children, too, and one of them dies in its place.
What can fail: a machine with nobody left to kill panics, a
:class:`~kernel_model.errors.KernelPanic`.
"""

from math import isqrt
from typing import Final

from kernel_model.errors import KernelPanic
from kernel_model.mm.oom_kill import PID_INIT, Candidate, OomKiller, importance

HZ: Final = 1000
SHIFT_HZ: Final = 10


def badness(process: Candidate) -> int:
    """How much good killing it would do. CPU time counts in units of 8.192 seconds, age in units
    of 1,024."""
    points = process.total_vm + sum(child.total_vm for child in process.children())
    points //= isqrt(process.cpu_time * HZ >> SHIFT_HZ + 3) or 1
    points //= isqrt(isqrt(process.run_time >> 10)) or 1
    return importance(process, points)


class OomKiller26(OomKiller):
    """``out_of_memory()`` of one machine."""

    def out_of_memory(self, gfp_mask: int = 0) -> bool:
        if not self.processes or any(process.dying for process in self.processes):
            return False
        for process in self.processes:
            process.look()
        chosen = self._select()
        self._image.printk(f"oom-killer: gfp_mask={gfp_mask:#x}\n")
        self._kill(next(iter(chosen.children()), chosen))
        return True

    def _select(self) -> Candidate:
        """The worst one, the first of equals; somebody it is, however good."""
        mortal = [process for process in self.processes if process.pid > PID_INIT]
        if not mortal:
            raise KernelPanic("Out of memory and no killable processes...")
        return max(mortal, key=badness)
