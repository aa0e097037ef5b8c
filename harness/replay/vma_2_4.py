# SPDX-License-Identifier: GPL-2.0-or-later
"""Topics ``vma_*`` of 2.4: layouts and constants of address spaces, and their operations."""

from collections.abc import Mapping
from typing import Any, ClassVar

from harness.replay import vma
from harness.replay.layout import shape
from harness.replay.slab_2_4 import SlabMachine, build
from harness.replay.trace import Comparison, Trace
from harness.replay.vma import NUM_PHYSPAGES, VmaRun, common_constants, compare_layouts
from harness.replay.vma_files import RecordedFiles, RecordedPages, RecordedShmem
from kernel_model.arch_i386 import page
from kernel_model.arch_i386.pgtable import PROTECTION_MAP
from kernel_model.caches import proc_caches_init
from kernel_model.config import MIB, KernelConfig
from kernel_model.fork import Fork
from kernel_model.fs.file_table import Files
from kernel_model.image import SWAPPER_PG_DIR
from kernel_model.kernel import Kernel
from kernel_model.mm.mmap.linux_2_4 import AddressSpaces
from kernel_model.mm.slab.flags import SLAB_HWCACHE_ALIGN
from kernel_model.structs import Abi, Structs


def replay_structs(trace: Trace, comparison: Comparison) -> None:
    for recorded in trace.data["configs"]:
        name, config = recorded["config"], build(recorded["config"])
        structs = Structs.of(Abi.of(config))
        constants = common_constants(shape(config))
        compare_layouts(name, recorded["fields"], structs, constants, comparison)
        protections = [f"{bits:x}" for bits in PROTECTION_MAP]
        comparison.equal(f"{name} protection_map", recorded["protection_map"], protections)
        cachep = recorded["vm_area_cachep"]
        comparison.equal(f"{name} vm_area_cachep", cachep, _vm_area_cachep(config))


def _vm_area_cachep(config: KernelConfig) -> dict[str, int]:
    """What the slab allocator makes of the cache that VMAs come from."""
    machine = SlabMachine(config, 1)
    machine.slab.start(config.ram >> page.PAGE_SHIFT)
    slab, size = machine.slab, machine.kernel.image.structs.vm_area_struct.size
    cache = slab.objects.cache(
        slab.kmem_cache_create("vm_area_struct", size, 0, SLAB_HWCACHE_ALIGN)
    )
    return {"objsize": cache.objsize, "num": cache.num, "colour": int(cache.view.colour)}


# -- traces ---------------------------------------------------------------------------------------


class VmaMachine(vma.VmaMachine):
    """The VMA layer over page tables that stay empty, as the recordings had it."""

    sysctls: ClassVar[Mapping[str, str]] = {
        "overcommit": "sysctl_overcommit_memory",
        "swap": "nr_swap_pages",
        "pagecache": "page_cache_size",
        "max_map_count": "max_map_count",
        "PhysPages": "num_physpages",
        "nrpages_swapcache": "swapper_space.nrpages",
        "dentry_unused": "dentry_stat.nr_unused",
        "inode_unused": "inodes_stat.nr_unused",
    }

    def __init__(self) -> None:
        super().__init__()
        self.kernel = Kernel(KernelConfig(ram=64 * MIB))
        self.kernel.start_kernel(until="vmalloc_init")
        self.image, slab = self.kernel.image, self.kernel.slab
        image = self.image
        proc_caches_init(image, slab)
        self.pages = RecordedPages(page.phys_to_virt(SWAPPER_PG_DIR))
        self.events = self.pages.events
        files = Files(image, slab)
        self.files = RecordedFiles(image, files, self.events)
        shmem = RecordedShmem(image, files, self.files)
        self.spaces = AddressSpaces(image, slab, files, self.pages, lambda: self.free_pages, shmem)
        self.fork = Fork(image, slab, self.spaces)
        statics = self.kernel.statics
        statics.sysctl_overcommit_memory, statics.num_physpages = 1, NUM_PHYSPAGES
        statics.page_cache_size = statics.nr_swap_pages = 0
        self.limitless()
        cache = slab.find("vm_area_struct")
        assert cache is not None
        self._vm_area_cache = cache
        self.new_mm()

    def new_mm(self) -> None:
        task, mm = self.image.current_task, self.fork.mm_alloc()
        self.fork.add_to_mmlist(mm, self.image.symbol("init_mm"))
        task.mm = task.active_mm = mm

    def setup_stack(self, start: int, end: int) -> None:
        self.new_stack(start, end)

    def further_state(self) -> dict[str, Any]:
        cache = self._vm_area_cache
        return {"vma_objs": sum(cache.inuse(slab) for slab in cache.all_slabs())}


def replay_trace(trace: Trace, comparison: Comparison) -> None:
    VmaRun(trace, comparison, VmaMachine()).replay()
