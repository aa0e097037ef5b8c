# SPDX-License-Identifier: GPL-2.0-or-later
"""Writing back: from page tables to the page cache, and from there to the file.

Models linux-2.4.22 ``mm/filemap.c``: ``filemap_fdatasync()``, ``filemap_fdatawait()``,
``filemap_sync()``, ``msync_interval()``, ``sys_msync()`` (book 4.4). In RAM: PG_dirty, and what the
page cache keeps of an address space: 2.4 has lists of its clean and dirty pages and of those that
are written, 2.6 marks in its tree. Writing takes no time here, so it is over at once.

What can fail: what the file system's ``writepage`` returns; bad arguments of ``msync()``.
"""

from collections.abc import Callable
from typing import ClassVar, Final

from kernel_model.arch_i386.page import PAGE_MASK, PAGE_OFFSET, PAGE_SIZE
from kernel_model.arch_i386.pgtable import pte_dirty, pte_mkclean, pte_pfn, pte_present
from kernel_model.errno import EBUSY, EINVAL, EIO, ENOMEM
from kernel_model.mm.filemap.pages import FilePages, UserPageTables
from kernel_model.mm.page_flags import PG_DIRTY, PG_ERROR, PG_LOCKED
from kernel_model.structs.linux_2_6.mm import VM_HUGETLB
from kernel_model.structs.mm import VM_LOCKED, VM_SHARED

MS_ASYNC: Final = 1
MS_INVALIDATE: Final = 2
MS_SYNC: Final = 4

FindVma = Callable[[int, int], int]
"""``find_vma(mm, address)``: the first VMA that ends behind ``address``; 0 for none."""


class WriteBack:
    """Dirty pages of address spaces reach their files."""

    def __init__(self, pages: FilePages) -> None:
        self._pages = pages

    def filemap_fdatasync(self, mapping: int) -> int:
        """Start to write every dirty page, oldest first. The first ``-errno``, or 0."""
        pages, memmap, result = self._pages, self._pages.memmap, 0
        for page in pages.cache.take_dirty(mapping):
            if not memmap.test(page, PG_DIRTY):
                continue
            pages.allocator.get_page(page)
            pages.lock_page(page)
            pages.cache.clear_page_dirty(page)
            error = pages.writepage(page)
            result = result or error
            pages.allocator.put_page(page)
        return result

    def sync_file(self, file: int, *, datasync: bool) -> int:
        """Write a file's dirty pages, and what else its file system keeps, and wait for both."""
        pages, mapping = self._pages, self._pages.mapping_of(file)
        errors = [self.filemap_fdatasync(mapping)]
        if fsync := pages.files.operation(file, "fsync"):
            dentry = int(pages.files.file(file).f_dentry)
            errors.append(pages.image.functions.call(fsync, file, dentry, int(datasync)))
        errors.append(self.filemap_fdatawait(mapping))
        return next(filter(None, errors), 0)

    def sys_fsync(self, file: int) -> int:
        """``fsync()`` of an open file. 0 or ``-errno``."""
        if not self._pages.files.operation(file, "fsync"):
            return -EINVAL
        return self.sync_file(file, datasync=False)

    def filemap_fdatawait(self, mapping: int) -> int:
        """Wait for what is being written. 0, or ``-EIO`` when one of it failed."""
        pages, memmap, result = self._pages, self._pages.memmap, 0
        for page in pages.cache.take_written(mapping):
            if not memmap.test(page, PG_LOCKED):
                continue
            pages.lock_page(page)
            result = -EIO if memmap.test(page, PG_ERROR) else result
        return result


class MemorySync:
    """``msync()``: what processes wrote through their mappings reaches the files."""

    wrapped: ClassVar[int] = -EINVAL
    """What a range comes to whose end lies before its start."""

    def __init__(
        self, pages: FilePages, write_back: WriteBack, tables: UserPageTables, find_vma: FindVma
    ) -> None:
        self._pages = pages
        self._write_back = write_back
        self._tables = tables
        self._find_vma = find_vma
        self._statics = pages.image.statics
        ram = pages.image.ram
        self._words = ram.words
        wide = pages.image.config.pae
        self._read = ram.read64 if wide else ram.read32
        self._set = ram.write64 if wide else ram.write32
        vma = pages.image.structs.vm_area_struct
        self._vm_start, self._vm_end = vma.word("vm_start"), vma.word("vm_end")
        self._vm_flags, self._vm_file = vma.word("vm_flags"), vma.word("vm_file")
        self._vm_mm = vma.word("vm_mm")

    def filemap_sync(self, vma: int, start: int, size: int) -> None:
        """Move the dirty bits of a range of PTEs to their pages."""
        pages, tlb = self._pages, self._pages.tlb
        pgd, end = (
            self._tables.pgd(self._words[(vma - PAGE_OFFSET >> 2) + self._vm_mm]),
            start + size,
        )
        tlb.caches.flush_cache_range(pgd, start, end)
        for vaddr, ptep in self._tables.ptes(pgd, start, end):
            pte = self._read(ptep)
            if not pte_present(pte) or not pte_dirty(pte) or not self._counted(pte):
                continue
            self._set(ptep, pte_mkclean(pte))
            # With the entry in its TLB as dirty, the CPU would not set the bit again.
            tlb.flush_tlb_page(pgd, vaddr)
            pages.cache.set_page_dirty(pages.memmap.page(pte_pfn(pte)))
        # One of the two flushes would do on this CPU; the kernel has both.
        tlb.flush_tlb_range(pgd, start, end)

    def _counted(self, pte: int) -> bool:
        """Whether there is a ``struct page`` for the frame, and the frame is not reserved."""
        pfn = pte_pfn(pte)
        if pfn >= self._statics.max_mapnr:
            return False
        return not self._pages.memmap.reserved(self._pages.memmap.page(pfn))

    def msync_interval(self, vma: int, start: int, end: int, flags: int) -> int:
        """``msync()`` of a part of one VMA. 0 or ``-errno``."""
        pages, at = self._pages, vma - PAGE_OFFSET >> 2
        vm_flags, file = self._words[at + self._vm_flags], self._words[at + self._vm_file]
        if flags & MS_INVALIDATE and vm_flags & VM_LOCKED:
            return -EBUSY
        if not file or not vm_flags & VM_SHARED:
            return 0
        if not vm_flags & VM_HUGETLB:
            # Huge pages have no PTEs to look at, and no disk to go to.
            self.filemap_sync(vma, start, end - start)
        if not flags & (MS_SYNC | MS_ASYNC):
            return 0
        if flags & MS_SYNC:
            return self._write_back.sync_file(file, datasync=True)
        return self._start_writing(pages.mapping_of(file))

    def _start_writing(self, mapping: int) -> int:
        """``MS_ASYNC``: begin, and do not wait. 0 or ``-errno``."""
        return self._write_back.filemap_fdatasync(mapping)

    def sys_msync(self, start: int, length: int, flags: int) -> int:
        """``msync()`` of the current process. 0 or ``-errno``.

        A hole in the range does not keep the rest from being written; it shows at the end.
        """
        end = start + (length + PAGE_SIZE - 1 & PAGE_MASK) & 0xFFFFFFFF
        if start & ~PAGE_MASK:
            return -EINVAL
        if flags & ~(MS_ASYNC | MS_INVALIDATE | MS_SYNC) or (flags & MS_ASYNC and flags & MS_SYNC):
            return -EINVAL
        if end < start:
            return self.wrapped
        mm, unmapped = int(self._pages.current.mm), 0
        while start < end:
            vma = self._find_vma(mm, start)
            if not vma:
                return -ENOMEM
            at = vma - PAGE_OFFSET >> 2
            vm_start, vm_end = self._words[at + self._vm_start], self._words[at + self._vm_end]
            if start < vm_start:
                start, unmapped = vm_start, -ENOMEM
                if start >= end:
                    break
            error = self.msync_interval(vma, start, min(end, vm_end), flags)
            if error:
                return error
            start = vm_end
        return unmapped
