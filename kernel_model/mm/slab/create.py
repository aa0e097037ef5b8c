# SPDX-License-Identifier: GPL-2.0-or-later
"""Making a cache: how large a slab is, where its descriptor stands, how it is coloured.

Models linux-2.4.22 ``mm/slab.c: kmem_cache_create()`` (book 8.1.6, 8.2.1, 8.2.7). Pure but for
messages: :func:`cache_geometry` decides, the allocator writes it into a ``kmem_cache_t``.
"""

from collections.abc import Callable
from dataclasses import dataclass

from kernel_model.arch_i386.page import PAGE_SIZE
from kernel_model.errors import KernelBug
from kernel_model.mm.slab.cache import kmem_cache_estimate, l1_cache_align
from kernel_model.mm.slab.flags import (
    BYTES_PER_WORD,
    CFLGS_OFF_SLAB,
    CFLGS_OPTIMIZE,
    CREATE_MASK,
    DEBUG_CREATE_MASK,
    MAX_GFP_ORDER,
    MAX_OBJ_ORDER,
    SLAB_DEBUG_INITIAL,
    SLAB_HWCACHE_ALIGN,
    SLAB_MUST_HWCACHE_ALIGN,
    SLAB_POISON,
    SLAB_RED_ZONE,
)
from kernel_model.structs.slab import CACHE_NAMELEN

_FILE = "slab.c"


@dataclass(frozen=True, slots=True)
class Limits:
    """What the geometry of a cache depends on, beside the request itself."""

    cache_line: int
    descriptor: int
    offslab_limit: int
    break_order: int
    debug: bool


@dataclass(frozen=True, slots=True)
class Geometry:
    """How the objects of a cache lie in its slabs. Sizes are bytes."""

    objsize: int
    num: int
    gfporder: int
    flags: int
    colour: int
    colour_off: int
    slab_size: int
    """The slab's descriptor with its ``kmem_bufctl_t`` array, in whole cache lines."""
    left_over: int


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
            _FILE,
            640,
            f"kmem_cache_create({name!r}, size {size}, offset {offset}): a name of 1 to "
            f"{CACHE_NAMELEN - 2} characters, {BYTES_PER_WORD} to {largest} bytes, an offset no "
            "larger, no destructor without a constructor",
        )
    if flags & ~(DEBUG_CREATE_MASK if debug else CREATE_MASK):
        raise KernelBug(_FILE, 0, f"kmem_cache_create({name!r}): unknown flags in {flags:#x}")


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
        size += BYTES_PER_WORD - size % BYTES_PER_WORD
        printk(f"<3>kmem_create: Forcing size word alignment - {name}\n")
    if limits.debug and flags & SLAB_RED_ZONE:
        flags &= ~SLAB_HWCACHE_ALIGN
        size += 2 * BYTES_PER_WORD
    align = limits.cache_line if flags & SLAB_HWCACHE_ALIGN else BYTES_PER_WORD
    # The kernel decides this before it aligns the size.
    if size >= PAGE_SIZE >> 3:
        flags |= CFLGS_OFF_SLAB
    if flags & SLAB_HWCACHE_ALIGN:
        while size < align // 2:
            align //= 2
        size = -(-size // align) * align
    order, num, left_over = _choose_order(size, flags, limits)
    if not num:
        printk(f"kmem_cache_create: couldn't create cache {name}.\n")
        return None
    slab_size = l1_cache_align(num * 4 + limits.descriptor, limits.cache_line)
    if flags & CFLGS_OFF_SLAB and left_over >= slab_size:
        flags &= ~CFLGS_OFF_SLAB
        left_over -= slab_size
    offset = -(-offset // align) * align or limits.cache_line
    if not order and not flags & CFLGS_OFF_SLAB:
        flags |= CFLGS_OPTIMIZE
    return Geometry(size, num, order, flags, left_over // offset, offset, slab_size, left_over)


def _choose_order(size: int, flags: int, limits: Limits) -> tuple[int, int, int]:
    """(order, objects, bytes left over): the smallest slab that wastes at most an eighth."""
    order = 0
    while True:
        num, left_over = kmem_cache_estimate(
            order, size, flags, limits.cache_line, limits.descriptor
        )
        if order >= MAX_GFP_ORDER:
            return order, num, left_over
        if num:
            if flags & CFLGS_OFF_SLAB and num > limits.offslab_limit:
                # Too many for a descriptor off the slab: one order less, whatever it wastes.
                order -= 1
                return order, *kmem_cache_estimate(
                    order, size, flags, limits.cache_line, limits.descriptor
                )
            if order >= limits.break_order or left_over * 8 <= PAGE_SIZE << order:
                return order, num, left_over
        order += 1
