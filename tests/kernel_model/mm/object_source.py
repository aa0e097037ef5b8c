# SPDX-License-Identifier: GPL-2.0-or-later
"""Objects of caches without a slab allocator: each cache has its size, memory is counted."""

from kernel_model.image import KernelImage


class ObjectSource:
    """An ``ObjectCaches`` over a piece of RAM that nobody else uses; objects are 64-byte aligned.

    ``left`` is how many objects there still are; ``None``: enough.
    """

    def __init__(self, image: KernelImage, start: int, sizes: dict[int, int]) -> None:
        self._image = image
        self._next = start
        self._sizes = sizes
        self._free: dict[int, list[int]] = {cachep: [] for cachep in sizes}
        self.live: dict[int, int] = {}
        self.left: int | None = None

    def kmem_cache_alloc(self, cachep: int, flags: int) -> int:
        if self.left == 0:
            return 0
        if self.left is not None:
            self.left -= 1
        if self._free[cachep]:
            objp = self._free[cachep].pop()
        else:
            objp = 0xC0000000 + self._next
            self._next += -(-self._sizes[cachep] // 64) * 64
        self.live[objp] = cachep
        return objp

    def kmem_cache_free(self, cachep: int, objp: int) -> None:
        assert self.live.pop(objp) == cachep
        self._free[cachep].append(objp)
