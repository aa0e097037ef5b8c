# SPDX-License-Identifier: GPL-2.0-or-later
"""From a request to the geometry of a cache in 2.6.

Models linux-2.6.11 ``mm/slab.c: kmem_cache_create()`` (book 8.8). Where 2.4 takes the distance of
two colours, 2.6 takes the alignment of an object.
"""

from dataclasses import dataclass

from kernel_model.arch_i386.page import PAGE_SIZE
from kernel_model.errors import KernelBug
from kernel_model.mm.slab.cache import align_up
from kernel_model.mm.slab.create import Fit, Geometry, Limits, fit, smallest_good_fit
from kernel_model.mm.slab.flags import (
    BYTES_PER_WORD,
    SLAB_HWCACHE_ALIGN,
    SLAB_POISON,
    SLAB_RED_ZONE,
)
from kernel_model.mm.slab.linux_2_6.constants import (
    LINUX_2_6,
    SLAB_DESTROY_BY_RCU,
    SLAB_RECLAIM_ACCOUNT,
    SLAB_STORE_USER,
)


def is_early_error(name: str, size: int, max_order: int, *, ctor: bool, dtor: bool) -> bool:
    """Whether a request is one of the serious usage bugs."""
    return not name or not BYTES_PER_WORD <= size <= PAGE_SIZE << max_order or (dtor and not ctor)


def check_flags(name: str, flags: int, *, dtor: bool, debug: bool) -> None:
    """Refuse flags that are unknown, or contradict each other."""
    if flags & SLAB_DESTROY_BY_RCU and dtor:
        raise KernelBug("slab.c", 0, f"{name}: slabs destroyed by RCU have no destructor")
    if flags & SLAB_DESTROY_BY_RCU and flags & SLAB_POISON:
        raise KernelBug("slab.c", 0, f"{name}: slabs destroyed by RCU are not poisoned")
    if flags & ~(LINUX_2_6.debug_create_mask if debug else LINUX_2_6.create_mask):
        raise KernelBug("slab.c", 0, f"kmem_cache_create({name!r}): unknown flags in {flags:#x}")


def debug_flags(size: int, flags: int) -> int:
    """What a kernel with CONFIG_DEBUG_SLAB adds to a request.

    Three words more must not push a large object over the next power of two.
    """
    grown = size - 1 + 3 * BYTES_PER_WORD
    if size < PAGE_SIZE or (size - 1).bit_length() == grown.bit_length():
        flags |= SLAB_RED_ZONE | SLAB_STORE_USER
    return flags if flags & SLAB_DESTROY_BY_RCU else flags | SLAB_POISON


def object_alignment(size: int, align: int, flags: int, cache_line: int) -> tuple[int, int]:
    """(alignment, flags): debugging words are for objects that need no more than a word's."""
    chosen = BYTES_PER_WORD
    if flags & SLAB_HWCACHE_ALIGN:
        chosen = cache_line
        while size <= chosen // 2:
            chosen //= 2
    if chosen < align:
        chosen = align
        if chosen > BYTES_PER_WORD:
            flags &= ~(SLAB_RED_ZONE | SLAB_STORE_USER)
    return chosen, flags


@dataclass(frozen=True, slots=True)
class Request:
    """What is asked of the geometry. Bytes; ``head`` of them stand before the object itself."""

    size: int
    align: int
    flags: int
    head: int
    length: int
    """Of the object as its user knows it."""


def request(size: int, align: int, flags: int, limits: Limits) -> Request:
    """Round a size up, choose the alignment, make room for what debugging adds."""
    size = align_up(size, BYTES_PER_WORD)
    align, flags = object_alignment(size, align, flags, limits.cache_line)
    length, head = size, 0
    if limits.debug and flags & SLAB_RED_ZONE:
        align, head = BYTES_PER_WORD, BYTES_PER_WORD
        size += 2 * BYTES_PER_WORD
    if limits.debug and flags & SLAB_STORE_USER:
        align = BYTES_PER_WORD
        size += BYTES_PER_WORD
    return Request(size, align, flags, head, length)


def cache_geometry(wanted: Request, limits: Limits) -> Geometry | None:
    """Choose the geometry; None when not even one object fits into the largest slab."""
    size, align, flags = wanted.size, wanted.align, wanted.flags
    # The kernel decides this before it aligns the size.
    if size >= PAGE_SIZE >> 3:
        flags |= limits.off_slab
    size = align_up(size, align)
    slab = _fit(size, align, flags, limits)
    if not slab.num:
        return None
    left_over = slab.left_over
    exact = slab.num * limits.bufctl + limits.descriptor
    slab_size = align_up(exact, align)
    if flags & limits.off_slab and left_over >= slab_size:
        flags &= ~limits.off_slab
        left_over -= slab_size
    if flags & limits.off_slab:
        slab_size = exact
    colour_off = max(limits.cache_line, align)
    colour = left_over // colour_off
    return Geometry(size, slab.num, slab.order, flags, colour, colour_off, slab_size, left_over)


def _fit(size: int, align: int, flags: int, limits: Limits) -> Fit:
    """Single pages for what is to be had back: its users may not wait for larger blocks."""
    if flags & SLAB_RECLAIM_ACCOUNT and size <= PAGE_SIZE:
        return fit(0, size, align, flags, limits)
    return smallest_good_fit(size, align, flags, limits)
