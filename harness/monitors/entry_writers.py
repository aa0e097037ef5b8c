# SPDX-License-Identifier: GPL-2.0-or-later
"""Which function of the kernel wrote each page-table entry last, and what it wrote.

Every entry of the model is written by the macros of ``include/asm-i386/pgtable.h`` (book 3.4):
``set_pte()``, ``set_pmd()``, ``set_pgd()``, ``pte_clear()``, ``ptep_get_and_clear()``. The
:class:`EntryWriters` of a kernel stand before its own, keep who calls and what was asked for, and
pass the call on. So an entry that is wrong is traced to its function, and one that holds
something else than was asked for to the macro itself. They hear from ``kernel_model.events`` too
who gave each address its meaning last: a function that says what an address is to mean and never
writes the entry would otherwise be unseen behind the one that wrote before it. All of it lies
outside RAM.

Nothing here can fail.
"""

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final
from weakref import WeakKeyDictionary

from harness.architecture import PTE_A, PTE_D
from kernel_model.arch_i386.page import PAGE_MASK
from kernel_model.events import Announcer, Rights

__all__ = ["Call", "EntryWriters", "Meaning", "Writer", "calls_to", "kernel_functions"]

_MODEL: Final = "kernel_model"
_CALLERS: Final = frozenset({"harness", "_pytest", "pluggy", "unicorn", "ctypes"})
"""Packages that call the kernel, and are none of it."""
_DEEPEST: Final = 24
_SHOWN: Final = 4
_SETTERS: Final = ("set_pte", "set_pmd", "set_pgd")
_CLEARERS: Final = ("pte_clear", "ptep_get_and_clear")
_SOURCE: Final = re.compile(r"``((?:arch|mm|include|kernel|fs|init|ipc)/[\w./-]+\.[chS])")
Call = tuple[str, CodeType]
"""The name of a module, and a function in it."""


@dataclass(frozen=True, slots=True)
class Writer:
    """``macro`` was asked to make an entry ``value``, by the innermost of ``calls``."""

    macro: str
    value: int
    calls: tuple[Call, ...]
    time: int
    """Writes and meanings are counted together: this was so many-th."""

    @property
    def by_the_model(self) -> bool:
        """Whether it was a function of the kernel model."""
        return any(_is_model(module) for module, _ in self.calls)

    def differs(self, entry: int) -> bool:
        """Whether ``entry``, found there now, is not what was asked for; a CPU may set A and D."""
        return (entry ^ self.value) & ~(PTE_A | PTE_D) != 0

    def __str__(self) -> str:
        return kernel_functions(self.calls)


@dataclass(frozen=True, slots=True)
class Meaning:
    """What an address is to mean was said by the innermost of ``calls``."""

    calls: tuple[Call, ...]
    time: int

    def __str__(self) -> str:
        return kernel_functions(self.calls)


class EntryWriters:
    """The last writer of each entry of ``kernel``, by the entry's physical address; and who said
    last what each page is to mean, by page directory and address."""

    def __init__(self, kernel: Any) -> None:
        self._written: dict[int, Writer] = {}
        self._meant: dict[tuple[int, int], Meaning] = {}
        self._time = 0
        tables = getattr(kernel, "tables", None)
        for name in (*_SETTERS, *_CLEARERS):
            if macro := getattr(tables, name, None):
                setattr(tables, name, self._noted(name, macro))
        events = getattr(getattr(kernel, "image", None), "events", None)
        if isinstance(events, Announcer):
            events.listeners.append(_Meanings(self._note_meaning))
        _of_kernel[kernel] = self

    @staticmethod
    def of(kernel: Any) -> "EntryWriters | None":
        """Those that watch ``kernel``, if any do."""
        return _of_kernel.get(kernel)

    def last(self, paddr: int | None) -> Writer | None:
        return None if paddr is None else self._written.get(paddr)

    def unwritten(self, mm: int, vaddr: int, writer: Writer) -> Meaning | None:
        """Who gave the page at ``vaddr`` another meaning after ``writer`` wrote its entry."""
        meaning = self._meant.get((mm, vaddr & PAGE_MASK))
        if meaning is None or meaning.time < writer.time or str(meaning) == str(writer):
            return None
        return meaning

    def _note_meaning(self, mm: int, vaddr: int, frame: FrameType) -> None:
        self._time += 1
        self._meant[mm, vaddr] = Meaning(calls_to(frame), self._time)

    def _noted(self, name: str, macro: Any) -> Any:
        def noted(entryp: int, value: int = 0) -> Any:
            # Before the call: a macro that never comes to write is to be seen, too.
            self._time += 1
            self._written[entryp] = Writer(name, value, calls_to(sys._getframe(1)), self._time)
            return macro(entryp) if name in _CLEARERS else macro(entryp, value)

        return noted


class _Meanings:
    """Hears what pages are to mean, and by which call."""

    def __init__(self, note: Callable[[int, int, FrameType], None]) -> None:
        self._note = note

    def page_mapped(self, mm: int, vaddr: int, pfn: int, rights: Rights) -> None:
        # Frame 1 is the announcer's.
        self._note(mm, vaddr, sys._getframe(2))

    def page_unmapped(self, mm: int, vaddr: int) -> None:
        self._note(mm, vaddr, sys._getframe(2))

    def page_moved(self, mm: int, old: int, new: int) -> None:
        self._note(mm, old, sys._getframe(2))
        self._note(mm, new, sys._getframe(2))

    def page_abandoned(self, mm: int, vaddr: int) -> None:
        pass

    def frame_taken(self, pfn: int, order: int, purpose: str) -> None:
        pass

    def frame_given_back(self, pfn: int, order: int) -> None:
        pass

    def kernel_table_made(self, vaddr: int, size: int) -> None:
        pass

    def kernel_tables_shared(self, mm: int, vaddr: int, size: int) -> None:
        pass


_of_kernel: "WeakKeyDictionary[Any, EntryWriters]" = WeakKeyDictionary()


def calls_to(frame: FrameType | None, deepest: int = _DEEPEST) -> tuple[Call, ...]:
    """The functions that led to ``frame``, the innermost first: of the model and of whoever took
    the place of a part of it, up to the harness that called the kernel."""
    calls: list[Call] = []
    while frame is not None and len(calls) < deepest:
        module = frame.f_globals.get("__name__", "")
        if module.partition(".")[0] in _CALLERS:
            break
        calls.append((module, frame.f_code))
        frame = frame.f_back
    last = max((n for n, (module, _) in enumerate(calls) if _is_model(module)), default=0)
    return tuple(calls[: last + 1])


def _is_model(module: str) -> bool:
    return module.partition(".")[0] == _MODEL


def kernel_functions(calls: tuple[Call, ...]) -> str:
    """``do_anonymous_page() <- handle_mm_fault(), mm/memory.c``, the innermost first.

    Of the model's functions, those that the docstring of their module does not name are none of
    the kernel's, and left out; but the innermost stays unless it begins with an underscore. One
    that is not the model's stands with its file.
    """
    named: list[str] = []
    source = ""
    for module, code in calls:
        text = getattr(sys.modules.get(module), "__doc__", None) or ""
        if name := _name(module, code, text, first=not named):
            named += [] if name in named else [name]
            found = _SOURCE.search(text) if _is_model(module) else None
            source = source or (found[1] if found else "")
    tail = f", {source}" if source else ""
    return f"{' <- '.join(named[:_SHOWN])}{tail}" if named else "code outside the kernel model"


def _name(module: str, code: CodeType, docstring: str, *, first: bool) -> str:
    """What a function is called; empty for one that is none of the kernel's."""
    name = code.co_name.lstrip("_")
    if not _is_model(module):
        return "" if name.startswith("<") else f"{name}() in {Path(code.co_filename).name}"
    known = re.search(rf"\b_*{re.escape(name)}\(\)", docstring)
    return f"{name}()" if known or (first and not code.co_name.startswith(("_", "<"))) else ""
