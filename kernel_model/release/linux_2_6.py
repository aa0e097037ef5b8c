# SPDX-License-Identifier: GPL-2.0-or-later
"""Linux 2.6.11, put together from its parts.

Its reverse map is object-based, or that of 2.6.0, a chain of PTEs for each frame
(``KernelConfig.rmap``).
"""

from typing import TYPE_CHECKING, ClassVar

from kernel_model.arch_i386.highmem import DirectMapping
from kernel_model.arch_i386.layout import Layout
from kernel_model.arch_i386.linux_2_6.fault import PageFaults26
from kernel_model.arch_i386.linux_2_6.highmem import direct_or_high
from kernel_model.arch_i386.linux_2_6.highpte import page_tables
from kernel_model.arch_i386.linux_2_6.init import MemInit26, PagingInit26
from kernel_model.arch_i386.linux_2_6.layout import NodeMemory26, UniformMemory26
from kernel_model.arch_i386.linux_2_6.pgalloc import PageTableAllocator26, pgtable_caches
from kernel_model.arch_i386.linux_2_6.sysenter import VsyscallPage
from kernel_model.arch_i386.pgalloc import PageTableAllocator, PageTables
from kernel_model.caches import proc_caches_init
from kernel_model.file_memory import FileMemory
from kernel_model.fs.hugetlbfs import HugetlbFs
from kernel_model.fs.linux_2_6.file_table import TreeFiles
from kernel_model.image import KernelImage
from kernel_model.linux_2_6.caches import CACHES, PTE_CHAINS
from kernel_model.linux_2_6.exec import Exec26
from kernel_model.linux_2_6.fork import Fork26
from kernel_model.mm.bootmem import Bootmem
from kernel_model.mm.filemap import FilePages
from kernel_model.mm.filemap.linux_2_6.cache import RadixPageCache
from kernel_model.mm.filemap.linux_2_6.filemap import Filemap26
from kernel_model.mm.filemap.linux_2_6.mapped_by import SharedTrees
from kernel_model.mm.filemap.linux_2_6.nopage import shmem_populate
from kernel_model.mm.hugetlb.pool import HugePagePool
from kernel_model.mm.linux_2_6.bootmem import LastSuccessBootmem
from kernel_model.mm.linux_2_6.free_area import build_all_zonelists
from kernel_model.mm.linux_2_6.mmzone import MemMap26
from kernel_model.mm.linux_2_6.numa import NodePageAllocator26, map_cpus_to_nodes
from kernel_model.mm.linux_2_6.oom_kill import OomKiller26
from kernel_model.mm.linux_2_6.page_alloc import PageAllocator26
from kernel_model.mm.linux_2_6.shrink import Shrinker
from kernel_model.mm.linux_2_6.swap_state import SwapCache26
from kernel_model.mm.linux_2_6.vmscan import Vmscan26
from kernel_model.mm.linux_2_6.watermarks import init_per_zone_pages_min
from kernel_model.mm.memory.linux_2_6 import Memory26
from kernel_model.mm.mmap.linux_2_6 import AddressSpaces
from kernel_model.mm.prio_tree import VmaPrioTree
from kernel_model.mm.rmap.chain_walk import ChainWalk
from kernel_model.mm.rmap.interface import ReverseMap, ReverseWalk
from kernel_model.mm.rmap.object_based import ObjectReverseMap
from kernel_model.mm.rmap.object_walk import ObjectWalk
from kernel_model.mm.rmap.one_pte import PteUnmapper
from kernel_model.mm.rmap.pte_chain import PteChains
from kernel_model.mm.slab import Slab
from kernel_model.mm.slab.linux_2_6 import Slab26
from kernel_model.mm.slab.linux_2_6.constants import INITIAL_JIFFIES
from kernel_model.mm.slab.linux_2_6.nodes import NodeSlab26
from kernel_model.mm.swapfile import SwapAreas
from kernel_model.mm.swapops import file_ptes
from kernel_model.mm.vmalloc import VmallocRange
from kernel_model.mm.vmalloc import linux_2_6 as vmalloc
from kernel_model.release.assembly import made
from kernel_model.release.linux_2_4 import Linux24

if TYPE_CHECKING:
    from kernel_model.kernel import Kernel


class Linux26(Linux24):
    """Which class is which part of a 2.6 kernel."""

    vmalloc_class: ClassVar[type[VmallocRange]] = vmalloc.Vmalloc
    fork_class: ClassVar[type[Fork26]] = Fork26
    exec_class: ClassVar[type[Exec26]] = Exec26
    page_faults_class: ClassVar[type[PageFaults26]] = PageFaults26
    oom_killer_class: ClassVar[type[OomKiller26]] = OomKiller26

    def bootmem(self, image: KernelImage) -> Bootmem:
        return LastSuccessBootmem(image)

    def layout(self, image: KernelImage, bootmem: Bootmem) -> Layout:
        uniform = image.config.nodes == 1
        return (UniformMemory26 if uniform else NodeMemory26)(image, bootmem)

    def highmem(self, kernel: "Kernel") -> DirectMapping:
        memmap = made(MemMap26, kernel.allocator.memmap)
        return direct_or_high(kernel.image, memmap, kernel.tables, kernel.tlb)

    def tables(self, image: KernelImage) -> PageTables:
        return page_tables(image)

    def page_tables(self, kernel: "Kernel") -> PageTableAllocator:
        return PageTableAllocator26(
            kernel.image, kernel.tables, kernel.allocator, lambda: kernel.slab
        )

    def paging(self, kernel: "Kernel") -> PagingInit26:
        return PagingInit26(kernel.image, kernel.bootmem, kernel.tables, kernel.tlb, kernel.layout)

    def finish_zones(self, kernel: "Kernel") -> None:
        build_all_zonelists(kernel.image)
        if kernel.config.nodes > 1:
            map_cpus_to_nodes(kernel.image)

    def mem_init(self, kernel: "Kernel") -> None:
        MemInit26(kernel.image, kernel.layout, kernel.allocator).mem_init()

    def slab(self, kernel: "Kernel") -> Slab:
        allocator, online = kernel.allocator, kernel.config.nr_cpus
        kernel.statics.jiffies = INITIAL_JIFFIES
        if isinstance(allocator, NodePageAllocator26):
            slab: Slab26 = NodeSlab26(kernel.image, allocator, online)
        else:
            slab = Slab26(kernel.image, allocator.memmap, allocator, online)
        slab.start(int(kernel.statics.num_physpages))
        if isinstance(allocator, NodePageAllocator26):
            allocator.numa_policy_init()
        return slab

    def proc_caches_init(self, kernel: "Kernel") -> None:
        chained = kernel.config.rmap == "pte_chain"
        caches = pgtable_caches(kernel.image) + CACHES + (PTE_CHAINS if chained else ())
        proc_caches_init(kernel.image, kernel.slab, caches)

    def do_initcalls(self, kernel: "Kernel") -> None:
        init_per_zone_pages_min(kernel.image, kernel.allocator.nr_free_buffer_pages())
        kernel.statics.max_huge_pages = kernel.config.nr_hugepages
        if kernel.hugetlbfs:
            kernel.hugetlbfs.pool.hugetlb_init()
        if isinstance(kernel.allocator, NodePageAllocator26):
            kernel.allocator.numa_default_policy()

    # -- reclaim -----------------------------------------------------------------------------------

    def page_cache(self, kernel: "Kernel") -> RadixPageCache:
        cache = RadixPageCache(kernel.image, kernel.allocator, kernel.slab)
        cache.page_cache_init(0)
        return cache

    def swap_areas(self, kernel: "Kernel") -> SwapAreas:
        return SwapAreas(kernel.image, kernel.allocator, file_ptes(kernel.config.pae))

    def swap_cache(self, kernel: "Kernel") -> SwapCache26:
        cache = made(RadixPageCache, kernel.page_cache)
        return SwapCache26(kernel.image, _allocator(kernel), cache, kernel.swap_areas, kernel.tlb)

    def reclaim(self, kernel: "Kernel") -> Vmscan26:
        allocator, swap = _allocator(kernel), made(SwapCache26, kernel.swap_cache)
        kernel.reverse_walk = walk = self._reverse_walk(kernel)
        shrinker = Shrinker(kernel.image, allocator, swap, walk)
        allocator.pressure = vmscan = Vmscan26(
            kernel.image, allocator, shrinker, kernel.oom_killer.out_of_memory
        )
        return vmscan

    def _reverse_walk(self, kernel: "Kernel") -> ReverseWalk:
        image, allocator = kernel.image, kernel.allocator
        rmap = made(Memory26, kernel.memory).rmap
        unmapper = PteUnmapper(
            image,
            allocator,
            kernel.memory.tables,
            kernel.swap_areas,
            file_ptes(kernel.config.pae),
            kernel.tlb,
            rmap,
            kernel.page_cache.set_page_dirty,
        )
        if isinstance(rmap, PteChains):
            return ChainWalk(image, allocator, rmap, unmapper, kernel.spaces.find_vma)
        objects, spaces = made(ObjectReverseMap, rmap), made(AddressSpaces, kernel.spaces)
        trees = VmaPrioTree(image.ram)
        return ObjectWalk(image, allocator, objects, spaces.anon_vmas, trees, unmapper)

    # -- user space --------------------------------------------------------------------------------

    def files(self, kernel: "Kernel") -> TreeFiles:
        return TreeFiles(kernel.image, kernel.slab)

    def memory(self, kernel: "Kernel") -> Memory26:
        return Memory26(
            kernel.image,
            _allocator(kernel),
            kernel.page_tables,
            kernel.swap_cache,
            kernel.highmem,
            kernel.tlb,
            lambda mm, address: kernel.spaces.find_extend_vma(mm, address),
            self._reverse_map(kernel),
            kernel.page_cache.set_page_dirty,
        )

    def _reverse_map(self, kernel: "Kernel") -> ReverseMap:
        image, memmap = kernel.image, kernel.allocator.memmap
        if kernel.config.rmap == "pte_chain":
            return PteChains(image, memmap, kernel.slab, kernel.tables)

        def anon_vma_prepare(vma: int) -> int:
            return made(AddressSpaces, kernel.spaces).anon_vmas.anon_vma_prepare(vma)

        return ObjectReverseMap(image, memmap, anon_vma_prepare)

    def filemap(self, kernel: "Kernel", pages: FilePages) -> Filemap26:
        memory = made(Memory26, kernel.memory)
        return Filemap26(
            pages,
            memory.tables,
            memory.zap_page_range,
            lambda mm, address: kernel.spaces.find_vma(mm, address),
            SharedTrees(kernel.image, memory.zap_page_range),
            memory.file_pages,
            lambda page: kernel.reverse_walk.mapped(page),
        )

    def file_memory(self, kernel: "Kernel") -> FileMemory:
        memory, install = super().file_memory(kernel), made(Memory26, kernel.memory).file_pages
        populate = shmem_populate(memory.pages, memory.shmem, install)
        kernel.statics.shmem_vm_ops.populate = kernel.image.functions.address(populate)
        return memory

    def spaces(self, kernel: "Kernel") -> AddressSpaces:
        memory = made(Memory26, kernel.memory)
        free_pages = kernel.allocator.nr_free_pages
        spaces = AddressSpaces(kernel.image, kernel.slab, kernel.files, memory, free_pages)
        kernel.file_memory.shmem.vm_unacct_memory = spaces.limits.vm_unacct_memory
        return spaces

    def hugetlbfs(self, kernel: "Kernel") -> HugetlbFs:
        return HugetlbFs(
            kernel.image,
            kernel.slab,
            kernel.allocator,
            HugePagePool(kernel.image, _allocator(kernel), kernel.tlb),
            made(RadixPageCache, kernel.page_cache),
            made(TreeFiles, kernel.files),
            made(Memory26, kernel.memory).huge,
            made(AddressSpaces, kernel.spaces),
        )

    def vsyscall(self, kernel: "Kernel") -> VsyscallPage:
        return VsyscallPage(kernel.image, kernel.allocator, kernel.tables, kernel.tlb)


def _allocator(kernel: "Kernel") -> PageAllocator26:
    """The page allocator of 2.6."""
    return made(PageAllocator26, kernel.allocator)
