# SPDX-License-Identifier: GPL-2.0-or-later
"""Getting the frames of one zone back, from whoever has them.

Models linux-2.6.11 ``mm/vmscan.c``: ``shrink_zone()``, ``refill_inactive_zone()``,
``shrink_cache()``, ``shrink_list()``, ``pageout()`` (book 2.8, 3.10). Frames are taken off a list
in batches of 32 and looked at while they are on none. The reverse map says whether a frame was
used, and takes it away from every process. In RAM: the zone's lists, ``nr_scan_active``,
``nr_scan_inactive``, ``pages_scanned``; the frames. Writing takes no time here: a frame that is
written is clean when the call returns, and goes in the same round.

What can fail: a frame on a list without PG_lru is a :class:`~kernel_model.errors.KernelBug`.
"""

from dataclasses import dataclass
from typing import Final

from kernel_model.arch_i386.page import PAGE_OFFSET
from kernel_model.errors import KernelBug
from kernel_model.image import KernelImage
from kernel_model.lists import Lists
from kernel_model.mm.linux_2_6.mmzone import Zone26
from kernel_model.mm.linux_2_6.page_alloc import PageAllocator26
from kernel_model.mm.linux_2_6.page_state import ZONE_SUFFIXES
from kernel_model.mm.linux_2_6.swap_state import SwapCache26
from kernel_model.mm.rmap.interface import ReverseWalk, SwapResult
from kernel_model.mm.shmem.shmem import WRITEPAGE_ACTIVATE

SWAP_CLUSTER_MAX: Final = 32
VM_SWAPPINESS: Final = 60
"""``vm_swappiness``, 0 to 100: how soon pages of processes go, rather than those of files."""


@dataclass
class ScanControl:
    """``struct scan_control``: how hard to look, and what came of it."""

    priority: int
    gfp_mask: int
    nr_mapped: int
    kswapd: bool
    nr_scanned: int = 0
    nr_reclaimed: int = 0
    nr_to_reclaim: int = SWAP_CLUSTER_MAX

    @property
    def searcher(self) -> str:
        """Who scans, as the counters of ``/proc/vmstat`` call it."""
        return "kswapd" if self.kswapd else "direct"


class Shrinker:
    """``shrink_zone()`` of one machine."""

    def __init__(
        self,
        image: KernelImage,
        allocator: PageAllocator26,
        swap: SwapCache26,
        walk: ReverseWalk,
    ) -> None:
        self._image = image
        self._words = image.ram.words
        self._allocator = allocator
        self._memmap = allocator.memmap
        self._lru = allocator.lru
        self._lists = Lists(image.ram)
        self._swap = swap
        self._cache = swap.cache
        self._pages = swap.cache.pages
        self._walk = walk
        self._state = allocator.page_state
        self._gfp = image.constants.gfp
        flags = image.constants.page_flags
        self._pg_lru, self._active, self._locked = flags.lru, flags.active, flags.locked
        self._dirty, self._writeback = flags.dirty, flags.writeback
        structs = image.structs
        self._link = structs.page.offset("lru")
        self._a_ops = structs.address_space.word("a_ops")
        self._writepage = structs.address_space_operations.word("writepage")
        self._i_mmap = structs.address_space.word("i_mmap")
        self._i_mmap_nonlinear = structs.address_space.offset("i_mmap_nonlinear")
        zone = structs.zone_t
        self._active_list = zone.offset("active_list")
        self._inactive_list = zone.offset("inactive_list")
        self.total_memory = allocator.nr_free_pagecache_pages()

    # -- a zone --------------------------------------------------------------------------------

    def shrink_zone(self, zone: Zone26, control: ScanControl) -> None:
        """Age both lists by a part that doubles with each step of priority. Scans of less than
        32 frames are saved up."""
        view = zone.view
        view.nr_scan_active += (int(view.nr_active) >> control.priority) + 1
        view.nr_scan_inactive += (int(view.nr_inactive) >> control.priority) + 1
        active, inactive = int(view.nr_scan_active), int(view.nr_scan_inactive)
        active = active if active >= SWAP_CLUSTER_MAX else 0
        inactive = inactive if inactive >= SWAP_CLUSTER_MAX else 0
        view.nr_scan_active = 0 if active else view.nr_scan_active
        view.nr_scan_inactive = 0 if inactive else view.nr_scan_inactive
        control.nr_to_reclaim = SWAP_CLUSTER_MAX
        while active or inactive:
            if batch := min(active, SWAP_CLUSTER_MAX):
                active -= batch
                self.refill_inactive_zone(zone, control, batch)
            if batch := min(inactive, SWAP_CLUSTER_MAX):
                inactive -= batch
                self.shrink_cache(zone, control, batch)
                if control.nr_to_reclaim <= 0:
                    break

    def _isolate(self, head: int, count: int) -> tuple[list[int], int]:
        """Take up to ``count`` frames from the end of a list off it. Returns those that somebody
        has, the last one first, and how many were looked at."""
        memmap, taken, looked_at = self._memmap, [], 0
        while looked_at < count and not self._lists.empty(head):
            looked_at += 1
            entry = self._lists.last(head)
            page = entry - self._link
            if not memmap.test(page, self._pg_lru):
                pfn = memmap.pfn(page)
                raise KernelBug("vmscan.c", 0, f"frame {pfn:#x} is on a list without PG_lru")
            self._lists.delete(entry)
            if not memmap.count(page):
                # Somebody is about to free it.
                self._lists.add(entry, head)
                continue
            memmap.clear_bit(page, self._pg_lru)
            self._allocator.get_page(page)
            taken.append(page)
        return taken, looked_at

    def _put_back(self, pages: list[int]) -> None:
        """Frames that were looked at go to the front of the list that they belong to now."""
        for page in pages:
            self._memmap.set_bit(page, self._pg_lru)
            if self._memmap.test(page, self._active):
                self._lru.add_page_to_active_list(page)
            else:
                self._lru.add_page_to_inactive_list(page)
        for page in pages:
            self._allocator.put_page(page)

    # -- the active list -----------------------------------------------------------------------

    def refill_inactive_zone(self, zone: Zone26, control: ScanControl, count: int) -> None:
        """Move frames that were not used lately from the active to the inactive list.

        Those that processes map stay, until so much memory is mapped, or so much trouble had,
        that they must go, too.
        """
        pages, scanned = self._isolate(zone.vaddr + self._active_list, count)
        zone.view.pages_scanned += scanned
        zone.view.nr_active -= len(pages)
        reclaim_mapped = self._swap_tendency(zone, control) >= 100
        deactivated = 0
        for page in pages:
            if self._walk.mapped(page) and not (
                reclaim_mapped and self._may_deactivate(page, control)
            ):
                continue
            self._memmap.clear_bit(page, self._active)
            deactivated += 1
        self._put_back(pages)
        self._state.add(f"pgrefill_{ZONE_SUFFIXES[zone.index]}", scanned)
        self._state.add("pgdeactivate", deactivated)

    def _swap_tendency(self, zone: Zone26, control: ScanControl) -> int:
        """From 100 on, pages of processes are taken, too."""
        distress = 100 >> int(zone.view.prev_priority)
        mapped_ratio = control.nr_mapped * 100 // max(self.total_memory, 1)
        return mapped_ratio // 2 + distress + VM_SWAPPINESS

    def _may_deactivate(self, page: int, control: ScanControl) -> bool:
        """A mapped frame that was not used lately, and could be written somewhere."""
        if self._pages.anon(page) and not self._swap.areas.total_swap_pages:
            return False
        return not self._walk.page_referenced(page, is_locked=False)

    # -- the inactive list ---------------------------------------------------------------------

    def shrink_cache(self, zone: Zone26, control: ScanControl, max_scan: int) -> None:
        """Free what can be freed of ``max_scan`` frames from the end of the inactive list."""
        suffix = ZONE_SUFFIXES[zone.index]
        while max_scan > 0:
            head = zone.vaddr + self._inactive_list
            pages, scanned = self._isolate(head, SWAP_CLUSTER_MAX)
            zone.view.nr_inactive -= len(pages)
            zone.view.pages_scanned += scanned
            if not pages:
                break
            max_scan -= scanned
            self._state.add(f"pgscan_{control.searcher}_{suffix}", scanned)
            freed = self.shrink_list(pages, control)
            if control.kswapd:
                self._state.add("kswapd_steal", freed)
            self._state.add(f"pgsteal_{suffix}", freed)
            control.nr_to_reclaim -= freed

    def shrink_list(self, pages: list[int], control: ScanControl) -> int:
        """Free isolated frames; the others go back to their lists. Returns how many were freed."""
        kept, freed, activated = [], [], 0
        for page in pages:
            memmap = self._memmap
            if memmap.test(page, self._locked):
                kept.append(page)
                continue
            memmap.set_bit(page, self._locked)
            control.nr_scanned += 1
            if self._walk.mapped(page) or self._pages.swap_entry(page):
                # Slabs are pressed twice as hard, so that less is swapped.
                control.nr_scanned += 1
            verdict = self._shrink_page(page, control)
            memmap.clear_bit(page, self._locked)
            if verdict is SwapResult.SUCCESS:
                freed.append(page)
                continue
            if verdict is SwapResult.FAIL:
                memmap.set_bit(page, self._active)
                activated += 1
            kept.append(page)
        self._put_back(kept)
        for page in freed:
            self._allocator.put_page(page)
        self._state.add("pgactivate", activated)
        control.nr_reclaimed += len(freed)
        return len(freed)

    def _shrink_page(self, page: int, control: ScanControl) -> SwapResult:
        """What becomes of a locked frame: freed (``SUCCESS``), kept, or activated (``FAIL``)."""
        memmap = self._memmap
        if memmap.test(page, self._writeback):
            return SwapResult.AGAIN
        referenced = self._walk.page_referenced(page, is_locked=True)
        if referenced and self._mapping_in_use(page):
            return SwapResult.FAIL
        homeless = self._pages.anon(page) and not self._pages.swap_entry(page)
        if homeless and not self._swap.add_to_swap(page):
            return SwapResult.FAIL
        mapping = self._pages.page_mapping(page)
        if self._walk.mapped(page) and mapping:
            result = self._walk.try_to_unmap(page)
            if result is not SwapResult.SUCCESS:
                return result
        if memmap.test(page, self._dirty):
            if referenced or not self._may_enter_fs(page, control):
                return SwapResult.AGAIN
            result = self._pageout(page, mapping)
            if result is not SwapResult.SUCCESS:
                return result
            # Writing may have found that nobody wants the slot any more.
            mapping = self._pages.page_mapping(page)
        if not mapping or memmap.count(page) != 2 or memmap.test(page, self._dirty):
            return SwapResult.AGAIN
        self._remove_from_cache(page)
        return SwapResult.SUCCESS

    def _mapping_in_use(self, page: int) -> bool:
        """``page_mapping_inuse()``: a use of it is a reason to keep it."""
        if self._walk.mapped(page) or self._pages.swap_entry(page):
            return True
        mapping = self._pages.page_mapping(page)
        if not mapping:
            return False
        nonlinear = mapping + self._i_mmap_nonlinear
        in_tree = self._words[(mapping - PAGE_OFFSET >> 2) + self._i_mmap]
        return bool(in_tree) or not self._lists.empty(nonlinear)

    def _may_enter_fs(self, page: int, control: ScanControl) -> bool:
        """Whether the caller's GFP mask lets the frame be written."""
        if control.gfp_mask & self._gfp.fs:
            return True
        return bool(self._pages.swap_entry(page) and control.gfp_mask & self._gfp.io)

    def _pageout(self, page: int, mapping: int) -> SwapResult:
        """Write a dirty frame that nobody but its cache and the caller has."""
        memmap = self._memmap
        if memmap.count(page) != 2 or not mapping:
            return SwapResult.AGAIN
        a_ops = self._words[(mapping - PAGE_OFFSET >> 2) + self._a_ops]
        writepage = self._words[(a_ops - PAGE_OFFSET >> 2) + self._writepage] if a_ops else 0
        if not writepage:
            return SwapResult.FAIL
        if self._cache.clear_page_dirty(page):
            if self._image.functions.call(writepage, page) == WRITEPAGE_ACTIVATE:
                return SwapResult.FAIL
            if memmap.test(page, self._locked) or memmap.test(page, self._dirty):
                return SwapResult.AGAIN
            memmap.set_bit(page, self._locked)
        return SwapResult.SUCCESS

    def _remove_from_cache(self, page: int) -> None:
        """The cache's reference ends; the caller's is the last one."""
        if self._pages.swap_entry(page):
            self._swap.remove(page)
        else:
            self._cache.remove_inode_page(page)
        self._allocator.put_page(page)
