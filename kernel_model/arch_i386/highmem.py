# SPDX-License-Identifier: GPL-2.0-or-later
"""How the kernel reaches a frame: through the direct map, or through a mapping made for it.

Models linux-2.4.22 ``include/asm-i386/highmem.h``, ``include/asm-i386/kmap_types.h``, and for
kernels without high memory ``include/linux/highmem.h`` (book 2.7, 3.7). In RAM: the PTEs of the
``kmap_atomic()`` slots in the fixmap; for the rest see :mod:`kernel_model.mm.highmem`.

No record says which frame a ``kmap_atomic()`` slot holds, so that is announced
(:mod:`kernel_model.events`), in the address space ``SWAPPER_PG_DIR``. Unless it is built with
CONFIG_DEBUG_HIGHMEM, ``kunmap_atomic()`` does nothing: the slot stays mapped until the next
use, even when its frame has been freed meanwhile.

Not modelled: interrupts, and with them the check that ``kmap()`` is not called in one.

What can fail: :class:`~kernel_model.mm.highmem.BadKmap` and
:class:`~kernel_model.mm.highmem.WouldSleep` by way of ``kmap()``; with CONFIG_DEBUG_HIGHMEM
a :class:`~kernel_model.errors.KernelBug` for a slot that is in use, or is not the one given.
"""

import enum
from collections.abc import Iterator
from typing import Final

from kernel_model.arch_i386.fixmap import fixed_addresses
from kernel_model.arch_i386.page import (
    PAGE_MASK,
    PAGE_SHIFT,
    PAGE_SIZE,
    phys_to_virt,
    virt_to_phys,
)
from kernel_model.arch_i386.pgalloc import PageTables
from kernel_model.arch_i386.pgtable import mk_pte, pte_none
from kernel_model.arch_i386.regions import KernelMapping
from kernel_model.arch_i386.tlb import Tlb
from kernel_model.config import Highmem
from kernel_model.errors import KernelBug
from kernel_model.events import Rights
from kernel_model.image import SWAPPER_PG_DIR, KernelImage
from kernel_model.mm.highmem import PageAddresses, PersistentKmaps, VirtualField
from kernel_model.mm.mmzone import MemMap

_FILE: Final = "highmem.h"
_RIGHTS: Final = Rights(write=True, user=False)


class KmType(enum.IntEnum):
    """``enum km_type`` of 2.4: who may use a slot, so that no two uses meet on one CPU."""

    BOUNCE_READ = 0
    SKB_SUNRPC_DATA = 1
    SKB_DATA_SOFTIRQ = 2
    USER0 = 3
    USER1 = 4
    BH_IRQ = 5
    SOFTIRQ0 = 6
    SOFTIRQ1 = 7


class KmType26(enum.IntEnum):
    """``enum km_type`` of 2.6: page tables have slots too, for they may lie in high memory."""

    BOUNCE_READ = 0
    SKB_SUNRPC_DATA = 1
    SKB_DATA_SOFTIRQ = 2
    USER0 = 3
    USER1 = 4
    BIO_SRC_IRQ = 5
    BIO_DST_IRQ = 6
    PTE0 = 7
    PTE1 = 8
    IRQ0 = 9
    IRQ1 = 10
    SOFTIRQ0 = 11
    SOFTIRQ1 = 12


class DirectMapping:
    """A kernel without high memory: every frame has its address for life.

    Pages are ``struct page *``, addresses kernel virtual.
    """

    def __init__(self, memmap: MemMap) -> None:
        self._memmap = memmap

    @property
    def highmem_pages(self) -> int:
        """Frames above the direct map, holes included."""
        return 0

    def page_address(self, page: int) -> int:
        """Where a frame can be reached now; 0 when it has no address (book 3.7)."""
        return phys_to_virt(self._memmap.pfn(page) << PAGE_SHIFT)

    def kmap(self, page: int) -> int:
        """An address for a frame, until :meth:`kunmap`. May sleep."""
        return self.page_address(page)

    def kmap_nonblock(self, page: int) -> int:
        """:meth:`kmap` that never sleeps; 0 when it would have to."""
        return self.page_address(page)

    def kunmap(self, page: int) -> None:
        """The frame's address is not needed any more."""

    def kmap_atomic(self, page: int, kind: KmType | KmType26) -> int:
        """An address for a frame in this CPU's slot ``kind``. Never sleeps."""
        return self.page_address(page)

    def kunmap_atomic(self, kvaddr: int, kind: KmType | KmType26) -> None:
        """The address ``kvaddr`` that :meth:`kmap_atomic` gave is not needed any more."""

    def mappings(self) -> Iterator[KernelMapping]:
        """What ``kmap()`` has mapped outside the direct map, from the kernel's records."""
        return iter(())


class HighMemory(DirectMapping):
    """A kernel with high memory: frames from ``highmem_start_page`` on have no fixed address."""

    def __init__(
        self,
        image: KernelImage,
        memmap: MemMap,
        tables: PageTables,
        tlb: Tlb,
        addresses: PageAddresses,
    ) -> None:
        super().__init__(memmap)
        self._image = image
        self._statics = image.statics
        self._events = image.events
        self._tables = tables
        self._tlb = tlb
        self._debug = image.config.debug_highmem
        self._fixed = fixed = fixed_addresses(image.config)
        self._fixaddr_start = fixed.start
        self._first_slot = fixed.slots["FIX_KMAP_BEGIN"]
        self.pkmaps = PersistentKmaps(image, memmap, tables, tlb, addresses)

    @property
    def highmem_pages(self) -> int:
        return int(self._statics.highend_pfn) - int(self._statics.highstart_pfn)

    def is_low(self, page: int) -> bool:
        """Whether the direct map reaches the frame."""
        return page < int(self._statics.highmem_start_page)

    def page_address(self, page: int) -> int:
        return self.pkmaps.virtual(page)

    # -- kmap() ------------------------------------------------------------------------------

    def kmap(self, page: int) -> int:
        return self.page_address(page) if self.is_low(page) else self.pkmaps.kmap_high(page)

    def kmap_nonblock(self, page: int) -> int:
        if self.is_low(page):
            return self.page_address(page)
        return self.pkmaps.kmap_high(page, nonblocking=True)

    def kunmap(self, page: int) -> None:
        if not self.is_low(page):
            self.pkmaps.kunmap_high(page)

    def mappings(self) -> Iterator[KernelMapping]:
        for kmap in self.pkmaps.kmaps():
            purpose = "kmap" if kmap.users else "kmap, unused until the next flush"
            yield KernelMapping(kmap.vaddr, kmap.pfn << PAGE_SHIFT, PAGE_SIZE, _RIGHTS, purpose)

    # -- kmap_atomic() -----------------------------------------------------------------------

    def _slot(self, kind: KmType | KmType26) -> tuple[int, int]:
        """Address and PTE of this CPU's slot. Slots run downwards, and so do their PTEs."""
        index = kind + self._fixed.plan.km_type_nr * int(self._image.current_task.processor)
        first = virt_to_phys(self._statics.kmap_pte)
        ptep = first - index * self._tables.shape.entry_bytes
        return self._fixed.to_virt(self._first_slot + index), ptep

    def kmap_atomic(self, page: int, kind: KmType | KmType26) -> int:
        if self.is_low(page):
            return self.page_address(page)
        vaddr, ptep = self._slot(kind)
        if self._debug and not pte_none(self._tables.entry(ptep)):
            raise KernelBug(_FILE, 101, f"slot KM_{kind.name} at {vaddr:#x} is in use")
        pfn = self._memmap.pfn(page)
        self._tables.set_pte(ptep, mk_pte(pfn, int(self._statics.kmap_prot)))
        self._tlb.processor.flush_tlb_one(vaddr)
        self._events.page_mapped(SWAPPER_PG_DIR, vaddr, pfn, _RIGHTS)
        return vaddr

    def kunmap_atomic(self, kvaddr: int, kind: KmType | KmType26) -> None:
        vaddr = kvaddr & PAGE_MASK
        if vaddr < self._fixaddr_start:
            return
        if not self._debug:
            self._events.page_abandoned(SWAPPER_PG_DIR, vaddr)
            return
        slot, ptep = self._slot(kind)
        if vaddr != slot:
            raise KernelBug(_FILE, 119, f"{vaddr:#x} is not slot KM_{kind.name}, {slot:#x}")
        self._tables.pte_clear(ptep)
        self._tlb.processor.flush_tlb_one(vaddr)
        self._events.page_unmapped(SWAPPER_PG_DIR, vaddr)


def direct_or_high(
    image: KernelImage, memmap: MemMap, tables: PageTables, tlb: Tlb
) -> DirectMapping:
    """What the build of a 2.4 kernel has, chosen once."""
    if image.config.highmem is Highmem.NONE:
        return DirectMapping(memmap)
    return HighMemory(image, memmap, tables, tlb, VirtualField(image, memmap))
