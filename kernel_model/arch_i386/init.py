# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel's final page tables, its zones, and the end of boot memory.

Models linux-2.4.22 ``arch/i386/mm/init.c``: ``paging_init()``, ``pagetable_init()``,
``fixrange_init()``, ``kmap_init()``, ``zone_sizes_init()``, ``mem_init()``,
``zap_low_mappings()`` (book 2.3, 3.6.2, 5.6). In RAM: ``swapper_pg_dir`` and the tables below
it, which come from boot memory, and the globals ``high_memory``, ``max_mapnr`` and kin.
"""

from typing import Final

import numpy as np
import numpy.typing as npt

from kernel_model.arch_i386.fixmap import (
    fixed_addresses,
    last_pkmap,
)
from kernel_model.arch_i386.layout import Layout
from kernel_model.arch_i386.page import (
    PAGE_OFFSET,
    PAGE_SHIFT,
    PAGE_SIZE,
    phys_to_virt,
    virt_to_phys,
)
from kernel_model.arch_i386.pgalloc import PageTables
from kernel_model.arch_i386.pgtable import (
    KERNPG_TABLE,
    PAGE_GLOBAL,
    PAGE_KERNEL,
    PAGE_PRESENT,
    PAGE_PSE,
    pmd_none,
)
from kernel_model.arch_i386.processor import X86_CR4_PAE, X86_CR4_PGE, X86_CR4_PSE
from kernel_model.arch_i386.setup import ram_frames
from kernel_model.arch_i386.tlb import Tlb
from kernel_model.config import Highmem
from kernel_model.image import (
    CODE_BYTES,
    DATA_BYTES,
    EMPTY_ZERO_PAGE,
    INIT_BYTES,
    SWAPPER_PG_DIR,
    KernelImage,
)
from kernel_model.mm.bootmem import Bootmem
from kernel_model.mm.free_area import free_frames, runs
from kernel_model.mm.mmzone import Zone
from kernel_model.mm.page_alloc import PageAllocator

END_OF_ADDRESS_SPACE: Final = 1 << 32


class PagingInit:
    """``paging_init()`` of one machine: its steps, in the kernel's order."""

    TABLE_FLAGS = KERNPG_TABLE
    """What an entry says that points to one of the kernel's page tables."""

    def __init__(
        self, image: KernelImage, bootmem: Bootmem, tables: PageTables, tlb: Tlb, layout: Layout
    ) -> None:
        self._image = image
        self._statics = image.statics
        self._bootmem = bootmem
        self._tables = tables
        self._tlb = tlb
        self._layout = layout

    def paging_init(self) -> None:
        """Finish the page tables, switch to them, make the zones."""
        config = self._image.config
        self.pagetable_init()
        self._tlb.processor.load_cr3(SWAPPER_PG_DIR)
        if config.pae:
            self.set_in_cr4(X86_CR4_PAE)
        # On this CPU the load of CR3 was enough: nothing global is cached before PGE is set.
        self._tlb.flush_tlb_all()
        if config.highmem is not Highmem.NONE:
            self.kmap_init()
        self._layout.zone_sizes_init()

    def set_in_cr4(self, mask: int) -> None:
        """Turn a feature on in CR4, and remember it for the CPUs that come later."""
        self._statics.mmu_cr4_features |= mask
        processor = self._tlb.processor
        processor.write_cr4(processor.read_cr4() | mask)

    def _new_table(self) -> int:
        return virt_to_phys(self._bootmem.alloc_bootmem_low_pages(PAGE_SIZE))

    def pagetable_init(self) -> None:
        """Map all low memory at PAGE_OFFSET; make tables for fixmap and kmap."""
        tables, shape = self._tables, self._tables.shape
        if not shape.folded:
            for index in range(shape.ptrs_per_pgd):
                pgdp = SWAPPER_PG_DIR + index * shape.entry_bytes
                tables.set_pgd(pgdp, EMPTY_ZERO_PAGE | PAGE_PRESENT)
        end = min(phys_to_virt(self._statics.max_low_pfn << PAGE_SHIFT), END_OF_ADDRESS_SPACE)
        for vaddr in range(PAGE_OFFSET, end, shape.pgdir_size):
            pgdp = tables.pgd_offset(SWAPPER_PG_DIR, vaddr)
            if not shape.folded:
                tables.set_pgd(pgdp, self._new_table() | PAGE_PRESENT)
            for below in range(vaddr, min(vaddr + shape.pgdir_size, end), shape.pmd_size):
                self._map_direct(tables.pmd_offset(pgdp, below), below, end)
        fixed = fixed_addresses(self._image.config)
        self.fixrange_init(fixed.lowest, END_OF_ADDRESS_SPACE)
        if self._image.config.highmem is not Highmem.NONE:
            base = fixed.pkmap_base
            self.fixrange_init(base, base + PAGE_SIZE * last_pkmap(self._image.config.pae))
            pmdp = tables.pmd_offset(tables.pgd_offset(SWAPPER_PG_DIR, base), base)
            self._statics.pkmap_page_table = phys_to_virt(tables.pte_offset(pmdp, base))
        if not shape.folded:
            # The two-level tables of head.S mapped low memory at 0; until the low mappings
            # are zapped, the three-level ones must as well.
            kernel_pgd = tables.entry(tables.pgd_offset(SWAPPER_PG_DIR, PAGE_OFFSET))
            tables.set_pgd(SWAPPER_PG_DIR, kernel_pgd)

    def _map_direct(self, pmdp: int, vaddr: int, end: int) -> None:
        """Map what lies under one middle entry: by one large page, or by a page table."""
        features = self._image.config.features
        if features.pse:
            self.set_in_cr4(X86_CR4_PSE)
            self._statics.boot_cpu_data.wp_works_ok = 1
            flags = KERNPG_TABLE | PAGE_PSE
            if features.pge:
                self.set_in_cr4(X86_CR4_PGE)
                flags |= PAGE_GLOBAL
            self._tables.set_pmd(pmdp, virt_to_phys(vaddr) | flags)
            return
        shape = self._tables.shape
        table = self._direct_table(pmdp)
        count = min(shape.ptrs_per_pte, (end - vaddr) >> PAGE_SHIFT)
        kind = np.dtype(f"u{shape.entry_bytes}")
        first = virt_to_phys(vaddr) >> PAGE_SHIFT
        frames = np.arange(first, first + count, dtype=kind)
        self._image.ram.table(table, count, kind)[:] = (frames << PAGE_SHIFT) | self.page_kernel

    def _direct_table(self, pmdp: int) -> int:
        """The page table for a part of the direct map."""
        table = self._new_table()
        self._tables.set_pmd(pmdp, table | self.TABLE_FLAGS)
        return table

    @property
    def page_kernel(self) -> int:
        """``PAGE_KERNEL``: what a PTE of the kernel says."""
        return PAGE_KERNEL

    def fixrange_init(self, start: int, end: int) -> None:
        """Page tables, still empty, for the linear range; mappings come later, one by one."""
        tables, shape = self._tables, self._tables.shape
        for vaddr in range(start & -shape.pmd_size, end, shape.pmd_size):
            pgdp = tables.pgd_offset(SWAPPER_PG_DIR, vaddr)
            if tables.pgd_none(tables.entry(pgdp)):
                tables.set_pgd(pgdp, self._new_table() | PAGE_PRESENT)
            pmdp = tables.pmd_offset(pgdp, vaddr)
            if pmd_none(tables.entry(pmdp)):
                tables.set_pmd(pmdp, self._new_table() | self.TABLE_FLAGS)

    def kmap_init(self) -> None:
        """Remember the PTE of the first ``kmap_atomic()`` slot."""
        tables = self._tables
        fixed = fixed_addresses(self._image.config)
        vstart = fixed.to_virt(fixed.slots["FIX_KMAP_BEGIN"])
        pmdp = tables.pmd_offset(tables.pgd_offset(SWAPPER_PG_DIR, vstart), vstart)
        self._statics.kmap_pte = phys_to_virt(tables.pte_offset(pmdp, vstart))
        self._statics.kmap_prot = self.page_kernel

    def zap_low_mappings(self) -> None:
        """Take the identity mapping away: from here on NULL faults."""
        tables, shape = self._tables, self._tables.shape
        nothing = 0 if shape.folded else EMPTY_ZERO_PAGE | PAGE_PRESENT
        for index in range(shape.user_ptrs_per_pgd):
            tables.set_pgd(SWAPPER_PG_DIR + index * shape.entry_bytes, nothing)
        self._tlb.flush_tlb_all()

    def map_low(self) -> None:
        """Let the first 8 MiB appear at 0 again, for a CPU that is about to turn paging on."""
        tables, shape = self._tables, self._tables.shape
        for vaddr in range(0, 8 << 20, shape.pgdir_size):
            kernel = tables.entry(tables.pgd_offset(SWAPPER_PG_DIR, PAGE_OFFSET + vaddr))
            tables.set_pgd(tables.pgd_offset(SWAPPER_PG_DIR, vaddr), kernel)


class MemInit:
    """``mem_init()``: every free frame goes to the buddy allocator; boot memory ends."""

    def __init__(self, image: KernelImage, layout: Layout, allocator: PageAllocator) -> None:
        self._image = image
        self._statics = image.statics
        self._layout = layout
        self._allocator = allocator
        self._bits = image.constants.page_flags

    def mem_init(self) -> None:
        statics, image = self._statics, self._image
        self.set_max_mapnr_init()
        statics.high_memory = phys_to_virt(statics.max_low_pfn << PAGE_SHIFT)
        image.ram.fill(EMPTY_ZERO_PAGE, PAGE_SIZE)
        reserved = self.free_pages_init()
        free_kb = self._allocator.nr_free_pages() << (PAGE_SHIFT - 10)
        image.printk(
            f"<6>Memory: {free_kb}k/{statics.num_physpages << (PAGE_SHIFT - 10)}k available "
            f"({CODE_BYTES >> 10}k kernel code, {reserved << (PAGE_SHIFT - 10)}k reserved, "
            f"{DATA_BYTES >> 10}k data, {INIT_BYTES >> 10}k init, "
            f"{statics.totalhigh_pages << (PAGE_SHIFT - 10)}k highmem)\n"
        )

    def set_max_mapnr_init(self) -> None:
        statics = self._statics
        if self._image.config.highmem is Highmem.NONE:
            frames = statics.max_low_pfn
        else:
            frames = statics.highend_pfn
            memmap = self._allocator.memmap
            statics.highmem_start_page = memmap.page(statics.highstart_pfn)
        statics.max_mapnr = statics.num_physpages = frames
        statics.num_mappedpages = statics.max_low_pfn

    def free_pages_init(self) -> int:
        """Free low memory, then high memory. Returns how many frames of RAM stay reserved."""
        statics = self._statics
        statics.totalram_pages += self._layout.free_all_bootmem(self._allocator)
        reserved = self._count_reserved()
        if self._image.config.highmem is not Highmem.NONE:
            statics.totalhigh_pages = self._free_highmem()
            statics.totalram_pages += statics.totalhigh_pages
        return reserved

    def _ram_mask(self, first: int, end: int) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """One flag for each frame from ``first`` to ``end - 1``: ``page_is_ram()``."""
        mask = np.zeros(end - first, dtype=np.bool_)
        for frames in map(ram_frames, self._image.config.e820):
            if frames:
                mask[max(frames.start - first, 0) : max(frames.stop - first, 0)] = True
        return mask

    def _count_reserved(self) -> int:
        """Frames of RAM in low memory that nobody can allocate."""
        memmap, reserved = self._allocator.memmap, 0
        for first, end in self._layout.low_spans():
            flags = memmap.rows(memmap.page(first), end - first)[:, memmap.flags_word]
            in_use = (flags >> self._bits.reserved & 1) & self._ram_mask(first, end)
            reserved += int(np.count_nonzero(in_use))
        return reserved

    def _free_highmem(self) -> int:
        """Free high memory; 2.4 does from its last frame downwards, so its lists run upwards."""
        statics, memmap = self._statics, self._allocator.memmap
        first, end = statics.highstart_pfn, statics.highend_pfn
        if first >= end:
            return 0
        usable = self._ram_mask(first, end)
        rows = memmap.rows(memmap.page(first), end - first)
        for start, stop in runs(usable):
            rows[start:stop, memmap.flags_word] |= np.uint32(1 << self._bits.highmem)
        return self.free_high_frames(self._allocator.page_zone(memmap.page(first)), usable)

    def free_high_frames(self, zone: Zone, usable: npt.NDArray[np.bool_]) -> int:
        """Free those frames of high memory that are RAM. Returns how many they are."""
        return free_frames(self._allocator.memmap, zone, usable, descending=True)
