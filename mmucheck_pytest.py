# SPDX-License-Identifier: GPL-2.0-or-later
"""The pytest plugin: a machine for each test, and failures in the field's words.

Fixtures ``kernel``, ``machine``, ``bare_machine``, ``diff``, ``run_guest`` and ``mmu_report``;
options ``--mmu-*``; the marker ``mmu``. pytest loads this module in every project of an
environment, so nothing but pytest is imported before a test or an option asks for more. It lies
beside our packages: a project may have a package ``harness`` of its own, found before ours. It
must load in any pytest, hence the old kind of wrapper, and annotations that nobody evaluates.

What can fail: a bad option or marker is one line and pytest's exit status 4. An error of
mmucheck in a test is told without a traceback through our code
(:mod:`harness.pytest_plugin.telling`).

Nothing is asserted here, so that pytest need not rewrite it: PYTEST_DONT_REWRITE.
"""

from __future__ import annotations

import sys
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any, Final

import pytest

if TYPE_CHECKING:
    from harness.machine import Machine
    from harness.pytest_plugin.machines import Comparing, Machines, RunGuest
    from harness.pytest_plugin.results import TestResults

__all__: list[str] = []

_OPTIONS: Final = (
    ("ram", "SIZE", "physical memory (64M)"),
    ("kernel", "2.4|2.6", "Linux release (2.4)"),
    ("highmem", "none|4G|64G", "memory above 896 MiB; 64G: a PAE kernel (none)"),
    ("rmap", "object|pte_chain", "reverse map of 2.6 (object)"),
    ("nr-hugepages", "N", "huge pages that 2.6 takes at boot (0)"),
    ("cpu", "unicorn|qemu", "the CPU that diff and the matrix are about (unicorn)"),
    ("cpu-model", "NAME", "486 to coreduo (pentium3)"),
    ("nodes", "N", "NUMA nodes (1)"),
    ("cpus", "N", "CPUs; more than 1 is an SMP kernel (1)"),
    ("seed", "N", "of every random choice (0)"),
    ("suite", "quick|full", "how much of the matrix harness.suites runs (quick)"),
    ("matrix", "FILE", "write the matrix results as JSON; beside --junitxml if not given"),
    ("report", "FILE", "write every comparison and run of guests as JSON"),
)
_ON_A_MACHINE: Final = frozenset({"machine", "run_guest", "diff"})
"""Fixtures that have the test's machine."""
_MARKER: Final = (
    'mmu(ram="16M", highmem="4G", ...): the machine of this test, in the words of the options '
    "--mmu-*, or by fields of KernelConfig"
)


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("mmucheck", "virtual memory (mmucheck)")
    for name, metavar, text in _OPTIONS:
        group.addoption(f"--mmu-{name}", metavar=metavar, help=text)
    group.addoption(
        "--mmu-highpte",
        action="store_true",
        default=None,
        help="page tables in high memory (2.6 with high memory)",
    )
    group.addoption(
        "--mmu-backend",
        metavar="MODULE:FACTORY",
        action="append",
        help="a kernel or a CPU of yours in the place of ours; may be given again",
    )
    group.addoption(
        "--mmu-traceback",
        action="store_true",
        help="show the Python traceback of a failure, too",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", _MARKER)
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(_Home(config), "mmucheck-home")
    names = [name for name, _, _ in _OPTIONS] + ["backend", "highpte"]
    if any(_option(config, name) for name in names):
        from harness.pytest_plugin.options import session_options

        session_options(config)


def _option(config: pytest.Config, name: str) -> Any:
    return config.getoption(f"--mmu-{name}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A bad marker is told before any test runs; one of a test without our fixtures is not ours."""
    marked = [
        item
        for item in items
        if "mmu_machines" in getattr(item, "fixturenames", ()) and item.get_closest_marker("mmu")
    ]
    if marked:
        from harness.pytest_plugin.options import config_of_test

        for item in marked:
            config_of_test(item)


# -- fixtures ------------------------------------------------------------------------------------


@pytest.fixture
def mmu_machines(request: pytest.FixtureRequest) -> Machines:
    """Makes kernels and machines as options, marker and backends have them."""
    from harness.pytest_plugin.machines import Machines

    return Machines(request.node)


@pytest.fixture
def machine(mmu_machines: Machines) -> Machine:
    """A PC whose kernel has booted on its CPU."""
    return mmu_machines.machine()


@pytest.fixture
def kernel(request: pytest.FixtureRequest, mmu_machines: Machines) -> Any:
    """A booted kernel: that of ``machine`` where a test has one, else one without a CPU."""
    if not _ON_A_MACHINE.isdisjoint(request.fixturenames):
        return request.getfixturevalue("machine").kernel
    return mmu_machines.kernel()


@pytest.fixture
def bare_machine(mmu_machines: Machines) -> Any:
    """``bare_machine(FILE)``: a PC with your own ring-0 program, not run yet."""
    return mmu_machines.bare_machine


@pytest.fixture
def diff(
    request: pytest.FixtureRequest, mmu_machines: Machines, mmu_report: TestResults
) -> Comparing:
    """``diff()``: compare every reading of ``machine``, or of what is given; fail where one
    differs."""
    from harness.pytest_plugin.machines import Comparing

    return Comparing(request, mmu_machines, mmu_report)


@pytest.fixture
def run_guest(
    request: pytest.FixtureRequest, mmu_machines: Machines, mmu_report: TestResults
) -> Iterator[RunGuest]:
    """``run_guest(FILE, ARGS...)``: run a static i386 program on ``machine``, comparing."""
    from harness.pytest_plugin.machines import RunGuest

    run = RunGuest(request, mmu_machines, mmu_report)
    yield run
    run.close()


@pytest.fixture
def mmu_report(request: pytest.FixtureRequest) -> TestResults:
    """``mmu_report.add(result)``: what comes home from every worker, and into --mmu-report."""
    from harness.pytest_plugin.results import TestResults

    return TestResults.of(request.node)


# -- reports -----------------------------------------------------------------------------------


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, Any, None]:
    outcome = yield
    report = outcome.get_result()
    # No error of ours can be raised before our errors are imported.
    if call.excinfo is not None and report.failed and "kernel_model.errors" in sys.modules:
        _tell(item, call.excinfo, report)
    if call.when == "call" and "harness.pytest_plugin.results" in sys.modules:
        from harness.pytest_plugin.results import TestResults

        if results := TestResults.known(item):
            results.send_with(report)


def _tell(item: pytest.Item, excinfo: Any, report: pytest.TestReport) -> None:
    """Words in the place of a traceback; a report without them is better than no report."""
    try:
        from harness.pytest_plugin.telling import tell

        tell(item, excinfo, report)
    except ImportError:
        pass  # Another's packages of these names: the error is not one of ours.
    except Exception as error:
        report.sections.append(("mmucheck: this failure could not be told", repr(error)))


class _Home:
    """Where the results come home to: the process that the user has started."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if hasattr(report, "mmu_results"):
            from harness.pytest_plugin.results import collected

            collected(self._config).take(report)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        wanted = _option(self._config, "report") or _option(self._config, "matrix")
        if wanted or "harness.pytest_plugin.results" in sys.modules:
            from harness.pytest_plugin.results import collected

            for line in collected(self._config).write(self._config):
                terminalreporter.write_line(line)
