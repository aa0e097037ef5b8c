# SPDX-License-Identifier: GPL-2.0-or-later
"""How a kernel is put together: which class is which part of it.

A :class:`Release` is asked for each part once, in the order in which the kernel boots; a part is
built from those that the :class:`~kernel_model.kernel.Kernel` has so far. Parts that are the same
in every release are built here, the others by :mod:`.linux_2_4` and :mod:`.linux_2_6`. Nothing
but this decides by the release: code that both share takes its numbers from
:mod:`.constants`.
"""

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, ClassVar, Protocol, TypeVar

from kernel_model.arch_i386.fault import PageFaults
from kernel_model.arch_i386.head import startup_32
from kernel_model.arch_i386.highmem import DirectMapping
from kernel_model.arch_i386.init import MemInit, PagingInit
from kernel_model.arch_i386.layout import Layout
from kernel_model.arch_i386.linux_2_6.sysenter import VsyscallPage
from kernel_model.arch_i386.pgalloc import PageTableAllocator, PageTables
from kernel_model.exec import Exec
from kernel_model.file_memory import FileMemory
from kernel_model.fork import Fork
from kernel_model.fs.file_table import Files
from kernel_model.fs.hugetlbfs import HugetlbFs
from kernel_model.image import KernelImage
from kernel_model.mm.address_spaces import AddressSpaces
from kernel_model.mm.bootmem import Bootmem
from kernel_model.mm.filemap import Filemap, FilePages, PageCache
from kernel_model.mm.memory import Memory
from kernel_model.mm.oom_kill import OomKiller
from kernel_model.mm.slab import Slab
from kernel_model.mm.swap_state import SwapCache
from kernel_model.mm.swapfile import SwapAreas
from kernel_model.mm.vmalloc import VmallocRange

if TYPE_CHECKING:
    from kernel_model.kernel import Kernel


Part = TypeVar("Part")


def made(kind: type[Part], part: object) -> Part:
    """A part of the kernel by the type that its release made it of."""
    assert isinstance(part, kind), f"a {type(part).__name__} where the release has {kind.__name__}"
    return part


class Reclaim(Protocol):
    """Reclaim of one machine, as far as releases have it in common."""

    def kswapd(self) -> None:
        """Let the daemons that were woken run."""


class Release(ABC):
    """One release. Its methods build a part each, and keep nothing."""

    fork_class: ClassVar[type[Fork]] = Fork
    exec_class: ClassVar[type[Exec]] = Exec
    page_faults_class: ClassVar[type[PageFaults]] = PageFaults
    oom_killer_class: ClassVar[type[OomKiller]] = OomKiller
    missing_steps: ClassVar[frozenset[str]] = frozenset()
    """The steps of the boot that this kernel does not have."""

    # -- memory ----------------------------------------------------------------------------------

    def tables(self, image: KernelImage) -> PageTables:
        """How entries of page tables are reached."""
        return PageTables(image)

    @abstractmethod
    def page_tables(self, kernel: "Kernel") -> PageTableAllocator:
        """Where page tables come from."""

    def startup(self, kernel: "Kernel") -> None:
        """What RAM holds when the first instruction of C runs: provisional page tables."""
        startup_32(kernel.ram, kernel.image.boot_tables)

    @abstractmethod
    def bootmem(self, image: KernelImage) -> Bootmem:
        """The boot memory allocator."""

    @abstractmethod
    def layout(self, image: KernelImage, bootmem: Bootmem) -> Layout:
        """Uniform memory or nodes, and the page allocator over it."""

    @abstractmethod
    def highmem(self, kernel: "Kernel") -> DirectMapping:
        """How the kernel reaches a frame."""

    def paging(self, kernel: "Kernel") -> PagingInit:
        """The kernel's own page tables."""
        return PagingInit(kernel.image, kernel.bootmem, kernel.tables, kernel.tlb, kernel.layout)

    def mem_init(self, kernel: "Kernel") -> None:
        """The end of boot memory."""
        MemInit(kernel.image, kernel.layout, kernel.allocator).mem_init()

    @abstractmethod
    def finish_zones(self, kernel: "Kernel") -> None:
        """What follows on the zones before boot memory ends."""

    @abstractmethod
    def do_initcalls(self, kernel: "Kernel") -> None:
        """What the subsystems do for themselves at the end of the boot."""

    def vsyscall(self, kernel: "Kernel") -> VsyscallPage | None:
        """The page through which programs enter the kernel."""
        return None

    # -- the kernel's own objects ------------------------------------------------------------------

    @abstractmethod
    def slab(self, kernel: "Kernel") -> Slab:
        """The slab allocator, with its general caches."""

    @abstractmethod
    def proc_caches_init(self, kernel: "Kernel") -> None:
        """The caches of the kernel's own objects."""

    @abstractmethod
    def vmalloc(self, kernel: "Kernel") -> VmallocRange:
        """Memory that is contiguous in virtual addresses only."""

    # -- reclaim -----------------------------------------------------------------------------------

    @abstractmethod
    def page_cache(self, kernel: "Kernel") -> PageCache:
        """The frames of files, found by file and offset."""

    @abstractmethod
    def swap_cache(self, kernel: "Kernel") -> SwapCache:
        """The frames that have a slot of swap."""

    @abstractmethod
    def swap_areas(self, kernel: "Kernel") -> SwapAreas:
        """Where pages go that nobody can do without."""

    @abstractmethod
    def reclaim(self, kernel: "Kernel") -> Reclaim:
        """Who frees memory when it is short: kswapd, and every allocation that waits."""

    # -- user space --------------------------------------------------------------------------------

    @abstractmethod
    def files(self, kernel: "Kernel") -> Files:
        """Open files and their inodes."""

    @abstractmethod
    def memory(self, kernel: "Kernel") -> Memory:
        """Faults, and the page tables of processes."""

    def file_memory(self, kernel: "Kernel") -> FileMemory:
        """Files mapped into memory, shared memory among them."""
        pages = FilePages(
            kernel.image,
            kernel.allocator,
            kernel.page_cache,
            kernel.page_locks,
            kernel.files,
            kernel.tlb,
        )
        return FileMemory(pages, self.filemap(kernel, pages), kernel.swap_cache)

    @abstractmethod
    def filemap(self, kernel: "Kernel", pages: FilePages) -> Filemap:
        """What is done with pages of files."""

    @abstractmethod
    def spaces(self, kernel: "Kernel") -> AddressSpaces:
        """Address spaces and their VMAs."""

    def hugetlbfs(self, kernel: "Kernel") -> HugetlbFs | None:
        """Files of huge pages, and the pool of those."""
        return None

    def fork(self, kernel: "Kernel") -> Fork:
        """New address spaces, empty and copied."""
        return self.fork_class(kernel.image, kernel.slab, kernel.spaces)

    def exec(self, kernel: "Kernel") -> Exec:
        """A new program in a process."""
        return self.exec_class(
            kernel.image,
            kernel.allocator,
            kernel.spaces,
            kernel.memory,
            kernel.fork,
            kernel.mmu_context,
        )
