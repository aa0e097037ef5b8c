# SPDX-License-Identifier: GPL-2.0-or-later
"""Objects and slabs in 2.4: which list a slab stands on, and what a cache notes when it grows.

Models linux-2.4.22 ``mm/slab.c: kmem_cache_alloc_one_tail()``, ``kmem_cache_free_one()``,
``kmem_cache_grow()`` (book 8.2.2, 8.3). In RAM: ``growing``, ``dflags`` and ``failures`` of a
cache. A slab moves when it becomes full, empty, or ceases to be either.
"""

from collections.abc import Callable

from kernel_model.arch_i386.page import PAGE_OFFSET
from kernel_model.image import KernelImage
from kernel_model.mm.slab.cache import Cache, align_up
from kernel_model.mm.slab.flags import SLAB_ATOMIC
from kernel_model.mm.slab.linux_2_4.constants import DFLGS_GROWN, LINUX_2_4
from kernel_model.mm.slab.linux_2_4.debug import SlabDebug24
from kernel_model.mm.slab.objects import Frames, Objects, PageSource


class Objects24(Objects):
    """Objects and slabs of 2.4."""

    debug: SlabDebug24 | None

    def __init__(self, image: KernelImage, frames: Frames, pages: PageSource) -> None:
        super().__init__(image, frames, pages, LINUX_2_4, SlabDebug24(image, LINUX_2_4))
        self._line = image.config.l1_cache_bytes
        self._bufctl_end = LINUX_2_4.bufctl_end

    def take(self, cache: Cache) -> int:
        """``kmem_cache_alloc_one()``: from a partial slab, else a free one; 0: none has any."""
        where, words = self._where, self._words
        slabs_partial = cache.vaddr + where.slabs_partial
        slab = words[slabs_partial - PAGE_OFFSET >> 2]
        if slab == slabs_partial:
            slabs_free = cache.vaddr + where.slabs_free
            slab = words[slabs_free - PAGE_OFFSET >> 2]
            if slab == slabs_free:
                return 0
            self._lists.delete(slab)
            self._lists.add(slab, slabs_partial)
        objp = self.take_from(cache, slab)
        if words[(slab - PAGE_OFFSET >> 2) + where.free] == self._bufctl_end:
            self._lists.delete(slab)
            self._lists.add(slab, cache.vaddr + where.slabs_full)
        if self.debug is not None:
            return self.debug.allocated(cache, slab, objp)
        return objp

    def put(self, cache: Cache, objp: int) -> None:
        """``kmem_cache_free_one()``: back into its slab, at the head of its free objects."""
        where = self._where
        slab = self.page_slab_of(objp)
        if self.debug is not None:
            objp = self.debug.freed(cache, slab, objp, self.functions)
        inuse = self.put_into(cache, slab, objp)
        if not inuse:
            self._lists.delete(slab)
            self._lists.add(slab, cache.vaddr + where.slabs_free)
        elif inuse == self._words[cache.base + where.num] - 1:
            self._lists.delete(slab)
            self._lists.add(slab, cache.vaddr + where.slabs_partial)

    def _is_atomic(self, level: int) -> bool:
        return level == SLAB_ATOMIC

    def _add_slab(
        self,
        cache: Cache,
        flags: int,
        colour_off: int,
        ctor_flags: int,
        alloc: Callable[[Cache, int], int],
        pages: PageSource,
    ) -> bool:
        view = cache.view
        view.dflags |= DFLGS_GROWN
        view.growing += 1
        try:
            added = super()._add_slab(cache, flags, colour_off, ctor_flags, alloc, pages)
        finally:
            view.growing -= 1
        if added:
            view.failures = 0
        return added

    def _slab_size(self, cache: Cache) -> int:
        return align_up(cache.num * 4 + self._image.structs.slab_t.size, self._line)
