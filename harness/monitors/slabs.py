# SPDX-License-Identifier: GPL-2.0-or-later
"""A census of the slab allocator: every cache, slab and object, read straight from RAM.

:func:`slab_census` walks ``cache_chain``, the three lists of each cache, the ``kmem_bufctl_t``
chain of each slab and the arrays of each CPU (book 8.1.1, 8.2, 8.5), with no code of the
allocator, and holds what stands there against itself and against ``mem_map``.

What can fail: :class:`SlabInconsistent`, which names cache, slab and what is wrong; a pointer
out of RAM is a :class:`~kernel_model.errors.BadPhysicalAddress`.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NoReturn

import numpy as np

from kernel_model.errors import MmucheckError
from kernel_model.kernel import Kernel
from kernel_model.mm.mmzone import for_each_zone

__all__ = ["CacheSeen", "SlabInconsistent", "SlabSeen", "slab_census"]

PAGE_OFFSET: Final = 0xC0000000
PAGE_SIZE: Final = 4096
PG_SLAB: Final = 1 << 8
BUFCTL_END: Final = 0xFFFFFFFF
RED_ZONE, POISON, OFF_SLAB = 0x400, 0x800, 0x10000
FREE_ZONE, USED_ZONE = 0x5A2CF071, 0x170FC2A5
WORDS: Final = ("gfporder", "objsize", "num", "flags", "colour", "colour_off", "colour_next")
SLAB_WORDS: Final = ("colouroff", "s_mem", "inuse", "free")
LISTS: Final = ("slabs_full", "slabs_partial", "slabs_free")


class SlabInconsistent(MmucheckError):
    """What RAM says of a cache or slab contradicts itself, or ``mem_map``."""

    concerns = "kmem_cache_alloc(), kmem_cache_free(), kmem_cache_grow(), mm/slab.c (book 8.1-8.4)"


@dataclass(frozen=True)
class SlabSeen:
    """One slab: ``memory`` is the address of its pages, ``colour`` the bytes that its objects are
    shifted by, ``used`` the objects that are out of it, as their users know them: behind the
    red zone, where there is one."""

    vaddr: int
    kept_in: str
    memory: int
    colour: int
    first: int
    used: tuple[int, ...]


@dataclass(frozen=True)
class CacheSeen:
    """One cache, with the words of its ``kmem_cache_t``; ``pages`` are those of a slab.
    ``arrays`` has the objects in the array of each CPU, by its address."""

    name: str
    vaddr: int
    pages: int
    objsize: int
    num: int
    flags: int
    colour: int
    colour_off: int
    colour_next: int
    slabs: dict[int, SlabSeen] = field(default_factory=dict)
    arrays: dict[int, tuple[int, ...]] = field(default_factory=dict)

    @property
    def live(self) -> set[int]:
        """The objects that users have: out of a slab, and in no array."""
        used = {objp for slab in self.slabs.values() for objp in slab.used}
        return used.difference(*self.arrays.values())


def slab_census(kernel: Kernel) -> dict[int, CacheSeen]:
    """All caches by address, ``cache_cache`` first, when everything about them is consistent."""
    reader = _Reader(kernel)
    caches = {cache.vaddr: cache for cache in reader.caches()}
    owners: dict[int, tuple[int, int]] = {}
    for cache in caches.values():
        for slab in cache.slabs.values():
            reader.check_frames(cache, slab, owners)
    reader.check_marked_frames(owners)
    live = {vaddr: cache.live for vaddr, cache in caches.items()}
    for cache in caches.values():
        reader.check_descriptors(cache, live)
    return caches


class _Reader:
    """The fields of one machine's slab structures, by kernel virtual address."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.ram = kernel.ram
        self.debug = kernel.config.debug_slab
        structs = kernel.image.structs
        self.cache_t, self.slab_t = structs.kmem_cache_t, structs.slab_t
        self.cache_fields = [self.cache_t.word(name) for name in WORDS]
        self.slab_fields = [self.slab_t.word(name) for name in SLAB_WORDS]
        self.cache_cache = kernel.image.symbol("cache_cache")

    def word(self, vaddr: int) -> int:
        return self.ram.read32(vaddr - PAGE_OFFSET)

    def words(self, vaddr: int, count: int) -> list[int]:
        return memoryview(self.ram.read(vaddr - PAGE_OFFSET, 4 * count)).cast("I").tolist()

    def field(self, cache: int, name: str) -> int:
        return self.word(cache + self.cache_t.offset(name))

    def list_entries(self, head: int, where: str) -> list[int]:
        """The entries of a list whose links agree in both directions."""
        entries: list[int] = []
        previous = head
        while (entry := self.word(previous)) != head:
            if self.word(entry + 4) != previous or len(entries) > self.ram.frames * 128:
                raise SlabInconsistent(f"{where}: {entry:#x} does not point back to {previous:#x}")
            entries.append(entry)
            previous = entry
        if self.word(head + 4) != previous:
            raise SlabInconsistent(f"{where}: the head does not point back to {previous:#x}")
        return entries

    # -- caches ------------------------------------------------------------------------------

    def caches(self) -> Iterator[CacheSeen]:
        link = self.cache_t.offset("next")
        chain = self.list_entries(self.cache_cache + link, "cache_chain")
        for vaddr in [self.cache_cache, *(entry - link for entry in chain)]:
            yield self.cache(vaddr)

    def cache(self, vaddr: int) -> CacheSeen:
        words = self.words(vaddr, self.cache_t.size // 4)
        text = self.ram.read(vaddr + self.cache_t.offset("name") - PAGE_OFFSET, 20)
        name = text.partition(b"\0")[0].decode("latin-1")
        order, size, num, flags, *colours = (words[index] for index in self.cache_fields)
        colour, colour_off, colour_next = colours
        cache = CacheSeen(
            name, vaddr, 1 << order, size, num, flags, colour, colour_off, colour_next
        )
        if self.field(vaddr, "growing"):
            raise SlabInconsistent(f"cache {name}: it is growing, and nobody runs")
        for kept_in in LISTS:
            head = vaddr + self.cache_t.offset(kept_in)
            for slab in self.list_entries(head, f"cache {name}, {kept_in}"):
                cache.slabs[slab] = self.slab(cache, slab, kept_in)
        self.read_arrays(cache)
        if self.debug and self.field(vaddr, "num_active") != sum(
            len(slab.used) for slab in cache.slabs.values()
        ):
            raise SlabInconsistent(f"cache {name}: num_active is not the objects in use")
        return cache

    def read_arrays(self, cache: CacheSeen) -> None:
        """The per-CPU arrays: no longer than they may be, and of objects that left their slabs."""
        if not self.kernel.config.smp:
            return
        used = {objp for slab in cache.slabs.values() for objp in slab.used}
        cpudata = cache.vaddr + self.cache_t.offset("cpudata")
        for cpu, array in enumerate(self.words(cpudata, self.kernel.config.nr_cpus)):
            if not array:
                continue
            avail, limit = self.word(array), self.word(array + 4)
            where = f"cache {cache.name}, array of CPU {cpu}"
            if avail > limit or not 0 < self.field(cache.vaddr, "batchcount") <= limit:
                raise SlabInconsistent(f"{where}: {avail} objects of {limit}")
            entries = tuple(self.words(array + 8, avail))
            if not used.issuperset(entries) or len(set(entries)) != avail:
                raise SlabInconsistent(f"{where}: an object that is in its slab, or in two arrays")
            used.difference_update(entries)
            cache.arrays[array] = entries

    # -- slabs -------------------------------------------------------------------------------

    def slab(self, cache: CacheSeen, vaddr: int, kept_in: str) -> SlabSeen:
        def wrong(what: str) -> NoReturn:
            raise SlabInconsistent(f"cache {cache.name}, {kept_in}, slab {vaddr:#x}: {what}")

        words = self.words(vaddr, self.slab_t.size // 4)
        colouroff, first, inuse, free = (words[index] for index in self.slab_fields)
        chain = self.free_chain(cache, vaddr, free)
        if len(chain) != cache.num - inuse or len(set(chain)) != len(chain):
            wrong(f"{inuse} of {cache.num} objects in use, but {len(chain)} in the chain")
        state = 0 if inuse == cache.num else 2 if inuse == 0 else 1
        if LISTS[state] != kept_in:
            wrong(f"{inuse} of {cache.num} objects are in use")
        memory = first - colouroff
        if memory % PAGE_SIZE:
            wrong(f"its pages begin at {memory:#x}")
        descriptor = 0 if cache.flags & OFF_SLAB else self.descriptor_bytes(cache)
        if not descriptor <= colouroff <= cache.pages * PAGE_SIZE - cache.num * cache.objsize:
            wrong(f"{cache.num} objects from offset {colouroff} on do not fit")
        if not cache.flags & OFF_SLAB and vaddr + descriptor != first:
            wrong("the descriptor does not stand before the objects")
        turn, rest = divmod(colouroff - descriptor, cache.colour_off)
        if rest or turn >= max(cache.colour, 1):
            wrong(f"its colour is {colouroff - descriptor} bytes")
        numbers = set(chain)
        start = first + self.red_zone_bytes(cache)
        used = tuple(start + i * cache.objsize for i in range(cache.num) if i not in numbers)
        slab = SlabSeen(vaddr, kept_in, memory, colouroff - descriptor, first, used)
        if self.debug:
            self.check_debug_bytes(cache, slab)
        return slab

    def red_zone_bytes(self, cache: CacheSeen) -> int:
        """The bytes before an object that tell whether it is in use."""
        return 4 if self.debug and cache.flags & RED_ZONE else 0

    def descriptor_bytes(self, cache: CacheSeen) -> int:
        """A ``slab_t`` and its ``kmem_bufctl_t`` array, in whole cache lines."""
        line = self.kernel.config.l1_cache_bytes
        return (self.slab_t.size + 4 * cache.num + line - 1) // line * line

    def free_chain(self, cache: CacheSeen, slab: int, index: int) -> list[int]:
        chain: list[int] = []
        links = self.words(slab + self.slab_t.size, cache.num)
        while index != BUFCTL_END and index < cache.num and len(chain) <= cache.num:
            chain.append(index)
            index = links[index]
        if index != BUFCTL_END:
            raise SlabInconsistent(
                f"cache {cache.name}, slab {slab:#x}: the chain of free objects names {index:#x}"
            )
        return chain

    def check_debug_bytes(self, cache: CacheSeen, slab: SlabSeen) -> None:
        """Red zones say what the chain says; nobody wrote into a poisoned free object."""
        zone, size = self.red_zone_bytes(cache), cache.objsize
        where = f"cache {cache.name}, slab {slab.vaddr:#x}, object"
        length = cache.num * size
        objects = self.ram.table(slab.first - PAGE_OFFSET, length, np.uint8).reshape(-1, size)
        free = np.ones(cache.num, np.bool_)
        free[[(objp - slab.first) // size for objp in slab.used]] = False
        if zone:
            words = objects.view(np.uint32)
            expected = np.where(free, FREE_ZONE, USED_ZONE)
            for column in (0, -1):
                for index in np.flatnonzero(words[:, column] != expected):
                    raise SlabInconsistent(f"{where} {index}: wrong red zone")
        if cache.flags & POISON:
            body = objects[free, zone : size - zone]
            spoilt = np.any(body[:, :-1] != 0x5A, axis=1) | (body[:, -1] != 0xA5)
            for index in np.flatnonzero(free)[spoilt]:
                raise SlabInconsistent(f"{where} {index}: its poison is gone")

    # -- frames and descriptors --------------------------------------------------------------

    def check_frames(
        self, cache: CacheSeen, slab: SlabSeen, owners: dict[int, tuple[int, int]]
    ) -> None:
        """Each frame of a slab is its alone, marked, and names cache and slab."""
        memmap = self.kernel.allocator.memmap
        list_at = self.kernel.image.structs.page.offset("list")
        for vaddr in range(slab.memory, slab.memory + cache.pages * PAGE_SIZE, PAGE_SIZE):
            page = memmap.page(vaddr - PAGE_OFFSET >> 12)
            where = (
                f"cache {cache.name}, slab {slab.vaddr:#x}, frame {vaddr - PAGE_OFFSET >> 12:#x}"
            )
            if page in owners:
                raise SlabInconsistent(f"{where}: it belongs to slab {owners[page][1]:#x}, too")
            owners[page] = cache.vaddr, slab.vaddr
            if (self.word(page + list_at), self.word(page + list_at + 4)) != owners[page]:
                raise SlabInconsistent(f"{where}: its struct page names another cache or slab")

    def check_marked_frames(self, owners: dict[int, tuple[int, int]]) -> None:
        """``PG_slab`` marks the frames of slabs, and no others."""
        memmap, marked = self.kernel.allocator.memmap, set()
        for zone in for_each_zone(self.kernel.image):
            start = int(zone.view.zone_mem_map)
            rows = memmap.rows(start, zone.size)
            found = np.flatnonzero(rows[:, memmap.flags_word] & PG_SLAB)
            marked |= set((start + found * memmap.page_bytes).tolist())
        for page in marked.symmetric_difference(owners):
            mark = "is marked PG_slab, but in no slab" if page in marked else "lacks PG_slab"
            raise SlabInconsistent(f"frame {memmap.pfn(page):#x} {mark}")

    def check_descriptors(self, cache: CacheSeen, live: dict[int, set[int]]) -> None:
        """What the allocator keeps in objects of its own is live: caches, off-slab descriptors."""
        if cache.vaddr != self.cache_cache and cache.vaddr not in live[self.cache_cache]:
            raise SlabInconsistent(f"cache {cache.name}: its kmem_cache_t is no object in use")
        if cache.flags & OFF_SLAB:
            keeper = self.field(cache.vaddr, "slabp_cache")
            for slab in cache.slabs:
                if slab not in live[keeper]:
                    raise SlabInconsistent(f"cache {cache.name}, slab {slab:#x}: not allocated")
        allocated = live.values()
        for array in cache.arrays:
            if not any(array in objects for objects in allocated):
                raise SlabInconsistent(f"cache {cache.name}: its array {array:#x} is not allocated")
