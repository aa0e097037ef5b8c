# SPDX-License-Identifier: GPL-2.0-or-later
"""Frames in the page cache of a file, and in the swap cache, for tests of reclaim."""

from kernel_model.events import MemoryListener
from kernel_model.kernel import Kernel
from kernel_model.mm.gfp import GFP_ATOMIC
from kernel_model.mm.page_flags import PG_LOCKED


def new_space(kernel: Kernel) -> int:
    """An empty address space, in a frame of its own."""
    space = kernel.allocator.get_zeroed_page(GFP_ATOMIC)
    kernel.page_cache.init_address_space(space)
    return space


def cache_page(kernel: Kernel, space: int, index: int, gfp: int = GFP_ATOMIC) -> int:
    """A clean frame that only the cache has: it can be freed. 0 when memory is out."""
    page = kernel.allocator.alloc_page(gfp, "page cache")
    if page:
        error = kernel.page_cache.add_to_page_cache(page, space, index)
        kernel.allocator.memmap.clear_bit(page, PG_LOCKED)
        kernel.allocator.free_page(page)
        return 0 if error else page
    return page


def swap_page(kernel: Kernel, content: bytes = b"") -> int:
    """A dirty frame that only the swap cache has; its slot stands in some PTE, too."""
    page, entry = kernel.allocator.alloc_page(GFP_ATOMIC), kernel.swap_areas.get_swap_page()
    assert page
    assert kernel.swap_cache.add(page, entry)
    memmap = kernel.allocator.memmap
    kernel.ram.write(memmap.pfn(page) << 12, content.ljust(4096, b"\0"))
    memmap.clear_bit(page, PG_LOCKED)
    kernel.page_cache.set_page_dirty(page)
    kernel.allocator.free_page(page)
    return page


class FreedFrames(MemoryListener):
    """A listener that notes the frames given back, in order."""

    def __init__(self, kernel: Kernel) -> None:
        self.pfns: list[int] = []
        kernel.image.events.listeners.append(self)

    def frame_given_back(self, pfn: int, order: int) -> None:
        self.pfns += range(pfn, pfn + (1 << order))
