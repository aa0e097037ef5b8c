# SPDX-License-Identifier: GPL-2.0-or-later
"""What vmalloc of Linux 2.6.11 answered replays equal; a model that is wrong is found."""

from pathlib import Path
from typing import Any

import pytest

from harness.replay import replay
from kernel_model.mm.vmalloc.linux_2_6 import Vmalloc

RECORDED = Path(__file__).parents[2] / "data" / "linux-2.6.11"
SMALL = RECORDED / "vmalloc_64MB_smp8.json.gz"

pytestmark = pytest.mark.book("7.4", release="2.6")


@pytest.mark.parametrize("path", sorted(RECORDED.glob("vmalloc_*")), ids=lambda path: path.stem)
def test_areas_and_frames_are_those_of_the_real_kernel(path: Path) -> None:
    result = replay(path)
    assert (result.topic, result.difference) == ("vmalloc", None)
    assert result.compared > 29_000


def map_page_by_page(vmalloc: Vmalloc, count: int, gfp_mask: int) -> list[int]:
    """As 2.4 does it: a page table may be asked for before the last frame."""
    vmalloc._pte_alloc(vmalloc.start)
    return GATHER(vmalloc, count, gfp_mask)


def without_alignment(vmalloc: Vmalloc, size: int, align: int) -> Any:
    return FIRST_FIT(vmalloc, size, 1)


def forget_the_array(vmalloc: Vmalloc, area: int, pages: list[int]) -> None:
    FREE(vmalloc, area, pages[:-1])


def unmap_only(vmalloc: Vmalloc, addr: int) -> int:
    found = vmalloc._find(addr)
    if found:
        vmalloc.unmap_vm_area(found[1])
    return found[1] if found else 0


GATHER, FIRST_FIT, FREE = Vmalloc._gather, Vmalloc._first_fit, Vmalloc._free
FAULTS = {
    "_gather": map_page_by_page,
    "_first_fit": without_alignment,
    "_free": forget_the_array,
    "remove_vm_area": unmap_only,
}


@pytest.mark.parametrize("name", FAULTS)
def test_planted_faults_are_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Vmalloc, name, FAULTS[name])
    assert replay(SMALL).difference is not None
