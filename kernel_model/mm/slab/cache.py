# SPDX-License-Identifier: GPL-2.0-or-later
"""One cache: its words in RAM, its slabs, and how objects fit into a slab.

Models ``mm/slab.c: kmem_cache_t``, ``slab_t``, ``kmem_cache_estimate()`` of both releases (book
8.1.1, 8.2.3-8.2.7). In RAM: the descriptor of the cache; for each slab a descriptor followed by
an array of ``kmem_bufctl_t`` that chains its free objects: words in 2.4, half words in 2.6.
"""

from collections.abc import Iterator
from typing import Any

from kernel_model.arch_i386.page import PAGE_OFFSET, PAGE_SIZE
from kernel_model.image import KernelImage
from kernel_model.lists import Lists
from kernel_model.mm.slab.flags import SlabConstants


def align_up(size: int, alignment: int) -> int:
    """``ALIGN()``: ``size`` bytes rounded up to a multiple of ``alignment``, a power of two.

    2.6 lets callers ask for other alignments, and clears their bits all the same.
    """
    return size + alignment - 1 & ~(alignment - 1)


def kmem_cache_estimate(
    gfporder: int, size: int, alignment: int, descriptor: int, bufctl: int
) -> tuple[int, int]:
    """(objects, bytes left over) in a slab of ``2**gfporder`` pages.

    ``descriptor`` is the bytes of the slab's descriptor, ``bufctl`` those of a ``kmem_bufctl_t``;
    both are 0 for a descriptor off the slab, which takes no room. Objects begin at a multiple of
    ``alignment``.
    """
    room = PAGE_SIZE << gfporder

    def left_over(count: int) -> int:
        return room - count * size - align_up(descriptor + count * bufctl, alignment)

    # So many fit however the descriptor is aligned; the kernel counts from 0.
    count = max((room - descriptor - alignment) // (size + bufctl), 0)
    while left_over(count + 1) >= 0:
        count += 1
    return count, left_over(count)


class CacheWords:
    """Where the fields are that inner loops touch: one set for each build.

    Fields of ``kmem_cache_t`` and of a slab's descriptor count in words, but for the heads of
    lists, which are byte offsets; the links of free objects count in ``kmem_bufctl_t``.
    """

    def __init__(self, image: KernelImage, constants: SlabConstants) -> None:
        structs = image.structs
        kind = structs.kmem_cache_t
        heads, lists = kind, 0
        if constants.lists:
            heads, lists = structs.kmem_list3, kind.offset(constants.lists)
        self.slabs_full = lists + heads.offset("slabs_full")
        self.slabs_partial = lists + heads.offset("slabs_partial")
        self.slabs_free = lists + heads.offset("slabs_free")
        self.objsize = kind.word("objsize")
        self.flags = kind.word("flags")
        self.num = kind.word("num")
        self.gfporder = kind.word("gfporder")
        self.gfpflags = kind.word("gfpflags")
        self.next = kind.offset("next")
        slab = structs.slab_t
        self.s_mem = slab.word("s_mem")
        self.inuse = slab.word("inuse")
        bufctl = constants.bufctl_bytes
        self.links = image.ram.bytes.cast("H") if bufctl == 2 else image.ram.words
        self.link_shift = bufctl.bit_length() - 1
        self.free = slab.offset("free") // bufctl
        self.bufctl = slab.size // bufctl
        self.bufctl_end = constants.bufctl_end
        self.off_slab = constants.off_slab


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
        return bool(self.flags & self.where.off_slab)

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
        where = self.where
        return where.links[(slab - PAGE_OFFSET >> where.link_shift) + where.free]

    def bufctl(self, slab: int) -> list[int]:
        """The ``kmem_bufctl_t`` array of a slab."""
        where = self.where
        first = (slab - PAGE_OFFSET >> where.link_shift) + where.bufctl
        return where.links[first : first + self.num].tolist()

    def free_objects(self, slab: int) -> list[int]:
        """Indices of a slab's free objects in the order in which they will be given out."""
        chain: list[int] = []
        links = self.bufctl(slab)
        index = self.free(slab)
        while index != self.where.bufctl_end and len(chain) <= self.num:
            chain.append(index)
            index = links[index]
        return chain
