# SPDX-License-Identifier: GPL-2.0-or-later
"""Mapping memory without an MMU: every mapping is one piece of physical memory.

Models linux-2.6.11 ``mm/nommu.c`` (book 3.10). ``mmap()`` is ``kmalloc()``, and a private file is
read into what that gives; nothing can be placed, grown beyond its block, protected or copied on
write. What nobody may write is shared by all who map the same pages of a file, which is why VMAs
stand in one tree for the whole machine and are counted.

In RAM: ``nommu_vma_tree``, a red-black tree of ``struct vm_area_struct`` by ``vm_start``; for each
process the list ``mm->context.vmlist`` of ``struct vm_list_struct``; ``mm->brk`` below
``mm->context.end_brk``. All come from ``kmalloc()``. Not modelled: a VMA's place in ``i_mmap``,
which nothing reads here.

What can fail: everything that needs an MMU is refused with ``-EINVAL``, ``-EPERM`` or ``-ENODEV``;
``-ENOMEM`` when memory is out. ``vmap()`` and ``vunmap()`` are a :class:`KernelBug`, as in Linux.
"""

from collections.abc import Iterator
from typing import Any, Final, NoReturn, Protocol

from kernel_model.arch_i386.page import PAGE_SHIFT, PAGE_SIZE, TASK_SIZE, virt_to_phys
from kernel_model.errno import EACCES, EFAULT, EINVAL, ENODEV, ENOMEM, ENOSYS, EPERM
from kernel_model.errors import KernelBug
from kernel_model.image import KernelImage
from kernel_model.mm.rbtree import LEFT, RB_LEFT_BYTES, RB_RIGHT_BYTES, RIGHT, RbTree
from kernel_model.structs.fs import FMODE_WRITE, S_APPEND
from kernel_model.structs.mm import (
    VM_IO,
    VM_MAYEXEC,
    VM_MAYREAD,
    VM_MAYSHARE,
    VM_MAYWRITE,
    VM_SHARED,
)
from kernel_model.structs.mman import (
    MAP_DENYWRITE,
    MAP_EXECUTABLE,
    MAP_FIXED,
    MAP_GROWSDOWN,
    MAP_PRIVATE,
    MAP_SHARED,
    MREMAP_FIXED,
    PROT_EXEC,
    PROT_READ,
    PROT_WRITE,
)

_SAME_BITS: Final = (
    PROT_READ | PROT_WRITE | PROT_EXEC,
    MAP_GROWSDOWN | MAP_DENYWRITE | MAP_EXECUTABLE,
)
"""The bits of ``prot`` and of ``flags`` that stand in ``vm_flags`` as they are."""
_ERRNO_LIMIT: Final = 4096


class ContiguousMemory(Protocol):
    """The slab allocator, as a source of memory that lies in one piece."""

    def kmalloc(self, size: int, flags: int) -> int:
        """``size`` bytes; 0 when memory is out."""

    def kfree(self, objp: int) -> None:
        """Give them back."""

    def ksize(self, objp: int) -> int:
        """Bytes that the object at ``objp`` really takes."""


class MappableFiles(Protocol):
    """Open files, as far as a mapping without an MMU asks about them."""

    def inode_of(self, file: int) -> int:
        """The address of the file's ``struct inode``."""

    def i_flags(self, file: int) -> int:
        """``inode->i_flags``."""

    def f_mode(self, file: int) -> int:
        """``FMODE_READ`` and ``FMODE_WRITE``."""

    def has_mmap(self, file: int) -> bool:
        """Whether ``f_op->mmap`` exists."""

    def memory_backed(self, file: int) -> bool:
        """Whether the file's pages, or the device's memory, lie in the address space anyway."""

    def get_unmapped_area(self, file: int, length: int, pgoff: int) -> int:
        """``f_op->get_unmapped_area``: where the file's own memory lies; ``-ENOSYS``: nowhere."""

    def mmap(self, file: int, vma: int) -> int:
        """``f_op->mmap``. ``-ENOSYS``: read the file into memory instead."""

    def read(self, file: int, length: int, pos: int) -> bytes | int:
        """Up to ``length`` bytes from byte ``pos`` on, or ``-errno``."""

    def get_file(self, file: int) -> None:
        """One more user."""

    def fput(self, file: int) -> None:
        """One user less."""


class NoMmu:
    """The mappings of all processes of a machine without an MMU.

    An ``mm`` is the address of a ``struct mm_struct``; an address or 0 is success, a number below
    0 an error.
    """

    def __init__(
        self, image: KernelImage, memory: ContiguousMemory, files: MappableFiles, tree: int
    ) -> None:
        """``tree`` is the address of ``nommu_vma_tree``, a ``struct rb_root`` that is empty."""
        self._image = image
        self._memory = memory
        self._files = files
        self._tree = tree
        self._rb = RbTree(image.ram)
        self._vm_rb = image.structs.vm_area_struct.offset("vm_rb")
        self._gfp_kernel = image.constants.gfp.kernel
        self._highmem = image.constants.gfp.highmem

    # -- views ---------------------------------------------------------------------------------

    def vma(self, vma: int) -> Any:
        """The ``struct vm_area_struct``."""
        return self._image.at(self._image.structs.vm_area_struct, vma)

    def _mm(self, mm: int) -> Any:
        return self._image.at(self._image.structs.mm_struct, mm)

    def _list(self, entry: int) -> Any:
        return self._image.at(self._image.structs.vm_list_struct, entry)

    def entries(self, mm: int) -> Iterator[int]:
        """Each ``struct vm_list_struct`` of a process, the newest mapping first."""
        entry = int(self._mm(mm).context.vmlist)
        while entry:
            following = int(self._list(entry).next)
            yield entry
            entry = following

    def shareable(self) -> Iterator[int]:
        """Every VMA of the machine, by address: ``nommu_vma_tree``."""

        def below(node: int) -> Iterator[int]:
            if node:
                yield from below(self._rb.get(node, LEFT))
                yield node - self._vm_rb
                yield from below(self._rb.get(node, RIGHT))

        return below(self._rb.root(self._tree))

    def find_vma(self, mm: int, address: int) -> int:
        """The VMA that holds ``address``; unlike with an MMU none that lies above it. 0: none."""
        for entry in self.entries(mm):
            vma = int(self._list(entry).vma)
            view = self.vma(vma)
            if view.vm_start <= address < view.vm_end:
                return vma
        return 0

    # -- mmap ----------------------------------------------------------------------------------

    def do_mmap_pgoff(
        self, mm: int, file: int, addr: int, length: int, prot: int, flags: int, pgoff: int
    ) -> int:
        """Map ``length`` bytes of ``file`` from page ``pgoff`` on, or of nothing (``file`` 0).

        Returns the address, which need not be that of a page, or ``-errno``.
        """
        if flags & MAP_FIXED or addr:
            return -EINVAL
        if not -(-length // PAGE_SIZE) * PAGE_SIZE & 0xFFFFFFFF:
            return addr
        if length > TASK_SIZE or pgoff + (length >> PAGE_SHIFT) > 0xFFFFFFFF:
            return -EINVAL
        backed = bool(file) and self._files.memory_backed(file)
        if file and (error := self._refusal(file, prot, flags, backed)):
            return error
        vm_flags = self._vm_flags(bool(file), prot, flags, backed)
        entry = self._zeroed(self._image.structs.vm_list_struct.size)
        if not entry:
            return -ENOMEM
        vma = self._shared(file, length, pgoff, backed) if vm_flags & VM_MAYSHARE else 0
        if vma > 0:
            self.vma(vma).vm_usage += 1
        elif not vma:
            vma = self._new_vma(mm, file, length, prot, vm_flags, pgoff)
        if vma < 0:
            self._memory.kfree(entry)
            return vma
        context = self._mm(mm).context
        self._list(entry).vma, self._list(entry).next = vma, context.vmlist
        context.vmlist = entry
        return int(self.vma(vma).vm_start)

    def _refusal(self, file: int, prot: int, flags: int, backed: bool) -> int:
        """What the file does not allow or cannot do: ``-errno``, or 0."""
        files = self._files
        if not files.has_mmap(file):
            return -ENODEV
        if not flags & MAP_SHARED:
            return 0
        writable = files.f_mode(file) & FMODE_WRITE
        if prot & PROT_WRITE and not writable:
            return -EACCES
        if files.i_flags(file) & S_APPEND and writable:
            return -EACCES
        return 0 if backed else -EINVAL

    @staticmethod
    def _vm_flags(has_file: bool, prot: int, flags: int, backed: bool) -> int:
        """``VM_MAYSHARE`` says that others may use the same memory: nobody will write there."""
        bits = prot & _SAME_BITS[0] | flags & _SAME_BITS[1] | VM_MAYREAD | VM_MAYWRITE | VM_MAYEXEC
        if not backed:
            return bits | (VM_MAYSHARE if has_file and not prot & PROT_WRITE else 0)
        if not flags & MAP_PRIVATE or not prot & PROT_WRITE:
            bits |= VM_MAYSHARE | (VM_SHARED if flags & MAP_SHARED else 0)
        return bits

    def _shared(self, file: int, length: int, pgoff: int, backed: bool) -> int:
        """A VMA of the same pages of the same file; 0: none yet.

        Pages that overlap without being the same cannot be shared, nor be had twice unless the
        file lies in memory: ``-EINVAL``.
        """
        inode, pages = self._files.inode_of(file), -(-length // PAGE_SIZE)
        for vma in self.shareable():
            view = self.vma(vma)
            if not view.vm_flags & VM_MAYSHARE or self._files.inode_of(view.vm_file) != inode:
                continue
            there = -(-(view.vm_end - view.vm_start) // PAGE_SIZE)
            if view.vm_pgoff >= pgoff + pages or pgoff >= view.vm_pgoff + there:
                continue
            if (there, view.vm_pgoff) == (pages, pgoff):
                return vma
            if not backed:
                return -EINVAL
        return 0

    def _new_vma(
        self, mm: int, file: int, length: int, prot: int, vm_flags: int, pgoff: int
    ) -> int:
        """A VMA with its memory, in the tree; or ``-errno``."""
        start = self._files.get_unmapped_area(file, length, pgoff) if file else -ENOSYS
        if -_ERRNO_LIMIT < start < 0:
            if start != -ENOSYS:
                return start
            if vm_flags & VM_SHARED:
                return -ENODEV
            start = 0
        vma = self._zeroed(self._image.structs.vm_area_struct.size)
        if not vma:
            return -ENOMEM
        view = self.vma(vma)
        view.vm_usage, view.vm_flags, view.vm_file, view.vm_pgoff = 1, vm_flags, file, pgoff
        view.vm_start, view.vm_end = start, start + length
        if file:
            self._files.get_file(file)
        error = self._files.mmap(file, vma) if file else -ENOSYS
        if error == -ENOSYS:
            error = self._allocate(view, file, length, pgoff)
        if error:
            if file:
                self._files.fput(file)
            self._memory.kfree(vma)
            return error
        self._mm(mm).total_vm += length >> PAGE_SHIFT
        self._insert(vma)
        return vma

    def _allocate(self, view: Any, file: int, length: int, pgoff: int) -> int:
        """Memory of the VMA's own, filled from the file or with zeros. 0 or ``-errno``."""
        start = self._memory.kmalloc(length, self._gfp_kernel)
        if not start:
            return -ENOMEM
        content = self._files.read(file, length, pgoff << PAGE_SHIFT) if file else b""
        if isinstance(content, int):
            self._memory.kfree(start)
            return content
        self._image.ram.write(virt_to_phys(start), content.ljust(length, b"\0"))
        view.vm_start, view.vm_end = start, start + length
        return 0

    def _zeroed(self, size: int) -> int:
        vaddr = self._memory.kmalloc(size, self._gfp_kernel)
        if vaddr:
            self._image.ram.fill(virt_to_phys(vaddr), size)
        return vaddr

    def _insert(self, vma: int) -> None:
        """``add_nommu_vma()``: by address; mappings of one device's memory by their own."""
        parent, link = 0, self._tree
        key = (int(self.vma(vma).vm_start), vma)
        while node := self._image.ram.words[virt_to_phys(link) >> 2]:
            parent = node
            other = node - self._vm_rb
            before = key < (int(self.vma(other).vm_start), other)
            link = node + (RB_LEFT_BYTES if before else RB_RIGHT_BYTES)
        self._rb.link_node(vma + self._vm_rb, parent, link)
        self._rb.insert_color(vma + self._vm_rb, self._tree)

    # -- munmap and the others -----------------------------------------------------------------

    def do_munmap(self, mm: int, addr: int, length: int) -> int:
        """Unmap exactly what was mapped; a part of it is ``-EINVAL``."""
        before = 0
        for entry in self.entries(mm):
            vma = int(self._list(entry).vma)
            view = self.vma(vma)
            if (view.vm_start, view.vm_end) == (addr, addr + length):
                self._unlink(mm, before, entry)
                self._put_vma(vma)
                self._mm(mm).total_vm -= length >> PAGE_SHIFT
                return 0
            before = entry
        return -EINVAL

    def _unlink(self, mm: int, before: int, entry: int) -> None:
        following = self._list(entry).next
        if before:
            self._list(before).next = following
        else:
            self._mm(mm).context.vmlist = following
        self._memory.kfree(entry)

    def _put_vma(self, vma: int) -> None:
        """One user less; with the last one the memory goes, unless it is a file's or device's."""
        view = self.vma(vma)
        view.vm_usage -= 1
        if view.vm_usage:
            return
        self._rb.erase(vma + self._vm_rb, self._tree)
        if not view.vm_flags & (VM_SHARED | VM_IO) and view.vm_start:
            self._memory.kfree(int(view.vm_start))
        if view.vm_file:
            self._files.fput(int(view.vm_file))
        self._memory.kfree(vma)

    def exit_mmap(self, mm: int) -> None:
        """Release every mapping of a process."""
        self._mm(mm).total_vm = 0
        for entry in self.entries(mm):
            vma = int(self._list(entry).vma)
            self._unlink(mm, 0, entry)
            self._put_vma(vma)

    def do_mremap(
        self, mm: int, addr: int, old_len: int, new_len: int, flags: int, new_addr: int
    ) -> int:
        """Another length, as long as it fits the block that ``kmalloc()`` gave."""
        if not new_len or (flags & MREMAP_FIXED and new_addr != addr):
            return -EINVAL
        for entry in self.entries(mm):
            view = self.vma(int(self._list(entry).vma))
            if view.vm_start == addr:
                break
        else:
            return -EINVAL
        if view.vm_end != addr + old_len:
            return -EFAULT
        if view.vm_flags & VM_MAYSHARE:
            return -EPERM
        if new_len > self._memory.ksize(addr):
            return -ENOMEM
        view.vm_end = addr + new_len
        return addr

    def sys_brk(self, mm: int, brk: int) -> int:
        """Move the break between ``start_brk`` and the fixed end of its memory."""
        view = self._mm(mm)
        if view.start_brk <= brk <= view.context.end_brk:
            view.brk = brk
        return int(view.brk)

    # -- what an MMU would do ------------------------------------------------------------------

    def vmalloc(self, size: int) -> int:
        """Memory for the kernel itself, which lies in one piece here; 0: none."""
        return self._memory.kmalloc(size, self._gfp_kernel)

    def vfree(self, addr: int) -> None:
        self._memory.kfree(addr)

    def vmap(self, pages: list[int]) -> NoReturn:
        """Frames cannot be put together."""
        raise KernelBug("nommu.c", 0, f"vmap of {len(pages)} pages without an MMU")

    def vunmap(self, addr: int) -> NoReturn:
        raise KernelBug("nommu.c", 0, f"vunmap of {addr:#x} without an MMU")

    def do_brk(self, addr: int, length: int) -> int:
        """Anonymous memory at a place of the caller's choice cannot be had."""
        return -ENOMEM
