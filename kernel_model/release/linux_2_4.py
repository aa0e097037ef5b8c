# SPDX-License-Identifier: GPL-2.0-or-later
"""Linux 2.4.22, put together from its parts."""

from typing import TYPE_CHECKING, ClassVar

from kernel_model.arch_i386.highmem import DirectMapping, direct_or_high
from kernel_model.arch_i386.layout import Layout, NodeMemory, UniformMemory
from kernel_model.arch_i386.page import PAGE_SHIFT, virt_to_phys
from kernel_model.arch_i386.pgalloc import PageTableAllocator, QuicklistAllocator
from kernel_model.caches import proc_caches_init
from kernel_model.fs.file_table import Files
from kernel_model.image import SWAPPER_PG_DIR, KernelImage
from kernel_model.mm.address_spaces import AddressSpaces
from kernel_model.mm.bootmem import Bootmem
from kernel_model.mm.filemap import Filemap, FilePages, PageCache
from kernel_model.mm.filemap.mapped_by import SharedLists
from kernel_model.mm.linux_2_4.page_alloc import PageAllocator24
from kernel_model.mm.memory import Memory
from kernel_model.mm.memory.linux_2_4 import Memory24
from kernel_model.mm.mmap import linux_2_4 as vma_layer
from kernel_model.mm.slab import Slab
from kernel_model.mm.slab.linux_2_4 import Slab24
from kernel_model.mm.swap_out import SwapOut
from kernel_model.mm.swap_state import SwapCache
from kernel_model.mm.swapfile import SwapAreas
from kernel_model.mm.vmalloc import Vmalloc, VmallocRange
from kernel_model.mm.vmscan import Vmscan
from kernel_model.release.assembly import Reclaim, Release, made

if TYPE_CHECKING:
    from kernel_model.kernel import Kernel


class Linux24(Release):
    """Which class is which part of a 2.4 kernel."""

    vmalloc_class: ClassVar[type[VmallocRange]] = Vmalloc

    def bootmem(self, image: KernelImage) -> Bootmem:
        return Bootmem(image)

    def layout(self, image: KernelImage, bootmem: Bootmem) -> Layout:
        if image.config.nodes == 1:
            return UniformMemory(image, bootmem)
        return NodeMemory(image, bootmem)

    def highmem(self, kernel: "Kernel") -> DirectMapping:
        return direct_or_high(kernel.image, kernel.allocator.memmap, kernel.tables, kernel.tlb)

    def page_tables(self, kernel: "Kernel") -> PageTableAllocator:
        allocator, gfp = kernel.allocator, kernel.image.constants.gfp.kernel
        memmap = allocator.memmap
        return QuicklistAllocator(
            kernel.image,
            kernel.tables,
            SWAPPER_PG_DIR,
            lambda purpose: allocator.get_free_page(gfp, purpose),
            lambda vaddr: allocator.free_page(memmap.page(virt_to_phys(vaddr) >> PAGE_SHIFT)),
        )

    def finish_zones(self, kernel: "Kernel") -> None:
        """Zones are complete when ``paging_init()`` is."""

    def do_initcalls(self, kernel: "Kernel") -> None:
        """Nothing of memory waits for them."""

    def slab(self, kernel: "Kernel") -> Slab:
        allocator, online = kernel.allocator, kernel.config.nr_cpus
        slab = Slab24(kernel.image, allocator.memmap, allocator, online)
        slab.start(int(kernel.statics.num_physpages))
        return slab

    def proc_caches_init(self, kernel: "Kernel") -> None:
        proc_caches_init(kernel.image, kernel.slab)

    def vmalloc(self, kernel: "Kernel") -> VmallocRange:
        return self.vmalloc_class(
            kernel.image,
            kernel.allocator,
            kernel.page_tables,
            kernel.tlb,
            kernel.slab.kmalloc,
            kernel.slab.kfree,
        )

    def page_cache(self, kernel: "Kernel") -> PageCache:
        cache = PageCache(kernel.image, kernel.allocator)
        cache.page_cache_init(int(kernel.statics.num_mappedpages))
        return cache

    def swap_cache(self, kernel: "Kernel") -> SwapCache:
        return SwapCache(
            kernel.image, kernel.allocator, kernel.page_cache, kernel.swap_areas, kernel.tlb
        )

    def swap_areas(self, kernel: "Kernel") -> SwapAreas:
        return SwapAreas(kernel.image, kernel.allocator)

    def files(self, kernel: "Kernel") -> Files:
        return Files(kernel.image, kernel.slab)

    def filemap(self, kernel: "Kernel", pages: FilePages) -> Filemap:
        zap = kernel.memory.zap_page_range
        return Filemap(
            pages,
            kernel.memory.tables,
            zap,
            lambda mm, address: kernel.spaces.find_vma(mm, address),
            SharedLists(kernel.image, zap),
        )

    def spaces(self, kernel: "Kernel") -> AddressSpaces:
        return vma_layer.AddressSpaces(
            kernel.image,
            kernel.slab,
            kernel.files,
            kernel.memory,
            kernel.allocator.nr_free_pages,
        )

    def reclaim(self, kernel: "Kernel") -> Reclaim:
        kernel.swapper = swapper = SwapOut(
            kernel.image,
            kernel.allocator,
            kernel.memory.tables,
            kernel.swap_cache,
            kernel.tlb,
            kernel.spaces.find_vma,
        )
        allocator = made(PageAllocator24, kernel.allocator)
        allocator.pressure = vmscan = Vmscan(
            kernel.image,
            allocator,
            kernel.swap_cache,
            swapper.swap_out,
            kernel.oom_killer.out_of_memory,
            kernel.slab.kmem_cache_reap,
        )
        return vmscan

    def memory(self, kernel: "Kernel") -> Memory:
        return Memory24(
            kernel.image,
            kernel.allocator,
            kernel.page_tables,
            kernel.swap_cache,
            kernel.highmem,
            kernel.tlb,
            lambda mm, address: kernel.spaces.find_extend_vma(mm, address),
        )
