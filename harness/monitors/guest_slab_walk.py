# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's own walk through caches, slabs and objects.

``walk_slabs()`` of the ring-0 image (``guest/kernel/slab_walk.c``) counts and sums addresses, and
checks what must hold in itself (:class:`~harness.slab_walk_layout.SlabFault`), red zones and
poison included. How its report is held against the model: :mod:`harness.monitors.walk_report`.
"""

from itertools import islice
from typing import Any, Final

from harness.machine import Machine
from harness.monitors.walk_report import Finding, GuestWalk, weighted_sum
from harness.slab_walk_layout import MAX_CACHES, NO_CACHE, SLAB_WALK, SlabFault
from kernel_model.kernel import Kernel
from kernel_model.mm.slab import Cache
from kernel_model.mm.slab.arrays import ObjectArrays
from kernel_model.mm.slab.linux_2_6.array_cache import ArrayCaches

__all__ = ["Finding", "check", "model_walk", "run_walk"]


def check(machine: Machine) -> list[Finding]:
    """Let the guest walk and compare; the guest's complaints come first."""
    return _WALK.check(machine)


def run_walk(machine: Machine) -> Any:
    """Run ``walk_slabs()``; returns a copy of its ``struct slab_walk``."""
    return _WALK.run(machine)


def _complaint(report: Any, entry: Any) -> Finding:
    fault = SlabFault(entry.kind)
    known = entry.cache < report.nr_caches
    address = f"{report.caches[entry.cache].address:#x}" if known else "none"
    where = f"cache {entry.cache}, at {address}" if entry.cache != NO_CACHE else "all caches"
    what = (
        f"the guest finds: {fault.name.lower().replace('_', ' ')}, slab {entry.slab:#x}, "
        f"object {entry.object:#x}, offset {entry.offset}"
    )
    return Finding(where, what, fault)


# -- the model's view ----------------------------------------------------------------------


def model_walk(kernel: Kernel) -> Any:
    """A ``struct slab_walk`` as the model would fill it."""
    result = SLAB_WALK.ctype()
    result.statics_bytes = kernel.image.structs.kernel_statics.size
    for cache in islice(kernel.slab.chain(), MAX_CACHES):
        slot = result.caches[result.nr_caches]
        result.nr_caches += 1
        _describe_cache(kernel, cache, slot)
        slabs = sum(list_.slabs for list_ in slot.lists)
        result.slab_pages += slabs << cache.gfporder
    return result


def _describe_cache(kernel: Kernel, cache: Cache, result: Any) -> None:
    result.address, result.objsize, result.flags = cache.vaddr, cache.objsize, cache.flags
    result.num, result.gfporder = cache.num, cache.gfporder
    result.colour_next = cache.view.colour_next
    free: list[int] = []
    heads = (cache.slabs_full, cache.slabs_partial, cache.slabs_free)
    for head, list_ in zip(heads, result.lists, strict=True):
        slabs = _slabs(kernel, cache, head)
        list_.slabs, list_.sum = len(slabs), weighted_sum(slabs)
        list_.inuse = sum(cache.inuse(slab) for slab in slabs)
        for slab in slabs:
            first = cache.s_mem(slab)
            free += [first + index * cache.objsize for index in cache.free_objects(slab)]
    result.free_objects, result.free_sum = len(free), weighted_sum(free)
    arrays = kernel.slab.cpu_caches
    if arrays is None:
        return
    for cpu in range(kernel.image.config.nr_cpus):
        _describe_array(arrays, arrays.array(cache, cpu), result.cpus[cpu])
    if isinstance(arrays, ArrayCaches):
        _describe_array(arrays, arrays.shared(cache), result.shared)


def _describe_array(arrays: ObjectArrays, array: int, slot: Any) -> None:
    slot.array = array
    if array:
        entries = arrays.entries(array)
        slot.avail, slot.limit = len(entries), arrays.limit(array)
        slot.sum = weighted_sum(entries)


def _slabs(kernel: Kernel, cache: Cache, head: int) -> list[int]:
    """The slabs of a list; no more than there are frames, up to where a broken one leads."""
    slabs: list[int] = []
    try:
        for slab in islice(cache.lists.entries(head), int(kernel.image.statics.num_physpages)):
            slabs.append(slab)
    except (IndexError, ValueError):
        pass
    return slabs


_WALK: Final = GuestWalk("walk_slabs", SLAB_WALK, _complaint, model_walk)
