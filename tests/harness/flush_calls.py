# SPDX-License-Identifier: GPL-2.0-or-later
"""Every call of a flush in the kernel model, from its source; and one of them forgotten."""

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
TLB = ("flush_tlb",)
CACHES = ("flush_cache", "flush_dcache", "flush_icache", "flush_page_to_ram")
"""What the names of flushes begin with."""


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
    def __init__(self, file: str, flushes: tuple[str, ...]) -> None:
        self._file, self._flushes, self._names = file, flushes, [""]
        self.found: list[FlushCall] = []

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._names.append(node.name)
        self.generic_visit(node)
        self._names.pop()

    def visit_Call(self, node: ast.Call) -> None:
        if isinstance(node.func, ast.Attribute) and node.func.attr.startswith(self._flushes):
            lines = range(node.lineno, (node.end_lineno or node.lineno) + 1)
            self.found.append(FlushCall(self._file, self._names[-1], node.func.attr, lines))
        self.generic_visit(node)


@cache
def flush_calls(flushes: tuple[str, ...] = TLB, other: str = "linux_2_6") -> dict[str, FlushCall]:
    """By their names, but for those in modules of the ``other`` release; the second call of the
    same flush in a function has a 2 behind its own."""
    found: list[FlushCall] = []
    for path in sorted(ROOT.rglob("*.py")):
        # Reverse maps and huge pages are things of 2.6, wherever they stand.
        if {other, "rmap", "hugetlb"} & set(path.parts) or path.stem == other:
            continue
        finder = _Finder(path.relative_to(ROOT).as_posix(), flushes)
        finder.visit(ast.parse(path.read_text()))
        found += finder.found
    calls: dict[str, FlushCall] = {}
    for call in found:
        calls[str(call) + " 2" * (str(call) in calls)] = call
    assert len(calls) == len(found)
    return calls


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
    methods = [
        (kind, name) for kind in kinds for name in vars(kind) if name.startswith(TLB + CACHES)
    ]
    real = {place: getattr(*place) for place in methods}
    for kind, name in methods:
        setattr(kind, name, forgetting(real[kind, name]))
    try:
        yield made
    finally:
        for (kind, name), method in real.items():
            setattr(kind, name, method)
