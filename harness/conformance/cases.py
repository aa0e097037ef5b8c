# SPDX-License-Identifier: GPL-2.0-or-later
"""The cases of the matrix as columns of numbers, and each as a line of text and back.

A case is one row of :data:`CASE`: mode and control bits, the flags of each entry (the
addresses come when it gets a slot), the access, the ring, what came before it. ``flags`` of an
entry are all bits but the frame's address; bit 32 (bit 13 of a 4 MiB page) is among them.

What can fail: :class:`~kernel_model.errors.BadInput` for a text that names no case.
"""

from collections.abc import Callable
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from harness.architecture import PTE_P
from harness.conformance.flags import (
    ACCESSES,
    BEFORE,
    CHANGES,
    FLUSHES,
    MODES,
    RINGS,
    bits_text,
    number_of,
    parse_bits,
)
from kernel_model.errors import BadInput

Cases = npt.NDArray[np.void]
Columns = npt.NDArray[Any]

CASE: Final = np.dtype(
    [
        *((name, np.uint8) for name in ("mode", "wp", "pge", "access")),
        *((name, np.uint8) for name in ("ring", "before", "change", "flush")),
        *((name, np.uint64) for name in ("pdpte", "pde", "pte", "second")),
    ]
)
_USUAL: Final[dict[str, int]] = dict.fromkeys(CASE.names or (), 0) | {"pdpte": PTE_P}

_NAMES: Final = {
    "mode": [mode.name for mode in MODES],
    "wp": ["0", "1"],
    "pge": ["0", "1"],
    "access": [access.name for access in ACCESSES],
    "ring": list(RINGS),
    "before": list(BEFORE),
    "change": [change.name for change in CHANGES],
    "flush": list(FLUSHES),
}
_ENTRIES: Final = ("pdpte", "pde", "pte", "second")
_ORDER: Final = (
    *("mode", "wp", "pge", "pdpte", "pde", "pte", "second"),
    *("access", "ring", "before", "change", "flush"),
)
_ALWAYS: Final = frozenset({"mode", "wp", "access", "ring"})


def product(**columns: Any) -> Cases:
    """Every combination of the values given; what is not given is as usual (0; PDPTE: present)."""
    axes = {name: np.atleast_1d(np.asarray(values, CASE[name])) for name, values in columns.items()}
    total = int(np.prod([len(values) for values in axes.values()]))
    cases = np.zeros(total, CASE)
    for name, value in _USUAL.items():
        cases[name] = value
    inner = total
    for name, values in axes.items():
        inner //= len(values)
        cases[name] = np.tile(np.repeat(values, inner), total // (inner * len(values)))
    return cases


def subsets(bits: list[int], always: int = 0) -> Columns:
    """Every union of ``bits``, each with ``always``."""
    values = np.array([always], np.uint64)
    for bit in bits:
        values = np.concatenate((values, values | np.uint64(bit)))
    return values


def case_text(case: Any) -> str:
    """One row as ``--case`` takes it: ``mode=pae,wp=1,pde=p.rw,pte=p,access=write,ring=user``."""
    parts = []
    for name in _ORDER:
        value = int(case[name])
        if value == _USUAL[name] and name not in _ALWAYS:
            continue
        text = bits_text(value) if name in _ENTRIES else _NAMES[name][value]
        parts.append(f"{name}={text}")
    return ",".join(parts)


def parse_case(text: str) -> Cases:
    """One row from its text.

    :raises BadInput: naming the part that is wrong.
    """
    case = np.zeros(1, CASE)
    for name, usual in _USUAL.items():
        case[name] = usual
    seen = set()
    for part in text.split(","):
        name, equals, value = part.strip().partition("=")
        if not equals or name not in _ORDER:
            raise BadInput(f"--case {part!r}: write NAME=VALUE with one of {', '.join(_ORDER)}")
        if name in seen:
            raise BadInput(f"--case: {name} is given twice")
        seen.add(name)
        number = parse_bits(value) if name in _ENTRIES else number_of(value, _NAMES[name], name)
        case[name] = number
    if missing := sorted(_ALWAYS - seen - {"wp"}):
        raise BadInput(f"--case: {missing[0]} is missing; write for instance {_EXAMPLE}")
    return case


def part_names() -> tuple[str, ...]:
    """The names of a case's parts, in the order of its text."""
    return _ORDER


def part_values(name: str) -> list[str]:
    """What the part ``name`` can be; bits of an entry are joined with dots and not listed."""
    return list(_NAMES.get(name, ()))


_EXAMPLE: Final = "mode=2-level,wp=1,pde=p.rw.us,pte=p.us,access=write,ring=user"


def lookup(table: tuple[Any, ...], attribute: str | Callable[[Any], Any]) -> Columns:
    """One attribute of each row of ``table``, to be indexed by a column."""
    if callable(attribute):
        return np.array([attribute(row) for row in table])
    return np.array([getattr(row, attribute) for row in table])
