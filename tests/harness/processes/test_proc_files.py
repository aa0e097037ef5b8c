# SPDX-License-Identifier: GPL-2.0-or-later
"""``/proc`` as programs read it: titles from the memory of the process, the table of mounts."""

import re
from signal import SIGINT, SIGUSR1

import pytest

from harness.processes.proc_texts import ProcTexts
from kernel_model.config import KernelConfig
from tests import packages
from tests.harness.processes.recorded import recorded, run_program
from tests.harness.processes.releases import MACHINES, on_both
from tests.harness.processes.running import Tree

TITLES = recorded("linux-i386-programs", "title")


@MACHINES
def test_a_title_is_what_stands_in_memory(release: str, ram: int) -> None:
    printed = run_program("title", ram, release=release)
    assert (printed.output, printed.status) == (TITLES, 0)


def test_a_title_that_was_kept_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The planted fault: the first answer is given for ever."""
    kept: dict[int, bytes] = {}
    write = ProcTexts._cmdline

    def first(texts: ProcTexts, pid: int) -> bytes:
        return kept.setdefault(pid, write(texts, pid))

    monkeypatch.setattr(ProcTexts, "_cmdline", first)
    assert run_program("title").output != TITLES


def columns(text: str) -> dict[str, int]:
    """``NAME: NUMBER kB`` -> the number."""
    rows = (line.split() for line in text.splitlines() if line.endswith(" kB"))
    return {row[0].rstrip(":"): int(row[1]) for row in rows}


def read_on_2_6(tree: Tree, *paths: str) -> list[str]:
    """What a program of busybox reads there."""
    shell = "; ".join(f"cat {path}; echo ==" for path in paths)
    argv, config = ["bin/busybox", "sh", "-c", shell], KernelConfig(release="2.6")
    return tree.on_model(argv, config=config).outcome.output.decode().split("==\n")[: len(paths)]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Tree:
    return Tree(tmp_path_factory.mktemp("proc"), {"busybox": packages.program("busybox")})


@pytest.mark.book("4.8", release="2.6")
def test_what_a_process_of_2_6_reads_of_itself(tree: Tree) -> None:
    """Each number of ``status`` can be had from the lines of ``maps`` as well."""
    shell = "bin/busybox cat /proc/self/maps /proc/self/status"
    argv, config = shell.split(), KernelConfig(release="2.6")
    text = tree.on_model(argv, config=config).outcome.output.decode()
    lines = [line for line in text.splitlines() if re.match("[0-9a-f]{8}-", line)]
    *rows, gate = [line.split() for line in lines]
    assert gate == ["ffffe000-fffff000", "---p", "00000000", "00:00", "0"]
    assert all(line.endswith(" 0 ") or line[49] == "/" for line in lines)
    sizes = [
        (int(row[0][9:], 16) - int(row[0][:8], 16) >> 10, row[1], len(row) > 5) for row in rows
    ]
    status = columns(text)
    assert status["VmSize"] == sum(size for size, _, _ in sizes)
    assert status["VmStk"] == sizes[-1][0]
    assert status["VmData"] == sum(size for size, _, named in sizes[:-1] if not named)
    code = sum(size for size, rights, named in sizes if named and "x" in rights)
    assert status["VmExe"] + status["VmLib"] & 0xFFFFFFFF == code
    places = {int(row[0][:8], 16) >> 22 for row in rows}
    assert 0 < status["VmPTE"] <= 4 * (len(places) + 1)


LINES = {
    "2.4": "Name State Tgid Pid PPid TracerPid Uid Gid FDSize Groups VmSize VmLck VmRSS VmData "
    "VmStk VmExe VmLib SigPnd SigBlk SigIgn SigCgt CapInh CapPrm CapEff",
    "2.6": "Name State SleepAVG Tgid Pid PPid TracerPid Uid Gid FDSize Groups VmSize VmLck VmRSS "
    "VmData VmStk VmExe VmLib VmPTE Threads SigPnd ShdPnd SigBlk SigIgn SigCgt CapInh CapPrm "
    "CapEff",
}
"""Of ``status``."""
NUMBERS = {"2.4": 39, "2.6": 41}
"""Of ``stat``, with the name and the letter."""


@on_both
def test_a_process_reads_of_its_ids_and_signals(tree: Tree, release: str) -> None:
    shell = "trap '' INT; trap 'echo' USR1; exec 40<&1; cat /proc/$$/status /proc/$$/stat"
    argv = ["bin/busybox", "sh", "-c", shell]
    text = tree.on_model(argv, config=KernelConfig(release=release)).outcome.output.decode()
    *lines, stat = text.splitlines()
    assert [line.split(":")[0] for line in lines] == LINES[release].split()
    told = dict(line.split(":\t") for line in lines)
    ids = told["Pid"], told["Tgid"], told["TracerPid"], told["FDSize"]
    assert ids == ("2", "2", "0", "256")
    assert told["State"] == "S (sleeping)"
    ignored, caught = (int(told[name], 16) for name in ("SigIgn", "SigCgt"))
    assert ignored & 1 << SIGINT - 1
    assert caught & 1 << SIGUSR1 - 1
    assert not ignored & caught
    numbers = stat.split()
    assert (len(numbers), numbers[0], numbers[2]) == (NUMBERS[release], "2", "S")
    assert [int(number) for number in numbers[32:34]] == [ignored, caught]


@pytest.mark.book("2.8", release="2.6")
def test_what_a_program_of_2_6_reads_of_the_machine(tree: Tree) -> None:
    """``meminfo`` adds up, and ``vmstat`` counts what else tells the same."""
    meminfo, vmstat, zoneinfo, slabinfo = read_on_2_6(
        tree, "/proc/meminfo", "/proc/vmstat", "/proc/zoneinfo", "/proc/slabinfo"
    )
    kb = columns(meminfo)
    counted = {name: int(number) for name, number in map(str.split, vmstat.splitlines())}
    assert list(kb)[:3] == ["MemTotal", "MemFree", "Buffers"]
    assert kb["LowTotal"] + kb["HighTotal"] == kb["MemTotal"]
    assert kb["MemFree"] + kb["Active"] + kb["Inactive"] + kb["Slab"] < kb["MemTotal"]
    assert 0 < 4 * counted["nr_mapped"] <= kb["Active"] + kb["Inactive"]
    assert 0 < counted["nr_page_table_pages"] < 50
    assert counted["pgfault"] > 100
    assert [line.split()[3] for line in zoneinfo.splitlines() if line.startswith("Node")] == [
        *("DMA", "Normal"),
    ]
    assert slabinfo.startswith("slabinfo - version: 2.1\n")
    assert re.search(r"^anon_vma +[1-9]", slabinfo, re.MULTILINE)


def test_df_shows_the_file_systems(tmp_path_factory: pytest.TempPathFactory) -> None:
    busybox = packages.program("busybox")
    tree = Tree(tmp_path_factory.mktemp("df"), {"busybox": busybox})
    used = "dd if=/dev/zero of=data/new bs=4k count=10 2>/dev/null; df -k; df -a | wc -l"
    output = tree.on_model(["bin/busybox", "sh", "-c", used]).outcome.output.decode()
    heading, root, dev, lines = output.splitlines()
    assert heading.split()[0] == "Filesystem"
    assert root.split() == ["tmpfs", "65536", "40", "65496", "0%", "/"]
    assert dev.split()[0::5] == ["tmpfs", "/dev"]
    assert lines == "4"
