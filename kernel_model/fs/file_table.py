# SPDX-License-Identifier: GPL-2.0-or-later
"""Open files, and the directory entries and inodes behind them.

Models ``fs/file_table.c: fput()``, ``fs/namei.c: deny_write_access()``, and of ``fs/dcache.c`` and
``fs/inode.c`` what opening and closing needs, of linux-2.4.22; what 2.6.11 lays out otherwise, its
subclass does (:mod:`kernel_model.fs.linux_2_6`). In RAM: ``struct file``,
``struct dentry`` and ``struct inode`` from their slab caches; the inode's own pages hang on its
``i_data``. A file is the kernel virtual address of its ``struct file``.

What can fail: :meth:`Files.open_inode` and :meth:`Files.new_inode` return 0 when memory is out.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Final, Protocol

from kernel_model.arch_i386.page import virt_to_phys
from kernel_model.errno import ETXTBSY
from kernel_model.image import KernelImage
from kernel_model.lists import Lists
from kernel_model.structs.declare import CType
from kernel_model.structs.fs import FMODE_WRITE

S_IFREG: Final = 0o100000


class ObjectCaches(Protocol):
    """The slab allocator, as those who keep structures in it see it."""

    def kmem_cache_alloc(self, cachep: int, flags: int) -> int:
        """An object; 0 when memory is out."""

    def kmem_cache_free(self, cachep: int, objp: int) -> None:
        """Give one back."""


class NamedObjects(ObjectCaches, Protocol):
    """The same with memory for names that are too long for a directory entry."""

    def kmalloc(self, size: int, flags: int) -> int:
        """``size`` bytes; 0 when memory is out."""

    def kfree(self, objp: int) -> None:
        """Give them back."""


@dataclass(frozen=True, slots=True)
class InodeHome:
    """The object that an inode of some file system is a part of."""

    cachep: str
    """The kernel's pointer to the slab cache of such objects."""
    kind: CType
    inode: int
    """Offset of the inode in the object, in bytes."""


class Files:
    """All open files of a machine."""

    _inode_lists: ClassVar[tuple[str, ...]] = (
        *("i_hash", "i_list", "i_dentry", "i_dirty_buffers", "i_dirty_data_buffers"),
    )
    _gfp_mask_field: ClassVar[str] = "gfp_mask"
    """The field of an address space that says what memory its pages are taken from."""
    _mapping_lists: ClassVar[tuple[str, ...]] = ("clean_pages", "dirty_pages", "locked_pages")

    def __init__(self, image: KernelImage, slab: NamedObjects) -> None:
        self._image = image
        self._statics = image.statics
        self._slab = slab
        self._gfp_kernel = image.constants.gfp.kernel
        self._lists = Lists(image.ram)
        self._views: dict[tuple[str, int], Any] = {}
        self.homes: dict[int, InodeHome] = {}
        """File systems whose inodes lie in objects of their own, by their ``a_ops``."""
        self.truncate_inode_pages: Callable[[int], None] = lambda mapping: None
        """Called with the ``i_data`` of an inode that nobody has any more."""
        self.drop_inode: dict[int, Callable[[int], None]] = {}
        """What a file system does with such an inode instead, by the address of its ``a_ops``."""

    # -- views ---------------------------------------------------------------------------------

    def _view(self, kind: CType, vaddr: int) -> Any:
        view = self._views.get((kind.spelling, vaddr))
        if view is None:
            view = self._views[kind.spelling, vaddr] = self._image.at(kind, vaddr)
        return view

    def file(self, file: int) -> Any:
        """The ``struct file``."""
        return self._view(self._image.structs.file, file)

    def inode(self, inode: int) -> Any:
        """The ``struct inode``."""
        return self._view(self._image.structs.inode, inode)

    def inode_of(self, file: int) -> int:
        """``file->f_dentry->d_inode``."""
        dentry = self._view(self._image.structs.dentry, self.file(file).f_dentry)
        return int(dentry.d_inode)

    def name(self, file: int) -> str:
        """The path under which the file was opened, without its first slash."""
        name = self._view(self._image.structs.dentry, self.file(file).f_dentry).d_name
        return self._image.ram.read(virt_to_phys(name.name), name.len).decode("utf-8")

    def d_path(self, file: int) -> str:
        """The path as /proc shows it. A file that has no name any more is marked."""
        deleted = not self.inode(self.inode_of(file)).i_nlink
        return f"/{self.name(file)}" + " (deleted)" * deleted

    def operation(self, file: int, name: str) -> int:
        """The address of one of ``file->f_op``; 0 when the file has none of that name."""
        f_op = self.file(file).f_op
        return (
            int(getattr(self._image.at(self._image.structs.file_operations, f_op), name))
            if (f_op)
            else 0
        )

    def device(self, inode: Any) -> int:
        """The device that the inode of a view is on: major * 256 + minor."""
        return int(inode.i_dev)

    def is_file_hugepages(self, file: int) -> bool:
        """Whether the file is made of huge pages. 0 is no file. 2.4 has none."""
        return False

    # -- opening -------------------------------------------------------------------------------

    def _new(self, cachep: int, kind: CType) -> int:
        vaddr = self._slab.kmem_cache_alloc(cachep, self._gfp_kernel)
        if vaddr:
            self._image.ram.fill(virt_to_phys(vaddr), kind.size)
        return vaddr

    def new_inode(self, size: int, a_ops: int = 0, mode: int = S_IFREG) -> int:
        """An inode for ``size`` bytes, with one reference, whose pages ``a_ops`` reads."""
        structs, home = self._image.structs, self.homes.get(a_ops)
        inode = self._new_object(home) if home else self._new_plain()
        if not inode:
            return 0
        view = self.inode(inode)
        view.i_count, view.i_nlink, view.i_mode, view.i_size = 1, 1, mode, size
        for name in self._inode_lists:
            self._lists.init(inode + structs.inode.offset(name))
        mapping = inode + structs.inode.offset("i_data")
        self._init_mapping(mapping)
        view.i_mapping = mapping
        view.i_data.host, view.i_data.a_ops = inode, a_ops
        self._statics.inodes_stat.nr_inodes += 1
        return inode

    def _new_plain(self) -> int:
        return self._new(int(self._statics.inode_cachep), self._image.structs.inode)

    def _new_object(self, home: InodeHome) -> int:
        """``alloc_inode()`` of a file system that has its own."""
        vaddr = self._new(int(getattr(self._statics, home.cachep)), home.kind)
        return vaddr + home.inode if vaddr else 0

    def _init_mapping(self, mapping: int) -> None:
        """The lists of an ``address_space`` that is zero."""
        for name in self._mapping_lists:
            self._lists.init(mapping + self._image.structs.address_space.offset(name))

    def open_inode(self, inode: int, name: str, mode: int, f_op: int) -> int:
        """An open file with one reference; takes the caller's reference to ``inode``."""
        structs = self._image.structs
        dentry = self._d_alloc(inode, name)
        file = self._new(int(self._statics.filp_cachep), structs.file) if dentry else 0
        if not file:
            if dentry:
                self._d_free(dentry)
            return 0
        view = self.file(file)
        view.f_count, view.f_dentry, view.f_mode, view.f_op = 1, dentry, mode, f_op
        return file

    def _d_alloc(self, inode: int, name: str) -> int:
        """A directory entry with one reference; 0: no memory. It stands for the whole path."""
        kind = self._image.structs.dentry
        dentry = self._new(int(self._statics.dentry_cache), kind)
        if not dentry:
            return 0
        text = name.lstrip("/").encode()
        place = dentry + kind.offset("d_iname")
        if len(text) >= kind.ctype.d_iname.size:
            place = self._slab.kmalloc(len(text) + 1, self._gfp_kernel)
        if not place:
            self._slab.kmem_cache_free(int(self._statics.dentry_cache), dentry)
            return 0
        self._image.ram.write(virt_to_phys(place), text + b"\0")
        entry = self._view(kind, dentry)
        entry.d_count, entry.d_inode, entry.d_parent = 1, inode, dentry
        entry.d_name.name, entry.d_name.len = place, len(text)
        return dentry

    def _d_free(self, dentry: int) -> None:
        kind = self._image.structs.dentry
        place = int(self._view(kind, dentry).d_name.name)
        if place != dentry + kind.offset("d_iname"):
            self._slab.kfree(place)
        self._slab.kmem_cache_free(int(self._statics.dentry_cache), dentry)

    def mapping_gfp_mask(self, mapping: int) -> int:
        """What memory the pages of an address space are taken from."""
        space = self._view(self._image.structs.address_space, mapping)
        return int(getattr(space, self._gfp_mask_field))

    def set_mapping_gfp_mask(self, mapping: int, gfp_mask: int) -> None:
        space = self._view(self._image.structs.address_space, mapping)
        setattr(space, self._gfp_mask_field, gfp_mask)

    # -- references ----------------------------------------------------------------------------

    def get_file(self, file: int) -> None:
        """One more user."""
        self.file(file).f_count += 1

    def fput(self, file: int) -> None:
        """One user less; the last one closes the file."""
        view = self.file(file)
        view.f_count -= 1
        if not view.f_count:
            self._release(file, view)

    def _release(self, file: int, view: Any) -> None:
        inode, dentry = self.inode_of(file), int(view.f_dentry)
        if release := self.operation(file, "release"):
            self._image.functions.call(release, inode, file)
        if view.f_mode & FMODE_WRITE:
            self.inode(inode).i_writecount -= 1
        self._slab.kmem_cache_free(int(self._statics.filp_cachep), file)
        entry = self._view(self._image.structs.dentry, dentry)
        entry.d_count -= 1
        if not entry.d_count:
            self._d_free(dentry)
            self.iput(inode)

    def iput(self, inode: int) -> None:
        """One user of an inode less; with the last one it goes, and its pages with it."""
        view = self.inode(inode)
        view.i_count -= 1
        if not view.i_count:
            if drop_inode := self.drop_inode.get(int(view.i_data.a_ops)):
                drop_inode(inode)
            else:
                self.truncate_inode_pages(int(view.i_mapping))
            self._statics.inodes_stat.nr_inodes -= 1
            self._free_inode(inode, int(view.i_data.a_ops))

    def _free_inode(self, inode: int, a_ops: int) -> None:
        home = self.homes.get(a_ops)
        cachep = home.cachep if home else "inode_cachep"
        objp = inode - (home.inode if home else 0)
        self._slab.kmem_cache_free(int(getattr(self._statics, cachep)), objp)

    # -- who may write ---------------------------------------------------------------------------

    def get_write_access(self, inode: int) -> int:
        """One more who writes; ``-ETXTBSY`` when somebody has forbidden it."""
        view = self.inode(inode)
        if view.i_writecount < 0:
            return -ETXTBSY
        view.i_writecount += 1
        return 0

    def deny_write_access(self, file: int) -> int:
        """Nobody may open the file for writing from now on; ``-ETXTBSY`` when somebody has."""
        inode = self.inode(self.inode_of(file))
        if inode.i_writecount > 0:
            return -ETXTBSY
        inode.i_writecount -= 1
        return 0
