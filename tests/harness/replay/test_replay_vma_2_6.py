# SPDX-License-Identifier: GPL-2.0-or-later
"""Address spaces of 2.6 answer each call as those of the real kernel did; planted faults show."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.replay import replay
from kernel_model.mm.mlock import Mlock
from kernel_model.mm.mmap.linux_2_6.adjust import Adjuster
from kernel_model.mm.mmap.linux_2_6.merge import OffsetMerging
from kernel_model.mm.mmap.linux_2_6.mlock import UnprivilegedMlock
from kernel_model.mm.mmap.linux_2_6.mprotect import MergingMprotect
from kernel_model.mm.mmap.linux_2_6.mremap import VmaFirstMremap
from kernel_model.mm.mmap.linux_2_6.neighbours import Neighbours
from kernel_model.mm.mmap.linux_2_6.unmap import CuttingUnmapper
from kernel_model.mm.mmap.linux_2_6.unmapped_area import RememberedSearch
from kernel_model.mm.prio_tree import PrioTree
from kernel_model.mm.rmap.anon_vma import AnonVmas
from tests.harness.replay.changed_traces import changed

RECORDED = Path(__file__).parents[2] / "data" / "linux-2.6.11"
STRUCTS = "vma_structs.json.gz"
KINDS = ("anon", "mapcount", "mixed", "mixed_topdown", "nomem", "rlimit")
SCENARIOS = "vma_scenarios.json.gz"
MIXED, TOPDOWN = "vma_trace_mixed_1.json.gz", "vma_trace_mixed_topdown_1.json.gz"


@pytest.mark.book("4.8")
def test_the_structures_are_laid_out_as_the_real_ones() -> None:
    result = replay(RECORDED / STRUCTS)
    assert (result.topic, result.difference) == ("vma_structs", None)
    assert result.compared > 350


@pytest.mark.parametrize(
    ("field", "change"),
    [
        (["struct mm_struct", "free_area_cache"], lambda row: row.__setitem__(2, row[2] + 4)),
        (["struct address_space", ""], lambda row: row.__setitem__(3, row[3] - 4)),
        (["const", "VM_ACCOUNT"], lambda row: row.__setitem__(2, row[2] << 1)),
        (["const", "SWAP_FAIL"], lambda row: row.__setitem__(2, 1)),
    ],
)
def test_a_planted_difference_in_the_structures(
    field: list[str], change: Callable[[list[Any]], None], tmp_path: Path
) -> None:
    def plant(trace: dict[str, Any]) -> None:
        change(next(row for row in trace["fields"] if row[:2] == field))

    assert not changed(RECORDED / STRUCTS, tmp_path, plant).ok


@pytest.mark.book("4.8", "3.10")
@pytest.mark.parametrize("kind", KINDS)
def test_each_call_answers_as_the_real_kernel(kind: str) -> None:
    result = replay(RECORDED / f"vma_trace_{kind}_1.json.gz")
    assert (result.topic, result.difference) == ("vma_trace", None)
    assert result.compared > 70_000


@pytest.mark.book("4.8", "3.10")
def test_each_scenario_ends_as_in_the_real_kernel() -> None:
    result = replay(RECORDED / SCENARIOS)
    assert (result.topic, result.difference) == ("vma_scenarios", None)
    assert result.compared > 60_000


# -- planted differences --------------------------------------------------------------------------


def summary(trace: dict[str, Any], operation: str) -> list[Any]:
    """The summary of the last operation of that name."""
    op = [op for op in trace["ops"] if op[1] == operation][-1]
    return next(part for part in op if isinstance(part, list) and len(part) == 6)  # type: ignore[no-any-return]


def mapped_file(trace: dict[str, Any]) -> list[Any]:
    """The file that most VMAs map, in any state."""
    rows = [row for state in trace["states"] for row in state.get("files", [])]
    return max(rows, key=lambda row: len(row[6]))  # type: ignore[no-any-return]


def anon_row(trace: dict[str, Any]) -> list[Any]:
    """A VMA that has an anon_vma."""
    rows = [row for state in trace["states"] for row in state["vmas"]]
    return next(row for row in rows if row[6])  # type: ignore[no-any-return]


def one_more(sequence: Any, index: int | str) -> None:
    sequence[index] += 1


PLANTED: dict[str, Callable[[dict[str, Any]], None]] = {
    "free_area_cache": lambda trace: one_more(summary(trace, "mmap"), 4),
    "vm_committed_space": lambda trace: one_more(summary(trace, "munmap"), 5),
    "anon_vma": lambda trace: one_more(anon_row(trace), 6),
    "order in the prio tree": lambda trace: mapped_file(trace)[3].reverse(),
    "shape of the prio tree": lambda trace: one_more(mapped_file(trace)[6][0], 3),
    "index_bits": lambda trace: one_more(mapped_file(trace), 5),
    "shared_vm": lambda trace: one_more(trace["states"][50], "shared_vm"),
    "stack_vm": lambda trace: one_more(trace["final"], "stack_vm"),
    "pgoff": lambda trace: one_more(trace["states"][60]["vmas"][1], 3),
    "an operation less": lambda trace: trace["ops"].pop(150),
}


@pytest.mark.parametrize("what", PLANTED)
def test_a_planted_difference_in_a_trace(what: str, tmp_path: Path) -> None:
    assert not changed(RECORDED / MIXED, tmp_path, PLANTED[what]).ok


# -- planted faults -------------------------------------------------------------------------------

Plant = Callable[[pytest.MonkeyPatch], None]


def no_case_6(patch: pytest.MonkeyPatch) -> None:
    """A VMA never grows over two others at once."""
    extend = OffsetMerging._extend
    patch.setattr(OffsetMerging, "_extend", lambda self, prev, _, end: extend(self, prev, 0, end))


def offset_does_not_matter(patch: pytest.MonkeyPatch) -> None:
    original = Neighbours.can_merge_after

    def can_merge_after(self: Neighbours, vma: int, content: Any) -> bool:
        area = self._areas.vma(vma)
        after = area.vm_pgoff + (area.vm_end - area.vm_start >> 12)
        return original(self, vma, content._replace(pgoff=after))

    patch.setattr(Neighbours, "can_merge_after", can_merge_after)


def watched_vmas_merge(patch: pytest.MonkeyPatch) -> None:
    """``vm_ops->close`` does not keep a VMA from merging."""

    def alike(self: Neighbours, vma: int, content: Any) -> bool:
        area = self._areas.vma(vma)
        return (area.vm_flags, area.vm_file) == (content.vm_flags, content.file)

    patch.setattr(Neighbours, "_alike", alike)


def tree_keeps_the_old_pages(patch: pytest.MonkeyPatch) -> None:
    def move_edges(
        self: Adjuster, vma: int, following: int, start: int, end: int, pgoff: int, shift: int
    ) -> None:
        area = self._areas.vma(vma)
        area.vm_start, area.vm_end, area.vm_pgoff = start, end, pgoff
        if shift:
            behind = self._areas.vma(following)
            behind.vm_start += shift << 12
            behind.vm_pgoff += shift

    patch.setattr(Adjuster, "_move_edges", move_edges)


def moving_gives_the_charge_back(patch: pytest.MonkeyPatch) -> None:
    def unmap(self: VmaFirstMremap, mm: int, vma: int, flags: int, addr: int, length: int) -> None:
        self._parts.unmapper.do_munmap(mm, addr, length)

    patch.setattr(VmaFirstMremap, "_unmap_uncharged", unmap)


def protecting_charges_nothing(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(MergingMprotect, "_becomes_writable", staticmethod(lambda old, new: False))


def read_only_is_uncharged(patch: pytest.MonkeyPatch) -> None:
    original = MergingMprotect._set_flags

    def set_flags(
        self: MergingMprotect, vma: int, start: int, end: int, old: int, new: int
    ) -> None:
        original(self, vma, start, end, old, new if new & 2 else new & ~0x100000)

    patch.setattr(MergingMprotect, "_set_flags", set_flags)


def holes_are_forgotten(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(RememberedSearch, "unmapped", lambda self, vma: None)


def one_list_for_each(patch: pytest.MonkeyPatch) -> None:
    """Neighbours do not share an ``anon_vma``."""
    patch.setattr(Neighbours, "find_mergeable_anon_vma", lambda self, vma: 0)


def empty_lists_stay(patch: pytest.MonkeyPatch) -> None:
    def unlink(self: AnonVmas, vma: int) -> None:
        if self._areas.vma(vma).anon_vma:
            self._lists.delete(vma + 56)

    patch.setattr(AnonVmas, "unlink", unlink)


def future_unlocks_what_is_there(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(UnprivilegedMlock, "_do_mlockall", Mlock._do_mlockall)


def highest_first(patch: pytest.MonkeyPatch) -> None:
    original = CuttingUnmapper._take_out
    patch.setattr(
        CuttingUnmapper, "_take_out", lambda self, *arguments: original(self, *arguments)[::-1]
    )


def ties_stay_below(patch: pytest.MonkeyPatch) -> None:
    """Of two nodes that end together the later one goes up."""
    patch.setattr(
        PrioTree,
        "_later_child",
        lambda self, node: self.child(node, 1) or self.child(node, 0),
    )


def starts_below_the_stack(patch: pytest.MonkeyPatch) -> None:
    """A search downwards begins at its base each time."""
    original = RememberedSearch._highest_hole

    def highest_hole(self: RememberedSearch, mm: int, length: int, unit: int) -> int | None:
        self._areas.mm(mm).free_area_cache = self._areas.mm(mm).mmap_base
        return original(self, mm, length, unit)

    patch.setattr(RememberedSearch, "_highest_hole", highest_hole)


FAULTS: dict[Plant, str] = {
    no_case_6: MIXED,
    offset_does_not_matter: MIXED,
    watched_vmas_merge: MIXED,
    tree_keeps_the_old_pages: MIXED,
    moving_gives_the_charge_back: MIXED,
    protecting_charges_nothing: MIXED,
    read_only_is_uncharged: MIXED,
    holes_are_forgotten: MIXED,
    empty_lists_stay: "vma_trace_anon_1.json.gz",
    highest_first: MIXED,
    ties_stay_below: MIXED,
    starts_below_the_stack: TOPDOWN,
    one_list_for_each: SCENARIOS,
    future_unlocks_what_is_there: SCENARIOS,
}


@pytest.mark.parametrize("plant", FAULTS, ids=lambda plant: plant.__name__)
def test_a_planted_fault_of_the_model_is_found(
    plant: Plant, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch)
    assert not replay(RECORDED / FAULTS[plant]).ok
