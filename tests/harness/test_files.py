# SPDX-License-Identifier: GPL-2.0-or-later
"""What is no regular file is refused at once, by every command that reads one."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from harness.cli import OneLineErrors, app
from harness.files import open_regular

COMMANDS = {
    "image": ["diff", "--cr3", "0x1000", "--image"],
    "expect": ["diff", "--cr3", "0x1000", "--image", "IMAGE", "--expect"],
    "replay": ["replay"],
    "run": ["run"],
}


def mmucheck(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "harness", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_regular_file_is_opened(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    with open_regular(tmp_path / "file", "a file") as file:
        assert file.read() == b"content"
    with pytest.raises(FileNotFoundError):
        open_regular(tmp_path / "nothing", "a file")


@pytest.mark.parametrize("command", COMMANDS)
def test_fifos_and_devices_hold_nobody(command: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "image").write_bytes(bytes(8192))
    for name in (str(tmp_path / "fifo"), "/dev/zero"):
        words = [str(tmp_path / "image") if w == "IMAGE" else w for w in COMMANDS[command]]
        process = mmucheck(*words, name)
        _, error = process.communicate(timeout=30)
        assert process.returncode == 2
        assert "not a regular file" in error
        assert error.count("\n") == 1


def test_ctrl_c_ends_a_comparison_in_one_line() -> None:
    """Whenever it comes: status 130, one line, no verdict."""
    for delay in (0.3, 1.6, 2.4):
        process = mmucheck("diff", "--ram", "768M")
        time.sleep(delay)
        process.send_signal(2)
        output, error = process.communicate(timeout=30)
        assert process.returncode == 130
        assert error == "mmucheck: interrupted\n"
        assert "agree" not in output


def test_ctrl_c_while_the_command_line_is_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(OneLineErrors, "parse_args", interrupted)
    with pytest.raises(SystemExit) as ended:
        app(["doctor"])
    assert ended.value.code == 130
    assert capsys.readouterr().err == "mmucheck: interrupted\n"
