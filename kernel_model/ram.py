# SPDX-License-Identifier: GPL-2.0-or-later
"""The physical memory of the machine: one anonymous mapping that the CPU shares.

Models the RAM behind the memory bus of an i386, not a file of Linux. Pages of the host are
taken when they are first touched, so 64 GiB cost nothing until something is written.

Three ways in, by what they cost:

* ``read32``/``write32`` and their kin check bounds and holes and name the bad address;
* ``words`` (``memoryview`` of u32, indexed by ``paddr >> 2``) is for inner loops that walk
  structures known to lie in RAM;
* ``table`` gives a numpy view of whole tables.

What can fail: an address outside the e820 map raises :class:`BadPhysicalAddress`.
"""

import ctypes
import mmap
from bisect import bisect_right
from collections.abc import Iterable
from typing import Final

import numpy as np
import numpy.typing as npt

from kernel_model.errors import BadConfig, BadPhysicalAddress

PAGE_SHIFT: Final = 12
PAGE_SIZE: Final = 1 << PAGE_SHIFT
MAX_RAM: Final = 64 << 30
"""Bytes that 36 physical address bits (PAE, PSE-36) reach."""

_MAP_NORESERVE: Final = getattr(mmap, "MAP_NORESERVE", 0x4000)


class Ram:
    """Physical memory of ``size`` bytes, addressed by physical byte address.

    ``ranges`` are the ``[start, end)`` byte ranges that hold RAM; what lies between them is a
    hole. They are page aligned, sorted and disjoint.
    """

    def __init__(self, size: int, ranges: Iterable[tuple[int, int]] | None = None) -> None:
        if not PAGE_SIZE <= size <= MAX_RAM or size % PAGE_SIZE:
            raise BadConfig(
                f"RAM of {size} bytes: give whole 4 KiB pages, at least one and at most 64 GiB"
            )
        self.size = size
        self.ranges = tuple(ranges) if ranges is not None else ((0, size),)
        self._check_ranges()
        flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | _MAP_NORESERVE
        self.buffer = mmap.mmap(-1, size, flags=flags)
        self.bytes = memoryview(self.buffer)
        self.words = self.bytes.cast("I")
        self.quads = self.bytes.cast("Q")
        self.address = ctypes.addressof(ctypes.c_char.from_buffer(self.buffer))
        """Where byte 0 lies in this process: what the CPU maps."""
        edges = [edge for span in self.ranges for edge in span]
        # Where two ranges meet there is no edge: an access may cross from one into the other.
        self._edges = [edge for edge in edges if edges.count(edge) == 1]

    def _check_ranges(self) -> None:
        previous_end = 0
        for start, end in self.ranges:
            if start % PAGE_SIZE or end % PAGE_SIZE or not previous_end <= start < end <= self.size:
                raise BadConfig(
                    f"RAM range {start:#x}..{end:#x}: give sorted, disjoint, page-aligned ranges "
                    f"below {self.size:#x}"
                )
            previous_end = end

    @property
    def frames(self) -> int:
        """Number of page frames from 0 to the end of RAM, holes included."""
        return self.size >> PAGE_SHIFT

    def contains(self, paddr: int, length: int = 1) -> bool:
        """Whether ``length`` bytes at ``paddr`` all lie in RAM, with no hole between them."""
        index = bisect_right(self._edges, paddr)
        return index % 2 == 1 and paddr + length <= self._edges[index]

    def _check(self, paddr: int, length: int) -> None:
        # contains(), in full: every page that is cleared or copied comes by here.
        index = bisect_right(self._edges, paddr)
        if index % 2 == 0 or paddr + length > self._edges[index]:
            inside = 0 <= paddr <= self.size - length
            where = "in a hole of the e820 map" if inside else "outside RAM"
            raise BadPhysicalAddress(paddr, length, where)

    def read8(self, paddr: int) -> int:
        self._check(paddr, 1)
        return self.bytes[paddr]

    def write8(self, paddr: int, value: int) -> None:
        self._check(paddr, 1)
        self.bytes[paddr] = value

    def read32(self, paddr: int) -> int:
        self._check(paddr, 4)
        return int.from_bytes(self.bytes[paddr : paddr + 4], "little")

    def write32(self, paddr: int, value: int) -> None:
        self._check(paddr, 4)
        self.bytes[paddr : paddr + 4] = value.to_bytes(4, "little")

    def read64(self, paddr: int) -> int:
        self._check(paddr, 8)
        return int.from_bytes(self.bytes[paddr : paddr + 8], "little")

    def write64(self, paddr: int, value: int) -> None:
        self._check(paddr, 8)
        self.bytes[paddr : paddr + 8] = value.to_bytes(8, "little")

    def read(self, paddr: int, length: int) -> bytes:
        """``length`` bytes at ``paddr``."""
        self._check(paddr, length)
        return bytes(self.bytes[paddr : paddr + length])

    def write(self, paddr: int, data: bytes | bytearray | memoryview) -> None:
        self._check(paddr, len(data))
        self.bytes[paddr : paddr + len(data)] = data

    def copy(self, to: int, source: int, length: int) -> None:
        """``memmove``: ``length`` bytes from ``source`` to ``to``."""
        self._check(to, length)
        self._check(source, length)
        ctypes.memmove(self.address + to, self.address + source, length)

    def fill(self, paddr: int, length: int, value: int = 0) -> None:
        """``memset``: set ``length`` bytes at ``paddr`` to the byte ``value``."""
        self._check(paddr, length)
        ctypes.memset(self.address + paddr, value, length)

    def table(
        self, paddr: int, count: int = 1024, dtype: npt.DTypeLike = np.uint32
    ) -> npt.NDArray[np.unsignedinteger]:
        """A writable numpy view of ``count`` items at ``paddr``; no copy."""
        kind = np.dtype(dtype)
        self._check(paddr, count * kind.itemsize)
        return np.frombuffer(self.buffer, kind, count, paddr)
