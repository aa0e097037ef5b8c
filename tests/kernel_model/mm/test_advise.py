# SPDX-License-Identifier: GPL-2.0-or-later
"""madvise and mincore: which VMAs and which parts of them pages are asked about."""

import pytest

from harness.replay import vma_2_4, vma_2_6
from harness.replay.vma import VmaMachine
from kernel_model.errno import EAGAIN, EINVAL, ENOMEM
from kernel_model.structs.mm import VM_RAND_READ, VM_SEQ_READ
from kernel_model.structs.mman import (
    MADV_DONTNEED,
    MADV_NORMAL,
    MADV_RANDOM,
    MADV_SEQUENTIAL,
    MADV_WILLNEED,
)
from tests.kernel_model.mm.vma_book import PAGE, check, check_files

BASE = 0x40000000
MACHINES: dict[str, type[VmaMachine]] = {"2.4": vma_2_4.VmaMachine, "2.6": vma_2_6.VmaMachine}


class Asked:
    """Pages that note what is asked of them; page ``n`` of the range is there if n is even."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int, int]] = []
        self.answer = 0

    def _call(self, name: str, start: int, end: int) -> int:
        self.calls.append((name, (start - BASE) // PAGE, (end - BASE) // PAGE))
        return self.answer

    def madvise_willneed(self, vma: int, start: int, end: int) -> int:
        return self._call("willneed", start, end)

    def madvise_dontneed(self, vma: int, start: int, end: int) -> int:
        return self._call("dontneed", start, end)

    def mincore_vma(self, vma: int, start: int, end: int) -> bytes | int:
        if error := self._call("mincore", start, end):
            return error
        return bytes(address // PAGE % 2 == 0 for address in range(start, end, PAGE))


@pytest.fixture
def machine(either_release: str) -> VmaMachine:
    """Pages 0-3 and 4-7 of two files, a hole of two, and 10-13 of zeros."""
    machine = MACHINES[either_release]()
    for first, number, flags in ((0, 2, 0x12), (4, 3, 0x12), (10, 0, 0x32)):
        file, at = machine.files.by_number[number], BASE + first * PAGE
        assert machine.spaces.do_mmap_pgoff(file, at, 4 * PAGE, 1, flags, 0) == at
    return machine


def madvise(machine: VmaMachine, first: int, count: int, advice: int, asked: Asked) -> int:
    return machine.spaces.advise.sys_madvise(BASE + first * PAGE, count * PAGE, advice, asked)


def flags(machine: VmaMachine) -> list[tuple[int, int]]:
    """(pages, hint) of each VMA."""
    areas = machine.spaces.areas
    views = [areas.vma(vma) for vma in areas.list(machine.mm)]
    hints = VM_SEQ_READ | VM_RAND_READ
    return [((v.vm_end - v.vm_start) // PAGE, v.vm_flags & hints) for v in views]


@pytest.mark.parametrize("advice", [MADV_WILLNEED, MADV_DONTNEED])
def test_each_vma_of_the_range_is_asked_and_a_hole_shows_at_the_end(
    machine: VmaMachine, advice: int
) -> None:
    asked, name = Asked(), {MADV_WILLNEED: "willneed", MADV_DONTNEED: "dontneed"}[advice]
    assert madvise(machine, 1, 11, advice, asked) == -ENOMEM
    assert asked.calls == [(name, 1, 4), (name, 4, 8), (name, 10, 12)]
    asked.calls.clear()
    assert madvise(machine, 2, 4, advice, asked) == 0
    assert asked.calls == [(name, 2, 4), (name, 4, 6)]
    asked.answer = -EINVAL
    assert madvise(machine, 2, 4, advice, asked) == -EINVAL
    assert len(asked.calls) == 3


@pytest.mark.parametrize(
    ("first", "count", "answer"), [(8, 2, -ENOMEM), (20, 1, -ENOMEM), (13, 2, -ENOMEM), (0, 0, 0)]
)
def test_ranges_with_nothing_in_them(
    machine: VmaMachine, first: int, count: int, answer: int
) -> None:
    assert madvise(machine, first, count, MADV_NORMAL, Asked()) == answer


def test_bad_arguments(machine: VmaMachine) -> None:
    advise = machine.spaces.advise
    assert advise.sys_madvise(BASE + 1, PAGE, MADV_NORMAL, Asked()) == -EINVAL
    assert advise.sys_madvise(0xFFFFF000, 2 * PAGE, MADV_NORMAL, Asked()) == -EINVAL
    assert madvise(machine, 0, 1, 5, Asked()) == -EINVAL
    assert advise.sys_mincore(BASE + 1, PAGE, Asked())[0] == -EINVAL


def test_how_a_part_will_be_read_is_kept_in_a_vma_of_its_own(machine: VmaMachine) -> None:
    assert madvise(machine, 1, 2, MADV_RANDOM, Asked()) == 0
    assert madvise(machine, 6, 5, MADV_SEQUENTIAL, Asked()) == -ENOMEM
    rand, seq = VM_RAND_READ, VM_SEQ_READ
    assert flags(machine) == [(1, 0), (2, rand), (1, 0), (2, 0), (2, seq), (1, seq), (3, 0)]
    assert madvise(machine, 0, 4, MADV_NORMAL, Asked()) == 0
    assert flags(machine)[:3] == [(1, 0), (2, 0), (1, 0)]
    check(machine, machine.mm)
    check_files(machine, [machine.mm])


WHOLE_VMA_AT_THE_LIMIT = {"2.4": -ENOMEM, "2.6": 0}
"""2.4 looks at the limit of VMAs before it knows whether it needs another one."""


def test_advice_needs_memory_and_room_for_a_vma(
    machine: VmaMachine, either_release: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = flags(machine)
    monkeypatch.setattr(machine.spaces.areas, "alloc", lambda: 0)
    for first, count in ((0, 1), (3, 1), (1, 1)):
        assert madvise(machine, first, count, MADV_RANDOM, Asked()) == -EAGAIN
    assert flags(machine) == before
    machine.sysctl("max_map_count", 2)
    assert madvise(machine, 4, 1, MADV_RANDOM, Asked()) in (-ENOMEM, -EAGAIN)
    assert flags(machine) == before
    answer = madvise(machine, 0, 4, MADV_RANDOM, Asked())
    assert answer == WHOLE_VMA_AT_THE_LIMIT[either_release]
    assert (flags(machine) == before) == bool(answer)


def test_mincore_tells_each_page_and_closes_up_over_a_hole(machine: VmaMachine) -> None:
    asked = Asked()
    mincore = machine.spaces.advise.sys_mincore
    assert mincore(BASE + PAGE, 5 * PAGE, asked) == (0, bytes([0, 1, 0, 1, 0]))
    assert mincore(BASE + 7 * PAGE, 5 * PAGE, asked) == (-ENOMEM, bytes([0, 1, 0]))
    asked.answer = -ENOMEM
    assert mincore(BASE, PAGE, asked) == (-ENOMEM, b"")
