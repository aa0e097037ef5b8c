# SPDX-License-Identifier: GPL-2.0-or-later
"""The life of an address space: made, copied for a child, counted, ended.

Models the memory side of ``kernel/fork.c`` of linux-2.4.22, of which 2.6.11 replaces some steps
(:mod:`kernel_model.linux_2_6.fork`): ``mm_init()``, ``mm_alloc()``,
``mmput()``, ``mmdrop()``, ``dup_mmap()``, ``copy_mm()`` (book 4.3.1-4.3.3). In RAM: ``mm_struct``s
from the slab cache ``mm_cachep``, all but ``init_mm`` on the list ``init_mm.mmlist`` once they
have been copied or joined it; ``mm_users`` counts tasks that run in one, ``mm_count`` those plus
the threads that borrow it (lazy TLB), all users together as one.

What can fail: 0 or ``-ENOMEM`` when memory is out. A copy that failed half way has been taken
down again.
"""

from typing import Any

from kernel_model.arch_i386.page import PAGE_SHIFT, virt_to_phys
from kernel_model.errno import ENOMEM
from kernel_model.errors import KernelBug
from kernel_model.fs.file_table import ObjectCaches
from kernel_model.image import KernelImage
from kernel_model.lists import Lists
from kernel_model.mm.address_spaces import AddressSpaces
from kernel_model.mm.mmap.areas import VmArea
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
        old = self._areas.current_mm
        self._pages.flush_cache_mm(old)
        self._forget(mm, old)
        self.add_to_mmlist(mm, old)
        error, last = 0, 0
        for vma in self._areas.list(old):
            area = self._areas.vma(vma)
            if area.vm_flags & VM_DONTCOPY:
                count = self._spaces.parts.accounting.vm_stat_account
                count(mm, area.vm_flags, area.vm_file, -_pages_of(area))
                continue
            last, error = self._dup_vma(mm, vma, last)
            if error:
                break
        else:
            self._build_mmap_rb(mm)
        self._pages.flush_tlb_mm(old)
        return error

    def _forget(self, mm: int, old: int) -> None:
        """What a copy of an ``mm_struct`` must not have of the old one."""
        space = self._areas.mm(mm)
        space.mmap = space.mmap_cache = space.mm_rb.rb_node = 0
        space.map_count = space.locked_vm = space.rss = 0
        space.cpu_vm_mask = space.swap_address = 0

    def _dup_vma(self, mm: int, vma: int, last: int) -> tuple[int, int]:
        """Copy a VMA, and hang it behind ``last``. Returns it, and an error or 0.

        A mapping that was charged is charged again for the child.
        """
        old, limits = self._areas.vma(vma), self._spaces.limits
        charge = _pages_of(old) if old.vm_flags & limits.account_flag else 0
        if charge and not limits.vm_enough_memory(charge):
            return last, -ENOMEM
        new = self._areas.alloc()
        if not new:
            limits.vm_unacct_memory(charge)
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
        self._listed(mm, new, last)
        space.map_count += 1
        error = self._pages.copy_page_range(mm, self._areas.current_mm, new)
        self._areas.open(new)
        return new, error

    def _listed(self, mm: int, vma: int, last: int) -> None:
        """A copied VMA is in the list, behind ``last``, and not in the tree yet."""

    def _build_mmap_rb(self, mm: int) -> None:
        """The tree, of all that is in the list."""
        last = 0
        for vma in self._areas.list(mm):
            self._link_rb(mm, vma, last)
            last = vma

    def _link_rb(self, mm: int, vma: int, last: int) -> None:
        """To the right of the VMA before: they come in order."""
        parent = last + VM_RB if last else 0
        link = parent + RB_RIGHT_BYTES if last else mm + self._mm_rb
        self._spaces.links.link_rb(mm, vma, Place(0, 0, link, parent))

    # -- ending --------------------------------------------------------------------------------

    def mmput(self, mm: int) -> None:
        """One user less; with the last one everything in the address space goes."""
        space = self._areas.mm(mm)
        space.mm_users -= 1
        if space.mm_users:
            return
        self._end(mm)
        self.mmdrop(mm)

    def _end(self, mm: int) -> None:
        """Nobody runs in an address space any more, and swapping does not look there."""
        if self._statics.swap_mm == mm:
            self._statics.swap_mm = self._lists.first(mm + self._mmlist) - self._mmlist
        self._lists.delete(mm + self._mmlist)
        self._statics.mmlist_nr -= 1
        self._spaces.exit_mmap(mm)

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


def _pages_of(area: VmArea) -> int:
    return area.vm_end - area.vm_start >> PAGE_SHIFT
