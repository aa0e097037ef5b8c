# SPDX-License-Identifier: GPL-2.0-or-later
"""``mmucheck boot --show``: the texts of /proc, for people and for programs."""

import json
from pathlib import Path

import pytest

from harness.cli import app
from kernel_model.config import KernelConfig
from kernel_model.kernel import boot
from kernel_model.proc import PROC_FILES


def mmucheck(*arguments: str) -> None:
    with pytest.raises(SystemExit) as end:
        app(list(arguments))
    assert not end.value.code


@pytest.mark.parametrize("name", PROC_FILES)
def test_proc_text_is_shown(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    mmucheck("boot", "--ram", "20M", "--show", name)
    shown = capsys.readouterr().out.partition(f"\n{name}:\n")[2]
    lines = PROC_FILES[name].text(boot(KernelConfig(ram=20 << 20))).splitlines()
    assert [line.rstrip() for line in shown.splitlines()] == [line.rstrip() for line in lines]


def test_json_has_lines_and_data(tmp_path: Path) -> None:
    path = tmp_path / "boot.json"
    names = ["e820", *PROC_FILES]
    mmucheck("boot", "--json", str(path), *(word for name in names for word in ("--show", name)))
    document = json.loads(path.read_text())
    kernel = boot(KernelConfig())
    assert list(document["show"]) == names
    assert document["data"] == {name: file.data(kernel) for name, file in PROC_FILES.items()}
    assert document["show"]["meminfo"] == PROC_FILES["meminfo"].text(kernel).splitlines()
