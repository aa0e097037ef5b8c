# SPDX-License-Identifier: GPL-2.0-or-later
"""What the VMAs allow, held against what the ledger was told: each excess is a bug of the model."""

import numpy as np
import pytest

from harness.diff import diff
from harness.readings.areas import NAME, areas_of
from harness.readings.intent import beyond_areas
from harness.verdict import Verdict
from kernel_model.errors import MmucheckError
from kernel_model.events import Rights
from tests.harness.planting import DATA, MORE, STACK, TEXT, Planted, planted_machine

PAGE_OFFSET = 0xC0000000
READ_WRITE = Rights(write=True, user=True)


@pytest.fixture(params=["2.4", "2.6"])
def planted(request: pytest.FixtureRequest) -> Planted:
    return planted_machine(release=request.param)


def vma_of(planted: Planted, va: int) -> object:
    spaces = planted.spaces.kernel.spaces
    return spaces.areas.vma(spaces.find_vma(planted.spaces.mm(planted.mm), va))


def beyond(planted: Planted) -> list[int]:
    return [int(page) << 12 for page in beyond_areas(planted.machine.kernel, planted.mm)]


@pytest.mark.book("4.4")
def test_the_vmas_are_those_of_the_model(planted: Planted) -> None:
    areas = planted.machine.kernel.spaces.areas
    views = [areas.vma(vma) for vma in areas.list(planted.spaces.mm(planted.mm))]
    read = areas_of(planted.machine.kernel, planted.mm)
    assert [(v.vm_start >> 12, v.vm_end >> 12, v.vm_flags) for v in views] == list(
        zip(read.start, read.end, read.flags, strict=True)
    )
    pages = np.array([TEXT - 4096, TEXT, DATA]) >> 12
    assert read.rights(pages).tolist() == [0, 5, 7]
    assert beyond(planted) == []


def test_each_space_has_its_own(planted: Planted) -> None:
    """Also one that does not run now; and one that is gone has none."""
    spaces, kernel = planted.spaces, planted.machine.kernel
    child = spaces.fork(planted.mm)
    vma_of(planted, STACK).vm_end += 4096  # type: ignore[attr-defined]
    ours, its = areas_of(kernel, planted.mm), areas_of(kernel, child)
    assert its.start.tolist() == ours.start.tolist()
    assert its.end.tolist()[:-1] == ours.end.tolist()[:-1]
    assert its.end[-1] + 1 == ours.end[-1]
    spaces.exit(child)
    assert len(areas_of(kernel, child).start) == 0


def test_a_page_in_no_vma(planted: Planted) -> None:
    """Its VMA ends before it, though the tables hold what the ledger says."""
    vma_of(planted, MORE).vm_end = MORE  # type: ignore[attr-defined]
    assert beyond(planted) == [MORE]
    report = diff(planted.machine)
    [finding] = report.findings
    assert (finding.verdict, finding.va, finding.length) == (Verdict.MODEL_BUG, MORE, 4096)
    allowed = finding.answer(NAME)
    assert allowed is not None
    assert allowed.pfn is None
    assert not report.ok


def test_more_rights_than_the_vma_gives(planted: Planted) -> None:
    vma_of(planted, DATA).vm_flags &= ~2  # type: ignore[attr-defined]
    report = diff(planted.machine)
    assert {finding.verdict for finding in report.findings} == {Verdict.MODEL_BUG}
    assert DATA in beyond(planted)
    assert "user write" in str(report.findings[0])


def test_a_page_kept_for_nobody_needs_its_vma(planted: Planted) -> None:
    """As after ``mprotect(PROT_NONE)``: no access to tell it by."""
    nothing = Rights(write=False, user=False, access=False)
    planted.ledger.page_mapped(planted.mm, 0x40000000, 5, nothing)
    assert beyond(planted) == [0x40000000]
    assert diff(planted.machine).verdicts() == {Verdict.MODEL_BUG: 1}


def test_a_space_that_is_nowhere_has_no_pages(planted: Planted) -> None:
    planted.ledger.page_mapped(0x7000, DATA, 5, READ_WRITE)
    found = beyond_areas(planted.machine.kernel, 0x7000)
    assert found.tolist() == [DATA >> 12]


@pytest.mark.parametrize("link", [0x10, 0xFFFFFFF0, 0xC0000001])
def test_a_list_that_leaves_ram(planted: Planted, link: int) -> None:
    vma_of(planted, TEXT).vm_next = link  # type: ignore[attr-defined]
    with pytest.raises(MmucheckError, match="leaves RAM"):
        areas_of(planted.machine.kernel, planted.mm)


def test_slabs_that_contradict_themselves(planted: Planted) -> None:
    kernel = planted.machine.kernel
    cache = next(cache for cache in kernel.slab.chain() if cache.name == "mm_struct")
    head = cache.slabs_partial if cache.slabs(cache.slabs_partial) else cache.slabs_full
    kernel.ram.write32(head - PAGE_OFFSET + 4, head)
    with pytest.raises(MmucheckError, match=r"mm_struct, slabs_.*: the head does not point back"):
        areas_of(kernel, planted.mm)


def test_a_list_without_an_end(planted: Planted) -> None:
    vma = vma_of(planted, TEXT)
    kernel = planted.machine.kernel
    mm = planted.spaces.mm(planted.mm)
    vma.vm_next = kernel.spaces.find_vma(mm, TEXT)  # type: ignore[attr-defined]
    with pytest.raises(MmucheckError, match="never ends"):
        areas_of(kernel, planted.mm)
