# SPDX-License-Identifier: GPL-2.0-or-later
"""Each TLB flush of the kernel forgotten in turn: the CPU then sees what is not so any more.

A row is one call in the source. ``warm`` lets the TLB hold a translation, ``operate`` is what the
kernel does, ``access`` is what the CPU meets afterwards and must equal ``sees``. With the call
forgotten it must not, unless the row is ``needless``: then the comment at the call says why this
CPU would do without it, and the test shows that it does. A call that has no row fails.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from harness.diff import diff
from harness.machine import GuestDied, Machine
from harness.verdict import Verdict
from kernel_model.arch_i386.highmem import KmType
from kernel_model.arch_i386.page import PAGE_OFFSET
from kernel_model.kernel import Kernel, boot
from kernel_model.mm.filemap.sync import MS_SYNC
from kernel_model.mm.gfp import GFP_HIGHUSER
from kernel_model.structs.sched import CLONE_VM
from tests.harness.flush_calls import flush_calls, forgotten
from tests.harness.process_machine import (
    ANONYMOUS,
    CONFIGS,
    MCL_CURRENT,
    PAGE,
    RW,
    SHARED,
    Content,
    ProcessMachine,
    R,
)

AT, ELSEWHERE = 0x50001000, 0x60001000
OLD, NEW = 0x0BAD0BAD, 0x600D600D
RESERVED = 0x3F0000
EFAULT = 0xFFFFFFF2


class Stage:
    """A machine, a process on it whose other pages are locked, and what the rows do to them."""

    def __init__(self, build: str) -> None:
        self.world = world = ProcessMachine(CONFIGS[build])
        self.kernel = world.kernel
        self.process = world.spaces.fork(world.first)
        world.spaces.enter(self.process)
        self.child = 0
        self.kvaddr = 0
        for function in (self.read, self.write):
            world.map(AT)
            function()
            self.munmap()
        assert self.kernel.spaces.sys_mlockall(MCL_CURRENT) == 0

    @property
    def mm(self) -> int:
        return self.world.spaces.mm(self.process)

    # -- what the process does -----------------------------------------------------------------

    def read(self, addr: int = AT) -> int | str:
        return self.world.read(self.process, addr)

    def write(self, value: int = OLD) -> int | str:
        return self.world.write(self.process, AT, value)

    def written(self) -> None:
        """A page of its own, written to just now."""
        self.world.map(AT)
        self.write()

    def written_of_three(self) -> None:
        self.world.map(AT - PAGE, pages=3)
        self.write()

    def shared_with_child(self) -> None:
        self.written()
        self.child = self.world.spaces.fork(self.process)
        self.read()

    def read_shared(self) -> None:
        """A page that may be written to, and was not: the TLB has it as clean."""
        self.world.map(AT, RW, SHARED | ANONYMOUS)
        self.read()

    def written_file(self) -> None:
        self.world.map_file(AT, Content(0), SHARED)
        self.write()

    def nothing_there(self) -> None:
        self.world.map(AT, R)
        self.kernel.spaces.do_munmap(self.mm, AT, PAGE)
        self.read()

    def by_a_system_call(self) -> None:
        self.written()
        self.by_kernel()

    def by_kernel(self) -> int:
        """What ``get_user()`` gets: the word, or ``-EFAULT``."""
        return self.world.machine.call("uaccess_read", AT)

    def faulting_read(self) -> tuple[int | str, int]:
        """With the number of faults that it took."""
        value = self.read()
        return value, len([fault for fault in self.world.faults if fault[1] == AT])

    def dirty_again(self) -> str:
        self.write(NEW)
        return self.world.bits(self.process, AT)

    def the_childs(self) -> int | str:
        """The parent writes; what the child has must not change."""
        self.write(NEW)
        return self.world.read(self.child, AT)

    # -- what the kernel does ------------------------------------------------------------------

    def munmap(self) -> None:
        assert self.kernel.spaces.do_munmap(self.mm, AT - PAGE, 3 * PAGE) == 0

    def munmap_beside_a_thread(self) -> None:
        self.world.spaces.fork(self.process, CLONE_VM)
        self.munmap()

    def mprotect(self) -> None:
        assert self.kernel.spaces.sys_mprotect(AT, PAGE, R) == 0

    def fork(self) -> None:
        self.child = self.world.spaces.fork(self.process)

    def msync(self) -> None:
        self.kernel.file_memory.filemap.sys_msync(AT, PAGE, MS_SYNC)

    def poke(self) -> None:
        """As ``ptrace()`` does it: the page is had for writing, and written to by its frame."""
        pages, error = self.kernel.memory.get_user_pages(self.mm, AT, 1, write=True)
        assert not error
        frame = self.kernel.allocator.memmap.pfn(pages[0])
        self.world.machine.ram.write32(frame << 12, NEW)
        self.kernel.allocator.put_page(pages[0])

    def move_the_middle(self) -> None:
        """The second VMA, for the upper part of what is cut, is refused: the old range stays."""
        areas, asked = self.kernel.spaces.areas, []

        def alloc() -> int:
            asked.append(0)
            return 0 if len(asked) == 2 else real()

        real, areas.alloc = areas.alloc, alloc  # type: ignore[method-assign]
        moved = self.kernel.spaces.do_mremap(AT, PAGE, PAGE, 3, ELSEWHERE)
        del areas.alloc
        assert (moved, len(asked)) == (ELSEWHERE, 2)

    def map_device(self) -> None:
        self.world.map(AT, R)
        assert self.kernel.memory.remap_page_range(self.mm, AT, RESERVED, PAGE, 0x25) == 0
        self.world.machine.ram.write32(RESERVED, NEW)

    def empty(self) -> None:
        self.kernel.spaces.exit_mmap(self.mm)

    # -- addresses of the kernel ---------------------------------------------------------------

    def kernel_read(self) -> int | str:
        try:
            return self.world.machine.call("bare_read", self.kvaddr)
        except GuestDied:
            return "oops"

    def high_page(self, value: int) -> int:
        page = self.kernel.allocator.alloc_page(GFP_HIGHUSER)
        self.world.machine.ram.write32(self.kernel.allocator.memmap.pfn(page) << 12, value)
        return page

    def vmalloced(self) -> None:
        self.kvaddr = self.kernel.vmalloc.vmalloc(PAGE)
        self.world.machine.call("bare_write", self.kvaddr, OLD)

    def vfree(self) -> None:
        self.kernel.vmalloc.vfree(self.kvaddr)

    def hole_of_vmalloc(self) -> None:
        self.vmalloced()
        self.vfree()
        assert self.kernel_read() == "oops"

    def ioremap(self) -> None:
        self.world.machine.ram.write32(RESERVED, NEW)
        assert self.kernel.vmalloc.ioremap(RESERVED, PAGE) == self.kvaddr

    def kmapped(self) -> None:
        self._last_pkmap()
        page = self.high_page(OLD)
        self.kvaddr = self.kernel.highmem.kmap(page)
        assert self.kernel_read() == OLD
        self.kernel.highmem.kunmap(page)

    def kmap_after_all_were_used(self) -> None:
        """The search for a free entry comes to the start of the window, and flushes."""
        self._last_pkmap()
        assert self.kernel.highmem.kmap(self.high_page(NEW)) == self.kvaddr

    def _last_pkmap(self) -> None:
        statics = self.kernel.statics
        statics.last_pkmap_nr = len(statics.pkmap_count) - 1

    def kmapped_atomic(self) -> None:
        self.kvaddr = self.kernel.highmem.kmap_atomic(self.high_page(OLD), KmType.USER0)
        assert self.kernel_read() == OLD

    def kunmap_atomic(self) -> None:
        self.kernel.highmem.kunmap_atomic(self.kvaddr, KmType.USER0)

    def kmap_another(self) -> None:
        self.kunmap_atomic()
        page = self.high_page(NEW)
        assert self.kernel.highmem.kmap_atomic(page, KmType.USER0) == self.kvaddr

    def change_pte_and_flush(self) -> None:
        """What nobody in the kernel calls, by itself."""
        ptep = self.kernel.memory.tables.pte_offset(self.process, AT)
        self.kernel.tables.set_pte(ptep, 0)
        self.kernel.tlb.flush_tlb()
        self.kernel.tables.set_pte(ptep, 0)

    # -- booting -------------------------------------------------------------------------------

    def nothing(self) -> None:
        """The machine is only made in ``access``."""

    def boot(self) -> bool:
        """Whether all readings of a fresh machine agree."""
        return diff(Machine(Kernel(self.world.config))).ok

    def low_read_after_joining(self) -> str:
        """A CPU joins a kernel that runs; it has turned paging on at a low address."""
        machine = Machine(boot(self.world.config), image=self.world._image())
        try:
            machine.call("bare_read", machine.guest.entry - PAGE_OFFSET)
        except GuestDied:
            return "oops"
        return "read"


@dataclass(frozen=True)
class Row:
    call: str
    warm: Callable[[Stage], object]
    operate: Callable[[Stage], object]
    access: Callable[[Stage], object]
    sees: object
    needless: bool = False
    build: str = "2-level"

    def __str__(self) -> str:
        return self.call


S = Stage
MAPERR, ACCERR = "SEGV_MAPERR", "SEGV_ACCERR"
ROWS = [
    Row("mm/memory/fault.py _establish flush_tlb_page", S.shared_with_child, S.poke, S.read, NEW),
    Row(
        "mm/memory/fault.py handle_mm_fault flush_tlb_page",
        *(S.read_shared, S.poke, S.dirty_again, "P W U A D"),
        needless=True,
    ),
    Row("mm/memory/zap.py zap_page_range flush_tlb_range", S.written, S.munmap, S.read, MAPERR),
    Row(
        "mm/memory/zap.py _flush_and_free flush_tlb_range",
        *(S.written, S.munmap_beside_a_thread, S.read, MAPERR),
        build="SMP",
    ),
    Row(
        "mm/memory/change.py change_protection flush_tlb_range",
        *(S.written, S.mprotect, S.write, ACCERR),
    ),
    Row(
        "mm/memory/change.py move_page_tables flush_tlb_range",
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
        "mm/mmap/exit.py exit_mmap flush_tlb_mm",
        *(S.by_a_system_call, S.empty, S.by_kernel, EFAULT),
        needless=True,
    ),
    Row(
        "mm/mmap/unmap.py _free_pgtables flush_tlb_pgtables",
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
        "mm/vmalloc.py ioremap flush_tlb_all",
        *(S.hole_of_vmalloc, S.ioremap, S.kernel_read, NEW),
        needless=True,
    ),
    Row(
        "mm/vmalloc.py _vmfree_area_pages flush_tlb_all",
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
    Row("arch_i386/tlb.py flush_tlb_range flush_tlb_mm", S.written, S.munmap, S.read, MAPERR),
    Row("arch_i386/tlb.py flush_tlb_page flush_tlb_one", S.shared_with_child, S.poke, S.read, NEW),
]


def what_the_cpu_sees(row: Row) -> Any:
    stage = Stage(row.build)
    row.warm(stage)
    row.operate(stage)
    return row.access(stage)


@pytest.mark.book("3.8", "3.9")
@pytest.mark.parametrize("row", ROWS, ids=str)
def test_row(row: Row) -> None:
    call = flush_calls()[row.call]
    assert what_the_cpu_sees(row) == row.sees
    stage = Stage(row.build)
    row.warm(stage)
    with forgotten(call) as made:
        row.operate(stage)
        seen = row.access(stage)
    assert set(made) == {call}, "the kernel did not get there"
    assert (seen == row.sees) == row.needless, seen
    assert bool(call.comment) >= row.needless, "the source does not say why"


def test_each_call_has_a_row() -> None:
    assert sorted(row.call for row in ROWS) == sorted(flush_calls())


@pytest.mark.book("3.8")
def test_msync_needs_one_of_its_two_flushes() -> None:
    stage = Stage("2-level")
    stage.written_file()
    both = [call for name, call in flush_calls().items() if "filemap_sync" in name]
    with forgotten(*both) as made:
        stage.msync()
    assert set(made) == set(both)
    assert stage.dirty_again() == "P W U A"


@pytest.mark.book("3.8", "4.4")
@pytest.mark.parametrize("call", ["fork.py dup_mmap flush_tlb_mm", ""])
def test_the_comparison_names_a_fork_without_its_flush(call: str) -> None:
    """The CPU may still write to what the parent shares with its child now."""
    stage = Stage("2-level")
    stage.written()
    with forgotten(*(flush_calls()[name] for name in [call] if name)):
        stage.fork()
    findings = diff(stage.world.machine).findings
    assert {finding.verdict for finding in findings} <= {Verdict.MISSING_FLUSH}
    pages = {va for finding in findings for va in range(finding.va, finding.end, PAGE)}
    assert (AT in pages) == bool(call)
    assert bool(pages) == bool(call)
