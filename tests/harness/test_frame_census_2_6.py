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
from kernel_model.mm.linux_2_6.mmzone import Zone26
from kernel_model.mm.linux_2_6.page_alloc import PageAllocator26


class Frames:
    """A booted kernel, the zone of its DMA memory, and a frame that this CPU keeps."""

    def __init__(self) -> None:
        self.kernel = kernel = Kernel(KernelConfig(release="2.6", ram=16 * MIB))
        self.ledger = FrameLedger().listen(kernel.image.events)
        kernel.start_kernel()
        assert isinstance(kernel.allocator, PageAllocator26)
        self.allocator, self.words = kernel.allocator, kernel.ram.words
        self.memmap, self.gfp = kernel.allocator.memmap, kernel.image.constants.gfp
        self.zone: Zone26 = kernel.allocator.zone(int(kernel.statics.zone_table[0]))
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
    return f"frame {frames.memmap.pfn(frames.kept):#x} of DMA: free False, owned False"


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
    return "DMA: inactive_list has 0 pages, 1 are counted"


def _on_a_list(frames: Frames) -> str:
    frames.flip(frames.kept, "active")
    return "a free frame is on a list"


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
}


@pytest.mark.book("6.7", "2.8")
@pytest.mark.parametrize("plant", PLANTS)
def test_what_contradicts_itself_is_named(plant: str) -> None:
    frames = Frames()
    frames.census()
    expected = PLANTS[plant](frames)
    with pytest.raises(FramesInconsistent) as wrong:
        frames.census()
    assert expected in str(wrong.value)
