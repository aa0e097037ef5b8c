# SPDX-License-Identifier: GPL-2.0-or-later
"""Faults in what 2.6 alone has: reverse maps, promised memory, pages out of order, gathering."""

from collections.abc import Callable
from typing import Any

import pytest

from kernel_model.arch_i386.pgtable import PAGE_ACCESSED, PAGE_DIRTY
from kernel_model.mm.memory.linux_2_6.gather import MmuGather
from kernel_model.mm.mmap.linux_2_6.limits import CommittedMemory
from kernel_model.mm.mmap.linux_2_6.mprotect import MergingMprotect
from kernel_model.mm.mmap.linux_2_6.unmap import CuttingUnmapper
from kernel_model.mm.rmap.anon_vma import AnonVmas
from kernel_model.mm.rmap.mapped_pages import MappedPages
from kernel_model.mm.rmap.object_based import ObjectReverseMap
from kernel_model.mm.rmap.one_pte import PteUnmapper
from kernel_model.mm.rmap.pte_chain import PteChains
from kernel_model.mm.swapops import ThreeLevelPtes, TwoLevelPtes

Patch = pytest.MonkeyPatch


# -- who maps a frame ------------------------------------------------------------------------------


def asking_whether_a_page_was_used_makes_it_clean(patch: Patch) -> None:
    def clear_flush_young(self: Any, mm: int, vaddr: int, ptep: int) -> bool:
        pte = self._entries.entry(ptep)
        self._entries.set_pte(ptep, pte & ~PAGE_DIRTY)
        return bool(real(self, mm, vaddr, ptep))

    real = PteUnmapper.clear_flush_young
    patch.setattr(PteUnmapper, "clear_flush_young", clear_flush_young)


def a_page_in_use_is_looked_at_by_another_address(patch: Patch) -> None:
    """``page_referenced()`` takes the sign of use away next to where it is."""

    def clear_flush_young(self: Any, mm: int, vaddr: int, ptep: int) -> bool:
        pte = self._entries.entry(ptep)
        self._entries.set_pte(ptep, pte & ~PAGE_ACCESSED)
        self._tlb.flush_tlb_page(self._tables.pgd(mm), vaddr + 4096)
        return bool(pte & PAGE_ACCESSED)

    patch.setattr(PteUnmapper, "clear_flush_young", clear_flush_young)
    real = PteUnmapper.unmap

    def unmap(self: Any, page: int, vma: int, vaddr: int, ptep: int) -> None:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(self._tlb, "flush_tlb_page", lambda mm, vaddr: None)
            real(self, page, vma, vaddr, ptep)

    patch.setattr(PteUnmapper, "unmap", unmap)


def copied_areas_are_on_no_list(patch: Patch) -> None:
    """Neither those of a child nor those that were cut off have an ``anon_vma``'s entry."""
    patch.setattr(AnonVmas, "link", lambda self, vma: None)


def the_first_area_that_goes_takes_all_off_the_list(patch: Patch) -> None:
    def unlink(self: Any, vma: int) -> None:
        anon_vma = self._areas.vma(vma).anon_vma
        real(self, vma)
        if anon_vma:
            self._lists.init(anon_vma + self._head)

    real = AnonVmas.unlink
    patch.setattr(AnonVmas, "unlink", unlink)


def a_childs_pages_are_not_counted(patch: Patch) -> None:
    patch.setattr(ObjectReverseMap, "duplicate", lambda self, mm, page, ptep: None)
    patch.setattr(PteChains, "duplicate", lambda self, mm, page, ptep: None)


def a_page_that_moved_is_known_where_it_was(patch: Patch) -> None:
    patch.setattr(PteChains, "moved", lambda self, page, source, to: None)


# -- memory that is promised -----------------------------------------------------------------------


def unmapping_keeps_the_charge(patch: Patch) -> None:
    patch.setattr(CuttingUnmapper, "_uncharge", lambda self, vmas: None)


def a_child_is_not_charged(patch: Patch) -> None:
    patch.setattr(CommittedMemory, "account_flag", 0)


def what_becomes_writable_is_not_charged(patch: Patch) -> None:
    """But it says that it is."""

    def fixup(self: Any, *arguments: Any) -> Any:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(self._parts.limits, "vm_enough_memory", lambda pages: True)
            return real(self, *arguments)

    real = MergingMprotect._fixup
    patch.setattr(MergingMprotect, "_fixup", fixup)


# -- pages out of order ----------------------------------------------------------------------------


def a_file_pte_names_the_next_page(patch: Patch) -> None:
    for kind in (TwoLevelPtes, ThreeLevelPtes):
        real = kind.pgoff_to_pte
        patch.setattr(kind, "pgoff_to_pte", lambda self, pgoff, real=real: real(self, pgoff + 1))


def no_page_is_out_of_order(patch: Patch) -> None:
    """Who takes one away notes nothing."""
    real = MappedPages.linear_page_index

    def forgetting(method: Callable[..., Any]) -> Callable[..., Any]:
        def forgetful(self: Any, *arguments: Any) -> Any:
            with pytest.MonkeyPatch.context() as inner:
                inner.setattr(MappedPages, "linear_page_index", index_of_whatever_is_there)
                return method(self, *arguments)

        return forgetful

    class Whatever(int):
        """Equal to each index."""

        __hash__ = int.__hash__

        def __eq__(self, other: object) -> bool:
            return True

        def __ne__(self, other: object) -> bool:
            return False

    def index_of_whatever_is_there(self: Any, vma: int, vaddr: int) -> int:
        return Whatever(real(self, vma, vaddr))

    patch.setattr(MmuGather, "_zap_present", forgetting(MmuGather._zap_present))
    patch.setattr(PteUnmapper, "unmap", forgetting(PteUnmapper.unmap))


# -- gathering -------------------------------------------------------------------------------------


def nothing_that_was_gathered_is_freed(patch: Patch) -> None:
    def remove_page(self: Any, page: int) -> None:
        self._need_flush = True

    patch.setattr(MmuGather, "_remove_page", remove_page)


def gathering_ends_without_a_flush(patch: Patch) -> None:
    def flush(self: Any) -> None:
        self._need_flush = False

    patch.setattr(MmuGather, "_flush", flush)


def what_was_gathered_counts_as_resident(patch: Patch) -> None:
    patch.setattr(MmuGather, "tlb_finish_mmu", lambda self, start, end: self._flush())


FAULTS = [
    asking_whether_a_page_was_used_makes_it_clean,
    a_page_in_use_is_looked_at_by_another_address,
    copied_areas_are_on_no_list,
    the_first_area_that_goes_takes_all_off_the_list,
    a_childs_pages_are_not_counted,
    a_page_that_moved_is_known_where_it_was,
    unmapping_keeps_the_charge,
    a_child_is_not_charged,
    what_becomes_writable_is_not_charged,
    a_file_pte_names_the_next_page,
    no_page_is_out_of_order,
    nothing_that_was_gathered_is_freed,
    gathering_ends_without_a_flush,
    what_was_gathered_counts_as_resident,
]
OF_FILES = {
    asking_whether_a_page_was_used_makes_it_clean,
    a_file_pte_names_the_next_page,
    no_page_is_out_of_order,
}
QUICK = {copied_areas_are_on_no_list, a_childs_pages_are_not_counted}
"""Those that the first programs find."""
