# SPDX-License-Identifier: GPL-2.0-or-later
"""Red-black trees: whatever goes in and out, the tree is sorted and balanced."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel_model.mm.rbtree import COLOR, LEFT, PARENT, RB_LEFT_BYTES, RB_RIGHT_BYTES, RIGHT, RbTree
from kernel_model.ram import PAGE_SIZE, Ram
from kernel_model.structs.mm import RB_BLACK, RB_RED

TREE = 0xC0000FF0
NODE_BYTES = 16
KEYS = 60


class Keys:
    """A tree whose nodes stand in RAM in the order of their keys."""

    def __init__(self) -> None:
        self.tree = RbTree(Ram(PAGE_SIZE))

    def node(self, key: int) -> int:
        return 0xC0000000 + (key + 1) * NODE_BYTES

    def insert(self, key: int) -> None:
        node, link, parent = self.node(key), TREE, 0
        while below := self.tree.root(link):
            parent = below
            link = below + (RB_LEFT_BYTES if node < below else RB_RIGHT_BYTES)
        self.tree.link_node(node, parent, link)
        self.tree.insert_color(node, TREE)

    def erase(self, key: int) -> None:
        self.tree.erase(self.node(key), TREE)

    def check(self) -> list[int]:
        """The nodes in order; asserts all that makes the tree a red-black tree."""
        root = self.tree.root(TREE)
        assert not root or self.tree.get(root, COLOR) == RB_BLACK
        nodes, _ = self._check(root, 0)
        assert nodes == sorted(set(nodes))
        return nodes

    def _check(self, node: int, parent: int) -> tuple[list[int], int]:
        """(nodes in order, black nodes on every way down)."""
        if not node:
            return [], 0
        get = self.tree.get
        assert get(node, PARENT) == parent
        assert get(node, COLOR) in (RB_RED, RB_BLACK)
        if get(node, COLOR) == RB_RED:
            assert get(parent, COLOR) == RB_BLACK, f"{node:#x} is red below red"
        left, left_height = self._check(get(node, LEFT), node)
        right, right_height = self._check(get(node, RIGHT), node)
        assert left_height == right_height, f"{node:#x} is out of balance"
        return [*left, node, *right], left_height + (get(node, COLOR) == RB_BLACK)


@pytest.mark.book("4.4")
@settings(max_examples=150, deadline=None)
@given(st.lists(st.integers(0, KEYS - 1), max_size=120))
def test_any_order_of_insertions_and_removals(keys: list[int]) -> None:
    """A key that is there goes out, one that is not goes in."""
    trees, there = Keys(), set[int]()
    for key in keys:
        if key in there:
            trees.erase(key)
        else:
            trees.insert(key)
        there ^= {key}
        assert trees.check() == [trees.node(known) for known in sorted(there)]


def test_ascending_keys_are_balanced_too() -> None:
    trees = Keys()
    for key in range(KEYS):
        trees.insert(key)
    assert len(trees.check()) == KEYS
    for key in range(0, KEYS, 2):
        trees.erase(key)
    assert len(trees.check()) == KEYS // 2


def fill_and_empty(trees: Keys) -> None:
    for change in (trees.insert, trees.erase):
        for key in range(8):
            change(key)
            trees.check()


@pytest.mark.parametrize("function", ["insert_color", "_erase_color"])
def test_a_tree_that_is_not_balanced_again_is_found(
    function: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RbTree, function, lambda self, *arguments: None)
    with pytest.raises(AssertionError):
        fill_and_empty(Keys())
