# SPDX-License-Identifier: GPL-2.0-or-later
"""Small 2.6 kernels with huge pages, with processes and files that use them."""

from collections.abc import Iterable
from typing import Any, Final

import pytest

from harness.monitors.frames import FrameLedger
from harness.monitors.huge_pages import huge_pages_census
from harness.suites.user_spaces import UserSpaces
from kernel_model.config import MIB, Highmem, KernelConfig
from kernel_model.fs.hugetlbfs import NO_LIMIT, HugetlbFs
from kernel_model.kernel import Kernel
from kernel_model.structs.fs import FMODE_READ, FMODE_WRITE
from kernel_model.structs.mman import MAP_FIXED, MAP_SHARED, PROT_READ, PROT_WRITE

READ_WRITE: Final = PROT_READ | PROT_WRITE

_HIGH: Final = {"release": "2.6", "ram": 88 * MIB, "highmem_pages": 6144}
CONFIGS: Final = {
    "2-level": KernelConfig(release="2.6", ram=48 * MIB),
    "highmem": KernelConfig(highmem=Highmem.GB4, **_HIGH),  # type: ignore[arg-type]
    "PAE": KernelConfig(highmem=Highmem.GB64, **_HIGH),  # type: ignore[arg-type]
    "PTE chains": KernelConfig(release="2.6", ram=48 * MIB, rmap="pte_chain"),
}


def slowly(kinds: Iterable[str], *slow: str) -> list[Any]:
    """Parameters of a test, of which these are only tried among the slow tests."""
    return [pytest.param(kind, marks=[pytest.mark.slow] * (kind in slow)) for kind in kinds]


class HugeKernel:
    """A booted kernel; a process is its page directory, as in :class:`UserSpaces`."""

    def __init__(self, kind: str, nr_hugepages: int = 0) -> None:
        self.kernel = Kernel(CONFIGS[kind])
        self.ledger = FrameLedger().listen(self.kernel.image.events)
        self.kernel.start_kernel()
        assert self.kernel.hugetlbfs is not None
        self.fs: HugetlbFs = self.kernel.hugetlbfs
        self.pool = self.fs.pool
        self.pool.hugetlb_sysctl_handler(nr_hugepages)
        self.size = self.pool.huge.size
        self.processes = UserSpaces(self.kernel)
        self.mount = self.fs.mount()

    @property
    def free(self) -> int:
        return int(self.kernel.statics.free_huge_pages)

    @property
    def total(self) -> int:
        return int(self.kernel.statics.nr_huge_pages)

    def limited(self, blocks: int = NO_LIMIT, inodes: int = NO_LIMIT) -> None:
        """Files to come are of a mount with these limits."""
        self.mount = self.fs.mount(blocks, inodes)

    # -- files ---------------------------------------------------------------------------------

    def new_file(self) -> int:
        """An inode that its name holds."""
        inode = self.fs.hugetlbfs_get_inode(self.mount)
        assert inode > 0, inode
        return inode

    def unlink(self, inode: int) -> None:
        self.kernel.files.iput(inode)

    def pages(self, inode: int) -> list[int]:
        """Huge indices that the file has."""
        mapping = int(self.kernel.files.inode(inode).i_mapping)
        return [index for index, _ in self.fs.pages(mapping)]

    # -- processes -----------------------------------------------------------------------------

    def map(self, pgd: int, inode: int, count: int, **how: int) -> int:
        """Map ``count`` huge pages, or ``length`` bytes, of the file; where, or an error.

        ``at`` is a fixed address, ``page`` a page of the file, ``prot`` and ``flags`` as usual.
        """
        at, flags = how.get("at", 0), how.get("flags", MAP_SHARED)
        file = self.fs.open(inode, "huge", how.get("mode", FMODE_READ | FMODE_WRITE))
        with self.processes.running(pgd):
            where = self.kernel.spaces.do_mmap_pgoff(
                file,
                at,
                how.get("length", count * self.size),
                how.get("prot", READ_WRITE),
                flags | (MAP_FIXED if at else 0),
                how.get("page", 0),
            )
            self.kernel.files.fput(file)
        return where

    def unmap(self, pgd: int, at: int, length: int) -> int:
        with self.processes.running(pgd) as mm:
            return self.kernel.spaces.do_munmap(mm, at, length)

    def entry(self, pgd: int, vaddr: int) -> int:
        """The entry of the middle directory for an address."""
        tables = self.kernel.memory.tables
        return tables.tables.entry(tables.pmd_offset(pgd, vaddr))

    def frame(self, pgd: int, vaddr: int) -> int:
        """The first frame of the huge page at an address; 0: none is mapped."""
        entry = self.entry(pgd, vaddr)
        return entry >> 12 & -self.pool.huge.frames if entry & 0x80 else 0

    def rss(self, pgd: int) -> int:
        return int(self.kernel.spaces.areas.mm(self.processes.mm(pgd)).rss)

    def check(self) -> None:
        """Every huge page has the users that it counts."""
        huge_pages_census(self.kernel, self.processes.tasks)
