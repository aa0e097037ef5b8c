# SPDX-License-Identifier: GPL-2.0-or-later
"""``mmucheck report``: what it writes, what it says, and what it leaves when it fails."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from harness.cli import app
from harness.commands import report as command
from harness.guests import guest_path
from harness.report import Report
from kernel_model.errors import KernelBug
from kernel_model.mm.memory.fault import FaultHandler

SMALL = ("--ram", "16M", "--conform", "none")


class Ended(NamedTuple):
    status: int
    stdout: str
    stderr: str


Mmucheck = Callable[..., Ended]


@pytest.fixture
def mmucheck(capfd: pytest.CaptureFixture[str]) -> Mmucheck:
    def call(*arguments: str | Path) -> Ended:
        with pytest.raises(SystemExit) as end:
            app([str(argument) for argument in arguments])
        code = end.value.code
        return Ended(code if isinstance(code, int) else 0, *capfd.readouterr())

    return call


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that do not look at the page: drawing takes most of the time."""
    monkeypatch.setattr(Report, "html", lambda *_: "the new page")


def test_the_page_and_its_data(mmucheck: Mmucheck, tmp_path: Path) -> None:
    out, data = tmp_path / "out.html", tmp_path / "out.json"
    end = mmucheck("report", out, "--json", data, "--ram", "16M")
    assert end.status == 0
    assert "All readings agree: 1,048,576 pages compared" in end.stdout
    assert "The MMU of unicorn conforms to the manual: 189,455 cases" in end.stdout
    page, told = out.read_text(encoding="utf-8"), json.loads(data.read_text(encoding="utf-8"))
    assert told["command"] == "report"
    assert told["title"] in page
    assert told["pictures"]["faults"]["program"] == "tour"
    conforming = {row["where"] for row in told["verdicts"]["rows"] if row["verdict"] == "conforms"}
    assert "paging mode pae" in conforming
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.html", "out.json"]


KERNELS = {
    "2.4": (),
    "2.6": ("--kernel", "2.6"),
    "2.6 chains": ("--kernel", "2.6", "--rmap", "pte_chain"),
}


@pytest.mark.slow
def test_the_page_of_2_6(mmucheck: Mmucheck, tmp_path: Path) -> None:
    out = tmp_path / "out.html"
    end = mmucheck("report", out, *SMALL, "--kernel", "2.6")
    assert end.status == 0
    assert "All readings agree: 1,048,576 pages compared" in end.stdout
    page = out.read_text(encoding="utf-8")
    assert "Linux 2.6 on a pentium3, 16 MiB" in page
    assert "radix_tree_node" in page
    assert re.search(r"reverse map</dt>\s*<dd>object", page)


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_program_of_the_users_own(mmucheck: Mmucheck, tmp_path: Path, kernel: str) -> None:
    out, data = tmp_path / "out.html", tmp_path / "out.json"
    program = guest_path("greedy")
    end = mmucheck(
        *("report", out, *SMALL, *KERNELS[kernel], "--json", data),
        *("--program", program, "--", "write", "1"),
    )
    assert end.status == 0
    assert "All readings agree" in end.stdout
    told = json.loads(data.read_text(encoding="utf-8"))
    faults = told["pictures"]["faults"]
    assert faults["program"] == "greedy.elf"
    assert faults["by_cause"]["anonymous"] >= 256
    (area,) = [v for v in told["pictures"]["address_space"]["vmas"] if v["mapped"] == 1 << 20]
    assert area["permissions"] == "rw-p"
    assert end.stderr.strip().isalnum()


@pytest.mark.usefixtures("no_pictures")
def test_a_program_that_a_limit_stops_is_shown_as_it_stands(
    mmucheck: Mmucheck, tmp_path: Path
) -> None:
    data = tmp_path / "out.json"
    end = mmucheck(
        *("report", tmp_path / "out.html", *SMALL, "--json", data, "--timeout", "0.5"),
        *("--program", guest_path("greedy"), "loop"),
    )
    assert end.status == 0
    told = json.loads(data.read_text(encoding="utf-8"))
    (note,) = told["notes"]
    assert note.startswith("greedy.elf: the guest was stopped")
    assert told["pictures"]["address_space"]["program"] == "greedy.elf"
    assert len(told["pictures"]["address_space"]["vmas"]) == 2


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize(
    ("program", "arguments", "note"),
    [
        ("read_null", [], "read_null.elf was ended by SIGSEGV: #PF at 0x00000000, error code 4"),
        ("greedy", [], "greedy.elf ended with status 2"),
    ],
)
def test_a_bad_end_is_told(
    mmucheck: Mmucheck, tmp_path: Path, program: str, arguments: list[str], note: str
) -> None:
    data = tmp_path / "out.json"
    end = mmucheck(
        *("report", tmp_path / "out.html", *SMALL, "--json", data),
        *("--program", guest_path(program), *arguments),
    )
    assert end.status == 0
    (told,) = json.loads(data.read_text(encoding="utf-8"))["notes"]
    assert told.startswith(note)


@pytest.mark.usefixtures("no_pictures")
def test_a_kernel_that_dies_is_reported(
    mmucheck: Mmucheck, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bug that is planted into the model's copy on write."""

    def bug(*_: object) -> int:
        raise KernelBug("memory.c", 1, "planted")

    monkeypatch.setattr(FaultHandler, "_do_wp_page", bug)
    data = tmp_path / "out.json"
    end = mmucheck("report", tmp_path / "out.html", *SMALL, "--json", data)
    assert end.status == 1
    assert "the kernel died: kernel BUG at memory.c:1: planted" in end.stdout
    told = json.loads(data.read_text(encoding="utf-8"))
    assert told["ok"] is False
    assert told["pictures"]["faults"]["by_cause"] == {"file": 1, "zero page": 1}
    assert told["pictures"]["address_space"]["program"] == "tour"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere/out.html"], "nowhere/out.html: there is no folder nowhere: make it first"),
        (["."], ".: a folder: give a file to write"),
        (["-"], "OUT.html -: give a file"),
        (["/dev/null"], "/dev/null: a device or a pipe: give a file"),
        ([], "OUT.html"),
        (["out.html", "stray"], "ARGS and --root are for a program: give --program ELF too"),
        (["out.html", "--program", "/nowhere"], "/nowhere"),
        (["out.html", "--program", "pyproject.toml"], "pyproject.toml"),
        (["out.html", "--root", "/nowhere", "--program", "x"], "--root /nowhere: not a folder"),
        (["out.html", "--conform", "much"], "much"),
        (["out.html", "--ram", "1"], "5M"),
        (["out.html", "--json", "/"], "--json /: cannot be written"),
    ],
)
def test_bad_usage_is_one_line_and_status_2(
    mmucheck: Mmucheck,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pyproject.toml").write_text("no program")
    end = mmucheck("report", "--conform", "none", *arguments)
    assert end.status == 2
    assert end.stdout == ""
    assert end.stderr.count("\n") == 1
    assert said in end.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["pyproject.toml"]


def test_a_folder_that_refuses_is_told_before_the_work(
    mmucheck: Mmucheck, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command.os, "access", lambda *_: False)
    end = mmucheck("report", tmp_path / "out.html", *SMALL)
    assert end.status == 2
    assert "its folder cannot be written to" in end.stderr


@pytest.mark.usefixtures("no_pictures")
@pytest.mark.parametrize("stage", ["gather", "draw", "write"])
def test_ctrl_c_leaves_the_old_page_and_nothing_else(
    mmucheck: Mmucheck, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    out = tmp_path / "out.html"
    out.write_text("the old page")

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    if stage == "write":
        monkeypatch.setattr(command.os, "replace", interrupt)
    else:
        monkeypatch.setattr(Report, "of" if stage == "gather" else "html", interrupt)
    end = mmucheck("report", out, *SMALL)
    assert end.status == 130
    assert end.stderr == "mmucheck: interrupted\n"
    assert out.read_text() == "the old page"
    assert [path.name for path in tmp_path.iterdir()] == ["out.html"]


def test_other_commands_load_no_drawing() -> None:
    """matplotlib costs a second, and only a picture needs it."""
    code = (
        "import sys, harness.cli, harness.report, harness.report.program; "
        "print([name for name in ('matplotlib', 'jinja2') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout == "[]\n"


def test_help_has_an_example(mmucheck: Mmucheck) -> None:
    end = mmucheck("report", "--help")
    assert end.status == 0
    assert "mmucheck report out.html --ram 1G --highmem 4G" in end.stdout
