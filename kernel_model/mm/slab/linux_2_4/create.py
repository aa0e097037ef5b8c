# SPDX-License-Identifier: GPL-2.0-or-later
"""From a request to the geometry of a cache in 2.4.

Models linux-2.4.22 ``mm/slab.c: kmem_cache_create()`` (book 8.1.6, 8.2.1, 8.2.7). ``offset`` of a
request is the distance between two colours.
"""

from collections.abc import Callable

from kernel_model.arch_i386.page import PAGE_SIZE
from kernel_model.errors import KernelBug
from kernel_model.mm.slab.cache import align_up
from kernel_model.mm.slab.create import Geometry, Limits, smallest_good_fit
from kernel_model.mm.slab.flags import (
    BYTES_PER_WORD,
    MAX_OBJ_ORDER,
    SLAB_DEBUG_INITIAL,
    SLAB_HWCACHE_ALIGN,
    SLAB_MUST_HWCACHE_ALIGN,
    SLAB_POISON,
    SLAB_RED_ZONE,
)
from kernel_model.mm.slab.linux_2_4.constants import CFLGS_OPTIMIZE, LINUX_2_4
from kernel_model.structs.slab import CACHE_NAMELEN


def check_request(
    name: str, size: int, offset: int, flags: int, *, ctor: bool, dtor: bool, debug: bool
) -> None:
    """Refuse what ``kmem_cache_create()`` calls serious usage bugs."""
    largest = PAGE_SIZE << MAX_OBJ_ORDER
    if (
        not name
        or len(name) >= CACHE_NAMELEN - 1
        or not BYTES_PER_WORD <= size <= largest
        or (dtor and not ctor)
        or not 0 <= offset <= size
    ):
        raise KernelBug(
            "slab.c",
            640,
            f"kmem_cache_create({name!r}, size {size}, offset {offset}): a name of 1 to "
            f"{CACHE_NAMELEN - 2} characters, {BYTES_PER_WORD} to {largest} bytes, an offset no "
            "larger, no destructor without a constructor",
        )
    if flags & ~(LINUX_2_4.debug_create_mask if debug else LINUX_2_4.create_mask):
        raise KernelBug("slab.c", 0, f"kmem_cache_create({name!r}): unknown flags in {flags:#x}")


def debug_flags(
    name: str, size: int, flags: int, *, ctor: bool, printk: Callable[[str], None]
) -> int:
    """The flags that a kernel with CONFIG_DEBUG_SLAB adds to a request, or takes away."""
    if flags & SLAB_DEBUG_INITIAL and not ctor:
        printk(f"<3>kmem_create: No con, but init state check requested - {name}\n")
        flags &= ~SLAB_DEBUG_INITIAL
    if flags & SLAB_POISON and ctor:
        printk(f"<3>kmem_create: Poisoning requested, but con given - {name}\n")
        flags &= ~SLAB_POISON
    if size < PAGE_SIZE >> 3 and not flags & SLAB_MUST_HWCACHE_ALIGN:
        flags |= SLAB_RED_ZONE
    return flags if ctor else flags | SLAB_POISON


def cache_geometry(
    name: str, size: int, offset: int, flags: int, limits: Limits, printk: Callable[[str], None]
) -> Geometry | None:
    """Choose the geometry; None when not even one object fits into the largest slab."""
    if size % BYTES_PER_WORD:
        size = align_up(size, BYTES_PER_WORD)
        printk(f"<3>kmem_create: Forcing size word alignment - {name}\n")
    if limits.debug and flags & SLAB_RED_ZONE:
        flags &= ~SLAB_HWCACHE_ALIGN
        size += 2 * BYTES_PER_WORD
    align = limits.cache_line if flags & SLAB_HWCACHE_ALIGN else BYTES_PER_WORD
    # The kernel decides this before it aligns the size.
    if size >= PAGE_SIZE >> 3:
        flags |= limits.off_slab
    if flags & SLAB_HWCACHE_ALIGN:
        while size < align // 2:
            align //= 2
        size = align_up(size, align)
    slab = smallest_good_fit(size, limits.cache_line, flags, limits)
    if not slab.num:
        printk(f"kmem_cache_create: couldn't create cache {name}.\n")
        return None
    left_over = slab.left_over
    slab_size = align_up(slab.num * limits.bufctl + limits.descriptor, limits.cache_line)
    if flags & limits.off_slab and left_over >= slab_size:
        flags &= ~limits.off_slab
        left_over -= slab_size
    offset = align_up(offset, align) or limits.cache_line
    if not slab.order and not flags & limits.off_slab:
        flags |= CFLGS_OPTIMIZE
    colour = left_over // offset
    return Geometry(size, slab.num, slab.order, flags, colour, offset, slab_size, left_over)
