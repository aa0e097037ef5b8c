# SPDX-License-Identifier: GPL-2.0-or-later
"""Red zones, poison and statistics: the slab allocator with CONFIG_DEBUG_SLAB.

Models linux-2.4.22 ``mm/slab.c`` under ``#if DEBUG`` (book 8.1.2). In RAM: a magic word before
and behind each object tells whether it is in use; a free object is filled with 0x5A up to a
last byte of 0xA5. Guest code that writes where it may not leaves its traces there.

What can fail: :class:`BadObject`, where the kernel calls ``BUG()``.
"""

from collections.abc import Callable
from typing import Final

from kernel_model.arch_i386.page import PAGE_OFFSET, virt_to_phys
from kernel_model.errors import KernelBug
from kernel_model.image import KernelImage
from kernel_model.mm.slab.cache import Cache
from kernel_model.mm.slab.flags import (
    BYTES_PER_WORD,
    POISON_BYTE,
    POISON_END,
    RED_MAGIC1,
    RED_MAGIC2,
    SLAB_CTOR_CONSTRUCTOR,
    SLAB_CTOR_VERIFY,
    SLAB_DEBUG_INITIAL,
    SLAB_POISON,
    SLAB_RED_ZONE,
)

_SHOWN_BYTES: Final = 16


class BadObject(KernelBug):
    """An object is not as it was left: somebody wrote outside it, or after it was freed.

    From byte ``offset`` of ``object`` on, ``expected`` should stand there; ``found`` does.
    ``object`` begins with its red zone, if it has one.
    """

    def __init__(
        self,
        reason: str,
        cache: Cache,
        slab: int,
        objp: int,
        offset: int,
        expected: bytes,
        found: bytes,
    ) -> None:
        bytes_ = f", expected {expected.hex(' ')}, found {found.hex(' ')}" if expected else ""
        place = f"cache {cache.name}, slab {slab:#x}, object {objp:#x}, offset {offset}"
        super().__init__("slab.c", 0, f"{reason}: {place}{bytes_}")
        self.cache = cache.name
        self.slab = slab
        self.object = objp
        self.offset = offset
        self.expected = expected
        self.found = found


class SlabDebug:
    """The checks, over the RAM of one machine."""

    def __init__(self, image: KernelImage) -> None:
        self._ram = image.ram
        self._words = image.ram.words

    # -- questions ---------------------------------------------------------------------------

    def red_zone_fault(
        self, cache: Cache, slab: int, objp: int, magic: int, reason: str
    ) -> BadObject | None:
        """Whether one of the words beside an object is not ``magic``."""
        expected = magic.to_bytes(4, "little")
        for offset, side in ((0, "before"), (cache.objsize - BYTES_PER_WORD, "behind")):
            found = self._ram.read(virt_to_phys(objp) + offset, BYTES_PER_WORD)
            if found != expected:
                why = f"{reason} ({side} it)"
                return BadObject(why, cache, slab, objp, offset, expected, found)
        return None

    def poison_fault(self, cache: Cache, slab: int, objp: int) -> BadObject | None:
        """``kmem_check_poison_obj()``, but byte by byte, so that the first wrong one is named."""
        offset, size = self._body(cache)
        body = self._ram.read(virt_to_phys(objp) + offset, size)
        good = bytes([POISON_BYTE]) * (size - 1) + bytes([POISON_END])
        if body == good:
            return None
        wrong = next(i for i in range(size) if body[i] != good[i])
        shown = slice(wrong, wrong + _SHOWN_BYTES)
        reason = "written after it was freed"
        return BadObject(reason, cache, slab, objp, offset + wrong, good[shown], body[shown])

    def place_fault(self, cache: Cache, slab: int, objp: int) -> BadObject | None:
        """Whether ``objp`` is no object of the slab, or one that is free."""
        first = cache.s_mem(slab)
        index, rest = divmod(objp - first, cache.objsize)
        if not 0 <= index < cache.num or rest:
            begin = first + index * cache.objsize
            reason = "freed, but no object begins there"
            return BadObject(reason, cache, slab, begin, rest, b"", b"")
        if index in cache.free_objects(slab):
            return BadObject("freed twice", cache, slab, objp, 0, b"", b"")
        return None

    # -- what the allocator asks for ---------------------------------------------------------------

    def _swap_red_zones(
        self, cache: Cache, slab: int, objp: int, expected: int, new: int, reason: str
    ) -> None:
        if fault := self.red_zone_fault(cache, slab, objp, expected, reason):
            raise fault
        for offset in (0, cache.objsize - BYTES_PER_WORD):
            self._words[objp + offset - PAGE_OFFSET >> 2] = new

    def _check_poison(self, cache: Cache, slab: int, objp: int) -> None:
        if fault := self.poison_fault(cache, slab, objp):
            raise fault

    def _body(self, cache: Cache) -> tuple[int, int]:
        """(first byte, bytes) of an object between its red zones."""
        if cache.flags & SLAB_RED_ZONE:
            return BYTES_PER_WORD, cache.objsize - 2 * BYTES_PER_WORD
        return 0, cache.objsize

    def poison(self, cache: Cache, objp: int) -> None:
        """``kmem_poison_obj()``."""
        offset, size = self._body(cache)
        start = virt_to_phys(objp) + offset
        self._ram.fill(start, size, POISON_BYTE)
        self._ram.write8(start + size - 1, POISON_END)

    def construct(
        self,
        cache: Cache,
        slab: int,
        objp: int,
        ctor: Callable[[int, int, int], None] | None,
        ctor_flags: int,
    ) -> None:
        """A new object: red zones of a free one, constructed or poisoned."""
        flags = cache.flags
        if flags & SLAB_RED_ZONE:
            for offset in (0, cache.objsize - BYTES_PER_WORD):
                self._words[objp + offset - PAGE_OFFSET >> 2] = RED_MAGIC1
        if ctor is not None:
            ctor(objp + self._body(cache)[0], cache.vaddr, ctor_flags)
        if flags & SLAB_POISON:
            self.poison(cache, objp)
        if flags & SLAB_RED_ZONE:
            reason = "the constructor wrote outside the object"
            self._swap_red_zones(cache, slab, objp, RED_MAGIC1, RED_MAGIC1, reason)

    def destruct(
        self, cache: Cache, slab: int, objp: int, dtor: Callable[[int, int, int], None] | None
    ) -> None:
        """A free object whose slab goes: nobody may have touched it."""
        if cache.flags & SLAB_RED_ZONE:
            reason = "written outside while free"
            self._swap_red_zones(cache, slab, objp, RED_MAGIC1, RED_MAGIC1, reason)
        if dtor is not None:
            dtor(objp + self._body(cache)[0], cache.vaddr, 0)
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
            self._swap_red_zones(cache, slab, objp, RED_MAGIC1, RED_MAGIC2, reason)
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
        begin = objp - BYTES_PER_WORD if flags & SLAB_RED_ZONE else objp
        if fault := self.place_fault(cache, slab, begin):
            raise fault
        if flags & SLAB_DEBUG_INITIAL:
            ctor = functions[int(cache.view.ctor)]
            ctor(objp, cache.vaddr, SLAB_CTOR_CONSTRUCTOR | SLAB_CTOR_VERIFY)
        if flags & SLAB_RED_ZONE:
            reason = "written outside while in use"
            self._swap_red_zones(cache, slab, begin, RED_MAGIC2, RED_MAGIC1, reason)
        if flags & SLAB_POISON:
            self.poison(cache, begin)
        cache.view.num_active -= 1
        return begin
