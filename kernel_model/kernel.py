# SPDX-License-Identifier: GPL-2.0-or-later
"""One machine's kernel: what it is made of, and the order in which it boots.

Models linux-2.4.22 ``init/main.c: start_kernel()`` as far as memory goes. A new
:class:`Kernel` is a machine that has just been switched on: RAM with the provisional page
tables of ``startup_32``. ``start_kernel()`` boots it, on a CPU or on none.
"""

from collections.abc import Callable, Iterator

from kernel_model.arch_i386.extable import ExceptionTable
from kernel_model.arch_i386.fault import PageFaults
from kernel_model.arch_i386.fixmap import fixed_addresses, vmalloc_end, vmalloc_start
from kernel_model.arch_i386.head import startup_32
from kernel_model.arch_i386.highmem import direct_or_high
from kernel_model.arch_i386.init import MemInit, PagingInit
from kernel_model.arch_i386.init_task import init_task
from kernel_model.arch_i386.layout import Layout, NodeMemory, UniformMemory
from kernel_model.arch_i386.mmu_context import MmuContext
from kernel_model.arch_i386.page import PAGE_SHIFT, virt_to_phys
from kernel_model.arch_i386.pgalloc import PageTableAllocator, PageTables
from kernel_model.arch_i386.processor import (
    X86_CR4_OSFXSR,
    X86_CR4_OSXMMEXCPT,
    NoProcessor,
    Processor,
)
from kernel_model.arch_i386.regions import KernelMapping, kernel_mappings
from kernel_model.arch_i386.setup import register_memory
from kernel_model.arch_i386.tlb import Tlb
from kernel_model.caches import proc_caches_init
from kernel_model.config import KernelConfig
from kernel_model.errors import BadConfig, MmucheckError
from kernel_model.exec import Exec
from kernel_model.exit import Exit
from kernel_model.file_memory import FileMemory
from kernel_model.fork import Fork
from kernel_model.fs.file_table import Files
from kernel_model.image import SWAPPER_PG_DIR, KernelImage
from kernel_model.mm.address_spaces import AddressSpaces
from kernel_model.mm.bootmem import Bootmem
from kernel_model.mm.filemap import PageCache
from kernel_model.mm.gfp import GFP_KERNEL
from kernel_model.mm.lru import swap_setup
from kernel_model.mm.memory import Memory
from kernel_model.mm.oom_kill import OomKiller
from kernel_model.mm.page_lock import PageLocks
from kernel_model.mm.slab import Slab
from kernel_model.mm.swap_out import SwapOut
from kernel_model.mm.swap_state import SwapCache
from kernel_model.mm.swapfile import SwapAreas
from kernel_model.mm.vmalloc import Vmalloc
from kernel_model.mm.vmscan import Vmscan
from kernel_model.sched import Tasks

__all__ = ["Kernel", "boot"]


class Kernel:
    """The memory manager of one machine. Everything it knows lies in ``ram``."""

    def __init__(self, config: KernelConfig | None = None) -> None:
        self.config = config or KernelConfig()
        if self.config.release != "2.4":
            raise BadConfig(f"kernel {self.config.release} does not boot yet: choose 2.4")
        self.image = KernelImage(self.config)
        self.ram = self.image.ram
        self.statics = self.image.statics
        self.started = False
        self.tables = PageTables(self.image)
        self.bootmem = Bootmem(self.image)
        uniform = self.config.nodes == 1
        memory: type[UniformMemory] | type[NodeMemory] = UniformMemory if uniform else NodeMemory
        self.layout: Layout = memory(self.image, self.bootmem)
        self.allocator = self.layout.allocator
        self.tlb = Tlb(self.image, NoProcessor())
        self.highmem = direct_or_high(self.image, self.allocator.memmap, self.tables, self.tlb)
        self.exception_table = ExceptionTable(self.ram)
        self.paging = PagingInit(self.image, self.bootmem, self.tables, self.tlb, self.layout)
        startup_32(self.ram)
        init_task(self.image)

    @property
    def processor(self) -> Processor:
        """The CPU that the kernel runs on."""
        return self.tlb.processor

    @property
    def log(self) -> str:
        """The boot log, as ``dmesg`` would have it with its level marks."""
        return "".join(self.image.log)

    @property
    def vmalloc_range(self) -> tuple[int, int]:
        """``VMALLOC_START`` and ``VMALLOC_END``."""
        return vmalloc_start(self.statics.high_memory), vmalloc_end(self.config)

    def start_kernel(self, processor: Processor | None = None, *, until: str = "") -> None:
        """Boot on ``processor`` or on none, to the end or until the step of that name is done."""
        for step in self.boot_steps(processor):
            if step == until:
                return

    def boot_steps(self, processor: Processor | None = None) -> Iterator[str]:
        """Boot step by step; yields the name of each when it is done."""
        if self.bootmem.phase != "reset":
            raise MmucheckError("this kernel has been started: make a new Kernel for a new boot")
        if processor is not None:
            self.tlb.processor = processor
        steps: list[tuple[str, Callable[[], object]]] = [
            ("setup_memory", self.layout.setup_memory),
            ("paging_init", self.paging.paging_init),
            ("register_memory", self._register_memory),
            ("mem_init", self._mem_init),
            ("kmem_cache_init", self._kmem_cache_init),
            ("proc_caches_init", lambda: proc_caches_init(self.image, self.slab)),
            ("page_cache_init", self._page_cache_init),
            ("kmem_cpucache_init", lambda: self.slab.kmem_cpucache_init()),
            ("check_bugs", self._check_bugs),
        ]
        for name, step in steps:
            self.bootmem.phase = name
            step()
            yield name
        self.started = True

    def _register_memory(self) -> None:
        if self.config.register_memory:
            register_memory(self.image, self.bootmem)

    def _mem_init(self) -> None:
        """Retire boot memory. An SMP kernel zaps the low mappings when its other CPUs are up; no
        others start here by themselves, so that is now for every build."""
        MemInit(self.image, self.layout, self.allocator).mem_init()
        self.paging.zap_low_mappings()
        memmap = self.allocator.memmap
        self.page_tables = PageTableAllocator(
            self.image,
            self.tables,
            SWAPPER_PG_DIR,
            lambda purpose: self.allocator.get_free_page(GFP_KERNEL, purpose),
            lambda vaddr: self.allocator.free_page(memmap.page(virt_to_phys(vaddr) >> PAGE_SHIFT)),
        )

    def _kmem_cache_init(self) -> None:
        """The slab allocator, its general caches, and with it vmalloc."""
        online = self.config.nr_cpus
        self.slab = Slab(self.image, self.allocator.memmap, self.allocator, online)
        self.slab.kmem_cache_init()
        self.slab.kmem_cache_sizes_init(int(self.statics.num_physpages))
        self.vmalloc = Vmalloc(
            self.image,
            self.allocator,
            self.page_tables,
            self.tlb,
            self.slab.kmalloc,
            self.slab.kfree,
        )

    def _page_cache_init(self) -> None:
        """The page cache, swap, and with them the power to reclaim memory."""
        image, allocator = self.image, self.allocator
        self.page_cache = PageCache(image, allocator)
        self.page_cache.page_cache_init(int(self.statics.num_mappedpages))
        self.page_locks = PageLocks(image, allocator)
        swap_setup(image)
        self.swap_areas = SwapAreas(image, allocator)
        swap = SwapCache(image, allocator, self.page_cache, self.swap_areas, self.tlb)
        self.swap_cache = swap
        self._user_space_init()
        find_vma = self.spaces.find_vma
        self.swapper = SwapOut(image, allocator, self.memory.tables, swap, self.tlb, find_vma)
        self.oom_killer = OomKiller(image)
        self.vmscan = Vmscan(
            image,
            allocator,
            swap,
            self.swapper.swap_out,
            self.oom_killer.out_of_memory,
            self.slab.kmem_cache_reap,
        )
        allocator.pressure = self.vmscan
        if self.config.swap_pages:
            self.swap_areas.swapon(self.config.swap_pages)

    def _user_space_init(self) -> None:
        """Address spaces, their pages, and who runs in them."""
        image, allocator, tlb = self.image, self.allocator, self.tlb
        self.files = Files(image, self.slab)
        self.memory = memory = Memory(
            image,
            allocator,
            self.page_tables,
            self.swap_cache,
            self.highmem,
            tlb,
            lambda mm, address: self.spaces.find_extend_vma(mm, address),
        )
        self.file_memory = FileMemory(
            image,
            allocator,
            self.page_locks,
            self.swap_cache,
            self.files,
            tlb,
            memory.tables,
            memory.zap_page_range,
            lambda mm, address: self.spaces.find_vma(mm, address),
        )
        self.hostfs = self.file_memory.hostfs
        free_pages = allocator.nr_free_pages
        self.spaces = spaces = AddressSpaces(image, self.slab, self.files, memory, free_pages)
        self.fork = Fork(image, self.slab, spaces)
        self.mmu_context = context = MmuContext(image, tlb)
        self.exec = Exec(image, allocator, spaces, memory, self.fork, context)
        self.exit = Exit(image, self.fork, context)
        self.tasks = Tasks(image, allocator, context, self.fork.mmdrop)
        self.page_faults = PageFaults(
            image,
            self.tables,
            tlb,
            spaces,
            memory.handle_mm_fault,
            self.exception_table,
            lambda: allocator.pressure.yield_cpu(),
        )

    def _check_bugs(self) -> None:
        """``check_fpu()``: let programs use the registers that FXSAVE saves."""
        if self.config.features.fxsr:
            self.paging.set_in_cr4(X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT)

    def prepare_secondary(self) -> None:
        """Before a CPU joins: it turns paging on at a low address, so low memory is mapped there
        again, until :meth:`attach`."""
        self.paging.map_low()

    def attach(self, processor: Processor) -> None:
        """Run on ``processor`` from now on: a CPU that has joined, with swapper_pg_dir loaded."""
        self.tlb.processor = processor
        self.paging.zap_low_mappings()

    def kernel_mappings(self) -> list[KernelMapping]:
        """What the kernel means its part of the address space to be, from its records."""
        booted = kernel_mappings(self.image, fixed_addresses(self.config))
        return [*booted, *self.highmem.mappings()]


def boot(config: KernelConfig | None = None) -> Kernel:
    """A booted kernel with no CPU."""
    kernel = Kernel(config)
    kernel.start_kernel()
    return kernel
