# SPDX-License-Identifier: GPL-2.0-or-later
"""Prio trees: heap and radix order whatever goes in and out, and queries that miss nothing."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kernel_model.errors import KernelBug
from kernel_model.mm.prio_tree import (
    LEFT,
    PARENT,
    RIGHT,
    VM_SHARED_NODE,
    PrioTree,
    VmaPrioTree,
)
from kernel_model.ram import Ram
from kernel_model.structs.linux_2_6.mm import VM_AREA_STRUCT

ROOT = 0xC0000010
FIRST_VMA = 0xC0001000
VMAS = 24
Pages = tuple[int, int]


class Mapped:
    """The VMAs of one file; a naive list of them says what the tree must know."""

    def __init__(self) -> None:
        self.ram = Ram(1 << 16)
        self.vmas = VmaPrioTree(self.ram)
        self.tree = self.vmas.tree
        self.tree.init_root(ROOT)
        self.there: dict[int, Pages] = {}
        """VMA -> first and last page."""

    def vma(self, number: int) -> int:
        return FIRST_VMA + VM_AREA_STRUCT.size * number

    def insert(self, number: int, pages: Pages) -> int:
        vma = self.vma(number)
        view = VM_AREA_STRUCT.at(self.ram, vma - 0xC0000000)
        view.vm_start = 0x40000000
        view.vm_end = view.vm_start + (pages[1] - pages[0] + 1 << 12)
        view.vm_pgoff = pages[0]
        self.vmas.insert(vma, ROOT)
        self.there[vma] = pages
        return vma

    def remove(self, number: int) -> None:
        self.vmas.remove(self.vma(number), ROOT)
        del self.there[self.vma(number)]

    def overlapping(self, pages: Pages) -> list[int]:
        """What the tree says; each once."""
        found = list(self.vmas.overlapping(ROOT, *pages))
        assert len(found) == len(set(found))
        return sorted(found)

    def truth(self, pages: Pages) -> list[int]:
        return sorted(
            vma
            for vma, (first, last) in self.there.items()
            if first <= pages[1] and last >= pages[0]
        )

    def check(self) -> None:
        """All that makes it a prio tree, and that just the VMAs that are there are in it."""
        top, bits = self.tree.root(ROOT), self.tree.index_bits(ROOT)
        assert bool(top) == bool(self.there)
        seen = self._check(top, top, 0, bits, (0, (1 << 32) - 1)) if top else []
        assert sorted(seen) == sorted(self.there)

    def _check(self, node: int, parent: int, level: int, bits: int, above: Pages) -> list[int]:
        """A subtree. ``above`` are the pages of the node above it."""
        get, (first, last) = self.tree.get, self.tree.index(node)
        assert get(node, PARENT) == parent
        assert last < 1 << bits
        assert last < above[1] or (last == above[1] and first >= above[0]), "no heap"
        sharing = list(self.vmas.sharing(node))
        assert {self.there[vma] for vma in sharing} == {(first, last)}
        seen = sharing
        for side in (LEFT, RIGHT):
            if below := self.tree.child(node, side):
                self._check_radix(below, side, level, bits)
                seen = seen + self._check(below, node, level + 1, bits, (first, last))
        return seen

    def _check_radix(self, node: int, side: int, level: int, bits: int) -> None:
        """Every node of a subtree has the bit that says on which side it is."""
        first, last = self.tree.index(node)
        value, bit = (
            (first, bits - 1 - level) if level < bits else (last - first, 31 + bits - level)
        )
        assert value >> bit & 1 == (side == RIGHT), f"{first:#x}-{last:#x} on the wrong side"
        for below in (self.tree.child(node, other) for other in (LEFT, RIGHT)):
            if below:
                self._check_radix(below, side, level, bits)


def pages_of(first: int, size: int) -> Pages:
    return first, first + size - 1


FEW = st.builds(pages_of, st.integers(0, 12), st.integers(1, 6))
"""So few that VMAs share pages, ends and beginnings."""
MANY = st.builds(
    pages_of, st.one_of(st.integers(0, 300), st.integers(0, 1 << 20)), st.integers(1, 5000)
)
STEPS = st.lists(st.tuples(st.integers(0, VMAS - 1), st.one_of(FEW, MANY), FEW), max_size=60)
Step = tuple[int, Pages, Pages]


def run(steps: list[Step], mapped: Mapped) -> None:
    """A VMA that is there goes out, one that is not goes in."""
    for number, pages, query in steps:
        if mapped.vma(number) in mapped.there:
            mapped.remove(number)
        else:
            mapped.insert(number, pages)
        mapped.check()
        for asked in (query, pages, (pages[0], pages[0]), (0, (1 << 32) - 1)):
            assert mapped.overlapping(asked) == mapped.truth(asked)


@pytest.mark.book("3.10", "4.8")
@settings(max_examples=150, deadline=None)
@given(STEPS)
def test_whatever_goes_in_and_out_the_tree_knows_who_maps_a_page(steps: list[Step]) -> None:
    run(steps, Mapped())


@pytest.mark.book("3.10")
def test_vmas_of_the_same_pages_share_a_node_and_inherit_it() -> None:
    mapped = Mapped()
    vmas = [mapped.insert(number, (3, 7)) for number in range(4)]
    node = mapped.tree.root(ROOT)
    assert node == vmas[0] + VM_SHARED_NODE
    assert list(mapped.vmas.sharing(node)) == vmas
    mapped.remove(0)
    assert mapped.tree.root(ROOT) == vmas[1] + VM_SHARED_NODE
    assert list(mapped.vmas.sharing(vmas[1] + VM_SHARED_NODE)) == vmas[1:]
    mapped.remove(2)
    assert list(mapped.vmas.sharing(vmas[1] + VM_SHARED_NODE)) == [vmas[1], vmas[3]]


@pytest.mark.book("3.10")
def test_a_copy_hangs_on_the_node_of_its_original() -> None:
    """``fork()`` adds the child's VMA next to the parent's, wherever that is."""
    mapped = Mapped()
    vmas = [mapped.insert(number, (3, 7)) for number in range(3)]
    for number, original in enumerate(vmas, 10):
        copy = mapped.vma(number)
        view, old = (VM_AREA_STRUCT.at(mapped.ram, at - 0xC0000000) for at in (copy, original))
        view.vm_start, view.vm_end, view.vm_pgoff = old.vm_start, old.vm_end, old.vm_pgoff
        mapped.vmas.add(copy, original)
        mapped.there[copy] = (3, 7)
        mapped.check()


def test_a_vma_of_other_pages_does_not_go_on_a_nodes_list() -> None:
    mapped = Mapped()
    old, other = mapped.insert(0, (3, 7)), mapped.insert(1, (3, 8))
    with pytest.raises(KernelBug, match="other pages"):
        mapped.vmas.add(other, old)


def test_the_index_grows_by_bits_and_starts_anew_when_all_are_gone() -> None:
    mapped = Mapped()
    assert mapped.tree.index_bits(ROOT) == 1
    for number, last in enumerate((0, 1, 2, 100, 1 << 20, (1 << 32) - 2)):
        mapped.insert(number, (max(0, last - 100), last))
        mapped.check()
        assert mapped.tree.index_bits(ROOT) == max(last.bit_length(), 1)
    for number in range(6):
        mapped.remove(number)
        mapped.check()
    assert mapped.tree.index_bits(ROOT) == 1


# -- planted faults -------------------------------------------------------------------------------

Plant = Callable[[pytest.MonkeyPatch], None]


def no_heap(monkeypatch: pytest.MonkeyPatch) -> None:
    """The earlier of two children moves up."""
    later = PrioTree._later_child

    def earlier_child(self: PrioTree, node: int) -> int:
        left, right = self.child(node, LEFT), self.child(node, RIGHT)
        chosen = later(self, node)
        return left + right - chosen if left and right else chosen

    monkeypatch.setattr(PrioTree, "_later_child", earlier_child)


def expands_without_moving(monkeypatch: pytest.MonkeyPatch) -> None:
    """More bits, and what is there stays where it is below the new node."""

    def expand(self: PrioTree, root: int, node: int, heap: int) -> int:
        bits, top = max(self.index_bits(root), heap.bit_length()), self.root(root)
        self._words[(root - 0xC0000000 >> 2) + 1] = 1 << 16 | bits
        self._init_node(node)
        if top:
            self._hang(top, LEFT, node)
        self._words[root - 0xC0000000 >> 2] = node
        return node

    monkeypatch.setattr(PrioTree, "_expand", expand)


def forgets_the_list(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(VmaPrioTree, "_join", lambda self, node, head: self._set_head(node, 0))


def ends_at_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """A query that takes a node that ends before the pages for one that is not there."""
    original = PrioTree.overlapping

    def overlapping(self: PrioTree, root: int, first: int, last: int) -> list[int]:
        return [node for node in original(self, root, first, last) if self.index(node)[0] >= first]

    monkeypatch.setattr(PrioTree, "overlapping", overlapping)


STEPS_THAT_SHOW: list[Step] = [
    (0, (0, 9), (0, 0)),
    (1, (0, 3), (1, 1)),
    (2, (8, 9), (9, 9)),
    (3, (0, 3), (3, 3)),
    (4, (2, 5), (4, 4)),
    (5, (6, 8), (0, 2)),
    (6, (100, 1000), (0, 2)),
    (7, (0, 3), (0, 2)),
    (1, (0, 3), (0, 2)),
    (0, (0, 9), (0, 2)),
    (6, (100, 1000), (0, 2)),
]


def test_the_steps_are_right_without_a_fault() -> None:
    run(STEPS_THAT_SHOW, Mapped())


@pytest.mark.parametrize(
    "plant", [no_heap, expands_without_moving, forgets_the_list, ends_at_the_node]
)
def test_a_planted_fault_is_found(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    with pytest.raises((AssertionError, KernelBug)):
        run(STEPS_THAT_SHOW, Mapped())
