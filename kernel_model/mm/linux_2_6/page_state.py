# SPDX-License-Identifier: GPL-2.0-or-later
"""What each CPU counts about pages, for ``/proc/vmstat``.

Models linux-2.6.11 ``mm/page_alloc.c``: ``mod_page_state()``, ``get_full_page_state()``. In RAM:
one ``struct page_state`` a CPU. Counters wrap at 32 bits, as ``unsigned long`` does.
"""

from typing import Final

from kernel_model.arch_i386.page import virt_to_phys
from kernel_model.image import KernelImage

_WORD: Final = 0xFFFFFFFF
ZONE_SUFFIXES: Final = ("dma", "normal", "high")
"""How the counters of a zone end: ``pgalloc_normal``."""


class PageState:
    """The counters of all CPUs."""

    def __init__(self, image: KernelImage) -> None:
        self._image = image
        self._words = image.ram.words
        self._kind = image.structs.page_state
        self._first = virt_to_phys(image.symbol("page_states")) >> 2
        self._stride = self._kind.size >> 2
        self.names = [name for name, _ in self._kind.members]
        self._index = {name: self._kind.word(name) for name in self.names}

    def _cpu(self) -> int:
        return self._first + int(self._image.current_task.processor) * self._stride

    def add(self, name: str, delta: int = 1) -> None:
        """``mod_page_state()`` on the current CPU."""
        at = self._cpu() + self._index[name]
        self._words[at] = self._words[at] + delta & _WORD

    def of_cpu(self, cpu: int, name: str) -> int:
        """One counter of one CPU."""
        return self._words[self._first + cpu * self._stride + self._index[name]]

    def total(self, name: str) -> int:
        """One counter, summed over the CPUs."""
        cpus = range(self._image.config.nr_cpus)
        return sum(self.of_cpu(cpu, name) for cpu in cpus) & _WORD
