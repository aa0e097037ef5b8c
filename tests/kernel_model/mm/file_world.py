# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine with files and processes that map them, for tests of the page cache and shmem.

The processes stand in for ``mm/memory.c`` and the CPU: real page tables and VMAs in RAM, PTEs
set, dirtied and zapped as the rules of the i386 say.
"""

from collections.abc import Iterator
from typing import Any

from harness.monitors.frames import FrameLedger
from kernel_model.arch_i386.page import PAGE_OFFSET, PAGE_SIZE
from kernel_model.arch_i386.pgtable import (
    PAGE_ACCESSED,
    PAGE_DIRTY,
    PAGE_READONLY,
    PAGE_SHARED,
    mk_pte,
    pmd_none,
    pte_dirty,
    pte_pfn,
    pte_present,
)
from kernel_model.config import MIB, KernelConfig
from kernel_model.events import Rights
from kernel_model.file_memory import FileMemory
from kernel_model.fs.file_table import Files
from kernel_model.kernel import Kernel
from kernel_model.mm.buddy import Buddy
from kernel_model.mm.filemap import Filemap, FilePages
from kernel_model.mm.filemap.mapped_by import SharedLists
from kernel_model.mm.filemap.nopage import NOPAGE_OOM, NOPAGE_SIGBUS
from kernel_model.mm.mmzone import for_each_zone
from kernel_model.mm.shmem import ShmemFiles
from kernel_model.mm.slab.flags import SLAB_KERNEL
from kernel_model.structs.fs import FMODE_READ, FMODE_WRITE
from kernel_model.structs.mm import VM_MAYSHARE, VM_MAYWRITE, VM_READ, VM_SHARED, VM_WRITE

SHARED = VM_READ | VM_WRITE | VM_SHARED | VM_MAYSHARE | VM_MAYWRITE
PRIVATE = VM_READ | VM_MAYWRITE


class Disk:
    """A backing store in a ``bytearray``. ``broken`` pages can be neither read nor written."""

    def __init__(self, content: bytes = b"") -> None:
        self.content = bytearray(content)
        self.broken: set[int] = set()
        self.calls: list[tuple[str, int]] = []

    @property
    def size(self) -> int:
        return len(self.content)

    def _call(self, name: str, index: int) -> None:
        self.calls.append((name, index))
        if index in self.broken:
            raise OSError(5, "broken")

    def read_page(self, index: int) -> bytes:
        self._call("read", index)
        return bytes(self.content[index * PAGE_SIZE : (index + 1) * PAGE_SIZE]).ljust(4096, b"\0")

    def write_page(self, index: int, data: bytes) -> None:
        self._call("write", index)
        inside = self.size - index * PAGE_SIZE
        assert inside > 0
        assert len(data) == PAGE_SIZE
        self.content[index * PAGE_SIZE : (index + 1) * PAGE_SIZE] = data[:inside]

    def truncate(self, size: int) -> None:
        self.content[size:] = bytes(max(size - self.size, 0))


class SigBus(Exception):
    """A page that its file does not have."""


class OutOfMemory(Exception):
    """No frame for a page."""


class FileWorld:
    """A booted machine; ``spaces`` are the ``mm_struct`` of its processes."""

    def __init__(self, config: KernelConfig | None = None, kernel: Kernel | None = None) -> None:
        """``kernel`` is one that runs already; else one of ``config`` is booted, on no CPU."""
        started = kernel
        self.kernel = kernel = kernel or Kernel(config or KernelConfig(ram=8 * MIB, swap_pages=200))
        self.ledger = FrameLedger.of(kernel.image.events) or FrameLedger()
        if started is None:
            self.ledger.listen(kernel.image.events)
            kernel.start_kernel()
        self.image, self.ram, self.structs = kernel.image, kernel.ram, kernel.image.structs
        self.memmap, self.cache = kernel.allocator.memmap, kernel.page_cache
        self.vmas: list[int] = []
        self.turn = 0
        self.memory = self._file_memory()
        self.files, self.filemap = self.memory.files, self.memory.filemap
        self.hostfs, self.shmem = self.memory.hostfs, self.memory.shmem
        self.shmem_files = self._shmem_files()

    def _file_memory(self) -> FileMemory:
        """Operations on files that reach the pages of these processes."""
        kernel = self.kernel
        pages = FilePages(
            kernel.image,
            kernel.allocator,
            kernel.page_cache,
            kernel.page_locks,
            Files(kernel.image, kernel.slab),
            kernel.tlb,
        )
        mapped_by = SharedLists(kernel.image, self.zap_page_range)
        filemap = Filemap(pages, self, self.zap_page_range, self.find_vma, mapped_by)
        kernel.vmscan._swap_out = self.swap_out
        return FileMemory(pages, filemap, kernel.swap_cache)

    def _shmem_files(self) -> ShmemFiles:
        return ShmemFiles(self.image, self.memory.files, lambda pages: True)

    # -- files ---------------------------------------------------------------------------------

    def open(self, disk: Disk, name: str = "file", flags: int = 0) -> int:
        file = self.hostfs.open(disk, name, FMODE_READ | FMODE_WRITE, flags)
        assert file
        return file

    def mapping(self, file: int) -> int:
        return self.memory.pages.mapping_of(file)

    def pages(self, file: int, name: str = "") -> list[int]:
        """The cached pages of a file, on one list or on all, first to last."""
        names = [name] if name else ["clean_pages", "dirty_pages", "locked_pages"]
        offsets = [self.structs.address_space.offset(each) for each in names]
        lists = self.memory.pages.lists
        return [page for at in offsets for page in lists.entries(self.mapping(file) + at)]

    def must_be_written(self, file: int) -> list[int]:
        """The cached pages whose bytes are newer than the file's, as its mapping keeps them."""
        return self.pages(file, "dirty_pages")

    def being_written(self, file: int) -> list[int]:
        """Those whose writing was begun, and waited for by nobody so far."""
        return self.pages(file, "locked_pages")

    def frame(self, page: int) -> bytes:
        return self.ram.read(self.memmap.pfn(page) * PAGE_SIZE, PAGE_SIZE)

    def active(self, page: int) -> bool:
        """Whether reclaim takes a page for one that is in use."""
        flags = self.image.constants.page_flags
        return self.memmap.test(page, flags.lru) and self.memmap.test(page, flags.active)

    # -- processes -----------------------------------------------------------------------------

    def new_mm(self) -> int:
        """A process; it is the current one."""
        mm = self.kernel.slab.kmem_cache_alloc(int(self.kernel.statics.mm_cachep), SLAB_KERNEL)
        self.ram.fill(mm - PAGE_OFFSET, self.structs.mm_struct.size)
        pgd = self.kernel.page_tables.pgd_alloc()
        assert mm
        assert pgd
        self.mm(mm).pgd = pgd + PAGE_OFFSET
        self.image.current_task.mm = mm
        return mm

    def mm(self, mm: int) -> Any:
        return self.image.at(self.structs.mm_struct, mm)

    def vma(self, vma: int) -> Any:
        return self.image.at(self.structs.vm_area_struct, vma)

    def map(
        self, mm: int, file: int, start: int, count: int, pgoff: int = 0, flags: int = SHARED
    ) -> int:
        """A VMA of ``count`` pages, as ``do_mmap_pgoff()`` makes and links it; uses up ``file``."""
        vma = self.kernel.slab.kmem_cache_alloc(
            int(self.kernel.statics.vm_area_cachep), SLAB_KERNEL
        )
        assert vma
        self.ram.fill(vma - PAGE_OFFSET, self.structs.vm_area_struct.size)
        view = self.vma(vma)
        view.vm_mm, view.vm_start, view.vm_end = mm, start, start + count * PAGE_SIZE
        view.vm_flags, view.vm_pgoff, view.vm_file = flags, pgoff, file
        assert self.image.functions.call(self.files.operation(file, "mmap"), file, vma) == 0
        space = self.memory.pages.space(self.mapping(file))
        head = "i_mmap_shared" if flags & VM_SHARED else "i_mmap"
        view.vm_next_share = getattr(space, head)
        setattr(space, head, vma)
        self.vmas.append(vma)
        return vma

    def unmap(self, vma: int) -> None:
        """``munmap()`` of a whole VMA."""
        view = self.vma(vma)
        self.zap_page_range(int(view.vm_mm), int(view.vm_start), int(view.vm_end - view.vm_start))
        space = self.memory.pages.space(self.mapping(int(view.vm_file)))
        for head in ("i_mmap", "i_mmap_shared"):
            chain = list(self.sharers(int(getattr(space, head))))
            if vma in chain:
                chain.remove(vma)
                setattr(space, head, chain[0] if chain else 0)
                for one, following in zip(chain, [*chain, 0][1:], strict=True):
                    self.vma(one).vm_next_share = following
        self.files.fput(int(view.vm_file))
        self.vmas.remove(vma)
        self.kernel.slab.kmem_cache_free(int(self.kernel.statics.vm_area_cachep), vma)

    def sharers(self, vma: int) -> Iterator[int]:
        while vma:
            yield vma
            vma = int(self.vma(vma).vm_next_share)

    def exit_mm(self, mm: int) -> None:
        for vma in [vma for vma in self.vmas if self.vma(vma).vm_mm == mm]:
            self.unmap(vma)
        pgd, shape = self.pgd(mm), self.kernel.tables.shape
        for vaddr in range(0, PAGE_OFFSET, shape.pmd_size):
            pmdp = self.kernel.tables.pmd_offset(self.kernel.tables.pgd_offset(pgd, vaddr), vaddr)
            if not pmd_none(self.kernel.tables.entry(pmdp)):
                self.kernel.page_tables.pte_free(pmdp)
        self.kernel.page_tables.pgd_free(pgd)
        self.kernel.slab.kmem_cache_free(int(self.kernel.statics.mm_cachep), mm)
        self.image.current_task.mm = 0

    # -- what the file side asks of them ---------------------------------------------------------

    def find_vma(self, mm: int, address: int) -> int:
        mine = [vma for vma in self.vmas if self.vma(vma).vm_mm == mm]
        behind = [vma for vma in mine if self.vma(vma).vm_end > address]
        return min(behind, key=lambda vma: int(self.vma(vma).vm_start), default=0)

    def pgd(self, mm: int) -> int:
        return int(self.mm(mm).pgd) - PAGE_OFFSET

    def ptes(self, pgd: int, start: int, end: int) -> Iterator[tuple[int, int]]:
        tables = self.kernel.tables
        pmdp = tables.pmd_offset(tables.pgd_offset(pgd, start), start)
        assert start // tables.shape.pmd_size == (end - 1) // tables.shape.pmd_size
        if pmd_none(tables.entry(pmdp)):
            return
        first = tables.pte_offset(pmdp, start)
        for number, vaddr in enumerate(range(start, end, PAGE_SIZE)):
            ptep = first + number * tables.shape.entry_bytes
            if self.ram.words[ptep >> 2]:
                yield vaddr, ptep

    def zap_page_range(self, mm: int, address: int, size: int) -> None:
        pgd = self.pgd(mm)
        for vaddr, ptep in self.ptes(pgd, address, address + size):
            pte = self.kernel.tables.ptep_get_and_clear(ptep)
            self.image.events.page_unmapped(pgd, vaddr)
            page = self.memmap.page(pte_pfn(pte))
            if pte_dirty(pte):
                self.cache.set_page_dirty(page)
            self.kernel.swap_cache.free_page_and_swap_cache(page)
        self.kernel.tlb.flush_tlb_range(pgd, address, address + size)

    # -- what processes do -----------------------------------------------------------------------

    def touch(self, vma: int, vaddr: int, *, write: bool = False) -> int:
        """Access a page. Returns the physical address that ``vaddr`` means."""
        view, tables = self.vma(vma), self.kernel.tables
        pgd, page_start = self.pgd(int(view.vm_mm)), vaddr & -PAGE_SIZE
        pmdp = tables.pmd_offset(tables.pgd_offset(pgd, vaddr), vaddr)
        ptep = self.kernel.page_tables.pte_alloc(pmdp, vaddr)
        if not ptep:
            raise OutOfMemory
        pte = tables.entry(ptep)
        shared = bool(view.vm_flags & VM_SHARED)
        assert shared or not write
        if not pte_present(pte):
            operations = self.image.at(self.structs.vm_operations_struct, view.vm_ops)
            page = self.image.functions.call(int(operations.nopage), vma, page_start)
            if page in (NOPAGE_SIGBUS, NOPAGE_OOM):
                raise SigBus if page == NOPAGE_SIGBUS else OutOfMemory
            pfn = self.memmap.pfn(page)
            self.image.events.page_mapped(pgd, page_start, pfn, Rights(write=shared, user=True))
            pte = mk_pte(pfn, PAGE_SHARED if shared else PAGE_READONLY)
        tables.set_pte(ptep, pte | PAGE_ACCESSED | (PAGE_DIRTY if write else 0))
        return pte_pfn(pte) * PAGE_SIZE + vaddr % PAGE_SIZE

    def load(self, vma: int, vaddr: int, length: int) -> bytes:
        """Bytes of one page, as a process reads them."""
        return self.ram.read(self.touch(vma, vaddr), length)

    def store(self, vma: int, vaddr: int, data: bytes) -> None:
        """A process writes bytes into one page."""
        self.ram.write(self.touch(vma, vaddr, write=True), data)

    def swap_out_vma(self, vma: int) -> int:
        """What ``swap_out()`` does to pages of files: the PTEs go, their dirt stays."""
        view = self.vma(vma)
        start, end = int(view.vm_start), int(view.vm_end)
        mapped = sum(1 for _ in self.ptes(self.pgd(int(view.vm_mm)), start, end))
        self.zap_page_range(int(view.vm_mm), start, end - start)
        return mapped

    def unmap_all(self) -> None:
        """Take every page away from the processes; its frame stays."""
        for vma in self.vmas:
            self.swap_out_vma(vma)

    def shrink(self, wanted: int, gfp_mask: int, rounds: int) -> None:
        """Let reclaim look at ``wanted`` frames of each zone, so many times."""
        vmscan, allocator = self.kernel.vmscan, self.kernel.allocator
        for zone in [allocator.zone(each.vaddr) for each in for_each_zone(self.image)] * rounds:
            vmscan.refill_inactive(wanted)
            vmscan.shrink_cache(wanted, zone, gfp_mask, 1)

    def settle(self) -> None:
        """Nobody keeps what is free."""

    def check_mapped(self, page: int, users: int) -> None:
        """What the kernel knows of who maps a frame, when ``users`` PTEs do: nothing in 2.4."""

    def swap_out(self, classzone: Buddy) -> bool:
        """Reclaim asks: unmap the pages of one VMA, going round."""
        for _ in self.vmas:
            self.turn += 1
            if self.swap_out_vma(self.vmas[self.turn % len(self.vmas)]):
                return True
        return False
