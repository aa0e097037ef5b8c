# SPDX-License-Identifier: GPL-2.0-or-later
"""The active and the inactive list of 2.4: one each for the whole machine.

Models linux-2.4.22 ``include/linux/swap.h``. In RAM: ``active_list``, ``inactive_list`` and their
counts, ``nr_active_pages`` and ``nr_inactive_pages``.
"""

from kernel_model.arch_i386.page import virt_to_phys
from kernel_model.image import KernelImage
from kernel_model.mm.lru import Lru
from kernel_model.mm.mmzone import MemMap


class GlobalLru(Lru):
    """The two lists of the machine."""

    def __init__(self, image: KernelImage, memmap: MemMap) -> None:
        super().__init__(image, memmap)
        self._nr_active = virt_to_phys(image.symbol("nr_active_pages")) >> 2
        self._nr_inactive = virt_to_phys(image.symbol("nr_inactive_pages")) >> 2
        self.active_list = image.symbol("active_list")
        self.inactive_list = image.symbol("inactive_list")
        self._lists.init(self.active_list)
        self._lists.init(self.inactive_list)

    def add_page_to_active_list(self, page: int) -> None:
        self._memmap.set_bit(page, self._pg_active)
        self._lists.add(page + self._offset, self.active_list)
        self._words[self._nr_active] += 1

    def add_page_to_inactive_list(self, page: int) -> None:
        self._lists.add(page + self._offset, self.inactive_list)
        self._words[self._nr_inactive] += 1

    def del_page_from_active_list(self, page: int) -> None:
        self._lists.delete(page + self._offset)
        self._memmap.clear_bit(page, self._pg_active)
        self._words[self._nr_active] -= 1

    def del_page_from_inactive_list(self, page: int) -> None:
        self._lists.delete(page + self._offset)
        self._words[self._nr_inactive] -= 1

    def nr_active(self) -> int:
        return self._words[self._nr_active]

    def nr_inactive(self) -> int:
        return self._words[self._nr_inactive]
