# SPDX-License-Identifier: GPL-2.0-or-later
"""The page cache: frames found by the address space and the index they belong to.

Models linux-2.4.22 ``mm/filemap.c`` and ``include/linux/pagemap.h``: the hash and the lists
(book 2.5: ``mapping``, ``index``, ``next_hash``, ``pprev_hash``). In RAM: the hash table,
``struct page``'s links, and a ``struct address_space`` with its three lists.

What can fail: adding a frame that is cached already is a :class:`KernelBug`.
"""

from collections.abc import Iterator
from typing import Final

from kernel_model.arch_i386.page import PAGE_OFFSET, PAGE_SIZE, virt_to_phys
from kernel_model.errors import KernelBug
from kernel_model.image import KernelImage
from kernel_model.lists import Lists
from kernel_model.mm.gfp import GFP_ATOMIC
from kernel_model.mm.page_alloc import PageAllocator
from kernel_model.mm.page_flags import (
    PG_ARCH_1,
    PG_CHECKED,
    PG_DIRTY,
    PG_ERROR,
    PG_LOCKED,
    PG_REFERENCED,
    PG_UPTODATE,
)
from kernel_model.structs.mmzone import MAX_ORDER

_CLEARED_ON_ENTRY: Final = sum(
    1 << bit for bit in (PG_UPTODATE, PG_ERROR, PG_DIRTY, PG_REFERENCED, PG_ARCH_1, PG_CHECKED)
)


class PageCache:
    """The page cache of one machine; ``mapping`` is the address of an ``address_space``."""

    def __init__(self, image: KernelImage, allocator: PageAllocator) -> None:
        self._image = image
        self._statics = image.statics
        self._allocator = allocator
        self._memmap = allocator.memmap
        self._words = image.ram.words
        self._lists = Lists(image.ram)
        page = image.structs.page
        self._next_hash = page.word("next_hash")
        self._pprev_hash = page.word("pprev_hash")
        self._mapping = page.word("mapping")
        self._index = page.word("index")
        inode_bytes = image.structs.inode.size
        self._hash_divisor = inode_bytes & -inode_bytes
        """The largest power of two that divides ``sizeof(struct inode)``."""

    def page_cache_init(self, mempages: int) -> None:
        """Allocate the hash table: a pointer for each of ``mempages`` frames if possible."""
        order = 0
        while order < MAX_ORDER - 1 and PAGE_SIZE << order < mempages * 4:
            order += 1
        table = 0
        while not table and order >= 0:
            table = self._allocator.get_free_pages(GFP_ATOMIC, order, "page hash table")
            order -= 0 if table else 1
        if not table:
            raise KernelBug("filemap.c", 0, "no memory for the page hash table")
        self._image.ram.fill(virt_to_phys(table), PAGE_SIZE << order)
        self._statics.page_hash_table = table
        self._statics.page_hash_bits = (PAGE_SIZE << order).bit_length() - 3
        self.init_address_space(self._image.symbol("swapper_space"))

    def init_address_space(self, mapping: int) -> None:
        """Three empty lists."""
        kind = self._image.structs.address_space
        for name in ("clean_pages", "dirty_pages", "locked_pages"):
            self._lists.init(mapping + kind.offset(name))

    def _bucket(self, mapping: int, index: int) -> int:
        """``page_hash()``: address of the head of the chain."""
        bits = int(self._statics.page_hash_bits)
        key = mapping // self._hash_divisor + index & 0xFFFFFFFF
        key = key + (key >> bits) & (1 << bits) - 1
        return int(self._statics.page_hash_table) + key * 4

    @property
    def size(self) -> int:
        """Frames that are cached, those of swap included."""
        return int(self._statics.page_cache_size)

    def find_page(self, mapping: int, index: int) -> int:
        """``__find_page_nolock()``: the frame, 0 when it is not cached."""
        words, memmap = self._words, self._memmap
        page = words[self._bucket(mapping, index) - PAGE_OFFSET >> 2]
        while page:
            base = memmap.word(page, 0)
            if words[base + self._mapping] == mapping and words[base + self._index] == index:
                return page
            page = words[base + self._next_hash]
        return 0

    def find_get_page(self, mapping: int, index: int) -> int:
        """The frame with one more reference, which is the caller's; 0 when it is not cached."""
        page = self.find_page(mapping, index)
        if page:
            self._allocator.get_page(page)
        return page

    def mapping(self, page: int) -> int:
        """``page->mapping``: the address space that caches a frame; 0 for none."""
        return self._words[self._memmap.word(page, self._mapping)]

    def index(self, page: int) -> int:
        """``page->index``: which page of its address space a frame is."""
        return self._words[self._memmap.word(page, self._index)]

    def add_to_page_cache(self, page: int, mapping: int, index: int) -> int:
        """Cache a fresh frame, locked; the cache holds a reference (``add_to_page_cache()``).

        0, or ``-ENOMEM``: a cache that is a hash wants no memory.
        """
        memmap, words = self._memmap, self._words
        if words[memmap.word(page, self._mapping)]:
            pfn = memmap.pfn(page)
            raise KernelBug("filemap.c", 0, f"frame {pfn:#x} is in a page cache already")
        memmap.set_flags(page, memmap.flags(page) & ~_CLEARED_ON_ENTRY | 1 << PG_LOCKED)
        memmap.set_count(page, memmap.count(page) + 1)
        words[memmap.word(page, self._index)] = index
        space = self._image.at(self._image.structs.address_space, mapping)
        kind = self._image.structs.address_space
        self._lists.add(page, mapping + kind.offset("clean_pages"))
        space.nrpages += 1
        words[memmap.word(page, self._mapping)] = mapping
        self._add_to_hash(page, self._bucket(mapping, index))
        self._allocator.lru.add(page)
        return 0

    def _add_to_hash(self, page: int, bucket: int) -> None:
        words, base = self._words, self._memmap.word(page, 0)
        head = bucket - PAGE_OFFSET >> 2
        following = words[head]
        words[base + self._next_hash] = following
        words[base + self._pprev_hash] = bucket
        words[head] = page
        if following:
            link = page + self._next_hash * 4
            words[self._memmap.word(following, self._pprev_hash)] = link
        self._statics.page_cache_size += 1

    def _remove_from_hash(self, page: int) -> None:
        words, base = self._words, self._memmap.word(page, 0)
        following, link = words[base + self._next_hash], words[base + self._pprev_hash]
        if following:
            words[self._memmap.word(following, self._pprev_hash)] = link
        words[link - PAGE_OFFSET >> 2] = following
        words[base + self._pprev_hash] = 0
        self._statics.page_cache_size -= 1

    def remove_inode_page(self, page: int) -> None:
        """``__remove_inode_page()``: out of the cache; its reference is the caller's now."""
        words, memmap = self._words, self._memmap
        mapping = words[memmap.word(page, self._mapping)]
        if not mapping:
            raise KernelBug("filemap.c", 0, f"frame {memmap.pfn(page):#x} is in no page cache")
        self._lists.delete(page)
        self._image.at(self._image.structs.address_space, mapping).nrpages -= 1
        words[memmap.word(page, self._mapping)] = 0
        self._remove_from_hash(page)

    def set_page_dirty(self, page: int) -> None:
        """Mark a frame for writing back, and move it to its space's list of such."""
        memmap = self._memmap
        if memmap.test(page, PG_DIRTY):
            return
        memmap.set_bit(page, PG_DIRTY)
        mapping = self._words[memmap.word(page, self._mapping)]
        if mapping:
            self._lists.delete(page)
            self._lists.add(page, mapping + self._image.structs.address_space.offset("dirty_pages"))

    def clear_page_dirty(self, page: int) -> bool:
        """What a frame holds is about to be written back, or is wanted by nobody. Whether it had
        to be written."""
        dirty = self._memmap.test(page, PG_DIRTY)
        self._memmap.clear_bit(page, PG_DIRTY)
        return dirty

    # -- the pages of one address space --------------------------------------------------------

    def _list(self, mapping: int, name: str) -> int:
        return mapping + self._image.structs.address_space.offset(name)

    def cached(self, mapping: int) -> list[int]:
        """Every cached frame."""
        names = ("clean_pages", "dirty_pages", "locked_pages")
        lists = [list(self._lists.entries(self._list(mapping, name))) for name in names]
        return [page for pages in lists for page in reversed(pages)]

    def clean(self, mapping: int) -> list[int]:
        """The frames that hold what the file does."""
        return list(self._lists.entries(self._list(mapping, "clean_pages")))

    def take_dirty(self, mapping: int) -> Iterator[int]:
        """Each frame that must be written back, oldest first; it counts as being written."""
        dirty, locked = self._list(mapping, "dirty_pages"), self._list(mapping, "locked_pages")
        while not self._lists.empty(dirty):
            page = self._lists.last(dirty)
            self._lists.delete(page)
            self._lists.add(page, locked)
            yield page

    def take_written(self, mapping: int) -> Iterator[int]:
        """Each frame whose writing was begun; it counts as clean."""
        clean, locked = self._list(mapping, "clean_pages"), self._list(mapping, "locked_pages")
        while not self._lists.empty(locked):
            page = self._lists.first(locked)
            self._lists.delete(page)
            self._lists.add(page, clean)
            yield page
