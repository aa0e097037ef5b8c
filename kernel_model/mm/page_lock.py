# SPDX-License-Identifier: GPL-2.0-or-later
"""Locking a frame, and waiting for one that is locked.

Models linux-2.4.22 ``mm/filemap.c``: ``page_waitqueue()``, ``lock_page()``, ``unlock_page()``
(book 2.2.3). In RAM: PG_locked, the wait table of each zone, and a ``struct page_waiter`` for
each sleeper, where the kernel has a ``wait_queue_t`` and a local variable on its stack.

Several frames share a queue by their hash; unlocking one wakes all who sleep there, and
those whose frame is still locked go back to sleep. What can fail: unlocking a frame that is
not locked is a :class:`~kernel_model.errors.KernelBug`.
"""

from typing import Final

from kernel_model.errors import KernelBug
from kernel_model.image import KernelImage
from kernel_model.lists import Lists
from kernel_model.mm.page_alloc import PageAllocator
from kernel_model.mm.page_flags import PG_LOCKED

GOLDEN_RATIO_PRIME: Final = 0x9E370001
_WORD: Final = 0xFFFFFFFF


class PageLocks:
    """Page locks of one machine; pages and tasks are kernel virtual addresses."""

    def __init__(self, image: KernelImage, allocator: PageAllocator) -> None:
        self._image = image
        self._allocator = allocator
        self._memmap = allocator.memmap
        self._launder = image.constants.page_flags.mask("launder")
        self._lists = Lists(image.ram)
        self._waiter = image.structs.page_waiter
        self._link = self._waiter.offset("task_list")

    def page_waitqueue(self, page: int) -> int:
        """The wait queue that ``page`` hashes to, in the table of its zone."""
        zone = self._allocator.page_zone(page)
        slot = (page * GOLDEN_RATIO_PRIME & _WORD) >> zone.wait_table_shift
        return int(zone.view.wait_table) + slot * self._image.structs.wait_queue_head_t.size

    def _queue(self, page: int) -> int:
        return self.page_waitqueue(page) + self._image.structs.wait_queue_head_t.offset("task_list")

    def try_lock(self, page: int) -> bool:
        """Lock the frame unless it is locked (``TryLockPage``, told the other way round)."""
        if self._memmap.test(page, PG_LOCKED):
            return False
        self._memmap.set_bit(page, PG_LOCKED)
        return True

    def lock_page(self, page: int, task: int, waiter: int) -> bool:
        """Lock the frame for ``task``. False: the task sleeps now, until it has the lock.

        ``waiter`` is the address of a ``struct page_waiter`` that must live as long.
        """
        if self.try_lock(page):
            return True
        view = self._image.at(self._waiter, waiter)
        view.task, view.page = task, page
        self._lists.add_tail(waiter + self._link, self._queue(page))
        return False

    def unlock_page(self, page: int) -> list[int]:
        """Unlock the frame and wake its queue. Returns the tasks that hold a lock now.

        Of those who wait for this frame the first in the queue gets it.
        """
        memmap = self._memmap
        memmap.set_flags(page, memmap.flags(page) & ~self._launder)
        if not memmap.test(page, PG_LOCKED):
            raise KernelBug("filemap.c", 0, f"frame {memmap.pfn(page):#x} is not locked")
        memmap.clear_bit(page, PG_LOCKED)
        served = []
        for link in list(self._lists.entries(self._queue(page))):
            view = self._image.at(self._waiter, link - self._link)
            if self.try_lock(int(view.page)):
                self._lists.delete(link)
                served.append(int(view.task))
        return served

    def waiters(self, page: int) -> list[int]:
        """The tasks that sleep for this very frame, in order."""
        tasks = []
        for link in self._lists.entries(self._queue(page)):
            view = self._image.at(self._waiter, link - self._link)
            if int(view.page) == page:
                tasks.append(int(view.task))
        return tasks
