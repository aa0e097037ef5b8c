# SPDX-License-Identifier: GPL-2.0-or-later
"""Allocating and freeing in the vmalloc range, page by page.

Models linux-2.4.22 ``mm/vmalloc.c`` (book 7.1 to 7.3): each frame is mapped as soon as it is had,
and found again for freeing by its PTE alone.

What can fail: an allocation returns 0 when there is no room or no memory; a ``vfree()`` of
something else leaves a line in the log, as the kernel has it.
"""

from kernel_model.arch_i386.page import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE
from kernel_model.arch_i386.pgtable import mk_pte, pte_pfn
from kernel_model.mm.vmalloc.areas import U32, VmallocRange, kernel_rights
from kernel_model.structs.mmzone import VM_ALLOC


class Vmalloc(VmallocRange):
    """The vmalloc range of a 2.4 kernel."""

    def get_vm_area(self, size: int, flags: int) -> int:
        """Reserve ``size`` bytes and a guard page behind them. Returns their address, 0: no room.

        The end of the range is looked at only behind another area, so that the first one may
        reach beyond it; an unaligned size makes the next area unaligned.
        """
        vaddr = self._kmalloc(self._kind.size, self._gfp.kernel)
        if not vaddr:
            return 0
        size = size + PAGE_SIZE & U32
        place = self._first_fit(size) if size else None
        if place is None:
            self._kfree(vaddr)
            return 0
        addr, link = place
        area = self._image.at(self._kind, vaddr)
        area.flags, area.addr, area.size = flags, addr, size
        self._link(vaddr, link)
        return addr

    def _first_fit(self, size: int) -> tuple[int, int] | None:
        """(address, the pointer that must point to the new area), or None: no room."""
        addr, link = self.start, self._image.symbol("vmlist")
        for vaddr, area in self._areas():
            if size + addr > U32:
                return None
            if size + addr <= area.addr:
                break
            addr = max(addr, int(area.size) + int(area.addr) & U32)
            if addr > self.end - size & U32:
                return None
            link = vaddr + self._kind.offset("next")
        return addr, link

    def allocate(self, size: int, gfp_mask: int, prot: int) -> int:
        size = size + PAGE_SIZE - 1 & PAGE_MASK
        if not size or size >> PAGE_SHIFT > self._statics.num_physpages:
            return 0
        addr = self.get_vm_area(size, VM_ALLOC)
        if addr and not self._vmalloc_area_pages(addr, size, gfp_mask, prot):
            self.vfree(addr)
            return 0
        return addr

    def _vmalloc_area_pages(self, addr: int, size: int, gfp_mask: int, prot: int) -> bool:
        """A frame for each page, mapped as it comes. False: memory ran out on the way."""
        rights = kernel_rights(prot)
        for vaddr, ptep in self._ptes(addr & PAGE_MASK, size):
            page = self._allocator.alloc_page(gfp_mask, "vmalloc") if ptep else 0
            if not page:
                return False
            self._map(vaddr, ptep, mk_pte(self._memmap.pfn(page), prot), rights)
        self._tlb.caches.flush_cache_all()
        return True

    def vfree(self, addr: int) -> None:
        if not addr:
            return
        if addr % PAGE_SIZE:
            self._image.printk(f"<3>Trying to vfree() bad address ({addr:#010x})\n")
            return
        found = self._find(addr)
        if found is None:
            self._image.printk(f"<3>Trying to vfree() nonexistent vm area ({addr:#010x})\n")
            return
        link, vaddr, area = found
        self._unlink(link, area)
        self._vmfree_area_pages(addr, int(area.size))
        self._kfree(vaddr)

    def _vmfree_area_pages(self, addr: int, size: int) -> None:
        """Each page goes; its frame too, unless it is a device's or reserved."""
        self._tlb.caches.flush_cache_all()
        for pte in self._clear_ptes(addr, size):
            pfn = pte_pfn(pte)
            if pfn < self._statics.max_mapnr:
                self._allocator.free_page(self._memmap.page(pfn))
        self._tlb.flush_tlb_all()
