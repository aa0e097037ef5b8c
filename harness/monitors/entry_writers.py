# SPDX-License-Identifier: GPL-2.0-or-later
"""Which function of the kernel wrote each page-table entry last, and what it wrote.

Every entry of the model is written by the macros of ``include/asm-i386/pgtable.h`` (book 3.4):
``set_pte()``, ``set_pmd()``, ``set_pgd()``, ``pte_clear()``, ``ptep_get_and_clear()``. The
:class:`EntryWriters` of a kernel stand before its own, keep who calls and what was asked for, and
pass the call on. So an entry that is wrong is traced to its function, and one that holds
something else than was asked for to the macro itself. All of it lies outside RAM.

Nothing here can fail.
"""

import re
import sys
from dataclasses import dataclass
from types import CodeType, FrameType
from typing import Any, Final
from weakref import WeakKeyDictionary

from harness.architecture import PTE_A, PTE_D

__all__ = ["EntryWriters", "Writer", "kernel_functions"]

_MODEL: Final = "kernel_model"
_DEEPEST: Final = 24
_SHOWN: Final = 4
_SETTERS: Final = ("set_pte", "set_pmd", "set_pgd")
_CLEARERS: Final = ("pte_clear", "ptep_get_and_clear")
_SOURCE: Final = re.compile(r"``((?:arch|mm|include|kernel|fs|init|ipc)/[\w./-]+\.[chS])")
Call = tuple[str, CodeType]
"""The name of a module of the model, and a function in it."""


@dataclass(frozen=True, slots=True)
class Writer:
    """``macro`` was asked to make an entry ``value``, by the innermost of ``calls``."""

    macro: str
    value: int
    calls: tuple[Call, ...]

    def differs(self, entry: int) -> bool:
        """Whether ``entry``, found there now, is not what was asked for; a CPU may set A and D."""
        return (entry ^ self.value) & ~(PTE_A | PTE_D) != 0

    def __str__(self) -> str:
        return kernel_functions(self.calls)


class EntryWriters:
    """The last writer of each entry of ``kernel``, by the entry's physical address."""

    def __init__(self, kernel: Any) -> None:
        self._written: dict[int, Writer] = {}
        tables = getattr(kernel, "tables", None)
        for name in (*_SETTERS, *_CLEARERS):
            if macro := getattr(tables, name, None):
                setattr(tables, name, self._noted(name, macro))
        _of_kernel[kernel] = self

    @staticmethod
    def of(kernel: Any) -> "EntryWriters | None":
        """Those that watch ``kernel``, if any do."""
        return _of_kernel.get(kernel)

    def last(self, paddr: int | None) -> Writer | None:
        return None if paddr is None else self._written.get(paddr)

    def _noted(self, name: str, macro: Any) -> Any:
        def noted(entryp: int, value: int = 0) -> Any:
            # Before the call: a macro that never comes to write is to be seen, too.
            self._written[entryp] = Writer(name, value, _calls(sys._getframe(1)))
            return macro(entryp) if name in _CLEARERS else macro(entryp, value)

        return noted


_of_kernel: "WeakKeyDictionary[Any, EntryWriters]" = WeakKeyDictionary()


def _calls(frame: FrameType | None) -> tuple[Call, ...]:
    """The functions of the model on the stack, the innermost first."""
    calls: list[Call] = []
    for _ in range(_DEEPEST):
        if frame is None:
            break
        module = frame.f_globals.get("__name__", "")
        if module.startswith(_MODEL):
            calls.append((module, frame.f_code))
        elif calls:
            break
        frame = frame.f_back
    return tuple(calls)


def kernel_functions(calls: tuple[Call, ...]) -> str:
    """``do_anonymous_page() <- handle_mm_fault(), mm/memory.c``, the innermost first.

    Functions that the docstring of their module does not name are none of the kernel's, and left
    out; but the innermost stays unless it begins with an underscore.
    """
    named: list[str] = []
    source = ""
    for module, code in calls:
        name = code.co_name.lstrip("_")
        text = getattr(sys.modules.get(module), "__doc__", None) or ""
        known = re.search(rf"\b_*{re.escape(name)}\(\)", text)
        if not known and (named or code.co_name.startswith(("_", "<"))):
            continue
        if name not in (text[:-2] for text in named):
            named.append(f"{name}()")
        if not source and (found := _SOURCE.search(text)):
            source = found[1]
    tail = f", {source}" if source else ""
    return f"{' <- '.join(named[:_SHOWN])}{tail}" if named else "code outside the kernel model"
