# SPDX-License-Identifier: GPL-2.0-or-later
"""Giving memory back as time passes: each CPU looks at all caches every two seconds.

Models linux-2.6.11 ``mm/slab.c: cache_reap()``, ``start_cpu_timer()`` (book 8.8). In RAM:
``next_reap`` and ``free_touched`` of each cache; ``reap_work`` of each CPU, of which ``expires`` is
when keventd is to run it; ``jiffies``, the simulated time. It passes by :meth:`Reaper.pass_time`.
"""

from collections.abc import Callable, Iterator

from kernel_model.arch_i386.page import virt_to_phys
from kernel_model.image import KernelImage
from kernel_model.lists import Lists
from kernel_model.mm.slab.cache import Cache
from kernel_model.mm.slab.flags import SLAB_NO_REAP
from kernel_model.mm.slab.linux_2_6.array_cache import ArrayCaches
from kernel_model.mm.slab.linux_2_6.constants import HZ, REAPTIMEOUT_CPUC, REAPTIMEOUT_LIST3
from kernel_model.mm.slab.linux_2_6.objects import Objects26

_WRAP = 1 << 32
_AT_REST = 300 * HZ
"""When a cache that nobody uses has nothing left to give back."""


def time_after(one: int, other: int) -> bool:
    """Whether a moment lies behind another one, though ``jiffies`` may have begun again at 0."""
    return 0 < (one - other) % _WRAP < _WRAP >> 1


class Reaper:
    """Reaps the caches of ``chain``."""

    def __init__(
        self,
        image: KernelImage,
        objects: Objects26,
        arrays: ArrayCaches,
        chain: Callable[[], Iterator[Cache]],
    ) -> None:
        self._image = image
        self._statics = image.statics
        self._lists = Lists(image.ram)
        self._objects = objects
        self._arrays = arrays
        self._chain = chain
        lists = image.structs.kmem_cache_t.word("lists")
        self._next_reap = lists + image.structs.kmem_list3.word("next_reap")
        self._free_touched = lists + image.structs.kmem_list3.word("free_touched")
        self._jiffies = virt_to_phys(image.symbol("jiffies")) >> 2
        self.scheduled: Callable[[int, int], None] = lambda cpu, delay: None
        """Told of each ``schedule_delayed_work_on(cpu, reap_work, delay)``."""

    # -- one look ----------------------------------------------------------------------------------

    def cache_reap(self) -> None:
        """What keventd of this CPU does: drain what nobody used of late, destroy free slabs."""
        for cache in self._chain():
            if not cache.flags & SLAB_NO_REAP:
                self._reap(cache)
        cpu = self._arrays.processor
        self._schedule(cpu, REAPTIMEOUT_CPUC + cpu)

    def _reap(self, cache: Cache) -> None:
        arrays, words = self._arrays, self._image.ram.words
        if array := arrays.array(cache):
            arrays.drain_array(cache, array)
        now, next_reap = words[self._jiffies], cache.base + self._next_reap
        if time_after(words[next_reap], now):
            return
        words[next_reap] = (now + REAPTIMEOUT_LIST3) % _WRAP
        if shared := arrays.shared(cache):
            arrays.drain_array(cache, shared)
        free_touched = cache.base + self._free_touched
        if words[free_touched]:
            words[free_touched] = 0
            return
        if self._lists.empty(cache.slabs_free):
            return
        per_look = 5 * cache.num
        for _ in range(-(-int(cache.view.free_limit) // per_look) or 1):
            slab = self._lists.first(cache.slabs_free)
            if slab == cache.slabs_free:
                break
            if self._objects.debug is not None:
                cache.view.reaped += 1
            self._objects.destroy_free_slab(cache, slab)

    # -- time --------------------------------------------------------------------------------------

    def start_cpu_timer(self, cpu: int) -> None:
        """The first look of a CPU, a second from now; CPUs are a little apart."""
        work = self._statics.reap_work[cpu]
        if not work.func:
            work.func = self._image.functions.address(self.cache_reap)
            self._schedule(cpu, HZ + 3 * cpu)

    def _schedule(self, cpu: int, delay: int) -> None:
        work = self._statics.reap_work[cpu]
        work.pending, work.expires = 1, (int(self._statics.jiffies) + delay) % _WRAP
        self.scheduled(cpu, delay)

    def pass_time(self, ticks: int) -> None:
        """``ticks`` of 1/1000 s go by; each CPU does its work when it is due.

        Nobody uses a cache meanwhile. After some minutes all are at rest, and further looks would
        change nothing but the times of the next: these are moved on at once.
        """
        if ticks > 2 * _AT_REST:
            self._run(_AT_REST)
            self._skip(ticks - 2 * _AT_REST)
            ticks = _AT_REST
        self._run(ticks)

    def _skip(self, ticks: int) -> None:
        """Move the present, and all that is due, by ``ticks``."""
        for work in self._statics.reap_work:
            work.expires = (int(work.expires) + ticks) % _WRAP
        words = self._image.ram.words
        for cache in self._chain():
            if not cache.flags & SLAB_NO_REAP:
                at = cache.base + self._next_reap
                words[at] = (words[at] + ticks) % _WRAP
        self._statics.jiffies = (int(self._statics.jiffies) + ticks) % _WRAP

    def _run(self, ticks: int) -> None:
        end = (int(self._statics.jiffies) + ticks) % _WRAP
        while (cpu := self._next_due(end)) is not None:
            work, here = self._statics.reap_work[cpu], self._arrays.processor
            self._statics.jiffies, work.pending = work.expires, 0
            self._arrays.processor = cpu
            self._image.functions.call(int(work.func))
            self._arrays.processor = here
        self._statics.jiffies = end

    def _next_due(self, end: int) -> int | None:
        """The CPU whose work is due first, if that is by ``end``."""
        now = int(self._statics.jiffies)
        works = enumerate(self._statics.reap_work)
        due = {cpu: (int(work.expires) - now) % _WRAP for cpu, work in works if work.pending}
        cpu = min(due, key=lambda number: due[number], default=None)
        return cpu if cpu is not None and due[cpu] <= (end - now) % _WRAP else None
