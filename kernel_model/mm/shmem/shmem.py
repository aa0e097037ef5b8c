# SPDX-License-Identifier: GPL-2.0-or-later
"""The pages of shmem files: in the page cache, in the swap cache, or out.

Models linux-2.4.22 ``mm/shmem.c``: ``shmem_getpage()``, ``shmem_nopage()``,
``shmem_writepage()``, ``shmem_truncate()``, ``shmem_recalc_inode()``, ``shmem_notify_change()``,
``shmem_delete_inode()`` (book 4.4.1, 4.6). In RAM: cached frames, swap entries, ``i_blocks``,
``free_blocks``.

A page is in one place at a time. The file caches it while somebody may use it. When reclaim
wants its frame, the frame moves to the swap cache, and the file keeps the slot's name; from
there it is written and freed like any other. A page that was never written to is simply
dropped: it would be zeros again; :meth:`Shmem.recalc_inode` finds out how many were.

What can fail: no memory, ``-ENOMEM``; no blocks left, ``-ENOSPC``; a page behind the end of the
file, ``-EINVAL``. Without a free slot a page stays.
"""

import enum
from collections.abc import Callable
from typing import Any, Final

from kernel_model.arch_i386.page import PAGE_OFFSET, PAGE_SHIFT, PAGE_SIZE
from kernel_model.errno import EAGAIN, EFBIG, EINVAL, EIO, ENOMEM, ENOSPC
from kernel_model.errors import EndlessLoop, KernelBug
from kernel_model.mm.filemap import Filemap, FilePages
from kernel_model.mm.filemap.nopage import NOPAGE_OOM, NOPAGE_SIGBUS
from kernel_model.mm.page_flags import PG_DIRTY, PG_REFERENCED, PG_UPTODATE
from kernel_model.mm.shmem.entries import SHMEM_MAX_INDEX, SwapEntries
from kernel_model.mm.swap_state import SwapCache
from kernel_model.structs.linux_2_6.mm import VM_ACCOUNT
from kernel_model.structs.mm import VM_LOCKED

BLOCKS_PER_PAGE: Final = PAGE_SIZE // 512
_FRUITLESS: Final = 8
"""Times in a row that a page got no place in the page cache, after which nothing will change."""
WRITEPAGE_ACTIVATE: Final = 0x80000
"""What ``writepage`` of 2.6 returns for a frame that it leaves locked, to be put on the active
list."""


class Sgp(enum.Enum):
    """What ``shmem_getpage()`` may do for a page that is not there."""

    READ = "nothing: a page that was never written to is a hole"
    CACHE = "make it"


class Shmem:
    """``shmem_aops`` and ``shmem_vm_ops`` of one machine. An inode is an address."""

    def __init__(self, pages: FilePages, filemap: Filemap, swap: SwapCache) -> None:
        self._pages = pages
        self._filemap = filemap
        self._swap = swap
        self._memmap = pages.memmap
        self._launder = pages.image.constants.page_flags.mask("launder")
        self._words = pages.image.ram.words
        self.entries = SwapEntries(pages.image, pages.allocator)
        self.vm_unacct_memory: Callable[[int], None] = lambda pages: None
        """Called when a file goes that was charged, as 2.6 does."""
        self._sb: Any = pages.image.statics.shmem_sb
        vma = pages.image.structs.vm_area_struct
        self._vm_start, self._vm_file = vma.word("vm_start"), vma.word("vm_file")
        self._vm_pgoff = vma.word("vm_pgoff")
        statics, address = pages.image.statics, pages.image.functions.address
        statics.shmem_vm_ops.nopage = address(self.shmem_nopage)
        statics.shmem_aops.writepage = address(self.shmem_writepage)
        statics.shmem_inode_operations.truncate = address(self.shmem_truncate)
        statics.shmem_file_operations.mmap = address(self.shmem_mmap)
        filemap.evict.clear_inode[pages.image.symbol("shmem_aops")] = self.shmem_delete_inode

    # -- counting ------------------------------------------------------------------------------

    def recalc_inode(self, inode: int) -> None:
        """``shmem_recalc_inode()``: blocks of pages that reclaim dropped are free again."""
        view = self._pages.files.inode(inode)
        held = int(view.i_data.nrpages) + int(self.entries.info(inode).swapped)
        freed = int(view.i_blocks) // BLOCKS_PER_PAGE - held
        if freed > 0:
            view.i_blocks -= freed * BLOCKS_PER_PAGE
            self._sb.free_blocks += freed

    # -- pages come ----------------------------------------------------------------------------

    def shmem_getpage(self, inode: int, index: int, sgp: Sgp) -> int:
        """A page of the file, up to date, unlocked, with a reference. 0: a hole; or ``-errno``.

        Where only the page cache had no memory for it, the kernel waits a little and begins anew.
        """
        if index >= SHMEM_MAX_INDEX:
            return -EFBIG
        for _ in range(_FRUITLESS):
            page = self._getpage(inode, index, sgp)
            if page != -EAGAIN:
                return page
        raise EndlessLoop("shmem_getpage: the page cache gets no memory, and nobody will free any")

    def _getpage(self, inode: int, index: int, sgp: Sgp) -> int:
        """The same, or ``-EAGAIN``."""
        view = self._pages.files.inode(inode)
        mapping = int(view.i_mapping)
        page = self._pages.cache.find_get_page(mapping, index)
        if page:
            return page
        if index << PAGE_SHIFT >= view.i_size:
            return -EINVAL
        if sgp is Sgp.READ:
            place = self.entries.shmem_swp_entry(inode, index)
            if not place or not self._words[place]:
                return 0
        else:
            place = self.entries.shmem_swp_alloc(inode, index)
            if not place:
                return -ENOMEM
        if self._words[place]:
            return self._swap_in(inode, mapping, index, place)
        return self._new_page(inode, mapping, index)

    def _new_page(self, inode: int, mapping: int, index: int) -> int:
        """A page of zeros."""
        self.recalc_inode(inode)
        if not self._sb.free_blocks:
            return -ENOSPC
        self._sb.free_blocks -= 1
        pages = self._pages
        page = pages.page_cache_alloc(mapping)
        if not page:
            self._sb.free_blocks += 1
            return -ENOMEM
        if pages.cache.add_to_page_cache(page, mapping, index):
            pages.allocator.put_page(page)
            self._sb.free_blocks += 1
            return -EAGAIN
        pages.files.inode(inode).i_blocks += BLOCKS_PER_PAGE
        pages.clear_frame(page)
        pages.tlb.caches.flush_dcache_page(page)
        self._memmap.set_bit(page, PG_UPTODATE)
        pages.unlock_page(page)
        return page

    def _swap_in(self, inode: int, mapping: int, index: int, place: int) -> int:
        """A page that is out: from the swap cache, into which it is read if need be."""
        pages, swap, entry = self._pages, self._swap, self._words[place]
        page = swap.lookup(entry) or swap.read(entry)
        if not page:
            return -ENOMEM
        pages.lock_page(page)
        if not pages.uptodate(page):
            pages.unlock_page(page)
            pages.allocator.put_page(page)
            return -EIO
        swap.remove(page)
        pages.allocator.put_page(page)
        if pages.cache.add_to_page_cache(page, mapping, index):
            # The kernel looks before it takes the page out; what that left puts it back.
            swap.add(page, entry)
            pages.cache.set_page_dirty(page)
            pages.unlock_page(page)
            pages.allocator.put_page(page)
            return -EAGAIN
        self._words[place] = 0
        self.entries.info(inode).swapped -= 1
        self._memmap.set_bit(page, PG_UPTODATE)
        # Its slot is given up, so nobody else knows what is in the frame.
        pages.cache.set_page_dirty(page)
        swap.areas.swap_free(entry)
        pages.unlock_page(page)
        return page

    def shmem_nopage(self, vma: int, address: int) -> int:
        """The page at ``address``, with a reference; ``NOPAGE_SIGBUS`` or ``NOPAGE_OOM``."""
        words, at = self._words, vma - PAGE_OFFSET >> 2
        index = (address - words[at + self._vm_start] >> PAGE_SHIFT) + words[at + self._vm_pgoff]
        inode = self._pages.files.inode_of(words[at + self._vm_file])
        page = self.shmem_getpage(inode, index, Sgp.CACHE)
        if page < 0:
            return NOPAGE_OOM if page == -ENOMEM else NOPAGE_SIGBUS
        self._pages.allocator.lru.mark_page_accessed(page)
        self._pages.tlb.caches.flush_page_to_ram(page)
        return page

    # -- pages go ------------------------------------------------------------------------------

    def shmem_writepage(self, page: int) -> int:
        """Move a locked frame that reclaim wants to the swap cache, dirty."""
        pages, memmap, cache = self._pages, self._memmap, self._pages.cache
        inode, index = int(pages.space(cache.mapping(page)).host), cache.index(page)
        info = self.entries.info(inode)
        if not self._reclaimed(page) or info.flags & VM_LOCKED:
            return self._fail_writepage(page)
        entry = self._swap.areas.get_swap_page()
        if not entry:
            return self._fail_writepage(page)
        self.recalc_inode(inode)
        place = self.entries.shmem_swp_entry(inode, index)
        if not place or self._words[place]:
            raise KernelBug("shmem.c", 0, f"page {index} is cached, and its entry not free")
        if not self._swap.move_to_swap_cache(page, entry):
            self._swap.areas.swap_free(entry)
            return self._fail_writepage(page)
        self._words[place] = entry
        info.swapped += 1
        memmap.set_bit(page, PG_UPTODATE)
        cache.set_page_dirty(page)
        pages.unlock_page(page)
        return 0

    def _reclaimed(self, page: int) -> bool:
        """Whether reclaim asks; in 2.4 it says so at the frame, in 2.6 nobody else does."""
        return not self._launder or bool(self._memmap.flags(page) & self._launder)

    def _fail_writepage(self, page: int) -> int:
        """``fail_writepage()``: the page stays as it is; reclaim shall not ask again soon."""
        if not self._launder:
            self._pages.cache.set_page_dirty(page)
            return WRITEPAGE_ACTIVATE
        if self._reclaimed(page):
            self._pages.allocator.lru.activate_page(page)
            self._memmap.set_bit(page, PG_REFERENCED)
        self._memmap.set_bit(page, PG_DIRTY)
        self._pages.unlock_page(page)
        return 0

    def shmem_truncate(self, inode: int) -> None:
        """``i_size`` has been cut, and so has the page cache: now what is out."""
        first = int(self._pages.files.inode(inode).i_size) + PAGE_SIZE - 1 >> PAGE_SHIFT
        freed = self.entries.truncate(inode, first, self._swap.free_swap_and_cache)
        self.entries.info(inode).swapped -= freed
        self.recalc_inode(inode)

    # -- files shrink and go -------------------------------------------------------------------

    def notify_change(self, inode: int, size: int) -> int:
        """``shmem_notify_change()``: another size for the file. 0 or ``-errno``.

        The page that is cut in the middle is brought in before, so that its end is cleared.
        """
        page = 0
        if size < self._pages.files.inode(inode).i_size and size % PAGE_SIZE:
            page = self.shmem_getpage(inode, size >> PAGE_SHIFT, Sgp.READ)
        error = self._filemap.vmtruncate(inode, size)
        if page > 0:
            self._pages.allocator.put_page(page)
        return error

    def shmem_delete_inode(self, inode: int) -> None:
        """The last user of a file is gone, and so are its cached pages: free its slots."""
        view = self._pages.files.inode(inode)
        if self.entries.info(inode).flags & VM_ACCOUNT:
            self.vm_unacct_memory(int(view.i_size) + PAGE_SIZE - 1 >> PAGE_SHIFT)
        view.i_size = 0
        self.shmem_truncate(inode)
        if view.i_blocks:
            raise KernelBug("shmem.c", 0, f"a deleted file still has {view.i_blocks} blocks")
        self._sb.free_inodes += 1

    def shmem_mmap(self, file: int, vma: int) -> int:
        """``f_op->mmap``: a VMA of a file that exists."""
        view = self._pages.image.at(self._pages.image.structs.vm_area_struct, vma)
        view.vm_ops = self._pages.image.symbol("shmem_vm_ops")
        return 0
