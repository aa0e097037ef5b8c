# SPDX-License-Identifier: GPL-2.0-or-later
"""The names of caches: strings in the image that a ``kmem_cache_t`` points to.

In linux-2.6.11 ``kmem_cache_create()`` keeps the pointer that its caller gave, mostly one to a
string of the kernel's text. The model's callers have no text, so a name is copied to
``cache_names``, and its place is free again when the cache goes.

What can fail: a name of more than 31 characters, or one for which there is no room.
"""

from typing import Final

from kernel_model.arch_i386.page import phys_to_virt, virt_to_phys
from kernel_model.errors import KernelBug
from kernel_model.image import KernelImage
from kernel_model.structs.linux_2_6.slab import CACHE_NAME_BYTES, MAX_CACHE_NAMES

_LONGEST: Final = CACHE_NAME_BYTES - 1


class CacheNames:
    """The table of one machine."""

    def __init__(self, image: KernelImage) -> None:
        self._ram = image.ram
        self._table = virt_to_phys(image.symbol("cache_names"))

    def place(self, name: str) -> int:
        """Write a name down; the kernel virtual address of its string."""
        data = name.encode("latin-1")
        if len(data) > _LONGEST:
            raise KernelBug("slab.c", 0, f"{name}: give a cache a name of {_LONGEST} characters")
        end = self._table + MAX_CACHE_NAMES * CACHE_NAME_BYTES
        for paddr in range(self._table, end, CACHE_NAME_BYTES):
            if not self._ram.read8(paddr):
                self._ram.write(paddr, data + b"\0")
                return phys_to_virt(paddr)
        raise KernelBug("slab.c", 0, f"{name}: there are {MAX_CACHE_NAMES} caches already")

    def forget(self, vaddr: int) -> None:
        """The cache of a name is gone."""
        self._ram.fill(virt_to_phys(vaddr), CACHE_NAME_BYTES)
