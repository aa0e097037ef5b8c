# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine whose caches are found by virtual address, as far as the kernel has to know of it.

An i386 needs none of the calls of :mod:`kernel_model.arch_i386.cacheflush`. On this monitor's
machine a line of the cache bears the virtual address that it was used by, and stores wait in it: so
an entry may not change while lines of it are there, a store of the kernel through its own address
is not seen at the address of a process, nor the other way round, and instructions are fetched from
RAM. Whatever a process has mapped when it runs may be in the cache afterwards
(:meth:`VirtualCaches.ran`).

Each thing that went wrong is a :class:`MissingFlush` in ``missing``, which says what call would
have helped. Source: book 3.9 and 3.10; Linux ``Documentation/cachetlb.txt``.
"""

from dataclasses import dataclass
from typing import Any, Final

from kernel_model.arch_i386.cacheflush import CacheFlush
from kernel_model.arch_i386.page import PAGE_SHIFT, PAGE_SIZE
from kernel_model.events import Rights
from kernel_model.kernel import Kernel

_PAGE_MASK: Final = ~(PAGE_SIZE - 1)


@dataclass(frozen=True, slots=True)
class MissingFlush:
    """``call`` was not made for the page at ``vaddr``, or for frame ``pfn``."""

    call: str
    what: str
    vaddr: int
    pfn: int

    def __str__(self) -> str:
        return f"{self.what}: page {self.vaddr:#x}, frame {self.pfn:#x}; {self.call}() is missing"


@dataclass(frozen=True, slots=True)
class _Line:
    """What the cache may hold of one page of one address space."""

    pfn: int
    stored: bool


class _Snooper:
    """A processor that also tells the caches what the kernel stored by its own addresses."""

    def __init__(self, processor: Any, caches: "VirtualCaches") -> None:
        self._processor = processor
        self._caches = caches

    def __getattr__(self, name: str) -> Any:
        return getattr(self._processor, name)

    def snoop(self, paddr: int, length: int) -> None:
        self._caches.kernel_stored(paddr, length)
        self._processor.snoop(paddr, length)


class VirtualCaches(CacheFlush):
    """The caches of one machine; a listener of its kernel's events, too."""

    def __init__(self, kernel: Kernel) -> None:
        self.missing: list[MissingFlush] = []
        self._memmap = kernel.allocator.memmap
        self._mapped: dict[tuple[int, int], tuple[int, Rights]] = {}
        self._lines: dict[tuple[int, int], _Line] = {}
        self._kernel_lines: set[int] = set()
        self._stale_code: set[int] = set()
        self._areas: set[tuple[int, int]] = set()
        self._flushed: list[tuple[int, int]] = []

    @classmethod
    def watch(cls, kernel: Kernel) -> "VirtualCaches":
        """Give a booted kernel such caches."""
        caches = _OF_RELEASE[kernel.config.release](kernel)
        kernel.tlb.caches = caches
        kernel.tlb.processor = _Snooper(kernel.tlb.processor, caches)
        kernel.image.events.listeners.append(caches)
        return caches

    def _report(self, call: str, what: str, vaddr: int, pfn: int) -> None:
        self.missing.append(MissingFlush(call, what, vaddr, pfn))

    # -- who uses memory -----------------------------------------------------------------------

    def ran(self, mm: int) -> None:
        """A process ran in ``mm``: it may have used, and stored to, all that it has mapped."""
        for (space, vaddr), (pfn, rights) in self._mapped.items():
            if space != mm or not rights.access:
                continue
            if pfn in self._kernel_lines:
                what = "the process does not see what the kernel stored"
                self._report("flush_page_to_ram or flush_dcache_page", what, vaddr, pfn)
            if rights.execute and pfn in self._stale_code:
                what = "instructions are fetched that were replaced"
                self._report("flush_icache_page", what, vaddr, pfn)
            stored = rights.write or self._holds_stores(mm, vaddr)
            self._lines[mm, vaddr] = _Line(pfn, stored)

    def _holds_stores(self, mm: int, vaddr: int) -> bool:
        line = self._lines.get((mm, vaddr))
        return line is not None and line.stored

    def kernel_stored(self, paddr: int, length: int) -> None:
        """The kernel stored to RAM by its own address of it."""
        frames = range(paddr >> PAGE_SHIFT, (paddr + length - 1 >> PAGE_SHIFT) + 1)
        for (_, vaddr), line in self._lines.items():
            if line.pfn in frames and line.stored:
                what = "what a process stored will overwrite what the kernel stored"
                self._report("flush_dcache_page", what, vaddr, line.pfn)
        self._kernel_lines.update(frames)
        # A frame of a file that nobody has mapped so far. What is stored to others, the process
        # that executes it has to settle by itself.
        mapped = {pfn for pfn, _ in self._mapped.values()}
        self._stale_code.update(pfn for pfn in frames if self._of_a_file(pfn) and pfn not in mapped)

    def _of_a_file(self, pfn: int) -> bool:
        memmap = self._memmap
        return bool(memmap.words[memmap.word(memmap.page(pfn), memmap.mapping_word)])

    def kernel_reads(self, page: int) -> None:
        """The kernel is about to read a page by its own address."""
        pfn = self._memmap.pfn(page)
        for (_, vaddr), line in self._lines.items():
            if line.pfn == pfn and line.stored:
                what = "the kernel does not see what a process stored"
                self._report("flush_dcache_page", what, vaddr, pfn)

    def look_at_areas(self, areas: set[tuple[int, int]]) -> None:
        """``areas``, as [start, end), are where the kernel has mapped pages by now: each that came
        or went since the last look must have been flushed meanwhile."""
        for start, end in areas ^ self._areas:
            if not any(low <= start and end <= high for low, high in self._flushed):
                came = (start, end) in areas
                call = "flush_cache_vmap" if came else "flush_cache_vunmap"
                self._report(call, "the kernel mapped" if came else "the kernel unmapped", start, 0)
        self._areas = areas
        self._flushed.clear()

    # -- what is flushed -----------------------------------------------------------------------

    def _forget(self, mm: int, start: int, end: int) -> None:
        gone = [place for place in self._lines if place[0] == mm and start <= place[1] < end]
        for place in gone:
            del self._lines[place]

    def flush_cache_all(self) -> None:
        self._lines.clear()
        self._kernel_lines.clear()
        self._flushed.append((0, 1 << 32))

    def flush_cache_mm(self, mm: int) -> None:
        self._forget(mm, 0, 1 << 32)

    def flush_cache_range(self, mm: int, start: int, end: int) -> None:
        self._forget(mm, start & _PAGE_MASK, end)

    def flush_cache_page(self, mm: int, vaddr: int) -> None:
        self._lines.pop((mm, vaddr & _PAGE_MASK), None)

    def flush_cache_vmap(self, start: int, end: int) -> None:
        self._flushed.append((start, end))

    def flush_cache_vunmap(self, start: int, end: int) -> None:
        self._flushed.append((start, end))

    def flush_page_to_ram(self, page: int) -> None:
        self.flush_dcache_page(page)

    def flush_dcache_page(self, page: int) -> None:
        pfn = self._memmap.pfn(page)
        self._kernel_lines.discard(pfn)
        gone = [place for place, line in self._lines.items() if line.pfn == pfn]
        for place in gone:
            del self._lines[place]

    def flush_icache_page(self, page: int) -> None:
        self._stale_code.discard(self._memmap.pfn(page))

    def clear_user_page(self, page: int, vaddr: int) -> None:
        self._seen_by_process(page)

    def copy_user_page(self, page: int, vaddr: int) -> None:
        self._seen_by_process(page)

    def _seen_by_process(self, page: int) -> None:
        pfn = self._memmap.pfn(page)
        self._kernel_lines.discard(pfn)
        self._stale_code.discard(pfn)

    # -- what the kernel announces -------------------------------------------------------------

    def _changes(self, mm: int, vaddr: int, what: str) -> None:
        """The entry of a page changes. Lines that are still there will be written to nowhere, or
        to a frame that is somebody else's by then."""
        line = self._lines.pop((mm, vaddr), None)
        if line is not None:
            call = "flush_cache_page, flush_cache_range or flush_cache_mm"
            self._report(call, f"{what} while the cache holds it", vaddr, line.pfn)

    def page_mapped(self, mm: int, vaddr: int, pfn: int, rights: Rights) -> None:
        before = self._mapped.get((mm, vaddr))
        if before is not None and not _only_more(before, (pfn, rights)):
            self._changes(mm, vaddr, "another frame or fewer rights")
        self._mapped[mm, vaddr] = pfn, rights

    def page_unmapped(self, mm: int, vaddr: int) -> None:
        self._changes(mm, vaddr, "unmapped")
        self._mapped.pop((mm, vaddr), None)

    def page_moved(self, mm: int, old: int, new: int) -> None:
        self._changes(mm, old, "moved")
        if (mm, old) in self._mapped:
            self._mapped[mm, new] = self._mapped.pop((mm, old))

    def page_abandoned(self, mm: int, vaddr: int) -> None:
        """It stays mapped for a while; nobody uses it."""

    def frame_taken(self, pfn: int, order: int, purpose: str) -> None:
        """Nothing is in the caches of a frame that was free: else this was told before."""

    def frame_given_back(self, pfn: int, order: int) -> None:
        frames = range(pfn, pfn + (1 << order))
        for (mm, vaddr), line in list(self._lines.items()):
            if line.pfn in frames and line.stored:
                self._changes(mm, vaddr, "its frame given back")
        self._kernel_lines.difference_update(frames)

    def kernel_table_made(self, vaddr: int, size: int) -> None:
        """Tables of the kernel are in no cache by address."""

    def kernel_tables_shared(self, mm: int, vaddr: int, size: int) -> None:
        """Tables of the kernel are in no cache by address."""


class VirtualCaches26(VirtualCaches):
    """Those of a machine that 2.6 runs on."""

    def flush_page_to_ram(self, page: int) -> None:
        """No such call is made."""


_OF_RELEASE: Final = {"2.4": VirtualCaches, "2.6": VirtualCaches26}


def _only_more(before: tuple[int, Rights], after: tuple[int, Rights]) -> bool:
    """Whether what is in the cache stays right: the same frame, no right lost."""
    (pfn, old), (new_pfn, new) = before, after
    return pfn == new_pfn and all(
        getattr(new, name) or not getattr(old, name) for name in ("write", "execute", "access")
    )
