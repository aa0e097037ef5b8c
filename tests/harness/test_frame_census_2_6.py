# SPDX-License-Identifier: GPL-2.0-or-later
"""The census of frames on 2.6: RAM is changed behind the kernel's back; it says what is wrong."""

from collections.abc import Callable

import pytest

from harness.monitors.buddies import FramesInconsistent, check_machine
from harness.monitors.frames import FrameLedger
from kernel_model.arch_i386.page import PAGE_OFFSET
from kernel_model.config import MIB, KernelConfig
from kernel_model.kernel import Kernel
from kernel_model.lists import Lists
from kernel_model.mm.linux_2_6.mmzone import Zone26, for_each_zone
from kernel_model.mm.linux_2_6.numa import NodePageAllocator26
from kernel_model.mm.linux_2_6.page_alloc import PageAllocator26

CONFIGS = {
    "one node": KernelConfig(release="2.6", ram=16 * MIB),
    "two nodes": KernelConfig(
        release="2.6", ram=24 * MIB, nodes=2, node_spans=((0, 4096), (4096, 6144))
    ),
}


class Frames:
    """A booted kernel, the last zone of it that has frames, and a frame that this CPU keeps there:
    of DMA with one node, of Normal with two."""

    def __init__(self, config: KernelConfig) -> None:
        self.kernel = kernel = Kernel(config)
        self.ledger = FrameLedger().listen(kernel.image.events)
        kernel.start_kernel()
        assert isinstance(kernel.allocator, PageAllocator26)
        self.allocator, self.words = kernel.allocator, kernel.ram.words
        self.memmap, self.gfp = kernel.allocator.memmap, kernel.image.constants.gfp
        zones = [zone for zone in for_each_zone(kernel.image) if zone.size]
        self.zone: Zone26 = kernel.allocator.zone(zones[-1].vaddr)
        if isinstance(kernel.allocator, NodePageAllocator26):
            kernel.allocator.node_id = config.nodes - 1
        self.allocator.free_pages(self.allocator.alloc_page(self.gfp.kernel), 0)
        self.pcp = self.zone.pagesets[0][0]
        self.kept = next(self.pcp.pages())
        self.block, self.order = next(
            (page, order)
            for order in range(1, kernel.image.constants.max_order)
            for page in self.zone.free_blocks(order)
        )

    def add(self, page: int, word: int, number: int) -> None:
        at = (page - PAGE_OFFSET >> 2) + word
        self.words[at] = self.words[at] + number & 0xFFFFFFFF

    def flip(self, page: int, name: str) -> None:
        mask = self.kernel.image.constants.page_flags.mask(name)
        self.memmap.set_flags(page, self.memmap.flags(page) ^ mask)

    def census(self) -> None:
        check_machine(self.kernel, self.ledger)


def _not_marked(frames: Frames) -> str:
    frames.flip(frames.block, "private")
    return f"order {frames.order}, a block is not marked"


def _another_order(frames: Frames) -> str:
    frames.add(frames.block, frames.memmap.buffers_word, 1)
    return f"order {frames.order}, a block says another"


def _nr_free(frames: Frames) -> str:
    head = frames.zone.free_list(frames.order)
    frames.add(head, 2, 1)
    count = sum(1 for _ in frames.zone.free_blocks(frames.order))
    return f"order {frames.order}: {count} blocks, nr_free is {count + 1}"


def _kept_count(frames: Frames) -> str:
    frames.pcp.count += 1
    return f"list of hot frames of CPU 0 has {frames.pcp.count - 1}, its count is"


def _kept_with_a_user(frames: Frames) -> str:
    frames.add(frames.kept, frames.memmap.count_word, 1)
    return "a free frame has users"


def _kept_is_lost(frames: Frames) -> str:
    link = frames.kernel.image.structs.page.offset("lru")
    Lists(frames.kernel.ram).delete(frames.kept + link)
    frames.pcp.count -= 1
    return (
        f"frame {frames.memmap.pfn(frames.kept):#x} of {frames.zone.name}: free False, owned False"
    )


def _free_twice(frames: Frames) -> str:
    """The last frame of a free block takes the place of a frame that the CPU keeps."""
    link = frames.kernel.image.structs.page.offset("lru")
    inside = frames.block + ((1 << frames.order) - 1) * frames.memmap.page_bytes
    lists = Lists(frames.kernel.ram)
    lists.delete(frames.kept + link)
    lists.add(inside + link, frames.pcp.list)
    return "a frame is free twice"


def _free_pages(frames: Frames) -> str:
    frames.zone.free_pages += 1
    return "free_pages is not the sum of the lists"


def _nr_inactive(frames: Frames) -> str:
    frames.zone.view.nr_inactive += 1
    return f"{frames.zone.name}: inactive_list has 0 pages, 1 are counted"


def _on_a_list(frames: Frames) -> str:
    frames.flip(frames.kept, "active")
    return "a free frame is on a list"


def _zone_number(frames: Frames) -> str:
    page = frames.memmap.page(frames.zone.start_pfn + 5)
    flags = frames.memmap.flags(page) ^ 1 << frames.memmap.zone_shift + 2
    frames.memmap.set_flags(page, flags)
    return f"frame {frames.zone.start_pfn + 5:#x} of {frames.zone.name} names another zone"


PLANTS: dict[str, Callable[[Frames], str]] = {
    "PG_private": _not_marked,
    "order": _another_order,
    "nr_free": _nr_free,
    "count of a CPU's list": _kept_count,
    "user of a kept frame": _kept_with_a_user,
    "frame lost": _kept_is_lost,
    "frame free twice": _free_twice,
    "free_pages": _free_pages,
    "nr_inactive": _nr_inactive,
    "PG_active": _on_a_list,
    "number of the node": _zone_number,
}


@pytest.mark.book("6.7", "2.8")
@pytest.mark.parametrize("plant", PLANTS)
@pytest.mark.parametrize("name", CONFIGS)
def test_what_contradicts_itself_is_named(name: str, plant: str) -> None:
    frames = Frames(CONFIGS[name])
    frames.census()
    expected = PLANTS[plant](frames)
    with pytest.raises(FramesInconsistent) as wrong:
        frames.census()
    assert expected in str(wrong.value)
    assert str(wrong.value).startswith("node 1: ") == (name == "two nodes")
