# SPDX-License-Identifier: GPL-2.0-or-later
"""The page cache of 2.6: frames found in the radix tree of their address space.

Models linux-2.6.11 ``mm/filemap.c``: ``add_to_page_cache()``, ``__remove_from_page_cache()``,
``find_get_page()``, and ``mm/page-writeback.c: __set_page_dirty_nobuffers()``. In RAM:
``address_space.page_tree``, ``nrpages``; ``struct page``'s ``mapping`` and ``index``; which pages
are dirty, as a tag in the tree; ``nr_pagecache``.

What can fail: no memory for a node of the tree; a frame that is cached already is a
:class:`~kernel_model.errors.KernelBug`.
"""

from collections.abc import Iterator

from kernel_model.errno import EEXIST
from kernel_model.errors import KernelBug
from kernel_model.fs.file_table import ObjectCaches
from kernel_model.image import KernelImage
from kernel_model.mm.filemap.cache import PageCache
from kernel_model.mm.page_alloc import PageAllocator
from kernel_model.mm.radix_tree import PAGECACHE_TAG_DIRTY, RadixTrees
from kernel_model.mm.rmap.mapped_pages import MappedPages


class RadixPageCache(PageCache):
    """:class:`PageCache` without hash: each address space has a tree."""

    def __init__(self, image: KernelImage, allocator: PageAllocator, slab: ObjectCaches) -> None:
        self._image = image
        self._statics = image.statics
        self._allocator = allocator
        self._memmap = memmap = allocator.memmap
        self._words = image.ram.words
        self._mapping, self._index = memmap.mapping_word, memmap.index_word
        self.trees = RadixTrees(image, slab, image.constants.gfp.atomic)
        self.pages = MappedPages(image, memmap)
        flags = image.constants.page_flags
        self._locked, self._dirty = 1 << flags.locked, flags.dirty
        self._page_tree = image.structs.address_space.offset("page_tree")

    def page_cache_init(self, mempages: int) -> None:
        """The swap cache is an address space, too."""
        self.init_address_space(self._image.symbol("swapper_space"))

    def init_address_space(self, mapping: int) -> None:
        """An empty tree."""
        space = self._image.at(self._image.structs.address_space, mapping)
        space.page_tree.height = space.page_tree.rnode = 0
        space.page_tree.gfp_mask = self._image.constants.gfp.atomic

    def tree(self, mapping: int) -> int:
        """The root of an address space's tree."""
        return mapping + self._page_tree

    @property
    def size(self) -> int:
        return int(self._statics.nr_pagecache)

    def find_page(self, mapping: int, index: int) -> int:
        return self.trees.lookup(mapping + self._page_tree, index)

    def add_to_page_cache(self, page: int, mapping: int, index: int) -> int:
        """``add_to_page_cache_lru()``: cache a fresh frame, locked; the cache holds a reference.

        0, or ``-ENOMEM``: there is no node for the tree; the few that each CPU of the kernel keeps
        back (``radix_tree_preload()``) are not modelled.
        """
        error = self.add_off_lru(page, mapping, index)
        if error == -EEXIST:
            raise KernelBug("filemap.c", 0, f"another frame is cached as page {index}")
        if not error:
            self._allocator.lru.add(page)
        return error

    def add_off_lru(self, page: int, mapping: int, index: int) -> int:
        """The same for one that nobody reclaims: 0, or ``-ENOMEM`` and ``-EEXIST``."""
        memmap, words = self._memmap, self._words
        if words[memmap.word(page, self._mapping)]:
            pfn = memmap.pfn(page)
            raise KernelBug("filemap.c", 0, f"frame {pfn:#x} is in a page cache already")
        if error := self.trees.insert(mapping + self._page_tree, index, page):
            return error
        self._allocator.get_page(page)
        memmap.set_flags(page, memmap.flags(page) | self._locked)
        words[memmap.word(page, self._mapping)] = mapping
        words[memmap.word(page, self._index)] = index
        self._image.at(self._image.structs.address_space, mapping).nrpages += 1
        self._statics.nr_pagecache += 1
        return 0

    def remove_inode_page(self, page: int) -> None:
        """``__remove_from_page_cache()``: its reference is the caller's now."""
        words, memmap = self._words, self._memmap
        mapping = self.pages.page_mapping(page)
        if not mapping:
            raise KernelBug("filemap.c", 0, f"frame {memmap.pfn(page):#x} is in no page cache")
        self.trees.delete(mapping + self._page_tree, self.index(page))
        words[memmap.word(page, self._mapping)] = 0
        self._image.at(self._image.structs.address_space, mapping).nrpages -= 1
        self._statics.nr_pagecache -= 1

    def set_page_dirty(self, page: int) -> None:
        """``set_page_dirty()``: the frame's contents must be written; its tree knows it, too."""
        memmap = self._memmap
        if memmap.test(page, self._dirty):
            return
        memmap.set_bit(page, self._dirty)
        if mapping := self.pages.page_mapping(page):
            index = self.pages.swap_entry(page) or self.pages.index(page)
            self.trees.tag_set(mapping + self._page_tree, index, PAGECACHE_TAG_DIRTY)

    def clear_page_dirty(self, page: int) -> bool:
        """``clear_page_dirty_for_io()``. The tree forgets it, too."""
        memmap = self._memmap
        if not memmap.test(page, self._dirty):
            return False
        memmap.clear_bit(page, self._dirty)
        if mapping := self.pages.page_mapping(page):
            index = self.pages.swap_entry(page) or self.pages.index(page)
            self.trees.tag_clear(mapping + self._page_tree, index, PAGECACHE_TAG_DIRTY)
        return True

    # -- the pages of one address space --------------------------------------------------------

    def cached(self, mapping: int) -> list[int]:
        return [page for _, page in self.trees.items(mapping + self._page_tree)]

    def clean(self, mapping: int) -> list[int]:
        return [page for page in self.cached(mapping) if not self._memmap.test(page, self._dirty)]

    def take_dirty(self, mapping: int) -> Iterator[int]:
        """Each frame that must be written back, in the order of the file. What lies in memory
        only (``backing_dev_info``) is written by nobody but reclaim."""
        space = self._image.at(self._image.structs.address_space, mapping)
        if space.backing_dev_info:
            return
        first, tree = 0, mapping + self._page_tree
        while found := next(self.trees.items(tree, first, PAGECACHE_TAG_DIRTY), None):
            first = found[0] + 1
            yield found[1]

    def take_written(self, mapping: int) -> Iterator[int]:
        """Writing is over at once, and its error told then: nobody is waited for."""
        yield from ()
