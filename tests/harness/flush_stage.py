# SPDX-License-Identifier: GPL-2.0-or-later
"""What the tables of forgotten flushes do to a machine with processes."""

from harness.diff import diff
from harness.machine import GuestDied, Machine
from kernel_model.arch_i386.highmem import KmType
from kernel_model.arch_i386.page import PAGE_OFFSET
from kernel_model.kernel import Kernel, boot
from kernel_model.mm.filemap.sync import MS_SYNC
from kernel_model.mm.gfp import GFP_HIGHUSER
from kernel_model.structs.sched import CLONE_VM
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
