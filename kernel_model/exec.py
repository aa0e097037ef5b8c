# SPDX-License-Identifier: GPL-2.0-or-later
"""A new program: a fresh address space, and the stack with its arguments.

Models the memory side of ``fs/exec.c`` of linux-2.4.22, of which 2.6.11 replaces some steps
(:mod:`kernel_model.linux_2_6.exec`): ``copy_strings()``, ``exec_mmap()``,
``setup_arg_pages()``, ``put_dirty_page()`` (book 4.3, 4.4). Until the old address space has gone,
the arguments wait in frames of their own, ``bprm->page[]``. In RAM: those frames, the new
``mm_struct`` and the VMA of the stack.

What can fail: ``-ENOMEM``, ``-E2BIG`` for more than 32 pages of arguments. Nothing of the new
program is left then, but the old one may be gone already, as in the kernel.
"""

from typing import ClassVar, Final

from kernel_model.arch_i386.mmu_context import MmuContext
from kernel_model.arch_i386.page import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE, TASK_SIZE
from kernel_model.errno import E2BIG, ENOMEM
from kernel_model.errors import KernelBug
from kernel_model.fork import Fork
from kernel_model.image import KernelImage
from kernel_model.mm.address_spaces import AddressSpaces
from kernel_model.mm.memory import Memory
from kernel_model.mm.page_alloc import PageAllocator
from kernel_model.structs.mm import VM_GROWSDOWN

MAX_ARG_PAGES: Final = 32
STACK_TOP: Final = TASK_SIZE


class BinaryParameters:
    """``struct linux_binprm``: what ``exec`` has gathered of a program before it becomes one.

    ``p`` is how far down from the top of the argument pages they are filled, in bytes.
    """

    def __init__(self) -> None:
        self.page = [0] * MAX_ARG_PAGES
        """``struct page *`` of each argument page; 0: not needed so far."""
        self.p = MAX_ARG_PAGES * PAGE_SIZE - 4


class Exec:
    """``exec`` of one machine, for the current process."""

    _spare_stack: ClassVar[int] = 0
    """Bytes of stack below the arguments that there are from the beginning."""

    def __init__(
        self,
        image: KernelImage,
        allocator: PageAllocator,
        spaces: AddressSpaces,
        memory: Memory,
        fork: Fork,
        context: MmuContext,
    ) -> None:
        self._image = image
        self._gfp_highuser = image.constants.gfp.highuser
        self._ram = image.ram
        self._allocator = allocator
        self._spaces = spaces
        self._areas = spaces.areas
        self._memory = memory
        self._fork = fork
        self._context = context

    # -- arguments -----------------------------------------------------------------------------

    def copy_strings(self, bprm: BinaryParameters, strings: list[bytes]) -> int:
        """Push strings, the last one first, each with its NUL. 0, or a negative error."""
        for text in reversed(strings):
            data = text + b"\0"
            if len(data) > bprm.p:
                return -E2BIG
            bprm.p -= len(data)
            if error := self._copy(bprm, bprm.p, data):
                return error
        return 0

    def _copy(self, bprm: BinaryParameters, position: int, data: bytes) -> int:
        memmap = self._allocator.memmap
        while data:
            index, offset = divmod(position, PAGE_SIZE)
            if not bprm.page[index]:
                page = self._allocator.alloc_page(self._gfp_highuser, "argument page")
                if not page:
                    return -ENOMEM
                bprm.page[index] = page
                self._memory.faults.clear_user_highpage(page)
            part, data = data[: PAGE_SIZE - offset], data[PAGE_SIZE - offset :]
            self._ram.write((memmap.pfn(bprm.page[index]) << PAGE_SHIFT) + offset, part)
            position += len(part)
        return 0

    def free_arg_pages(self, bprm: BinaryParameters) -> None:
        """The program does not come to be: its argument pages go."""
        for index, page in enumerate(bprm.page):
            if page:
                self._allocator.put_page(page)
                bprm.page[index] = 0

    # -- the address space ---------------------------------------------------------------------

    def exec_mmap(self) -> int:
        """Give the current process an empty address space. 0, or ``-ENOMEM``.

        Its own is emptied and kept if nobody else uses it.
        """
        task = self._image.current_task
        old = int(task.mm)
        if old and self._areas.mm(old).mm_users == 1:
            self._spaces.exit_mmap(old)
            return 0
        return self._replace_mm(old)

    def _replace_mm(self, old: int) -> int:
        """Let the current process leave ``old``, if it has one, for an address space of its own."""
        task, mm = self._image.current_task, self._fork.mm_alloc()
        if not mm:
            return -ENOMEM
        self._fork.add_to_mmlist(mm, self._image.symbol("init_mm"))
        active = int(task.active_mm)
        task.mm = task.active_mm = mm
        self._context.activate_mm(active, mm)
        if not old:
            self._fork.mmdrop(active)
            return 0
        if active != old:
            raise KernelBug("exec.c", 0, "a process has another address space active")
        self._fork.mmput(old)
        return 0

    def setup_arg_pages(self, bprm: BinaryParameters) -> int:
        """The stack: a VMA up to STACK_TOP, with the argument pages at its end. 0, or an error.

        Afterwards ``bprm.p`` is the user address of the last string pushed.
        """
        base = STACK_TOP - MAX_ARG_PAGES * PAGE_SIZE
        bprm.p += base
        vma = self._areas.alloc()
        if not vma:
            return -ENOMEM
        if error := self._link_stack(vma, (bprm.p & PAGE_MASK) - self._spare_stack):
            self._areas.free(vma)
            return error
        mm = self._areas.current_mm
        for index, page in enumerate(bprm.page):
            if page:
                bprm.page[index] = 0
                vaddr = base + index * PAGE_SIZE
                if error := self._memory.faults.put_dirty_page(mm, vma, page, vaddr):
                    return error
        return 0

    def _link_stack(self, vma: int, start: int) -> int:
        """Make a VMA the stack; if anything is charged, its pages are. 0, or an error."""
        mm, parts = self._areas.current_mm, self._spaces.parts
        space, pages = self._areas.mm(mm), STACK_TOP - start >> PAGE_SHIFT
        if parts.limits.account_flag and not parts.limits.vm_enough_memory(pages):
            return -ENOMEM
        vm_flags = parts.data_flags | VM_GROWSDOWN
        self._areas.fill(vma, mm, start, STACK_TOP, vm_flags, 0)
        if error := self._spaces.insert_vm_struct(mm, vma):
            return error
        space.total_vm = pages
        parts.accounting.vm_stat_account(mm, vm_flags, 0, pages)
        return 0
