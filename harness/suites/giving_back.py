# SPDX-License-Identifier: GPL-2.0-or-later
"""What a kernel keeps to go on faster, given back: how many frames are free is the same then
whenever nothing runs.

These are the caches of page tables (2.4), of objects, and the frames of each CPU (2.6).
Nothing here can fail.
"""

from kernel_model.kernel import Kernel
from kernel_model.mm.linux_2_6.page_alloc import PageAllocator26

__all__ = ["give_back"]

_ROUNDS = 2
"""The descriptor of a slab may be an object of another cache, which gave back before."""


def give_back(kernel: Kernel) -> None:
    """Have every cache hold nothing that it can do without."""
    kernel.page_tables.check_pgt_cache(0, 0)
    for _ in range(_ROUNDS):
        for cache in list(kernel.slab.chain()):
            kernel.slab.kmem_cache_shrink(cache.vaddr)
        # Slabs that RCU keeps go with the next tick.
        kernel.slab.pass_time(1)
    if isinstance(kernel.allocator, PageAllocator26):
        kernel.allocator.drain_local_pages()
