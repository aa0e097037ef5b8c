# SPDX-License-Identifier: GPL-2.0-or-later
"""Making a cache: how large a slab is, where its descriptor stands, how it is coloured.

Models what ``mm/slab.c: kmem_cache_create()`` of both releases decides (book 8.1.6, 8.2.1,
8.2.7). Pure: :class:`Geometry` is what the allocator writes into a ``kmem_cache_t``. How a
request becomes one is :mod:`.linux_2_4.create` and :mod:`.linux_2_6.create`.
"""

from dataclasses import dataclass

from kernel_model.arch_i386.page import PAGE_SIZE
from kernel_model.mm.slab.cache import kmem_cache_estimate
from kernel_model.mm.slab.flags import MAX_GFP_ORDER


@dataclass(frozen=True, slots=True)
class Limits:
    """What the geometry of a cache depends on, beside the request itself."""

    cache_line: int
    descriptor: int
    bufctl: int
    """``sizeof(kmem_bufctl_t)``."""
    off_slab: int
    """``CFLGS_OFF_SLAB``."""
    offslab_limit: int
    break_order: int
    debug: bool
    max_order: int = MAX_GFP_ORDER
    """No slab has more than ``2**max_order`` pages."""


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
    """The slab's descriptor with its ``kmem_bufctl_t`` array, aligned as the objects are."""
    left_over: int


@dataclass(frozen=True, slots=True)
class Fit:
    """How many objects a slab of some order takes, and the bytes left over."""

    order: int
    num: int
    left_over: int


def fit(order: int, size: int, alignment: int, flags: int, limits: Limits) -> Fit:
    """How objects of ``size`` bytes fit into ``2**order`` pages."""
    off_slab = flags & limits.off_slab
    descriptor, bufctl = (0, 0) if off_slab else (limits.descriptor, limits.bufctl)
    return Fit(order, *kmem_cache_estimate(order, size, alignment, descriptor, bufctl))


def smallest_good_fit(size: int, alignment: int, flags: int, limits: Limits) -> Fit:
    """The smallest slab that wastes at most an eighth, up to an order that is hard to get."""
    order = 0
    while True:
        found = fit(order, size, alignment, flags, limits)
        if order >= limits.max_order:
            return found
        if found.num:
            if flags & limits.off_slab and found.num > limits.offslab_limit:
                # Too many for a descriptor off the slab: one order less, whatever it wastes.
                return fit(order - 1, size, alignment, flags, limits)
            if order >= limits.break_order or found.left_over * 8 <= PAGE_SIZE << order:
                return found
        order += 1
