# SPDX-License-Identifier: GPL-2.0-or-later
"""Choosing who dies when memory is out.

Models linux-2.4.22 ``mm/oom_kill.c``: ``badness()``, ``select_bad_process()``,
``out_of_memory()``. What can fail: a machine with nobody left to kill panics, a
:class:`KernelPanic`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from kernel_model.errors import KernelPanic
from kernel_model.image import KernelImage

PID_INIT: Final = 1
HZ: Final = 100
SHIFT_HZ: Final = 7


@dataclass(slots=True)
class Candidate:
    """A process as the killer sees it. ``total_vm`` is in pages, times are in seconds.

    ``measure`` gives ``total_vm`` as it is when the killer looks.
    """

    pid: int
    name: str
    total_vm: int
    cpu_time: int = 0
    run_time: int = 0
    nice: int = 0
    superuser: bool = False
    raw_io: bool = False
    dying: bool = False
    kill: Callable[[], None] = lambda: None
    measure: Callable[[], int] | None = None
    children: Callable[[], Sequence["Candidate"]] = tuple
    """Those that have memory of their own, youngest last. 2.4 does not ask."""

    def look(self) -> None:
        """Let ``total_vm`` be what it is now."""
        if self.measure is not None:
            self.total_vm = self.measure()


def int_sqrt(value: int) -> int:
    """The killer's rough square root: half the bits are shifted out. Never 0.

    16 has root 3, 25 has 5, 36 has 4, and what is below 4 has 1.
    """
    halvings = value.bit_length() // 2
    root = value >> halvings
    if value.bit_length() % 2:
        root -= root >> 2
    return max(root, 1)


def badness(process: Candidate) -> int:
    """How much good killing it would do: big and young and unimportant is worst.

    The kernel means units of 8 and of 1024 seconds; its ``SHIFT_HZ`` makes a second of 128
    ticks where there are 100, so they are 10.24 and 1310.72 seconds.
    """
    points = process.total_vm // int_sqrt(process.cpu_time * HZ >> SHIFT_HZ + 3)
    points //= int_sqrt(int_sqrt(process.run_time * HZ >> SHIFT_HZ + 10))
    return importance(process, points)


def importance(process: Candidate, points: int) -> int:
    """A nice process is worth less, one of the superuser or with access to hardware more."""
    if process.nice > 0:
        points *= 2
    if process.superuser:
        points //= 4
    if process.raw_io:
        points //= 4
    return points


def select_bad_process(processes: list[Candidate]) -> Candidate | None:
    """The worst one; init and the idle task are never chosen."""
    chosen, most = None, 0
    for process in processes:
        process.look()
        if process.pid > PID_INIT and not process.dying and badness(process) > most:
            chosen, most = process, badness(process)
    return chosen


class OomKiller:
    """``out_of_memory()`` of one machine. Whoever runs processes adds them to ``processes``."""

    def __init__(self, image: KernelImage) -> None:
        self._image = image
        self.processes: list[Candidate] = []

    def out_of_memory(self, gfp_mask: int = 0) -> bool:
        """Kill somebody, unless swap has room left: then reclaim was only unlucky.

        Returns whether somebody was killed, whose memory will be there soon.

        The kernel also waits until it failed ten times in the course of seconds; nothing here
        takes time, so the first failure counts.
        """
        if self._image.statics.nr_swap_pages > 0:
            return False
        if not self.processes or any(process.dying for process in self.processes):
            return False
        chosen = select_bad_process(self.processes)
        if chosen is None:
            raise KernelPanic("Out of memory and no killable processes...")
        self._kill(chosen)
        return True

    def _kill(self, chosen: Candidate) -> None:
        self._image.printk(f"<3>Out of Memory: Killed process {chosen.pid} ({chosen.name}).\n")
        chosen.dying = True
        chosen.kill()
