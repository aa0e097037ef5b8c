# SPDX-License-Identifier: GPL-2.0-or-later
"""``mmucheck doctor``: what this machine offers, what each absence costs, how to mend it.

Exit status 1 when something is missing that the main job needs; what only some commands need
is reported and costs nothing here.
"""

import importlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, entry_points, version
from pathlib import Path
from typing import Final

from rich.markup import escape
from rich.table import Table

from harness.commands.options import JsonOption
from harness.commands.output import Output
from harness.cpu import create
from harness.guests import built_directory, guest_names
from kernel_model.config import CPU_MODELS, MIB
from kernel_model.errors import MmucheckError
from kernel_model.ram import Ram

_WANTED_MEMORY: Final = 512 * MIB
_BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome")
_LIBRARIES: Final = ("capstone", "jinja2", "matplotlib", "numpy", "pyelftools", "rich", "typer")
_ASK_SECONDS: Final = 20.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked for: what was ``found`` (empty: nothing), and the ``cost`` of its absence.

    Something ``required`` is needed by ``diff`` and ``run``. ``remedy`` is a command, or a word
    about where it comes from.
    """

    name: str
    found: str
    cost: str
    required: bool = False
    enough: bool = True
    remedy: str = ""

    @property
    def ok(self) -> bool:
        return bool(self.found) and self.enough


def doctor(json: JsonOption = None) -> int:
    """Tell what this machine offers, what each absence costs, and how to mend it.

    Exit status 1 when something is missing that diff and run need; what only other commands or
    the tests need costs nothing here.

    **Examples**

    - `mmucheck doctor`
    - `mmucheck doctor --json - | python -m json.tool`
    """
    output = Output(json)
    findings = list(examine())
    output.console.print(_table(findings))
    lacking = [finding.name for finding in findings if finding.required and not finding.ok]
    verdict = f"diff and run cannot work without: {', '.join(lacking)}" if lacking else "ready"
    output.text(verdict)
    rows = [asdict(finding) | {"ok": finding.ok} for finding in findings]
    output.json({"command": "doctor", "ready": not lacking, "findings": rows})
    return 1 if lacking else 0


def _table(findings: list[Finding]) -> Table:
    table = Table(title="What mmucheck finds here", title_justify="left")
    table.add_column("")
    table.add_column("part", no_wrap=True)
    table.add_column("found", overflow="fold")
    table.add_column("without it")
    for finding in findings:
        absent = "[red]missing[/red]" if finding.required else "[yellow]none[/yellow]"
        mark = "[green]ok[/green]" if finding.ok else absent
        table.add_row(mark, finding.name, escape(finding.found) or "-", escape(_advice(finding)))
    return table


def _advice(finding: Finding) -> str:
    if finding.ok:
        return ""
    return f"{finding.cost}; to get it: {finding.remedy}" if finding.remedy else finding.cost


def examine() -> Iterator[Finding]:
    """Look for everything, the needed parts first."""
    yield _python()
    yield _libraries()
    yield _unicorn()
    yield _cpu_models()
    yield _guests()
    yield _memory()
    yield Finding(
        "guest compiler",
        _package("ziglang"),
        "guests cannot be rebuilt; the built ones still run",
        remedy="pip install ziglang==0.17.1",
    )
    yield Finding(
        "QEMU",
        _program("qemu-system-i386"),
        "no second CPU: diff --cpu qemu and conform --cpu qemu",
        remedy="apt-get install qemu-system-x86",
    )
    yield _pytest_plugin()
    yield Finding(
        "browser",
        next(filter(None, map(_program, _BROWSERS)), ""),
        "reports open in any browser, but the tests cannot look at them",
        remedy="apt-get install chromium",
    )
    yield from _debian_programs()
    yield _documentation_tools()
    yield Finding(
        "gdb", _program("gdb"), "no debugger for a core of the guest", remedy="apt-get install gdb"
    )


def _python() -> Finding:
    found = f"{platform.python_version()} on {platform.machine()} {platform.system()}"
    enough = sys.version_info >= (3, 11) and sys.byteorder == "little"
    return Finding(
        "Python", found, "mmucheck needs Python 3.11 on a little-endian host", True, enough
    )


def _libraries() -> Finding:
    versions = {name: _package(name) for name in _LIBRARIES}
    found = ", ".join(f"{name} {number}" for name, number in versions.items() if number)
    absent = " ".join(name for name, number in versions.items() if not number)
    cost = "nothing that shows a table or a picture, takes an option or reads an ELF file works"
    remedy = f"pip install {absent}"
    return Finding("libraries", found, cost, True, all(versions.values()), remedy)


def _package(name: str) -> str:
    """The version of an installed distribution; empty if there is none."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _unicorn() -> Finding:
    found = _package("unicorn")
    if found:
        try:
            importlib.import_module("unicorn")
        except Exception as error:
            # The wheel may hold a library for another machine: the loader's error is the news.
            found = f"{found}: {error}"
            return Finding("unicorn", found, "no CPU", True, False, "reinstall unicorn==2.1.4")
    return Finding("unicorn", found, "no CPU", True, remedy="pip install unicorn==2.1.4")


def _cpu_models() -> Finding:
    """The models that this Unicorn accepts, each made and calibrated."""
    offered = []
    for model in CPU_MODELS:
        try:
            create(Ram(MIB), model)
        except (ImportError, MmucheckError):
            continue
        offered.append(model)
    enough = len(offered) == len(CPU_MODELS)
    remedy = "pip install --force-reinstall unicorn==2.1.4"
    return Finding(
        "CPU models", ", ".join(offered), "no other --cpu-model works", True, enough, remedy
    )


def _guests() -> Finding:
    """The finished ELF files that the wheel carries, counted by build."""
    built = built_directory()
    directories = sorted(built.iterdir()) if built.is_dir() else []
    counts = {entry.name: len(guest_names(entry.name)) for entry in directories}
    found = ", ".join(f"{variant} {count}" for variant, count in counts.items() if count)
    cost = "no code for the CPU to boot, and no program of mmucheck's own"
    return Finding("built guests", found, cost, True, remedy="pip install -e . in a clone")


def _memory() -> Finding:
    """What may be taken without swapping, in MiB."""
    available = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Finding(
        "memory",
        f"{available // MIB} MiB free, {os.cpu_count()} CPUs",
        f"less than {_WANTED_MEMORY // MIB} MiB: machines with much used RAM will swap",
        enough=available >= _WANTED_MEMORY,
    )


def _pytest_plugin() -> Finding:
    """Whether pytest finds the fixtures and options for a user's own tests."""
    plugins = [plugin.value for plugin in entry_points(group="pytest11", name="mmucheck")]
    pytest = _package("pytest")
    found = f"{plugins[0]}, pytest {pytest}" if plugins and pytest else ""
    cost = "no fixtures and no --mmu options in tests of your own"
    return Finding("pytest plugin", found, cost, remedy="pip install pytest, then mmucheck again")


def _debian_programs() -> Iterator[Finding]:
    """The i386 programs that the tests of a clone run; an installed package has no tests."""
    clone = Path(__file__).resolve().parents[2]
    if not (clone / "tests").is_dir():
        return
    root = clone / ".packages" / "root"
    found = sorted({path.name for path in root.glob("**/bin/*")})
    cost = "tests of unmodified programs are skipped; run takes any other static i386 program"
    yield Finding("Debian's i386 programs", ", ".join(found), cost, remedy="make packages")


def _documentation_tools() -> Finding:
    tools = ("mkdocs", "mkdocs-material", "mkdocstrings")
    versions = {name: _package(name) for name in tools}
    found = ", ".join(f"{name} {number}" for name, number in versions.items() if number)
    cost = "the documentation cannot be built as a site; its pages are text"
    enough = all(versions.values())
    return Finding("documentation tools", found, cost, enough=enough, remedy="make docs")


def _program(name: str) -> str:
    """Path and version of a program; empty if it is not there or does not answer."""
    path = shutil.which(name)
    if path is None:
        return ""
    try:
        answer = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=_ASK_SECONDS, check=False
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    lines = answer.stdout.splitlines()
    return f"{path} ({lines[0].strip()})" if lines else path
