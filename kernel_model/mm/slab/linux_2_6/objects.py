# SPDX-License-Identifier: GPL-2.0-or-later
"""Objects and slabs in 2.6: lists with a count of what is free, and slabs that go by RCU.

Models linux-2.6.11 ``mm/slab.c: free_block()``, ``cache_grow()``, ``kmem_getpages()``,
``slab_destroy()`` (book 8.8). In RAM: ``free_objects`` of a cache's ``struct kmem_list3``,
``page_state.nr_slab``, ``slab_reclaim_pages``, and a ``struct slab_rcu`` over the descriptor of a
slab that waits for its grace period.

What can fail: with CONFIG_DEBUG_SLAB an object that is freed twice is a
:class:`~kernel_model.mm.slab.debug.BadObject`.
"""

from collections.abc import Callable

from kernel_model.arch_i386.page import PAGE_OFFSET, virt_to_phys
from kernel_model.image import KernelImage
from kernel_model.mm.linux_2_6.page_state import PageState
from kernel_model.mm.slab.cache import Cache
from kernel_model.mm.slab.debug import BadObject
from kernel_model.mm.slab.linux_2_6.constants import (
    BUFCTL_FREE,
    LINUX_2_6,
    SLAB_DESTROY_BY_RCU,
    SLAB_RECLAIM_ACCOUNT,
)
from kernel_model.mm.slab.linux_2_6.debug import SlabDebug26
from kernel_model.mm.slab.linux_2_6.rcu import Rcu
from kernel_model.mm.slab.objects import Frames, Objects, PageSource


class Cache26(Cache):
    """A ``kmem_cache_t`` of 2.6, which points to its name."""

    __slots__ = ()

    @property
    def name(self) -> str:
        paddr = virt_to_phys(int(self.view.name))
        text = bytes(self.image.ram.bytes[paddr : paddr + 64])
        return text.partition(b"\0")[0].decode("latin-1")


class Objects26(Objects):
    """Objects and slabs of 2.6. ``free`` is ``kmem_cache_free()``."""

    cache_type = Cache26
    debug: SlabDebug26 | None

    def __init__(
        self,
        image: KernelImage,
        frames: Frames,
        pages: PageSource,
        free: Callable[[Cache, int], None],
    ) -> None:
        super().__init__(image, frames, pages, LINUX_2_6, SlabDebug26(image, LINUX_2_6))
        kind, lists = image.structs.kmem_cache_t, image.structs.kmem_list3
        self.free_objects_word = kind.word("lists") + lists.word("free_objects")
        self._free_limit = kind.word("free_limit")
        self._free = free
        self._page_state = PageState(image)
        self.rcu = Rcu(image)

    # -- lists -------------------------------------------------------------------------------

    def take_from(self, cache: Cache, slab: int) -> int:
        where = self._where
        link = slab - PAGE_OFFSET >> where.link_shift
        index = where.links[link + where.free]
        objp = super().take_from(cache, slab)
        if self.debug is not None:
            where.links[link + where.bufctl + index] = BUFCTL_FREE
            self.debug.count_taken(cache)
        return objp

    def put_into(self, cache: Cache, slab: int, objp: int) -> int:
        if self.debug is not None:
            index = (objp - cache.s_mem(slab)) // cache.objsize
            if cache.bufctl(slab)[index] != BUFCTL_FREE:
                raise BadObject("freed twice", cache, slab, objp, 0, b"", b"")
            cache.view.num_active -= 1
        return super().put_into(cache, slab, objp)

    def file(self, cache: Cache, slab: int) -> None:
        """Put a slab that objects were taken from at the head of the list it belongs on."""
        where = self._where
        self._lists.delete(slab)
        link = slab - PAGE_OFFSET >> where.link_shift
        full = where.links[link + where.free] == where.bufctl_end
        self._lists.add(slab, cache.slabs_full if full else cache.slabs_partial)

    def free_block(self, cache: Cache, first: int, count: int) -> None:
        """Objects go back to their slabs: ``count`` of them, from word ``first`` of RAM on.

        A slab that becomes empty is destroyed when the cache has enough free objects without it.
        """
        words, free_objects = self._words, cache.base + self.free_objects_word
        words[free_objects] += count
        for objp in words[first : first + count].tolist():
            slab = self.page_slab_of(objp)
            self._lists.delete(slab)
            if self.put_into(cache, slab, objp):
                self._lists.add_tail(slab, cache.slabs_partial)
            elif words[free_objects] > words[cache.base + self._free_limit]:
                words[free_objects] -= cache.num
                self.kmem_slab_destroy(cache, slab, self._free)
            else:
                self._lists.add(slab, cache.slabs_free)

    def destroy_free_slab(self, cache: Cache, slab: int) -> None:
        """Take a slab off the list of free ones, and destroy it."""
        self._lists.delete(slab)
        self._words[cache.base + self.free_objects_word] -= cache.num
        self.kmem_slab_destroy(cache, slab, self._free)

    # -- slabs -------------------------------------------------------------------------------

    def _add_slab(
        self,
        cache: Cache,
        flags: int,
        colour_off: int,
        ctor_flags: int,
        alloc: Callable[[Cache, int], int],
        pages: PageSource,
    ) -> bool:
        self.check_dma(cache, flags)
        if not super()._add_slab(cache, flags, colour_off, ctor_flags, alloc, pages):
            return False
        self._words[cache.base + self.free_objects_word] += cache.num
        return True

    def _slab_size(self, cache: Cache) -> int:
        return int(cache.view.slab_size)

    def kmem_getpages(self, cache: Cache, flags: int, pages: PageSource) -> int:
        memory = super().kmem_getpages(cache, flags, pages)
        if memory:
            self._account(cache, 1 << cache.gfporder)
        return memory

    def kmem_freepages(self, cache: Cache, memory: int) -> None:
        super().kmem_freepages(cache, memory)
        self._account(cache, -1 << cache.gfporder)

    def _account(self, cache: Cache, pages: int) -> None:
        self._page_state.add("nr_slab", pages)
        if cache.flags & SLAB_RECLAIM_ACCOUNT:
            self._image.statics.slab_reclaim_pages += pages

    def _release(
        self, cache: Cache, slab: int, memory: int, free: Callable[[Cache, int], None]
    ) -> None:
        if not cache.flags & SLAB_DESTROY_BY_RCU:
            super()._release(cache, slab, memory, free)
            return
        # A struct slab_rcu takes the place of the descriptor, which nobody reads any more.
        view = self._image.at(self._image.structs.slab_rcu, slab)
        view.cachep, view.addr = cache.vaddr, memory
        self.rcu.call_rcu(slab, self.kmem_rcu_free)

    def kmem_rcu_free(self, head: int) -> None:
        """The grace period of a slab is over: its frames go, and its ``struct slab_rcu``."""
        view = self._image.at(self._image.structs.slab_rcu, head)
        super()._release(self.cache(int(view.cachep)), head, int(view.addr), self._free)
