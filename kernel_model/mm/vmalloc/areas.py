# SPDX-License-Identifier: GPL-2.0-or-later
"""The vmalloc range: a list of areas, and the kernel's page tables below them.

Models what ``mm/vmalloc.c`` and ``arch/i386/mm/ioremap.c`` of linux-2.4.22 and of linux-2.6.11 have
in common (book chapter 7). In RAM: ``vmlist``, a chain of ``struct vm_struct`` in address order,
and the kernel's page tables, which once made are never freed. A new entry of the page directory
goes into ``swapper_pg_dir`` alone; other address spaces get it when they fault there.

What can fail: see :mod:`.linux_2_4` and :mod:`.linux_2_6`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

from kernel_model.arch_i386.fixmap import vmalloc_end, vmalloc_start
from kernel_model.arch_i386.page import (
    PAGE_MASK,
    PAGE_SHIFT,
    PAGE_SIZE,
    phys_to_virt,
    virt_to_phys,
)
from kernel_model.arch_i386.pgalloc import PageTableAllocator
from kernel_model.arch_i386.pgtable import (
    KERNPG_TABLE,
    PAGE_KERNEL,
    PAGE_PRESENT,
    PAGE_RW,
    mk_pte_phys,
    pmd_none,
    pte_none,
    pte_pfn,
)
from kernel_model.arch_i386.tlb import Tlb
from kernel_model.events import Rights
from kernel_model.image import SWAPPER_PG_DIR, KernelImage
from kernel_model.mm.page_alloc import PageAllocator
from kernel_model.structs.mmzone import VM_IOREMAP

U32 = 0xFFFFFFFF


def kernel_rights(prot: int) -> Rights:
    """What a kernel page of protection ``prot`` is meant for."""
    return Rights(write=bool(prot & PAGE_RW), user=False)


class VmallocRange(ABC):
    """The vmalloc range of one machine. Addresses are kernel virtual, sizes are bytes.

    ``kmalloc`` and ``kfree`` give memory for the ``vm_struct``s.
    """

    def __init__(
        self,
        image: KernelImage,
        allocator: PageAllocator,
        page_tables: PageTableAllocator,
        tlb: Tlb,
        kmalloc: Callable[[int, int], int],
        kfree: Callable[[int], None],
    ) -> None:
        self._image = image
        self._gfp = image.constants.gfp
        self._kind = image.structs.vm_struct
        self._statics = image.statics
        self._allocator = allocator
        self._memmap = allocator.memmap
        self._page_tables = page_tables
        self._tables = page_tables.tables
        self._tlb = tlb
        self._kmalloc = kmalloc
        self._kfree = kfree

    # -- what is where -------------------------------------------------------------------------

    @property
    def start(self) -> int:
        """``VMALLOC_START``."""
        return vmalloc_start(int(self._statics.high_memory))

    @property
    def end(self) -> int:
        """``VMALLOC_END``."""
        return vmalloc_end(self._image.config)

    def areas(self) -> Iterator[Any]:
        """Each ``vm_struct``, lowest address first."""
        for _, area in self._areas():
            yield area

    def _areas(self) -> Iterator[tuple[int, Any]]:
        vaddr = int(self._statics.vmlist)
        while vaddr:
            area = self._image.at(self._kind, vaddr)
            yield vaddr, area
            vaddr = int(area.next)

    def _link(self, vaddr: int, link: int) -> None:
        """The pointer at ``link`` points to the area at ``vaddr`` from now on, that to what was
        there."""
        words = self._image.ram.words
        self._image.at(self._kind, vaddr).next = words[virt_to_phys(link) >> 2]
        words[virt_to_phys(link) >> 2] = vaddr

    def _find(self, addr: int) -> tuple[int, int, Any] | None:
        """(the pointer to it, its address, the ``vm_struct``) of the area that begins there."""
        link = self._image.symbol("vmlist")
        for vaddr, area in self._areas():
            if area.addr == addr:
                return link, vaddr, area
            link = vaddr + self._kind.offset("next")
        return None

    def _unlink(self, link: int, area: Any) -> None:
        self._image.ram.words[virt_to_phys(link) >> 2] = area.next

    # -- allocating ------------------------------------------------------------------------------

    @abstractmethod
    def get_vm_area(self, size: int, flags: int) -> int:
        """Reserve ``size`` bytes and a guard page behind them. 0: no room or no memory."""

    @abstractmethod
    def allocate(self, size: int, gfp_mask: int, prot: int) -> int:
        """``__vmalloc()``: whole pages with protection ``prot``. 0 when it cannot be."""

    @abstractmethod
    def vfree(self, addr: int) -> None:
        """Unmap an area and free its frames (book 7.3)."""

    def vmalloc(self, size: int) -> int:
        """``size`` bytes from any zone (book 7.2)."""
        return self.allocate(size, self._gfp.kernel | self._gfp.highmem, PAGE_KERNEL)

    def vmalloc_dma(self, size: int) -> int:
        """The same below 16 MiB."""
        return self.allocate(size, self._gfp.kernel | self._gfp.dma, PAGE_KERNEL)

    def vmalloc_32(self, size: int) -> int:
        """The same without high memory."""
        return self.allocate(size, self._gfp.kernel, PAGE_KERNEL)

    # -- devices ---------------------------------------------------------------------------------

    def ioremap(self, phys_addr: int, size: int, flags: int = 0) -> int:
        """Map ``size`` bytes of device memory at ``phys_addr``; 0 when it cannot be.

        ``flags`` are more bits for the PTEs. Addresses below 1 MiB are in the direct map and
        need no mapping; RAM that the kernel uses may not be mapped twice.
        """
        last = phys_addr + size - 1 & U32
        if not size or last < phys_addr:
            return 0
        if phys_addr >= 0xA0000 and last < 0x100000:
            return phys_to_virt(phys_addr)
        if phys_addr < virt_to_phys(int(self._statics.high_memory)) and not self._reserved(
            phys_addr, last
        ):
            return 0
        offset, base = phys_addr % PAGE_SIZE, phys_addr & -PAGE_SIZE
        size = (last + PAGE_SIZE & -PAGE_SIZE) - base
        addr = self._device_area(base, size, flags)
        if not addr:
            return 0
        prot = KERNPG_TABLE | flags
        rights = kernel_rights(prot)
        self._tlb.caches.flush_cache_all()
        for vaddr, ptep in self._ptes(addr, size):
            if not ptep:
                self.vfree(addr)
                return 0
            self._map(vaddr, ptep, mk_pte_phys(base + vaddr - addr, prot), rights)
        # An i386 caches no absent page, so that nothing old can be left here: vmalloc() does
        # without. Other CPUs do cache them, and Linux flushes after every ioremap().
        self._tlb.flush_tlb_all()
        return addr + offset

    def _device_area(self, phys_addr: int, size: int, flags: int) -> int:
        """The address of an area for device memory, whose PTEs have ``flags``; 0: no room."""
        return self.get_vm_area(size, VM_IOREMAP)

    def _reserved(self, first: int, last: int) -> bool:
        """Whether nobody can have been given any frame of the range."""
        frames = range(first >> PAGE_SHIFT, (last >> PAGE_SHIFT) + 1)
        return all(self._memmap.reserved(self._memmap.page(pfn)) for pfn in frames)

    def iounmap(self, addr: int) -> None:
        """Undo :meth:`ioremap`; an address of the direct map was never mapped."""
        if addr > self._statics.high_memory:
            self.vfree(addr & PAGE_MASK)

    # -- page tables -----------------------------------------------------------------------------

    def _ptes(self, addr: int, size: int) -> Iterator[tuple[int, int]]:
        """(address, where its PTE lies) of each page of a range, 0: no memory for a table.

        A page table is looked up, or made, when its first page is reached.
        """
        shape = self._tables.shape
        ptep = 0
        for vaddr in range(addr, addr + size, PAGE_SIZE):
            if not ptep or vaddr % shape.pmd_size < PAGE_SIZE:
                ptep = self._pte_alloc(vaddr)
            yield vaddr, ptep
            if not ptep:
                return
            ptep += shape.entry_bytes

    def _pte_alloc(self, vaddr: int) -> int:
        """Where the PTE of a kernel address lies, in a new page table if need be; 0: no memory."""
        pgdp = self._tables.pgd_offset(SWAPPER_PG_DIR, vaddr)
        known = self._tables.entry(pgdp)
        ptep = self._page_tables.pte_alloc_kernel(self._tables.pmd_offset(pgdp, vaddr), vaddr)
        if ptep and not known:
            size = self._tables.shape.pgdir_size
            self._image.events.kernel_table_made(vaddr & -size, size)
        return ptep

    def _map(self, vaddr: int, ptep: int, pte: int, rights: Rights) -> None:
        if not pte_none(self._tables.entry(ptep)):
            self._image.printk("<3>alloc_area_pte: page already exists\n")
        self._image.events.page_mapped(SWAPPER_PG_DIR, vaddr, pte_pfn(pte), rights)
        self._tables.set_pte(ptep, pte)

    def _clear_ptes(self, addr: int, size: int) -> Iterator[int]:
        """Clear every PTE of a range; yields those that were present."""
        shape, tables = self._tables.shape, self._tables
        vaddr, end = addr, min(addr + size, U32 + 1)
        while vaddr < end:
            pmdp = self._pmd_of(vaddr)
            table_end = min((vaddr // shape.pmd_size + 1) * shape.pmd_size, end)
            if pmdp and self._is_table(pmdp):
                ptep = tables.pte_offset(pmdp, vaddr)
                for page_vaddr in range(vaddr, table_end, PAGE_SIZE):
                    pte = tables.ptep_get_and_clear(ptep)
                    if pte & PAGE_PRESENT:
                        self._image.events.page_unmapped(SWAPPER_PG_DIR, page_vaddr)
                        yield pte
                    ptep += shape.entry_bytes
            vaddr = table_end

    def _is_table(self, pmdp: int) -> bool:
        """Whether a page table of the kernel hangs there."""
        return True

    def _pmd_of(self, vaddr: int) -> int:
        """Where the middle entry of a kernel address lies; 0 when nothing hangs there."""
        pgdp = self._tables.pgd_offset(SWAPPER_PG_DIR, vaddr)
        if self._tables.pgd_none(self._tables.entry(pgdp)):
            return 0
        pmdp = self._tables.pmd_offset(pgdp, vaddr)
        return 0 if pmd_none(self._tables.entry(pmdp)) else pmdp

    # -- reading and writing ---------------------------------------------------------------------

    def vread(self, addr: int, count: int) -> bytes:
        """``count`` bytes from ``addr`` as ``/dev/kmem`` shows them: zeros between areas."""
        data = bytearray(count)
        for start, offset, length in self._overlaps(addr, count):
            paddr = self._paddr(start)
            if paddr is not None and self._image.ram.contains(paddr, length):
                data[offset : offset + length] = self._image.ram.read(paddr, length)
        return bytes(data)

    def vwrite(self, addr: int, data: bytes) -> int:
        """Write ``data`` at ``addr`` where areas are. Returns the bytes that went somewhere."""
        written = 0
        for start, offset, length in self._overlaps(addr, len(data)):
            paddr = self._paddr(start)
            if paddr is not None and self._image.ram.contains(paddr, length):
                self._image.ram.write(paddr, data[offset : offset + length])
                written += length
        return written

    def _overlaps(self, addr: int, count: int) -> Iterator[tuple[int, int, int]]:
        """(address, offset from ``addr``, bytes) of each page of an area in the range, but the
        guard pages."""
        for area in self.areas():
            first = max(int(area.addr), addr)
            last = min(int(area.addr) + int(area.size) - PAGE_SIZE, addr + count)
            while first < last:
                length = min(last - first, PAGE_SIZE - first % PAGE_SIZE)
                yield first, first - addr, length
                first += length

    def _paddr(self, vaddr: int) -> int | None:
        pmdp = self._pmd_of(vaddr)
        if not pmdp:
            return None
        pte = self._tables.entry(self._tables.pte_offset(pmdp, vaddr))
        return (pte_pfn(pte) << PAGE_SHIFT) + vaddr % PAGE_SIZE if pte & PAGE_PRESENT else None
