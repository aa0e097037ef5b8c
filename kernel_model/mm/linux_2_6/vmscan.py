# SPDX-License-Identifier: GPL-2.0-or-later
"""When frames are taken back: by a kswapd for each node, and by an allocation in its own name.

Models linux-2.6.11 ``mm/vmscan.c``: ``try_to_free_pages()``, ``balance_pgdat()``, ``kswapd()``
(book 2.8, 6.7). In RAM: the zones' ``temp_priority``, ``prev_priority``, ``all_unreclaimable``; the
node's ``kswapd_max_order``. How a zone is shrunk stands in
:mod:`kernel_model.mm.linux_2_6.shrink`.

What can fail: a kernel that finds nothing to reclaim calls ``out_of_memory()``; when that kills
nobody either, nothing will ever change, an :class:`~kernel_model.errors.EndlessLoop`.
"""

from collections.abc import Callable, Sequence
from typing import Final

from kernel_model.errors import EndlessLoop
from kernel_model.image import KernelImage
from kernel_model.mm.gfp import PF_MEMALLOC
from kernel_model.mm.linux_2_6.mmzone import Zone26
from kernel_model.mm.linux_2_6.page_alloc import PageAllocator26
from kernel_model.mm.linux_2_6.shrink import SWAP_CLUSTER_MAX, ScanControl, Shrinker
from kernel_model.structs.mmzone import MAX_NR_ZONES

DEF_PRIORITY: Final = 12
"""Of a list a 4096th is looked at first, then twice as much, to the whole."""
_FRUITLESS: Final = 4
"""Waits in a row without one more free frame, after which nothing will ever change."""

ShrinkSlab = Callable[[int, int, int], int]
"""``shrink_slab(scanned, gfp_mask, lru_pages)``: frames that caches of objects gave back."""


class Vmscan26:
    """Reclaim of one machine. It answers the page allocator as its ``Reclaim``."""

    def __init__(
        self,
        image: KernelImage,
        allocator: PageAllocator26,
        shrinker: Shrinker,
        out_of_memory: Callable[[int], bool],
        shrink_slab: ShrinkSlab = lambda scanned, gfp_mask, lru_pages: 0,
    ) -> None:
        self._image = image
        self._allocator = allocator
        self._state = allocator.page_state
        self.shrinker = shrinker
        self._out_of_memory = out_of_memory
        self._shrink_slab = shrink_slab
        self._zone_bytes = image.structs.zone_t.size
        self._awake: list[int] = []
        self._running: set[int] = set()
        self._free_at_last_wait, self._fruitless = -1, 0

    # -- what the page allocator asks ----------------------------------------------------------

    def wake_kswapd(self, pgdat: int) -> None:
        """It runs when somebody waits, or when :meth:`kswapd` is called. One that runs is on no
        wait queue: it sees by ``kswapd_max_order`` whether there is more to do."""
        if pgdat not in self._awake and pgdat not in self._running:
            self._awake.append(pgdat)

    def out_of_memory(self, gfp_mask: int) -> None:
        """``try_to_free_pages()`` takes naps, in which kswapd runs; here it does so now, and nobody
        is killed when it found something."""
        free = self._allocator.nr_free_pages()
        self.kswapd()
        if self._allocator.nr_free_pages() > free:
            return
        if not self._out_of_memory(gfp_mask):
            self._wait("__alloc_pages: memory is out, and there is nobody to kill")

    def congestion_wait(self) -> None:
        self._wait("__alloc_pages: nothing can be reclaimed and nobody will free any")

    def yield_cpu(self) -> None:
        self._wait("nothing can be reclaimed and nobody will free any")

    def _wait(self, hopeless: str) -> None:
        """Others run: kswapd, where it was woken."""
        self.kswapd()
        free = self._allocator.nr_free_pages()
        self._fruitless = self._fruitless + 1 if free <= self._free_at_last_wait else 0
        self._free_at_last_wait = free
        if self._fruitless >= _FRUITLESS:
            self._fruitless = 0
            raise EndlessLoop(hopeless)

    # -- in one's own name ---------------------------------------------------------------------

    def try_to_free_pages(self, zones: Sequence[int], gfp_mask: int, order: int) -> int:
        """Look for 32 frames in the zones that serve an allocation, with ever more effort. 1: they
        were there."""
        found = [self._allocator.zone(zone) for zone in zones]
        self._state.add("allocstall")
        for zone in found:
            zone.view.temp_priority = DEF_PRIORITY
        lru_pages = sum(int(zone.view.nr_active) + int(zone.view.nr_inactive) for zone in found)
        enough = False
        for priority in range(DEF_PRIORITY, -1, -1):
            control = self._control(priority, gfp_mask, kswapd=False)
            self._shrink_caches(found, control)
            control.nr_reclaimed += self._shrink_slab(control.nr_scanned, gfp_mask, lru_pages)
            enough = control.nr_reclaimed >= SWAP_CLUSTER_MAX
            if enough:
                break
        for zone in found:
            zone.view.prev_priority = zone.view.temp_priority
        return int(enough)

    def _control(self, priority: int, gfp_mask: int, *, kswapd: bool) -> ScanControl:
        return ScanControl(priority, gfp_mask, self._state.total("nr_mapped"), kswapd)

    def _shrink_caches(self, zones: Sequence[Zone26], control: ScanControl) -> None:
        """A zone in which nothing could be reclaimed is only glanced at."""
        for zone in zones:
            if not zone.present_pages:
                continue
            self._note_priority(zone, control.priority)
            if not zone.view.all_unreclaimable or control.priority == DEF_PRIORITY:
                self.shrinker.shrink_zone(zone, control)

    def _note_priority(self, zone: Zone26, priority: int) -> None:
        zone.view.temp_priority = priority
        zone.view.prev_priority = min(int(zone.view.prev_priority), priority)

    # -- kswapd --------------------------------------------------------------------------------

    def kswapd(self) -> None:
        """Let the daemons that were woken run, until their zones are above ``pages_high``."""
        current = self._allocator.current
        had = current.flags & PF_MEMALLOC
        while self._awake:
            pgdat = self._awake.pop(0)
            current.flags |= PF_MEMALLOC
            self._running.add(pgdat)
            try:
                self._balance_for_orders(pgdat)
            finally:
                self._running.discard(pgdat)
                current.flags = current.flags & ~PF_MEMALLOC & 0xFFFFFFFF | had

    def _balance_for_orders(self, pgdat: int) -> None:
        """From waking up to sleep: balance once more if meanwhile a larger order was wanted."""
        node = self._image.at(self._image.structs.pg_data_t, pgdat)
        order = int(node.kswapd_max_order)
        while True:
            self.balance_pgdat(pgdat, order)
            wanted, node.kswapd_max_order = int(node.kswapd_max_order), 0
            if wanted <= order:
                return
            order = wanted

    def balance_pgdat(self, pgdat: int, order: int) -> int:
        """Shrink the zones of a node until each has enough. Returns how many frames were freed.

        Where a whole pass over all priorities frees nothing, the kernel begins anew for ever, or
        until somebody else frees memory; here it goes to sleep.
        """
        zones = [self._allocator.zone(pgdat + n * self._zone_bytes) for n in range(MAX_NR_ZONES)]
        total = 0
        while True:
            self._state.add("pageoutrun")
            for zone in zones:
                zone.view.temp_priority = DEF_PRIORITY
            all_ok, reclaimed = self._balance_once(zones, order)
            for zone in zones:
                zone.view.prev_priority = zone.view.temp_priority
            total += reclaimed
            if all_ok or not reclaimed:
                return total

    def _balance_once(self, zones: Sequence[Zone26], order: int) -> tuple[bool, int]:
        """One pass, from low effort to high: whether all zones have enough, and what was freed."""
        reclaimed = 0
        for priority in range(DEF_PRIORITY, -1, -1):
            end_zone = self._highest_in_need(zones, order, priority)
            if end_zone < 0:
                return True, reclaimed
            all_ok = True
            lru_pages = sum(
                int(zone.view.nr_active) + int(zone.view.nr_inactive)
                for zone in zones[: end_zone + 1]
            )
            for zone in zones[: end_zone + 1]:
                if self._dead(zone, priority):
                    continue
                if not self._enough(zone, order, end_zone):
                    all_ok = False
                reclaimed += self._balance_zone(zone, priority, lru_pages)
            if all_ok:
                return True, reclaimed
            if reclaimed >= SWAP_CLUSTER_MAX:
                break
        return False, reclaimed

    def _balance_zone(self, zone: Zone26, priority: int, lru_pages: int) -> int:
        self._note_priority(zone, priority)
        control = self._control(priority, self._image.constants.gfp.kernel, kswapd=True)
        self.shrinker.shrink_zone(zone, control)
        freed = self._shrink_slab(control.nr_scanned, control.gfp_mask, lru_pages)
        view = zone.view
        on_lists = int(view.nr_active) + int(view.nr_inactive)
        if not view.all_unreclaimable and int(view.pages_scanned) >= on_lists * 4:
            view.all_unreclaimable = 1
        return control.nr_reclaimed + freed

    def _dead(self, zone: Zone26, priority: int) -> bool:
        """No frames, or none that could be reclaimed: only the first glance is worth it."""
        unreclaimable = bool(zone.view.all_unreclaimable) and priority != DEF_PRIORITY
        return not zone.present_pages or unreclaimable

    def _enough(self, zone: Zone26, order: int, classzone_idx: int) -> bool:
        buddy = self._allocator.zone(zone.vaddr)
        return buddy.watermark_ok(order, int(zone.view.pages_high), classzone_idx)

    def _highest_in_need(self, zones: Sequence[Zone26], order: int, priority: int) -> int:
        """The last zone that is not above its high mark; those below are balanced with it. -1:
        none."""
        for number in range(len(zones) - 1, -1, -1):
            zone = zones[number]
            if not self._dead(zone, priority) and not self._enough(zone, order, 0):
                return number
        return -1
