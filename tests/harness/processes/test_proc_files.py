# SPDX-License-Identifier: GPL-2.0-or-later
"""``/proc`` as programs read it: titles from the memory of the process, the table of mounts."""

import pytest

from harness.processes.proc_texts import ProcTexts
from tests import packages
from tests.harness.processes.recorded import recorded, run_program
from tests.harness.processes.releases import MACHINES
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
