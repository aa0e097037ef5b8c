# SPDX-License-Identifier: GPL-2.0-or-later
"""Looks at every object of every cache, at any time, and changes nothing.

The kernel looks at an object when it is allocated, freed, or its slab goes (linux-2.4.22
``mm/slab.c`` under ``#if DEBUG``, book 8.1.2); until then an overrun stays unseen. Here all are
looked at: the red zones of objects in use and of free ones, the poison of free ones, and, on
every build, whether an object is free twice: the kernel without CONFIG_DEBUG_SLAB does not see a
double ``kfree()``, makes a ring of ``kmem_bufctl_t`` of it, and gives the object to two users.

What can fail: a chain or list that leads out of RAM raises IndexError.
"""

from collections.abc import Iterator

from kernel_model.mm.slab.allocator import Slab
from kernel_model.mm.slab.cache import Cache
from kernel_model.mm.slab.debug import BadObject, SlabDebug
from kernel_model.mm.slab.flags import (
    BYTES_PER_WORD,
    RED_MAGIC1,
    RED_MAGIC2,
    SLAB_POISON,
    SLAB_RED_ZONE,
)


def bad_objects(slab: Slab) -> Iterator[BadObject]:
    """What is wrong with any object, cache by cache; nothing, if all is well."""
    debug = SlabDebug(slab.image)
    for cache in slab.chain():
        waiting = set[int]()
        for objp in _in_arrays(slab, cache):
            if objp in waiting:
                where = slab.objects.page_slab_of(objp)
                reason = "freed twice: it waits in per-CPU arrays twice"
                yield BadObject(reason, cache, where, objp, 0, b"", b"")
            waiting.add(objp)
        for vaddr in cache.all_slabs():
            yield from _bad_objects_of(debug, cache, vaddr, waiting)


def _in_arrays(slab: Slab, cache: Cache) -> Iterator[int]:
    """The objects in the arrays of all CPUs, from their red zones on."""
    arrays = slab.cpu_caches
    if arrays is None:
        return
    zone = BYTES_PER_WORD if cache.flags & SLAB_RED_ZONE else 0
    for cpu in range(arrays.online):
        if array := arrays.array(cache, cpu):
            yield from (entry - zone for entry in arrays.entries(array))


def _bad_objects_of(
    debug: SlabDebug, cache: Cache, slab: int, waiting: set[int]
) -> Iterator[BadObject]:
    first, size = cache.s_mem(slab), cache.objsize
    chain = cache.free_objects(slab)
    free = set(chain)
    for index in sorted(free):
        objp = first + index * size
        if chain.count(index) > 1 or objp in waiting:
            yield BadObject("freed twice", cache, slab, objp, 0, b"", b"")
    if cache.num - cache.inuse(slab) != len(chain):
        yield BadObject(
            f"{len(chain)} of {cache.num} objects are free, {cache.inuse(slab)} in use",
            *(cache, slab, first, 0, b"", b""),
        )
    for index in range(cache.num):
        if fault := _wrong_bytes(debug, cache, slab, first + index * size, index in free):
            yield fault


def _wrong_bytes(
    debug: SlabDebug, cache: Cache, slab: int, objp: int, free: bool
) -> BadObject | None:
    """The first of red zones and poison that is not as the state of the object demands."""
    fault = None
    if cache.flags & SLAB_RED_ZONE:
        magic, state = (RED_MAGIC1, "free") if free else (RED_MAGIC2, "in use")
        reason = f"written outside while {state}"
        fault = debug.red_zone_fault(cache, slab, objp, magic, reason)
    if fault is None and free and cache.flags & SLAB_POISON:
        fault = debug.poison_fault(cache, slab, objp)
    return fault
