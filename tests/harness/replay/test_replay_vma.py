# SPDX-License-Identifier: GPL-2.0-or-later
"""Address spaces answer each call as those of the real kernel did; planted faults show."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.replay import replay
from kernel_model.mm.mlock import Mlock
from kernel_model.mm.mmap.find import Place
from kernel_model.mm.mmap.linux_2_4.mappings import ShareLists
from kernel_model.mm.mmap.linux_2_4.merge import AnonymousMerging
from kernel_model.mm.mmap.linux_2_4.unmap import RefittingUnmapper
from kernel_model.mm.mmap.parts import Content
from kernel_model.mm.mmap.stack import Stacks
from kernel_model.mm.rbtree import COLOR, LEFT, RIGHT, RbTree
from kernel_model.structs.mm import RB_BLACK, RB_RED
from tests.harness.replay.changed_traces import changed

RECORDED = Path(__file__).parents[2] / "data" / "linux-2.4.22"
STRUCTS = "vma_structs.json.gz"


@pytest.mark.book("4.2", "4.3", "4.4")
def test_the_structures_are_laid_out_as_the_real_ones() -> None:
    result = replay(RECORDED / STRUCTS)
    assert (result.topic, result.difference) == ("vma_structs", None)
    assert result.compared > 500


@pytest.mark.parametrize(
    ("field", "change"),
    [
        (["struct mm_struct", "map_count"], lambda row: row.__setitem__(2, row[2] + 4)),
        (["struct inode", ""], lambda row: row.__setitem__(3, row[3] - 4)),
        (["const", "VM_LOCKED"], lambda row: row.__setitem__(2, row[2] << 1)),
    ],
)
def test_a_planted_difference_in_the_structures(
    field: list[str], change: Callable[[list[Any]], None], tmp_path: Path
) -> None:
    def plant(trace: dict[str, Any]) -> None:
        change(next(row for row in trace["configs"][1]["fields"] if row[:2] == field))

    assert not changed(RECORDED / STRUCTS, tmp_path, plant).ok


# -- traces ---------------------------------------------------------------------------------------

TRACES = sorted(path.name for path in RECORDED.glob("vma_trace*.json.gz"))
MIXED = "vma_trace_mixed_1.json.gz"
BUG = "vma_trace_mapcountbug_1.json.gz"


@pytest.mark.book("4.2", "4.4", "4.4.1")
@pytest.mark.parametrize("name", TRACES)
def test_each_call_answers_as_the_real_kernel(name: str) -> None:
    result = replay(RECORDED / name)
    assert (result.topic, result.difference) == ("vma_trace", None)
    assert result.compared > 9_000


@pytest.mark.book("4.3.3", "4.4")
def test_each_scenario_ends_as_in_the_real_kernel() -> None:
    result = replay(RECORDED / "vma_scenarios.json.gz")
    assert (result.topic, result.difference) == ("vma_scenarios", None)
    assert result.compared > 30_000


def first(trace: dict[str, Any], operation: str) -> list[Any]:
    """The first operation of that name that did something."""
    return next(op for op in trace["ops"] if op[1] == operation and isinstance(op[-1][0], list))


def whole_state(trace: dict[str, Any]) -> dict[str, Any]:
    """The state with most VMAs."""
    return max(trace["states"], key=lambda state: len(state["vmas"]))  # type: ignore[no-any-return]


def files(trace: dict[str, Any]) -> list[Any]:
    """The first file of the state in which most VMAs map one privately."""
    rows = [row for state in trace["states"] for row in state["files"]]
    return max(rows, key=lambda row: len(row[3]))  # type: ignore[no-any-return]


def one_more(sequence: Any, index: int | str) -> None:
    sequence[index] += 1


PLANTED: dict[str, Callable[[dict[str, Any]], None]] = {
    "address": lambda trace: one_more(first(trace, "mmap"), 8),
    "size of a zap": lambda trace: one_more(first(trace, "munmap")[-1][0], 2),
    "order of events": lambda trace: first(trace, "exit_mmap")[-1].reverse(),
    "an event more": lambda trace: first(trace, "mremap")[-1].append(["cpt", 0, 1]),
    "total_vm": lambda trace: one_more(first(trace, "munmap")[-2], 1),
    "flags of a VMA": lambda trace: whole_state(trace)["vmas"][2].__setitem__(2, "1"),
    "colour of a node": lambda trace: one_more(whole_state(trace)["rb"][-1], 1),
    "order of i_mmap": lambda trace: files(trace)[3].reverse(),
    "i_writecount": lambda trace: one_more(files(trace), 2),
    "brk": lambda trace: one_more(trace["final"], "brk"),
    "vma_objs": lambda trace: one_more(trace["states"][200], "vma_objs"),
    "an operation less": lambda trace: trace["ops"].pop(150),
}


@pytest.mark.parametrize("what", PLANTED)
def test_a_planted_difference_in_a_trace(what: str, tmp_path: Path) -> None:
    assert not changed(RECORDED / "vma_scenarios.json.gz", tmp_path, PLANTED[what]).ok


def test_a_planted_difference_in_the_place_of_death(tmp_path: Path) -> None:
    def elsewhere(trace: dict[str, Any]) -> None:
        trace["ops"][-1][2] = "mmap.c:1181"

    def survived(trace: dict[str, Any]) -> None:
        number, _, _, operation, summary = trace["ops"][-1]
        trace["ops"][-1] = [number, *operation, operation[1], summary]

    def too_early(trace: dict[str, Any]) -> None:
        number, name, *rest = trace["ops"][99]
        trace["ops"][99] = [number, "BUG", "mmap.c:1194", [name, *rest[:-2]], rest[-1]]

    for change in (elsewhere, survived, too_early):
        assert not changed(RECORDED / BUG, tmp_path, change).ok


Plant = Callable[[pytest.MonkeyPatch], None]


def merges_by_pgoff(monkeypatch: pytest.MonkeyPatch) -> None:
    original = AnonymousMerging.vma_merge

    def vma_merge(
        self: AnonymousMerging, mm: int, place: Place, start: int, end: int, content: Content
    ) -> int:
        prev = place.prev and self._areas.vma(place.prev)
        if prev and prev.vm_pgoff + (prev.vm_end - prev.vm_start >> 12) != start >> 12:
            return 0
        return original(self, mm, place, start, end, content)

    monkeypatch.setattr(AnonymousMerging, "vma_merge", vma_merge)


def blackens_too_eagerly(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it leaves is a red-black tree, only not the kernel's."""
    original = RbTree.insert_color

    def insert_color(self: RbTree, node: int, tree: int) -> None:
        original(self, node, tree)
        below = [self.get(self.root(tree), side) for side in (LEFT, RIGHT)]
        if all(child and self.get(child, COLOR) == RB_RED for child in below):
            for child in below:
                self._set(child, COLOR, RB_BLACK)

    monkeypatch.setattr(RbTree, "insert_color", insert_color)


def keeps_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    original = RefittingUnmapper._take_out

    def take_out(self: RefittingUnmapper, mm: int, prev: int, end: int) -> list[int]:
        cache = self._areas.mm(mm).mmap_cache
        taken = original(self, mm, prev, end)
        self._areas.mm(mm).mmap_cache = 0 if cache in taken else cache
        return taken

    monkeypatch.setattr(RefittingUnmapper, "_take_out", take_out)


def zaps_from_the_lowest(monkeypatch: pytest.MonkeyPatch) -> None:
    original = RefittingUnmapper._take_out
    monkeypatch.setattr(
        RefittingUnmapper, "_take_out", lambda self, *arguments: original(self, *arguments)[::-1]
    )


def new_vmas_of_a_file_last(monkeypatch: pytest.MonkeyPatch) -> None:
    original = ShareLists.link_share

    def link_share(self: ShareLists, vma: int, link: int) -> None:
        while following := self._areas.words[link - 0xC0000000 >> 2]:
            link = self.next_share_link(following)
        original(self, vma, link)

    monkeypatch.setattr(ShareLists, "link_share", link_share)


def munlock_merges(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Mlock.sys_munlock

    def sys_munlock(self: Mlock, start: int, length: int) -> int:
        result = original(self, start, length)
        mm = self._areas.current_mm
        vma = self._areas.mm(mm).mmap
        merging = self._parts.merging
        assert isinstance(merging, AnonymousMerging)
        while vma:
            if not merging.absorb_next(mm, vma):
                vma = self._areas.vma(vma).vm_next
        return result

    monkeypatch.setattr(Mlock, "sys_munlock", sys_munlock)


def stack_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Stacks.expand_stack
    monkeypatch.setattr(
        Stacks, "expand_stack", lambda self, vma, address: original(self, vma, address - 4096)
    )


@pytest.mark.parametrize(
    "plant",
    [
        merges_by_pgoff,
        blackens_too_eagerly,
        keeps_the_cache,
        zaps_from_the_lowest,
        new_vmas_of_a_file_last,
        munlock_merges,
        stack_guard,
    ],
)
def test_a_planted_fault_of_the_model_is_found(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    assert not replay(RECORDED / MIXED).ok
