# SPDX-License-Identifier: GPL-2.0-or-later
"""A census of the slab allocator: every cache, slab and object, read straight from RAM.

:func:`slab_census` walks the chain of caches, the three lists of each cache, the
``kmem_bufctl_t`` chain of each slab and the arrays of objects (book 8.1.1, 8.2, 8.5, 8.8), with no
code of the allocator, and holds what stands there against itself and against ``mem_map``. What
both releases have is :mod:`harness.monitors.slab_reader`.

What can fail: :class:`SlabInconsistent`, which names cache, slab and what is wrong; a pointer
out of RAM is a :class:`~kernel_model.errors.BadPhysicalAddress`.
"""

from collections.abc import Iterator
from typing import Final

from harness.monitors.slab_reader import (
    LISTS,
    CacheSeen,
    HasImage,
    SlabInconsistent,
    SlabLayout,
    SlabReader,
    SlabSeen,
)

__all__ = ["LISTS", "CacheSeen", "SlabInconsistent", "SlabSeen", "objects_in_use", "slab_census"]

STORE_USER, RECLAIM_ACCOUNT, DESTROY_BY_RCU = 0x10000, 0x20000, 0x80000
LONGEST_NAME: Final = 64


def slab_census(machine: HasImage) -> dict[int, CacheSeen]:
    """All caches by address, ``cache_cache`` first, when everything about them is consistent."""
    return _READERS[machine.image.config.release](machine).census()


def objects_in_use(machine: HasImage, cache: int) -> set[int]:
    """The objects of one cache that users have; only what stands in this cache is checked."""
    return _READERS[machine.image.config.release](machine).cache(cache).live


class Reader24(SlabReader):
    """The structures of 2.4: ``cache_cache`` heads the chain, arrays are of SMP builds."""

    def __init__(self, machine: HasImage) -> None:
        layout = SlabLayout(
            pg_slab=8,
            page_list="list",
            node_frames="node_size",
            node_first=("node_start_paddr", 12),
            node_next="node_next",
            bufctl=4,
            off_slab=0x10000,
            lists="",
            arrays="cpudata" if machine.image.config.smp else "",
            array_head=8,
            free_in_arrays=False,
            poison=0x5A,
        )
        super().__init__(machine, layout)

    def chain(self) -> list[int]:
        link = self.cache_t.offset("next")
        chain = self.list_entries(self.cache_cache + link, "cache_chain")
        return [self.cache_cache, *(entry - link for entry in chain)]

    def name(self, cache: int) -> str:
        return self.text(cache + self.cache_t.offset("name"), 20)

    def check_cache(self, cache: CacheSeen) -> None:
        if self.field(cache.vaddr, "growing"):
            raise SlabInconsistent(f"cache {cache.name}: it is growing, and nobody runs")

    def batchcount(self, cache: int, array: int) -> int:
        return self.field(cache, "batchcount")

    def descriptor_bytes(self, cache: CacheSeen) -> int:
        """In whole cache lines."""
        line = self.image.config.l1_cache_bytes
        return (self.slab_t.size + 4 * cache.num + line - 1) // line * line

    def body(self, cache: CacheSeen) -> tuple[int, int]:
        zone = self.user_offset(cache)
        return zone, cache.objsize - 2 * zone

    def zones(self, cache: CacheSeen) -> tuple[int, int]:
        return 0, cache.objsize - 4


class Reader26(SlabReader):
    """The structures of 2.6: a head of the chain of its own, arrays on every build, and slabs that
    are on no list because they wait for RCU."""

    def __init__(self, machine: HasImage) -> None:
        layout = SlabLayout(
            pg_slab=7,
            page_list="lru",
            node_frames="node_spanned_pages",
            node_first=("node_start_pfn", 0),
            node_next="pgdat_next",
            bufctl=2,
            off_slab=0x80000000,
            lists="lists",
            arrays="array",
            array_head=16,
            free_in_arrays=True,
            poison=0x6B,
        )
        super().__init__(machine, layout)

    def chain(self) -> list[int]:
        link = self.cache_t.offset("next")
        entries = self.list_entries(self.image.symbol("cache_chain"), "cache_chain")
        chain = [entry - link for entry in entries]
        if self.cache_cache not in chain:
            raise SlabInconsistent("cache_chain: cache_cache is not on it")
        return [self.cache_cache, *(cache for cache in chain if cache != self.cache_cache)]

    def name(self, cache: int) -> str:
        return self.text(self.field(cache, "name"), LONGEST_NAME)

    def arrays_of(self, cache: int) -> Iterator[tuple[str, int]]:
        yield from super().arrays_of(cache)
        if shared := self.word(self.list_field(cache, "shared")):
            yield "shared array", shared

    def check_array(self, cache: CacheSeen, array: int, where: str) -> None:
        if array == self.word(self.list_field(cache.vaddr, "shared")):
            avail, limit = self.words(array, 2)
            if avail > limit:
                raise SlabInconsistent(f"{where}: {avail} objects of {limit}")
        else:
            super().check_array(cache, array, where)

    def batchcount(self, cache: int, array: int) -> int:
        return self.words(array, 3)[2]

    def check_cache(self, cache: CacheSeen) -> None:
        """``free_objects`` is what the chains of all slabs have together."""
        count = self.word(self.list_field(cache.vaddr, "free_objects"))
        free = sum(cache.num - len(slab.used) for slab in cache.slabs.values())
        if count != free:
            raise SlabInconsistent(f"cache {cache.name}: {free} objects are free, not {count}")

    def descriptor_bytes(self, cache: CacheSeen) -> int:
        """As the cache has it; no less than the descriptor and its array need."""
        size = self.field(cache.vaddr, "slab_size")
        if size < self.slab_t.size + 2 * cache.num:
            raise SlabInconsistent(f"cache {cache.name}: no descriptor fits {size} bytes")
        return size

    def user_offset(self, cache: CacheSeen) -> int:
        return self.field(cache.vaddr, "dbghead") if self.debug else 0

    def body(self, cache: CacheSeen) -> tuple[int, int]:
        return self.user_offset(cache), self.field(cache.vaddr, "reallen")

    def zones(self, cache: CacheSeen) -> tuple[int, int]:
        behind = 8 if cache.flags & STORE_USER else 4
        return self.user_offset(cache) - 4, cache.objsize - behind

    # -- pages -----------------------------------------------------------------------------------

    def check_machine(
        self,
        caches: dict[int, CacheSeen],
        owners: dict[int, tuple[int, int]],
        live: dict[int, set[int]],
    ) -> None:
        """Slabs that wait for RCU have their frames still; both counts of pages are right."""
        for cache, slab, memory in self.waiting_for_rcu(caches):
            for vaddr in range(memory, memory + (cache.pages << 12), 1 << 12):
                if self.page(vaddr) in owners:
                    raise SlabInconsistent(f"cache {cache.name}: {slab:#x} waits, and is on a list")
                owners[self.page(vaddr)] = cache.vaddr, slab
        pages = dict.fromkeys(caches, 0)
        for vaddr, _ in owners.values():
            pages[vaddr] += 1
        statics = self.image.statics
        counted = sum(int(state.nr_slab) for state in statics.page_states) % (1 << 32)
        if counted != len(owners):
            raise SlabInconsistent(f"nr_slab is {counted}, but slabs have {len(owners)} frames")
        accounted = sum(pages[c.vaddr] for c in caches.values() if c.flags & RECLAIM_ACCOUNT)
        if int(statics.slab_reclaim_pages) != accounted:
            raise SlabInconsistent(f"slab_reclaim_pages is not {accounted}")

    def waiting_for_rcu(self, caches: dict[int, CacheSeen]) -> Iterator[tuple[CacheSeen, int, int]]:
        """Cache, descriptor and pages of each slab that waits for the end of a grace period."""
        kind = self.image.structs.slab_rcu
        head = int(self.image.statics.rcu_callbacks)
        while head:
            view = self.image.at(kind, head)
            cache = caches.get(int(view.cachep))
            if cache is None or not cache.flags & DESTROY_BY_RCU:
                raise SlabInconsistent(f"rcu_callbacks: {head:#x} is no slab that may wait")
            yield cache, head, int(view.addr)
            head = int(view.head.next)


_READERS: Final = {"2.4": Reader24, "2.6": Reader26}
"""By release."""
