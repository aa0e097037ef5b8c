# SPDX-License-Identifier: GPL-2.0-or-later
"""The VMAs of a file, found by the pages that they map: a radix priority search tree in RAM.

Models linux-2.6.11 ``lib/prio_tree.c`` and ``mm/prio_tree.c`` (book 3.10). A VMA maps the pages
``[radix, heap]`` of its file, from ``vm_pgoff`` to the last one. The tree is a heap by the last
page, so a subtree that ends before the wanted pages need not be looked at; and a radix tree by the
first page, then by the size, whose bits say at each level whether to go left or right. VMAs of
the very same pages share one node: the others hang on its list, ``shared.vm_set``.

In RAM: the root in ``mapping->i_mmap``, a node in each VMA, ``vma->shared``. A root, a node and a
VMA are kernel virtual addresses. A child that is missing, and the parent of the root, point to
the node itself. ``parent`` tells what a VMA is: NULL for one on a list; with ``head`` its first.

What can fail: a node that is linked wrongly ends in the kernel's own ``BUG()``.
"""

from collections.abc import Iterator
from typing import Final

from kernel_model.arch_i386.page import PAGE_OFFSET, PAGE_SHIFT
from kernel_model.errors import KernelBug
from kernel_model.lists import Lists
from kernel_model.ram import Ram
from kernel_model.structs.linux_2_6.mm import PRIO_TREE_NODE, VM_AREA_SHARED, VM_AREA_STRUCT

LEFT: Final = PRIO_TREE_NODE.word("left")
RIGHT: Final = PRIO_TREE_NODE.word("right")
PARENT: Final = PRIO_TREE_NODE.word("parent")
VM_SHARED_NODE: Final = VM_AREA_STRUCT.offset("shared")
"""Bytes from a VMA to its node."""
_BITS_PER_LONG: Final = 32
_U32: Final = 0xFFFFFFFF
_HEAD: Final = VM_AREA_SHARED.word("head")
_START: Final = VM_AREA_STRUCT.word("vm_start")
_END: Final = VM_AREA_STRUCT.word("vm_end")
_PGOFF: Final = VM_AREA_STRUCT.word("vm_pgoff")
_FILE: Final = "prio_tree.c"


class PrioTree:
    """``raw_prio_tree_*()``: trees whose nodes are the ``shared`` of VMAs."""

    def __init__(self, ram: Ram) -> None:
        self._words = ram.words

    # -- roots and nodes -----------------------------------------------------------------------

    def init_root(self, root: int) -> None:
        """``INIT_RAW_PRIO_TREE_ROOT()``: an empty tree."""
        at = root - PAGE_OFFSET >> 2
        self._words[at] = 0
        self._words[at + 1] = 1 << 16 | 1

    def root(self, root: int) -> int:
        """The topmost node; 0: none."""
        return self._words[root - PAGE_OFFSET >> 2]

    def index_bits(self, root: int) -> int:
        """How many bits of a first page the tree tells apart."""
        return self._words[(root - PAGE_OFFSET >> 2) + 1] & 0xFFFF

    def get(self, node: int, field: int) -> int:
        """One word of a node: :data:`LEFT`, :data:`RIGHT` or :data:`PARENT`."""
        return self._words[(node - PAGE_OFFSET >> 2) + field]

    def put(self, node: int, field: int, value: int) -> None:
        self._words[(node - PAGE_OFFSET >> 2) + field] = value

    def child(self, node: int, side: int) -> int:
        """The node below on that side; 0: none."""
        below = self.get(node, side)
        return 0 if below == node else below

    def index(self, node: int) -> tuple[int, int]:
        """The first and the last page that the VMA of a node maps. Offsets wrap, as in C."""
        words, at = self._words, node - VM_SHARED_NODE - PAGE_OFFSET >> 2
        radix, pages = words[at + _PGOFF], words[at + _END] - words[at + _START] >> PAGE_SHIFT
        return radix, radix + pages - 1 & _U32

    def _init_node(self, node: int) -> None:
        for field in (LEFT, RIGHT, PARENT):
            self.put(node, field, node)

    def _hang(self, node: int, side: int, parent: int) -> None:
        self.put(parent, side, node)
        self.put(node, PARENT, parent)

    # -- changing ------------------------------------------------------------------------------

    def insert(self, root: int, node: int) -> int:
        """``raw_prio_tree_insert()``. Returns the node, or one of the same pages, which stays
        alone in the tree."""
        inserted, (radix, heap) = node, self.index(node)
        bits = self.index_bits(root)
        current = self.root(root)
        if not current or heap >= 1 << bits:
            return self._expand(root, node, heap)
        for turn in _turns(bits):
            current_radix, current_heap = self.index(current)
            if (current_radix, current_heap) == (radix, heap):
                return current
            if current_heap < heap or (current_heap == heap and current_radix > radix):
                # A heap: what ends later stands above, so the two change places.
                self.replace(root, current, node)
                node, current = current, node
                radix, heap = current_radix, current_heap
            by_size, mask = turn
            value = heap - radix if by_size else radix
            side = RIGHT if value & mask else LEFT
            below = self.child(current, side)
            if not below:
                self._init_node(node)
                self._hang(node, side, current)
                return inserted
            current = below
        raise KernelBug(_FILE, 0, f"no place for pages {radix:#x} to {heap:#x}")

    def _expand(self, root: int, node: int, heap: int) -> int:
        """``prio_tree_expand()``: more bits, so that ``heap`` has a place; ``node`` on top.

        Each bit more is one level more on the left, where what was there goes: the topmost node of
        what is left fills it, so that it stays a heap.
        """
        at = (root - PAGE_OFFSET >> 2) + 1
        bits, chain = self.index_bits(root), [node]
        wanted = max(bits, heap.bit_length())
        for level in range(bits + 1, wanted + 1):
            self._words[at] = 1 << 16 | level
            if level > bits + 1 and (top := self.root(root)):
                self.remove(root, top)
                # A tree that has become empty has been given one bit again.
                self._words[at] = 1 << 16 | level
                chain.append(top)
        rest = self.root(root)
        for entry in chain:
            self._init_node(entry)
        for below, above in zip([*chain[1:], *([rest] if rest else [])], chain, strict=False):
            self._hang(below, LEFT, above)
        self._words[at - 1] = node
        return node

    def replace(self, root: int, old: int, node: int) -> None:
        """``prio_tree_replace()``: ``node`` takes the place of ``old``."""
        self._init_node(node)
        parent = self.get(old, PARENT)
        if parent == old:
            if self.root(root) != old:
                raise KernelBug(_FILE, 0, "a node without parent is not the root")
            self._words[root - PAGE_OFFSET >> 2] = node
        else:
            self._hang(node, LEFT if self.get(parent, LEFT) == old else RIGHT, parent)
        for side in (LEFT, RIGHT):
            if below := self.child(old, side):
                self._hang(below, side, node)

    def remove(self, root: int, node: int) -> None:
        """``raw_prio_tree_remove()``: a leaf goes, and everything on the way to it moves up."""
        current = node
        while below := self._later_child(current):
            current = below
        parent = self.get(current, PARENT)
        if parent == current:
            if self.root(root) != current:
                raise KernelBug(_FILE, 0, "a node without parent is not the root")
            self.init_root(root)
            return
        self.put(parent, RIGHT if self.get(parent, RIGHT) == current else LEFT, parent)
        while current != node:
            parent = self.get(current, PARENT)
            self.replace(root, parent, current)
            current = parent

    def _later_child(self, node: int) -> int:
        """The child that ends later, the left one of two that end together; 0: a leaf."""
        left, right = self.child(node, LEFT), self.child(node, RIGHT)
        if left and right:
            return left if self.index(left)[1] >= self.index(right)[1] else right
        return left or right

    # -- finding -------------------------------------------------------------------------------

    def overlapping(self, root: int, first: int, last: int) -> Iterator[int]:
        """``prio_tree_next()``: the nodes that map a page of ``first`` to ``last``, from the top.

        Nothing may be inserted or removed meanwhile.
        """
        top = self.root(root)
        waiting = [(top, 1 << self.index_bits(root) - 1, 0)] if top else []
        while waiting:
            node, mask, lowest = waiting.pop()
            radix, heap = self.index(node)
            if heap < first:
                continue
            if radix <= last:
                yield node
            # Behind the bits of the first page come those of the size: no bound any more.
            beyond = lowest | mask
            for side, bound in ((RIGHT, beyond), (LEFT, lowest)):
                below = self.child(node, side)
                if below and bound <= last:
                    waiting.append((below, mask >> 1, bound))


def _turns(bits: int) -> Iterator[tuple[bool, int]]:
    """At each level: whether the size is asked rather than the first page, and which bit."""
    for bit in reversed(range(bits)):
        yield False, 1 << bit
    for bit in reversed(range(_BITS_PER_LONG)):
        yield True, 1 << bit


class VmaPrioTree:
    """``vma_prio_tree_*()``: VMAs in such trees, those of the same pages on one node's list."""

    def __init__(self, ram: Ram) -> None:
        self.tree = PrioTree(ram)
        self._lists = Lists(ram)

    def head(self, vma: int) -> int:
        """``shared.vm_set.head``: a node's first list entry, its node for that; 0: neither."""
        return self.tree.get(vma + VM_SHARED_NODE, _HEAD)

    def _set_head(self, vma: int, head: int) -> None:
        self.tree.put(vma + VM_SHARED_NODE, _HEAD, head)

    def _in_tree(self, vma: int) -> bool:
        return bool(self.tree.get(vma + VM_SHARED_NODE, PARENT))

    def insert(self, vma: int, root: int) -> None:
        """``vma_prio_tree_insert()``."""
        self._set_head(vma, 0)
        node = self.tree.insert(root, vma + VM_SHARED_NODE)
        if node != vma + VM_SHARED_NODE:
            self.add(vma, node - VM_SHARED_NODE)

    def add(self, vma: int, old: int) -> None:
        """``vma_prio_tree_add()``: a VMA that maps the same pages as another one."""
        if self.tree.index(vma + VM_SHARED_NODE) != self.tree.index(old + VM_SHARED_NODE):
            raise KernelBug(_FILE, 0, "a VMA of other pages was put on a node's list")
        node = vma + VM_SHARED_NODE
        self._set_head(vma, 0)
        self.tree.put(node, PARENT, 0)
        if not self._in_tree(old):
            self._lists.add(node, old + VM_SHARED_NODE)
        elif head := self.head(old):
            self._lists.add_tail(node, head + VM_SHARED_NODE)
        else:
            self._lists.init(node)
            self._set_head(vma, old)
            self._set_head(old, vma)

    def remove(self, vma: int, root: int) -> None:
        """``vma_prio_tree_remove()``: the first on a node's list inherits its place."""
        node, head = vma + VM_SHARED_NODE, self.head(vma)
        if not head and self._in_tree(vma):
            self.tree.remove(root, node)
        elif not head:
            self._lists.delete_init(node)
        elif self.head(head) != vma:
            raise KernelBug(_FILE, 0, "a node and the first of its list do not know each other")
        elif self._in_tree(vma):
            following = self._behind(head)
            self.tree.replace(root, node, head + VM_SHARED_NODE)
            self._join(head, following)
        else:
            self._join(head, self._behind(vma))

    def _behind(self, head: int) -> int:
        """Take the first of a list off it. Returns the one behind it; 0: it was alone."""
        entry = head + VM_SHARED_NODE
        if self._lists.empty(entry):
            return 0
        following = self._lists.first(entry) - VM_SHARED_NODE
        self._lists.delete_init(entry)
        return following

    def _join(self, node: int, head: int) -> None:
        """Let ``head``, if it is one, be the first on the list of ``node``."""
        self._set_head(node, head)
        if head:
            self._set_head(head, node)

    def sharing(self, node: int) -> Iterator[int]:
        """The VMA of a node, and all on its list."""
        vma = node - VM_SHARED_NODE
        yield vma
        if head := self.head(vma):
            yield head
            for entry in self._lists.entries(head + VM_SHARED_NODE):
                yield entry - VM_SHARED_NODE

    def overlapping(self, root: int, first: int, last: int) -> Iterator[int]:
        """``vma_prio_tree_foreach()``: the VMAs that map a page of ``first`` to ``last``."""
        for node in self.tree.overlapping(root, first, last):
            yield from self.sharing(node)
