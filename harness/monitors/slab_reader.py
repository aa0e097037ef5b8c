# SPDX-License-Identifier: GPL-2.0-or-later
"""Reads caches, slabs and arrays of objects straight from RAM, whatever release left them there.

No code of the allocator is used. :class:`SlabReader` walks what both releases have, by the places
and numbers that a :class:`SlabLayout` gives; :mod:`harness.monitors.slabs` has one for each
release, and what only that release keeps.

What can fail: :class:`SlabInconsistent`, which names cache, slab and what is wrong; a pointer
out of RAM is a :class:`~kernel_model.errors.BadPhysicalAddress`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, NoReturn, Protocol

import numpy as np

from kernel_model.errors import MmucheckError
from kernel_model.image import KernelImage

PAGE_OFFSET: Final = 0xC0000000
PAGE_SIZE: Final = 4096
RED_ZONE, POISON = 0x400, 0x800
FREE_ZONE, USED_ZONE = 0x5A2CF071, 0x170FC2A5
POISON_END: Final = 0xA5
WORDS: Final = ("gfporder", "objsize", "num", "flags", "colour", "colour_off", "colour_next")
LISTS: Final = ("slabs_full", "slabs_partial", "slabs_free")


class SlabInconsistent(MmucheckError):
    """What RAM says of a cache or slab contradicts itself, or ``mem_map``."""

    concerns = "kmem_cache_alloc(), kmem_cache_free(), kmem_cache_grow(), mm/slab.c (book 8.1-8.4)"


class HasImage(Protocol):
    """A machine: a kernel, or only its slab allocator."""

    @property
    def image(self) -> KernelImage:
        """Its memory, and the layouts of what lies there."""


@dataclass(frozen=True)
class SlabLayout:
    """Where one release keeps what, and the numbers it writes."""

    pg_slab: int
    """The bit of ``page->flags``."""
    page_list: str
    node_frames: str
    """The field of a node that counts its frames, holes included."""
    node_first: tuple[str, int]
    """The field that says where they begin, and how far it is to be shifted for a PFN."""
    node_next: str
    bufctl: int
    """Bytes of a ``kmem_bufctl_t``, and of ``slab->free``."""
    off_slab: int
    lists: str
    """The field of a cache that has the three lists; empty: itself."""
    arrays: str
    """The field of a cache that has a pointer for each CPU; empty: there are no arrays."""
    array_head: int
    """Bytes of an array before its objects."""
    free_in_arrays: bool
    """Whether an object in an array is marked as a free one."""
    poison: int

    @property
    def bufctl_end(self) -> int:
        return (1 << 8 * self.bufctl) - 1


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


class SlabReader:
    """The fields of one machine's slab structures, by kernel virtual address."""

    def __init__(self, machine: HasImage, layout: SlabLayout) -> None:
        self.image = image = machine.image
        self.ram = image.ram
        self.layout = layout
        self.debug = image.config.debug_slab
        structs = image.structs
        self.cache_t, self.slab_t = structs.kmem_cache_t, structs.slab_t
        self.cache_fields = [self.cache_t.word(name) for name in WORDS]
        self.cache_cache = image.symbol("cache_cache")
        self.lists_t, self.lists_at = self.cache_t, 0
        if layout.lists:
            self.lists_t, self.lists_at = structs.kmem_list3, self.cache_t.offset(layout.lists)

    def word(self, vaddr: int) -> int:
        return self.ram.read32(vaddr - PAGE_OFFSET)

    def words(self, vaddr: int, count: int) -> list[int]:
        return memoryview(self.ram.read(vaddr - PAGE_OFFSET, 4 * count)).cast("I").tolist()

    def links(self, vaddr: int, count: int) -> list[int]:
        """``count`` of ``kmem_bufctl_t``."""
        bufctl = self.layout.bufctl
        data = memoryview(self.ram.read(vaddr - PAGE_OFFSET, bufctl * count))
        return data.cast("H" if bufctl == 2 else "I").tolist()

    def field(self, cache: int, name: str) -> int:
        return self.word(cache + self.cache_t.offset(name))

    def list_field(self, cache: int, name: str) -> int:
        """The address of a field that stands with the three lists."""
        return cache + self.lists_at + self.lists_t.offset(name)

    def text(self, vaddr: int, longest: int) -> str:
        data = bytes(self.ram.bytes[vaddr - PAGE_OFFSET : vaddr - PAGE_OFFSET + longest])
        return data.partition(b"\0")[0].decode("latin-1")

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

    def census(self) -> dict[int, CacheSeen]:
        """All caches by address, ``cache_cache`` first, when everything is consistent."""
        caches = {vaddr: self.cache(vaddr) for vaddr in self.chain()}
        owners: dict[int, tuple[int, int]] = {}
        for cache in caches.values():
            for slab in cache.slabs.values():
                self.check_frames(cache, slab, owners)
        live = {vaddr: cache.live for vaddr, cache in caches.items()}
        self.check_machine(caches, owners, live)
        self.check_marked_frames(owners)
        allocated = set[int]().union(*live.values())
        for cache in caches.values():
            self.check_descriptors(cache, live, allocated)
        return caches

    def chain(self) -> list[int]:
        """The caches, ``cache_cache`` first."""
        raise NotImplementedError

    def check_machine(
        self,
        caches: dict[int, CacheSeen],
        owners: dict[int, tuple[int, int]],
        live: dict[int, set[int]],
    ) -> None:
        """What a release keeps besides, for all caches together."""

    def name(self, cache: int) -> str:
        """How a cache is called."""
        raise NotImplementedError

    def cache(self, vaddr: int) -> CacheSeen:
        words = self.words(vaddr, self.cache_t.size // 4)
        name = self.name(vaddr)
        order, size, num, flags, *colours = (words[index] for index in self.cache_fields)
        colour, colour_off, colour_next = colours
        cache = CacheSeen(
            name, vaddr, 1 << order, size, num, flags, colour, colour_off, colour_next
        )
        for kept_in in LISTS:
            head = self.list_field(vaddr, kept_in)
            for slab in self.list_entries(head, f"cache {name}, {kept_in}"):
                cache.slabs[slab] = self.slab(cache, slab, kept_in)
        self.read_arrays(cache)
        self.check_cache(cache)
        if self.debug:
            self.check_debugging(cache)
        return cache

    def check_cache(self, cache: CacheSeen) -> None:
        """What a release keeps besides, for each cache."""

    def read_arrays(self, cache: CacheSeen) -> None:
        """The arrays: no longer than they may be, and of objects that left their slabs."""
        used = {objp for slab in cache.slabs.values() for objp in slab.used}
        zone = self.user_offset(cache) if self.layout.free_in_arrays else 0
        for what, array in self.arrays_of(cache.vaddr):
            avail = self.word(array)
            where = f"cache {cache.name}, {what}"
            self.check_array(cache, array, where)
            found = self.words(array + self.layout.array_head, avail)
            entries = tuple(entry + zone for entry in found)
            if not used.issuperset(entries) or len(set(entries)) != avail:
                raise SlabInconsistent(f"{where}: an object that is in its slab, or in two arrays")
            used.difference_update(entries)
            cache.arrays[array] = entries

    def arrays_of(self, cache: int) -> Iterator[tuple[str, int]]:
        """What an array is called, and where it lies."""
        if not self.layout.arrays:
            return
        pointers = self.words(
            cache + self.cache_t.offset(self.layout.arrays), self.image.config.nr_cpus
        )
        for cpu, array in enumerate(pointers):
            if array:
                yield f"array of CPU {cpu}", array

    def check_array(self, cache: CacheSeen, array: int, where: str) -> None:
        """The head of an array."""
        avail, limit = self.words(array, 2)
        if avail > limit or not 0 < self.batchcount(cache.vaddr, array) <= limit:
            raise SlabInconsistent(f"{where}: {avail} objects of {limit}")

    def batchcount(self, cache: int, array: int) -> int:
        """How many objects move to or from an array at a time."""
        raise NotImplementedError

    # -- slabs -------------------------------------------------------------------------------

    def slab(self, cache: CacheSeen, vaddr: int, kept_in: str) -> SlabSeen:
        def wrong(what: str) -> NoReturn:
            raise SlabInconsistent(f"cache {cache.name}, {kept_in}, slab {vaddr:#x}: {what}")

        view = self.image.at(self.slab_t, vaddr)
        colouroff, first, inuse = int(view.colouroff), int(view.s_mem), int(view.inuse)
        chain = self.free_chain(cache, vaddr, int(view.free))
        if len(chain) != cache.num - inuse or len(set(chain)) != len(chain):
            wrong(f"{inuse} of {cache.num} objects in use, but {len(chain)} in the chain")
        state = 0 if inuse == cache.num else 2 if inuse == 0 else 1
        if LISTS[state] != kept_in:
            wrong(f"{inuse} of {cache.num} objects are in use")
        memory = first - colouroff
        if memory % PAGE_SIZE:
            wrong(f"its pages begin at {memory:#x}")
        off_slab = cache.flags & self.layout.off_slab
        descriptor = 0 if off_slab else self.descriptor_bytes(cache)
        if not descriptor <= colouroff <= cache.pages * PAGE_SIZE - cache.num * cache.objsize:
            wrong(f"{cache.num} objects from offset {colouroff} on do not fit")
        if not off_slab and vaddr + descriptor != first:
            wrong("the descriptor does not stand before the objects")
        turn, rest = divmod(colouroff - descriptor, cache.colour_off)
        if rest or turn >= max(cache.colour, 1):
            wrong(f"its colour is {colouroff - descriptor} bytes")
        numbers = set(chain)
        start = first + self.user_offset(cache)
        used = tuple(start + i * cache.objsize for i in range(cache.num) if i not in numbers)
        return SlabSeen(vaddr, kept_in, memory, colouroff - descriptor, first, used)

    def user_offset(self, cache: CacheSeen) -> int:
        """The bytes before what the user of an object has: its red zone."""
        return 4 if self.debug and cache.flags & RED_ZONE else 0

    def descriptor_bytes(self, cache: CacheSeen) -> int:
        """A descriptor on its slab, with the ``kmem_bufctl_t`` array."""
        raise NotImplementedError

    def free_chain(self, cache: CacheSeen, slab: int, index: int) -> list[int]:
        chain: list[int] = []
        links = self.links(slab + self.slab_t.size, cache.num)
        end = self.layout.bufctl_end
        while index != end and index < cache.num and len(chain) <= cache.num:
            chain.append(index)
            index = links[index]
        if index != end:
            raise SlabInconsistent(
                f"cache {cache.name}, slab {slab:#x}: the chain of free objects names {index:#x}"
            )
        return chain

    # -- debugging -----------------------------------------------------------------------------

    def check_debugging(self, cache: CacheSeen) -> None:
        """Statistics, and the bytes around and in every object."""
        used = {objp for slab in cache.slabs.values() for objp in slab.used}
        if self.field(cache.vaddr, "num_active") != len(used):
            raise SlabInconsistent(f"cache {cache.name}: num_active is not the objects in use")
        marked = cache.live if self.layout.free_in_arrays else used
        for slab in cache.slabs.values():
            self.check_debug_bytes(cache, slab, marked)

    def body(self, cache: CacheSeen) -> tuple[int, int]:
        """(first byte, bytes) of an object as its user knows it."""
        raise NotImplementedError

    def zones(self, cache: CacheSeen) -> tuple[int, int]:
        """Byte offsets of the two red zones."""
        raise NotImplementedError

    def check_debug_bytes(self, cache: CacheSeen, slab: SlabSeen, marked: set[int]) -> None:
        """Red zones say what is known; nobody wrote into a poisoned free object."""
        size = cache.objsize
        where = f"cache {cache.name}, slab {slab.vaddr:#x}, object"
        length = cache.num * size
        objects = self.ram.table(slab.first - PAGE_OFFSET, length, np.uint8).reshape(-1, size)
        free = np.ones(cache.num, np.bool_)
        free[[(objp - slab.first) // size for objp in slab.used if objp in marked]] = False
        if cache.flags & RED_ZONE:
            words = objects.view(np.uint32)
            expected = np.where(free, FREE_ZONE, USED_ZONE)
            for offset in self.zones(cache):
                for index in np.flatnonzero(words[:, offset >> 2] != expected):
                    raise SlabInconsistent(f"{where} {index}: wrong red zone")
        if cache.flags & POISON:
            first, count = self.body(cache)
            body = objects[free, first : first + count]
            spoilt = np.any(body[:, :-1] != self.layout.poison, axis=1)
            spoilt |= body[:, -1] != POISON_END
            for index in np.flatnonzero(free)[spoilt]:
                raise SlabInconsistent(f"{where} {index}: its poison is gone")

    # -- frames and descriptors --------------------------------------------------------------

    def nodes(self) -> Iterator[tuple[int, int, int]]:
        """Of each node: its first PFN, its frames, its part of ``mem_map``."""
        node, layout = int(self.image.statics.pgdat_list), self.layout
        while node:
            view = self.image.at(self.image.structs.pg_data_t, node)
            start, shift = layout.node_first
            frames = int(getattr(view, layout.node_frames))
            yield int(getattr(view, start)) >> shift, frames, int(view.node_mem_map)
            node = int(getattr(view, layout.node_next))

    def page(self, vaddr: int) -> int:
        """The ``struct page`` of an address of low memory."""
        pfn = vaddr - PAGE_OFFSET >> 12
        for start, frames, mem_map in self.nodes():
            if start <= pfn < start + frames:
                return mem_map + (pfn - start) * self.image.structs.page.size
        raise SlabInconsistent(f"frame {pfn:#x} is of no node")

    def check_frames(
        self, cache: CacheSeen, slab: SlabSeen, owners: dict[int, tuple[int, int]]
    ) -> None:
        """Each frame of a slab is its alone, marked, and names cache and slab."""
        list_at = self.image.structs.page.offset(self.layout.page_list)
        for vaddr in range(slab.memory, slab.memory + cache.pages * PAGE_SIZE, PAGE_SIZE):
            page = self.page(vaddr)
            where = (
                f"cache {cache.name}, slab {slab.vaddr:#x}, frame {vaddr - PAGE_OFFSET >> 12:#x}"
            )
            if page in owners:
                raise SlabInconsistent(f"{where}: it belongs to slab {owners[page][1]:#x}, too")
            owners[page] = cache.vaddr, slab.vaddr
            if (self.word(page + list_at), self.word(page + list_at + 4)) != owners[page]:
                raise SlabInconsistent(f"{where}: its struct page names another cache or slab")

    def check_marked_frames(self, owners: Iterable[int]) -> None:
        """``PG_slab`` marks the frames of slabs, and no others."""
        page_bytes, marked = self.image.structs.page.size, set[int]()
        flags_word = self.image.structs.page.word("flags")
        for _, frames, mem_map in self.nodes():
            words = page_bytes >> 2
            rows = self.ram.table(mem_map - PAGE_OFFSET, frames * words).reshape(frames, words)
            found = np.flatnonzero(rows[:, flags_word] >> self.layout.pg_slab & 1)
            marked |= set((mem_map + found * page_bytes).tolist())
        for page in marked.symmetric_difference(owners):
            mark = "is marked PG_slab, but in no slab" if page in marked else "lacks PG_slab"
            raise SlabInconsistent(f"frame of struct page {page:#x} {mark}")

    def check_descriptors(
        self, cache: CacheSeen, live: dict[int, set[int]], allocated: set[int]
    ) -> None:
        """What the allocator keeps in objects of its own is live: caches, off-slab descriptors."""
        if cache.vaddr != self.cache_cache and cache.vaddr not in self.live_of(
            self.cache_cache, live
        ):
            raise SlabInconsistent(f"cache {cache.name}: its kmem_cache_t is no object in use")
        if cache.flags & self.layout.off_slab:
            keeper = self.field(cache.vaddr, "slabp_cache")
            for slab in cache.slabs:
                if slab not in self.live_of(keeper, live):
                    raise SlabInconsistent(f"cache {cache.name}, slab {slab:#x}: not allocated")
        for array in cache.arrays:
            if array not in allocated:
                raise SlabInconsistent(f"cache {cache.name}: its array {array:#x} is not allocated")

    @staticmethod
    def live_of(cache: int, live: dict[int, set[int]]) -> set[int]:
        """The objects of a cache that users have; a cache of no chain has none."""
        return live.get(cache, set())
