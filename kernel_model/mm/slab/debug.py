# SPDX-License-Identifier: GPL-2.0-or-later
"""Red zones and poison: what CONFIG_DEBUG_SLAB leaves around and in objects.

Models ``mm/slab.c`` under ``#if DEBUG`` (book 8.1.2). In RAM: a magic word before and behind each
object tells whether it is in use; a free object is filled with a byte, up to a last one of 0xA5.
Guest code that writes where it may not leaves its traces there. When an object is looked at, and
what then happens, is :mod:`.linux_2_4.debug` and :mod:`.linux_2_6.debug`.

What can fail: :class:`BadObject`, where the kernel calls ``BUG()``.
"""

from collections.abc import Callable
from typing import Final

from kernel_model.arch_i386.page import PAGE_OFFSET, virt_to_phys
from kernel_model.errors import KernelBug
from kernel_model.image import KernelImage
from kernel_model.mm.slab.cache import Cache
from kernel_model.mm.slab.flags import BYTES_PER_WORD, POISON_END, SlabConstants

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

    free_in_arrays: bool
    """Whether an object in a per-CPU array has the marks of a free one: it is looked at when its
    user gives it back, not when it goes into its slab."""

    def __init__(self, image: KernelImage, constants: SlabConstants) -> None:
        self._image = image
        self._ram = image.ram
        self._words = image.ram.words
        self._poison = constants.poison

    # -- where things lie --------------------------------------------------------------------

    def body(self, cache: Cache) -> tuple[int, int]:
        """(first byte, bytes) of an object that its user has: between its red zones."""
        raise NotImplementedError

    def red_zones(self, cache: Cache) -> tuple[int, int]:
        """Byte offsets of the words before and behind the object."""
        raise NotImplementedError

    # -- questions ---------------------------------------------------------------------------

    def red_zone_fault(
        self, cache: Cache, slab: int, objp: int, magic: int, reason: str
    ) -> BadObject | None:
        """Whether one of the words beside an object is not ``magic``."""
        expected = magic.to_bytes(4, "little")
        for offset, side in zip(self.red_zones(cache), ("before", "behind"), strict=True):
            found = self._ram.read(virt_to_phys(objp) + offset, BYTES_PER_WORD)
            if found != expected:
                why = f"{reason} ({side} it)"
                return BadObject(why, cache, slab, objp, offset, expected, found)
        return None

    def poison_fault(self, cache: Cache, slab: int, objp: int) -> BadObject | None:
        """``kmem_check_poison_obj()``: the first byte of a free object that somebody wrote."""
        offset, size = self.body(cache)
        body = self._ram.read(virt_to_phys(objp) + offset, size)
        good = self._poisoned(size)
        if body == good:
            return None
        wrong = next(i for i in range(size) if body[i] != good[i])
        shown = slice(wrong, wrong + _SHOWN_BYTES)
        reason = "written after it was freed"
        return BadObject(reason, cache, slab, objp, offset + wrong, good[shown], body[shown])

    def _poisoned(self, size: int) -> bytes:
        return bytes([self._poison]) * (size - 1) + bytes([POISON_END])

    def place_fault(self, cache: Cache, slab: int, objp: int) -> BadObject | None:
        """Whether ``objp`` is no object of the slab."""
        first = cache.s_mem(slab)
        index, rest = divmod(objp - first, cache.objsize)
        if 0 <= index < cache.num and not rest:
            return None
        begin = first + index * cache.objsize
        reason = "freed, but no object begins there"
        return BadObject(reason, cache, slab, begin, rest, b"", b"")

    # -- marks ---------------------------------------------------------------------------------

    def poison(self, cache: Cache, objp: int, byte: int) -> None:
        """``kmem_poison_obj()``."""
        offset, size = self.body(cache)
        start = virt_to_phys(objp) + offset
        self._ram.fill(start, size, byte)
        self._ram.write8(start + size - 1, POISON_END)

    def mark_red_zones(self, cache: Cache, objp: int, magic: int) -> None:
        """Write both words beside an object."""
        for offset in self.red_zones(cache):
            self._words[objp + offset - PAGE_OFFSET >> 2] = magic

    # -- slabs ---------------------------------------------------------------------------------

    def construct(
        self,
        cache: Cache,
        slab: int,
        objp: int,
        ctor: Callable[[int, int, int], None] | None,
        ctor_flags: int,
    ) -> None:
        """A new object: marked as a free one, constructed or poisoned."""
        raise NotImplementedError

    def destruct(
        self, cache: Cache, slab: int, objp: int, dtor: Callable[[int, int, int], None] | None
    ) -> None:
        """A free object whose slab goes: nobody may have touched it."""
        raise NotImplementedError
