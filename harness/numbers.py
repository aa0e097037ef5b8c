# SPDX-License-Identifier: GPL-2.0-or-later
"""Numbers as people type them: any C notation, and sizes with a unit.

``0x1000``, ``010000`` (octal, as in C), ``4096``, ``0b1`` and the suffixes ``U``, ``L``, ``UL``,
``ULL`` are numbers; ``64M``, ``1G``, ``4KiB``, ``0x40000`` are sizes. Units are powers of 1024.

What can fail: :class:`~kernel_model.errors.BadInput`, naming the option that held the text.
"""

import re
from typing import Final

from kernel_model.errors import BadInput

MAX_U32: Final = (1 << 32) - 1
MAX_U64: Final = (1 << 64) - 1

_UNITS: Final = {"": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_DIGITS: Final = r"(?P<digits>0[xX][0-9a-fA-F]+|0[bB][01]+|[0-9]+)"
_SUFFIX: Final = r"(?:[uU](?:ll|LL|[lL])?|(?:ll|LL|[lL])[uU]?)?"
_NUMBER: Final = re.compile(_DIGITS + _SUFFIX)
_SIZE: Final = re.compile(_DIGITS + _SUFFIX + r" ?(?P<unit>[kKmMgGtT]?)(?:(?<=[kKmMgGtT])i?[bB])?")
_MOST_DIGITS: Final = 80
"""More than any u64 has in any base; Python's own conversion of long texts is slow or refused."""


def _size(nbytes: int) -> str:
    """A number of bytes as one would type it."""
    unit = next(unit for unit in reversed(_UNITS) if not nbytes % _UNITS[unit])
    return f"{nbytes // _UNITS[unit]}{unit.upper()}"


def parse_number(text: str, option: str, *, maximum: int = MAX_U32) -> int:
    """The value of ``text`` in C notation, from 0 to ``maximum``.

    :raises BadInput: naming ``option``, if it is no number or too large.
    """
    match = _NUMBER.fullmatch(text.strip()) if len(text) <= _MOST_DIGITS else None
    if match is None:
        raise BadInput(
            f"{option} {_shown(text)}: not a number; write 0x1000, 010000 or 4096, with or without "
            f"U and L"
        )
    value = _value(match["digits"], text, option)
    if value > maximum:
        raise BadInput(f"{option} {_shown(text)}: at most {maximum:#x}")
    return value


def parse_size(text: str, option: str, *, maximum: int = MAX_U64) -> int:
    """The value of ``text`` in bytes: a number and, if wanted, a unit (K, M, G, T, KiB, ...).

    :raises BadInput: naming ``option``, if it is no size or too large.
    """
    match = _SIZE.fullmatch(text.strip()) if len(text) <= _MOST_DIGITS else None
    if match is None:
        raise BadInput(f"{option} {_shown(text)}: not a size; write 64M, 1G, 4KiB or 0x4000000")
    value = _value(match["digits"], text, option) * _UNITS[match["unit"].lower()]
    if value > maximum:
        raise BadInput(f"{option} {_shown(text)}: at most {_size(maximum)}")
    return value


def _value(digits: str, text: str, option: str) -> int:
    if len(digits) > 1 and digits.isdigit() and digits[0] == "0":
        if not set(digits) <= set("01234567"):
            raise BadInput(
                f"{option} {_shown(text)}: a leading 0 means octal, which has no 8 or 9; drop the 0"
            )
        return int(digits, 8)
    return int(digits, 0)


def _shown(text: str) -> str:
    """``text`` quoted on one line, cut if it is very long."""
    return repr(text if len(text) <= _MOST_DIGITS else text[:40] + "...")
