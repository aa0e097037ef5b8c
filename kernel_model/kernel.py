# SPDX-License-Identifier: GPL-2.0-or-later
"""One machine's kernel: what it is made of, and the order in which it boots.

Models linux-2.4.22 and linux-2.6.11 ``init/main.c: start_kernel()`` as far as memory goes. A new
:class:`Kernel` is a machine that has just been switched on: RAM with the provisional page
tables of ``startup_32``. ``start_kernel()`` boots it, on a CPU or on none. Which class is which
part is the :class:`~kernel_model.release.assembly.Release`'s to say.
"""

from collections.abc import Callable, Iterator
from typing import Final, cast

from kernel_model.arch_i386.extable import ExceptionTable
from kernel_model.arch_i386.fixmap import fixed_addresses, vmalloc_end, vmalloc_start
from kernel_model.arch_i386.init_task import init_task
from kernel_model.arch_i386.linux_2_6.sysenter import VsyscallPage
from kernel_model.arch_i386.mmu_context import MmuContext
from kernel_model.arch_i386.processor import (
    X86_CR4_OSFXSR,
    X86_CR4_OSXMMEXCPT,
    NoProcessor,
    Processor,
)
from kernel_model.arch_i386.regions import KernelMapping, kernel_mappings
from kernel_model.arch_i386.setup import register_memory
from kernel_model.arch_i386.tlb import Tlb
from kernel_model.config import KernelConfig
from kernel_model.errors import MmucheckError
from kernel_model.exit import Exit
from kernel_model.fs.hugetlbfs import HugetlbFs
from kernel_model.image import KernelImage
from kernel_model.ipc.shm import Shm, ShmFiles
from kernel_model.mm.lru import swap_setup
from kernel_model.mm.page_lock import PageLocks
from kernel_model.mm.rmap.interface import ReverseWalk
from kernel_model.mm.swap_out import SwapOut
from kernel_model.ptrace import ProcessMemory
from kernel_model.release.assembly import Release
from kernel_model.release.linux_2_4 import Linux24
from kernel_model.release.linux_2_6 import Linux26
from kernel_model.release.linux_2_6_nommu import Linux26NoMmu
from kernel_model.sched import Tasks

__all__ = ["Kernel", "boot"]

RELEASES: Final[dict[tuple[str, bool], Release]] = {
    ("2.4", True): Linux24(),
    ("2.6", True): Linux26(),
    ("2.6", False): Linux26NoMmu(),
}
"""By ``KernelConfig.release`` and ``KernelConfig.mmu``."""


class Kernel:
    """The memory manager of one machine. Everything it knows lies in ``ram``."""

    swapper: SwapOut
    """Who takes pages away from processes in 2.4, one process after another."""
    reverse_walk: ReverseWalk
    """Who finds all processes that map a frame, in 2.6."""

    def __init__(self, config: KernelConfig | None = None) -> None:
        self.config = config or KernelConfig()
        self.release = RELEASES[self.config.release, self.config.mmu]
        self.image = KernelImage(self.config)
        self.ram = self.image.ram
        self.statics = self.image.statics
        self.started = False
        self.vsyscall: VsyscallPage | None = None
        self.hugetlbfs: HugetlbFs | None = None
        self.tables = self.release.tables(self.image)
        self.bootmem = self.release.bootmem(self.image)
        self.layout = self.release.layout(self.image, self.bootmem)
        self.allocator = self.layout.allocator
        self.tlb = Tlb(self.image, NoProcessor())
        self.highmem = self.release.highmem(self)
        self.exception_table = ExceptionTable(self.ram)
        self.paging = self.release.paging(self)
        self.release.startup(self)
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
            ("finish_zones", lambda: self.release.finish_zones(self)),
            ("mem_init", self._mem_init),
            ("zap_low_mappings", self._zap_low_mappings),
            ("kmem_cache_init", self._kmem_cache_init),
            ("vmalloc_init", self._vmalloc_init),
            ("proc_caches_init", lambda: self.release.proc_caches_init(self)),
            ("page_cache_init", self._page_cache_init),
            ("kmem_cpucache_init", lambda: self.slab.kmem_cpucache_init()),
            ("check_bugs", self._check_bugs),
            ("sysenter_setup", self._sysenter_setup),
            ("do_initcalls", lambda: self.release.do_initcalls(self)),
        ]
        for name, step in steps:
            if name in self.release.missing_steps:
                continue
            self.bootmem.phase = name
            step()
            yield name
        self.started = True

    def _register_memory(self) -> None:
        if self.config.register_memory:
            register_memory(self.image, self.bootmem)

    def _mem_init(self) -> None:
        """Retire boot memory."""
        self.release.mem_init(self)
        if not self.config.smp:
            self.paging.zap_low_mappings()
        self.page_tables = self.release.page_tables(self)

    def _zap_low_mappings(self) -> None:
        """An SMP kernel zaps the low mappings when its other CPUs are up; no others start here by
        themselves, so that is now."""
        if self.config.smp:
            self.paging.zap_low_mappings()

    def _kmem_cache_init(self) -> None:
        """The slab allocator and its general caches."""
        self.slab = self.release.slab(self)

    def _vmalloc_init(self) -> None:
        """What both releases do at the first vmalloc()."""
        self.vmalloc = self.release.vmalloc(self)

    def _page_cache_init(self) -> None:
        """The page cache, swap, and with them the power to reclaim memory."""
        image, allocator, release = self.image, self.allocator, self.release
        self.page_cache = release.page_cache(self)
        self.page_locks = PageLocks(image, allocator)
        swap_setup(image)
        self.swap_areas = release.swap_areas(self)
        self.swap_cache = release.swap_cache(self)
        self._user_space_init()
        self.oom_killer = release.oom_killer_class(image)
        self.vmscan = release.reclaim(self)
        if self.config.swap_pages:
            self.swap_areas.swapon(self.config.swap_pages)

    def _user_space_init(self) -> None:
        """Address spaces, their pages, and who runs in them."""
        image, release, tlb = self.image, self.release, self.tlb
        self.files = release.files(self)
        self.memory = release.memory(self)
        self.file_memory = release.file_memory(self)
        self.hostfs = self.file_memory.hostfs
        self.spaces = release.spaces(self)
        self.hugetlbfs = release.hugetlbfs(self)
        self.shm = Shm(
            image,
            self.slab,
            self.files,
            self.spaces,
            cast(ShmFiles, self.spaces.shmem),  # what spaces() made
            self.hugetlbfs.hugetlb_zero_setup if self.hugetlbfs else None,
        )
        self.fork = release.fork(self)
        self.mmu_context = context = MmuContext(image, tlb)
        self.exec = release.exec(self)
        self.exit = Exit(image, self.fork, context)
        self.process_memory = ProcessMemory(image, self.allocator, self.memory)
        self.tasks = Tasks(image, self.allocator, context, self.fork.mmdrop)
        self.page_faults = release.page_faults_class(
            image,
            self.tables,
            tlb,
            self.spaces,
            self.memory.handle_mm_fault,
            self.exception_table,
            lambda: self.allocator.pressure.yield_cpu(),
        )

    def _check_bugs(self) -> None:
        """``check_fpu()``: let programs use the registers that FXSAVE saves."""
        if self.config.features.fxsr:
            self.paging.set_in_cr4(X86_CR4_OSFXSR | X86_CR4_OSXMMEXCPT)

    def _sysenter_setup(self) -> None:
        """The page through which programs enter the kernel, in a release that has one."""
        self.vsyscall = self.release.vsyscall(self)

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
        vsyscall = [self.vsyscall.mapping()] if self.vsyscall else []
        return [*booted, *vsyscall, *self.highmem.mappings()]


def boot(config: KernelConfig | None = None) -> Kernel:
    """A booted kernel with no CPU."""
    kernel = Kernel(config)
    kernel.start_kernel()
    return kernel
