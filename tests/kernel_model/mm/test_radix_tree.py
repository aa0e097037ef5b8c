# SPDX-License-Identifier: GPL-2.0-or-later
"""Radix trees against a dictionary: what is found, what is tagged, and what is given back."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel_model.config import MIB, KernelConfig
from kernel_model.errno import EEXIST, ENOMEM
from kernel_model.errors import KernelBug
from kernel_model.image import KernelImage
from kernel_model.mm.radix_tree import PAGECACHE_TAG_DIRTY, PAGECACHE_TAG_WRITEBACK, RadixTrees
from kernel_model.structs.linux_2_6.fs import RADIX_TREE_NODE
from tests.kernel_model.mm.object_source import ObjectSource

CACHE = 0xC0500000
ITEM = 0xC1000000
INDICES = st.one_of(
    st.integers(0, 70),
    st.sampled_from([4095, 4096, (1 << 27) | 5, (1 << 32) - 1]),
    st.integers(0, 1 << 13),
)
STEPS = st.lists(st.tuples(st.sampled_from("iidtTcC"), INDICES), max_size=60)


class Tree:
    """One tree in RAM of its own."""

    def __init__(self) -> None:
        self.image = image = KernelImage(KernelConfig(release="2.6", ram=16 * MIB))
        image.statics.radix_tree_node_cachep = CACHE
        self.objects = ObjectSource(image, 8 * MIB, {CACHE: RADIX_TREE_NODE.size})
        self.trees = RadixTrees(image, self.objects, 0)
        space = image.structs.address_space.offset("page_tree")
        self.root = image.symbol("swapper_space") + space

    def items(self, tag: int | None = None) -> dict[int, int]:
        return dict(self.trees.items(self.root, 0, tag))


@pytest.fixture(scope="module")
def tree() -> Tree:
    return Tree()


def run(tree: Tree, steps: list[tuple[str, int]]) -> None:
    """Do each step in the tree and in dictionaries; then take everything out."""
    trees, root = tree.trees, tree.root
    items: dict[int, int] = {}
    tags: tuple[set[int], set[int]] = (set(), set())
    for number, (what, index) in enumerate(steps):
        if what == "i":
            expected = -EEXIST if index in items else 0
            assert trees.insert(root, index, ITEM + number * 4) == expected
            items.setdefault(index, ITEM + number * 4)
        elif what == "d":
            assert trees.delete(root, index) == items.pop(index, 0)
            for tagged in tags:
                tagged.discard(index)
        elif what in "tT" and index in items:
            trees.tag_set(root, index, int(what == "T"))
            tags[what == "T"].add(index)
        elif what in "cC":
            trees.tag_clear(root, index, int(what == "C"))
            tags[what == "C"].discard(index)
        assert trees.lookup(root, index) == items.get(index, 0)
    assert tree.items() == items
    for tag in (PAGECACHE_TAG_DIRTY, PAGECACHE_TAG_WRITEBACK):
        assert set(tree.items(tag)) == tags[tag]
        assert trees.tagged(root, tag) == bool(tags[tag])
    if items:
        first = sorted(items)[len(items) // 2]
        assert dict(trees.items(root, first)) == {n: x for n, x in items.items() if n >= first}
    for index in items:
        trees.delete(root, index)
    assert not tree.objects.live


@given(STEPS)
@settings(max_examples=60)
def test_like_a_dictionary(tree: Tree, steps: list[tuple[str, int]]) -> None:
    run(tree, steps)


def test_a_forgotten_tag_is_seen(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tree grows, and its new root does not take over the tags of the old one."""
    monkeypatch.setattr(RadixTrees, "_any_tagged", lambda self, node, tag: False)
    with pytest.raises(AssertionError):
        run(tree, [("i", 5), ("t", 5), ("i", 4096)])
    tree.trees.delete(tree.root, 5)
    tree.trees.delete(tree.root, 4096)


def test_what_is_not_there_cannot_be_tagged(tree: Tree) -> None:
    with pytest.raises(KernelBug, match="nothing at 0x7"):
        tree.trees.tag_set(tree.root, 7, PAGECACHE_TAG_DIRTY)


@pytest.mark.parametrize("left", range(4))
def test_without_memory_the_others_stay(tree: Tree, left: int) -> None:
    assert tree.trees.insert(tree.root, 3, ITEM) == 0
    tree.objects.left = left
    assert tree.trees.insert(tree.root, 1 << 20, ITEM + 4) == -ENOMEM
    assert tree.trees.lookup(tree.root, 1 << 20) == 0
    assert tree.trees.lookup(tree.root, 3) == ITEM
    tree.objects.left = None
    assert tree.trees.insert(tree.root, 1 << 20, ITEM + 4) == 0
    assert tree.items() == {3: ITEM, 1 << 20: ITEM + 4}
    for index in (3, 1 << 20):
        assert tree.trees.delete(tree.root, index)
    assert not tree.objects.live
