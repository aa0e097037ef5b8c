# SPDX-License-Identifier: GPL-2.0-or-later
"""The slab allocator of 2.6: its start, and arrays in front of every cache.

Models linux-2.6.11 ``mm/slab.c``: ``kmem_cache_init()``, ``cpucache_init()``,
``kmem_cache_shrink()``, ``kmem_cache_alloc_node()``, ``kmem_ptr_validate()`` (book 8.8). In RAM:
``cache_chain``; ``cache_cache``, the first cache on it; ``malloc_sizes[]``; two static arrays that
serve until there are general caches to take arrays from.
"""

from kernel_model.arch_i386.page import PAGE_OFFSET
from kernel_model.errors import KernelBug, KernelPanic
from kernel_model.image import KernelImage
from kernel_model.linux_2_6.preempt import Preemption
from kernel_model.mm.slab.allocator import Slab
from kernel_model.mm.slab.cache import Cache, align_up, kmem_cache_estimate
from kernel_model.mm.slab.create import Geometry
from kernel_model.mm.slab.flags import BYTES_PER_WORD, SLAB_DEBUG_INITIAL, SLAB_NO_REAP
from kernel_model.mm.slab.linux_2_6.constants import (
    FULL,
    HZ,
    LINUX_2_6,
    REAPTIMEOUT_LIST3,
    SLAB_DESTROY_BY_RCU,
    SLAB_PANIC,
    malloc_sizes,
)
from kernel_model.mm.slab.linux_2_6.create import (
    cache_geometry,
    check_flags,
    debug_flags,
    is_early_error,
    request,
)
from kernel_model.mm.slab.linux_2_6.debug import slab_error
from kernel_model.mm.slab.linux_2_6.names import CacheNames
from kernel_model.mm.slab.linux_2_6.objects import Objects26
from kernel_model.mm.slab.linux_2_6.reap import Reaper
from kernel_model.mm.slab.linux_2_6.tune import TunedArrays
from kernel_model.mm.slab.objects import Constructor, Frames, PageSource
from kernel_model.structs.linux_2_6.slab import BOOT_CPUCACHE_ENTRIES


class Slab26(Slab):
    """The slab allocator of a machine with 2.6; ``online_cpus`` will run when it has booted."""

    objects: Objects26
    cpu_caches: TunedArrays

    def __init__(
        self, image: KernelImage, frames: Frames, pages: PageSource, online_cpus: int = 1
    ) -> None:
        objects = Objects26(image, frames, pages, self.cache_free)
        sizes = malloc_sizes(image.config.l1_cache_bytes, mmu=image.config.mmu)
        super().__init__(image, objects, image.symbol("cache_chain"), sizes)
        self.cpu_caches = TunedArrays(image, objects, self)
        self.reaper = Reaper(image, objects, self.cpu_caches, self.chain)
        self._names = CacheNames(image)
        self._preemption = Preemption(image)
        self._wait = image.constants.gfp.wait
        self._online_cpus = online_cpus

    # -- starting ----------------------------------------------------------------------------

    def start(self, num_physpages: int) -> None:
        self.kmem_cache_init(num_physpages)

    def kmem_cache_init(self, num_physpages: int) -> None:
        """The cache of caches, the general caches, and arrays of their final length."""
        self._choose_break_order(num_physpages)
        self._lists.init(self._chain_head)
        self._cache_cache_init()
        self._general_caches_init(SLAB_PANIC)
        arrays = self.cpu_caches
        arrays.replace_boot_array(self.cache_cache)
        arrays.replace_boot_array(self.objects.cache(int(self._statics.malloc_sizes[0].cs_cachep)))
        for cache in self.chain():
            arrays.enable_cpucache(cache)
        self._statics.g_cpucache_up = FULL

    def _cache_cache_init(self) -> None:
        cache, view = self.cache_cache, self.cache_cache.view
        line, size = self._image.config.l1_cache_bytes, self._image.structs.kmem_cache_t.size
        descriptor, bufctl = self._image.structs.slab_t.size, LINUX_2_6.bufctl_bytes
        self._lists.add(cache.vaddr + self._next, self._chain_head)
        self._init_lists(cache)
        self._name(cache, "kmem_cache")
        view.flags, view.colour_off = SLAB_NO_REAP, line
        view.objsize = align_up(size, line)
        view.num, left_over = kmem_cache_estimate(0, view.objsize, line, descriptor, bufctl)
        view.colour = left_over // line
        view.slab_size = align_up(view.num * bufctl + descriptor, line)
        self._set_length(cache, size)
        view.batchcount, view.limit = 1, BOOT_CPUCACHE_ENTRIES
        boot = self._image.symbol("initarray_cache")
        array = self._image.at(self._image.structs.array_cache, boot)
        array.limit, array.batchcount = BOOT_CPUCACHE_ENTRIES, 1
        view.array[self.cpu_caches.processor] = boot

    def kmem_cpucache_init(self) -> None:
        """The other CPUs start; then each begins to reap."""
        for cpu in range(1, self._online_cpus):
            self.cpu_up(cpu)
        self.cpucache_init()

    def cpu_up(self, cpu: int) -> bool:
        """A further CPU runs, with arrays of its own; False: there is no memory for them."""
        if not self.cpu_caches.cpu_up_prepare(cpu, list(self.chain())):
            return False
        self.cpu_caches.online = max(self.cpu_caches.online, cpu + 1)
        return True

    def cpucache_init(self) -> None:
        """keventd is there: reaping begins on every CPU."""
        for cpu in range(self.cpu_caches.online):
            self.reaper.start_cpu_timer(cpu)

    def pass_time(self, milliseconds: int) -> None:
        """No reader outlasts a tick: with it the grace period of what RCU keeps has ended."""
        ticks = milliseconds * HZ // 1000
        self.reaper.pass_time(ticks)
        if ticks and self._image.statics.rcu_callbacks:
            self.objects.rcu.end_grace_period()

    # -- caches ------------------------------------------------------------------------------------

    def _checked_flags(
        self,
        name: str,
        size: int,
        offset: int,
        flags: int,
        *,
        ctor: Constructor | None,
        dtor: Constructor | None,
    ) -> int:
        debug = self.objects.debug is not None
        if is_early_error(name, size, self._limits().max_order, ctor=bool(ctor), dtor=bool(dtor)):
            self._image.printk(f"<3>kmem_cache_create: Early error in slab {name}\n")
            raise KernelBug("slab.c", 1204, f"kmem_cache_create({name!r}, size {size})")
        if debug:
            if flags & SLAB_DEBUG_INITIAL and not ctor:
                self._image.printk(
                    f"<3>kmem_cache_create: No con, but init state check requested - {name}\n"
                )
                flags &= ~SLAB_DEBUG_INITIAL
            flags = debug_flags(size, flags)
        check_flags(name, flags, dtor=bool(dtor), debug=debug)
        return flags

    def _geometry(
        self, cache: Cache, name: str, size: int, offset: int, flags: int
    ) -> Geometry | None:
        limits = self._limits()
        wanted = request(size, offset, flags, limits)
        geometry = cache_geometry(wanted, limits)
        if geometry is None:
            self._image.printk(f"kmem_cache_create: couldn't create cache {name}.\n")
        elif self.objects.debug is not None:
            cache.view.dbghead = wanted.head
            self._set_length(cache, wanted.length)
        return geometry

    def _set_length(self, cache: Cache, size: int) -> None:
        if self.objects.debug is not None:
            cache.view.reallen = size

    def _fill(self, cache: Cache, name: str, geometry: Geometry) -> None:
        super()._fill(cache, name, geometry)
        cache.view.slab_size = geometry.slab_size

    def _give_arrays(self, cache: Cache) -> None:
        self.cpu_caches.give_arrays(cache)
        start = REAPTIMEOUT_LIST3 + cache.vaddr % REAPTIMEOUT_LIST3
        cache.view.lists.next_reap = int(self._statics.jiffies) + start

    def _no_cache(self, name: str, flags: int) -> int:
        if flags & SLAB_PANIC:
            raise KernelPanic(f"kmem_cache_create(): failed to create slab `{name}'")
        return 0

    def _name(self, cache: Cache, name: str) -> None:
        cache.view.name = self._names.place(name)

    def kmem_cache_shrink(self, cachep: int) -> int:
        """Drain the arrays, destroy every free slab. 0: the cache has no slab left; else 1."""
        cache = self.objects.cache(cachep)
        self.cpu_caches.drain_cpu_caches(cache)
        self._shrink(cache)
        return int(self._has_objects(cache))

    def _shrink(self, cache: Cache) -> int:
        count = 0
        while (slab := self._lists.last(cache.slabs_free)) != cache.slabs_free:
            self.objects.destroy_free_slab(cache, slab)
            count += 1
        return count

    def _objects_left(self, cache: Cache) -> None:
        what = "Can't free all objects"
        self._image.printk(slab_error("kmem_cache_destroy", cache, what))

    def _dismantle(self, cache: Cache) -> None:
        if cache.flags & SLAB_DESTROY_BY_RCU:
            self.objects.rcu.end_grace_period()
        self.cpu_caches.release(cache)
        self._names.forget(int(cache.view.name))

    def kmem_cache_size(self, cachep: int) -> int:
        """Bytes of an object as its user knows it."""
        cache = self.objects.cache(cachep)
        return int(cache.view.reallen) if self.objects.debug is not None else cache.objsize

    def ksize(self, objp: int) -> int:
        """Bytes that may be used of what ``kmalloc()`` gave; 0 of NULL."""
        return self.kmem_cache_size(self.objects.page_cache_of(objp)) if objp else 0

    def kmem_cache_name(self, cachep: int) -> str:
        """How a cache is called."""
        return self.objects.cache(cachep).name

    # -- objects -----------------------------------------------------------------------------------

    def cache_alloc(self, cache: Cache, flags: int) -> int:
        if flags & self._wait:
            self._preemption.might_sleep("kmem_cache_alloc()")
        if self.objects.debug is None:
            return self.cpu_caches.alloc(cache, flags)
        self.objects.check_dma(cache, flags)
        return self._checked(cache, self.cpu_caches.alloc(cache, flags), flags)

    def _checked(self, cache: Cache, objp: int, flags: int) -> int:
        """``cache_alloc_debugcheck_after()``."""
        debug = self.objects.debug
        if debug is None or not objp:
            return objp
        ctor = self.objects.functions.get(int(cache.view.ctor))
        return debug.allocated(cache, self.objects.page_slab_of(objp), objp, flags, ctor)

    def cache_free(self, cache: Cache, objp: int) -> None:
        debug = self.objects.debug
        if debug is not None:
            functions, view = self.objects.functions, cache.view
            ctor, dtor = functions.get(int(view.ctor)), functions.get(int(view.dtor))
            objp = debug.freed(cache, self.objects.page_slab_of(objp), objp, ctor, dtor)
        self.cpu_caches.free(cache, objp)

    def kmem_cache_alloc_node(self, cachep: int, nodeid: int) -> int:
        """An object whose memory is of a node, past the arrays; 0 when memory is out.

        Without CONFIG_NUMA there is one node, and this is ``kmem_cache_alloc()``.
        """
        return self.kmem_cache_alloc(cachep, self._kernel)

    def cpu_to_node(self, cpu: int) -> int:
        """The node of a CPU."""
        return 0

    def kmem_ptr_validate(self, cachep: int, ptr: int) -> bool:
        """Whether ``ptr`` may be an object of a cache: it looks like one, no more."""
        size = self.objects.cache(cachep).objsize
        low = PAGE_OFFSET <= ptr <= int(self._statics.high_memory) - size
        return low and not ptr % BYTES_PER_WORD and self.objects.cache_at(ptr) == cachep
