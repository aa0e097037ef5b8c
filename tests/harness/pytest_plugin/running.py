# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs of pytest with the plugin, in this process or in one of their own.

Everything that such a run imports is imported here before: pytest forgets new modules after it,
and numpy cannot be loaded twice.
"""

import importlib
import json
import pkgutil
import xml.etree.ElementTree as ElementTree
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, Final

import pytest

import harness.conformance
import harness.pytest_plugin
import harness.suites

for package in (harness.pytest_plugin, harness.conformance):
    for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        importlib.import_module(found.name)
for name in ("stage", "files", "user_spaces"):
    importlib.import_module(f"harness.suites.{name}")
for name in ("harness.diff_peer", "harness.cli", "harness.processes.checking"):
    importlib.import_module(name)

PLANTED: Final = Path(__file__).with_name("planted_backends.py")
_REGISTERED: Final = any(
    entry.value == "mmucheck_pytest" for entry in entry_points(group="pytest11")
)
PLUGIN: Final = () if _REGISTERED else ("-p", "mmucheck_pytest")
STRICT: Final = ("--strict-markers", "--strict-config", "-W", "error", "-p", "no:cacheprovider")


def run(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """pytest in this process, strict."""
    return pytester.runpytest_inprocess(*PLUGIN, *STRICT, *arguments)


def run_apart(pytester: pytest.Pytester, *arguments: str) -> pytest.RunResult:
    """pytest in a process of its own."""
    return pytester.runpytest_subprocess(*PLUGIN, *STRICT, *arguments)


def plant(pytester: pytest.Pytester) -> None:
    """Put the planted backends beside the tests."""
    pytester.path.joinpath(PLANTED.name).write_bytes(PLANTED.read_bytes())


def text_of(result: pytest.RunResult) -> str:
    return "\n".join(result.outlines)


def results_of(path: Path) -> Any:
    """Every result in a file of ``--mmu-report``."""
    tests = json.loads(path.read_text())["tests"]
    return [result for results in tests.values() for result in results]


# -- one planted fault, and what must be said of it --------------------------------------------

OPENED: Final = """
    def test_planted(machine, diff):
        machine.ram.write32(0x101C08, machine.ram.read32(0x101C08) | 4)
        machine.cpu.flush_tlb_global()
        diff()
"""
"""A test whose machine has its direct map open to programs."""
SAID: Final = (
    "MODEL BUG: The page tables do not hold what the kernel model means",
    "at 0xc0800000..0xc0bfffff, 4 MiB, direct map: every user access",
    "  intent  faults with 5 (P|U) ",
    "  spec    frame 0x800 (user rwx global) ",
    "  entry   PDE 0x008001e7 at paddr 0x101c08",
    "  written by pagetable_init() <- paging_init() <- start_kernel(), arch/i386/mm/init.c",
    "which asked set_pmd() for 0x008001e3: US gained",
    "PDE[770] 0x008001e7 at paddr 0x101c08  P RW US A D G -> 4 MiB page",
    "  kernel  book 3.6.2: direct map",
    "  manual  Intel SDM 3A, 4.6: access rights",
)
OUR_CODE: Final = ("Traceback", "harness/diff.py", "machines.py", "kernel_model/")


def check_words(text: str) -> None:
    for words in SAID:
        assert words in text, words
    for words in OUR_CODE:
        assert words not in text, words


def junit_failure(path: Path) -> ElementTree.Element:
    failure = ElementTree.parse(path).getroot().find(".//failure")
    assert failure is not None
    return failure
