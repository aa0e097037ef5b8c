# SPDX-License-Identifier: GPL-2.0-or-later
"""What the slab on top of the buddy allocator saves: frames, and large blocks."""

import pytest

from kernel_model.config import KernelConfig
from kernel_model.kernel import Kernel, boot
from kernel_model.mm.gfp import GFP_KERNEL
from kernel_model.mm.mmzone import for_each_zone
from kernel_model.mm.slab.objects import Objects
from tests.kernel_model.mm.slab_settling import settle

MIB = 1 << 20
OBJECTS = 1000
PER_FRAME = 59
"""Of 64 bytes: each takes 4 more of the index array, and the descriptor takes 24 of the frame."""


@pytest.fixture
def kernel() -> Kernel:
    return boot(KernelConfig(ram=16 * MIB))


def free_blocks(kernel: Kernel) -> list[list[int]]:
    return [zone.free_counts() for zone in for_each_zone(kernel.image)]


def fill_and_empty(kernel: Kernel) -> None:
    objects = [kernel.slab.kmalloc(60, GFP_KERNEL) for _ in range(OBJECTS)]
    for start in (1, 0):
        for objp in objects[start::2]:
            kernel.slab.kfree(objp)
    settle(kernel.slab)


@pytest.mark.book("6.6")
def test_small_objects_share_frames(kernel: Kernel) -> None:
    settle(kernel.slab)
    before = kernel.allocator.nr_free_pages()
    for _ in range(OBJECTS):
        assert kernel.slab.kmalloc(60, GFP_KERNEL)
    taken = before - kernel.allocator.nr_free_pages()
    assert taken in (OBJECTS // PER_FRAME, OBJECTS // PER_FRAME + 1)


@pytest.mark.book("6.6")
def test_objects_that_come_and_go_leave_the_large_blocks_whole(kernel: Kernel) -> None:
    settle(kernel.slab)
    before = free_blocks(kernel)
    fill_and_empty(kernel)
    assert free_blocks(kernel) == before


def test_slabs_that_are_kept_are_seen(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    settle(kernel.slab)
    before = free_blocks(kernel)
    monkeypatch.setattr(Objects, "kmem_slab_destroy", lambda *_: None)
    fill_and_empty(kernel)
    assert free_blocks(kernel) != before
