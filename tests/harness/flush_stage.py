# SPDX-License-Identifier: GPL-2.0-or-later
"""What the tables of forgotten flushes do to a machine with processes."""

from dataclasses import replace

import numpy as np

from harness.machine import GuestDied, Machine
from harness.progress import Meter
from harness.readings.cpu_mmu import ask_mmu
from harness.readings.reading import disagree
from harness.readings.spec import SpecView, mmu_features
from kernel_model.arch_i386.highmem import KmType
from kernel_model.arch_i386.page import PAGE_OFFSET
from kernel_model.config import MIB
from kernel_model.kernel import Kernel, boot
from kernel_model.mm.filemap.sync import MS_SYNC
from kernel_model.structs.fs import FMODE_READ, FMODE_WRITE
from kernel_model.structs.sched import CLONE_VM
from tests.harness.made_to_reclaim import Asking26
from tests.harness.process_machine import (
    ANONYMOUS,
    CONFIGS,
    FIXED,
    MCL_CURRENT,
    PAGE,
    RW,
    SHARED,
    Content,
    ProcessMachine,
    R,
)

AT, ELSEWHERE, HUGE = 0x50001000, 0x60001000, 0x70000000
OLD, NEW = 0x0BAD0BAD, 0x600D600D
RESERVED = 0x3F0000
BOOT_PAGES = 2048
"""From 0: what the tables of the boot map."""
EFAULT = 0xFFFFFFF2
RELEASES = ("2.4", "2.6")
BUILDS = CONFIGS | {
    "2-level": replace(CONFIGS["2-level"], ram=8 * MIB),
    "huge pages": replace(CONFIGS["2.6"], nr_hugepages=1),
}
"""What a row may be tried on, whatever the release; comparisons take the longer the more memory
there is."""


class Stage:
    """A machine, a process on it whose other pages are locked, and what the rows do to them."""

    def __init__(self, build: str, release: str) -> None:
        config = replace(BUILDS[build], release=release)
        self.world = world = ProcessMachine(config)
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

    # -- what 2.6 has besides ------------------------------------------------------------------

    def fault_again(self) -> None:
        """A write to a page that may be written to: somebody else's fault was faster."""
        vma = self.kernel.spaces.find_vma(self.mm, AT)
        assert self.kernel.memory.handle_mm_fault(self.mm, vma, AT, True) > 0

    def ask_whether_used(self) -> None:
        """It was; from now on it counts as unused."""
        page = self.kernel.allocator.memmap.page(self.world.frame(self.process, AT))
        assert self.kernel.reverse_walk.page_referenced(page, is_locked=True)
        assert self.world.bits(self.process, AT) == "P W U D"

    def unmap_unasked(self) -> None:
        """Reclaim takes the page without asking whether it was used."""
        kernel, reclaiming = self.kernel, self.world.reclaiming
        memmap, lock = kernel.allocator.memmap, kernel.image.constants.page_flags.mask("locked")
        page = memmap.page(self.world.frame(self.process, AT))
        memmap.set_flags(page, memmap.flags(page) | lock)
        assert isinstance(reclaiming, Asking26)
        reclaiming.unmap(kernel, page)
        memmap.set_flags(page, memmap.flags(page) & ~lock)

    def used_again(self) -> str:
        self.read()
        return self.world.bits(self.process, AT)

    def read_one_of_two(self) -> None:
        """The first page of a file that has another word in its second one."""
        content = Content(OLD, pages=2)
        content.write_page(1, NEW.to_bytes(4, "little").ljust(PAGE, b"\0"))
        self.world.map_file(AT, content, SHARED)
        self.read()

    def remap_file_pages(self) -> None:
        """The second page where the first one was."""
        assert self.kernel.spaces.sys_remap_file_pages(AT, PAGE, 0, 1, 0) == 0

    def written_huge(self) -> None:
        fs = self.kernel.hugetlbfs
        assert fs is not None
        file = fs.open(fs.hugetlbfs_get_inode(fs.mount()), "huge", FMODE_READ | FMODE_WRITE)
        size, flags = fs.pool.huge.size, SHARED | FIXED
        assert self.kernel.spaces.do_mmap_pgoff(file, HUGE, size, RW, flags, 0) == HUGE
        self.kernel.files.fput(file)
        assert self.world.write(self.process, HUGE, OLD) == OLD

    def unmap_huge(self) -> None:
        assert self.kernel.hugetlbfs is not None
        size = self.kernel.hugetlbfs.pool.huge.size
        assert self.kernel.spaces.do_munmap(self.mm, HUGE, size) == 0

    def read_huge(self) -> int | str:
        return self.read(HUGE)

    # -- addresses of the kernel ---------------------------------------------------------------

    def kernel_read(self) -> int | str:
        try:
            return self.world.machine.call("bare_read", self.kvaddr)
        except GuestDied:
            return "oops"

    def high_page(self, value: int) -> int:
        page = self.kernel.allocator.alloc_page(self.kernel.image.constants.gfp.highuser)
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
        """Whether a fresh machine has nothing stale in its TLB."""
        return nothing_is_stale(Machine(Kernel(self.world.config)))

    def low_read_after_joining(self) -> str:
        """A CPU joins a kernel that runs; it has turned paging on at a low address."""
        machine = Machine(boot(self.world.config), image=self.world._image())
        try:
            machine.call("bare_read", machine.guest.entry - PAGE_OFFSET)
        except GuestDied:
            return "oops"
        return "read"


def nothing_is_stale(machine: Machine) -> bool:
    """Whether the MMU says what the tables do, where the kernel has something mapped, and where it
    had while it booted."""
    spec = SpecView(machine.ram, machine.cpu.control, mmu_features(machine.cpu))
    pages = np.union1d(np.flatnonzero(spec.pages.rights), np.arange(BOOT_PAGES))
    asked = ask_mmu(machine.cpu, pages, Meter(None), pages)
    return not disagree(asked.answers, spec.reading(pages).answers).any()
