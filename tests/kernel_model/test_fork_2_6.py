# SPDX-License-Identifier: GPL-2.0-or-later
"""A child's address space in 2.6: charged again, known to reverse maps, searched from its base."""

from types import SimpleNamespace

import pytest

from harness.replay.vma_2_6 import VmaMachine
from kernel_model.errno import ENOMEM
from kernel_model.fork import CLONE_VM
from kernel_model.lists import Lists
from kernel_model.mm.mmap.areas import Areas
from kernel_model.structs.mm import VM_DONTCOPY, VM_LOCKED
from tests.kernel_model.mm.vma_book import (
    PAGE,
    check,
    check_anon_vmas,
    check_files,
    check_kinds,
    pages_of,
)

BASE = 0x40000000


@pytest.fixture
def machine() -> VmaMachine:
    """Two pages each of zeros that were written to, of file 3 shared, of file 1 as code."""
    machine = VmaMachine()
    for first, what, prot, flags in ((0, 0, 3, 0x32), (4, 3, 3, 0x11), (8, 1, 5, 0x812)):
        file, at = machine.files.by_number[what], BASE + first * PAGE
        assert machine.spaces.do_mmap_pgoff(file, at, 2 * PAGE, prot, flags, 0) == at
    vma = machine.spaces.find_vma(machine.mm, BASE)
    assert not machine.spaces.anon_vmas.anon_vma_prepare(vma)
    return machine


def child_of(machine: VmaMachine, flags: int = 0) -> int:
    task = SimpleNamespace(mm=0, active_mm=0)
    assert machine.fork.copy_mm(flags, task) == 0
    return task.mm  # type: ignore[no-any-return]


def committed(machine: VmaMachine) -> int:
    return int(machine.image.statics.vm_committed_space)


@pytest.mark.book("4.8", "3.10")
def test_a_child_is_charged_and_is_on_every_list(machine: VmaMachine) -> None:
    parent, before = machine.mm, committed(machine)
    child = child_of(machine)
    assert pages_of(machine, child) == pages_of(machine, parent)
    assert committed(machine) == before + 2
    for mm in (parent, child):
        check(machine, mm)
        check_kinds(machine, mm)
    check_files(machine, [parent, child])
    check_anon_vmas(machine, [parent, child])
    areas = machine.spaces.areas
    first = areas.list(child)[0]
    assert areas.vma(first).anon_vma == areas.vma(areas.list(parent)[0]).anon_vma
    machine.fork.mmput(child)
    assert committed(machine) == before
    check_files(machine, [parent])
    check_anon_vmas(machine, [parent])


@pytest.mark.book("4.8")
def test_a_copy_hangs_on_the_node_of_its_original(machine: VmaMachine) -> None:
    child_of(machine)
    row = machine.files.state()[2]
    assert row[3] == [BASE + 4 * PAGE] * 2
    assert row[6] == [[BASE + 4 * PAGE, 0, 1, 4]], "one node, with a list"


@pytest.mark.book("4.8")
def test_a_child_searches_from_the_base_and_locks_nothing(machine: VmaMachine) -> None:
    assert not machine.spaces.sys_mlock(BASE, PAGE)
    assert machine.spaces.do_mmap_pgoff(0, 0, PAGE, 3, 0x22, 0) > 0
    areas, child = machine.spaces.areas, child_of(machine)
    assert areas.mm(machine.mm).free_area_cache > areas.mm(machine.mm).mmap_base
    assert areas.mm(child).free_area_cache == areas.mm(machine.mm).mmap_base
    assert not any(areas.vma(vma).vm_flags & VM_LOCKED for vma in areas.list(child))
    assert areas.mm(child).locked_vm == 0


@pytest.mark.book("4.8")
def test_what_is_not_for_children_is_not_counted_by_kind(machine: VmaMachine) -> None:
    areas = machine.spaces.areas
    areas.vma(areas.list(machine.mm)[2]).vm_flags |= VM_DONTCOPY
    child = child_of(machine)
    space = areas.mm(child)
    assert (len(areas.list(child)), space.shared_vm, space.exec_vm) == (2, 2, 0)
    # 2.6.11 forgets to count them less in all.
    assert space.total_vm == 6


@pytest.mark.book("4.8")
def test_a_child_that_cannot_be_charged_leaves_nothing(machine: VmaMachine) -> None:
    before = committed(machine)
    machine.sysctl("overcommit", 2)
    machine.sysctl("totalram", 2 * before)
    task = SimpleNamespace(mm=1, active_mm=1)
    assert machine.fork.copy_mm(0, task) == -ENOMEM
    assert committed(machine) == before
    check_files(machine, [machine.mm])
    check_anon_vmas(machine, [machine.mm])


@pytest.mark.parametrize("refuse", [1, 2, 3])
def test_a_child_without_memory_for_a_vma_leaves_nothing(
    machine: VmaMachine, refuse: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, asked, alloc = committed(machine), 0, Areas.alloc

    def refusing(self: Areas) -> int:
        nonlocal asked
        asked += 1
        return 0 if asked == refuse else alloc(self)

    monkeypatch.setattr(Areas, "alloc", refusing)
    task = SimpleNamespace(mm=1, active_mm=1)
    assert machine.fork.copy_mm(0, task) == -ENOMEM
    assert committed(machine) == before
    check_files(machine, [machine.mm])
    check_anon_vmas(machine, [machine.mm])


@pytest.mark.book("4.8")
def test_an_address_space_is_listed_only_while_pages_of_it_are_out(machine: VmaMachine) -> None:
    lists, offset = Lists(machine.image.ram), machine.image.structs.mm_struct.offset("mmlist")
    child, init_mm = child_of(machine), machine.image.symbol("init_mm")
    assert lists.empty(child + offset)
    assert lists.empty(init_mm + offset)
    lists.add(child + offset, init_mm + offset)
    machine.fork.mmput(child)
    assert lists.empty(init_mm + offset)


def test_a_thread_shares_the_address_space(machine: VmaMachine) -> None:
    before = committed(machine)
    assert child_of(machine, CLONE_VM) == machine.mm
    assert (machine.spaces.areas.mm(machine.mm).mm_users, committed(machine)) == (2, before)
