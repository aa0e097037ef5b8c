# SPDX-License-Identifier: GPL-2.0-or-later
"""Traces of 2.6 in which pages come and go: the VMA layer over real page tables.

Frames came from the recording's own counter (:class:`~harness.replay.vma_2_6.RecordedFrames`), each
with its ``struct page``; the pages of files from a page cache that read them at the first touch, as
if every file had no end. Directories, like other objects, came from where no recording looks.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

from harness.replay import vma_2_6
from harness.replay.trace import Comparison, Trace
from harness.replay.vma import VmaRun
from harness.replay.vma_2_6 import (
    MOVED,
    ObjectHeap,
    RecordedFrames,
    VmaMachine,
    choose_layout,
    offset,
)
from harness.replay.vma_files import ChargedShmem, RecordedTreeFiles
from kernel_model.arch_i386.highmem import direct_or_high
from kernel_model.arch_i386.page import (
    PAGE_MASK,
    PAGE_OFFSET,
    PAGE_SHIFT,
    PAGE_SIZE,
    phys_to_virt,
    virt_to_phys,
)
from kernel_model.arch_i386.pgalloc import PageTables, QuicklistAllocator
from kernel_model.arch_i386.pgtable import PAGE_PRESENT, PAGE_PROTNONE
from kernel_model.arch_i386.processor import NoProcessor
from kernel_model.arch_i386.tlb import Tlb
from kernel_model.config import MIB
from kernel_model.fs.linux_2_6.file_table import TreeFiles
from kernel_model.image import SWAPPER_PG_DIR, KernelImage
from kernel_model.lists import Lists
from kernel_model.mm.filemap.linux_2_6.cache import RadixPageCache
from kernel_model.mm.linux_2_6.mmzone import MemMap26
from kernel_model.mm.linux_2_6.page_alloc import PageAllocator26
from kernel_model.mm.linux_2_6.swap_state import SwapCache26
from kernel_model.mm.memory.fault import ZERO_PFN
from kernel_model.mm.memory.linux_2_6 import Memory26
from kernel_model.mm.memory.linux_2_6.fault import NOPAGE_MAJOR
from kernel_model.mm.mmap.areas import VmArea
from kernel_model.mm.mmap.linux_2_6.pages import PageOperations
from kernel_model.mm.rmap.object_based import ObjectReverseMap
from kernel_model.mm.swapfile import SwapAreas
from kernel_model.mm.swapops import file_ptes
from kernel_model.structs import CType
from kernel_model.structs.mm import VM_EXEC, VM_GROWSDOWN, VM_READ, VM_WRITE

ANON, FILE = 1, 2
"""Kinds of pages; 0 is none of both."""
NO_VMA, NO_ACCESS = -10, -11
"""What a fault came to that never reached the page level."""
_DIRECTORIES: Final = 48 * MIB
_SWAP_PAGES: Final = 4096
_MOVED_PFN: Final = MOVED >> PAGE_SHIFT
_RECORDED_FLAGS: Final = 0x00FFFFFF
"""Of ``page->flags``; the zone stands above."""


class RecordedAllocator(PageAllocator26):
    """The page allocator's interface to :class:`RecordedFrames`."""

    def __init__(self, image: KernelImage, frames: RecordedFrames) -> None:
        super().__init__(image)
        self._frames_source = frames
        zone = image.symbol("contig_page_data")
        image.statics.zone_table[0] = zone
        for name in ("active_list", "inactive_list"):
            Lists(image.ram).init(zone + image.structs.zone_t.offset(name))
        image.statics.max_mapnr = image.ram.frames
        rows = self.memmap.rows(self.memmap.page(0), image.ram.frames)
        rows[:, self.memmap.count_word] = 0xFFFFFFFF
        rows[:, self.memmap.mapped_word] = self.memmap.unmapped
        # What no allocator ever touched is zero.
        zero = rows[ZERO_PFN]
        zero[self.memmap.count_word] = zero[self.memmap.mapped_word] = 0
        zero[self.memmap.flags_word] = 1 << image.constants.page_flags.reserved

    def alloc_pages(self, gfp_mask: int, order: int, purpose: str = "kernel") -> int:
        vaddr = self._frames_source.get_free_pages(gfp_mask, order, purpose)
        page = self.memmap.page(virt_to_phys(vaddr) >> PAGE_SHIFT)
        self._prep_new_page(page)
        if gfp_mask & self._gfp.zero:
            self._prep_zero_page(page, order, gfp_mask)
        return page

    def free_hot_cold_page(self, page: int, cold: int) -> None:
        self._forget_object(page)
        self._free_pages_check(page)
        self._frames_source.free_pages_at(phys_to_virt(self.memmap.pfn(page) << PAGE_SHIFT), 0)


class KeepingHeap(ObjectHeap):
    """Memory that is never given out twice: pages outlive their files, and still point to them."""

    def kfree(self, objp: int) -> None:
        """It stays as it is."""


class EndlessFiles(RecordedTreeFiles):
    """The recorded files, each of whose pages can be had."""

    def __init__(
        self, image: KernelImage, files: TreeFiles, events: list[list[Any]], pages: "FilePages"
    ) -> None:
        self._nopage = pages.nopage
        image.statics.shmem_vm_ops.nopage = image.functions.address(self._nopage)
        super().__init__(image, files, events)

    def _operations(self, kind: CType, **functions: Any) -> int:
        if kind is self._image.structs.vm_operations_struct:
            functions["nopage"] = self._nopage
        return super()._operations(kind, **functions)

    def _mapped_shmem(self, file: int, vma: int) -> int:
        shmem_vm_ops = self._image.symbol("shmem_vm_ops")
        self._image.at(self._image.structs.vm_area_struct, vma).vm_ops = shmem_vm_ops
        return 0


class EndlessShmem(ChargedShmem):
    """Shared anonymous mappings whose pages can be had."""

    def shmem_zero_setup(self, vma: int) -> int:
        error = super().shmem_zero_setup(vma)
        area = self._image.at(self._image.structs.vm_area_struct, vma)
        area.vm_ops = 0 if error else self._image.symbol("shmem_vm_ops")
        return error


class FilePages:
    """The recording's page cache: ``nopage`` of every file."""

    def __init__(
        self, image: KernelImage, allocator: PageAllocator26, number_of: Callable[[int], int]
    ) -> None:
        self._image = image
        self._allocator = allocator
        self._number_of = number_of
        self._uptodate = image.constants.page_flags.uptodate
        self._cached: dict[tuple[int, int], int] = {}
        self.numbers: dict[int, int] = {}
        """The number of the file whose pages an address space holds, or held."""

    def nopage(self, vma: int, vaddr: int) -> int:
        area = self._image.at(self._image.structs.vm_area_struct, vma)
        file = self._image.at(self._image.structs.file, area.vm_file)
        index = (vaddr - area.vm_start >> PAGE_SHIFT) + area.vm_pgoff
        self.numbers[int(file.f_mapping)] = self._number_of(int(area.vm_file))
        page = self._cached.get((int(file.f_mapping), index))
        if page:
            self._allocator.get_page(page)
            return page
        return self._read(int(file.f_mapping), index) + NOPAGE_MAJOR

    def _read(self, mapping: int, index: int) -> int:
        allocator, memmap = self._allocator, self._allocator.memmap
        page = allocator.alloc_page(self._image.constants.gfp.highuser, "page cache")
        memmap.words[memmap.word(page, memmap.mapping_word)] = mapping
        memmap.words[memmap.word(page, memmap.index_word)] = index
        memmap.set_bit(page, self._uptodate)
        allocator.lru.add(page)
        allocator.get_page(page)
        self._cached[mapping, index] = page
        return page


class FaultMachine(VmaMachine):
    """The VMA layer over page tables, frames and a swap cache.

    That a range was to be made present was noted; only some recordings then did so.
    """

    heap_type = KeepingHeap

    def __init__(self, *, makes_present: bool) -> None:
        self._makes_present = makes_present
        super().__init__(notes_frames=True)

    def _recorded_files(self, files: TreeFiles) -> RecordedTreeFiles:
        self.allocator = RecordedAllocator(self.image, self.frames)
        self.memmap: MemMap26 = self.allocator.memmap
        self.file_pages = FilePages(
            self.image, self.allocator, lambda file: self.files.numbers[file]
        )
        return EndlessFiles(self.image, files, self.events, self.file_pages)

    def _shmem(self, files: TreeFiles) -> ChargedShmem:
        return EndlessShmem(self.image, files, self.files, lambda: self.spaces.limits)

    def _page_operations(self) -> PageOperations:
        image, allocator = self.image, self.allocator
        self.tlb, tables = Tlb(image, NoProcessor()), PageTables(image)
        directories = iter(range(phys_to_virt(_DIRECTORIES), phys_to_virt(MOVED), PAGE_SIZE))
        gfp = image.constants.gfp
        table_mask = gfp.kernel | gfp.repeat | gfp.zero

        def get_free_page(purpose: str) -> int:
            if purpose != "page table":
                return next(directories)
            return allocator.get_free_pages(table_mask, 0, purpose)

        page_tables = QuicklistAllocator(
            image, tables, SWAPPER_PG_DIR, get_free_page, lambda vaddr: None
        )
        Lists(image.ram).init(image.symbol("init_mm") + image.structs.mm_struct.offset("mmlist"))
        self.cache = RadixPageCache(image, allocator, self.heap)
        self.cache.page_cache_init(0)
        self.areas = SwapAreas(image, allocator, file_ptes(pae=False))
        self.areas.swapon(_SWAP_PAGES)
        self.swap = SwapCache26(image, allocator, self.cache, self.areas, self.tlb)
        self.rmap = ObjectReverseMap(
            image, self.memmap, lambda vma: self.spaces.anon_vmas.anon_vma_prepare(vma)
        )
        self.memory = Memory26(
            image,
            allocator,
            page_tables,
            self.swap,
            direct_or_high(image, self.memmap, tables, self.tlb),
            self.tlb,
            lambda mm, address: self.spaces.find_extend_vma(mm, address),
            self.rmap,
            self.set_page_dirty,
        )
        self._real_make_pages_present = self.memory.make_pages_present
        self.memory.make_pages_present = self._make_pages_present
        return self.memory

    def _make_pages_present(self, start: int, end: int) -> int:
        self.events.append(["mpp", start, end])
        return self._real_make_pages_present(start, end) if self._makes_present else 0

    def set_page_dirty(self, page: int) -> None:
        """``set_page_dirty()``, without a tree to mark it in."""
        self.memmap.set_bit(page, self.image.constants.page_flags.dirty)

    # -- operations ----------------------------------------------------------------------------

    def fault(self, address: int, write: int) -> int:
        """As ``do_page_fault()`` asks for a page; or why it does not."""
        mm = self.mm
        vma = self.spaces.find_vma(mm, address)
        area = self.spaces.areas.vma(vma) if vma else None
        if area is None or (area.vm_start > address and not self._grows(area, vma, address)):
            return NO_VMA
        if not area.vm_flags & (VM_WRITE if write else VM_READ | VM_EXEC):
            return NO_ACCESS
        return int(self.memory.handle_mm_fault(mm, vma, address, bool(write)))

    def _grows(self, area: VmArea, vma: int, address: int) -> bool:
        """Whether the VMA is a stack, and has grown down to the address."""
        grows = area.vm_flags & VM_GROWSDOWN
        return bool(grows) and not self.spaces.expand_stack(vma, address)

    # -- as traces have it ---------------------------------------------------------------------

    def ptep(self, mm: int, address: int) -> int:
        tables = self.memory.tables
        return tables.pte_offset(tables.pgd(mm), address)

    def pte(self, address: int) -> int:
        """The PTE of an address, by the recording's frames."""
        ptep = self.ptep(self.mm, address & PAGE_MASK)
        return recorded_pte(self.memory.tables.tables.entry(ptep)) if ptep else 0

    def page_facts(self, pfn: int) -> list[int]:
        """[count, mapcount, flags, kind, ``anon_vma`` or file, index] of a recorded frame."""
        page = self.memmap.page(model_pfn(pfn))
        words, memmap = self.memmap.words, self.memmap
        mapping, index = (
            words[memmap.word(page, word)] for word in (memmap.mapping_word, memmap.index_word)
        )
        kind, object_ = 0, 0
        if mapping & 1:
            kind, object_ = ANON, offset(mapping - 1)
        elif mapping:
            kind, object_ = FILE, self.file_pages.numbers[mapping]
        flags = memmap.flags(page) & _RECORDED_FLAGS
        counts = [memmap.count(page), self.rmap.mapcount(page), flags]
        return [*counts, kind, object_, index if kind else 0]

    def present(self, mm: int) -> Iterator[tuple[int, int]]:
        """Each PTE of an address space that is not none, and its address."""
        tables = self.memory.tables
        for address, ptep in tables.ptes(tables.pgd(mm), 0, PAGE_OFFSET):
            yield address, recorded_pte(tables.tables.entry(ptep))


def model_pfn(pfn: int) -> int:
    """The model's number of a recorded frame. The zero page is where it is."""
    return pfn if pfn == ZERO_PFN else pfn + _MOVED_PFN


def recorded_pte(pte: int) -> int:
    """A PTE as the recording would have it."""
    if not pte & (PAGE_PRESENT | PAGE_PROTNONE) or pte >> PAGE_SHIFT == ZERO_PFN:
        return pte
    return pte - MOVED


class FaultRun(VmaRun):
    """A VMA trace with page faults in it."""

    _machine: FaultMachine

    def _operation(self, name: str, recorded: list[Any]) -> list[Any]:
        if name != "fault":
            return super()._operation(name, recorded)
        address, write = recorded[:2]
        result = self._machine.fault(address, write)
        pte = self._machine.pte(address) if result != NO_VMA else 0
        if result < 0:
            return [name, address, write, result, pte, None]
        pfn = pte >> PAGE_SHIFT
        count, mapcount, _, *rest = self._machine.page_facts(pfn)
        return [name, address, write, result, pte, [pfn, count, mapcount, *rest]]


def replay_trace(trace: Trace, comparison: Comparison) -> None:
    """A VMA trace; frames were noted only where pages came and went."""
    if not any(operation[1] == "fault" for operation in trace.data["ops"]):
        vma_2_6.replay_trace(trace, comparison)
        return
    machine = FaultMachine(makes_present=False)
    choose_layout(machine, trace)
    FaultRun(trace, comparison, machine).replay()
