# SPDX-License-Identifier: GPL-2.0-or-later
"""One cache: its words in RAM, its slabs, and how objects fit into a slab.

Models linux-2.4.22 ``mm/slab.c: kmem_cache_t``, ``slab_t``, ``kmem_cache_estimate()`` (book
8.1.1, 8.2.3-8.2.7). In RAM: the descriptor of the cache; for each slab a descriptor followed by
an array of ``kmem_bufctl_t`` that chains its free objects.
"""

from collections.abc import Iterator
from typing import Any

from kernel_model.arch_i386.page import PAGE_OFFSET, PAGE_SIZE
from kernel_model.image import KernelImage
from kernel_model.lists import Lists
from kernel_model.mm.slab.flags import BUFCTL_END, CFLGS_OFF_SLAB, SLAB_LIMIT


def l1_cache_align(size: int, line: int) -> int:
    """``size`` bytes rounded up to whole cache lines."""
    return -(-size // line) * line


def kmem_cache_estimate(
    gfporder: int, size: int, flags: int, line: int, descriptor: int
) -> tuple[int, int]:
    """(objects, bytes left over) in a slab of ``2**gfporder`` pages.

    ``descriptor`` is ``sizeof(slab_t)``; with the descriptor off the slab it takes no room.
    """
    room = PAGE_SIZE << gfporder
    base, extra = (0, 0) if flags & CFLGS_OFF_SLAB else (descriptor, 4)
    count = room // (size + extra)
    while count and count * size + l1_cache_align(base + count * extra, line) > room:
        count -= 1
    count = min(count, SLAB_LIMIT)
    return count, room - count * size - l1_cache_align(base + count * extra, line)


class CacheWords:
    """Offsets, in words, of the fields that inner loops touch: one set for each build."""

    def __init__(self, image: KernelImage) -> None:
        kind = image.structs.kmem_cache_t
        self.slabs_full = kind.offset("slabs_full")
        self.slabs_partial = kind.offset("slabs_partial")
        self.slabs_free = kind.offset("slabs_free")
        self.objsize = kind.word("objsize")
        self.flags = kind.word("flags")
        self.num = kind.word("num")
        self.gfporder = kind.word("gfporder")
        self.gfpflags = kind.word("gfpflags")
        self.next = kind.offset("next")
        self.cpudata = kind.word("cpudata") if image.config.smp else 0
        self.batchcount = kind.word("batchcount") if image.config.smp else 0
        slab = image.structs.slab_t
        self.s_mem = slab.word("s_mem")
        self.inuse = slab.word("inuse")
        self.free = slab.word("free")
        self.bufctl = slab.size >> 2


class Cache:
    """A ``kmem_cache_t`` at a kernel virtual address."""

    __slots__ = ("base", "image", "lists", "vaddr", "view", "where", "words")

    def __init__(self, image: KernelImage, where: CacheWords, lists: Lists, vaddr: int) -> None:
        self.image = image
        self.vaddr = vaddr
        self.where = where
        self.lists = lists
        self.words = image.ram.words
        self.base = vaddr - PAGE_OFFSET >> 2
        self.view: Any = image.at(image.structs.kmem_cache_t, vaddr)

    @property
    def name(self) -> str:
        return bytes(self.view.name).partition(b"\0")[0].decode("latin-1")

    @property
    def flags(self) -> int:
        return self.words[self.base + self.where.flags]

    @property
    def objsize(self) -> int:
        """Bytes of an object, its red zones included."""
        return self.words[self.base + self.where.objsize]

    @property
    def num(self) -> int:
        """Objects in a slab."""
        return self.words[self.base + self.where.num]

    @property
    def gfporder(self) -> int:
        return self.words[self.base + self.where.gfporder]

    @property
    def slabs_full(self) -> int:
        return self.vaddr + self.where.slabs_full

    @property
    def slabs_partial(self) -> int:
        return self.vaddr + self.where.slabs_partial

    @property
    def slabs_free(self) -> int:
        return self.vaddr + self.where.slabs_free

    @property
    def off_slab(self) -> bool:
        """Whether slab descriptors come from a cache of their own size."""
        return bool(self.flags & CFLGS_OFF_SLAB)

    def slabs(self, head: int) -> list[int]:
        """The slabs of one of the three lists, first to last."""
        return list(self.lists.entries(head))

    def all_slabs(self) -> Iterator[int]:
        """Every slab: full, partial, free."""
        for head in (self.slabs_full, self.slabs_partial, self.slabs_free):
            yield from self.lists.entries(head)

    def s_mem(self, slab: int) -> int:
        """Kernel virtual address of the first object of a slab."""
        return self.words[(slab - PAGE_OFFSET >> 2) + self.where.s_mem]

    def inuse(self, slab: int) -> int:
        """Objects of a slab that are allocated, those in per-CPU arrays included."""
        return self.words[(slab - PAGE_OFFSET >> 2) + self.where.inuse]

    def free(self, slab: int) -> int:
        """Index of the first free object of a slab; BUFCTL_END when it is full."""
        return self.words[(slab - PAGE_OFFSET >> 2) + self.where.free]

    def bufctl(self, slab: int) -> list[int]:
        """The ``kmem_bufctl_t`` array of a slab."""
        first = (slab - PAGE_OFFSET >> 2) + self.where.bufctl
        return self.words[first : first + self.num].tolist()

    def free_objects(self, slab: int) -> list[int]:
        """Indices of a slab's free objects in the order in which they will be given out."""
        chain: list[int] = []
        links = self.bufctl(slab)
        index = self.free(slab)
        while index != BUFCTL_END and len(chain) <= self.num:
            chain.append(index)
            index = links[index]
        return chain
