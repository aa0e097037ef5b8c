# SPDX-License-Identifier: GPL-2.0-or-later
"""Faults planted into the memory manager: the random programs find each of them.

Where the releases have each its own way the same fault is planted into both.

Many are consistent: the model announces what it does, so that tables and ledger agree, and only
the bytes that a process sees, or its VMAs, can tell.
"""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from kernel_model.arch_i386 import fault as page_faults
from kernel_model.arch_i386.mmu_context import MmuContext
from kernel_model.arch_i386.pgtable import PAGE_RW
from kernel_model.arch_i386.tlb import Tlb
from kernel_model.errors import MmucheckError
from kernel_model.image import KernelImage
from kernel_model.mm import swap_out
from kernel_model.mm.filemap.mapped_by import VmaEnds
from kernel_model.mm.filemap.nopage import FileFaults
from kernel_model.mm.filemap.pages import FilePages
from kernel_model.mm.filemap.sync import MemorySync
from kernel_model.mm.memory import change, copy
from kernel_model.mm.memory.change import EntryChanger
from kernel_model.mm.memory.fault import ZERO_PFN, FaultHandler
from kernel_model.mm.memory.linux_2_4 import zap
from kernel_model.mm.memory.linux_2_4.zap import Zapper
from kernel_model.mm.memory.linux_2_6 import gather
from kernel_model.mm.memory.linux_2_6.fault import FaultHandler26
from kernel_model.mm.memory.linux_2_6.gather import MmuGather
from kernel_model.mm.memory.memory import Memory
from kernel_model.mm.memory.rights import user_rights
from kernel_model.mm.memory.tables import UserTables
from kernel_model.mm.page_flags import PG_RESERVED
from kernel_model.mm.rmap import one_pte
from kernel_model.mm.rmap.one_pte import PteUnmapper
from kernel_model.mm.swap_out import SwapOut
from kernel_model.mm.swap_state import SwapCache
from kernel_model.mm.swapfile import SwapAreas
from kernel_model.structs.mm import VM_SHARED
from tests.harness import space_faults_2_6
from tests.harness.space_state_machine import SpaceStateMachine, SpaceStateMachine26

Patch = pytest.MonkeyPatch
PAGE = 4096


# -- fork and copy on write ------------------------------------------------------------------------


def fork_protects_nothing(patch: Patch) -> None:
    patch.setattr(copy, "PAGE_RW", 0)


def fork_shares_for_writing(patch: Patch) -> None:
    """As before, and the ledger is told so."""
    patch.setattr(copy, "PAGE_RW", 0)
    patch.setattr(copy, "user_rights", lambda flags: user_rights(flags, own=True))


def fork_does_not_count_swapped_pages(patch: Patch) -> None:
    real = copy.PageCopier.__init__

    class Uncounted:
        def __init__(self, areas: Any) -> None:
            self.ptes = areas.ptes

        def swap_duplicate(self, entry: int) -> None:
            pass

    def init(self: Any, image: Any, allocator: Any, tables: Any, areas: Any, rmap: Any) -> None:
        real(self, image, allocator, tables, Uncounted(areas), rmap)  # type: ignore[arg-type]

    patch.setattr(copy.PageCopier, "__init__", init)


def write_fault_does_not_copy(patch: Patch) -> None:
    """Whoever writes gets the shared frame."""
    patch.setattr(
        FaultHandler, "_reusable", lambda self, page: not self._memmap.test(page, PG_RESERVED)
    )


def copy_is_empty(patch: Patch) -> None:
    patch.setattr(
        FaultHandler, "copy_user_highpage", lambda self, to, _: self.clear_user_highpage(to)
    )


def old_frame_is_kept_at_copy(patch: Patch) -> None:
    """The reference of the page that was copied never ends."""
    real = FaultHandler._do_wp_page

    def do_wp_page(self: Any, *arguments: Any) -> Any:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(self._allocator, "put_page", lambda page: None)
            return real(self, *arguments)

    patch.setattr(FaultHandler, "_do_wp_page", do_wp_page)


# -- the page comes --------------------------------------------------------------------------------


def zero_page_may_be_written(patch: Patch) -> None:
    real = FaultHandler._map

    def map_(
        self: Any, pgd: int, vaddr: int, ptep: int, pte: int, flags: int, *, own: bool
    ) -> None:
        zero = pte >> 12 == ZERO_PFN
        real(self, pgd, vaddr, ptep, pte | (PAGE_RW if zero else 0), flags, own=own or zero)

    patch.setattr(FaultHandler, "_map", map_)


def anonymous_page_is_not_cleared(patch: Patch) -> None:
    def page_of_somebody(self: Any) -> int:
        return int(self._allocator.alloc_page(self._gfp_highuser, "user page"))

    patch.setattr(FaultHandler, "_zeroed_page", page_of_somebody)
    patch.setattr(FaultHandler26, "_zeroed_page", page_of_somebody)


def private_page_is_the_files_frame(patch: Patch) -> None:
    """No copy at a first touch that writes."""
    patch.setattr(FaultHandler, "_early_copy", lambda self, vma, page: page)


def wrong_page_of_the_file(patch: Patch) -> None:
    """The first one of the VMA."""
    real = FileFaults._find_or_read

    def find_or_read(self: Any, vma: int, address: int) -> Any:
        return real(self, vma, self._words[(vma - 0xC0000000 >> 2) + self._vm_start])

    patch.setattr(FileFaults, "_find_or_read", find_or_read)


def refused_access_looks_unmapped(patch: Patch) -> None:
    patch.setattr(page_faults, "SEGV_ACCERR", page_faults.SEGV_MAPERR)


def page_behind_the_end_is_there(patch: Patch) -> None:
    """No SIGBUS for the first page behind a file, but zeros."""
    real = FilePages.pages_of
    patch.setattr(FilePages, "pages_of", lambda self, mapping: real(self, mapping) + 1)


# -- entries change --------------------------------------------------------------------------------


def mprotect_keeps_the_entries(patch: Patch) -> None:
    patch.setattr(EntryChanger, "change_protection", lambda self, *arguments: None)


def mprotect_keeps_the_write_bit(patch: Patch) -> None:
    real = change.pte_modify
    patch.setattr(change, "pte_modify", lambda pte, prot: real(pte, prot) | pte & PAGE_RW)


def mremap_leaves_the_old_entry(patch: Patch) -> None:
    def move_one_page(self: Any, *arguments: int) -> bool:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(self._entries, "ptep_get_and_clear", self._entries.entry)
            return real(self, *arguments)

    real = EntryChanger._move_one_page
    patch.setattr(EntryChanger, "_move_one_page", move_one_page)


def mremap_moves_no_pages(patch: Patch) -> None:
    patch.setattr(EntryChanger, "move_page_tables", lambda self, *arguments: 0)


# -- pages go --------------------------------------------------------------------------------------


def zap_forgets_the_last_page(patch: Patch) -> None:
    real, real_26 = Zapper.zap_page_range, MmuGather.unmap_range

    def zap_page_range(self: Any, mm: int, address: int, size: int) -> None:
        real(self, mm, address, size - PAGE if size > PAGE else size)

    def unmap_range(self: Any, start: int, end: int, details: Any = None) -> None:
        real_26(self, start, end - PAGE if end - start > PAGE else end, details)

    patch.setattr(Zapper, "zap_page_range", zap_page_range)
    patch.setattr(MmuGather, "unmap_range", unmap_range)


def zap_loses_the_dirty_bit(patch: Patch) -> None:
    for module in (zap, gather):
        patch.setattr(module, "pte_dirty", lambda pte: False)


def swap_out_loses_the_dirty_bit(patch: Patch) -> None:
    for module in (swap_out, one_pte):
        patch.setattr(module, "pte_dirty", lambda pte: False)


def swap_slot_is_leaked(patch: Patch) -> None:
    """Unmapping a page that is out frees nothing."""
    patch.setattr(SwapCache, "free_swap_and_cache", lambda self, entry: None)


def swap_slot_is_freed_twice(patch: Patch) -> None:
    """At swap-in, if somebody else means it, too."""
    real = SwapAreas.swap_free

    def swap_free(self: Any, entry: int) -> int:
        if real(self, entry):
            return int(real(self, entry))
        return 0

    patch.setattr(SwapAreas, "swap_free", swap_free)


def page_tables_are_leaked(patch: Patch) -> None:
    patch.setattr(UserTables, "clear_page_tables", lambda self, *arguments: None)
    patch.setattr(MmuGather, "clear_page_range", lambda self, *arguments: None)


# -- files -----------------------------------------------------------------------------------------


def cut_page_keeps_its_end(patch: Patch) -> None:
    real = FilePages.clear_frame

    def clear_frame(self: Any, page: int, start: int = 0) -> None:
        if not start:
            real(self, page)

    patch.setattr(FilePages, "clear_frame", clear_frame)


def truncation_forgets_private_mappings(patch: Patch) -> None:
    def init(self: Any, image: KernelImage) -> None:
        real_init(self, image)
        self.vm_flags = image.structs.vm_area_struct.word("vm_flags")

    def range_from(self: Any, vma: int, first: int) -> tuple[int, int, int]:
        mm, address, size = real(self, vma, first)
        shared = self.words[(vma - 0xC0000000 >> 2) + self.vm_flags] & VM_SHARED
        return mm, address, size if shared else 0

    real_init, real = VmaEnds.__init__, VmaEnds.range_from
    patch.setattr(VmaEnds, "__init__", init)
    patch.setattr(VmaEnds, "range_from", range_from)


def msync_looks_at_no_entry(patch: Patch) -> None:
    patch.setattr(MemorySync, "filemap_sync", lambda self, *arguments: None)


# -- flushes ---------------------------------------------------------------------------------------


def no_flush_of_ranges(patch: Patch) -> None:
    """As munmap, mprotect and mremap need them."""
    patch.setattr(Tlb, "flush_tlb_range", lambda self, *arguments: None)


def no_flush_at_fork(patch: Patch) -> None:
    patch.setattr(Memory, "flush_tlb_mm", lambda self, mm: None)


def no_flush_at_swap_out(patch: Patch) -> None:
    real = SwapOut._try_to_swap_out

    def try_to_swap_out(self: Any, *arguments: Any) -> int:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(self._tlb, "flush_tlb_page", lambda mm, vaddr: None)
            return real(self, *arguments)

    patch.setattr(SwapOut, "_try_to_swap_out", try_to_swap_out)
    for name in ("clear_flush_young", "unmap"):
        patch.setattr(PteUnmapper, name, without_flush(getattr(PteUnmapper, name)))


def without_flush(method: Callable[..., Any]) -> Callable[..., Any]:
    def unflushed(self: Any, *arguments: Any) -> Any:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(self._tlb, "flush_tlb_page", lambda mm, vaddr: None)
            return method(self, *arguments)

    return unflushed


def switch_does_not_load_cr3(patch: Patch) -> None:
    def switch_mm(self: Any, prev: int, following: int) -> None:
        if self._image.current_task.mm and prev != self._image.symbol("init_mm"):
            return
        real(self, prev, following)

    real = MmuContext.switch_mm
    patch.setattr(MmuContext, "switch_mm", switch_mm)


FAULTS = [
    fork_protects_nothing,
    fork_shares_for_writing,
    fork_does_not_count_swapped_pages,
    write_fault_does_not_copy,
    copy_is_empty,
    old_frame_is_kept_at_copy,
    zero_page_may_be_written,
    anonymous_page_is_not_cleared,
    private_page_is_the_files_frame,
    wrong_page_of_the_file,
    refused_access_looks_unmapped,
    page_behind_the_end_is_there,
    mprotect_keeps_the_entries,
    mprotect_keeps_the_write_bit,
    mremap_leaves_the_old_entry,
    mremap_moves_no_pages,
    zap_forgets_the_last_page,
    zap_loses_the_dirty_bit,
    swap_out_loses_the_dirty_bit,
    swap_slot_is_leaked,
    swap_slot_is_freed_twice,
    page_tables_are_leaked,
    cut_page_keeps_its_end,
    truncation_forgets_private_mappings,
    msync_looks_at_no_entry,
    no_flush_of_ranges,
    no_flush_at_fork,
    no_flush_at_swap_out,
    switch_does_not_load_cr3,
]
FAULTS_OF = {"2.4": FAULTS, "2.6": [*FAULTS, *space_faults_2_6.FAULTS]}


class FilePrograms(SpaceStateMachine):
    """Little but files: else the calls of which a fault needs several seldom come together."""

    mprotect = mremap = brk = mlock = madvise_dontneed = run = write_code = None  # type: ignore[assignment]


class FilePrograms26(SpaceStateMachine26):
    """The same on 2.6."""

    mprotect = mremap = brk = mlock = madvise_dontneed = run = write_code = None  # type: ignore[assignment]


PROGRAMS = {
    "2.4": (SpaceStateMachine, FilePrograms),
    "2.6": (SpaceStateMachine26, FilePrograms26),
}
OF_FILES = {
    cut_page_keeps_its_end,
    truncation_forgets_private_mappings,
    msync_looks_at_no_entry,
    # A write right before a fork, and a look right after it, are seldom among all calls of 2.6.
    no_flush_at_fork,
    *space_faults_2_6.OF_FILES,
}
QUICK = {fork_protects_nothing, page_tables_are_leaked, *space_faults_2_6.QUICK}
"""Found in the first programs; the others take some seconds each."""


@pytest.mark.parametrize(
    ("release", "plant"),
    [
        pytest.param(
            release,
            plant,
            id=f"{release} {plant.__name__}",
            marks=() if plant in QUICK else pytest.mark.slow,
        )
        for release, faults in FAULTS_OF.items()
        for plant in faults
    ],
)
def test_random_programs_find(
    release: str, plant: Callable[[Patch], None], monkeypatch: Patch
) -> None:
    plant(monkeypatch)
    once = settings(
        max_examples=60,
        stateful_step_count=120,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
    )
    programs = PROGRAMS[release][plant in OF_FILES]
    with pytest.raises((AssertionError, MmucheckError)):
        run_state_machine_as_test(programs, settings=once)
