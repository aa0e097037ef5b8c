# SPDX-License-Identifier: GPL-2.0-or-later
"""Radix trees: the frames of a file, or of the swap cache, by their index.

Models linux-2.6.11 ``lib/radix-tree.c`` (book 4.8). Each level of a tree takes six bits of the
index; a tree is no higher than its largest index needs. A node also keeps, for each of two tags, a
bit a slot that says whether something below has the tag: dirty, or being written. In RAM:
``struct radix_tree_root`` in the ``address_space``, nodes from ``radix_tree_node_cachep``. A root,
a node and an item are kernel virtual addresses; 0 is none.

What can fail: ``-EEXIST``, ``-ENOMEM``. A tree that could not be grown has stayed as it was, but
may have become higher.
"""

from collections.abc import Iterator
from typing import Final

from kernel_model.arch_i386.page import PAGE_OFFSET, virt_to_phys
from kernel_model.errno import EEXIST, ENOMEM
from kernel_model.errors import KernelBug
from kernel_model.fs.file_table import ObjectCaches
from kernel_model.image import KernelImage
from kernel_model.structs.linux_2_6.fs import MAP_SHIFT, MAP_SIZE, RADIX_TREE_NODE, RADIX_TREE_TAGS

PAGECACHE_TAG_DIRTY: Final = 0
PAGECACHE_TAG_WRITEBACK: Final = 1
MAP_MASK: Final = MAP_SIZE - 1
_SLOTS: Final = RADIX_TREE_NODE.word("slots")
_COUNT: Final = RADIX_TREE_NODE.word("count")
_TAGS: Final = RADIX_TREE_NODE.word("tags")
_TAG_WORDS: Final = MAP_SIZE // 32

Path = list[tuple[int, int]]
"""The nodes from the root to a leaf, each with the slot that leads on."""


class RadixTrees:
    """All radix trees of one machine."""

    def __init__(self, image: KernelImage, slab: ObjectCaches, gfp_mask: int) -> None:
        self._image = image
        self._words = image.ram.words
        self._slab = slab
        self._gfp_mask = gfp_mask
        self._height = image.structs.radix_tree_root.word("height")
        self._rnode = image.structs.radix_tree_root.word("rnode")

    def _root(self, root: int, field: int) -> int:
        return self._words[(root - PAGE_OFFSET >> 2) + field]

    def _set_root(self, root: int, height: int, rnode: int) -> None:
        at = root - PAGE_OFFSET >> 2
        self._words[at + self._height], self._words[at + self._rnode] = height, rnode

    def _slot(self, node: int, index: int) -> int:
        """Index into ``Ram.words`` of a slot."""
        return (node - PAGE_OFFSET >> 2) + _SLOTS + index

    def _alloc(self) -> int:
        """An empty node; 0: no memory. The kernel's constructor, and each user, leave it empty."""
        cachep = int(self._image.statics.radix_tree_node_cachep)
        node = self._slab.kmem_cache_alloc(cachep, self._gfp_mask)
        if node:
            self._image.ram.fill(virt_to_phys(node), RADIX_TREE_NODE.size)
        return node

    def _free(self, node: int) -> None:
        self._slab.kmem_cache_free(int(self._image.statics.radix_tree_node_cachep), node)

    # -- items ---------------------------------------------------------------------------------

    def lookup(self, root: int, index: int) -> int:
        """``radix_tree_lookup()``: the item at an index; 0: none."""
        height, node = self._root(root, self._height), self._root(root, self._rnode)
        if index >> height * MAP_SHIFT:
            return 0
        for level in reversed(range(height)):
            if not node:
                return 0
            node = self._words[self._slot(node, index >> level * MAP_SHIFT & MAP_MASK)]
        return node if height else 0

    def _path(self, root: int, index: int) -> Path:
        """The way to an item; empty when there is none."""
        height, node = self._root(root, self._height), self._root(root, self._rnode)
        path: Path = []
        if index >> height * MAP_SHIFT:
            return path
        for level in reversed(range(height)):
            if not node:
                return []
            slot = index >> level * MAP_SHIFT & MAP_MASK
            path.append((node, slot))
            node = self._words[self._slot(node, slot)]
        return path if node else []

    def insert(self, root: int, index: int, item: int) -> int:
        """``radix_tree_insert()``: 0, or an error."""
        if not self._extend(root, index):
            return -ENOMEM
        height, node = self._root(root, self._height), self._root(root, self._rnode)
        if not node:
            if not (node := self._alloc()):
                return -ENOMEM
            self._set_root(root, height, node)
        for level in reversed(range(1, height)):
            at = self._slot(node, index >> level * MAP_SHIFT & MAP_MASK)
            if not self._words[at]:
                if not (below := self._alloc()):
                    return -ENOMEM
                self._words[at] = below
                self._words[(node - PAGE_OFFSET >> 2) + _COUNT] += 1
            node = self._words[at]
        at = self._slot(node, index & MAP_MASK)
        if self._words[at]:
            return -EEXIST
        self._words[at] = item
        self._words[(node - PAGE_OFFSET >> 2) + _COUNT] += 1
        return 0

    def _extend(self, root: int, index: int) -> bool:
        """``radix_tree_extend()``: make the tree high enough. False: no memory."""
        height, top = self._root(root, self._height), self._root(root, self._rnode)
        wanted = max(height, 1, -(-index.bit_length() // MAP_SHIFT))
        while top and height < wanted:
            node = self._alloc()
            if not node:
                return False
            self._words[self._slot(node, 0)] = top
            self._words[(node - PAGE_OFFSET >> 2) + _COUNT] = 1
            for tag in range(RADIX_TREE_TAGS):
                if self._any_tagged(top, tag):
                    self._set_bit(node, tag, 0)
            height, top = height + 1, node
            self._set_root(root, height, top)
        self._set_root(root, wanted, top)
        return True

    def delete(self, root: int, index: int) -> int:
        """``radix_tree_delete()``: take an item out, with the nodes that it leaves empty."""
        path = self._path(root, index)
        if not path:
            return 0
        node, slot = path[-1]
        item = self._words[self._slot(node, slot)]
        for tag in range(RADIX_TREE_TAGS):
            self._clear_tag(path, tag)
        for node, slot in reversed(path):
            self._words[self._slot(node, slot)] = 0
            at = (node - PAGE_OFFSET >> 2) + _COUNT
            self._words[at] -= 1
            if self._words[at]:
                return item
            self._free(node)
        self._set_root(root, 0, 0)
        return item

    def items(self, root: int, first: int = 0, tag: int | None = None) -> Iterator[tuple[int, int]]:
        """``radix_tree_gang_lookup()``, and with a tag: (index, item) from ``first`` on."""
        height, node = self._root(root, self._height), self._root(root, self._rnode)
        if node:
            yield from self._items(node, height - 1, 0, first, tag)

    def _items(
        self, node: int, level: int, base: int, first: int, tag: int | None
    ) -> Iterator[tuple[int, int]]:
        for slot in range(MAP_SIZE):
            index, below = base + (slot << level * MAP_SHIFT), self._words[self._slot(node, slot)]
            end = index + (1 << level * MAP_SHIFT)
            if not below or end <= first or (tag is not None and not self._bit(node, tag, slot)):
                continue
            if level:
                yield from self._items(below, level - 1, index, first, tag)
            else:
                yield index, below

    # -- tags ----------------------------------------------------------------------------------

    def _tag_word(self, node: int, tag: int, slot: int) -> int:
        return (node - PAGE_OFFSET >> 2) + _TAGS + tag * _TAG_WORDS + slot // 32

    def _bit(self, node: int, tag: int, slot: int) -> bool:
        return bool(self._words[self._tag_word(node, tag, slot)] >> slot % 32 & 1)

    def _set_bit(self, node: int, tag: int, slot: int) -> None:
        self._words[self._tag_word(node, tag, slot)] |= 1 << slot % 32

    def _any_tagged(self, node: int, tag: int) -> bool:
        first = self._tag_word(node, tag, 0)
        return any(self._words[first + word] for word in range(_TAG_WORDS))

    def tag_set(self, root: int, index: int, tag: int) -> None:
        """``radix_tree_tag_set()``: mark an item, which must be there."""
        path = self._path(root, index)
        if not path:
            raise KernelBug("radix-tree.c", 0, f"nothing at {index:#x} to mark")
        for node, slot in path:
            self._set_bit(node, tag, slot)

    def tag_clear(self, root: int, index: int, tag: int) -> None:
        """``radix_tree_tag_clear()``."""
        self._clear_tag(self._path(root, index), tag)

    def _clear_tag(self, path: Path, tag: int) -> None:
        for node, slot in reversed(path):
            self._words[self._tag_word(node, tag, slot)] &= ~(1 << slot % 32)
            if self._any_tagged(node, tag):
                return

    def tagged(self, root: int, tag: int) -> bool:
        """``radix_tree_tagged()``: whether any item is marked."""
        node = self._root(root, self._rnode)
        return bool(node) and self._any_tagged(node, tag)
