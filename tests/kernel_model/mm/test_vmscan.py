# SPDX-License-Identifier: GPL-2.0-or-later
"""Reclaim: which frames go, in which order, by whose leave; kswapd; and who is refused."""

from collections.abc import Callable

import pytest

from kernel_model.config import MIB, Highmem, KernelConfig
from kernel_model.errors import EndlessLoop, KernelBug
from kernel_model.kernel import Kernel, boot
from kernel_model.mm.buddy import Buddy
from kernel_model.mm.gfp import (
    GFP_ATOMIC,
    GFP_DMA,
    GFP_HIGHUSER,
    GFP_KERNEL,
    GFP_NOFS,
    GFP_NOHIGHIO,
    GFP_NOIO,
    GFP_USER,
    PF_MEMALLOC,
    PF_MEMDIE,
)
from kernel_model.mm.mmzone import Zone, for_each_zone
from kernel_model.mm.page_flags import PG_ACTIVE, PG_DIRTY, PG_LAUNDER, PG_LOCKED, PG_REFERENCED
from kernel_model.mm.vmscan import Vmscan
from tests.kernel_model.mm.cached_pages import FreedFrames, cache_page, new_space, swap_page
from tests.kernel_model.mm.user_spaces import UserSpaces


@pytest.fixture
def kernel() -> Kernel:
    return boot(KernelConfig(ram=8 * MIB, swap_pages=400))


def zone_of(kernel: Kernel, name: str = "DMA") -> Buddy:
    return next(
        kernel.allocator.zone(z.vaddr) for z in for_each_zone(kernel.image) if z.name == name
    )


def cached(kernel: Kernel, count: int) -> list[int]:
    """``count`` clean, unused frames of a file, oldest first."""
    space = new_space(kernel)
    return [cache_page(kernel, space, index) for index in range(count)]


def pfns(kernel: Kernel, pages: list[int]) -> list[int]:
    return [kernel.allocator.memmap.pfn(page) for page in pages]


def lru_list(kernel: Kernel, head: int) -> list[int]:
    return list(kernel.allocator.lru.pages(head))


class SwapOutCalls:
    """Stands in for ``swap_out()``."""

    def __init__(self, vmscan: Vmscan, monkeypatch: pytest.MonkeyPatch) -> None:
        self.zones: list[str] = []
        monkeypatch.setattr(vmscan, "_swap_out", self._call)

    def _call(self, classzone: Buddy) -> bool:
        self.zones.append(classzone.name)
        return False


# -- refill_inactive() ---------------------------------------------------------------------------


def test_the_oldest_active_frames_become_inactive(kernel: Kernel) -> None:
    pages, lru, memmap = cached(kernel, 6), kernel.allocator.lru, kernel.allocator.memmap
    for page in pages:
        lru.activate_page(page)
    assert lru_list(kernel, lru.active_list) == pages[::-1]
    memmap.set_bit(pages[1], PG_REFERENCED)
    kernel.vmscan.refill_inactive(3)
    # The second was used: it goes round once more and costs nothing.
    assert lru_list(kernel, lru.active_list) == [pages[1], pages[5], pages[4]]
    assert lru_list(kernel, lru.inactive_list) == [pages[3], pages[2], pages[0]]
    assert not memmap.test(pages[1], PG_REFERENCED)
    assert all(memmap.test(page, PG_REFERENCED) for page in (pages[0], pages[2], pages[3]))
    assert not any(memmap.test(page, PG_ACTIVE) for page in (pages[0], pages[2], pages[3]))
    kernel.vmscan.refill_inactive(100)
    assert not lru_list(kernel, lru.active_list)
    assert kernel.statics.nr_inactive_pages == 6


def test_used_frames_are_looked_at_once_only(kernel: Kernel) -> None:
    pages, lru, memmap = cached(kernel, 4), kernel.allocator.lru, kernel.allocator.memmap
    for page in pages:
        lru.activate_page(page)
        memmap.set_bit(page, PG_REFERENCED)
    kernel.vmscan.refill_inactive(1)
    # The walk ends where it began, although its own frames came in front of it meanwhile.
    assert kernel.statics.nr_active_pages + kernel.statics.nr_inactive_pages == 4
    assert kernel.statics.nr_active_pages >= 3


@pytest.mark.parametrize(("active", "inactive", "moved"), [(90, 9, 90), (60, 99, 9), (3, 99, 0)])
def test_the_active_list_is_kept_at_two_thirds(
    kernel: Kernel, active: int, inactive: int, moved: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """32 wanted: 32 * active / (2 * (inactive + 1)) frames are moved."""
    for page in cached(kernel, active + inactive)[:active]:
        kernel.allocator.lru.activate_page(page)
    monkeypatch.setattr(kernel.vmscan, "shrink_cache", lambda wanted, *_: wanted)
    kernel.vmscan.shrink_caches(zone_of(kernel), 6, GFP_KERNEL, 32)
    assert kernel.statics.nr_active_pages == active - moved


# -- shrink_cache() ------------------------------------------------------------------------------


def test_the_oldest_inactive_frames_are_freed_first(kernel: Kernel) -> None:
    pages, freed = cached(kernel, 20), FreedFrames(kernel)
    assert kernel.vmscan.shrink_cache(5, zone_of(kernel), GFP_KERNEL, 1) == 0
    assert freed.pfns == pfns(kernel, pages[:5])
    assert lru_list(kernel, kernel.allocator.lru.inactive_list) == pages[:4:-1]
    assert kernel.page_cache.find_page(0, 0) == 0


@pytest.mark.parametrize("priority", [6, 5, 3, 2, 1])
def test_little_effort_scans_a_part_of_the_list(kernel: Kernel, priority: int) -> None:
    pages, freed = cached(kernel, 20), FreedFrames(kernel)
    wanted = kernel.vmscan.shrink_cache(32, zone_of(kernel), GFP_KERNEL, priority)
    assert freed.pfns == pfns(kernel, pages[: 20 // priority])
    assert wanted == 32 - 20 // priority


def test_frames_in_use_are_passed_over(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    swap_out, memmap = SwapOutCalls(kernel.vmscan, monkeypatch), kernel.allocator.memmap
    pages, freed = cached(kernel, 20), FreedFrames(kernel)
    memmap.set_bit(pages[0], PG_LOCKED)
    memmap.set_count(pages[1], 2)
    assert kernel.vmscan.shrink_cache(3, zone_of(kernel), GFP_KERNEL, 1) == 0
    assert freed.pfns == pfns(kernel, pages[2:5])
    # Those two were put in front.
    inactive = lru_list(kernel, kernel.allocator.lru.inactive_list)
    assert (inactive[:2], inactive[2:]) == ([pages[1], pages[0]], pages[:4:-1])
    assert not swap_out.zones


@pytest.mark.parametrize(
    ("frames", "mapped", "wanted", "priority", "freed", "swaps"),
    [
        (100, 10, 32, 1, 32, 0),  # a tenth of the list may be mapped ...
        (100, 11, 32, 1, 0, 1),  # ... one more, and processes have to give up theirs
        (100, 2, 32, 5, 18, 0),
        (100, 3, 32, 5, 0, 1),
        (9, 1, 8, 1, 0, 1),
        (100, 0, 200, 1, 100, 0),
    ],
)
def test_too_many_mapped_frames_start_swapping(
    kernel: Kernel,
    frames: int,
    mapped: int,
    wanted: int,
    priority: int,
    freed: int,
    swaps: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    swap_out = SwapOutCalls(kernel.vmscan, monkeypatch)
    pages, notes = cached(kernel, frames), FreedFrames(kernel)
    for page in pages[:mapped]:
        kernel.allocator.memmap.set_count(page, 2)
    left = kernel.vmscan.shrink_cache(wanted, zone_of(kernel), GFP_KERNEL, priority)
    assert (len(notes.pfns), left) == (freed, wanted - freed)
    assert swap_out.zones == ["DMA"] * swaps


def test_a_frame_of_a_higher_zone_does_not_help() -> None:
    kernel = boot(KernelConfig(ram=70 * MIB, highmem=Highmem.GB4, highmem_pages=6 << 8))
    space, freed = new_space(kernel), FreedFrames(kernel)
    high, normal, dma = (
        cache_page(kernel, space, index, gfp)
        for index, gfp in enumerate([GFP_HIGHUSER, GFP_ATOMIC, GFP_ATOMIC | GFP_DMA])
    )
    vmscan = kernel.vmscan
    for name, page in [("DMA", dma), ("Normal", normal), ("HighMem", high)]:
        assert kernel.allocator.page_zone(page).name == name
        assert vmscan.shrink_cache(3, zone_of(kernel, name), GFP_KERNEL, 1) == 2
        assert freed.pfns.pop() == kernel.allocator.memmap.pfn(page)


def test_a_frame_of_another_node_does_not_help() -> None:
    kernel = boot(KernelConfig(ram=64 * MIB, nodes=2))
    page = cache_page(kernel, new_space(kernel), 0)
    other = next(
        zone
        for zone in for_each_zone(kernel.image)
        if zone.view.zone_pgdat != kernel.allocator.page_zone(page).view.zone_pgdat
        and zone.name == "Normal"
    )
    classzone = kernel.allocator.zone(other.vaddr)
    assert kernel.vmscan.shrink_cache(1, classzone, GFP_KERNEL, 1) == 1
    assert kernel.vmscan.shrink_cache(1, kernel.allocator.page_zone(page), GFP_KERNEL, 1) == 0


@pytest.mark.parametrize("flag", [PG_ACTIVE, None])
def test_a_frame_on_the_wrong_list_is_a_bug(kernel: Kernel, flag: int | None) -> None:
    (page,) = cached(kernel, 1)
    memmap = kernel.allocator.memmap
    memmap.set_flags(page, memmap.flags(page) | 1 << flag if flag else 0)
    with pytest.raises(KernelBug, match=f"frame {memmap.pfn(page):#x} is on the wrong"):
        kernel.vmscan.shrink_cache(1, zone_of(kernel), GFP_KERNEL, 1)


# -- writing, and the masks that forbid it -------------------------------------------------------


@pytest.mark.book("6.4")
@pytest.mark.parametrize(
    ("gfp", "writes"),
    [
        (GFP_KERNEL, True),
        (GFP_USER, True),
        (GFP_HIGHUSER, True),
        (GFP_NOFS, False),
        (GFP_NOIO, False),
        (GFP_NOHIGHIO, False),
        (GFP_ATOMIC, False),
    ],
)
def test_only_a_mask_with_fs_lets_dirty_frames_be_written(
    kernel: Kernel, gfp: int, writes: bool
) -> None:
    page, freed, memmap = swap_page(kernel, b"dirty"), FreedFrames(kernel), kernel.allocator.memmap
    slot = kernel.swap_cache.entry(page) >> 8
    blank = bytes(kernel.swap_areas.disks[0])
    # A dirty frame is not freed in the round that writes it.
    assert kernel.vmscan.shrink_cache(1, zone_of(kernel), gfp, 1) == 1
    assert memmap.test(page, PG_DIRTY) == (not writes)
    assert not freed.pfns
    assert not memmap.test(page, PG_LOCKED)
    assert not memmap.test(page, PG_LAUNDER)
    assert memmap.count(page) == 1
    if writes:
        assert kernel.swap_areas.disks[0][slot * 4096 :][:5] == b"dirty"
    else:
        assert kernel.swap_areas.disks[0] == blank
    assert kernel.vmscan.shrink_cache(1, zone_of(kernel), gfp, 1) == 1 - writes
    assert bool(freed.pfns) == writes
    assert kernel.swap_areas.counts(0)[slot] == (1 if writes else 2)


def test_what_nobody_wants_any_more_is_not_written(kernel: Kernel) -> None:
    page, freed = swap_page(kernel, b"orphan"), FreedFrames(kernel)
    entry = kernel.swap_cache.entry(page)
    kernel.swap_areas.swap_free(entry)  # the PTE that had the slot is gone; the cache has it
    pages = int(kernel.statics.nr_swap_pages)
    kernel.vmscan.shrink_cache(1, zone_of(kernel), GFP_KERNEL, 1)
    assert freed.pfns == pfns(kernel, [page])
    assert kernel.statics.nr_swap_pages == pages + 1
    assert b"orphan" not in kernel.swap_areas.disks[0]
    assert not kernel.swap_cache.lookup(entry)


def test_a_dirty_frame_of_a_file_stays(kernel: Kernel) -> None:
    """No file system is modelled, so nobody can write it; it must not go to a swap slot."""
    (page,), freed = cached(kernel, 1), FreedFrames(kernel)
    kernel.page_cache.set_page_dirty(page)
    kernel.ram.write(kernel.allocator.memmap.pfn(page) << 12, b"file")
    for _ in range(3):
        assert kernel.vmscan.shrink_cache(1, zone_of(kernel), GFP_KERNEL, 1) == 1
    assert kernel.allocator.memmap.test(page, PG_DIRTY)
    assert not kernel.allocator.memmap.test(page, PG_LOCKED)
    assert not freed.pfns
    assert not any(kernel.swap_areas.disks[0])


# -- kswapd --------------------------------------------------------------------------------------


def fill_with_cache(kernel: Kernel, gfp: int, until: Callable[[], bool]) -> None:
    space, index = new_space(kernel), 0
    while not until():
        assert cache_page(kernel, space, index, gfp)
        index += 1


@pytest.mark.book("2.2.1", "6.2")
def test_kswapd_wakes_below_pages_low_and_stops_above_pages_high(kernel: Kernel) -> None:
    zone, vmscan = zone_of(kernel), kernel.vmscan
    low, high = int(zone.view.pages_low), int(zone.view.pages_high)
    # The last allocation that leaves kswapd alone is the one that leaves pages_low + 1 frames.
    fill_with_cache(kernel, GFP_ATOMIC, lambda: zone.free_pages == low + 1)
    assert (vmscan.kswapd_awake, zone.view.need_balance) == (False, 0)
    vmscan.kswapd()
    assert zone.free_pages == low + 1
    kernel.allocator.alloc_page(GFP_ATOMIC)
    assert (vmscan.kswapd_awake, zone.view.need_balance) == (True, 1)
    vmscan.kswapd()
    assert (vmscan.kswapd_awake, zone.view.need_balance) == (False, 0)
    assert high < zone.free_pages <= high + 32
    assert not kernel.allocator.current.flags & PF_MEMALLOC


def test_kswapd_gives_up_where_nothing_can_be_freed(kernel: Kernel) -> None:
    zone = zone_of(kernel)
    while zone.free_pages > zone.view.pages_low:
        kernel.allocator.alloc_page(GFP_ATOMIC)
    kernel.vmscan.kswapd()
    assert (kernel.vmscan.kswapd_awake, zone.view.need_balance) == (False, 0)
    assert zone.free_pages <= zone.view.pages_low


def test_a_class_is_balanced_when_a_lower_zone_has_plenty() -> None:
    """``check_classzone_need_balance()``: Normal is empty, but DMA serves its class as well."""
    kernel = boot(KernelConfig(ram=20 * MIB))
    normal, dma = zone_of(kernel, "Normal"), zone_of(kernel)
    fill_with_cache(kernel, GFP_ATOMIC, lambda: kernel.vmscan.kswapd_awake)
    while normal.rmqueue(0):
        pass
    assert normal.free_pages == 0
    assert dma.free_pages > dma.view.pages_high
    normal.view.need_balance = 1
    freed = FreedFrames(kernel)
    kernel.vmscan.kswapd()
    assert len(freed.pfns) == 32  # one round
    assert normal.view.need_balance == 0


def test_kswapd_goes_over_each_node_from_its_highest_zone_down() -> None:
    kernel = boot(KernelConfig(ram=64 * MIB, nodes=2))
    asked: list[tuple[int, str]] = []

    def asking(classzone: int, gfp_mask: int) -> int:
        zone = Zone(kernel.image, classzone)
        asked.append((zone.number // 3, zone.name))
        return 0

    kernel.vmscan.try_to_free_pages_zone = asking  # type: ignore[method-assign]
    for zone in for_each_zone(kernel.image):
        zone.view.need_balance = 1
    kernel.vmscan.wake_kswapd()
    kernel.vmscan.kswapd()
    nodes = [kernel.allocator.pgdats().index(pgdat) for pgdat in kernel.allocator.pgdats()]
    order = [
        int(kernel.image.at(kernel.image.structs.pg_data_t, p).node_id)
        for p in kernel.allocator.pgdats()
    ]
    assert len(nodes) == 2
    expected = {0: [(0, "Normal"), (0, "DMA")], 1: [(1, "Normal")]}
    assert asked == [zone for node in order for zone in expected[node]]


# -- memory is out -------------------------------------------------------------------------------

REFUSED = 0
LOOPS = EndlessLoop


@pytest.mark.book("6.4", "6.5")
@pytest.mark.parametrize(
    ("gfp", "flags", "order", "left", "outcome"),
    [
        # May not wait: NULL, once a quarter of pages_min is left.
        (GFP_ATOMIC, 0, 0, lambda least: least // 4 + 1, REFUSED),
        (GFP_ATOMIC | GFP_DMA, 0, 0, lambda least: least // 4 + 1, REFUSED),
        (0, 0, 0, lambda least: least // 4 + 1, REFUSED),
        # May wait: leaves pages_min alone, and tries for ever.
        (GFP_KERNEL, 0, 0, lambda least: least + 1, LOOPS),
        (GFP_USER, 0, 0, lambda least: least + 1, LOOPS),
        (GFP_HIGHUSER, 0, 0, lambda least: least + 1, LOOPS),
        (GFP_NOFS, 0, 0, lambda least: least + 1, LOOPS),
        (GFP_NOIO, 0, 0, lambda least: least + 1, LOOPS),
        # A block of 16 is not worth that.
        (GFP_KERNEL, 0, 4, None, REFUSED),
        (GFP_KERNEL, 0, 3, None, LOOPS),
        # Who frees memory, or dies, may have the last frame.
        (GFP_ATOMIC, PF_MEMALLOC, 0, lambda least: 0, REFUSED),
        (GFP_KERNEL, PF_MEMALLOC, 0, lambda least: 0, REFUSED),
        (GFP_KERNEL, PF_MEMDIE, 0, lambda least: 0, REFUSED),
    ],
)
def test_each_mask_is_refused_by_its_rules(
    gfp: int,
    flags: int,
    order: int,
    left: Callable[[int], int] | None,
    outcome: int | type[EndlessLoop],
) -> None:
    kernel = boot(KernelConfig(ram=6 * MIB))
    zone, allocator = zone_of(kernel), kernel.allocator
    allocator.current.flags |= flags
    found: int | type[EndlessLoop] = REFUSED
    try:
        while allocator.alloc_pages(gfp, order):
            pass
    except EndlessLoop:
        found = LOOPS
    assert found is outcome
    if left:
        assert zone.free_pages == left(int(zone.view.pages_min))
    assert allocator.current.flags == flags
    assert allocator.current.nr_local_pages == 0


def test_a_frame_freed_in_ones_own_name_is_kept_for_oneself(kernel: Kernel) -> None:
    """Direct reclaim: the first frame freed is held back and is what the caller gets."""
    zone, allocator = zone_of(kernel), kernel.allocator
    pages = cached(kernel, 300)
    while allocator.alloc_page(GFP_ATOMIC):
        pass
    freed = FreedFrames(kernel)
    page = allocator.alloc_page(GFP_KERNEL)
    assert page == pages[0]
    # 32 were freed: 31 went to the free lists, and the first one changed hands.
    assert sorted(freed.pfns) == sorted(pfns(kernel, pages[:32]))
    assert zone.free_pages == zone.view.pages_min // 4 + 1 + 31
    assert allocator.memmap.count(page) == 1
    assert allocator.current.nr_local_pages == 0


def test_an_allocation_that_may_not_write_is_helped_by_kswapd(kernel: Kernel) -> None:
    """GFP_NOFS frees nothing itself when all is dirty; it yields, and kswapd writes."""
    while kernel.allocator.nr_free_pages() > 2 * zone_of(kernel).view.pages_min:
        if not kernel.statics.nr_swap_pages:
            break
        swap_page(kernel, b"x")
    while kernel.allocator.alloc_page(GFP_ATOMIC):
        pass
    zone = zone_of(kernel)
    assert kernel.vmscan.try_to_free_pages_zone(zone.vaddr, GFP_NOFS) == 0
    assert not any(kernel.swap_areas.disks[0])
    assert kernel.allocator.alloc_page(GFP_NOFS)
    assert any(kernel.swap_areas.disks[0])


def test_frames_that_processes_map_are_swapped_out_for_a_request() -> None:
    kernel = boot(KernelConfig(ram=6 * MIB, swap_pages=200))
    spaces = UserSpaces(kernel)
    pgd = spaces.start()
    number, low = 0, int(kernel.statics.nr_swap_pages)
    while kernel.statics.nr_swap_pages == low:
        assert spaces.new_page(pgd, 0x08048000 + (number << 12), 0x67) > 0
        number += 1
    assert kernel.allocator.nr_free_pages() > 0
    for _ in range(100):
        assert spaces.new_page(pgd, 0x08048000 + (number << 12), 0x67) > 0
        number += 1
    assert low - kernel.statics.nr_swap_pages >= 100
