# SPDX-License-Identifier: GPL-2.0-or-later
"""Each TLB flush of the kernel forgotten in turn: the CPU then sees what is not so any more.

A row is one call in the source. ``warm`` lets the TLB hold a translation, ``operate`` is what the
kernel does, ``access`` is what the CPU meets afterwards and must equal ``sees``. With the call
forgotten it must not, unless the row is ``needless``: then the comment at the call says why this
CPU would do without it, and the test shows that it does. A row is tried on each release that makes
the call. A call that has no row fails.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from harness.diff import diff
from harness.machine import Machine
from harness.verdict import Verdict
from kernel_model.arch_i386.page import PAGE_OFFSET
from kernel_model.arch_i386.pgtable import PAGE_RW
from kernel_model.config import MIB, KernelConfig
from kernel_model.image import SWAPPER_PG_DIR
from kernel_model.kernel import Kernel
from tests.harness.flush_calls import TLB, all_calls, flush_calls, forgotten, is_of
from tests.harness.flush_stage import AT, EFAULT, NEW, OLD, RELEASES, Stage, nothing_is_stale
from tests.harness.process_machine import PAGE

Does = Callable[[Stage], object]


@dataclass(frozen=True)
class Row:
    call: str
    warm: Does
    operate: Does
    access: Does
    sees: object
    needless: bool = False
    build: str = "2-level"

    def __str__(self) -> str:
        return self.call

    @property
    def file(self) -> str:
        return self.call.split()[0]


S = Stage
MAPERR, ACCERR = "SEGV_MAPERR", "SEGV_ACCERR"
ROWS = [
    Row("mm/memory/fault.py _establish flush_tlb_page", S.shared_with_child, S.poke, S.read, NEW),
    Row(
        "mm/memory/fault.py _set_access_flags flush_tlb_page",
        *(S.read_shared, S.fault_again, S.dirty_again, "P W U A D"),
        needless=True,
    ),
    Row(
        "mm/memory/linux_2_4/zap.py zap_page_range flush_tlb_range",
        S.written,
        S.munmap,
        S.read,
        MAPERR,
    ),
    Row(
        "mm/memory/linux_2_4/zap.py _flush_and_free flush_tlb_range",
        *(S.written, S.munmap_beside_a_thread, S.read, MAPERR),
        build="SMP",
    ),
    Row(
        "mm/memory/change.py change_protection flush_tlb_range",
        *(S.written, S.mprotect, S.write, ACCERR),
    ),
    Row(
        "mm/memory/change.py _all_moved flush_tlb_range",
        *(S.written_of_three, S.move_the_middle, S.read, 0),
    ),
    Row(
        "mm/memory/remap.py _map_range flush_tlb_range",
        *(S.nothing_there, S.map_device, S.read, NEW),
        needless=True,
    ),
    Row("mm/memory/memory.py flush_tlb_mm flush_tlb_mm", S.written, S.fork, S.the_childs, OLD),
    Row(
        "mm/memory/memory.py flush_tlb_pgtables flush_tlb_pgtables",
        *(S.written, S.munmap, S.read, MAPERR),
        needless=True,
    ),
    Row(
        "mm/swap_out.py _try_to_swap_out flush_tlb_page",
        *(S.written, lambda stage: stage.world.swap_out(), S.faulting_read, (OLD, 1)),
    ),
    Row("fork.py dup_mmap flush_tlb_mm", S.written, S.fork, S.the_childs, OLD),
    Row(
        "mm/mmap/linux_2_4/exit.py exit_mmap flush_tlb_mm",
        *(S.by_a_system_call, S.empty, S.by_kernel, EFAULT),
        needless=True,
    ),
    Row(
        "mm/mmap/linux_2_4/unmap.py _free_pgtables flush_tlb_pgtables",
        *(S.written, S.munmap, S.read, MAPERR),
        needless=True,
    ),
    Row(
        "mm/filemap/sync.py filemap_sync flush_tlb_page",
        *(S.written_file, S.msync, S.dirty_again, "P W U A D"),
        needless=True,
    ),
    Row(
        "mm/filemap/sync.py filemap_sync flush_tlb_range",
        *(S.written_file, S.msync, S.dirty_again, "P W U A D"),
        needless=True,
    ),
    Row(
        "mm/vmalloc/areas.py ioremap flush_tlb_all",
        *(S.hole_of_vmalloc, S.ioremap, S.kernel_read, NEW),
        needless=True,
    ),
    Row(
        "mm/vmalloc/linux_2_4.py _vmfree_area_pages flush_tlb_all",
        S.vmalloced,
        S.vfree,
        S.kernel_read,
        "oops",
    ),
    Row(
        "mm/highmem.py flush_all_zero_pkmaps flush_tlb_all",
        *(S.kmapped, S.kmap_after_all_were_used, S.kernel_read, NEW),
        build="highmem",
    ),
    Row(
        "arch_i386/highmem.py kmap_atomic flush_tlb_one",
        *(S.kmapped_atomic, S.kmap_another, S.kernel_read, NEW),
        build="highmem",
    ),
    Row(
        "arch_i386/highmem.py kunmap_atomic flush_tlb_one",
        *(S.kmapped_atomic, S.kunmap_atomic, S.kernel_read, "oops"),
        build="debug highmem",
    ),
    Row(
        "arch_i386/init.py paging_init flush_tlb_all",
        *(S.nothing, S.nothing, S.boot, True),
        needless=True,
    ),
    Row(
        "arch_i386/init.py zap_low_mappings flush_tlb_all",
        *(S.nothing, S.nothing, S.low_read_after_joining, "oops"),
    ),
    Row("arch_i386/tlb.py flush_tlb flush_tlb_all", S.written, S.change_pte_and_flush, S.read, 0),
    Row(
        "arch_i386/tlb.py flush_tlb_all flush_tlb_global",
        S.vmalloced,
        S.vfree,
        S.kernel_read,
        "oops",
    ),
    Row(
        "arch_i386/tlb.py flush_tlb_all flush_tlb_all",
        *(S.vmalloced, S.vfree, S.kernel_read, "oops"),
        build="486",
    ),
    Row("arch_i386/tlb.py flush_tlb_mm flush_tlb_all", S.written, S.munmap, S.read, MAPERR),
    Row("arch_i386/tlb.py flush_tlb_range flush_tlb_mm", S.written, S.mprotect, S.write, ACCERR),
    Row("arch_i386/tlb.py flush_tlb_page flush_tlb_one", S.shared_with_child, S.poke, S.read, NEW),
]
ROWS += [
    Row(
        "mm/memory/linux_2_6/gather.py _flush flush_tlb_mm",
        *(S.written, S.munmap, S.read, MAPERR),
    ),
    Row(
        "mm/memory/linux_2_6/gather.py _flush flush_tlb_mm",
        *(S.written, S.munmap_beside_a_thread, S.read, MAPERR),
        build="SMP",
    ),
    Row(
        "mm/memory/linux_2_6/fault.py _set_access_flags flush_tlb_page",
        *(S.read_shared, S.fault_again, S.dirty_again, "P W U A D"),
        needless=True,
    ),
    Row(
        "mm/memory/linux_2_6/change.py _one_moved flush_tlb_page",
        *(S.written_of_three, S.move_the_middle, S.read, 0),
    ),
    Row(
        "mm/memory/linux_2_6/fremap.py _zap_pte flush_tlb_page",
        *(S.read_one_of_two, S.remap_file_pages, S.read, NEW),
    ),
    Row(
        "mm/rmap/one_pte.py clear_flush_young flush_tlb_page",
        *(S.written, S.ask_whether_used, S.used_again, "P W U A D"),
    ),
    Row(
        "mm/rmap/one_pte.py unmap flush_tlb_page",
        *(S.written, lambda stage: stage.world.swap_out(), S.faulting_read, (OLD, 1)),
        needless=True,
    ),
    Row(
        "mm/rmap/one_pte.py unmap flush_tlb_page",
        *(S.written, S.unmap_unasked, S.faulting_read, (OLD, 1)),
        build="2.6 chains",
    ),
    Row(
        "mm/hugetlb/tables.py unmap_hugepage_range flush_tlb_range",
        *(S.written_huge, S.unmap_huge, S.read_huge, MAPERR),
        build="huge pages",
    ),
    Row(
        "mm/mmap/linux_2_6/unmap.py _unmap_region flush_tlb_pgtables",
        *(S.written, S.munmap, S.read, MAPERR),
        needless=True,
    ),
    Row(
        "mm/vmalloc/linux_2_6.py unmap_vm_area flush_tlb_all",
        *(S.vmalloced, S.vfree, S.kernel_read, "oops"),
    ),
    Row(
        "arch_i386/linux_2_6/sysenter.py __init__ flush_tlb_one",
        *(S.nothing, S.nothing, S.boot, True),
        needless=True,
    ),
]
"""And those of 2.6."""
NOT_MADE = {
    "2.4": [],
    "2.6": [
        # Of a page that is only read there is nothing to say; the rest is FaultHandler26's.
        ("mm/memory/fault.py _set_access_flags flush_tlb_page", S.read_shared, S.fault_again),
        # Each entry is flushed as it moves.
        ("mm/memory/change.py _all_moved flush_tlb_range", S.written_of_three, S.move_the_middle),
    ],
}
"""Calls in modules of both releases for which one has its own, with what would come to them."""


def of_release(release: str) -> list[Row]:
    not_made = {call for call, _, _ in NOT_MADE[release]}
    return [row for row in ROWS if is_of(release, row.file) and row.call not in not_made]


PARAMS = [
    pytest.param(release, row, id=f"{release} {row}, {row.build}")
    for release in RELEASES
    for row in of_release(release)
]


def what_the_cpu_sees(release: str, row: Row) -> object:
    stage = Stage(row.build, release)
    row.warm(stage)
    row.operate(stage)
    return row.access(stage)


@pytest.mark.book("3.8", "3.9")
@pytest.mark.book("3.8", "3.9", release="2.6")
@pytest.mark.parametrize(("release", "row"), PARAMS)
def test_row(release: str, row: Row) -> None:
    call = flush_calls(release)[row.call]
    assert what_the_cpu_sees(release, row) == row.sees
    stage = Stage(row.build, release)
    row.warm(stage)
    with forgotten(call) as made:
        row.operate(stage)
        seen = row.access(stage)
    assert set(made) == {call}, "the kernel did not get there"
    assert (seen == row.sees) == row.needless, seen
    assert bool(call.comment) >= row.needless, "the source does not say why"


def test_each_call_has_a_row() -> None:
    """And is made by some release."""
    assert {row.call for row in ROWS} == {
        name for name, call in all_calls().items() if call.flush.startswith(TLB)
    }
    for release in RELEASES:
        named = {row.call for row in of_release(release)} | {
            call for call, _, _ in NOT_MADE[release]
        }
        assert sorted(named) == sorted(flush_calls(release))


@pytest.mark.parametrize(
    ("release", "name", "warm", "operate"),
    [(release, *row) for release, rows in NOT_MADE.items() for row in rows],
)
def test_a_call_of_the_other_release_is_not_made(
    release: str, name: str, warm: Does, operate: Does
) -> None:
    stage = Stage("2-level", release)
    warm(stage)
    with forgotten(flush_calls(release)[name]) as made:
        operate(stage)
    assert made == []


def test_the_look_at_a_boot_finds_what_is_stale() -> None:
    """An entry of the direct map is used, and then changes."""
    machine, page = Machine(Kernel(KernelConfig(ram=8 * MIB))), PAGE
    assert machine.cpu.translate(PAGE_OFFSET + page) == page
    entry = SWAPPER_PG_DIR + (PAGE_OFFSET + page >> 22) * 4
    machine.ram.write32(entry, machine.ram.read32(entry) ^ PAGE_RW)
    assert not nothing_is_stale(machine)
    machine.cpu.flush_tlb_global()
    assert nothing_is_stale(machine)


@pytest.mark.book("3.8")
@pytest.mark.parametrize("release", RELEASES)
def test_msync_needs_one_of_its_two_flushes(release: str) -> None:
    stage = Stage("2-level", release)
    stage.written_file()
    both = [call for name, call in flush_calls(release).items() if "filemap_sync" in name]
    with forgotten(*both) as made:
        stage.msync()
    assert set(made) == set(both)
    assert stage.dirty_again() == "P W U A"


@pytest.mark.book("3.8", "4.4")
@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("call", ["fork.py dup_mmap flush_tlb_mm", ""])
def test_the_comparison_names_a_fork_without_its_flush(release: str, call: str) -> None:
    """The CPU may still write to what the parent shares with its child now."""
    stage = Stage("2-level", release)
    stage.written()
    with forgotten(*(flush_calls(release)[name] for name in [call] if name)):
        stage.fork()
    findings = diff(stage.world.machine).findings
    assert {finding.verdict for finding in findings} <= {Verdict.MISSING_FLUSH}
    pages = {va for finding in findings for va in range(finding.va, finding.end, PAGE)}
    assert (AT in pages) == bool(call)
    assert bool(pages) == bool(call)
