# SPDX-License-Identifier: GPL-2.0-or-later
"""Random calls on several address spaces against dictionaries of pages; planted faults show."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from harness.replay import vma_2_4, vma_2_6
from harness.replay.vma import VmaMachine
from kernel_model.mm.address_spaces import RemapFilePages
from kernel_model.mm.mmap.linux_2_6.remap import FileRemapper
from kernel_model.structs.linux_2_6.mm import VM_ACCOUNT
from kernel_model.structs.mm import VM_DENYWRITE, VM_GROWSDOWN, VM_SHARED
from kernel_model.structs.mman import MCL_CURRENT, MCL_FUTURE
from tests.kernel_model.mm.naive_space import NaiveSpace, NaiveSpace26
from tests.kernel_model.mm.vma_book import (
    PAGE,
    check,
    check_anon_vmas,
    check_files,
    check_kinds,
    pages_of,
    vmas_in_use,
)

WINDOW = 0x40000
"""The first page of those that calls name."""
HEAP = 0x8048
MAY = 0x70
SPACES = 3

places = st.integers(0, 15).map(lambda number: WINDOW + number)
counts = st.integers(1, 6)
prots = st.sampled_from([3, 3, 3, 7, 1, 0])
"""Few, so that neighbours often may merge."""


class SpacesMachine(RuleBasedStateMachine):
    """Every call answers as the naive space does, and leaves the same pages."""

    machine_of: Callable[[], VmaMachine]
    naive_space: type[NaiveSpace] = NaiveSpace

    def __init__(self) -> None:
        super().__init__()
        self.machine = type(self).machine_of()
        self.calls = self.machine.spaces
        self.machine.set_exec(HEAP * PAGE, HEAP * PAGE)
        self.naive = {self.machine.mm: self.naive_space(HEAP * PAGE)}

    @property
    def space(self) -> NaiveSpace:
        return self.naive[self.machine.mm]

    def vma_end(self, page: int) -> int:
        """Where the VMA of a page ends, in pages; the page itself when there is none."""
        areas = self.calls.areas
        views = [areas.vma(vma) for vma in areas.list(self.machine.mm)]
        ends = [v.vm_end for v in views if v.vm_start <= page * PAGE < v.vm_end]
        return ends[0] // PAGE if ends else page

    def took(self, address: int) -> None:
        """Where the kernel found room, or an error."""

    # -- mapping -------------------------------------------------------------------------------

    @rule(place=places, count=counts, prot=prots, down=st.booleans())
    def map_zeros(self, place: int, count: int, prot: int, down: bool) -> None:
        flags = 0x32 | VM_GROWSDOWN * down
        got = self.calls.do_mmap_pgoff(0, place * PAGE, count * PAGE, prot, flags, place)
        vm_flags = prot | MAY | VM_GROWSDOWN * down
        assert got == self.space.mmap(place, count, vm_flags, 0, 0)

    @rule(count=counts, prot=prots)
    def map_zeros_anywhere(self, count: int, prot: int) -> None:
        got = self.calls.do_mmap_pgoff(0, 0, count * PAGE, prot, 0x22, 0)
        self.took(got)
        room = self.space.room(count)
        assert got == self.space.mmap(room, count, prot | MAY, 0, 0)

    @rule(place=places, count=counts, prot=prots)
    def map_shared_zeros(self, place: int, count: int, prot: int) -> None:
        got = self.calls.do_mmap_pgoff(0, place * PAGE, count * PAGE, prot, 0x31, 0)
        file = self.calls.areas.vma(self.calls.find_vma(self.machine.mm, place * PAGE)).vm_file
        assert got == self.space.mmap(place, count, prot | MAY | 0x88, file, 0)

    @rule(
        place=places,
        count=counts,
        prot=prots,
        number=st.sampled_from([1, 2, 3, 7]),
        shared=st.booleans(),
        deny=st.booleans(),
        index=st.integers(0, 30),
    )
    def map_file(
        self, place: int, count: int, prot: int, number: int, shared: bool, deny: bool, index: int
    ) -> None:
        file = self.machine.files.by_number[number]
        flags = (0x11 if shared else 0x12) | VM_DENYWRITE * deny
        got = self.calls.do_mmap_pgoff(file, place * PAGE, count * PAGE, prot, flags, index)
        if shared and (number == 7 or (number == 1 and prot & 2)):
            assert got == -13
            return
        # What was opened for reading can be shared, but never becomes writable.
        may = 0x50 | 0x80 if shared and number == 1 else MAY | 0x88 * shared
        vm_flags = prot | may | VM_DENYWRITE * deny
        assert got == self.space.mmap(place, count, vm_flags, file, index)

    @rule(place=places, count=counts)
    def unmap(self, place: int, count: int) -> None:
        got = self.calls.do_munmap(self.machine.mm, place * PAGE, count * PAGE)
        assert got == self.space.munmap(place, count)

    @rule(place=places, count=counts, prot=prots)
    def protect(self, place: int, count: int, prot: int) -> None:
        got = self.calls.sys_mprotect(place * PAGE, count * PAGE, prot)
        assert got == self.space.mprotect(place, count, prot)

    @rule(
        place=places,
        old=st.integers(0, 8),
        new=counts,
        may_move=st.booleans(),
        where=st.none() | places,
    )
    def remap(self, place: int, old: int, new: int, may_move: bool, where: int | None) -> None:
        end = self.vma_end(place)
        flags = may_move + 2 * (where is not None)
        got = self.calls.do_mremap(place * PAGE, old * PAGE, new * PAGE, flags, (where or 0) * PAGE)
        self.took(got)
        assert got == self.space.mremap(place, old, new, end, where, may_move=may_move)

    @rule(size=st.integers(0, 40_000))
    def brk(self, size: int) -> None:
        got = self.calls.sys_brk(HEAP * PAGE + size)
        assert got == self.space.move_brk(HEAP * PAGE + size)

    @rule(place=places)
    def look_up(self, place: int) -> None:
        vma = self.calls.find_vma(self.machine.mm, place * PAGE)
        above = [number for number in self.space.pages if number >= place]
        if above:
            end = self.calls.areas.vma(vma).vm_end
            assert min(above) < end // PAGE
            assert max(min(above), place) * PAGE >= self.calls.areas.vma(vma).vm_start
        else:
            assert vma == 0

    @rule(place=places)
    def touch_below_a_stack(self, place: int) -> None:
        vma = self.calls.find_extend_vma(self.machine.mm, place * PAGE)
        assert bool(vma) == self.space.grow_stack(place)

    # -- locking -------------------------------------------------------------------------------

    @rule(place=places, count=counts, on=st.booleans())
    def lock(self, place: int, count: int, on: bool) -> None:
        call = self.calls.sys_mlock if on else self.calls.sys_munlock
        got = call(place * PAGE + 1, count * PAGE - 1)
        assert got == self.space.mlock(place, count, on=on)

    @rule(flags=st.integers(0, 3))
    def lock_all(self, flags: int) -> None:
        got = self.calls.sys_mlockall(flags) if flags else self.calls.sys_munlockall()
        current, future = bool(flags & MCL_CURRENT), bool(flags & MCL_FUTURE)
        assert got == self.space.mlockall(current=current, future=future)

    # -- processes -----------------------------------------------------------------------------

    @precondition(lambda self: len(self.naive) < SPACES)
    @rule()
    def fork(self) -> None:
        task = SimpleNamespace(mm=1, active_mm=1)
        assert self.machine.fork.copy_mm(0, task) == 0
        assert task.mm == task.active_mm
        self.naive[task.mm] = self.space.fork()

    @rule(which=st.integers(0, SPACES - 1))
    def switch(self, which: int) -> None:
        mms = list(self.naive)
        self.machine.image.current_task.mm = mms[which % len(mms)]

    @precondition(lambda self: len(self.naive) > 1)
    @rule()
    def exit(self) -> None:
        mm = self.machine.mm
        del self.naive[mm]
        self.machine.image.current_task.mm = next(iter(self.naive))
        self.machine.fork.mmput(mm)

    # -- what must hold ------------------------------------------------------------------------

    @invariant()
    def every_space_holds_its_pages(self) -> None:
        areas = self.calls.areas
        for mm, naive in self.naive.items():
            assert pages_of(self.machine, mm) == naive.pages
            check(self.machine, mm)
            assert (areas.mm(mm).def_flags, areas.mm(mm).brk) == (naive.def_flags, naive.brk)
        check_files(self.machine, list(self.naive))
        assert vmas_in_use(self.machine) == sum(len(areas.list(mm)) for mm in self.naive)


class SpacesMachine24(SpacesMachine):
    """Of 2.4."""

    machine_of = vma_2_4.VmaMachine

    @invariant()
    def swapping_knows_every_space(self) -> None:
        assert self.machine.image.statics.mmlist_nr == len(self.naive)


class SpacesMachine26(SpacesMachine):
    """Of 2.6: what is charged, counted by kind, and on whose list is checked, too."""

    machine_of = vma_2_6.VmaMachine
    naive_space = NaiveSpace26
    machine: vma_2_6.VmaMachine

    def __init__(self) -> None:
        super().__init__()
        self.lost = 0
        """Pages that stacks which are not charged grew by: nobody gives these charges back."""

    def took(self, address: int) -> None:
        for naive in self.naive.values():
            assert isinstance(naive, NaiveSpace26)
            naive.answered = address // PAGE

    @rule(place=places)
    def touch_below_a_stack(self, place: int) -> None:
        vma = self.calls.find_vma(self.machine.mm, place * PAGE)
        before = self.calls.areas.vma(vma).vm_start if vma else 0
        super().touch_below_a_stack(place)
        if vma and not self.calls.areas.vma(vma).vm_flags & VM_ACCOUNT:
            self.lost += (before - self.calls.areas.vma(vma).vm_start) // PAGE

    @rule(place=places, count=counts, index=st.integers(0, 30))
    def map_code(self, place: int, count: int, index: int) -> None:
        file = self.machine.files.by_number[1]
        got = self.calls.do_mmap_pgoff(file, place * PAGE, count * PAGE, 5, 0x12, index)
        assert got == self.space.mmap(place, count, 5 | MAY, file, index)

    @rule(place=places)
    def first_own_page(self, place: int) -> None:
        """What a fault that writes does to the VMA."""
        vma = self.calls.find_vma(self.machine.mm, place * PAGE)
        if vma and not self.calls.areas.vma(vma).vm_flags & VM_SHARED:
            assert not self.machine.spaces.anon_vmas.anon_vma_prepare(vma)

    @rule(place=places, count=counts, index=st.integers(0, 30))
    def map_pages_in_any_order(self, place: int, count: int, index: int) -> None:
        """None of these files can: nothing changes."""
        got = self.remapper(place * PAGE, count * PAGE, 0, index, 0)
        assert got == -22

    @property
    def remapper(self) -> RemapFilePages:
        parts = self.calls.parts
        return FileRemapper(
            parts.areas, parts.finder, self.machine.spaces.mappings
        ).sys_remap_file_pages

    @invariant()
    def charges_and_lists_are_right(self) -> None:
        areas = self.calls.areas
        charged, shared = 0, set[int]()
        for mm in self.naive:
            check_kinds(self.machine, mm)
            views = [areas.vma(vma) for vma in areas.list(mm)]
            charged += sum(v.vm_end - v.vm_start for v in views if v.vm_flags & VM_ACCOUNT) // PAGE
            shared |= {view.vm_file for view in views}
        charged += sum(self.machine.shmem.charge_of(file) for file in shared)
        assert self.machine.image.statics.vm_committed_space == charged + self.lost
        check_anon_vmas(self.machine, list(self.naive))


MACHINES = {"2.4": SpacesMachine24, "2.6": SpacesMachine26}


@pytest.mark.book("4.3.2", "4.3.3", "4.4", "4.8")
@pytest.mark.parametrize("release", MACHINES)
def test_address_spaces_are_dictionaries_of_pages(release: str) -> None:
    run_state_machine_as_test(
        MACHINES[release],
        settings=settings(
            max_examples=25,
            stateful_step_count=40,
            derandomize=True,
            database=None,
            deadline=None,
        ),
    )
