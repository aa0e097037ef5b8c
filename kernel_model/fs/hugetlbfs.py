# SPDX-License-Identifier: GPL-2.0-or-later
"""hugetlbfs: files whose pages are huge pages, there to be mapped.

Models linux-2.6.11 ``fs/hugetlbfs/inode.c`` (book 3.10). Mapping a file is what makes it grow, and
takes its huge pages from the pool; they stand in the page cache by their huge index, on no LRU
list, until the file is truncated or gone. Reading and writing by system call are not offered. A
mount may have a limit of huge pages and of inodes.

In RAM: inodes and their pages, ``struct hugetlbfs_sb_info`` of each mount, the tables of
operations.

What can fail: ``-EINVAL`` for a mapping that is private and writable, or not made of whole huge
pages; ``-ENOMEM`` when the pool or the mount has no more of them. What was mapped until then is
unmapped again, and stays in the file.
"""

from collections.abc import Iterator
from typing import Any, Final, Protocol

from kernel_model.arch_i386.page import PAGE_SHIFT
from kernel_model.errno import EINVAL, ENOMEM, ENOSPC
from kernel_model.errors import KernelBug
from kernel_model.fs.file_table import NamedObjects
from kernel_model.fs.linux_2_6.file_table import TreeFiles
from kernel_model.image import KernelImage
from kernel_model.mm.filemap.linux_2_6.cache import RadixPageCache
from kernel_model.mm.hugetlb.pool import HugePagePool
from kernel_model.mm.hugetlb.tables import HugePageTables
from kernel_model.mm.mmap.areas import Areas
from kernel_model.mm.page_alloc import PageAllocator
from kernel_model.mm.prio_tree import VmaPrioTree
from kernel_model.structs.fs import FMODE_READ, FMODE_WRITE
from kernel_model.structs.linux_2_6.mm import VM_HUGETLB, VM_RESERVED
from kernel_model.structs.mm import VM_MAYSHARE, VM_WRITE

NO_LIMIT: Final = -1
_U32: Final = 0xFFFFFFFF
_MODE: Final = 0o100777


class HugeAddressSpaces(Protocol):
    """The address spaces that map such files."""

    areas: Areas

    def hugetlb_get_unmapped_area(
        self, file: int, addr: int, length: int, pgoff: int, flags: int
    ) -> int:
        """Room for a mapping; below 0 an error."""


class HugetlbFs:
    """Files of huge pages, of all mounts of a machine. An inode and a mount are addresses."""

    def __init__(
        self,
        image: KernelImage,
        slab: NamedObjects,
        allocator: PageAllocator,
        pool: HugePagePool,
        cache: RadixPageCache,
        files: TreeFiles,
        tables: HugePageTables,
        spaces: HugeAddressSpaces,
    ) -> None:
        self.pool = pool
        self._image = image
        self._statics = image.statics
        self._slab = slab
        self._allocator = allocator
        self._memmap = allocator.memmap
        self._huge = pool.huge
        self._cache = cache
        self._files = files
        self._tables = tables
        self._areas = spaces.areas
        self._i_mmap = VmaPrioTree(image.ram)
        self._flags = image.constants.page_flags
        self._fill_operations(spaces)
        self._fill_super(image.symbol("hugetlbfs_kern_sb"), NO_LIMIT, NO_LIMIT)

    def _fill_operations(self, spaces: HugeAddressSpaces) -> None:
        statics, address = self._statics, self._image.functions.address
        statics.hugetlb_vm_ops.nopage = address(self.hugetlb_nopage)
        statics.hugetlbfs_file_operations.mmap = address(self.hugetlbfs_file_mmap)
        statics.hugetlbfs_file_operations.fsync = address(self.simple_sync_file)
        search = address(spaces.hugetlb_get_unmapped_area)
        statics.hugetlbfs_file_operations.get_unmapped_area = search
        statics.hugetlbfs_aops.readpage = address(self.hugetlbfs_readpage)
        refuse = address(self.hugetlbfs_refuse_write)
        statics.hugetlbfs_aops.prepare_write = statics.hugetlbfs_aops.commit_write = refuse
        statics.hugetlbfs_aops.set_page_dirty = address(self.hugetlbfs_set_page_dirty)
        self._files.drop_inode[self._image.symbol("hugetlbfs_aops")] = self.hugetlbfs_drop_inode

    # -- mounts --------------------------------------------------------------------------------

    def mount(self, nr_blocks: int = NO_LIMIT, nr_inodes: int = NO_LIMIT) -> int:
        """Another mount, of at most so many huge pages and inodes; 0: no memory."""
        kind = self._image.structs.hugetlbfs_sb_info
        sb = self._slab.kmalloc(kind.size, self._image.constants.gfp.kernel)
        if sb:
            self._fill_super(sb, nr_blocks, nr_inodes)
        return sb

    def _fill_super(self, sb: int, nr_blocks: int, nr_inodes: int) -> None:
        info = self.super_block(sb)
        info.max_blocks = info.free_blocks = nr_blocks
        info.max_inodes = info.free_inodes = nr_inodes

    def super_block(self, sb: int) -> Any:
        """The ``struct hugetlbfs_sb_info``."""
        return self._image.at(self._image.structs.hugetlbfs_sb_info, sb)

    def put_super(self, sb: int) -> None:
        """The mount is gone."""
        self._slab.kfree(sb)

    def _sb_of(self, mapping: int) -> Any:
        """``HUGETLBFS_SB(mapping->host->i_sb)``."""
        space = self._image.at(self._image.structs.address_space, mapping)
        return self.super_block(int(self._files.inode(int(space.host)).i_sb))

    def _hugetlb_get_quota(self, mapping: int) -> bool:
        """One more huge page of the mount, if it may have that."""
        sb = self._sb_of(mapping)
        if sb.free_blocks > 0:
            sb.free_blocks -= 1
            return True
        return bool(sb.free_blocks < 0)

    def _hugetlb_put_quota(self, mapping: int) -> None:
        sb = self._sb_of(mapping)
        if sb.free_blocks > NO_LIMIT:
            sb.free_blocks += 1

    # -- inodes --------------------------------------------------------------------------------

    def hugetlbfs_get_inode(self, sb: int, mode: int = _MODE) -> int:
        """A file without pages, with one reference; ``-ENOSPC``: the mount may have no more, or
        there is no memory."""
        info = self.super_block(sb)
        if not info.free_inodes:
            return -ENOSPC
        inode = self._files.new_inode(0, self._image.symbol("hugetlbfs_aops"), mode)
        if not inode:
            return -ENOSPC
        if info.free_inodes > NO_LIMIT:
            info.free_inodes -= 1
        view = self._files.inode(inode)
        view.i_sb, view.i_blksize = sb, self._huge.size
        view.i_op = self._image.symbol("hugetlbfs_inode_operations")
        view.i_fop = self._image.symbol("hugetlbfs_file_operations")
        self._cache.init_address_space(int(view.i_mapping))
        return inode

    def hugetlbfs_drop_inode(self, inode: int) -> None:
        """Nobody has the file any more: neither does it have its huge pages."""
        view = self._files.inode(inode)
        self.truncate_hugepages(int(view.i_mapping), 0)
        sb = self.super_block(int(view.i_sb))
        if sb.free_inodes > NO_LIMIT:
            sb.free_inodes += 1

    def open(self, inode: int, name: str, mode: int) -> int:
        """An open file, which has a reference of its own to the inode; 0: no memory."""
        view = self._files.inode(inode)
        view.i_count += 1
        file = self._files.open_inode(inode, name, mode, int(view.i_fop))
        if not file:
            self._files.iput(inode)
        return file

    def hugetlb_zero_setup(self, size: int) -> int:
        """An open file of ``size`` bytes that has no name, for shared memory; below 0 an error.

        Whether the process may have it, its caller asks.
        """
        if not self.pool.is_hugepage_mem_enough(size):
            return -ENOMEM
        self._statics.hugetlbfs_counter += 1
        inode = self.hugetlbfs_get_inode(self._image.symbol("hugetlbfs_kern_sb"))
        if inode < 0:
            return inode
        view = self._files.inode(inode)
        view.i_size, view.i_nlink = size, 0
        name = str(int(self._statics.hugetlbfs_counter))
        operations = self._image.symbol("hugetlbfs_file_operations")
        file = self._files.open_inode(inode, name, FMODE_READ | FMODE_WRITE, operations)
        if not file:
            self._files.iput(inode)
        return file or -ENOMEM

    # -- mapping -------------------------------------------------------------------------------

    def hugetlbfs_file_mmap(self, file: int, vma: int) -> int:
        """Map whole huge pages, and all of them now. 0, or a negative error."""
        area, inode = self._areas.vma(vma), self._files.inode_of(file)
        view, start, length = self._files.inode(inode), area.vm_start, area.vm_end - area.vm_start
        if area.vm_flags & (VM_MAYSHARE | VM_WRITE) == VM_WRITE:
            return -EINVAL
        if area.vm_pgoff & self._huge.frames - 1:
            return -EINVAL
        if not length or self._huge.is_aligned_hugepage_range(start, length):
            return -EINVAL
        area.vm_flags |= VM_HUGETLB | VM_RESERVED
        area.vm_ops = self._image.symbol("hugetlb_vm_ops")
        end = length + (area.vm_pgoff << PAGE_SHIFT)
        if not area.vm_flags & VM_WRITE and end > view.i_size:
            # Who cannot write does not make files grow.
            return -ENOMEM
        mapping = int(view.i_mapping)
        error = self._tables.hugetlb_prefault(
            self._areas.current_mm, vma, lambda index: self._find_or_alloc(mapping, index)
        )
        if not error:
            view.i_size = max(int(view.i_size), end)
        return error

    def _find_or_alloc(self, mapping: int, index: int) -> int:
        """A huge page of the file, with a reference; or ``-ENOMEM``."""
        page = self._cache.find_get_page(mapping, index)
        if page:
            return page
        if not self._hugetlb_get_quota(mapping):
            return -ENOMEM
        page = self.pool.alloc_huge_page()
        error = self._cache.add_off_lru(page, mapping, index) if page else -ENOMEM
        if not error:
            self._memmap.clear_bit(page, self._flags.locked)
            return page
        self._hugetlb_put_quota(mapping)
        if page:
            # 2.6.11 frees it with its user, which its own check would not survive.
            self._allocator.put_page(page)
        return error

    def hugetlb_nopage(self, vma: int, address: int) -> int:
        """A fault never comes as far as this."""
        raise KernelBug("hugetlb.c", 255, f"huge pages fault at {address:#x}")

    # -- truncating ----------------------------------------------------------------------------

    def hugetlbfs_setattr_size(self, inode: int, size: int) -> int:
        """``truncate()`` by a process: whole huge pages only. 0 or ``-EINVAL``."""
        return -EINVAL if size % self._huge.size else self.hugetlb_vmtruncate(inode, size)

    def hugetlb_vmtruncate(self, inode: int, offset: int) -> int:
        """Cut a file off: its mappings first. It cannot grow so: ``-EINVAL``."""
        view = self._files.inode(inode)
        if offset > view.i_size:
            return -EINVAL
        view.i_size = offset
        mapping = int(view.i_mapping)
        self._hugetlb_vmtruncate_list(mapping, offset >> self._huge.shift)
        self.truncate_hugepages(mapping, offset)
        return 0

    def _hugetlb_vmtruncate_list(self, mapping: int, first: int) -> None:
        """Unmap the huge pages from ``first`` on, wherever they are mapped.

        2.6.11 looks into the tree for pages from ``first`` on, as if that were no huge index, and
        so also comes to VMAs that end before it: it takes nothing from them, but from their
        ``rss``. Here they are left alone.
        """
        kind = self._image.structs.address_space
        root = mapping + kind.offset("i_mmap")
        vmas = list(self._i_mmap.overlapping(root, first << self._huge.order, _U32))
        for vma in vmas:
            area = self._areas.vma(vma)
            cut = max(first - (area.vm_pgoff >> self._huge.order), 0) << self._huge.shift
            self._tables.unmap_hugepage_range(vma, area.vm_start + cut, area.vm_end)

    def truncate_hugepages(self, mapping: int, start: int) -> None:
        """The file has its huge pages from byte ``start`` on no longer."""
        for _, page in list(self.pages(mapping, start >> self._huge.shift)):
            self._memmap.clear_bit(page, self._flags.dirty)
            self._memmap.clear_bit(page, self._flags.uptodate)
            self._cache.remove_inode_page(page)
            self._allocator.put_page(page)
            self._hugetlb_put_quota(mapping)

    def pages(self, mapping: int, first: int = 0) -> Iterator[tuple[int, int]]:
        """(huge index, huge page) of each that a file has, from ``first`` on."""
        return self._cache.trees.items(self._cache.tree(mapping), first)

    # -- what is not offered -------------------------------------------------------------------

    def hugetlbfs_readpage(self, file: int, page: int) -> int:
        self._memmap.clear_bit(page, self._flags.locked)
        return -EINVAL

    def hugetlbfs_refuse_write(self, file: int, page: int, start: int, end: int) -> int:
        """``hugetlbfs_prepare_write()`` and ``hugetlbfs_commit_write()``."""
        return -EINVAL

    def hugetlbfs_set_page_dirty(self, page: int) -> int:
        """Nothing would ever be written."""
        return 0

    def simple_sync_file(self, file: int, dentry: int, datasync: int) -> int:
        """Nothing is kept of a file but its pages."""
        return 0
