# SPDX-License-Identifier: GPL-2.0-or-later
"""Bits in RAM: bit ``i`` is bit ``i % 8`` of byte ``i / 8``, as ``test_bit()`` has it.

Models linux-2.4.22 ``include/asm-i386/bitops.h`` over ranges: a run of bits is one big
integer, so that setting or searching a whole boot map costs microseconds.
"""

from kernel_model.ram import Ram


class Bitmap:
    """``length`` bits that begin at physical address ``paddr``."""

    def __init__(self, ram: Ram, paddr: int, length: int) -> None:
        self._bytes = ram.bytes[paddr : paddr + (length + 7) // 8]
        self.length = length

    def test(self, index: int) -> bool:
        return bool(self._bytes[index >> 3] >> (index & 7) & 1)

    def toggle(self, index: int) -> bool:
        """``__test_and_change_bit``: flip the bit, return what it was."""
        old = self._bytes[index >> 3]
        self._bytes[index >> 3] = old ^ (1 << (index & 7))
        return bool(old >> (index & 7) & 1)

    def value(self) -> int:
        """All bits as one integer; bit ``i`` of the map is bit ``i`` of the integer."""
        return int.from_bytes(self._bytes, "little") & ((1 << self.length) - 1)

    def read(self, start: int, end: int) -> int:
        """Bits ``start`` to ``end - 1`` as an integer that begins at bit 0."""
        chunk = self._bytes[start >> 3 : (end + 7) >> 3]
        return int.from_bytes(chunk, "little") >> (start & 7) & ((1 << (end - start)) - 1)

    def write(self, start: int, end: int, value: int) -> None:
        """Set bits ``start`` to ``end - 1`` to those of ``value``."""
        first, last = start >> 3, (end + 7) >> 3
        mask = ((1 << (end - start)) - 1) << (start & 7)
        old = int.from_bytes(self._bytes[first:last], "little")
        new = old & ~mask | value << (start & 7) & mask
        self._bytes[first:last] = new.to_bytes(last - first, "little")


def lowest_set(value: int) -> int:
    """Index of the lowest set bit (``ffs`` - 1); -1 when there is none."""
    return (value & -value).bit_length() - 1
