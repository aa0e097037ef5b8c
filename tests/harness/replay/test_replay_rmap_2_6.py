# SPDX-License-Identifier: GPL-2.0-or-later
"""Pages that come, are shared and go: as the real kernel of 2.6 had them; planted faults show."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.replay import replay
from kernel_model.mm.linux_2_6.swap_state import SwapCache26
from kernel_model.mm.memory.linux_2_6.change import PageCopier26
from kernel_model.mm.memory.linux_2_6.fault import FaultHandler26
from kernel_model.mm.memory.linux_2_6.gather import MmuGather
from kernel_model.mm.memory.linux_2_6.tables import CountedTables
from kernel_model.mm.rmap.mapped_pages import MappedPages
from kernel_model.mm.rmap.object_based import ObjectReverseMap
from kernel_model.mm.rmap.object_walk import ObjectWalk
from kernel_model.mm.rmap.one_pte import PteUnmapper
from tests.harness.replay.changed_traces import changed

RECORDED = Path(__file__).parents[2] / "data" / "linux-2.6.11"
RMAP = "rmap_trace_1.json.gz"
FAULTS = ("vma_trace_anonfault_1.json.gz", "vma_trace_mixedfault_1.json.gz")


@pytest.mark.book("3.10", "4.6", "4.8")
@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_is_answered_as_by_the_real_kernel(name: str) -> None:
    result = replay(RECORDED / name)
    assert (result.topic, result.difference) == ("vma_trace", None)
    assert result.compared > 120_000


@pytest.mark.book("3.10")
def test_who_maps_each_page_is_known_as_to_the_real_kernel() -> None:
    result = replay(RECORDED / RMAP)
    assert (result.topic, result.difference) == ("rmap_trace", None)
    assert result.compared > 230_000


# -- planted differences --------------------------------------------------------------------------


def last(trace: dict[str, Any], operation: str) -> list[Any]:
    return [op for op in trace["ops"] if op[1] == operation][-1]


def one_more(sequence: Any, index: int | str) -> None:
    sequence[index] += 1


PLANTED: dict[str, Callable[[dict[str, Any]], None]] = {
    "result of try_to_unmap": lambda trace: one_more(last(trace, "try_to_unmap"), 3),
    "signs of use": lambda trace: one_more(last(trace, "page_referenced"), 4),
    "slot": lambda trace: one_more(last(trace, "swapcache"), 3),
    "flags of a page": lambda trace: one_more(trace["states"][9]["pages"][5], 3),
    "mapcount": lambda trace: one_more(trace["states"][9]["pages"][5], 2),
    "index": lambda trace: one_more(trace["final"]["pages"][-1], 6),
    "a PTE": lambda trace: one_more(next(iter(trace["final"]["mms"].values()))["ptes"][3], 1),
    "anon_rss": lambda trace: one_more(last(trace, "fault")[-1], 2),
    "order of a list": lambda trace: max(trace["final"]["anon_vmas"], key=lambda r: len(r[1]))[
        1
    ].reverse(),
    "frames that are freed": lambda trace: last(trace, "exit_mmap")[-1].reverse(),
    "an operation less": lambda trace: trace["ops"].pop(100),
}


@pytest.mark.parametrize("what", PLANTED)
def test_a_planted_difference_is_found(what: str, tmp_path: Path) -> None:
    assert not changed(RECORDED / RMAP, tmp_path, PLANTED[what]).ok


# -- planted faults -------------------------------------------------------------------------------


def _nothing(*arguments: Any, **named: Any) -> None:
    """A step that is left out."""


WRONG: dict[str, tuple[type, str, Callable[..., Any]]] = {
    "nobody counts at fork": (ObjectReverseMap, "duplicate", _nothing),
    "rmap stays": (ObjectReverseMap, "remove", _nothing),
    "pages go to the inactive list": (
        FaultHandler26,
        "_enter_lru",
        lambda self, page: self._lru.add(page),
    ),
    "the zero page is copied": (
        FaultHandler26,
        "_private_copy",
        lambda self, source: super(FaultHandler26, self)._private_copy(source),
    ),
    "a page from swap is not copied at once": (
        FaultHandler26,
        "_swapped_in",
        lambda self, *arguments: True,
    ),
    "reads mark pages accessed": (
        FaultHandler26,
        "_set_access_flags",
        lambda self, pgd, vaddr, ptep, pte, write: self._entries.set_pte(ptep, pte | 0x60),
    ),
    "page tables are not counted": (CountedTables, "count_tables", _nothing),
    "page tables stay": (MmuGather, "clear_page_range", _nothing),
    "slots are not shared": (PageCopier26, "_copy_absent", _nothing),
    "pages stay in the swap cache": (SwapCache26, "_take_out", _nothing),
    "one VMA of a list": (
        ObjectWalk,
        "_vmas",
        lambda self, page, real=ObjectWalk._vmas: list(real(self, page))[:1],
    ),
    "young pages are unmapped": (
        PteUnmapper,
        "clear_flush_young",
        lambda self, mm, vaddr, ptep: False,
    ),
    "pages count from their VMA": (
        MappedPages,
        "linear_page_index",
        lambda self, vma, vaddr: vaddr - self.span(vma)[0] >> 12,
    ),
}


@pytest.mark.book("3.10")
@pytest.mark.parametrize("what", WRONG)
def test_a_planted_fault_of_the_model_is_found(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, name, wrong = WRONG[what]
    monkeypatch.setattr(owner, name, wrong)
    assert not replay(RECORDED / RMAP).ok
