# SPDX-License-Identifier: GPL-2.0-or-later
"""How deep each kind of request of 2.6 may go into the reserves, and what it does then.

The marks are computed here from the rules of book 6.7: a zone keeps ``pages_min`` and what it
reserves from requests for higher zones; ``__GFP_HIGH`` leaves a half of the first, one that cannot
wait (or a real-time process) a quarter less; a process that frees memory takes all.
"""

from collections.abc import Sequence

import pytest

from kernel_model.config import MIB, KernelConfig
from kernel_model.errors import EndlessLoop
from kernel_model.kernel import Kernel
from kernel_model.mm.gfp import PF_MEMALLOC, PF_MEMDIE
from kernel_model.mm.linux_2_6.mmzone import Zone26, for_each_zone
from kernel_model.mm.linux_2_6.page_alloc import PageAllocator26
from kernel_model.release.constants import LINUX_2_6

GFP = LINUX_2_6.gfp


class Stubborn:
    """Nothing can be reclaimed. Counts what the allocator does about it; the third wait is the
    last, and so is the first process that is killed."""

    def __init__(self, allocator: PageAllocator26) -> None:
        self.allocator = allocator
        self.said: list[str] = []

    def wake_kswapd(self, pgdat: int) -> None:
        """It finds nothing either."""

    def try_to_free_pages(self, zones: Sequence[int], gfp_mask: int, order: int) -> int:
        self.said.append("reclaim")
        return 0

    def out_of_memory(self, gfp_mask: int) -> None:
        self.said.append("kill")
        raise EndlessLoop("killed")

    def congestion_wait(self) -> None:
        self.said.append("wait")
        if self.said.count("wait") == 3:
            raise EndlessLoop("waited")

    def yield_cpu(self) -> None:
        raise EndlessLoop("yielded")


@pytest.fixture
def kernel() -> Kernel:
    kernel = Kernel(KernelConfig(ram=24 * MIB, release="2.6"))
    kernel.start_kernel()
    return kernel


def allocator_of(kernel: Kernel) -> PageAllocator26:
    assert isinstance(kernel.allocator, PageAllocator26)
    return kernel.allocator


def zones(kernel: Kernel) -> dict[str, Zone26]:
    return {zone.name: zone for zone in for_each_zone(kernel.image) if zone.size}


def exhaust(kernel: Kernel, gfp_mask: int) -> dict[str, int]:
    """Take single frames until there is none; free frames left in each zone, the CPU's included."""
    allocator = allocator_of(kernel)
    allocator.pressure = Stubborn(allocator)
    try:
        while allocator.alloc_page(gfp_mask | GFP.noretry):
            pass
    except EndlessLoop:
        pass
    return {
        name: zone.free_pages + sum(pcp.count for pcp in zone.pagesets[0])
        for name, zone in zones(kernel).items()
    }


def kept(zone: Zone26, classzone: int, *, high: bool, harder: bool) -> int:
    mark = int(zone.view.pages_min)
    mark -= mark // 2 if high else 0
    mark -= mark // 4 if harder else 0
    return mark + int(zone.view.lowmem_reserve[classzone])


@pytest.mark.book("6.7")
@pytest.mark.parametrize(
    ("mask", "realtime"),
    [
        (GFP.kernel, False),
        (GFP.kernel, True),
        (GFP.kernel | GFP.high, False),
        (GFP.kernel | GFP.high, True),
        (GFP.atomic, False),
        (0, False),
        (GFP.noio, False),
        (GFP.dma | GFP.kernel, False),
        (GFP.dma | GFP.atomic, False),
    ],
)
def test_how_deep_a_request_goes(kernel: Kernel, mask: int, realtime: bool) -> None:
    allocator_of(kernel).realtime = realtime
    left = exhaust(kernel, mask)
    classzone = 0 if mask & GFP.dma else 1
    deeper = {"high": bool(mask & GFP.high), "harder": realtime or not mask & GFP.wait}
    for name, zone in zones(kernel).items():
        if zone.index > classzone:
            assert left[name] > int(zone.view.pages_high)
            continue
        # Before it may go on, a zone must have more than it keeps: the last frames of its list
        # were taken from there while it had.
        lowest = kept(zone, classzone, **deeper)
        assert zone.free_pages <= lowest + 1, name
        assert lowest - zone.pagesets[0][0].batch <= zone.free_pages, name


@pytest.mark.book("6.7")
@pytest.mark.parametrize("flag", [PF_MEMALLOC, PF_MEMDIE])
def test_a_process_that_frees_or_dies_takes_the_last_frame(kernel: Kernel, flag: int) -> None:
    kernel.image.current_task.flags |= flag
    assert set(exhaust(kernel, GFP.kernel).values()) == {0}


@pytest.mark.book("6.7")
@pytest.mark.parametrize(
    ("mask", "order", "what"),
    [
        (GFP.kernel, 0, ["reclaim", "kill"]),
        (GFP.kernel | GFP.noretry, 0, ["reclaim"]),
        (GFP.kernel | GFP.repeat, 5, ["reclaim", "kill"]),
        (GFP.nofs, 0, ["reclaim", "wait"] * 3),
        (GFP.nofs, 3, ["reclaim", "wait"] * 3),
        (GFP.nofs, 4, ["reclaim"]),
        (GFP.nofs | GFP.repeat, 4, ["reclaim", "wait"] * 3),
        (GFP.nofs | GFP.nofail, 6, ["reclaim", "wait"] * 3),
        (GFP.nofs | GFP.noretry, 0, ["reclaim"]),
        (GFP.atomic, 0, []),
        (0, 0, []),
    ],
)
def test_what_a_request_does_when_there_is_nothing(
    kernel: Kernel, mask: int, order: int, what: list[str]
) -> None:
    kernel.image.current_task.flags |= PF_MEMALLOC
    exhaust(kernel, GFP.kernel)
    kernel.image.current_task.flags &= ~PF_MEMALLOC & 0xFFFFFFFF
    allocator = allocator_of(kernel)
    allocator.pressure = stubborn = Stubborn(allocator)
    try:
        assert allocator.alloc_pages(mask, order) == 0
    except EndlessLoop:
        assert what[-1] in ("wait", "kill")
    assert stubborn.said == what


@pytest.mark.book("6.7")
@pytest.mark.parametrize("quiet", [False, True])
def test_a_failure_is_told_unless_nobody_wants_to_know(kernel: Kernel, quiet: bool) -> None:
    kernel.image.log.clear()
    allocator = allocator_of(kernel)
    while allocator.alloc_pages(GFP.atomic | (GFP.nowarn if quiet else 0), 3):
        pass
    told = [line for line in kernel.image.log if "page allocation failure" in line]
    assert told == ([] if quiet else ["<4>swapper: page allocation failure. order:3, mode:0x20\n"])


@pytest.mark.book("6.7")
def test_frames_come_zeroed_when_asked(kernel: Kernel) -> None:
    allocator = allocator_of(kernel)
    page = allocator.alloc_pages(GFP.kernel, 1)
    paddr = allocator.memmap.pfn(page) << 12
    kernel.ram.fill(paddr, 8192, 0xA5)
    allocator.free_pages(page, 1)
    assert allocator.alloc_pages(GFP.kernel | GFP.zero, 1) == page
    assert not any(kernel.ram.read(paddr, 8192))


@pytest.mark.book("3.10", "6.7")
def test_compound_pages_know_their_head(kernel: Kernel) -> None:
    allocator = allocator_of(kernel)
    memmap, free = allocator.memmap, allocator.nr_free_pages()
    head = allocator.alloc_pages(GFP.kernel | GFP.comp, 3)
    frames = [head + number * memmap.page_bytes for number in range(8)]
    compound = 1 << LINUX_2_6.page_flags.compound
    assert all(memmap.flags(frame) & compound for frame in frames)
    assert {memmap.private(frame) for frame in frames} == {head}
    allocator.get_page(frames[5])
    assert (memmap.count(head), memmap.count(frames[5])) == (2, 0)
    allocator.put_page(frames[6])
    allocator.put_page(frames[7])
    assert not any(memmap.flags(frame) & compound for frame in frames)
    assert allocator.nr_free_pages() == free
