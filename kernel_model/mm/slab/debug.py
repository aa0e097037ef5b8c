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

    ``offset`` is the byte of the object that is wrong, ``found`` what stands from there on.
    """

    def __init__(
        self, reason: str, cache: Cache, slab: int, objp: int, offset: int, found: bytes
    ) -> None:
        super().__init__(
            "slab.c",
            0,
            f"{reason}: cache {cache.name}, slab {slab:#x}, object {objp:#x}, offset {offset}: "
            f"{found.hex(' ')}",
        )
        self.cache = cache.name
        self.slab = slab
        self.object = objp
        self.offset = offset
        self.found = found


class SlabDebug:
    """The checks, over the RAM of one machine."""

    def __init__(self, image: KernelImage) -> None:
        self._ram = image.ram
        self._words = image.ram.words

    def _bad(self, reason: str, cache: Cache, slab: int, objp: int, offset: int) -> BadObject:
        found = self._ram.read(
            virt_to_phys(objp) + offset, min(_SHOWN_BYTES, cache.objsize - offset)
        )
        return BadObject(reason, cache, slab, objp, offset, found)

    def _swap_red_zones(
        self, cache: Cache, slab: int, objp: int, expected: int, new: int, reason: str
    ) -> None:
        for offset in (0, cache.objsize - BYTES_PER_WORD):
            at = objp + offset - PAGE_OFFSET >> 2
            if self._words[at] != expected:
                side = "before" if offset == 0 else "behind"
                raise self._bad(f"{reason} ({side} it)", cache, slab, objp, offset)
            self._words[at] = new

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

    def _check_poison(self, cache: Cache, slab: int, objp: int) -> None:
        """``kmem_check_poison_obj()``, but byte by byte, so that the first wrong one is named."""
        offset, size = self._body(cache)
        body = self._ram.read(virt_to_phys(objp) + offset, size)
        good = bytes([POISON_BYTE]) * (size - 1) + bytes([POISON_END])
        if body != good:
            wrong = next(i for i in range(size) if body[i] != good[i])
            raise self._bad("written after it was freed", cache, slab, objp, offset + wrong)

    def construct(
        self,
        cache: Cache,
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
            self._swap_red_zones(cache, 0, objp, RED_MAGIC1, RED_MAGIC1, reason)

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
        """An object comes back. Returns where it begins, its red zone included."""
        flags = cache.flags
        if flags & SLAB_DEBUG_INITIAL:
            ctor = functions[int(cache.view.ctor)]
            ctor(objp, cache.vaddr, SLAB_CTOR_CONSTRUCTOR | SLAB_CTOR_VERIFY)
        if flags & SLAB_RED_ZONE:
            objp -= BYTES_PER_WORD
            reason = "written outside, or freed twice"
            self._swap_red_zones(cache, slab, objp, RED_MAGIC2, RED_MAGIC1, reason)
        if flags & SLAB_POISON:
            self.poison(cache, objp)
        self._extra_free_checks(cache, slab, objp)
        cache.view.num_active -= 1
        return objp

    def _extra_free_checks(self, cache: Cache, slab: int, objp: int) -> None:
        index, rest = divmod(objp - cache.s_mem(slab), cache.objsize)
        if not 0 <= index < cache.num or rest:
            raise self._bad("no object begins there", cache, slab, objp, 0)
        if index in cache.free_objects(slab):
            raise self._bad("freed twice", cache, slab, objp, 0)
