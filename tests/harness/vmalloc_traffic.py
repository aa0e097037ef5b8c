# SPDX-License-Identifier: GPL-2.0-or-later
"""Random vmalloc, vfree, ioremap and iounmap, used by guest code from several address spaces.

Each area is stored to and loaded from by ring 0 while it lives, and once more right before it
goes, so that its translations are in the TLB. What it must hold is known here.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from kernel_model.arch_i386.page import virt_to_phys
from kernel_model.image import SWAPPER_PG_DIR
from tests.harness.frame_accounting import check_machine
from tests.harness.vmalloc_machine import PAGE, VmallocMachine, expected_sum

DEVICE = 0xE0000000
"""Where no RAM is: mapped, and never touched."""
MAX_LIVE = 40
MAX_SPACES = 4


@dataclass(frozen=True)
class Area:
    """``pages`` pages at ``addr``; ``sum`` is what the guest loads, None where it may not."""

    addr: int
    pages: int
    sum: int | None
    ioremapped: bool = False


class Traffic:
    """What is live on ``vm``, and the operations on it."""

    def __init__(self, vm: VmallocMachine, seed: int) -> None:
        self.vm = vm
        self.random = random.Random(seed)
        self.live: list[Area] = []
        self.operations = 0
        self.loaded = SWAPPER_PG_DIR
        self.empty = vm.kernel.allocator.nr_free_pages()
        self.sources: list[Callable[[], Area]] = [
            self._vmalloc(vm.vmalloc.vmalloc),
            self._vmalloc(vm.vmalloc.vmalloc_32),
            self._vmalloc(vm.vmalloc.vmalloc_dma),
            self._ioremap_reserved,
            self._ioremap_device,
        ]

    def run(self, operations: int) -> None:
        """That many operations."""
        end = self.operations + operations
        while self.operations < end:
            self._enter_somewhere()
            if self.live and self.random.randrange(MAX_LIVE) < len(self.live):
                self.free(self.random.choice(self.live))
            else:
                self.live.append(self.random.choice(self.sources)())
            self.operations += 1

    def _enter_somewhere(self) -> None:
        """Now and then another address space runs, or a new one, or one ends."""
        spaces, tables = self.vm.spaces, self.vm.kernel.page_tables
        dice = self.random.randrange(20)
        if dice == 0 and len(spaces) < MAX_SPACES:
            spaces.append(tables.pgd_alloc())
        elif dice == 1 and len(spaces) > 1:
            gone = spaces.pop(self.random.randrange(len(spaces)))
            if gone == self.loaded:
                self.enter(SWAPPER_PG_DIR)
            tables.pgd_free(gone)
        elif dice < 6:
            self.enter(self.random.choice([SWAPPER_PG_DIR, *spaces]))

    def enter(self, mm: int) -> None:
        self.loaded = mm
        self.vm.enter(mm)

    def _vmalloc(self, allocate: Callable[[int], int]) -> Callable[[], Area]:
        def take() -> Area:
            pages = self.random.choice([1, 1, 2, 3, 5, 8, 30])
            salt = self.random.getrandbits(32)
            addr = allocate(pages * PAGE - self.random.randrange(PAGE))
            assert addr
            self.vm.store(addr, pages, salt)
            return Area(addr, pages, expected_sum(addr, pages, salt))

        return take

    def _ioremap_reserved(self) -> Area:
        """The guest's own text: RAM that nobody can be given, so it may be mapped twice."""
        start, pages = self.vm.machine.guest.start, self.random.randrange(1, 5)
        addr = self.vm.vmalloc.ioremap(virt_to_phys(start), pages * PAGE)
        return Area(addr, pages, self.vm.sum(start, pages), ioremapped=True)

    def _ioremap_device(self) -> Area:
        pages = self.random.choice([1, 1, 4, 4, 9, 64, 64, 1100])
        paddr = DEVICE + PAGE * self.random.randrange(1000)
        addr = self.vm.vmalloc.ioremap(paddr + 8, pages * PAGE - 8)
        assert addr & PAGE - 1 == 8
        return Area(addr - 8, pages, None, ioremapped=True)

    def free(self, area: Area) -> None:
        """Load all of it once more, then free it."""
        self.touch(area)
        self.live.remove(area)
        if area.ioremapped:
            self.vm.vmalloc.iounmap(area.addr)
        else:
            self.vm.vmalloc.vfree(area.addr)

    def touch(self, area: Area) -> None:
        if area.sum is not None:
            assert self.vm.sum(area.addr, area.pages) == area.sum

    def check(self) -> None:
        """Every area holds what it must, ``vmlist`` has these and no others in order, and each
        frame has one owner."""
        for area in self.live:
            self.touch(area)
        listed = [(int(area.addr), int(area.size)) for area in self.vm.vmalloc.areas()]
        assert listed == sorted((area.addr, (area.pages + 1) * PAGE) for area in self.live)
        check_machine(self.vm.kernel, self.vm.ledger)
