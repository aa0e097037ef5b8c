# SPDX-License-Identifier: GPL-2.0-or-later
"""The pool of huge pages: taken from the page allocator ahead of time, and kept.

Models linux-2.6.11 ``mm/hugetlb.c`` (book 3.10). Memory that has run for a while has no free block
of such an order, so the pool is filled at boot (``hugepages=``) or as early as can be
(``/proc/sys/vm/nr_hugepages``). A huge page is one compound page. In use, its second frame names
:meth:`HugePagePool.free_huge_page` as what to do when its last user is gone: it goes back to the
pool, not to the page allocator.

In RAM: a list of free huge pages for each node, how many there are and how many are free.

What can fail: a pool that cannot grow as far as it shall grows as far as it can, but not before
reclaim has done what it can; when that comes to nothing, 2.6.11 kills processes even for this.
:meth:`HugePagePool.alloc_huge_page` returns 0 when none is free. Freeing one that has users is a
:class:`~kernel_model.errors.KernelBug`.
"""

from collections.abc import Iterator
from typing import Final

from kernel_model.arch_i386.page import PAGE_SHIFT
from kernel_model.arch_i386.tlb import Tlb
from kernel_model.errors import KernelBug
from kernel_model.image import KernelImage
from kernel_model.lists import Lists
from kernel_model.mm.hugetlb.geometry import HugePages
from kernel_model.mm.linux_2_6.page_alloc import PageAllocator26
from kernel_model.structs.linux_2_6.hugetlb import MAX_NUMNODES
from kernel_model.structs.mmzone import LIST_HEAD

PURPOSE: Final = "huge page"
"""What the frames of the pool are taken for."""


class HugePagePool:
    """The huge pages of one machine. A huge page is the ``struct page *`` of its first frame."""

    def __init__(self, image: KernelImage, allocator: PageAllocator26, tlb: Tlb) -> None:
        self.huge = HugePages.of(pae=image.config.pae)
        self._image = image
        self._statics = image.statics
        self._words = image.ram.words
        self._events = image.events
        self._lists = Lists(image.ram)
        self._allocator = allocator
        self._memmap = memmap = allocator.memmap
        self._tlb = tlb
        self._link = image.structs.page.offset("lru")
        self._heads = image.symbol("hugepage_freelists")
        gfp, flags = image.constants.gfp, image.constants.page_flags
        self._gfp = gfp.highuser | gfp.comp | gfp.nowarn
        self._stale = flags.mask(
            *("locked", "error", "referenced", "dirty", "active", "reserved", "private"),
            "writeback",
        )
        self._destructor = image.functions.address(self.free_huge_page)
        self._second = memmap.page_bytes
        for nid in range(MAX_NUMNODES):
            self._lists.init(self._head(nid))

    # -- lists ---------------------------------------------------------------------------------

    def _head(self, nid: int) -> int:
        return self._heads + nid * LIST_HEAD.size

    def _page_to_nid(self, page: int) -> int:
        pgdat = int(self._allocator.page_zone(page).view.zone_pgdat)
        return int(self._image.at(self._image.structs.pg_data_t, pgdat).node_id)

    def free_pages(self) -> Iterator[int]:
        """Every free huge page, that of the first node that would be taken next first."""
        for nid in range(MAX_NUMNODES):
            for entry in self._lists.entries(self._head(nid)):
                yield entry - self._link

    def _enqueue_huge_page(self, page: int) -> None:
        nid = self._page_to_nid(page)
        self._lists.add(page + self._link, self._head(nid))
        self._statics.free_huge_pages += 1
        self._statics.free_huge_pages_node[nid] += 1

    def _dequeue(self, page: int) -> None:
        self._lists.delete(page + self._link)
        self._statics.free_huge_pages -= 1
        self._statics.free_huge_pages_node[self._page_to_nid(page)] -= 1

    def _dequeue_huge_page(self) -> int:
        """Of the free ones of the CPU's own node, else of the first that has any, the one that came
        last; 0: there is none."""
        own = self._lists.first(self._head(self._allocator.node_id))
        elsewhere = next(self.free_pages(), 0)
        page = elsewhere if own == self._head(self._allocator.node_id) else own - self._link
        if page:
            self._dequeue(page)
        return page

    # -- using ---------------------------------------------------------------------------------

    def alloc_huge_page(self) -> int:
        """A huge page of zeros with one user; 0: none is free."""
        page = self._dequeue_huge_page()
        if not page:
            return 0
        self._memmap.set_count(page, 1)
        self._set_destructor(page, self._destructor)
        paddr = self._memmap.pfn(page) << PAGE_SHIFT
        self._image.ram.fill(paddr, self.huge.size)
        self._tlb.processor.snoop(paddr, self.huge.size)
        return page

    def free_huge_page(self, page: int) -> None:
        """Back to the pool: called by the last ``put_page()``."""
        if self._memmap.count(page):
            raise KernelBug("hugetlb.c", 79, "a huge page is freed that has users")
        self._lists.init(page + self._link)
        self._set_destructor(page, 0)
        self._enqueue_huge_page(page)

    def _set_destructor(self, page: int, function: int) -> None:
        """``page[1].mapping``."""
        memmap = self._memmap
        self._words[memmap.word(page + self._second, memmap.mapping_word)] = function

    def is_hugepage_mem_enough(self, size: int) -> bool:
        """Whether so many bytes could be had now."""
        return -(-size // self.huge.size) <= int(self._statics.free_huge_pages)

    def hugetlb_total_pages(self) -> int:
        """Frames of the pool, used or not: they are nobody else's."""
        return int(self._statics.nr_huge_pages) << self.huge.order

    # -- size of the pool ----------------------------------------------------------------------

    def hugetlb_init(self) -> None:
        """At boot, as many as ``max_huge_pages`` says, as far as there is memory."""
        statics, wanted = self._statics, int(self._statics.max_huge_pages)
        statics.max_huge_pages = self._grow(wanted)
        if wanted:
            self._image.printk(f"Total HugeTLB memory allocated, {int(statics.free_huge_pages)}\n")

    def hugetlb_sysctl_handler(self, count: int) -> None:
        """Somebody wrote ``count`` to ``/proc/sys/vm/nr_hugepages``, where the result shows."""
        self._statics.max_huge_pages = self.set_max_huge_pages(count)

    def set_max_huge_pages(self, count: int) -> int:
        """Grow or shrink; those in use stay. Returns how many there are."""
        if count > self._statics.nr_huge_pages:
            return self._grow(count)
        self._try_to_free_low(count)
        while count < self._statics.nr_huge_pages:
            page = self._dequeue_huge_page()
            if not page:
                break
            self._update_and_free_page(page)
        return int(self._statics.nr_huge_pages)

    def _grow(self, count: int) -> int:
        while count > self._statics.nr_huge_pages:
            page = self._alloc_fresh_huge_page()
            if not page:
                break
            self._enqueue_huge_page(page)
        return int(self._statics.nr_huge_pages)

    def _alloc_fresh_huge_page(self) -> int:
        """A block from the page allocator, from each node in turn; 0: there is none.

        A CPU that has no large pages could not use it.
        """
        if not self._image.config.features.pse:
            return 0
        pgdats = self._allocator.pgdats()
        turn = int(self._statics.huge_page_next_nid)
        page = self._allocator.alloc_pages_pgdat(pgdats[turn], self._gfp, self.huge.order)
        self._statics.huge_page_next_nid = (turn + 1) % len(pgdats)
        if page:
            self._events.frame_taken(self._memmap.pfn(page), self.huge.order, PURPOSE)
            self._statics.nr_huge_pages += 1
            self._statics.nr_huge_pages_node[self._page_to_nid(page)] += 1
        return page

    def _try_to_free_low(self, count: int) -> None:
        """A kernel with high memory gives back its low memory first: the rest of it needs that."""
        if not self._image.structs.abi.highmem:
            return
        highmem = self._image.constants.page_flags.highmem
        for page in list(self.free_pages()):
            if count >= self._statics.nr_huge_pages:
                return
            if not self._memmap.test(page, highmem):
                self._dequeue(page)
                self._update_and_free_page(page)

    def _update_and_free_page(self, page: int) -> None:
        """A free one leaves the pool."""
        memmap = self._memmap
        self._statics.nr_huge_pages -= 1
        self._statics.nr_huge_pages_node[self._page_to_nid(page)] -= 1
        for frame in range(page, page + (memmap.page_bytes << self.huge.order), memmap.page_bytes):
            memmap.set_flags(frame, memmap.flags(frame) & ~self._stale)
            memmap.set_count(frame, 0)
        memmap.set_count(page, 1)
        self._allocator.free_pages(page, self.huge.order)
