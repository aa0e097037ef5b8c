# SPDX-License-Identifier: GPL-2.0-or-later
"""Looks at every object of every cache, at any time, and changes nothing.

The kernel looks at an object when it is allocated, freed, or its slab goes (``mm/slab.c`` under
``#if DEBUG``, book 8.1.2); until then an overrun stays unseen. Here all are looked at: the red
zones of objects in use and of free ones, the poison of free ones, and, on every build, whether an
object is free twice: the kernel without CONFIG_DEBUG_SLAB does not see a double ``kfree()``, makes
a ring of ``kmem_bufctl_t`` of it, and gives the object to two users.

What can fail: a chain or list that leads out of RAM raises IndexError.
"""

from collections.abc import Iterator

from kernel_model.mm.slab.allocator import Slab
from kernel_model.mm.slab.cache import Cache
from kernel_model.mm.slab.debug import BadObject, SlabDebug
from kernel_model.mm.slab.flags import RED_ACTIVE, RED_INACTIVE, SLAB_POISON, SLAB_RED_ZONE


def bad_objects(slab: Slab) -> Iterator[BadObject]:
    """What is wrong with any object, cache by cache; nothing, if all is well."""
    checks = slab.objects.checks
    for cache in slab.chain():
        waiting = set[int]()
        for objp in _in_arrays(slab, cache):
            if objp in waiting:
                where = slab.objects.page_slab_of(objp)
                reason = "freed twice: it waits in per-CPU arrays twice"
                yield BadObject(reason, cache, where, objp, 0, b"", b"")
            waiting.add(objp)
        for vaddr in cache.all_slabs():
            yield from _bad_objects_of(checks, cache, vaddr, waiting)


def _in_arrays(slab: Slab, cache: Cache) -> Iterator[int]:
    """The objects in the arrays of a cache, from their red zones on."""
    arrays, checks = slab.cpu_caches, slab.objects.checks
    if arrays is None:
        return
    known_by_user = cache.flags & SLAB_RED_ZONE and not checks.free_in_arrays
    zone = checks.body(cache)[0] if known_by_user else 0
    for array in arrays.all_arrays(cache):
        yield from (entry - zone for entry in arrays.entries(array))


def _bad_objects_of(
    checks: SlabDebug, cache: Cache, slab: int, waiting: set[int]
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
        objp = first + index * size
        marked_free = index in free or (checks.free_in_arrays and objp in waiting)
        if fault := _wrong_bytes(checks, cache, slab, objp, marked_free):
            yield fault


def _wrong_bytes(
    checks: SlabDebug, cache: Cache, slab: int, objp: int, free: bool
) -> BadObject | None:
    """The first of red zones and poison that is not as the state of the object demands."""
    fault = None
    if cache.flags & SLAB_RED_ZONE:
        magic, state = (RED_INACTIVE, "free") if free else (RED_ACTIVE, "in use")
        reason = f"written outside while {state}"
        fault = checks.red_zone_fault(cache, slab, objp, magic, reason)
    if fault is None and free and cache.flags & SLAB_POISON:
        fault = checks.poison_fault(cache, slab, objp)
    return fault
