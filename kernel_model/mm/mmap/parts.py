# SPDX-License-Identifier: GPL-2.0-or-later
"""What the operations on VMAs are made of, and where the two releases differ in that.

Each operation (``mmap()``, ``mremap()``, ...) is handed the one :class:`VmaParts` of its machine.
The parts that a release has its own of are named here by what they must do; their
implementations stand in :mod:`kernel_model.mm.mmap.linux_2_4` and
:mod:`kernel_model.mm.mmap.linux_2_6`.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from kernel_model.mm.mmap.accounting import Accounting
from kernel_model.mm.mmap.anon import AnonLinks
from kernel_model.mm.mmap.areas import Areas
from kernel_model.mm.mmap.find import Finder, Place
from kernel_model.mm.mmap.limits import Limits
from kernel_model.mm.mmap.link import Links
from kernel_model.mm.mmap.pages import PageOperations
from kernel_model.mm.mmap.unmap import Unmapper
from kernel_model.mm.mmap.unmapped_area import UnmappedAreas


class Content(NamedTuple):
    """What a range is mapped to: two that touch may be one VMA if it goes on from one to the
    other."""

    vm_flags: int
    file: int = 0
    pgoff: int = 0
    anon_vma: int = 0
    """Of which pages that are no file's: 2.6 only."""


class Merging(Protocol):
    """Which neighbours become one VMA."""

    def anonymous_pgoff(self, addr: int, pgoff: int) -> int:
        """``vm_pgoff`` of a new mapping of zeros at ``addr``, for which ``pgoff`` was asked."""

    def vma_merge(self, mm: int, place: Place, start: int, end: int, content: Content) -> int:
        """Grow a neighbour over a range that is not mapped. Returns that VMA; 0: none may."""


class Splitting(Protocol):
    """Cutting VMAs so that a part can have other flags."""

    def carve(self, vma: int, start: int, end: int, newflags: int) -> bool:
        """Give the part of a VMA in a range other flags, in a VMA of its own; its pages keep their
        protection. False: no memory, or too many VMAs."""

    def madvise_behavior(self, vma: int, start: int, end: int, newflags: int) -> int:
        """The same for flags that say how pages will be read: 0, or a negative error."""


class SharedZeros(Protocol):
    """Where shared memory without a file comes from (``mm/shmem.c``)."""

    def shmem_zero_setup(self, vma: int) -> int:
        """Give a VMA a file of zeros of its own: 0, or a negative error."""


@dataclass(frozen=True, slots=True)
class VmaParts:
    """The parts of one machine's VMA layer."""

    data_flags: int
    """``vm_flags`` of heaps and, but for the growing, of stacks."""

    areas: Areas
    finder: Finder
    limits: Limits
    accounting: Accounting
    anon: AnonLinks
    links: Links
    merging: Merging
    splitter: Splitting
    unmapper: Unmapper
    unmapped: UnmappedAreas
    shmem: SharedZeros
    pages: PageOperations
