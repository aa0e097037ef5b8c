# SPDX-License-Identifier: GPL-2.0-or-later
"""The examples as a reader has them: README's text, word by word, and ``docs/examples``."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.pytest_plugin.running import run, text_of

pytest_plugins = ["pytester"]
ROOT = Path(__file__).parents[3]
OWN_KERNEL = ROOT / "docs" / "examples" / "own_kernel"


def readme_block(language: str) -> str:
    """The first block of ``language`` in README's section about pytest."""
    section = (ROOT / "README.md").read_text().partition("\n## In pytest\n")[2]
    found = re.search(rf"```{language}[^\n]*\n(.*?)```", section, re.DOTALL)
    assert found is not None
    return found[1]


def compile_by(command: str, directory: Path) -> None:
    """Run a line that begins with ``python -m ziglang``, with this Python."""
    words = shlex.split(command)
    assert words[:3] == ["python", "-m", "ziglang"]
    subprocess.run([sys.executable, *words[1:]], cwd=directory, check=True)


def test_readme(pytester: pytest.Pytester) -> None:
    """The guest, the test, and the two commands."""
    for language, name in (("c", "guest.c"), ("python", "test_guest.py")):
        text = readme_block(language)
        assert name in text.splitlines()[0]
        pytester.path.joinpath(name).write_text(text)
    compiling, testing = readme_block("sh").splitlines()
    compile_by(compiling, pytester.path)
    command, *arguments = testing.split()
    assert command == "pytest"
    result = run(pytester, *arguments)
    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["mmucheck: 1 run of a guest"])


def own_kernel(pytester: pytest.Pytester, *flags: str) -> pytest.RunResult:
    """Build the example as the docstring of its test says, and run its test."""
    for path in OWN_KERNEL.iterdir():
        if path.is_file() and path.suffix in (".c", ".py"):
            pytester.path.joinpath(path.name).write_bytes(path.read_bytes())
    text = (OWN_KERNEL / "test_own_kernel.py").read_text()
    found = re.search(r"python -m ziglang.*?(?=\n    pytest)", text, re.DOTALL)
    assert found is not None
    command = found[0].replace("\\\\\n", " ")
    compile_by(" ".join([command, *flags]), pytester.path)
    return run(pytester)


def test_own_kernel(pytester: pytest.Pytester) -> None:
    own_kernel(pytester).assert_outcomes(passed=2)


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("-DFORGET_TO_FLUSH", ["MISSING FLUSH", "at 0x08048000..0x08048fff", "PTE 0x00000000 at"]),
        (
            "-DUSER_RIGHTS=7",
            ["UNEXPECTED", "list  faults with 3 (P|W)", "spec  frame 0x200 (user rwx)", "4.6"],
        ),
        ("-DUSER_FRAME=0x201000", ["UNEXPECTED", "list  frame 0x200", "spec  frame 0x201", "4.3"]),
        ("-DUSER_RIGHTS=1", ["UNEXPECTED", "user read, user fetch", "PTE 0x00200021", "4.6"]),
    ],
)
def test_own_kernel_with_a_fault(pytester: pytest.Pytester, flag: str, said: list[str]) -> None:
    """A forgotten flush, a right too many, another frame: each is told at its address."""
    result = own_kernel(pytester, flag)
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    for words in said:
        assert words in text_of(result), words
