# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading the memory of another process.

Models the reading half of linux-2.4.22 ``kernel/ptrace.c: access_process_vm()``. In RAM: what the
faults change that bring the pages in. What can fail: nothing; what cannot be had is left out.
"""

from kernel_model.arch_i386.page import PAGE_SHIFT, PAGE_SIZE
from kernel_model.image import KernelImage
from kernel_model.mm.memory import Memory
from kernel_model.mm.page_alloc import PageAllocator


class ProcessMemory:
    """``access_process_vm()`` of one machine."""

    def __init__(self, image: KernelImage, allocator: PageAllocator, memory: Memory) -> None:
        self._ram = image.ram
        self._allocator = allocator
        self._memory = memory

    def read(self, mm: int, address: int, length: int) -> bytes:
        """``length`` bytes of the ``struct mm_struct *``; fewer where a page is not to be had.

        A page that may not be read, but could be made so, is read all the same.
        """
        data = b""
        while len(data) < length:
            at = address + len(data)
            pages, error = self._memory.get_user_pages(mm, at, 1, write=False, force=True)
            if error or not pages[0]:
                break
            offset = at % PAGE_SIZE
            size = min(PAGE_SIZE - offset, length - len(data))
            frame = self._allocator.memmap.pfn(pages[0]) << PAGE_SHIFT
            data += self._ram.read(frame + offset, size)
            self._allocator.put_page(pages[0])
        return data
