# SPDX-License-Identifier: GPL-2.0-or-later
"""Linux 2.6.11 built for a machine without an MMU (book 3.10).

Boot memory, zones, buddy and slab are those of :mod:`.linux_2_6`; there are no page tables to
make, and so neither vmalloc nor faults, nor anything that would take pages away from a process.
What programs map is :class:`~kernel_model.mm.nommu.NoMmu`'s, over ``kmalloc()``, whose caches
go up to 1 MiB here.
"""

from typing import TYPE_CHECKING, ClassVar

from kernel_model.arch_i386.linux_2_6.init import PagingInit26
from kernel_model.release.linux_2_6 import Linux26

if TYPE_CHECKING:
    from kernel_model.kernel import Kernel


class NoPaging(PagingInit26):
    """``paging_init()`` where there is nothing to be turned on."""

    def paging_init(self) -> None:
        """The zones alone."""
        self._layout.zone_sizes_init()

    def zap_low_mappings(self) -> None:
        """Nothing is mapped."""


class Linux26NoMmu(Linux26):
    """Which class is which part of a 2.6 kernel with ``CONFIG_MMU`` off."""

    missing_steps: ClassVar[frozenset[str]] = frozenset(
        {"zap_low_mappings", "vmalloc_init", "page_cache_init", "check_bugs", "sysenter_setup"}
    )

    def startup(self, kernel: "Kernel") -> None:
        """The CPU goes on with paging off."""

    def paging(self, kernel: "Kernel") -> NoPaging:
        return NoPaging(kernel.image, kernel.bootmem, kernel.tables, kernel.tlb, kernel.layout)
