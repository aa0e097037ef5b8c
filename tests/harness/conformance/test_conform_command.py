# SPDX-License-Identifier: GPL-2.0-or-later
"""``mmucheck conform`` and ``mmucheck diff --cpu qemu`` as they are typed."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from harness.cpu.qemu import PROGRAM, qemu_program

needs_qemu = pytest.mark.skipif(
    qemu_program() is None, reason="qemu-system-i386 is not installed (package qemu-system-x86)"
)
CASE = "mode=2-level,wp=1,pde=p.rw.us,pte=p.us,access=write,ring=user"


def mmucheck(*arguments: str, **more: Any) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "harness.cli", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, **more)


def test_single_cases(tmp_path: Path) -> None:
    result = tmp_path / "result.json"
    modify = CASE.replace("write", "modify").replace("pte=p.us", "pte=us")
    done = mmucheck("conform", "--case", CASE, "--case", modify, "--json", str(result))
    assert done.returncode == 0, done.stderr
    assert "unicorn: conforms; 2 cases, 1 known differences" in done.stdout
    document = json.loads(result.read_text())
    assert document["command"] == "conform"
    assert document["ok"] is True
    (cpu,) = document["cpus"]
    assert cpu["cases"] == 2
    assert cpu["known_divergences"][0]["name"] == "modify-reads-first"


def test_bad_case_is_one_line() -> None:
    done = mmucheck("conform", "--case", "mode=pae,ring=user")
    assert done.returncode == 2
    assert done.stderr.startswith("mmucheck: error: --case: access is missing")
    assert len(done.stderr.splitlines()) == 1


def test_without_qemu_is_one_line() -> None:
    done = mmucheck("conform", "--cpu", "qemu", "--case", CASE, env={"PATH": "/nonexistent"})
    assert done.returncode == 2
    assert f"{PROGRAM} is not installed" in done.stderr
    assert len(done.stderr.splitlines()) == 1


@needs_qemu
def test_diff_on_qemu() -> None:
    done = mmucheck("diff", "--cpu", "qemu", "--json", "-")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["ok"] is True
    left_out = document["left_out"]
    few = left_out["devices"] + left_out["without_stamp"]
    assert document["questions"]["qemu"] >= (document["asked"] - few) * 6
