# SPDX-License-Identifier: GPL-2.0-or-later
"""The life of an address space: made, copied for a child, counted, ended.

Models the memory side of linux-2.4.22 ``kernel/fork.c``: ``mm_init()``, ``mm_alloc()``,
``mmput()``, ``mmdrop()``, ``dup_mmap()``, ``copy_mm()`` (book 4.3.1-4.3.3). In RAM: ``mm_struct``s
from the slab cache ``mm_cachep``, all but ``init_mm`` on the list ``init_mm.mmlist`` once they
have been copied or joined it; ``mm_users`` counts tasks that run in one, ``mm_count`` those plus
the threads that borrow it (lazy TLB), all users together as one.

What can fail: 0 or ``-ENOMEM`` when memory is out. A copy that failed half way has been taken
down again.
"""

from typing import Any

from kernel_model.arch_i386.page import virt_to_phys
from kernel_model.errno import ENOMEM
from kernel_model.errors import KernelBug
from kernel_model.fs.file_table import ObjectCaches
from kernel_model.image import KernelImage
from kernel_model.lists import Lists
from kernel_model.mm.address_spaces import AddressSpaces
from kernel_model.mm.mmap.find import VM_RB, Place
from kernel_model.mm.rbtree import RB_RIGHT_BYTES
from kernel_model.structs.mm import VM_DONTCOPY, VM_LOCKED
from kernel_model.structs.sched import CLONE_VM


class Fork:
    """Makes and ends address spaces."""

    def __init__(self, image: KernelImage, slab: ObjectCaches, spaces: AddressSpaces) -> None:
        self._image = image
        self._statics = image.statics
        self._slab = slab
        self._gfp_kernel = image.constants.gfp.kernel
        self._spaces = spaces
        self._areas = spaces.areas
        self._pages = spaces.pages
        self._lists = Lists(image.ram)
        kind = image.structs.mm_struct
        self._bytes = kind.size
        self._mmlist = kind.offset("mmlist")
        self._mm_rb = kind.offset("mm_rb")
        self._wait_list = kind.offset("mmap_sem") + image.structs.rw_semaphore.offset("wait_list")
        self._init_mm = image.symbol("init_mm")

    # -- making --------------------------------------------------------------------------------

    def allocate_mm(self) -> int:
        """An ``mm_struct`` of undefined contents; 0: no memory."""
        return self._slab.kmem_cache_alloc(int(self._statics.mm_cachep), self._gfp_kernel)

    def free_mm(self, mm: int) -> None:
        self._slab.kmem_cache_free(int(self._statics.mm_cachep), mm)

    def mm_init(self, mm: int) -> bool:
        """One user, and a page directory of its own. False: no memory, and ``mm`` is gone."""
        space = self._areas.mm(mm)
        space.mm_users = space.mm_count = 1
        self._lists.init(mm + self._wait_list)
        space.pgd = self._pages.pgd_alloc(mm)
        space.def_flags = 0
        if not space.pgd:
            self.free_mm(mm)
        return bool(space.pgd)

    def mm_alloc(self) -> int:
        """An empty address space; 0: no memory."""
        mm = self.allocate_mm()
        if not mm:
            return 0
        self._image.ram.fill(virt_to_phys(mm), self._bytes)
        return mm if self.mm_init(mm) else 0

    def add_to_mmlist(self, mm: int, after: int) -> None:
        """Where swapping will look for pages, right behind another address space."""
        self._lists.add(mm + self._mmlist, after + self._mmlist)
        self._statics.mmlist_nr += 1

    # -- copying -------------------------------------------------------------------------------

    def copy_mm(self, clone_flags: int, task: Any) -> int:
        """Give a new task the current one's address space, or a copy; 0, or ``-ENOMEM``.

        ``task`` is a view of its ``task_struct``. A thread of the kernel has none to give.
        """
        task.mm = task.active_mm = 0
        old = self._areas.current_mm
        if not old:
            return 0
        if clone_flags & CLONE_VM:
            self._areas.mm(old).mm_users += 1
            mm = old
        else:
            mm = self._copy(old)
            if not mm:
                return -ENOMEM
        task.mm = task.active_mm = mm
        return 0

    def _copy(self, old: int) -> int:
        mm = self.allocate_mm()
        if not mm:
            return 0
        ram = self._image.ram
        ram.write(virt_to_phys(mm), ram.read(virt_to_phys(old), self._bytes))
        if not self.mm_init(mm):
            return 0
        if self.dup_mmap(mm):
            self.mmput(mm)
            return 0
        return mm

    def dup_mmap(self, mm: int) -> int:
        """Copy every VMA of the current address space and its pages; 0, or ``-ENOMEM``.

        The tree is built at the end: until then nobody may look anything up.
        """
        old, space = self._areas.current_mm, self._areas.mm(mm)
        self._pages.flush_cache_mm(old)
        space.mmap = space.mmap_cache = space.mm_rb.rb_node = 0
        space.map_count = space.locked_vm = space.rss = 0
        space.cpu_vm_mask = space.swap_address = 0
        self.add_to_mmlist(mm, old)
        error, last = 0, 0
        for vma in self._areas.list(old):
            if self._areas.vma(vma).vm_flags & VM_DONTCOPY:
                continue
            last, error = self._dup_vma(mm, vma, last)
            if error:
                break
        else:
            self._build_mmap_rb(mm)
        self._pages.flush_tlb_mm(old)
        return error

    def _dup_vma(self, mm: int, vma: int, last: int) -> tuple[int, int]:
        """Copy a VMA, and hang it behind ``last``. Returns it, and an error or 0."""
        new = self._areas.alloc()
        if not new:
            return last, -ENOMEM
        self._areas.copy(new, vma)
        area = self._areas.vma(new)
        area.vm_flags &= ~VM_LOCKED
        area.vm_mm, area.vm_next = mm, 0
        self._spaces.links.anon.link(new)
        if area.vm_file:
            self._areas.files.get_file(area.vm_file)
            self._spaces.links.mappings.link_copy(new, vma)
        space = self._areas.mm(mm)
        if last:
            self._areas.vma(last).vm_next = new
        else:
            space.mmap = new
        space.map_count += 1
        error = self._pages.copy_page_range(mm, self._areas.current_mm, new)
        self._areas.open(new)
        return new, error

    def _build_mmap_rb(self, mm: int) -> None:
        """Each VMA to the right of the one before: they come in order."""
        parent, link = 0, mm + self._mm_rb
        for vma in self._areas.list(mm):
            self._spaces.links.link_rb(mm, vma, Place(0, 0, link, parent))
            parent = vma + VM_RB
            link = parent + RB_RIGHT_BYTES

    # -- ending --------------------------------------------------------------------------------

    def mmput(self, mm: int) -> None:
        """One user less; with the last one everything in the address space goes."""
        space = self._areas.mm(mm)
        space.mm_users -= 1
        if space.mm_users:
            return
        if self._statics.swap_mm == mm:
            self._statics.swap_mm = self._lists.first(mm + self._mmlist) - self._mmlist
        self._lists.delete(mm + self._mmlist)
        self._statics.mmlist_nr -= 1
        self._spaces.exit_mmap(mm)
        self.mmdrop(mm)

    def mmdrop(self, mm: int) -> None:
        """Nobody borrows it any more, either: page directory and ``mm_struct`` go."""
        space = self._areas.mm(mm)
        space.mm_count -= 1
        if space.mm_count:
            return
        if mm == self._init_mm:
            raise KernelBug("fork.c", 267, "init_mm was dropped")
        self._pages.pgd_free(space.pgd)
        self.free_mm(mm)
