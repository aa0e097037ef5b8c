# SPDX-License-Identifier: GPL-2.0-or-later
"""Allocating and freeing in the vmalloc range, all frames first.

Models linux-2.6.11 ``mm/vmalloc.c`` (book 7.4): ``__vmalloc()`` gathers every frame in the array
``vm_struct.pages`` before ``map_vm_area()`` writes the first PTE, and ``vfree()`` frees what stands
there. ``vmap()`` does the mapping alone, for frames that somebody has.

In RAM, besides the list: the arrays, from ``kmalloc()``, or from the vmalloc range itself when they
are longer than a page. What can fail: no room leaves a line in the log and is 0, as no memory is; a
``vfree()`` of something else is told in the log.
"""

import struct
from typing import Any, Final

from kernel_model.arch_i386.page import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE, virt_to_phys
from kernel_model.arch_i386.pgtable import PAGE_KERNEL, mk_pte, pmd_bad
from kernel_model.errors import KernelBug
from kernel_model.mm.vmalloc.areas import U32, VmallocRange, kernel_rights
from kernel_model.structs.linux_2_6.mmzone import VM_ALLOC, VM_IOREMAP

IOREMAP_MAX_ORDER: Final = 7 + PAGE_SHIFT
"""Device memory is aligned to its size, up to 128 pages."""
IOREMAP_FLAGS_SHIFT: Final = 20
"""What the PTEs of device memory have besides stands above this bit of the area's flags."""
_POINTER: Final = 4


class Vmalloc(VmallocRange):
    """The vmalloc range of a 2.6 kernel. An area is the address of its ``struct vm_struct``."""

    def area(self, area: int) -> Any:
        """The ``struct vm_struct``."""
        return self._image.at(self._kind, area)

    # -- areas ---------------------------------------------------------------------------------

    def get_vm_area(self, size: int, flags: int) -> int:
        """Reserve ``size`` bytes and a guard page behind them. Returns the area, 0: no room.

        The end of the range is looked at only behind another area.
        """
        align = 1
        if flags & VM_IOREMAP:
            align = 1 << min(max(size.bit_length(), PAGE_SHIFT), IOREMAP_MAX_ORDER)
        area = self._kmalloc(self._kind.size, self._gfp.kernel)
        if not area:
            return 0
        size = size + PAGE_SIZE & U32
        if not size:
            self._kfree(area)
            return 0
        place = self._first_fit(size, align)
        if place is None:
            self._kfree(area)
            self._image.printk(
                "<4>allocation failed: out of vmalloc space - "
                "use vmalloc=<size> to increase size.\n"
            )
            return 0
        addr, link = place
        view = self.area(area)
        view.flags, view.addr, view.size = flags, addr, size
        view.pages = view.nr_pages = view.phys_addr = 0
        self._link(area, link)
        return area

    def _first_fit(self, size: int, align: int) -> tuple[int, int] | None:
        """(address, the pointer that must point to the new area), or None: no room."""

        def aligned(addr: int) -> int:
            return addr + align - 1 & -align & U32

        addr, link = aligned(self.start), self._image.symbol("vmlist")
        for vaddr, area in self._areas():
            begin, behind = int(area.addr), int(area.addr) + int(area.size) & U32
            if begin >= addr:
                if size + addr > U32:
                    return None
                if size + addr <= begin:
                    break
                addr = aligned(behind)
                if addr > self.end - size & U32:
                    return None
            elif behind >= addr:
                addr = aligned(behind)
            link = vaddr + self._kind.offset("next")
        return addr, link

    def remove_vm_area(self, addr: int) -> int:
        """Unmap the area that begins at ``addr`` and take it off the list. 0: there is none."""
        found = self._find(addr)
        if found is None:
            return 0
        link, area, view = found
        self.unmap_vm_area(area)
        self._unlink(link, view)
        return area

    # -- mapping ---------------------------------------------------------------------------------

    def map_vm_area(self, area: int, prot: int, pages: list[int]) -> bool:
        """Map ``pages``, each a ``struct page *``. False: no memory for a page table."""
        view, rights = self.area(area), kernel_rights(prot)
        size = int(view.size) - PAGE_SIZE
        complete = True
        for (vaddr, ptep), page in zip(self._ptes(int(view.addr), size), pages, strict=False):
            if not ptep or not page:
                complete = False
                break
            self._map(vaddr, ptep, mk_pte(self._memmap.pfn(page), prot), rights)
        self._tlb.caches.flush_cache_vmap(int(view.addr), int(view.addr) + size)
        return complete

    def unmap_vm_area(self, area: int) -> None:
        """Clear every PTE of an area; its frames stay whose they are."""
        view = self.area(area)
        addr, size = int(view.addr), int(view.size)
        self._tlb.caches.flush_cache_vunmap(addr, addr + size)
        for _ in self._clear_ptes(addr, size):
            pass
        # flush_tlb_kernel_range() of an i386 drops everything.
        self._tlb.flush_tlb_all()

    def _is_table(self, pmdp: int) -> bool:
        """An area may reach around to address 0, where the tables of the boot are: they go."""
        entry = self._tables.entry(pmdp)
        if not pmd_bad(entry):
            return True
        self._image.printk(f"mm/vmalloc.c:35: bad pgd {entry:08x}.\n")
        self._tables.set_pmd(pmdp, 0)
        return False

    def vmap(self, pages: list[int], flags: int, prot: int) -> int:
        """Map frames side by side that the caller has. Returns their address, 0: it cannot be."""
        if len(pages) > self._statics.num_physpages:
            return 0
        area = self.get_vm_area(len(pages) << PAGE_SHIFT, flags)
        if not area:
            return 0
        addr = int(self.area(area).addr)
        if not self.map_vm_area(area, prot, pages):
            self.vunmap(addr)
            return 0
        return addr

    def vunmap(self, addr: int) -> None:
        """Undo :meth:`vmap`."""
        self._vunmap(addr, deallocate_pages=False)

    # -- allocating ------------------------------------------------------------------------------

    def allocate(self, size: int, gfp_mask: int, prot: int) -> int:
        size = size + PAGE_SIZE - 1 & PAGE_MASK
        if not size or size >> PAGE_SHIFT > self._statics.num_physpages:
            return 0
        area = self.get_vm_area(size, VM_ALLOC)
        if not area:
            return 0
        view, count = self.area(area), size >> PAGE_SHIFT
        view.nr_pages = count
        view.pages = self._array(count * _POINTER, gfp_mask)
        if not view.pages:
            self.remove_vm_area(int(view.addr))
            self._kfree(area)
            return 0
        pages = self._gather(count, gfp_mask)
        view.nr_pages = len(pages)
        self._store(int(view.pages), pages, count)
        if len(pages) < count or not self.map_vm_area(area, prot, pages):
            self.vfree(int(view.addr))
            return 0
        return int(view.addr)

    def _array(self, size: int, gfp_mask: int) -> int:
        """Memory for ``size`` bytes of pointers; a long array comes from the vmalloc range too."""
        if size > PAGE_SIZE:
            return self.allocate(size, gfp_mask, PAGE_KERNEL)
        return self._kmalloc(size, gfp_mask & ~self._gfp.highmem)

    def _gather(self, count: int, gfp_mask: int) -> list[int]:
        """``count`` frames, or as many as there are."""
        pages: list[int] = []
        while len(pages) < count:
            page = self._allocator.alloc_page(gfp_mask, "vmalloc")
            if not page:
                break
            pages.append(page)
        return pages

    def _store(self, array: int, pages: list[int], count: int) -> None:
        data = struct.pack(f"<{len(pages)}I", *pages).ljust(count * _POINTER, b"\0")
        if len(data) > PAGE_SIZE:
            self.vwrite(array, data)
        else:
            self._image.ram.write(virt_to_phys(array), data)

    def pages(self, area: int) -> list[int]:
        """``area->pages`` as far as frames stand there, read from RAM."""
        view = self.area(area)
        size = int(view.nr_pages) * _POINTER
        if not view.pages:
            return []
        in_range = int(view.pages) >= self.start
        data = (
            self.vread(int(view.pages), size)
            if in_range
            else self._image.ram.read(virt_to_phys(int(view.pages)), size)
        )
        return list(struct.unpack(f"<{int(view.nr_pages)}I", data))

    # -- freeing -----------------------------------------------------------------------------------

    def vfree(self, addr: int) -> None:
        self._vunmap(addr, deallocate_pages=True)

    def _vunmap(self, addr: int, *, deallocate_pages: bool) -> None:
        """``__vunmap()``."""
        if not addr:
            return
        if addr % PAGE_SIZE:
            self._warn(f"Trying to vfree() bad address ({addr:#010x})", 360)
            return
        pages_of = self._find(addr)
        pages = self.pages(pages_of[1]) if pages_of and deallocate_pages else []
        area = self.remove_vm_area(addr)
        if not area:
            self._warn(f"Trying to vfree() nonexistent vm area ({addr:#010x})", 368)
            return
        if deallocate_pages:
            self._free(area, pages)
        self._kfree(area)

    def _free(self, area: int, pages: list[int]) -> None:
        view = self.area(area)
        for page in pages:
            if not page:
                raise KernelBug("vmalloc.c", 0, f"the area at {view.addr:#x} lacks a frame")
            self._allocator.free_page(page)
        if view.nr_pages > PAGE_SIZE // _POINTER:
            self.vfree(int(view.pages))
        elif view.pages:
            self._kfree(int(view.pages))

    def _warn(self, text: str, line: int) -> None:
        self._image.printk(f"<3>{text}\nBadness in __vunmap at mm/vmalloc.c:{line}\n")

    # -- devices ---------------------------------------------------------------------------------

    def _device_area(self, phys_addr: int, size: int, flags: int) -> int:
        area = self.get_vm_area(size, VM_IOREMAP | flags << IOREMAP_FLAGS_SHIFT)
        if not area:
            return 0
        view = self.area(area)
        view.phys_addr = phys_addr
        return int(view.addr)

    def iounmap(self, addr: int) -> None:
        if addr <= self._statics.high_memory:
            return
        area = self.remove_vm_area(addr & PAGE_MASK)
        if not area:
            self._image.printk(f"__iounmap: bad address {addr:08x}\n")
            return
        self._kfree(area)
