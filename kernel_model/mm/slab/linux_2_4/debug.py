# SPDX-License-Identifier: GPL-2.0-or-later
"""When 2.4 looks at an object: as it leaves its slab, comes back to it, and goes with it.

Models linux-2.4.22 ``mm/slab.c`` under ``#if DEBUG`` (book 8.1.2). An object in a per-CPU array
has left its slab, and so bears the marks of one in use.

What can fail: :class:`~kernel_model.mm.slab.debug.BadObject`, where the kernel calls ``BUG()``.
"""

from collections.abc import Callable

from kernel_model.mm.slab.cache import Cache
from kernel_model.mm.slab.debug import BadObject, SlabDebug
from kernel_model.mm.slab.flags import (
    BYTES_PER_WORD,
    RED_ACTIVE,
    RED_INACTIVE,
    SLAB_CTOR_CONSTRUCTOR,
    SLAB_CTOR_VERIFY,
    SLAB_DEBUG_INITIAL,
    SLAB_POISON,
    SLAB_RED_ZONE,
)


class SlabDebug24(SlabDebug):
    """The checks of 2.4."""

    free_in_arrays = False

    def body(self, cache: Cache) -> tuple[int, int]:
        if cache.flags & SLAB_RED_ZONE:
            return BYTES_PER_WORD, cache.objsize - 2 * BYTES_PER_WORD
        return 0, cache.objsize

    def red_zones(self, cache: Cache) -> tuple[int, int]:
        return 0, cache.objsize - BYTES_PER_WORD

    def place_fault(self, cache: Cache, slab: int, objp: int) -> BadObject | None:
        """Whether ``objp`` is no object of the slab, or one that is free."""
        if fault := super().place_fault(cache, slab, objp):
            return fault
        if (objp - cache.s_mem(slab)) // cache.objsize in cache.free_objects(slab):
            return BadObject("freed twice", cache, slab, objp, 0, b"", b"")
        return None

    def _swap_red_zones(
        self, cache: Cache, slab: int, objp: int, expected: int, new: int, reason: str
    ) -> None:
        if fault := self.red_zone_fault(cache, slab, objp, expected, reason):
            raise fault
        self.mark_red_zones(cache, objp, new)

    def _check_poison(self, cache: Cache, slab: int, objp: int) -> None:
        if fault := self.poison_fault(cache, slab, objp):
            raise fault

    def construct(
        self,
        cache: Cache,
        slab: int,
        objp: int,
        ctor: Callable[[int, int, int], None] | None,
        ctor_flags: int,
    ) -> None:
        flags = cache.flags
        if flags & SLAB_RED_ZONE:
            self.mark_red_zones(cache, objp, RED_INACTIVE)
        if ctor is not None:
            ctor(objp + self.body(cache)[0], cache.vaddr, ctor_flags)
        if flags & SLAB_POISON:
            self.poison(cache, objp, self._poison)
        if flags & SLAB_RED_ZONE:
            reason = "the constructor wrote outside the object"
            self._swap_red_zones(cache, slab, objp, RED_INACTIVE, RED_INACTIVE, reason)

    def destruct(
        self, cache: Cache, slab: int, objp: int, dtor: Callable[[int, int, int], None] | None
    ) -> None:
        if cache.flags & SLAB_RED_ZONE:
            reason = "written outside while free"
            self._swap_red_zones(cache, slab, objp, RED_INACTIVE, RED_INACTIVE, reason)
        if dtor is not None:
            dtor(objp + self.body(cache)[0], cache.vaddr, 0)
        if cache.flags & SLAB_POISON:
            self._check_poison(cache, slab, objp)

    def allocated(self, cache: Cache, slab: int, objp: int) -> int:
        """An object leaves its slab. Returns where its user may write."""
        view = cache.view
        view.num_allocations += 1
        view.num_active += 1
        view.high_mark = max(view.high_mark, view.num_active)
        if cache.flags & SLAB_POISON:
            self._check_poison(cache, slab, objp)
        if cache.flags & SLAB_RED_ZONE:
            reason = "written outside while free"
            self._swap_red_zones(cache, slab, objp, RED_INACTIVE, RED_ACTIVE, reason)
            return objp + BYTES_PER_WORD
        return objp

    def freed(
        self,
        cache: Cache,
        slab: int,
        objp: int,
        functions: dict[int, Callable[[int, int, int], None]],
    ) -> int:
        """An object comes back. Returns where it begins, its red zone included.

        Where it lies is looked at first: the kernel asks the red zones before, and calls
        ``BUG()`` without saying whether somebody wrote outside, or freed twice.
        """
        flags = cache.flags
        begin = objp - self.body(cache)[0]
        if fault := self.place_fault(cache, slab, begin):
            raise fault
        if flags & SLAB_DEBUG_INITIAL:
            ctor = functions[int(cache.view.ctor)]
            ctor(objp, cache.vaddr, SLAB_CTOR_CONSTRUCTOR | SLAB_CTOR_VERIFY)
        if flags & SLAB_RED_ZONE:
            reason = "written outside while in use"
            self._swap_red_zones(cache, slab, begin, RED_ACTIVE, RED_INACTIVE, reason)
        if flags & SLAB_POISON:
            self.poison(cache, begin, self._poison)
        cache.view.num_active -= 1
        return begin
