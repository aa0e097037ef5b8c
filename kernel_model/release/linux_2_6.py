# SPDX-License-Identifier: GPL-2.0-or-later
"""Linux 2.6.11, put together from its parts.

Parts that 2.6 does not have yet are those of 2.4 where they work; the boot leaves
:attr:`Linux26.missing_steps` out.
"""

from typing import TYPE_CHECKING, ClassVar, cast

from kernel_model.arch_i386.highmem import DirectMapping
from kernel_model.arch_i386.layout import Layout
from kernel_model.arch_i386.linux_2_6.highmem import direct_or_high
from kernel_model.arch_i386.linux_2_6.init import MemInit26, PagingInit26
from kernel_model.arch_i386.linux_2_6.layout import UniformMemory26
from kernel_model.arch_i386.linux_2_6.sysenter import VsyscallPage
from kernel_model.caches import proc_caches_init
from kernel_model.fs.linux_2_6.file_table import TreeFiles
from kernel_model.image import KernelImage
from kernel_model.linux_2_6.caches import CACHES, PTE_CHAINS
from kernel_model.linux_2_6.exec import Exec26
from kernel_model.linux_2_6.fork import Fork26
from kernel_model.mm.bootmem import Bootmem
from kernel_model.mm.linux_2_6.bootmem import LastSuccessBootmem
from kernel_model.mm.linux_2_6.free_area import build_all_zonelists
from kernel_model.mm.linux_2_6.mmzone import MemMap26
from kernel_model.mm.linux_2_6.watermarks import init_per_zone_pages_min
from kernel_model.mm.memory.linux_2_6 import Memory26
from kernel_model.mm.mmap.linux_2_6 import AddressSpaces
from kernel_model.mm.slab import Slab
from kernel_model.mm.slab.linux_2_6 import Slab26
from kernel_model.mm.vmalloc import VmallocRange
from kernel_model.mm.vmalloc import linux_2_6 as vmalloc
from kernel_model.release.linux_2_4 import Linux24

if TYPE_CHECKING:
    from kernel_model.kernel import Kernel


class Linux26(Linux24):
    """Which class is which part of a 2.6 kernel."""

    missing_steps: ClassVar[frozenset[str]] = frozenset({"page_cache_init"})
    vmalloc_class: ClassVar[type[VmallocRange]] = vmalloc.Vmalloc

    def bootmem(self, image: KernelImage) -> Bootmem:
        return LastSuccessBootmem(image)

    def layout(self, image: KernelImage, bootmem: Bootmem) -> Layout:
        return UniformMemory26(image, bootmem)

    def highmem(self, kernel: "Kernel") -> DirectMapping:
        memmap = cast(MemMap26, kernel.allocator.memmap)  # what layout() made
        return direct_or_high(kernel.image, memmap, kernel.tables, kernel.tlb)

    def paging(self, kernel: "Kernel") -> PagingInit26:
        return PagingInit26(kernel.image, kernel.bootmem, kernel.tables, kernel.tlb, kernel.layout)

    def finish_zones(self, kernel: "Kernel") -> None:
        build_all_zonelists(kernel.image)

    def mem_init(self, kernel: "Kernel") -> None:
        MemInit26(kernel.image, kernel.layout, kernel.allocator).mem_init()

    def slab(self, kernel: "Kernel") -> Slab:
        allocator, online = kernel.allocator, kernel.config.nr_cpus
        slab = Slab26(kernel.image, allocator.memmap, allocator, online)
        slab.start(int(kernel.statics.num_physpages))
        return slab

    def proc_caches_init(self, kernel: "Kernel") -> None:
        chained = kernel.config.rmap == "pte_chain"
        proc_caches_init(kernel.image, kernel.slab, CACHES + (PTE_CHAINS if chained else ()))

    def do_initcalls(self, kernel: "Kernel") -> None:
        init_per_zone_pages_min(kernel.image, kernel.allocator.nr_free_buffer_pages())

    def vsyscall(self, kernel: "Kernel") -> VsyscallPage:
        return VsyscallPage(kernel.image, kernel.allocator, kernel.tables, kernel.tlb)

    # -- user space --------------------------------------------------------------------------------

    def files(self, kernel: "Kernel") -> TreeFiles:
        return TreeFiles(kernel.image, kernel.slab)

    def spaces(self, kernel: "Kernel") -> AddressSpaces:
        memory = cast(Memory26, kernel.memory)  # what memory() made
        free_pages = kernel.allocator.nr_free_pages
        spaces = AddressSpaces(kernel.image, kernel.slab, kernel.files, memory, free_pages)
        kernel.file_memory.shmem.vm_unacct_memory = spaces.limits.vm_unacct_memory
        return spaces

    def fork(self, kernel: "Kernel") -> Fork26:
        return Fork26(kernel.image, kernel.slab, kernel.spaces)

    def exec(self, kernel: "Kernel") -> Exec26:
        return Exec26(
            kernel.image,
            kernel.allocator,
            kernel.spaces,
            kernel.memory,
            kernel.fork,
            kernel.mmu_context,
        )
