# SPDX-License-Identifier: GPL-2.0-or-later
"""Every call of a flush in the kernel model, from its source, by the release that makes it; and
some of them forgotten."""

import ast
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import kernel_model
from harness.cpu.unicorn_cpu import UnicornCpu
from harness.monitors.virtual_caches import VirtualCaches
from kernel_model.arch_i386.tlb import Tlb
from kernel_model.mm.memory import Memory

ROOT = Path(kernel_model.__file__).parent
ONLY = {"2.4": {"linux_2_4", "swap_out"}, "2.6": {"linux_2_6", "rmap", "hugetlb"}}
"""Modules and packages of one release; all others are of both."""
TLB = ("flush_tlb",)
CACHES = ("flush_cache", "flush_dcache", "flush_icache", "clear_user_page", "copy_user_page")
PAGE_TO_RAM = ("flush_page_to_ram",)
ALL = TLB + CACHES + PAGE_TO_RAM
"""What the names of flushes begin with."""
CACHES_OF = {"2.4": CACHES + PAGE_TO_RAM, "2.6": CACHES}
"""2.6 has no ``flush_page_to_ram()``; the code of both releases calls one of which nothing comes
(:mod:`kernel_model.arch_i386.cacheflush`)."""


def is_of(release: str, file: str) -> bool:
    """Whether a module, by its path, is one of the release, and not of others alone."""
    others = set().union(*(names for only, names in ONLY.items() if only != release))
    return others.isdisjoint(Path(file).with_suffix("").parts)


@dataclass(frozen=True)
class FlushCall:
    """One call: where its source stands, and on which lines."""

    file: str
    function: str
    flush: str
    lines: range

    def __str__(self) -> str:
        return f"{self.file} {self.function} {self.flush}"

    @property
    def comment(self) -> str:
        """The line above the call, if it is a comment."""
        above = (ROOT / self.file).read_text().splitlines()[self.lines.start - 2].strip()
        return above if above.startswith("#") else ""

    def is_made_by(self, frame: Any) -> bool:
        """Whether a Python frame stands in it."""
        return frame.f_code.co_filename == str(ROOT / self.file) and frame.f_lineno in self.lines


class _Finder(ast.NodeVisitor):
    def __init__(self, file: str) -> None:
        self._file, self._names = file, [""]
        self.found: list[FlushCall] = []

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._names.append(node.name)
        self.generic_visit(node)
        self._names.pop()

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Attribute) and node.func.attr.startswith(ALL):
            lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
            self.found.append(FlushCall(self._file, self._names[-1], node.func.attr, lines))
        self.generic_visit(node)


@cache
def all_calls() -> dict[str, FlushCall]:
    """By their names; the second call of the same flush in a function has a 2 behind its own."""
    found: list[FlushCall] = []
    for path in sorted(ROOT.rglob("*.py")):
        text = path.read_text()
        if any(name in text for name in ALL):
            finder = _Finder(path.relative_to(ROOT).as_posix())
            finder.visit(ast.parse(text))
            found += finder.found
    calls: dict[str, FlushCall] = {}
    for call in found:
        calls[str(call) + " 2" * (str(call) in calls)] = call
    assert len(calls) == len(found)
    return calls


@cache
def flush_calls(release: str, flushes: tuple[str, ...] = TLB) -> dict[str, FlushCall]:
    """The calls of some flushes that a release makes."""
    return {
        name: call
        for name, call in all_calls().items()
        if call.flush.startswith(flushes) and is_of(release, call.file)
    }


@contextmanager
def forgotten(*calls: FlushCall) -> Iterator[list[FlushCall]]:
    """Nothing comes of these calls; gives the list of those that were made nevertheless."""
    made: list[FlushCall] = []

    def forgetting(real: Callable[..., None]) -> Callable[..., None]:
        def flush(*arguments: int) -> None:
            caller = sys._getframe(1)
            which = [call for call in calls if call.is_made_by(caller)]
            made.extend(which)
            if not which:
                real(*arguments)

        return flush

    kinds = (Tlb, Memory, UnicornCpu, VirtualCaches)
    methods = [(kind, name) for kind in kinds for name in vars(kind) if name.startswith(ALL)]
    real = {place: getattr(*place) for place in methods}
    for kind, name in methods:
        setattr(kind, name, forgetting(real[kind, name]))
    try:
        yield made
    finally:
        for (kind, name), method in real.items():
            setattr(kind, name, method)
