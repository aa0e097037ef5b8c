# SPDX-License-Identifier: GPL-2.0-or-later
"""Red-black trees in RAM.

Models linux-2.4.22 ``lib/rbtree.c`` and ``include/linux/rbtree.h`` (book 4.4). A node is the
kernel virtual address of an ``rb_node_t``, a tree that of its ``rb_root_t``, a link that of the
pointer that points to a node. The shape that insertions and removals leave is the kernel's own,
node by node.
"""

from typing import Final

from kernel_model.arch_i386.page import PAGE_OFFSET
from kernel_model.ram import Ram
from kernel_model.structs.mm import RB_BLACK, RB_NODE, RB_RED

PARENT: Final = RB_NODE.word("rb_parent")
COLOR: Final = RB_NODE.word("rb_color")
RIGHT: Final = RB_NODE.word("rb_right")
LEFT: Final = RB_NODE.word("rb_left")
RB_RIGHT_BYTES: Final = RB_NODE.offset("rb_right")
RB_LEFT_BYTES: Final = RB_NODE.offset("rb_left")


class RbTree:
    """Operations on any tree in ``ram``."""

    def __init__(self, ram: Ram) -> None:
        self._words = ram.words

    def get(self, node: int, field: int) -> int:
        """One word of a node: :data:`PARENT`, :data:`COLOR`, :data:`LEFT` or :data:`RIGHT`."""
        return self._words[(node - PAGE_OFFSET >> 2) + field]

    def _set(self, node: int, field: int, value: int) -> None:
        self._words[(node - PAGE_OFFSET >> 2) + field] = value

    def root(self, tree: int) -> int:
        return self._words[tree - PAGE_OFFSET >> 2]

    def _is_black(self, node: int) -> bool:
        """A leaf, which is no node at all, is black."""
        return not node or self.get(node, COLOR) == RB_BLACK

    def _replace(self, tree: int, old: int, new: int, parent: int) -> None:
        """Whatever pointed down to ``old`` points to ``new``."""
        if not parent:
            self._words[tree - PAGE_OFFSET >> 2] = new
        elif self.get(parent, LEFT) == old:
            self._set(parent, LEFT, new)
        else:
            self._set(parent, RIGHT, new)

    def _rotate(self, tree: int, node: int, side: int) -> None:
        """``node`` goes down to ``side``, and its child of the other side takes its place."""
        other = LEFT + RIGHT - side
        child = self.get(node, other)
        grandchild = self.get(child, side)
        self._set(node, other, grandchild)
        if grandchild:
            self._set(grandchild, PARENT, node)
        parent = self.get(node, PARENT)
        self._set(child, side, node)
        self._set(child, PARENT, parent)
        self._replace(tree, node, child, parent)
        self._set(node, PARENT, child)

    # -- inserting -----------------------------------------------------------------------------

    def link_node(self, node: int, parent: int, link: int) -> None:
        """``rb_link_node()``: hang a red leaf where ``link`` is; the tree is not balanced yet."""
        at = node - PAGE_OFFSET >> 2
        self._words[at + PARENT] = parent
        self._words[at + COLOR] = RB_RED
        self._words[at + LEFT] = self._words[at + RIGHT] = 0
        self._words[link - PAGE_OFFSET >> 2] = node

    def insert_color(self, node: int, tree: int) -> None:
        """``rb_insert_color()``: no red node may have a red parent."""
        get, put = self.get, self._set
        while (parent := get(node, PARENT)) and get(parent, COLOR) == RB_RED:
            grandparent = get(parent, PARENT)
            side = LEFT if parent == get(grandparent, LEFT) else RIGHT
            other = LEFT + RIGHT - side
            uncle = get(grandparent, other)
            if not self._is_black(uncle):
                put(uncle, COLOR, RB_BLACK)
                put(parent, COLOR, RB_BLACK)
                put(grandparent, COLOR, RB_RED)
                node = grandparent
                continue
            if get(parent, other) == node:
                self._rotate(tree, parent, side)
                parent, node = node, parent
            put(parent, COLOR, RB_BLACK)
            put(grandparent, COLOR, RB_RED)
            self._rotate(tree, grandparent, other)
        put(self.root(tree), COLOR, RB_BLACK)

    # -- removing ------------------------------------------------------------------------------

    def erase(self, node: int, tree: int) -> None:
        """``rb_erase()``: a node with two children changes places with its successor first."""
        get, put = self.get, self._set
        left, right = get(node, LEFT), get(node, RIGHT)
        if left and right:
            child, parent, color = self._erase_inner(node, tree)
        else:
            child = left or right
            parent, color = get(node, PARENT), get(node, COLOR)
            if child:
                put(child, PARENT, parent)
            self._replace(tree, node, child, parent)
        if color == RB_BLACK:
            self._erase_color(child, parent, tree)

    def _erase_inner(self, old: int, tree: int) -> tuple[int, int, int]:
        """The successor takes the place of ``old``. (what moved up, its parent, colour lost)"""
        get, put = self.get, self._set
        node = get(old, RIGHT)
        while left := get(node, LEFT):
            node = left
        child, parent, color = get(node, RIGHT), get(node, PARENT), get(node, COLOR)
        if child:
            put(child, PARENT, parent)
        self._replace(tree, node, child, parent)
        if parent == old:
            parent = node
        above = get(old, PARENT)
        for field in (PARENT, COLOR, RIGHT, LEFT):
            put(node, field, get(old, field))
        self._replace(tree, old, node, above)
        for side in (LEFT, RIGHT):
            if below := get(node, side):
                put(below, PARENT, node)
        return child, parent, color

    def _erase_color(self, node: int, parent: int, tree: int) -> None:
        """Every way down must pass as many black nodes as before."""
        get, put = self.get, self._set
        while self._is_black(node) and node != self.root(tree):
            side = LEFT if get(parent, LEFT) == node else RIGHT
            far = LEFT + RIGHT - side
            other = get(parent, far)
            if get(other, COLOR) == RB_RED:
                put(other, COLOR, RB_BLACK)
                put(parent, COLOR, RB_RED)
                self._rotate(tree, parent, side)
                other = get(parent, far)
            if self._is_black(get(other, LEFT)) and self._is_black(get(other, RIGHT)):
                put(other, COLOR, RB_RED)
                node, parent = parent, get(parent, PARENT)
                continue
            if self._is_black(get(other, far)):
                put(get(other, side), COLOR, RB_BLACK)
                put(other, COLOR, RB_RED)
                self._rotate(tree, other, far)
                other = get(parent, far)
            put(other, COLOR, get(parent, COLOR))
            put(parent, COLOR, RB_BLACK)
            put(get(other, far), COLOR, RB_BLACK)
            self._rotate(tree, parent, side)
            node = self.root(tree)
            break
        if node:
            put(node, COLOR, RB_BLACK)
