# SPDX-License-Identifier: GPL-2.0-or-later
"""The command line: exit statuses, one line for an error, no colour where none is wanted.

Commands are run in this process; a few runs of the real program prove that nothing depends on
that.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from harness.cli import app
from harness.commands import boot as boot_module
from harness.commands import doctor as doctor_module
from harness.commands import replay as replay_module
from harness.commands.doctor import Finding
from harness.commands.options import USUAL_CR0, ImageOptions, MachineOptions
from harness.replay import Difference, Replayed
from kernel_model.config import Highmem
from kernel_model.errors import BadInput, KernelPanic
from tests.elf_bytes import Phdr, program
from tests.linux_images import linux_image

COMMANDS = ("run", "diff", "explain", "boot", "replay", "doctor")


class Ended(NamedTuple):
    status: int
    stdout: str
    stderr: str

    @property
    def error(self) -> str:
        """The only line on standard error."""
        assert self.stderr.count("\n") == 1
        assert self.stderr.startswith("mmucheck: ")
        return self.stderr.rstrip("\n")


@pytest.fixture
def mmucheck(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ended]:
    def call(*arguments: str | Path) -> Ended:
        with pytest.raises(SystemExit) as end:
            app([str(argument) for argument in arguments])
        code = end.value.code
        return Ended(code if isinstance(code, int) else 0, *capsys.readouterr())

    return call


Mmucheck = Callable[..., Ended]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["frobnicate"], "No such command"),
        (["diff", "--frobnicate"], "--frobnicate (see mmucheck diff --help)"),
        (["boot", "--ram"], "--ram"),
        (["boot", "stray"], "stray"),
        (["boot", "--highmem", "8G"], "8G"),
        (["run"], "PROGRAM"),
        (["explain"], "VA"),
        (["replay"], "TRACE.json"),
        (["boot", "--ram", "64X"], "--ram '64X': not a size"),
        (["boot", "--ram", "65G"], "--ram '65G': at most"),
        (["boot", "--ram", "1M"], "5M"),
        (["boot", "--cpu-model", "386"], "486"),
        (["boot", "--cpu-model", "486", "--highmem", "64G"], "PAE"),
        (["boot", "--kernel", "9.9"], "9.9"),
        (["boot", "--kernel", "2.6", "--rmap", "both"], "object, pte_chain"),
        (["boot", "--rmap", "pte_chain"], "2.4 has no reverse map"),
        (["boot", "--highpte"], "choose release 2.6 and highmem 4G or 64G"),
        (
            ["boot", "--kernel=2.6", "--highmem=64G", "--ram=5G", "--highpte", "--rmap=pte_chain"],
            "32 bits for the address of each",
        ),
        (["boot", "--cpus", "0"], "nr_cpus 0"),
        (["boot", "--cpus", "two"], "--cpus 'two': not a number"),
        (["boot", "--show", "nothing"], "one of e820, mappings"),
        (["boot", "--json", "/"], "--json /: cannot be written"),
        (["diff", "--seed", "-1"], "--seed '-1': not a number"),
        (["boot", "--seed", "abc"], "--seed 'abc': not a number"),
        (["diff", "--image", "x"], "--cr3"),
        (["diff", "--cr4", "0"], "--image"),
        (["diff", "--expect", "x"], "--image"),
        (["diff", "--image", "/nowhere", "--cr3", "0"], "/nowhere: cannot be read"),
        (["diff", "--image", "x", "--cr3", "0x1FFFFFFFF"], "--cr3 '0x1FFFFFFFF': at most"),
        (["diff", "--image", "x", "--cr3", "0", "--cr0", "0x80000000"], "without protection"),
        (["explain", "0x100000000"], "VA '0x100000000': at most"),
        (["explain", "089"], "octal"),
        (["run", "/nowhere"], "/nowhere: cannot be read"),
        (["run", "--timeout", "-1", "x"], "--timeout"),
        (["run", "--max-insns", "many", "x"], "--max-insns 'many'"),
        (["replay", "/nowhere"], "/nowhere"),
        (["boot", "\x1b[31m\nred"], "\\x1b[31m"),
    ],
)
def test_bad_usage_is_one_line_and_status_2(
    mmucheck: Mmucheck, arguments: list[str], said: str
) -> None:
    end = mmucheck(*arguments)
    assert end.status == 2
    assert end.stdout == ""
    assert end.error.startswith("mmucheck: error: ")
    assert said in end.error


def test_no_command_shows_the_commands(mmucheck: Mmucheck) -> None:
    end = mmucheck()
    assert end.status == 2
    assert all(command in end.stdout for command in COMMANDS)
    assert "no command given" in end.error


@pytest.mark.parametrize("command", COMMANDS)
def test_help_teaches_by_example(mmucheck: Mmucheck, command: str) -> None:
    end = mmucheck(command, "--help")
    assert (end.status, end.stderr) == (0, "")
    assert f"mmucheck {command}" in end.stdout.split("Examples")[1]
    assert "--json" in end.stdout


@pytest.mark.parametrize("command", ["run", "diff", "explain", "boot"])
def test_the_machine_options_are_everywhere(mmucheck: Mmucheck, command: str) -> None:
    text = mmucheck(command, "--help").stdout
    names = ("ram", "kernel", "rmap", "highmem", "highpte", "cpu-model", "nodes", "cpus", "seed")
    assert all(f"--{name}" in text for name in names)


@pytest.mark.parametrize("command", ["diff", "explain"])
def test_the_image_options_are_on_both(mmucheck: Mmucheck, command: str) -> None:
    text = mmucheck(command, "--help").stdout
    names = ("image", "cr3", "cr0", "cr4", "efer", "expect")
    assert all(f"--{name}" in text for name in names)


def test_version(mmucheck: Mmucheck) -> None:
    end = mmucheck("--version")
    assert end.status == 0
    assert end.stdout.startswith("mmucheck ")


def test_boot_prints_the_log_and_what_was_asked_for(mmucheck: Mmucheck) -> None:
    end = mmucheck("boot", "--ram", "0x1000000", "--show", "e820", "--show", "mappings")
    assert (end.status, end.stderr) == (0, "")
    log, e820, mappings = end.stdout.split("\n\n")
    assert "16MB LOWMEM available." in log
    assert "0x0000000000100000 - 0x0000000001000000 (usable)" in e820
    assert "0xc0000000 - 0xc0ffffff -> 0x000000000 direct map" in mappings


def test_json_to_a_file(mmucheck: Mmucheck, tmp_path: Path) -> None:
    path = tmp_path / "boot.json"
    end = mmucheck("boot", "--ram", "16M", "--highmem", "4g", "--show", "e820", "--json", path)
    document = json.loads(path.read_text())
    assert end.status == 0
    assert document["config"]["highmem"] == "4G"
    assert document["log"] == end.stdout.split("\n\n")[0].splitlines()
    assert list(document["show"]) == ["e820"]


def test_json_to_standard_output_moves_the_text_away(mmucheck: Mmucheck) -> None:
    end = mmucheck("boot", "--ram", "16M", "--json", "-")
    assert json.loads(end.stdout)["command"] == "boot"
    assert "LOWMEM" in end.stderr


def raising(error: BaseException) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (BadInput("wrong\nin two lines"), 2, "mmucheck: error: wrong in two lines"),
        (KernelPanic("no memory"), 1, "mmucheck: KernelPanic: no memory"),
        (ZeroDivisionError("by 0"), 70, "mmucheck: defect: ZeroDivisionError: by 0"),
        (OSError(28, "No space left", "out"), 2, "mmucheck: error: out: No space left"),
    ],
)
def test_every_error_is_one_line(
    mmucheck: Mmucheck,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    status: int,
    said: str,
) -> None:
    monkeypatch.delenv("MMUCHECK_TRACEBACK", raising=False)
    monkeypatch.setattr(boot_module, "boot_kernel", raising(error))
    end = mmucheck("boot")
    assert (end.status, end.error) == (status, said)


def test_interrupted(mmucheck: Mmucheck, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(boot_module, "boot_kernel", raising(KeyboardInterrupt()))
    end = mmucheck("boot")
    assert end.status == 130
    assert "Traceback" not in end.stderr


def test_a_defect_can_be_looked_into(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMUCHECK_TRACEBACK", "1")
    monkeypatch.setattr(boot_module, "boot_kernel", raising(ZeroDivisionError()))
    with pytest.raises(ZeroDivisionError):
        app(["boot"])


def test_run_checks_the_program_against_the_ram(mmucheck: Mmucheck, tmp_path: Path) -> None:
    path = tmp_path / "large.elf"
    path.write_bytes(program(Phdr(0x1000, b"code", memsz=32 << 20)))
    end = mmucheck("run", "--ram", "16M", path)
    assert end.status == 2
    assert "there are 16777216" in end.error


def test_run_without_an_mmu(mmucheck: Mmucheck) -> None:
    for text, fragment in (("hello", "give a PIE"), ("no_such", "cannot be read")):
        end = mmucheck("run", "--no-mmu", text)
        assert end.status == 2
        assert fragment in end.error
    assert mmucheck("run", "--no-mmu", "--highmem", "4G", "hello_pie").status == 2
    assert mmucheck("run", "--no-mmu", "--max-insns", "5000", "greedy_pie", "loop").status == 124
    end = mmucheck("run", "--no-mmu", "--ram", "16M", "greedy_pie", "mmap")
    assert end.status == 128 + 9


@pytest.mark.parametrize("different", [True, False])
def test_replay_tells_equal_from_different(
    mmucheck: Mmucheck, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, different: bool
) -> None:
    difference = Difference("call[3]", 1, 2) if different else None
    monkeypatch.setattr(
        replay_module,
        "replay_trace",
        lambda path: Replayed(path, "bootmem", "[64M]", 17, difference),
    )
    end = mmucheck("replay", "one.json", "two.json", "--json", tmp_path / "out")
    traces = json.loads((tmp_path / "out").read_text())["traces"]
    assert end.status == int(different)
    assert ("the kernel answered 1, the model 2" in end.stdout) is different
    assert "[64M]" in end.stdout
    assert [trace["ok"] for trace in traces] == [not different] * 2


GOOD = Finding("good", "1.0", "nothing", required=True)


@pytest.mark.parametrize(
    ("finding", "status"),
    [
        (GOOD, 0),
        (Finding("optional", "", "some comfort"), 0),
        (Finding("needed", "", "everything", required=True), 1),
        (Finding("needed", "0.1", "everything", required=True, enough=False), 1),
    ],
)
def test_doctor_fails_for_what_is_needed(
    mmucheck: Mmucheck, monkeypatch: pytest.MonkeyPatch, finding: Finding, status: int
) -> None:
    monkeypatch.setattr(doctor_module, "examine", lambda: iter([GOOD, finding]))
    end = mmucheck("doctor")
    assert end.status == status
    assert (finding.cost in end.stdout) is not finding.ok
    assert ("cannot work without: needed" in end.stdout) is bool(status)


def test_doctor_finds_what_runs_these_tests(mmucheck: Mmucheck) -> None:
    end = mmucheck("doctor", "--json", "-")
    found = {row["name"]: row for row in json.loads(end.stdout)["findings"]}
    for name in ("Python", "libraries", "unicorn", "CPU models"):
        assert found[name]["ok"], found[name]
    assert found["CPU models"]["found"] == "486, pentium, pentium2, pentium3, coreduo"


def test_doctor_sees_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(doctor_module, "built_directory", lambda: tmp_path / "built")
    found = {finding.name: finding for finding in doctor_module.examine()}
    for name in ("QEMU", "browser", "gdb", "built guests"):
        assert not found[name].ok
        assert found[name].cost
        assert found[name].remedy


def test_doctor_knows_what_pytest_and_the_site_need(
    mmucheck: Mmucheck, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = {"mkdocs": "1.6", "mkdocs-material": "9.6"}
    monkeypatch.setattr(doctor_module, "_package", lambda name: versions.get(name, ""))
    monkeypatch.setattr(doctor_module, "_unicorn", lambda: GOOD)
    end = mmucheck("doctor", "--json", "-")
    found = {row["name"]: row for row in json.loads(end.stdout)["findings"]}
    assert found["documentation tools"]["found"] == "mkdocs 1.6, mkdocs-material 9.6"
    for name in ("documentation tools", "pytest plugin", "guest compiler"):
        assert not found[name]["ok"]
        assert found[name]["remedy"]
    assert "make docs" in end.stderr
    assert "Debian's i386 programs" in found


def test_doctor_of_an_installed_package_has_no_tests_to_speak_of(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(doctor_module, "__file__", str(tmp_path / "harness/commands/doctor.py"))
    assert not [finding for finding in doctor_module.examine() if "Debian" in finding.name]


def test_machine_options_become_a_configuration() -> None:
    config = MachineOptions(
        ram="1G", highmem=Highmem.GB64, cpu_model="coreduo", nodes="1", cpus="0x2"
    ).config()
    assert (config.ram, config.highmem, config.cpu_model) == (1 << 30, Highmem.GB64, "coreduo")
    assert (config.nodes, config.nr_cpus, config.release) == (1, 2, "2.4")
    assert MachineOptions(seed="0xFFFFFFFFFFFFFFFF").seed_number() == (1 << 64) - 1


def test_image_options_read_the_image(tmp_path: Path) -> None:
    image = linux_image("pae128_nonx")
    space = image.address_spaces[0]
    image.write_raw(tmp_path / "dump")
    space.write_expectation(tmp_path / "known.npz")
    registers = space.registers
    subject = ImageOptions(
        image=tmp_path / "dump",
        cr3=hex(registers.cr3),
        cr0=f"{registers.cr0}u",
        cr4=f"0{registers.cr4:o}",
        expect=tmp_path / "known.npz",
    ).subject()
    assert subject is not None
    assert subject.registers == registers
    assert subject.ram.buffer[:] == image.new_ram().buffer[:]
    assert subject.expectation is not None
    assert len(subject.expectation) == len(space.expectation)


def test_image_options_default_to_what_linux_has() -> None:
    registers = ImageOptions(image=Path("x"), cr3="0x1000").registers()
    assert (registers.cr0, registers.cr4, registers.efer) == (USUAL_CR0, 0, 0)
    assert registers.paging
    assert registers.write_protect
    assert ImageOptions().subject() is None


def process(*arguments: str, **environment: str) -> Ended:
    done = subprocess.run(
        [sys.executable, "-m", "harness.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=Path(__file__).parents[2],
        env=os.environ | environment,
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def test_the_program_itself() -> None:
    assert process("boot", "--ram", "bad").status == 2
    end = process("boot", "--ram", "16M")
    assert end.status == 0
    assert "LOWMEM" in end.stdout


def test_no_colour_off_a_terminal() -> None:
    for arguments in (["--help"], ["replay", "/nowhere"]):
        end = process(*arguments, TERM="xterm-256color")
        assert "\x1b[" not in end.stdout + end.stderr
