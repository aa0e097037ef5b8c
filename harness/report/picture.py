# SPDX-License-Identifier: GPL-2.0-or-later
"""What a picture of the report is: data gathered from a machine, a drawing of it, a table of it.

``gather`` reads the machine and gives plain data, made of what JSON has; ``draw`` and ``table``
know nothing but that data. So a picture can be drawn later, elsewhere, or tested without being
drawn. Nothing here can fail.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from harness.machine import Machine
    from harness.report.sheet import Sheet

WIDE: Final = 1040
"""Pixels that a picture has on a desk."""
NARROW: Final = 340
"""And on a phone."""


class Place(NamedTuple):
    """A rectangle of a sheet, in pixels from its upper left corner."""

    x: float
    y: float
    width: float
    height: float

    @property
    def right(self) -> float:
        return self.x + self.width

    @property
    def bottom(self) -> float:
        return self.y + self.height


@dataclass(frozen=True, slots=True)
class Table:
    """The numbers of a picture, as text; columns from ``numbers`` on are set to the right."""

    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    numbers: int = 1


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture.

    ``short`` is its name in a menu, ``caption`` a sentence that says what to see; ``sections``
    are the book's.
    """

    name: str
    title: str
    short: str
    sections: str
    gather: Callable[["Machine"], Any]
    caption: Callable[[Any], str]
    draw: Callable[[Any, int], "Sheet"]
    table: Callable[[Any], Table]


def counted(number: int, noun: str) -> str:
    """``1 slab``, ``1,024 slabs``."""
    return f"{number:,} {noun}" + ("" if number == 1 else "es" if noun.endswith("s") else "s")


def size_text(size: int) -> str:
    """``896 MiB``, ``4 KiB``: one decimal, unless that is 0."""
    for shift, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if size >= 1 << shift:
            value = size / (1 << shift)
            return f"{value:.1f}".removesuffix(".0") + f" {unit}"
    return f"{size} bytes"
