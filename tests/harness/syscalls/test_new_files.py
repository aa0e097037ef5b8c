# SPDX-License-Identifier: GPL-2.0-or-later
"""Two files at once: both get a number, or neither stays open."""

import errno
from pathlib import Path

import pytest

from harness.syscalls.task import RLIMIT_NOFILE
from tests.harness.syscalls.program import Program, new_machine

AF_UNIX = SOCK_STREAM = 1
PAIRS = {"pipe2": lambda at: (at, 0), "socketpair": lambda at: (AF_UNIX, SOCK_STREAM, 0, at)}


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(new_machine(tmp_path))


@pytest.mark.parametrize("name", PAIRS)
def test_numbers_that_cannot_be_stored(program: Program, name: str) -> None:
    files = program.system.files.quota.files
    assert program.call(name, *PAIRS[name](0xFFFFFFF0)) == -errno.EFAULT
    assert program.system.files.quota.files == files


@pytest.mark.parametrize("room", [0, 1])
@pytest.mark.parametrize("name", PAIRS)
def test_no_number_for_one_of_them(program: Program, name: str, room: int) -> None:
    files = program.system.files.quota.files
    lowest = program.call("dup", 0)
    program.call("close", lowest)
    program.limits.values[RLIMIT_NOFILE] = (lowest + room, 4096)
    assert program.call(name, *PAIRS[name](program.room(8))) == -errno.EMFILE
    assert program.system.files.quota.files == files
    program.limits.values[RLIMIT_NOFILE] = (1024, 4096)
    assert program.call("dup", 0) == lowest, "the number is free again"
