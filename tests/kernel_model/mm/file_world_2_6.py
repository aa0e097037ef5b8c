# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine of 2.6 with files and processes that map them, and the choice between the releases.

What reclaim does to a frame here depends on who maps it: the prio tree of the file, the counts
in the frame. So the VMAs are those of the kernel's own calls, and its own faults bring the pages.
"""

from collections.abc import Iterator
from typing import Final

from kernel_model.arch_i386.page import PAGE_SIZE
from kernel_model.arch_i386.pgtable import PAGE_ACCESSED, PAGE_DIRTY, pte_pfn, pte_present
from kernel_model.config import MIB, KernelConfig
from kernel_model.file_memory import FileMemory
from kernel_model.kernel import Kernel
from kernel_model.mm.filemap.linux_2_6.cache import RadixPageCache
from kernel_model.mm.linux_2_6.shrink import ScanControl
from kernel_model.mm.linux_2_6.vmscan import Vmscan26
from kernel_model.mm.memory import Fault
from kernel_model.mm.mmzone import for_each_zone
from kernel_model.mm.radix_tree import PAGECACHE_TAG_DIRTY
from kernel_model.mm.shmem import ShmemFiles
from kernel_model.mm.shmem.linux_2_6 import ChargedShmemFiles
from kernel_model.structs.mm import VM_LOCKED, VM_RAND_READ, VM_SHARED, VM_WRITE
from kernel_model.structs.mman import MAP_FIXED, MAP_PRIVATE, MAP_SHARED, PROT_READ, PROT_WRITE
from tests.harness.made_to_reclaim import MADE_TO_RECLAIM
from tests.kernel_model.mm.file_world import SHARED, FileWorld, OutOfMemory, SigBus


class FileWorld26(FileWorld):
    """:class:`FileWorld` whose processes are the kernel's."""

    def _file_memory(self) -> FileMemory:
        return self.kernel.file_memory

    def _shmem_files(self) -> ShmemFiles:
        files = self.kernel.spaces.shmem
        assert isinstance(files, ChargedShmemFiles)
        return files

    # -- files ---------------------------------------------------------------------------------

    def _tagged(self, file: int, tag: int | None = None) -> list[int]:
        assert isinstance(self.cache, RadixPageCache)
        trees, tree = self.cache.trees, self.cache.tree(self.mapping(file))
        found = trees.items(tree) if tag is None else trees.items(tree, 0, tag)
        return [page for _, page in found]

    def pages(self, file: int, name: str = "") -> list[int]:
        """The cached pages of a file in its order. 2.6 has no lists of them."""
        assert not name
        return self._tagged(file)

    def must_be_written(self, file: int) -> list[int]:
        return self._tagged(file, PAGECACHE_TAG_DIRTY)

    def being_written(self, file: int) -> list[int]:
        writeback = self.image.constants.page_flags.writeback
        return [page for page in self.pages(file) if self.memmap.test(page, writeback)]

    # -- processes -----------------------------------------------------------------------------

    def _run(self, mm: int) -> None:
        task = self.image.current_task
        task.mm = task.active_mm = mm

    def new_mm(self) -> int:
        mm = self.kernel.fork.mm_alloc()
        assert mm
        self._run(mm)
        self.kernel.spaces.arch_pick_mmap_layout(mm)
        return mm

    def map(
        self, mm: int, file: int, start: int, count: int, pgoff: int = 0, flags: int = SHARED
    ) -> int:
        """Bits that ``madvise()`` and ``mlock()`` would set are set behind their backs."""
        self._run(mm)
        kind = MAP_SHARED if flags & VM_SHARED else MAP_PRIVATE
        prot = PROT_READ | (PROT_WRITE if flags & VM_WRITE else 0)
        size, spaces = count * PAGE_SIZE, self.kernel.spaces
        assert spaces.do_mmap_pgoff(file, start, size, prot, kind | MAP_FIXED, pgoff) == start
        vma = int(spaces.find_vma(mm, start))
        self.vma(vma).vm_flags |= flags & (VM_RAND_READ | VM_LOCKED)
        self.files.fput(file)
        self.vmas.append(vma)
        return vma

    def unmap(self, vma: int) -> None:
        view = self.vma(vma)
        start, size = int(view.vm_start), int(view.vm_end - view.vm_start)
        self.vmas.remove(vma)
        assert self.kernel.spaces.do_munmap(int(view.vm_mm), start, size) == 0

    def exit_mm(self, mm: int) -> None:
        self.vmas = [vma for vma in self.vmas if self.vma(vma).vm_mm != mm]
        self._run(mm)
        self.kernel.fork.mmput(mm)
        self._run(0)

    def find_vma(self, mm: int, address: int) -> int:
        return int(self.kernel.spaces.find_vma(mm, address))

    def ptes(self, pgd: int, start: int, end: int) -> Iterator[tuple[int, int]]:
        return iter(list(self.kernel.memory.tables.ptes(pgd, start, end)))

    def zap_page_range(self, mm: int, address: int, size: int) -> None:
        self.kernel.memory.zap_page_range(mm, address, size)

    # -- what processes do -----------------------------------------------------------------------

    def touch(self, vma: int, vaddr: int, *, write: bool = False) -> int:
        view, memory = self.vma(vma), self.kernel.memory
        mm, tables = int(view.vm_mm), memory.tables
        assert view.vm_flags & VM_WRITE or not write
        for _ in range(2):
            ptep = tables.pte_offset(tables.pgd(mm), vaddr)
            pte = tables.tables.entry(ptep) if ptep else 0
            if pte_present(pte):
                used = PAGE_ACCESSED | (PAGE_DIRTY if write else 0)
                tables.tables.set_pte(ptep, pte | used)
                return pte_pfn(pte) * PAGE_SIZE + vaddr % PAGE_SIZE
            fault = memory.handle_mm_fault(mm, vma, vaddr, write)
            if fault <= Fault.SIGBUS:
                raise SigBus if fault == Fault.SIGBUS else OutOfMemory
        raise AssertionError(f"{vaddr:#x} faults for ever")

    # -- memory is short -------------------------------------------------------------------------

    def unmap_all(self) -> None:
        MADE_TO_RECLAIM["2.6"].unmap_all(self.kernel)

    def shrink(self, wanted: int, gfp_mask: int, rounds: int) -> None:
        """A zone that had trouble lately gives what processes map, too."""
        vmscan, allocator = self.kernel.vmscan, self.kernel.allocator
        assert isinstance(vmscan, Vmscan26)
        for zone in [allocator.zone(each.vaddr) for each in for_each_zone(self.image)] * rounds:
            zone.view.prev_priority = 0
            control = ScanControl(0, gfp_mask, 0, kswapd=False)
            vmscan.shrinker.refill_inactive_zone(zone, control, wanted)
            vmscan.shrinker.shrink_cache(zone, control, wanted)

    def settle(self) -> None:
        MADE_TO_RECLAIM["2.6"].settle(self.kernel)

    def check_mapped(self, page: int, users: int) -> None:
        """``page->_mapcount``, or the length of its chain."""
        assert self.kernel.reverse_walk.mapcount(page) == users


WORLDS: Final[dict[str, type[FileWorld]]] = {"2.4": FileWorld, "2.6": FileWorld26}


def file_world(config: KernelConfig | None = None, kernel: Kernel | None = None) -> FileWorld:
    """The world of the release that ``config`` or ``kernel`` says."""
    config = kernel.config if kernel else config or KernelConfig(ram=8 * MIB, swap_pages=200)
    return WORLDS[config.release](config, kernel)
