# SPDX-License-Identifier: GPL-2.0-or-later
"""Processes of a 2.6 machine that share pages: its memory management put together by hand.

What a boot would add (files with names, programs) is left out. A file here is a ``struct file``
with an inode and an address space, whose pages are read from Python bytes.
"""

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from harness.mappings import RIGHT_PRESENT, RIGHT_USER, RIGHT_WRITE
from harness.monitors.frames import FrameLedger
from kernel_model.arch_i386.page import PAGE_OFFSET, PAGE_SHIFT, PAGE_SIZE, virt_to_phys
from kernel_model.arch_i386.pgtable import PAGE_PRESENT, PAGE_PROTNONE
from kernel_model.config import Highmem, KernelConfig
from kernel_model.kernel import Kernel
from kernel_model.lists import Lists
from kernel_model.mm.filemap.linux_2_6.cache import RadixPageCache
from kernel_model.mm.filemap.linux_2_6.populate import FilePopulator
from kernel_model.mm.linux_2_6.page_alloc import PageAllocator26
from kernel_model.mm.linux_2_6.shrink import ScanControl
from kernel_model.mm.linux_2_6.swap_state import SwapCache26
from kernel_model.mm.linux_2_6.vmscan import Vmscan26
from kernel_model.mm.memory import Fault
from kernel_model.mm.memory.linux_2_6 import Memory26
from kernel_model.mm.memory.linux_2_6.fault import NOPAGE_MAJOR
from kernel_model.mm.mmap.linux_2_6 import AddressSpaces
from kernel_model.structs.fs import FMODE_READ, FMODE_WRITE
from kernel_model.structs.mm import VM_WRITE

SMALL = 8 << 20


@dataclass
class MappedFile:
    """A file that processes can map."""

    file: int
    mapping: int
    contents: bytearray
    disk: bytearray = field(default_factory=bytearray)


class World:
    """One machine. A process is the address of its ``mm_struct``."""

    def __init__(
        self,
        rmap: str = "object",
        *,
        ram: int = SMALL,
        swap_pages: int = 400,
        highmem: Highmem = Highmem.NONE,
        node_spans: tuple[tuple[int, int], ...] = (),
    ) -> None:
        config = KernelConfig(
            release="2.6",
            ram=ram,
            rmap=rmap,
            swap_pages=swap_pages,
            highmem=highmem,
            nodes=len(node_spans) or 1,
            node_spans=node_spans,
        )
        self.kernel = kernel = Kernel(config)
        self.ledger = FrameLedger().listen(kernel.image.events)
        kernel.start_kernel()
        self.image = image = kernel.image
        assert isinstance(kernel.allocator, PageAllocator26)
        assert isinstance(kernel.vmscan, Vmscan26)
        assert isinstance(kernel.memory, Memory26)
        assert isinstance(kernel.spaces, AddressSpaces)
        assert isinstance(kernel.page_cache, RadixPageCache)
        assert isinstance(kernel.swap_cache, SwapCache26)
        self.allocator, self.memmap = kernel.allocator, kernel.allocator.memmap
        self.cache, self.areas, self.swap = kernel.page_cache, kernel.swap_areas, kernel.swap_cache
        self.memory, self.spaces, self.vmscan = kernel.memory, kernel.spaces, kernel.vmscan
        self.rmap, self.walk = self.memory.rmap, kernel.reverse_walk
        image.statics.sysctl_overcommit_memory = 1
        image.statics.max_map_count = 65536
        self.mms: list[int] = []
        self._make_operations()

    # -- files ---------------------------------------------------------------------------------

    def _make_operations(self) -> None:
        """A page of operations and of files, outside the slab."""
        self._place = self.allocator.get_free_pages(self.image.constants.gfp.kernel, 2, "files")
        self.image.ram.fill(virt_to_phys(self._place), PAGE_SIZE << 2)
        image, structs = self.image, self.image.structs
        self._vm_ops = self._new(structs.vm_operations_struct)
        self._f_op = self._new(structs.file_operations)
        self._a_ops = self._new(structs.address_space_operations)
        self.files: dict[int, MappedFile] = {}
        populator = FilePopulator(
            image, self.allocator, self.memory.file_pages, self._pages_of, self._getpage
        )
        address = image.functions.address
        view = image.at(structs.vm_operations_struct, self._vm_ops)
        view.nopage, view.populate = address(self._nopage), address(populator.filemap_populate)
        image.at(structs.file_operations, self._f_op).mmap = address(self._mmap)
        aops = image.at(structs.address_space_operations, self._a_ops)
        aops.writepage = address(self._writepage)

    def _new(self, kind: Any) -> int:
        vaddr = self._place
        self._place += -(-kind.size // 32) * 32
        return vaddr

    def open(self, contents: bytes) -> MappedFile:
        """A file that was opened for reading and writing."""
        image, structs = self.image, self.image.structs
        inode, dentry = self._new(structs.inode), self._new(structs.dentry)
        file = self._new(structs.file)
        view, mapping = image.at(structs.inode, inode), inode + structs.inode.offset("i_data")
        view.i_size, view.i_mapping, view.i_count = len(contents), mapping, 1
        space = view.i_data
        space.host, space.a_ops = inode, self._a_ops
        space.i_mmap.index_bits, space.i_mmap.raw = 1, 1
        Lists(image.ram).init(mapping + structs.address_space.offset("i_mmap_nonlinear"))
        self.cache.init_address_space(mapping)
        image.at(structs.dentry, dentry).d_inode = inode
        opened = image.at(structs.file, file)
        opened.f_count, opened.f_dentry, opened.f_op = 1, dentry, self._f_op
        opened.f_mode, opened.f_mapping = FMODE_READ | FMODE_WRITE, mapping
        self.files[file] = made = MappedFile(file, mapping, bytearray(contents))
        return made

    def _mmap(self, file: int, vma: int) -> int:
        self.spaces.areas.vma(vma).vm_ops = self._vm_ops
        return 0

    def _pages_of(self, file: int) -> int:
        return -(-len(self.files[file].contents) // PAGE_SIZE)

    def _nopage(self, vma: int, vaddr: int) -> int:
        area = self.spaces.areas.vma(vma)
        index = (vaddr - area.vm_start >> PAGE_SHIFT) + area.vm_pgoff
        if index >= self._pages_of(area.vm_file):
            return 0
        cached = self.cache.find_get_page(self.files[area.vm_file].mapping, index)
        page = cached or self._getpage(area.vm_file, index, nonblock=False)
        return page if cached or not page else page + NOPAGE_MAJOR

    def _getpage(self, file: int, index: int, nonblock: bool) -> int:
        opened = self.files[file]
        page = self.cache.find_get_page(opened.mapping, index)
        if page or nonblock:
            return page
        page = self.allocator.alloc_page(self.image.constants.gfp.highuser, "page cache")
        if page:
            self.cache.add_to_page_cache(page, opened.mapping, index)
            at = index * PAGE_SIZE
            content = bytes(opened.contents[at : at + PAGE_SIZE]).ljust(PAGE_SIZE, b"\0")
            self.image.ram.write(self.memmap.pfn(page) << PAGE_SHIFT, content)
            flags = self.image.constants.page_flags
            self.memmap.set_bit(page, flags.uptodate)
            self.memmap.clear_bit(page, flags.locked)
        return page

    def _writepage(self, page: int) -> int:
        mapping, index = self.cache.mapping(page), self.cache.index(page)
        opened = next(f for f in self.files.values() if f.mapping == mapping)
        content = self.image.ram.read(self.memmap.pfn(page) << PAGE_SHIFT, PAGE_SIZE)
        at = index * PAGE_SIZE
        opened.contents[at : at + PAGE_SIZE] = content
        self.memmap.clear_bit(page, self.image.constants.page_flags.locked)
        return 0

    # -- processes -----------------------------------------------------------------------------

    def start(self) -> int:
        """A process with nothing mapped."""
        mm = self.kernel.fork.mm_alloc()
        self.mms.append(mm)
        self.run(mm)
        self.spaces.arch_pick_mmap_layout(mm)
        return mm

    def run(self, mm: int) -> None:
        """Let it be current."""
        task = self.image.current_task
        task.mm = task.active_mm = mm

    def fork(self, parent: int) -> int:
        """A child."""
        self.run(parent)
        child = SimpleNamespace(mm=0, active_mm=0)
        assert self.kernel.fork.copy_mm(0, child) == 0
        self.mms.append(child.mm)
        return child.mm

    def exit(self, mm: int) -> None:
        """Everything that it has mapped goes, then the process."""
        self.run(mm)
        self.mms.remove(mm)
        self.kernel.fork.mmput(mm)
        self.run(0)

    # -- pages ---------------------------------------------------------------------------------

    def touch(self, mm: int, vaddr: int, *, write: bool) -> int:
        """Where the CPU finds the page after the faults that it takes; -1: it may not."""
        tables = self.memory.tables
        self.run(mm)
        for _ in range(3):
            ptep = tables.pte_offset(tables.pgd(mm), vaddr)
            pte = tables.tables.entry(ptep) if ptep else 0
            if pte & 5 == 5 and (pte & 2 or not write):
                tables.tables.set_pte(ptep, pte | (0x60 if write else 0x20))
                return (pte & ~0xFFF) + vaddr % PAGE_SIZE
            vma = self.spaces.find_vma(mm, vaddr)
            area = self.spaces.areas.vma(vma) if vma else None
            if area is None or area.vm_start > vaddr or (write and not area.vm_flags & VM_WRITE):
                return -1
            if self.memory.handle_mm_fault(mm, vma, vaddr, write) <= Fault.SIGBUS:
                return -1
        raise AssertionError(f"{vaddr:#x} faults for ever")

    def write(self, mm: int, vaddr: int, value: int) -> bool:
        """Write a word into a page; False: it may not be."""
        paddr = self.touch(mm, vaddr, write=True)
        if paddr >= 0:
            self.image.ram.write32(paddr, value)
        return paddr >= 0

    def read(self, mm: int, vaddr: int) -> int:
        """A word of a page; -1: it may not be read."""
        paddr = self.touch(mm, vaddr, write=False)
        return self.image.ram.read32(paddr) if paddr >= 0 else -1

    def pte(self, mm: int, vaddr: int) -> int:
        """The PTE of an address; 0: none."""
        tables = self.memory.tables
        ptep = tables.pte_offset(tables.pgd(mm), vaddr)
        return tables.tables.entry(ptep) if ptep else 0

    def page(self, mm: int, vaddr: int) -> int:
        """The ``struct page`` behind an address that is present."""
        return self.memmap.page(self.pte(mm, vaddr) >> PAGE_SHIFT)

    def pages_are_as_meant(self, mm: int) -> None:
        """What the ledger was told of each page is what its PTE says."""
        tables = self.memory.tables
        pgd = tables.pgd(mm)
        found = {}
        for vaddr, ptep in tables.ptes(pgd, 0, PAGE_OFFSET):
            pte = tables.tables.entry(ptep)
            if pte & (PAGE_PRESENT | PAGE_PROTNONE):
                rights = RIGHT_PRESENT * bool(pte & 1) | RIGHT_USER * bool(pte & 4)
                found[vaddr >> 12] = pte >> 12, (rights | RIGHT_WRITE * bool(pte & 2)) * (pte & 1)
        numbers, pfns, rights = (column.tolist() for column in self.ledger.pages(pgd))
        meant = dict(zip(numbers, zip(pfns, rights, strict=True), strict=True))
        assert found == meant

    def evict(self, rounds: int = 3) -> int:
        """Shrink all zones as hard as can be. Returns how many frames came of it."""
        freed, gfp = 0, self.image.constants.gfp
        for _ in range(rounds):
            for vaddr in self.zones():
                zone = self.allocator.zone(vaddr)
                control = ScanControl(0, gfp.kernel, self.mapped_frames(), kswapd=False)
                zone.view.prev_priority = 0
                shrinker = self.vmscan.shrinker
                shrinker.refill_inactive_zone(zone, control, int(zone.view.nr_active))
                shrinker.shrink_cache(zone, control, int(zone.view.nr_inactive))
                freed += control.nr_reclaimed
        return freed

    def zones(self) -> list[int]:
        """The zones that have frames."""
        return [
            int(z)
            for z in self.image.statics.zone_table
            if z and self.allocator.zone(int(z)).present_pages
        ]

    def mapped_frames(self) -> int:
        return self.allocator.page_state.total("nr_mapped")
