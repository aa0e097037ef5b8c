# SPDX-License-Identifier: GPL-2.0-or-later
"""``mmucheck boot --show``: the texts of /proc, for people and for programs."""

import json
from pathlib import Path

import pytest

from harness.cli import app
from kernel_model.config import KernelConfig
from kernel_model.kernel import boot
from kernel_model.proc import PROC_FILES, proc_files


def mmucheck(*arguments: str) -> None:
    with pytest.raises(SystemExit) as end:
        app(list(arguments))
    assert not end.value.code


@pytest.mark.parametrize("name", PROC_FILES)
def test_proc_text_is_shown(
    name: str, either_release: str, capsys: pytest.CaptureFixture[str]
) -> None:
    mmucheck("boot", "--kernel", either_release, "--ram", "20M", "--show", name)
    shown = capsys.readouterr().out.partition(f"\n{name}:\n")[2]
    kernel = boot(KernelConfig(ram=20 << 20))
    lines = proc_files(kernel)[name].text(kernel).splitlines()
    assert [line.rstrip() for line in shown.splitlines()] == [line.rstrip() for line in lines]


def test_json_has_lines_and_data(tmp_path: Path, either_release: str) -> None:
    path = tmp_path / "boot.json"
    names = ["e820", *PROC_FILES]
    options = "--kernel", either_release, "--json", str(path)
    mmucheck("boot", *options, *(word for name in names for word in ("--show", name)))
    document = json.loads(path.read_text())
    kernel = boot(KernelConfig())
    assert list(document["show"]) == names
    files = {name: proc_files(kernel)[name] for name in PROC_FILES}
    assert document["data"] == {name: file.data(kernel) for name, file in files.items()}
    assert document["show"]["meminfo"] == files["meminfo"].text(kernel).splitlines()
