# SPDX-License-Identifier: GPL-2.0-or-later
"""Mappings of high memory that last: the PKMAP window.

Models linux-2.4.22 ``mm/highmem.c`` (book 2.7): ``kmap_high()``, ``kunmap_high()``,
``map_new_virtual()``, ``flush_all_zero_pkmaps()``. In RAM: ``pkmap_count``, ``last_pkmap_nr``,
``pkmap_map_wait``, and the window's one page table. Where a high frame's address is written down
is the release's: in ``page->virtual`` in 2.4, in a hash table in 2.6 (:class:`PageAddresses`).

A count of 0 is an entry that may be used; 1 is one that nobody uses but that is still mapped,
because the TLB may hold it; n is one with n - 1 users. All the 1s are unmapped together, with
one flush, when the search for a free entry comes to the start of the window.

Not modelled: bounce buffers (``create_bounce()`` and its emergency pool), which copy high
frames for devices that cannot reach them; the model has no devices. ``kmap_lock``: one CPU
runs at a time.

What can fail: :class:`BadKmap`, where the kernel has a BUG; :class:`WouldSleep`, when every
entry has a user and nobody else runs who could give one up.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np

from kernel_model.arch_i386.fixmap import fixed_addresses, last_pkmap
from kernel_model.arch_i386.page import PAGE_SHIFT, virt_to_phys
from kernel_model.arch_i386.pgalloc import PageTables
from kernel_model.arch_i386.pgtable import mk_pte, pte_none, pte_pfn
from kernel_model.arch_i386.tlb import Tlb
from kernel_model.errors import EndlessLoop, KernelBug
from kernel_model.image import KernelImage
from kernel_model.lists import Lists
from kernel_model.mm.mmzone import MemMap

_FILE: Final = "highmem.c"


class BadKmap(KernelBug):
    """An entry of the window is not in the state that the operation demands.

    ``pfn`` is the frame, ``vaddr`` the entry's address (0: the frame has none), ``count`` its
    ``pkmap_count``.
    """

    def __init__(self, line: int, reason: str, pfn: int, vaddr: int, count: int) -> None:
        super().__init__(_FILE, line, f"{reason}: frame {pfn:#x} at {vaddr:#x}, count {count}")
        self.pfn = pfn
        self.vaddr = vaddr
        self.count = count


class WouldSleep(EndlessLoop):
    """The process would sleep until another one wakes it, and there is no other."""


class OtherProcesses(Protocol):
    """The rest of the system, as a process that must wait for an entry sees it.

    ``queue`` is the kernel virtual address of a ``wait_queue_head_t``.
    """

    def sleep_on(self, queue: int) -> None:
        """Let others run until one wakes ``queue``."""

    def wake_up(self, queue: int) -> None:
        """Whoever sleeps on ``queue`` may go on."""


class NobodyElse:
    """A system with one process."""

    def sleep_on(self, queue: int) -> None:
        raise WouldSleep("kmap: every entry of the window is in use, and nobody else runs")

    def wake_up(self, queue: int) -> None:
        """Nobody sleeps."""


class PageAddresses(Protocol):
    """Where the kernel notes the address that a high frame has. Pages are ``struct page *``."""

    def page_address(self, page: int) -> int:
        """The address that a frame has now, 0 for none."""

    def set_page_address(self, page: int, vaddr: int) -> None:
        """A high frame is mapped at ``vaddr``, or no longer: 0."""

    def mapped(self) -> Iterator[tuple[int, int]]:
        """(page, address) of each high frame that has one, from the lowest frame up."""


class VirtualField:
    """``page->virtual``, which a kernel with high memory has for every frame."""

    def __init__(self, image: KernelImage, memmap: MemMap) -> None:
        self._statics = image.statics
        self._memmap = memmap
        self._word = image.structs.page.word("virtual")

    def page_address(self, page: int) -> int:
        return self._memmap.words[self._memmap.word(page, self._word)]

    def set_page_address(self, page: int, vaddr: int) -> None:
        self._memmap.words[self._memmap.word(page, self._word)] = vaddr

    def mapped(self) -> Iterator[tuple[int, int]]:
        statics, memmap = self._statics, self._memmap
        first, end = int(statics.highstart_pfn), int(statics.highend_pfn)
        rows = memmap.rows(memmap.page(first), end - first)
        for row in np.flatnonzero(rows[:, self._word]).tolist():
            yield memmap.page(first + row), int(rows[row, self._word])


@dataclass(frozen=True, slots=True)
class Kmap:
    """One mapped entry of the window, from the kernel's records."""

    vaddr: int
    pfn: int
    users: int


class PersistentKmaps:
    """The window of ``kmap()``. Pages are ``struct page *``."""

    def __init__(
        self,
        image: KernelImage,
        memmap: MemMap,
        tables: PageTables,
        tlb: Tlb,
        addresses: PageAddresses,
    ) -> None:
        self._image = image
        self._statics = image.statics
        self._memmap = memmap
        self._addresses = addresses
        self._tables = tables
        self._tlb = tlb
        self._lists = Lists(image.ram)
        self.entries = last_pkmap(image.config.pae)
        """``LAST_PKMAP``."""
        self.base = fixed_addresses(image.config).pkmap_base
        """``PKMAP_BASE``."""
        count_paddr = virt_to_phys(image.symbol("pkmap_count"))
        self._counts = image.ram.table(count_paddr, self.entries)
        self.pkmap_map_wait = image.symbol("pkmap_map_wait")
        self._sleepers = self.pkmap_map_wait + image.structs.wait_queue_head_t.offset("task_list")
        self._lists.init(self._sleepers)
        self.others: OtherProcesses = NobodyElse()

    def pkmap_nr(self, vaddr: int) -> int:
        """``PKMAP_NR``: which entry of the window an address belongs to."""
        return vaddr - self.base >> PAGE_SHIFT

    def pkmap_addr(self, entry: int) -> int:
        """``PKMAP_ADDR``: kernel virtual address of an entry."""
        return self.base + (entry << PAGE_SHIFT)

    # -- the records -------------------------------------------------------------------------

    def virtual(self, page: int) -> int:
        """The address that a frame has now, 0 for none."""
        return self._addresses.page_address(page)

    def count(self, entry: int) -> int:
        """``pkmap_count[entry]``."""
        return int(self._counts[entry])

    def users(self, page: int) -> int:
        """How many ``kmap_high()`` of a high frame wait for their ``kunmap_high()``."""
        vaddr = self.virtual(page)
        return max(self.count(self.pkmap_nr(vaddr)) - 1, 0) if vaddr else 0

    def kmaps(self) -> Iterator[Kmap]:
        """Every entry that is mapped, the unused ones too, from the lowest frame up."""
        if not self._counts.any():
            return
        for page, vaddr in self._addresses.mapped():
            if count := self.count(self.pkmap_nr(vaddr)):
                yield Kmap(vaddr, self._memmap.pfn(page), count - 1)

    # -- mapping -----------------------------------------------------------------------------

    def _ptep(self, entry: int) -> int:
        table = virt_to_phys(self._statics.pkmap_page_table)
        return table + entry * self._tables.shape.entry_bytes

    def flush_all_zero_pkmaps(self) -> None:
        """Unmap every entry that nobody uses, and let the TLB forget them."""
        self._tlb.caches.flush_cache_all()
        for entry in np.flatnonzero(self._counts == 1).tolist():
            self._counts[entry] = 0
            pte = self._tables.ptep_get_and_clear(self._ptep(entry))
            if pte_none(pte):
                raise BadKmap(63, "a mapped entry has no PTE", 0, self.pkmap_addr(entry), 0)
            self._addresses.set_page_address(self._memmap.page(pte_pfn(pte)), 0)
        self._tlb.flush_tlb_all()

    def _next_usable_entry(self) -> int:
        """Search onwards from the last entry that was handed out; -1 when all are in use."""
        left = self.entries
        while True:
            entry = (int(self._statics.last_pkmap_nr) + 1) % self.entries
            self._statics.last_pkmap_nr = entry
            if not entry:
                self.flush_all_zero_pkmaps()
                left = self.entries
            if not self.count(entry):
                return entry
            left -= 1
            if not left:
                return -1

    def map_new_virtual(self, page: int, nonblocking: bool) -> int:
        """An address for a frame that has none. 0 when all are in use and it must not wait."""
        while (entry := self._next_usable_entry()) < 0:
            if nonblocking:
                return 0
            self.others.sleep_on(self.pkmap_map_wait)
            if vaddr := self.virtual(page):
                return vaddr
        vaddr = self.pkmap_addr(entry)
        pte = mk_pte(self._memmap.pfn(page), int(self._statics.kmap_prot))
        self._tables.set_pte(self._ptep(entry), pte)
        self._counts[entry] = 1
        self._addresses.set_page_address(page, vaddr)
        return vaddr

    def kmap_high(self, page: int, nonblocking: bool = False) -> int:
        """One user more of a high frame; returns its kernel virtual address.

        :raises WouldSleep: if the window is full. With ``nonblocking`` the answer is 0 then.
        """
        vaddr = self.virtual(page) or self.map_new_virtual(page, nonblocking)
        if not vaddr:
            return 0
        entry = self.pkmap_nr(vaddr)
        self._counts[entry] += 1
        if self.count(entry) < 2:
            reason = "a frame has an address that is not mapped"
            raise BadKmap(151, reason, self._memmap.pfn(page), vaddr, self.count(entry))
        return vaddr

    def kunmap_high(self, page: int) -> None:
        """One user less of a high frame. It stays mapped until the next flush of the window.

        :raises BadKmap: if it has no user; then nothing is changed.
        """
        vaddr, pfn = self.virtual(page), self._memmap.pfn(page)
        if not vaddr:
            raise BadKmap(166, "unmapped, but it is not mapped", pfn, 0, 0)
        entry = self.pkmap_nr(vaddr)
        count = self.count(entry) - 1
        if count <= 0:
            raise BadKmap(176, "unmapped more often than mapped", pfn, vaddr, count + 1)
        self._counts[entry] = count
        if count == 1 and not self._lists.empty(self._sleepers):
            self.others.wake_up(self.pkmap_map_wait)
