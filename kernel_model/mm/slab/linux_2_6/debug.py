# SPDX-License-Identifier: GPL-2.0-or-later
"""When 2.6 looks at an object: as its user gets it, gives it back, and as its slab goes.

Models linux-2.6.11 ``mm/slab.c`` under ``#if DEBUG``: ``cache_alloc_debugcheck_after()``,
``cache_free_debugcheck()``, ``check_poison_obj()`` (book 8.8). In RAM: before an object a red zone
(``dbghead`` bytes), behind its ``reallen`` bytes another one and the address of its last user. An
object in an array is free, and bears the marks of a free one. Objects that are poisoned are
constructed when they are given out, not when their slab is new.

2.6 tells in its log what it finds wrong with an object, and goes on. It stops at a
:class:`~kernel_model.mm.slab.debug.BadObject` only: what is no object, or is freed twice.
"""

from collections.abc import Callable

from kernel_model.arch_i386.page import PAGE_OFFSET, virt_to_phys
from kernel_model.image import KernelImage
from kernel_model.mm.slab.cache import Cache
from kernel_model.mm.slab.debug import SlabDebug
from kernel_model.mm.slab.flags import (
    BYTES_PER_WORD,
    RED_ACTIVE,
    RED_INACTIVE,
    SLAB_CTOR_ATOMIC,
    SLAB_CTOR_CONSTRUCTOR,
    SLAB_CTOR_VERIFY,
    SLAB_DEBUG_INITIAL,
    SLAB_POISON,
    SLAB_RED_ZONE,
    SlabConstants,
)
from kernel_model.mm.slab.linux_2_6.constants import POISON_INUSE, SLAB_STORE_USER

_LINE = 16
_MOST_LINES = 6
Function = Callable[[int, int, int], None]


class SlabDebug26(SlabDebug):
    """The checks of 2.6."""

    free_in_arrays = True

    def __init__(self, image: KernelImage, constants: SlabConstants) -> None:
        super().__init__(image, constants)
        self.caller = 0
        """Return address of the call that is being served: who uses an object."""

    def body(self, cache: Cache) -> tuple[int, int]:
        return int(cache.view.dbghead), int(cache.view.reallen)

    def red_zones(self, cache: Cache) -> tuple[int, int]:
        behind = 2 if cache.flags & SLAB_STORE_USER else 1
        head = int(cache.view.dbghead)
        return head - BYTES_PER_WORD, cache.objsize - behind * BYTES_PER_WORD

    def count_taken(self, cache: Cache) -> None:
        """An object leaves its slab."""
        view = cache.view
        view.num_allocations += 1
        view.num_active += 1
        view.high_mark = max(view.high_mark, view.num_active)

    def count_freeable(self, cache: Cache) -> None:
        """How many free slabs a cache had at the most."""
        free = len(cache.slabs(cache.slabs_free))
        cache.view.max_freeable = max(cache.view.max_freeable, free)

    # -- slabs ---------------------------------------------------------------------------------

    def construct(
        self, cache: Cache, slab: int, objp: int, ctor: Function | None, ctor_flags: int
    ) -> None:
        flags = cache.flags
        if flags & SLAB_POISON:
            self.poison(cache, objp, self._poison)
        self._store_user(cache, objp, 0)
        if flags & SLAB_RED_ZONE:
            self.mark_red_zones(cache, objp, RED_INACTIVE)
        if ctor is not None and not flags & SLAB_POISON:
            ctor(objp + self.body(cache)[0], cache.vaddr, ctor_flags)
        if flags & SLAB_RED_ZONE:
            start, end = self._wrong_zones(cache, objp, RED_INACTIVE)
            text = "constructor overwrote the {} of an object"
            if end:
                self._error("cache_init_objs", cache, text.format("end"))
            if start:
                self._error("cache_init_objs", cache, text.format("start"))

    def destruct(self, cache: Cache, slab: int, objp: int, dtor: Function | None) -> None:
        flags = cache.flags
        if flags & SLAB_POISON:
            self._check_poison(cache, slab, objp)
        if flags & SLAB_RED_ZONE:
            for side, wrong in zip(
                ("start", "end"), self._wrong_zones(cache, objp, RED_INACTIVE), strict=True
            ):
                if wrong:
                    self._error("slab_destroy", cache, f"{side} of a freed object was overwritten")
        if dtor is not None and not flags & SLAB_POISON:
            dtor(objp + self.body(cache)[0], cache.vaddr, 0)

    # -- objects -------------------------------------------------------------------------------

    def allocated(
        self, cache: Cache, slab: int, objp: int, flags: int, ctor: Function | None
    ) -> int:
        """A user gets an object. Returns where it may write."""
        if cache.flags & SLAB_POISON:
            self._check_poison(cache, slab, objp)
            self.poison(cache, objp, POISON_INUSE)
        self._store_user(cache, objp, self.caller)
        self._swap_red_zones("cache_alloc_debugcheck_after", cache, objp, RED_INACTIVE, RED_ACTIVE)
        begin = objp + self.body(cache)[0]
        if ctor is not None and cache.flags & SLAB_POISON:
            sleeps = flags & self._image.constants.gfp.wait
            ctor_flags = SLAB_CTOR_CONSTRUCTOR | (0 if sleeps else SLAB_CTOR_ATOMIC)
            ctor(begin, cache.vaddr, ctor_flags)
        return begin

    def freed(
        self, cache: Cache, slab: int, objp: int, ctor: Function | None, dtor: Function | None
    ) -> int:
        """A user gives an object back. Returns where it begins, its red zone included."""
        begin = objp - self.body(cache)[0]
        self._swap_red_zones("cache_free_debugcheck", cache, begin, RED_ACTIVE, RED_INACTIVE)
        self._store_user(cache, begin, self.caller)
        if fault := self.place_fault(cache, slab, begin):
            raise fault
        if cache.flags & SLAB_DEBUG_INITIAL and ctor is not None:
            ctor(objp, cache.vaddr, SLAB_CTOR_CONSTRUCTOR | SLAB_CTOR_VERIFY)
        if cache.flags & SLAB_POISON:
            if dtor is not None:
                dtor(objp, cache.vaddr, 0)
            self.poison(cache, begin, self._poison)
        return begin

    def _store_user(self, cache: Cache, objp: int, caller: int) -> None:
        if cache.flags & SLAB_STORE_USER:
            self._words[self._user_word(cache, objp)] = caller

    @staticmethod
    def _user_word(cache: Cache, objp: int) -> int:
        return objp + cache.objsize - BYTES_PER_WORD - PAGE_OFFSET >> 2

    # -- red zones -----------------------------------------------------------------------------

    def _zones(self, cache: Cache, objp: int) -> tuple[int, int]:
        """What stands before and behind an object."""
        before, behind = self.red_zones(cache)
        words, at = self._words, objp - PAGE_OFFSET
        return words[at + before >> 2], words[at + behind >> 2]

    def _wrong_zones(self, cache: Cache, objp: int, magic: int) -> tuple[bool, bool]:
        before, behind = self._zones(cache, objp)
        return before != magic, behind != magic

    def _swap_red_zones(
        self, function: str, cache: Cache, objp: int, expected: int, new: int
    ) -> None:
        if not cache.flags & SLAB_RED_ZONE:
            return
        if any(self._wrong_zones(cache, objp, expected)):
            what = "double free, or memory outside object was overwritten"
            self._error(function, cache, what)
            before, behind = self._zones(cache, objp)
            self._image.printk(f"<3>{objp:08x}: redzone 1: {before:#x}, redzone 2: {behind:#x}.\n")
        self.mark_red_zones(cache, objp, new)

    def _error(self, function: str, cache: Cache, what: str) -> None:
        self._image.printk(slab_error(function, cache, what))

    # -- poison --------------------------------------------------------------------------------

    def _check_poison(self, cache: Cache, slab: int, objp: int) -> None:
        if not self.poison_fault(cache, slab, objp):
            return
        offset, size = self.body(cache)
        self._image.printk(f"<3>Slab corruption: start={objp + offset:08x}, len={size}\n")
        self._print_marks(cache, objp)
        good = self._poisoned(size)
        body = self._ram.read(virt_to_phys(objp) + offset, size)
        starts = range(0, size, _LINE)
        wrong = [i for i in starts if body[i : i + _LINE] != good[i : i + _LINE]]
        for start in wrong[:_MOST_LINES]:
            self._print_line(body, start)
        index = (objp - cache.s_mem(slab)) // cache.objsize
        for neighbour, name in ((index - 1, "Prev"), (index + 1, "Next")):
            if 0 <= neighbour < cache.num:
                self._print_neighbour(cache, cache.s_mem(slab) + neighbour * cache.objsize, name)

    def _print_marks(self, cache: Cache, objp: int) -> None:
        if cache.flags & SLAB_RED_ZONE:
            before, behind = self._zones(cache, objp)
            self._image.printk(f"<3>Redzone: {before:#x}/{behind:#x}.\n")
        if cache.flags & SLAB_STORE_USER:
            user = self._words[self._user_word(cache, objp)]
            self._image.printk(f"<3>Last user: [<{user:08x}>]\n")

    def _print_neighbour(self, cache: Cache, objp: int, name: str) -> None:
        offset, size = self.body(cache)
        self._image.printk(f"<3>{name} obj: start={objp + offset:08x}, len={size}\n")
        self._print_marks(cache, objp)
        body = self._ram.read(virt_to_phys(objp) + offset, size)
        for start in range(0, size, _LINE)[:2]:
            self._print_line(body, start)

    def _print_line(self, body: bytes, start: int) -> None:
        shown = body[start : start + _LINE].hex(" ")
        self._image.printk(f"<3>{start:03x}: {shown}\n")


def slab_error(function: str, cache: Cache, what: str) -> str:
    """``slab_error()``: how a function tells of a cache."""
    return f"<3>slab error in {function}(): cache `{cache.name}': {what}\n"
