# SPDX-License-Identifier: GPL-2.0-or-later
"""What the command line teaches: help, what Tab offers, colours where they are wanted."""

import os
import pty
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import typer

from harness.cli import app
from harness.commands.completion import case_parts, cpu_models, guests, highmem, sizes
from harness.commands.output import Output
from harness.conformance.cases import parse_case, part_names, part_values
from harness.elf import load_elf
from harness.guests import guest_names, guest_or_file, guest_path
from kernel_model.config import CPU_MODELS
from kernel_model.errors import BadInput

ROOT = Path(__file__).parents[2]
COLOUR = re.compile(r"\x1b\[[0-9;]*3[0-9]")
STATUSES = ("0:", "1:", "2:", "70:", "130:", "128 + n", "124")


def mmucheck(*arguments: str, shell: str = "", **environment: str) -> str:
    """What the program prints; run by ``shell`` if that is given."""
    plain = {n: v for n, v in os.environ.items() if n not in ("NO_COLOR", "FORCE_COLOR", "COLUMNS")}
    command = [sys.executable, "-m", "harness", *arguments]
    if shell:
        command = [shell, "-c", f'"{sys.executable}" -m harness {" ".join(arguments)}; true']
    return subprocess.run(
        command,
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=plain | environment,
    ).stdout


def on_a_terminal(*arguments: str, **environment: str) -> str:
    """What the program prints on a terminal of 100 columns."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "100"} | environment
    command = [sys.executable, "-m", "harness", *arguments]
    with subprocess.Popen(command, stdout=theirs, stderr=theirs, env=environment) as running:
        os.close(theirs)
        printed = b""
        while chunk := _read(ours):
            printed += chunk
        running.wait()
    os.close(ours)
    return printed.decode()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 1 << 16)
    except OSError:
        # How Linux says that nobody has the other end open any more.
        return b""


# -- help ----------------------------------------------------------------------------------------


def test_the_top_help_tells_how_to_start_and_every_exit_status() -> None:
    text = mmucheck("--help")
    assert all(status in text for status in STATUSES)
    assert "mmucheck doctor" in text
    assert "--install-completion" in text
    assert max(map(len, text.splitlines())) <= 80, "piped help is as wide as a small terminal"


def test_flags_name_no_value() -> None:
    text = mmucheck("diff", "--help")
    assert re.search(r"--exhaustive\s+Try absent", text)
    assert "<bool>" not in text


COMMANDS = typer.main.get_command(app).commands  # type: ignore[attr-defined]
EXAMPLES = [
    (command, example)
    for command in COMMANDS.values()
    for example in re.findall(r"^ *- `mmucheck ([^`]+)`", command.callback.__doc__, re.MULTILINE)
]


def test_every_command_has_an_example() -> None:
    assert {command.name for command, _ in EXAMPLES} == set(COMMANDS)


@pytest.mark.parametrize(("command", "example"), EXAMPLES, ids=[text for _, text in EXAMPLES])
def test_each_example_of_the_help_can_be_typed(
    command: typer.core.TyperCommand, example: str
) -> None:
    """Its options exist and take such values, and what it says lies in the clone does."""
    words = shlex.split(example.partition(" | python")[0])
    assert words[0] == command.name
    command.make_context(command.name, words[1:])
    named = [word for word in words if word.startswith("tests/")]
    assert all((ROOT / word).exists() for word in named), named


def test_an_example_with_a_wrong_option_would_be_seen() -> None:
    with pytest.raises(typer.TyperException):
        COMMANDS["diff"].make_context("diff", ["--exhaustively"])


# -- completion -----------------------------------------------------------------------------------


def test_a_shell_is_offered_values() -> None:
    """As typer's script for bash asks."""
    line = "mmucheck diff --cpu-model pentium"
    asked = {"_MMUCHECK_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": "3"}
    assert mmucheck(**asked).split() == ["pentium", "pentium2", "pentium3"]


@pytest.mark.parametrize(
    ("command", "parameter", "typed", "offers"),
    [
        ("diff", "cpu_model", "core", ["coreduo"]),
        ("explain", "kernel", "2", ["2.4", "2.6"]),
        ("boot", "highmem", "", ["none", "4G", "64G"]),
        ("boot", "rmap", "p", ["pte_chain"]),
        ("boot", "show", "meminfo", ["meminfo"]),
        ("run", "program", "hello", ["hello", "hello_pie"]),
        ("run", "check", "f", ["faults", "full"]),
        ("conform", "case", "mode=2", ["mode=2-level"]),
        ("conform", "cpu", "q", ["qemu"]),
    ],
)
def test_each_value_is_offered_where_it_belongs(
    command: str, parameter: str, typed: str, offers: list[str]
) -> None:
    known = {each.name: each for each in COMMANDS[command].params}
    context = typer.Context(COMMANDS[command])
    found = [offer.value for offer in known[parameter].shell_complete(context, typed)]
    assert found[: len(offers)] == offers


def test_values_by_what_was_typed() -> None:
    assert dict(cpu_models("")) == {name: dict(cpu_models(name))[name] for name in CPU_MODELS}
    assert dict(cpu_models("c")) == {"coreduo": "PSE, PGE, PAE, NX"}
    assert [value for value, _ in highmem("6")] == ["64G"]
    assert [value for value, _ in highmem("4g")] == ["4G"]
    assert sizes("1") == ["16M", "1G"]
    assert guests("") == guest_names("user")


def test_a_case_is_completed_part_by_part() -> None:
    assert case_parts("mo") == ["mode="]
    assert "mode=2-level" in case_parts("mode=2")
    assert case_parts("mode=2-level,mo") == []
    assert case_parts("mode=2-level,r") == ["mode=2-level,ring="]
    assert case_parts("mode=2-level,ring=u") == ["mode=2-level,ring=user"]
    assert case_parts("mode=2-level,colour=") == []
    usual = {name: part_values(name)[0] for name in part_names() if part_values(name)}
    assert parse_case(",".join(f"{name}={value}" for name, value in usual.items())).size == 1


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash to install completion for")
def test_completion_is_installed_for_the_shell_that_asks(tmp_path: Path) -> None:
    said = mmucheck("--install-completion", shell="bash", HOME=str(tmp_path))
    assert "bash completion installed" in said
    scripts = list((tmp_path / ".bash_completions").iterdir())
    assert len(scripts) == 1
    assert "complete_bash" in scripts[0].read_text(encoding="utf-8")
    assert scripts[0].name in (tmp_path / ".bashrc").read_text(encoding="utf-8")
    shown = mmucheck("--show-completion", shell="bash", HOME=str(tmp_path))
    assert "complete_bash" in shown


# -- programs by name -----------------------------------------------------------------------------


def test_a_guest_is_known_by_its_name_unless_a_file_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert guest_or_file(Path("hello")) == guest_path("hello")
    assert guest_or_file(Path("./nowhere/hello")) == Path("nowhere/hello")
    (tmp_path / "hello").touch()
    assert guest_or_file(Path("hello")) == Path("hello")
    with pytest.raises(BadInput):
        load_elf(guest_or_file(Path("no_such_guest")), ram=1 << 24)


def test_run_takes_the_name() -> None:
    assert mmucheck("run", "hello") == "hello, ring 3\n"


# -- colours --------------------------------------------------------------------------------------


def test_help_is_coloured_on_terminals_only() -> None:
    assert COLOUR.search(on_a_terminal("--help"))
    assert not COLOUR.search(on_a_terminal("--help", NO_COLOR="1"))
    assert COLOUR.search(mmucheck("--help", FORCE_COLOR="1"))


@pytest.mark.parametrize(
    ("environment", "coloured"),
    [
        ({}, False),
        ({"FORCE_COLOR": "1"}, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False),
        ({"NO_COLOR": "1"}, False),
    ],
)
def test_tables_in_a_pipe(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    environment: dict[str, str],
    coloured: bool,
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    output = Output()
    assert output.console.width == 120
    output.console.print("[red]different[/red]")
    with output.progress() as progress:
        list(progress.track(range(3)))
    printed = capsys.readouterr()
    assert bool(COLOUR.search(printed.out)) is coloured
    assert printed.err == "", "a progress bar in a file helps nobody"
