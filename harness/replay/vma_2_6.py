# SPDX-License-Identifier: GPL-2.0-or-later
"""Topics ``vma_*`` of 2.6: layouts and constants of address spaces, and their operations.

VMAs and the heads of their ``anon_vma`` lists came from slab caches, whose pages, page tables and
the pages of processes came from :class:`RecordedFrames`. Everything else that a machine has, files
and ``mm_struct``s among it, is taken from :class:`ObjectHeap`, where no recording looks.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from harness.replay import vma
from harness.replay.slab_2_6 import SlabMachine, build
from harness.replay.trace import Comparison, Trace
from harness.replay.vma import NUM_PHYSPAGES, VmaRun, common_constants, compare_layouts
from harness.replay.vma_files import ChargedShmem, RecordedTreeFiles
from kernel_model.arch_i386.init_task import init_task
from kernel_model.arch_i386.page import PAGE_OFFSET, PAGE_SHIFT, phys_to_virt
from kernel_model.arch_i386.pgtable import PROTECTION_MAP
from kernel_model.config import MIB
from kernel_model.fs.linux_2_6.file_table import TreeFiles
from kernel_model.image import SWAPPER_PG_DIR
from kernel_model.linux_2_6.fork import Fork26
from kernel_model.mm.mmap.linux_2_6 import AddressSpaces
from kernel_model.mm.mmap.linux_2_6.limits import OVERCOMMIT_ALWAYS
from kernel_model.mm.mmap.linux_2_6.pages import PageOperations
from kernel_model.mm.rmap.anon_vma import anon_vma_ctor
from kernel_model.mm.rmap.interface import SwapResult
from kernel_model.mm.slab.linux_2_6.constants import SLAB_DESTROY_BY_RCU, SLAB_PANIC
from kernel_model.release.constants import LINUX_2_6
from kernel_model.structs import Abi, Structs
from kernel_model.structs.linux_2_6 import mm as mm_2_6
from kernel_model.structs.sched import CAP_IPC_LOCK, CAP_SYS_ADMIN, RLIMIT_STACK

RAM: Final = 160 * MIB
MOVED: Final = 64 * MIB
"""Bytes between a recorded frame and the model's."""
FIRST_FRAME: Final = 520
"""What the recorded kernel had taken before the first operation lies below it."""
_HEAP: Final = 8 * MIB
_START_FRAME: Final = 16 * MIB >> PAGE_SHIFT
"""Where frames come from until a recording begins."""
_OBJECT_BYTES: Final = 1024
FAULT_RESULTS: Final = {
    "VM_FAULT_OOM": 0xFFFFFFFF,
    "VM_FAULT_SIGBUS": 0,
    "VM_FAULT_MINOR": 1,
    "VM_FAULT_MAJOR": 2,
}


def replay_structs(trace: Trace, comparison: Comparison) -> None:
    data, config = trace.data, build(trace.data["config"])
    constants = common_constants() | vars(mm_2_6) | FAULT_RESULTS
    constants |= {f"SWAP_{result.name}": int(result) for result in SwapResult}
    flags = LINUX_2_6.page_flags
    constants |= {f"PG_{name}": getattr(flags, name) for name in flags.__slots__}
    structs = Structs.of(Abi.of(config))
    compare_layouts(trace.config, data["fields"], structs, constants, comparison)
    protections = [f"{bits:x}" for bits in PROTECTION_MAP]
    comparison.equal("protection_map", data["protection_map"], protections)
    slab = SlabMachine(config, RecordedFrames()).slab
    slab.start(config.ram >> PAGE_SHIFT)
    size = structs.vm_area_struct.size
    cache = slab.objects.cache(slab.kmem_cache_create("vm_area_struct", size, 0, SLAB_PANIC))
    ours = {"objsize": cache.objsize, "num": cache.num, "colour": int(cache.view.colour)}
    comparison.equal("vm_area_cachep", data["vm_area_cachep"], ours)


# -- what stood below the recorded VMA layer ------------------------------------------------------


class RecordedFrames:
    """Frames from a counter, and from a list of freed blocks for each order."""

    def __init__(self) -> None:
        self.next = _START_FRAME - (MOVED >> PAGE_SHIFT)
        """The first frame that was never handed out."""
        self._free: defaultdict[int, list[int]] = defaultdict(list)
        self._events: list[list[Any]] = []

    def begin(self, events: list[list[Any]]) -> None:
        """The recording begins, and notes in ``events``; what was taken so far is no part of it."""
        self.next = FIRST_FRAME
        self._events = events

    def get_free_pages(self, gfp_mask: int, order: int, purpose: str) -> int:
        if self._free[order]:
            pfn = self._free[order].pop()
        else:
            pfn = -(-self.next >> order) << order
            self.next = pfn + (1 << order)
        self._events.append(["gp", gfp_mask, order, pfn])
        return PAGE_OFFSET + MOVED + (pfn << PAGE_SHIFT)

    def free_pages_at(self, vaddr: int, order: int) -> None:
        pfn = vaddr - PAGE_OFFSET - MOVED >> PAGE_SHIFT
        self._events.append(["fp", order, pfn])
        self._free[order].append(pfn)


class ObjectHeap:
    """Memory for objects of any cache, each as large as the largest."""

    def __init__(self) -> None:
        self.next = phys_to_virt(_HEAP)
        self._free: list[int] = []

    def kmalloc(self, size: int, flags: int) -> int:
        if self._free:
            return self._free.pop()
        self.next += _OBJECT_BYTES
        return self.next - _OBJECT_BYTES

    def kfree(self, objp: int) -> None:
        self._free.append(objp)

    def kmem_cache_alloc(self, cachep: int, flags: int) -> int:
        return self.kmalloc(_OBJECT_BYTES, flags)

    def kmem_cache_free(self, cachep: int, objp: int) -> None:
        self.kfree(objp)


class EmptyTables:
    """Page tables in which nothing is ever mapped."""

    def __init__(self, events: list[list[Any]]) -> None:
        self.events = events

    def make_pages_present(self, start: int, end: int) -> int:
        self.events.append(["mpp", start, end])
        return 0

    def zap_page_range(self, mm: int, address: int, size: int) -> None:
        """Nothing is mapped."""

    def move_page_tables(self, mm: int, new_addr: int, old_addr: int, length: int) -> int:
        return 0

    def change_protection(self, start: int, end: int, newprot: int, newflags: int) -> None:
        """Nothing is mapped."""

    def copy_page_range(self, dst: int, src: int, vma: int) -> int:
        return 0

    def pgd_alloc(self, mm: int) -> int:
        return phys_to_virt(SWAPPER_PG_DIR)

    def pgd_free(self, pgd: int) -> None:
        """It is nobody's own."""

    def flush_tlb_mm(self, mm: int) -> None:
        """There is no TLB."""

    def flush_tlb_pgtables(self, mm: int, start: int, end: int) -> None:
        """There is no TLB."""

    def flush_cache_mm(self, mm: int) -> None:
        """There is no cache."""

    def tlb_gather_mmu(self, mm: int, *, full_mm_flush: bool) -> "EmptyTables":
        return self

    def unmap_vmas(self, vmas: Sequence[int], start: int, end: int) -> None:
        """Nothing is mapped."""

    def clear_page_range(self, first: int, last: int) -> None:
        """There is no page table."""

    def tlb_finish_mmu(self, start: int, end: int) -> None:
        """There is no TLB."""


# -- traces ---------------------------------------------------------------------------------------


class VmaMachine(vma.VmaMachine):
    """The VMA layer over page tables that stay empty."""

    sysctls: ClassVar[Mapping[str, str]] = {
        "overcommit": "sysctl_overcommit_memory",
        "overcommit_ratio": "sysctl_overcommit_ratio",
        "swap": "nr_swap_pages",
        "total_swap": "total_swap_pages",
        "totalram": "totalram_pages",
        "pagecache": "nr_pagecache",
        "slab_reclaim": "slab_reclaim_pages",
        "max_map_count": "max_map_count",
        "PhysPages": "num_physpages",
    }
    heap_type: ClassVar[type[ObjectHeap]] = ObjectHeap
    spaces: AddressSpaces

    def __init__(self, *, notes_frames: bool = False) -> None:
        super().__init__()
        self.frames = RecordedFrames()
        self.events = []
        machine = SlabMachine(build("up", RAM), self.frames)
        self.image, self.slab = machine.image, machine.slab
        self._create_caches()
        init_task(self.image)
        self.heap = heap = self.heap_type()
        files = TreeFiles(self.image, heap)
        self.files = self._recorded_files(files)
        self.shmem = self._shmem(files)
        self.spaces = AddressSpaces(
            self.image,
            self.slab,
            files,
            self._page_operations(),
            lambda: self.free_pages,
            self.shmem,
            self._remap_file_pages,
        )
        self.fork = Fork26(self.image, heap, self.spaces)
        statics = self.image.statics
        statics.sysctl_overcommit_memory = OVERCOMMIT_ALWAYS
        statics.sysctl_overcommit_ratio = DEFAULT_OVERCOMMIT_RATIO
        self.limitless()
        self.new_mm()
        self.frames.begin(self.events if notes_frames else [])

    def _create_caches(self) -> None:
        """The slab allocator, and the two caches that the recordings had."""
        slab, structs, statics = self.slab, self.image.structs, self.image.statics
        slab.start(NUM_PHYSPAGES)
        statics.vm_area_cachep = slab.kmem_cache_create(
            "vm_area_struct", structs.vm_area_struct.size, 0, SLAB_PANIC
        )
        flags = SLAB_DESTROY_BY_RCU | SLAB_PANIC
        size, construct = structs.anon_vma.size, anon_vma_ctor(self.image)
        statics.anon_vma_cachep = slab.kmem_cache_create("anon_vma", size, 0, flags, construct)

    def _recorded_files(self, files: TreeFiles) -> RecordedTreeFiles:
        return RecordedTreeFiles(self.image, files, self.events)

    def _shmem(self, files: TreeFiles) -> ChargedShmem:
        return ChargedShmem(self.image, files, self.files, lambda: self.spaces.limits)

    def _page_operations(self) -> PageOperations:
        return EmptyTables(self.events)

    def _remap_file_pages(self, start: int, size: int, prot: int, pgoff: int, flags: int) -> int:
        """The recordings only noted that it was called."""
        self.events.append(["remap_file_pages", start, size])
        return 0

    def new_mm(self) -> None:
        task, mm = self.image.current_task, self.fork.mm_alloc()
        task.mm = task.active_mm = mm
        self.spaces.arch_pick_mmap_layout(mm)
        space = self.spaces.areas.mm(mm)
        space.free_area_cache = space.mmap_base

    def setup_stack(self, start: int, end: int) -> None:
        pages = end - start >> PAGE_SHIFT
        self.spaces.vm_enough_memory(pages)
        self.new_stack(start, end)
        self.spaces.areas.mm(self.mm).stack_vm = pages

    def sysctl(self, name: str, value: int) -> None:
        if name not in _CAPABILITIES:
            super().sysctl(name, value)
            return
        task, bit = self.image.current_task, 1 << _CAPABILITIES[name]
        task.cap_effective = task.cap_effective & ~bit | bit * bool(value)

    # -- as traces have it ---------------------------------------------------------------------

    def summary(self) -> list[Any]:
        space = self.spaces.areas.mm(self.mm)
        committed = int(self.image.statics.vm_committed_space)
        return [*super().summary(), space.free_area_cache, committed]

    def row(self, vma: int) -> list[Any]:
        anon_vma = self.spaces.areas.vma(vma).anon_vma
        return [*super().row(vma), offset(anon_vma)]

    def further_state(self) -> dict[str, Any]:
        space = self.spaces.areas.mm(self.mm)
        return {
            "committed": int(self.image.statics.vm_committed_space),
            **{name: getattr(space, name) for name in _COUNTERS},
        }


def offset(vaddr: int) -> int:
    """An address as traces have it: an offset from 0xC0000000, 0 for NULL."""
    return vaddr - PAGE_OFFSET - MOVED if vaddr else 0


_CAPABILITIES: Final = {"cap_ipc_lock": CAP_IPC_LOCK, "cap_admin": CAP_SYS_ADMIN}
_COUNTERS: Final = (
    *("free_area_cache", "mmap_base", "stack_vm", "exec_vm", "shared_vm", "reserved_vm"),
    *("rss", "anon_rss", "nr_ptes"),
)
DEFAULT_OVERCOMMIT_RATIO: Final = 50
STACK_LIMIT: Final = 8 * MIB


def choose_layout(machine: VmaMachine, trace: Trace) -> None:
    """Let the first address space be laid out as the recorded one was."""
    if trace.data["meta"]["topdown"]:
        machine.image.current_task.rlim[RLIMIT_STACK].rlim_cur = STACK_LIMIT
        machine.new_mm()
        machine.limitless()


def replay_trace(trace: Trace, comparison: Comparison) -> None:
    machine = VmaMachine()
    choose_layout(machine, trace)
    VmaRun(trace, comparison, machine).replay()
