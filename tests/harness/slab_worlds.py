# SPDX-License-Identifier: GPL-2.0-or-later
"""Slab allocators to be tried: 2.4's in a booted kernel, 2.6's over frames of its own.

What a test asks of the page allocator below is the same for both: how many frames are free, and
whether those that are not have an owner.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from harness.monitors.frames import FrameLedger
from harness.replay.slab_2_6 import SlabMachine
from kernel_model.config import MIB, KernelConfig
from kernel_model.image import KernelImage
from kernel_model.kernel import Kernel
from kernel_model.mm.slab import Slab
from kernel_model.mm.slab.linux_2_6 import Slab26
from tests.harness.frame_accounting import check_machine
from tests.kernel_model.mm.slab_settling import settle

PAGE_OFFSET = 0xC0000000
PAGE = 4096


@dataclass
class SlabWorld:
    """An allocator with all CPUs up, and what lies below it."""

    image: KernelImage
    slab: Slab
    free_pages: Callable[[], int]
    check_frames: Callable[[], None]

    def settle(self) -> None:
        """No free slab is left, no array holds objects, nothing waits."""
        settle(self.slab)


class Blocks:
    """A page source that knows which blocks are out; freed ones are used again, latest first."""

    def __init__(self, first: int, end: int) -> None:
        self._next = first
        self._end = end
        self._free: defaultdict[int, list[int]] = defaultdict(list)
        self.out = 0

    def get_free_pages(self, gfp_mask: int, order: int, purpose: str) -> int:
        if self._free[order]:
            block = self._free[order].pop()
        else:
            block = -(-self._next >> order) << order
            if block + (1 << order) > self._end:
                return 0
            self._next = block + (1 << order)
        self.out += 1 << order
        return PAGE_OFFSET + block * PAGE

    def free_pages_at(self, vaddr: int, order: int) -> None:
        self._free[order].append(vaddr - PAGE_OFFSET >> 12)
        self.out -= 1 << order

    def free_pages(self) -> int:
        return self._end - self.out


def world_of(config: KernelConfig) -> SlabWorld:
    """The allocator of a build."""
    return _STARTS[config.release](config)


def _booted(config: KernelConfig) -> SlabWorld:
    kernel = Kernel(config)
    ledger = FrameLedger().listen(kernel.image.events)
    kernel.start_kernel()
    free = kernel.allocator.nr_free_pages
    return SlabWorld(kernel.image, kernel.slab, free, lambda: check_machine(kernel, ledger))


def _alone(config: KernelConfig) -> SlabWorld:
    blocks = Blocks(8 * MIB // PAGE, config.ram // PAGE)
    machine = SlabMachine(config, blocks, config.nr_cpus)
    machine.slab.start(config.ram // PAGE)
    machine.slab.kmem_cpucache_init()
    return SlabWorld(machine.image, machine.slab, blocks.free_pages, lambda: None)


_STARTS = {"2.4": _booted, "2.6": _alone}


def end_grace_period(slab: Slab) -> None:
    """Nobody reads any more what RCU is to take away; 2.4's allocator has none."""
    if isinstance(slab, Slab26):
        slab.objects.rcu.end_grace_period()
