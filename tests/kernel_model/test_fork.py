# SPDX-License-Identifier: GPL-2.0-or-later
"""Address spaces are counted, listed, copied for a child, emptied for a new program.

2.6 lists only those that have swapped, and charges what it copies: see :mod:`.test_fork_2_6`.
"""

from types import SimpleNamespace
from typing import Any, TypeVar

import pytest

from harness.replay import vma, vma_2_6
from harness.replay.vma_2_4 import VmaMachine
from kernel_model.errno import EINVAL, ENOMEM
from kernel_model.errors import KernelBug
from kernel_model.exec import STACK_TOP, BinaryParameters, Exec
from kernel_model.fork import CLONE_VM, Fork
from kernel_model.lists import Lists
from kernel_model.mm.mmap.linux_2_4 import AddressSpaces
from kernel_model.mm.shmem import ShmemFiles
from kernel_model.mm.shmem.entries import SHMEM_MAX_INDEX
from kernel_model.structs.mm import VM_DONTCOPY
from tests.kernel_model.mm.vma_book import PAGE, check, check_files, pages_of, vmas_in_use

BASE = 0x40000000
Made = TypeVar("Made", bound=vma.VmaMachine)


MACHINES: dict[str, type[vma.VmaMachine]] = {"2.4": VmaMachine, "2.6": vma_2_6.VmaMachine}


@pytest.fixture
def either(either_release: str) -> vma.VmaMachine:
    """The same machine, of one release."""
    return with_files(MACHINES[either_release]())


@pytest.fixture
def machine() -> VmaMachine:
    return with_files(VmaMachine())


def with_files(machine: Made) -> Made:
    for first, what, flags in ((0, 0, 0x32), (4, 3, 0x11), (8, 1, 0x812)):
        file = machine.files.by_number[what]
        at = BASE + first * PAGE
        assert machine.spaces.do_mmap_pgoff(file, at, 2 * PAGE, 1, flags, 0) == at
    return machine


def mmlist(machine: vma.VmaMachine) -> list[int]:
    """Every address space on the list that begins at ``init_mm``."""
    offset = machine.image.structs.mm_struct.offset("mmlist")
    head = machine.image.symbol("init_mm") + offset
    return [entry - offset for entry in Lists(machine.image.ram).entries(head)]


def child_of(machine: vma.VmaMachine, flags: int = 0) -> int:
    task = SimpleNamespace(mm=0, active_mm=0)
    assert machine.fork.copy_mm(flags, task) == 0
    assert task.mm == task.active_mm
    return task.mm  # type: ignore[no-any-return]


@pytest.mark.book("4.3.1", "4.3.2")
def test_a_new_address_space_is_empty_and_has_one_user(either: vma.VmaMachine) -> None:
    mm = either.fork.mm_alloc()
    space = either.spaces.areas.mm(mm)
    assert (space.mm_users, space.mm_count) == (1, 1)
    assert space.pgd == 0xC0101000
    assert (space.mmap, space.mm_rb.rb_node, space.mmap_cache, space.map_count) == (0, 0, 0, 0)
    assert mm not in mmlist(either)


@pytest.mark.book("4.3.2")
def test_init_mm_is_the_kernels_own(machine: VmaMachine) -> None:
    statics = machine.kernel.statics
    init_mm = statics.init_mm
    assert (init_mm.mm_users, init_mm.mm_count, init_mm.pgd) == (2, 2, 0xC0101000)
    assert (init_mm.mmap, init_mm.map_count) == (0, 0)
    assert statics.swap_mm == machine.kernel.image.symbol("init_mm")
    assert statics.max_map_count == 65536


@pytest.mark.book("4.3.2")
def test_a_child_gets_a_copy_behind_its_parent(machine: VmaMachine) -> None:
    parent = machine.mm
    child = child_of(machine)
    assert mmlist(machine) == [parent, child]
    second = child_of(machine)
    assert mmlist(machine) == [parent, second, child]
    assert machine.kernel.statics.mmlist_nr == 3
    assert pages_of(machine, child) == pages_of(machine, parent)
    for mm in (parent, child, second):
        check(machine, mm)
    check_files(machine, [parent, child, second])
    assert machine.spaces.areas.mm(child).brk == machine.spaces.areas.mm(parent).brk


def test_a_copied_vma_stands_right_behind_its_original_in_the_files_list(
    machine: VmaMachine,
) -> None:
    at = BASE + 20 * PAGE
    machine.spaces.do_mmap_pgoff(machine.files.by_number[3], at, PAGE, 1, 0x11, 0)
    child_of(machine)
    rows = {row[0]: row for row in machine.files.state()}
    assert rows[3][4] == [at, at, BASE + 4 * PAGE, BASE + 4 * PAGE]


def test_what_must_not_be_copied_is_not(either: vma.VmaMachine) -> None:
    first, *rest = either.spaces.areas.list(either.mm)
    either.spaces.areas.vma(first).vm_flags |= VM_DONTCOPY
    child = child_of(either)
    assert len(either.spaces.areas.list(child)) == len(rest)


@pytest.mark.book("4.3.2", "4.3.3")
def test_the_last_user_ends_an_address_space(either: vma.VmaMachine) -> None:
    """What a thread of the kernel runs on stays, empty."""
    mm = either.mm
    assert child_of(either, CLONE_VM) == mm
    space = either.spaces.areas.mm(mm)
    either.fork.mmput(mm)
    assert (space.mm_users, space.mm_count, space.map_count) == (1, 1, 3)
    space.mm_count += 1
    either.fork.mmput(mm)
    assert (space.mm_users, space.mm_count, space.mmap, space.map_count) == (0, 1, 0, 0)
    either.fork.mmdrop(mm)
    assert either.fork.allocate_mm() == mm


@pytest.mark.book("4.3.2", "4.3.3")
def test_threads_share_and_the_last_user_ends_it(machine: VmaMachine) -> None:
    mm = machine.mm
    assert child_of(machine, CLONE_VM) == mm
    space = machine.spaces.areas.mm(mm)
    assert space.mm_users == 2
    machine.fork.mmput(mm)
    assert (space.mm_users, mmlist(machine)) == (1, [mm])
    space.mm_count += 1
    machine.fork.mmput(mm)
    # A thread of the kernel still runs on it: empty, but there.
    assert (space.mm_users, space.mm_count, space.mmap) == (0, 1, 0)
    assert mmlist(machine) == []
    assert vmas_in_use(machine) == 0
    machine.fork.mmdrop(mm)
    assert machine.fork.allocate_mm() == mm


def test_swapping_goes_on_with_the_next_when_its_address_space_ends(machine: VmaMachine) -> None:
    parent, child = machine.mm, child_of(machine)
    machine.kernel.statics.swap_mm = parent
    machine.fork.mmput(parent)
    assert machine.kernel.statics.swap_mm == child


def test_init_mm_never_goes(machine: VmaMachine) -> None:
    init_mm = machine.kernel.image.symbol("init_mm")
    machine.fork.mmdrop(init_mm)  # what the idle task borrows
    with pytest.raises(KernelBug, match=r"fork\.c:267"):
        machine.fork.mmdrop(init_mm)


def test_a_thread_of_the_kernel_has_nothing_to_copy(either: vma.VmaMachine) -> None:
    either.image.current_task.mm = 0
    assert child_of(either) == 0


# -- exec ------------------------------------------------------------------------------------------


def new_exec(machine: VmaMachine) -> tuple[Exec, list[tuple[int, int]]]:
    switches: list[tuple[int, int]] = []
    kernel = machine.kernel
    context: Any = SimpleNamespace(activate_mm=lambda old, new: switches.append((old, new)))
    memory: Any = None  # no argument has a page here
    program = Exec(kernel.image, kernel.allocator, machine.spaces, memory, machine.fork, context)
    return program, switches


@pytest.mark.book("4.3.3")
def test_the_only_user_keeps_its_address_space(machine: VmaMachine) -> None:
    program, switches = new_exec(machine)
    mm = machine.mm
    assert program.exec_mmap() == 0
    assert (machine.mm, switches) == (mm, [])
    assert machine.spaces.areas.list(mm) == []


def test_one_of_several_users_gets_a_new_one(machine: VmaMachine) -> None:
    program, switches = new_exec(machine)
    old = machine.mm
    child_of(machine, CLONE_VM)
    assert program.exec_mmap() == 0
    assert switches == [(old, machine.mm)]
    assert machine.mm != old
    assert set(mmlist(machine)) == {old, machine.mm}
    assert machine.spaces.areas.mm(old).mm_users == 1
    assert len(machine.spaces.areas.list(old)) == 3


def test_a_thread_of_the_kernel_gives_back_what_it_borrowed(machine: VmaMachine) -> None:
    program, switches = new_exec(machine)
    task, init_mm = machine.kernel.image.current_task, machine.kernel.image.symbol("init_mm")
    task.mm, task.active_mm = 0, init_mm
    count = machine.kernel.statics.init_mm.mm_count
    machine.kernel.statics.init_mm.mm_count += 1
    assert program.exec_mmap() == 0
    assert machine.kernel.statics.init_mm.mm_count == count
    assert switches == [(init_mm, machine.mm)]


def test_the_stack_reaches_to_the_top_and_grows(machine: VmaMachine) -> None:
    program, _ = new_exec(machine)
    program.exec_mmap()
    arguments = BinaryParameters()
    arguments.p -= 5000 - 4
    assert program.setup_arg_pages(arguments) == 0
    assert arguments.p == STACK_TOP - 5000
    pages = pages_of(machine, machine.mm)
    assert {number * PAGE for number in pages} == {STACK_TOP - 2 * PAGE, STACK_TOP - PAGE}
    assert {page.flags for page in pages.values()} == {0x177}
    check(machine, machine.mm)
    assert machine.spaces.find_extend_vma(machine.mm, STACK_TOP - 9 * PAGE)
    assert len(pages_of(machine, machine.mm)) == 9


# -- shared anonymous memory -----------------------------------------------------------------------


def test_a_shared_mapping_asks_whether_there_is_memory_for_it(machine: VmaMachine) -> None:
    """Unlike the recordings, in which nobody asked."""
    image, files, areas = machine.kernel.image, machine.spaces.files, machine.spaces.areas
    machine.kernel.statics.sysctl_overcommit_memory = 0
    spaces = AddressSpaces(image, machine.kernel.slab, files, machine.pages, lambda: 10)
    assert spaces.do_mmap_pgoff(0, BASE + 64 * PAGE, 10 * PAGE, 3, 0x31, 0) == -ENOMEM
    assert spaces.do_mmap_pgoff(0, BASE + 64 * PAGE, 9 * PAGE, 3, 0x31, 0) == BASE + 64 * PAGE
    area = areas.vma(spaces.find_vma(machine.mm, BASE + 64 * PAGE))
    assert files.name(area.vm_file) == "dev/zero"
    assert files.inode(files.inode_of(area.vm_file)).i_size == 9 * PAGE
    assert area.vm_ops == image.symbol("shmem_vm_ops")
    assert Fork(image, machine.kernel.slab, spaces).copy_mm(0, SimpleNamespace()) == 0


def test_no_file_is_larger_than_its_blocks_can_say(machine: VmaMachine) -> None:
    shmem = ShmemFiles(machine.kernel.image, machine.spaces.files, lambda pages: True)
    assert SHMEM_MAX_INDEX == 16 + 1024 * 512 * 1025
    assert shmem.shmem_file_setup("large", (SHMEM_MAX_INDEX + 1) * PAGE) == -EINVAL
    assert shmem.shmem_file_setup("large", SHMEM_MAX_INDEX * PAGE) > 0
