# SPDX-License-Identifier: GPL-2.0-or-later
"""VMAs of 2.6 case by case: who merges with whom, and what else changes with it."""

import pytest

from harness.replay.vma_2_6 import VmaMachine
from kernel_model.mm.mmap.linux_2_6.adjust import Adjuster
from kernel_model.mm.mmap.linux_2_6.remap import FileRemapper
from kernel_model.structs.linux_2_6.mm import VM_ACCOUNT, VM_NONLINEAR
from tests.kernel_model.mm.vma_book import PAGE, check_anon_vmas, check_files

BASE = 0x40000000
READ, WRITE, EXEC = 1, 2, 4
SHARED_FIXED, PRIVATE_FIXED, ZEROS = 0x11, 0x12, 0x32
EINVAL, ENOMEM = 22, 12


@pytest.fixture
def machine() -> VmaMachine:
    return VmaMachine()


def at(page: int) -> int:
    return BASE + page * PAGE


def zeros(machine: VmaMachine, first: int, end: int, prot: int) -> int:
    """Map zeros at pages ``first`` to ``end``, and return the VMA there."""
    size = (end - first) * PAGE
    assert machine.spaces.do_mmap_pgoff(0, at(first), size, prot, ZEROS, 0) == at(first)
    return machine.spaces.find_vma(machine.mm, at(first))


def protect(machine: VmaMachine, first: int, end: int, prot: int) -> None:
    assert not machine.spaces.sys_mprotect(at(first), (end - first) * PAGE, prot)


def spans(machine: VmaMachine) -> list[tuple[int, int, int]]:
    """(first page, end, protection) of each VMA."""
    areas = machine.spaces.areas
    views = [areas.vma(vma) for vma in areas.list(machine.mm)]
    pages = [((v.vm_start - BASE) // PAGE, (v.vm_end - BASE) // PAGE) for v in views]
    return [(*span, v.vm_flags & 7) for span, v in zip(pages, views, strict=True)]


# -- mprotect: eight cases of vma_merge() ----------------------------------------------------------


@pytest.mark.book("4.8")
def test_case_4_the_edge_between_two_moves_down(machine: VmaMachine) -> None:
    zeros(machine, 0, 4, READ | WRITE)
    zeros(machine, 4, 8, READ | WRITE)
    protect(machine, 4, 8, READ)
    # The upper one was charged, so the lower one is what it becomes.
    protect(machine, 2, 4, READ)
    assert spans(machine) == [(0, 2, 3), (2, 8, 1)]


@pytest.mark.book("4.8")
def test_case_5_the_edge_between_two_moves_up(machine: VmaMachine) -> None:
    zeros(machine, 0, 8, READ | WRITE)
    protect(machine, 4, 8, READ)
    protect(machine, 4, 6, READ | WRITE)
    assert spans(machine) == [(0, 6, 3), (6, 8, 1)]


@pytest.mark.book("4.8")
def test_case_6_one_vma_takes_over_two(machine: VmaMachine) -> None:
    zeros(machine, 0, 12, READ | WRITE)
    protect(machine, 4, 8, READ)
    assert spans(machine) == [(0, 4, 3), (4, 8, 1), (8, 12, 3)]
    protect(machine, 4, 8, READ | WRITE)
    assert spans(machine) == [(0, 12, 3)]


@pytest.mark.book("4.8")
def test_case_7_and_8_the_part_goes_to_the_neighbour_that_is_like_it(machine: VmaMachine) -> None:
    zeros(machine, 0, 12, READ | WRITE)
    protect(machine, 4, 8, READ)
    protect(machine, 8, 12, READ | WRITE | EXEC)
    protect(machine, 4, 8, READ | WRITE)
    assert spans(machine) == [(0, 8, 3), (8, 12, 7)]
    protect(machine, 4, 8, READ)
    protect(machine, 4, 8, READ | WRITE | EXEC)
    assert spans(machine) == [(0, 4, 3), (4, 12, 7)]


# -- whose list a VMA is on ------------------------------------------------------------------------


def written_first(machine: VmaMachine, page: int) -> int:
    """The first page of its own that a VMA gets; returns its ``anon_vma``."""
    vma = machine.spaces.find_vma(machine.mm, at(page))
    assert not machine.spaces.anon_vmas.anon_vma_prepare(vma)
    return machine.spaces.areas.vma(vma).anon_vma


def on_lists(machine: VmaMachine) -> list[int]:
    areas = machine.spaces.areas
    return [areas.vma(vma).anon_vma for vma in areas.list(machine.mm)]


@pytest.mark.book("3.10", "4.8")
def test_a_vma_that_takes_over_written_pages_joins_their_list(machine: VmaMachine) -> None:
    """Case 5: pages of the upper VMA come to the lower one, which had none of its own."""
    zeros(machine, 0, 8, READ | WRITE)
    protect(machine, 4, 8, READ)
    anon_vma = written_first(machine, 4)
    assert on_lists(machine) == [0, anon_vma]
    protect(machine, 4, 6, READ | WRITE)
    assert on_lists(machine) == [anon_vma, anon_vma]
    check_anon_vmas(machine, [machine.mm])


def test_a_vma_that_does_not_join_is_found(
    machine: VmaMachine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Adjuster, "_import_anon_vma", lambda self, vma, following, effect: None)
    with pytest.raises(AssertionError):
        test_a_vma_that_takes_over_written_pages_joins_their_list(machine)


@pytest.mark.book("3.10", "4.8")
def test_neighbours_that_may_merge_share_a_list(machine: VmaMachine) -> None:
    zeros(machine, 0, 4, READ | WRITE)
    zeros(machine, 4, 8, READ | WRITE | EXEC)
    zeros(machine, 9, 12, READ | WRITE)
    lower = written_first(machine, 0)
    assert written_first(machine, 4) == lower
    assert written_first(machine, 9) != lower
    protect(machine, 4, 8, READ | WRITE)
    assert spans(machine) == [(0, 8, 3), (9, 12, 3)]
    check_anon_vmas(machine, [machine.mm])


@pytest.mark.book("3.10", "4.8")
def test_vmas_of_different_lists_do_not_merge(machine: VmaMachine) -> None:
    """A hole between them is filled by the lower one alone."""
    zeros(machine, 0, 4, READ | WRITE)
    zeros(machine, 5, 8, READ | WRITE)
    assert written_first(machine, 0) != written_first(machine, 5)
    zeros(machine, 4, 5, READ | WRITE)
    assert spans(machine) == [(0, 5, 3), (5, 8, 3)]


@pytest.mark.book("4.8")
def test_zeros_move_to_the_page_of_their_address_unless_they_were_written(
    machine: VmaMachine,
) -> None:
    for first, written in ((0, False), (32, True)):
        zeros(machine, first, first + 2, READ | WRITE)
        if written:
            written_first(machine, first)
        target = first + 16
        moved = machine.spaces.do_mremap(at(first), 2 * PAGE, 2 * PAGE, 3, at(target))
        assert moved == at(target)
        area = machine.spaces.areas.vma(machine.spaces.find_vma(machine.mm, at(target)))
        assert area.vm_pgoff == at(first if written else target) // PAGE


# -- files -----------------------------------------------------------------------------------------


@pytest.mark.book("4.8")
def test_vmas_of_a_file_merge_where_its_pages_go_on(machine: VmaMachine) -> None:
    file, calls = machine.files.by_number[2], machine.spaces
    for first, index in ((0, 5), (2, 7), (6, 11), (4, 9)):
        assert calls.do_mmap_pgoff(file, at(first), 2 * PAGE, READ, SHARED_FIXED, index) == at(
            first
        )
    assert spans(machine) == [(0, 8, 1)]
    assert calls.do_mmap_pgoff(file, at(8), PAGE, READ, SHARED_FIXED, 14) == at(8)
    assert spans(machine) == [(0, 8, 1), (8, 9, 1)]
    check_files(machine, [machine.mm])


@pytest.mark.book("4.8")
def test_pages_in_any_order_take_a_vma_out_of_the_prio_tree(machine: VmaMachine) -> None:
    file, spaces = machine.files.by_number[2], machine.spaces
    asked: list[tuple[int, ...]] = []

    def populate(*arguments: int) -> int:
        asked.append(arguments)
        return 0

    assert spaces.do_mmap_pgoff(file, BASE, 8 * PAGE, READ | WRITE, SHARED_FIXED, 0) == BASE
    vma = spaces.find_vma(machine.mm, BASE)
    vm_ops = machine.image.at(
        machine.image.structs.vm_operations_struct, spaces.areas.vma(vma).vm_ops
    )
    vm_ops.populate = machine.image.functions.address(populate)
    parts = spaces.parts
    remap = FileRemapper(parts.areas, parts.finder, spaces.mappings).sys_remap_file_pages
    row = machine.files.state()[1]
    assert (row[3], row[4]) == ([BASE], [])
    assert not remap(at(2), 2 * PAGE, 0, 2, 0)
    assert not spaces.areas.vma(vma).vm_flags & VM_NONLINEAR, "they are where they belong"
    assert not remap(at(2), 2 * PAGE, 0, 6, 0)
    assert spaces.areas.vma(vma).vm_flags & VM_NONLINEAR
    row = machine.files.state()[1]
    assert (row[3], row[4]) == ([], [BASE])
    prot = spaces.areas.vma(vma).vm_page_prot
    assert asked[-1] == (vma, at(2), 2 * PAGE, prot, 6, 0)
    for refused in ((at(7), 2 * PAGE, 0, 0), (at(2), PAGE, 1, 0), (at(2), PAGE, 0, 1 << 29)):
        assert remap(*refused, 0) == -EINVAL
    # Its parts stay on the list, and leave it when they go.
    assert not spaces.do_munmap(machine.mm, at(4), PAGE)
    assert machine.files.state()[1][4] == [BASE, at(5)]
    assert not spaces.do_munmap(machine.mm, BASE, 8 * PAGE)
    assert machine.files.state()[1][4] == []


# -- memory that is promised -----------------------------------------------------------------------


def committed(machine: VmaMachine) -> int:
    return int(machine.image.statics.vm_committed_space)


@pytest.mark.book("4.8")
@pytest.mark.parametrize(
    ("mode", "privileged", "pages", "enough"),
    [
        (0, True, 99, True),
        (0, True, 100, False),
        (0, False, 97, True),
        (0, False, 98, False),
        (1, False, 10_000, True),
        (2, True, 69, True),
        (2, True, 70, False),
        (2, False, 68, True),
        (2, False, 69, False),
    ],
)
def test_how_much_may_be_promised(
    machine: VmaMachine, mode: int, privileged: bool, pages: int, enough: bool
) -> None:
    """60 pages of cache and 40 free; or half of 100 pages of RAM, and 20 of swap."""
    for name, value in (
        *(("overcommit", mode), ("free", 40), ("pagecache", 60), ("swap", 0)),
        *(("totalram", 100), ("total_swap", 20), ("cap_admin", int(privileged))),
    ):
        machine.sysctl(name, value)
    answer = machine.spaces.do_mmap_pgoff(0, BASE, pages * PAGE, READ | WRITE, ZEROS, 0)
    assert answer == (BASE if enough else -ENOMEM)
    assert committed(machine) == pages * enough


@pytest.mark.book("4.8")
def test_what_becomes_writable_is_charged_and_stays_so(machine: VmaMachine) -> None:
    zeros(machine, 0, 8, READ)
    assert committed(machine) == 0
    protect(machine, 0, 4, READ | WRITE)
    assert committed(machine) == 4
    protect(machine, 0, 4, READ)
    assert committed(machine) == 4
    assert not machine.spaces.do_munmap(machine.mm, at(0), 8 * PAGE)
    assert committed(machine) == 0


@pytest.mark.book("4.8")
def test_the_middle_of_a_mapping_moves_and_nothing_is_charged_twice(machine: VmaMachine) -> None:
    zeros(machine, 0, 9, READ | WRITE)
    moved = machine.spaces.do_mremap(at(3), 3 * PAGE, 3 * PAGE, 3, at(32))
    assert moved == at(32)
    areas = machine.spaces.areas
    assert all(areas.vma(vma).vm_flags & VM_ACCOUNT for vma in areas.list(machine.mm))
    assert (spans(machine), committed(machine)) == ([(0, 3, 3), (6, 9, 3), (32, 35, 3)], 9)


# -- where mappings go -----------------------------------------------------------------------------

MIB = 1 << 20
LAYOUTS: list[tuple[int, int]] = [
    (0xFFFFFFFF, 0x40000000),
    (8 * MIB, 0xC0000000 - 128 * MIB),
    (300 * MIB + 123, 0xC0000000 - 300 * MIB),
    (0xFFFFF000, 0xC0000000 - (0xC0000000 // 6 * 5 & ~0xFFF)),
]


@pytest.mark.book("4.8")
@pytest.mark.parametrize(("stack_limit", "base"), LAYOUTS)
def test_the_limit_of_the_stack_says_where_mappings_go(
    machine: VmaMachine, stack_limit: int, base: int
) -> None:
    machine.image.current_task.rlim[3].rlim_cur = stack_limit
    machine.new_mm()
    space = machine.spaces.areas.mm(machine.mm)
    assert space.mmap_base == base
    first = machine.spaces.do_mmap_pgoff(0, 0, 4 * PAGE, READ, 0x22, 0)
    second = machine.spaces.do_mmap_pgoff(0, 0, PAGE, READ | WRITE, 0x22, 0)
    if stack_limit == 0xFFFFFFFF:
        assert (first, second) == (base, base + 4 * PAGE)
    else:
        assert (first, second) == (base - 4 * PAGE, base - 5 * PAGE)


@pytest.mark.book("4.8")
def test_the_old_layout_can_be_had(machine: VmaMachine) -> None:
    machine.image.current_task.rlim[3].rlim_cur = 8 * MIB
    machine.image.statics.sysctl_legacy_va_layout = 1
    machine.new_mm()
    assert machine.spaces.areas.mm(machine.mm).mmap_base == 0x40000000


@pytest.mark.book("4.8")
def test_a_search_downwards_that_finds_no_room_turns_round(machine: VmaMachine) -> None:
    machine.image.current_task.rlim[3].rlim_cur = 8 * MIB
    machine.new_mm()
    space, calls = machine.spaces.areas.mm(machine.mm), machine.spaces
    size = space.mmap_base - 64 * PAGE
    assert calls.do_mmap_pgoff(0, 64 * PAGE, size, READ, ZEROS, 0) == 64 * PAGE
    # Only above the base is there room for so much.
    found = calls.do_mmap_pgoff(0, 0, 128 * PAGE, READ | WRITE, 0x22, 0)
    assert found == space.mmap_base
    assert space.free_area_cache == space.mmap_base
    assert calls.do_mmap_pgoff(0, 0, 64 * PAGE, READ | WRITE, 0x22, 0) == 0
    assert calls.do_mmap_pgoff(0, 0, 3000 * MIB, READ | WRITE, 0x22, 0) == -ENOMEM
