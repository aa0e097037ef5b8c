# SPDX-License-Identifier: GPL-2.0-or-later
"""Planted faults of the VMA layer, and who finds them."""

from collections.abc import Callable

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import (
    run_state_machine_as_test,
)

from kernel_model.errors import KernelBug
from kernel_model.fork import Fork
from kernel_model.mm.mlock import Mlock
from kernel_model.mm.mmap.accounting import Accounting
from kernel_model.mm.mmap.areas import Areas, VmArea
from kernel_model.mm.mmap.linux_2_4 import merge
from kernel_model.mm.mmap.linux_2_4.mappings import ShareLists
from kernel_model.mm.mmap.linux_2_4.merge import AnonymousMerging
from kernel_model.mm.mmap.linux_2_4.split import FlagSplitter
from kernel_model.mm.mmap.linux_2_4.unmapped_area import FirstFit
from kernel_model.mm.mmap.linux_2_6.accounting import DetailedAccounting
from kernel_model.mm.mmap.linux_2_6.limits import CommittedMemory
from kernel_model.mm.mmap.linux_2_6.mappings import MappingTrees
from kernel_model.mm.mmap.linux_2_6.mprotect import MergingMprotect
from kernel_model.mm.rmap.anon_vma import AnonVmas
from kernel_model.structs.mm import VM_LOCKED
from tests.kernel_model.mm.test_address_spaces import (
    SpacesMachine,
    SpacesMachine24,
    SpacesMachine26,
)
from tests.kernel_model.mm.vma_book import (
    PAGE,
)

# -- planted faults ------------------------------------------------------------------------------

Plant = Callable[[pytest.MonkeyPatch], None]


def offset_stays(patch: pytest.MonkeyPatch) -> None:
    def cut(self: FlagSplitter, vma: int, start: int, end: int) -> None:
        area = self._areas.vma(vma)
        area.vm_start, area.vm_end = start, end

    patch.setattr(FlagSplitter, "_cut", cut)


def stays_on_the_files_list(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(ShareLists, "remove", lambda self, vma: None)


def no_reference_to_the_file(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(Areas, "share_file", Areas.open)


def locked_and_not_merge(patch: pytest.MonkeyPatch) -> None:
    def can_vma_merge(area: VmArea, vm_flags: int) -> bool:
        return not area.vm_file and area.vm_flags | VM_LOCKED == vm_flags | VM_LOCKED

    patch.setattr(merge, "can_vma_merge", can_vma_merge)


def merged_vma_leaks(patch: pytest.MonkeyPatch) -> None:
    original = AnonymousMerging.absorb_next

    def absorb_next(self: AnonymousMerging, mm: int, prev: int) -> bool:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(Areas, "free", lambda self, vma: None)
            return original(self, mm, prev)

    patch.setattr(AnonymousMerging, "absorb_next", absorb_next)


def unlocking_counts_twice(patch: pytest.MonkeyPatch) -> None:
    original = Mlock.sys_munlock

    def sys_munlock(self: Mlock, start: int, length: int) -> int:
        space = self._areas.mm(self._areas.current_mm)
        before = space.locked_vm
        result = original(self, start, length)
        space.locked_vm -= before - space.locked_vm
        return result

    patch.setattr(Mlock, "sys_munlock", sys_munlock)


def a_child_inherits_locks(patch: pytest.MonkeyPatch) -> None:
    original = Areas.open

    def open_(self: Areas, vma: int) -> None:
        original(self, vma)
        area = self.vma(vma)
        if area.vm_mm != self.current_mm and area.vm_start % (4 * PAGE) == 0:
            area.vm_flags |= VM_LOCKED

    patch.setattr(Areas, "open", open_)


def one_page_too_far(patch: pytest.MonkeyPatch) -> None:
    original = FirstFit._search

    def search(self: FirstFit, mm: int, length: int) -> int:
        return original(self, mm, length + PAGE)

    patch.setattr(FirstFit, "_search", search)


@pytest.mark.parametrize(
    "plant",
    [
        offset_stays,
        stays_on_the_files_list,
        no_reference_to_the_file,
        locked_and_not_merge,
        merged_vma_leaks,
        unlocking_counts_twice,
        a_child_inherits_locks,
        one_page_too_far,
    ],
)
def test_dictionaries_find_planted_faults(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    found_by(SpacesMachine24)


def found_by(machine: type[SpacesMachine]) -> None:
    once = settings(
        max_examples=1000,
        stateful_step_count=40,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
    )
    with pytest.raises((AssertionError, KernelBug)):
        run_state_machine_as_test(machine, settings=once)


# -- planted faults of 2.6 -------------------------------------------------------------------------


def copies_are_on_no_list(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(AnonVmas, "link", lambda self, vma: None)


def edges_move_in_the_tree(patch: pytest.MonkeyPatch) -> None:
    """A VMA stays in its file's tree while the pages it maps change."""
    for name in ("take_out", "put_back"):
        patch.setattr(MappingTrees, name, lambda self, vma: None)


def children_are_free(patch: pytest.MonkeyPatch) -> None:
    """``fork()`` charges nothing."""
    original = Fork._dup_vma

    def dup_vma(self: Fork, mm: int, vma: int, last: int) -> tuple[int, int]:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(CommittedMemory, "vm_enough_memory", lambda self, pages: True)
            return original(self, mm, vma, last)

    patch.setattr(Fork, "_dup_vma", dup_vma)


def code_stays_code(patch: pytest.MonkeyPatch) -> None:
    """``mprotect()`` does not count anew what kind of pages they are."""
    original = MergingMprotect._set_flags

    def set_flags(
        self: MergingMprotect, vma: int, start: int, end: int, oldflags: int, newflags: int
    ) -> None:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(DetailedAccounting, "vm_stat_account", Accounting.vm_stat_account)
            original(self, vma, start, end, oldflags, newflags)

    patch.setattr(MergingMprotect, "_set_flags", set_flags)


@pytest.mark.parametrize(
    "plant",
    [
        copies_are_on_no_list,
        edges_move_in_the_tree,
        children_are_free,
        code_stays_code,
    ],
)
def test_sweeps_of_2_6_find_planted_faults(plant: Plant, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch)
    found_by(SpacesMachine26)
