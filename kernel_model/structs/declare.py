# SPDX-License-Identifier: GPL-2.0-or-later
"""How a C structure is declared: once, for Python views over RAM and for the guest header.

A :class:`CType` pairs a ctypes type with its spelling in C; :func:`struct` makes a new one
from fields. Pointers are 32-bit words that hold kernel virtual addresses. Every structure is
packed to 4 bytes, which is the alignment i386 gives to all its types, 64-bit ones included.
"""

import ctypes
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kernel_model.ram import Ram


@dataclass(frozen=True, slots=True)
class CType:
    """A C type: ``ctype`` lays it out, ``spelling`` names it in C, ``count`` is an array's."""

    ctype: Any
    spelling: str
    count: int | None = None
    members: tuple[tuple[str, "CType"], ...] = ()

    @property
    def size(self) -> int:
        """``sizeof`` in bytes."""
        return ctypes.sizeof(self.ctype)

    def offset(self, field: str) -> int:
        """``offsetof`` in bytes."""
        return int(getattr(self.ctype, field).offset)

    def word(self, field: str) -> int:
        """``offsetof`` in 32-bit words: the index for inner loops over ``Ram.words``."""
        return self.offset(field) >> 2

    def at(self, ram: Ram, paddr: int) -> Any:
        """A view of the structure at physical address ``paddr``; reads and writes go to RAM."""
        return self.ctype.from_buffer(ram.buffer, paddr)

    def declaration(self, name: str) -> str:
        """``name`` declared with this type, as C spells it."""
        stars = "" if self.spelling.endswith("*") else " "
        return f"{self.spelling}{stars}{name}" + (f"[{self.count}]" if self.count else "")


def pointer(target: str) -> CType:
    """A 32-bit pointer to the C type ``target``."""
    return CType(ctypes.c_uint32, f"{target} *")


def array(element: CType, count: int) -> CType:
    """``count`` elements in a row."""
    return CType(element.ctype * count, element.spelling, count, element.members)


def struct(name: str, fields: Sequence[tuple[str, CType]]) -> CType:
    """A structure called ``name`` in C (``struct page``, or a typedef such as ``zone_t``)."""
    body = {
        "_layout_": "ms",
        "_pack_": 4,
        "_fields_": [(field, kind.ctype) for field, kind in fields],
    }
    ctype = type(name.removeprefix("struct "), (ctypes.LittleEndianStructure,), body)
    return CType(ctype, name, members=tuple(fields))


UCHAR = CType(ctypes.c_uint8, "unsigned char")
USHORT = CType(ctypes.c_uint16, "unsigned short")
INT = CType(ctypes.c_int32, "int")
UINT = CType(ctypes.c_uint32, "unsigned int")
ULONG = CType(ctypes.c_uint32, "unsigned long")
ULONGLONG = CType(ctypes.c_uint64, "unsigned long long")
LONGLONG = CType(ctypes.c_int64, "long long")
ATOMIC = CType(ctypes.c_int32, "atomic_t")
