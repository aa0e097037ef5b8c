# SPDX-License-Identifier: GPL-2.0-or-later
"""Thousands of calls with arguments that nobody should pass: an errno each time, and no harm.

Numbers, pointers, lengths, offsets, descriptors and paths come from a seeded source. Nothing is
raised, no request is larger than the machine allows, no call goes on without end, and nothing on
the host changes.
"""

import inspect
import os
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from harness.syscalls import user_copy
from harness.syscalls.names import NAMES
from harness.syscalls.requests import CopyFromUser, CopyToUser
from harness.syscalls.table import TABLE
from harness.syscalls.task import Limits
from harness.vfs.credentials import Credentials
from harness.vfs.descriptors import DescriptorTable
from harness.vfs.directory import Directory
from harness.vfs.quota import Quota
from harness.vfs.regular import RegularFile
from tests.harness.syscalls.program import Program, Running, new_machine
from tests.harness.vfs.ours import checksum
from tests.harness.vfs.reference import populate

PATHS = [
    *(b"", b"/", b".", b"..", b"a", b"a/f", b"c", b"d", b"e", b"l", b"p", b"x", b"n", b"a/n"),
    *(b"../../../etc/passwd", b"a/../../../../etc/shadow", b"/proc/self/fd/0", b"/proc/self/cwd"),
    *(b"/proc/self/fd/1", b"/proc/self/exe", b"/proc/self/root/../../etc", b"/proc/99/maps"),
    *(b"/dev/null", b"/dev/zero", b"/dev/full", b"/dev/tty", b"/dev/stdin", b"/dev/urandom"),
    *(b"x" * 255, b"x" * 256, b"x/" * 2047, b"x" * 4096, b"a/" * 2048, b"\xff\xfe", b"a\nb"),
]
NUMBERS = [
    *(0, 1, 2, 3, 4, 5, 7, 8, 16, 64, 255, 256, 1023, 1024, 1025, 4095, 4096, 4097, 65536),
    *(0x7FFFFFFE, 0x7FFFFFFF, 0x80000000, 0x80000001, 0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFF9C),
    *(0xC0000000, 0xBFFFFFFF, 0xBFFFF000, 0x40000000, 0x10000, 0o100, 0o2000, 0o40000),
]
CALLS = 40_000
REQUESTS = 100_000
"""No call may ask for more."""


NAMES_OF = {
    number: list(inspect.signature(call.function).parameters)[1:] for number, call in TABLE.items()
}
"""Call -> the names of its arguments."""
A_PATH = {"path", "old", "new", "text"}
A_DESCRIPTOR = {"descriptor", "directory", "old_directory", "new_directory", "source", "output"}
A_NUMBER = {"flags", "mode", "count", "size", "command", "operation", "offset", "low", "high"}


def argument(source: Random, program: Program, name: str) -> int:
    """One register: mostly of the kind that its name tells, so that calls get far enough."""
    kind = source.random()
    if kind < 0.7:
        if name in A_PATH:
            return program.text(source.choice(PATHS))
        if name in A_DESCRIPTOR:
            return source.choice([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 100, 0xFFFFFF9C, 0xFFFFFFFF])
        if name in A_NUMBER:
            return source.choice(NUMBERS)
        return program.put(source.randbytes(source.choice([4, 8, 16, 64, 256])))
    if kind < 0.8:
        return source.randrange(-1, 12) & 0xFFFFFFFF
    if kind < 0.9:
        return source.choice(NUMBERS)
    if kind < 0.95:
        return program.base + program.size - source.randrange(0, 64)
    return source.getrandbits(32)


class Bounded(Running):
    """A call that is watched: what it asks for is bounded, and so is how often."""

    def _answer(self, request: object) -> object:
        assert self.requests < REQUESTS
        match request:
            case CopyFromUser(address, length):
                assert address + length <= user_copy.TASK_SIZE
            case CopyToUser(address, data):
                assert address + len(data) <= user_copy.TASK_SIZE
                assert len(data) <= 1 << 20
        return super()._answer(request)


def hostile(root: Path, seed: int, calls: int) -> tuple[Counter[int], Program]:
    """Make the calls: how often each result was seen, with all that is not an error as 0."""
    source, results = Random(seed), Counter[int]()
    machine = new_machine(root, Quota(max_pages=256, max_inodes=200, max_files=100))
    machine.files.proc.texts[b"meminfo"] = lambda: b"MemTotal: 1 kB\n"
    machine.files.proc.process_texts[b"maps"] = lambda pid: b"%d\n" % pid
    program = Program(machine)
    numbers = sorted(TABLE)
    for count in range(calls):
        if count % 100 == 0:
            program.limits, program.fs = Limits(), machine.files.context(Credentials())
        number = source.choice(numbers)
        arguments = [argument(source, program, name) for name in NAMES_OF[number]]
        running = Bounded(program, TABLE[number].start(program, *arguments))
        try:
            running.go()
            if running.waiting is not None:
                running.interrupt()
        except Exception as error:
            raise AssertionError(f"{NAMES[number]}{[hex(a) for a in arguments]}") from error
        result = running.result
        assert isinstance(result, int), NAMES[number]
        assert -4096 < result < 1 << 32, NAMES[number]
        results[min(result, 0)] += 1
    return results, program


def test_nothing_is_raised_and_the_host_stays_as_it_is(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    populate(tmp_path)
    before = checksum(tmp_path)
    etc = {path: os.stat(path).st_mtime_ns for path in ("/etc/passwd", "/etc", "/tmp/..")}
    results, program = hostile(tmp_path, 1, CALLS)
    assert checksum(tmp_path) == before
    assert etc == {path: os.stat(path).st_mtime_ns for path in etc}
    assert sum(results.values()) == CALLS
    assert results[0] > CALLS // 10, "too few calls succeed to prove anything"
    assert len(results) > 25, "too few kinds of errors"
    _nothing_is_left(program)


def _nothing_is_left(program: Program) -> None:
    """Closed and emptied, the tree holds what it held at first."""
    program.files.close_all()
    quota = program.system.files.quota
    assert quota.files == 0
    held = sum(len(inode._pages) for inode in _regular_files(program))
    assert quota.pages == held


def _regular_files(program: Program) -> set[RegularFile]:
    """All that names lead to, ``/dev`` included; ``/proc`` holds none."""
    found: set[RegularFile] = set()
    waiting = [program.system.files.root]
    while waiting:
        directory = waiting.pop()
        for name in directory.names():
            inode = directory.lookup(name)
            if isinstance(inode, RegularFile):
                found.add(inode)
            elif type(inode) is Directory:
                waiting.append(inode)
    return found


# -- planted faults ------------------------------------------------------------------------------


def test_an_exception_would_be_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    populate(tmp_path)
    monkeypatch.setattr(DescriptorTable, "get_raw", lambda self, number: self._files[number])
    with pytest.raises(AssertionError) as caught:
        hostile(tmp_path, 1, 3000)
    assert isinstance(caught.value.__cause__, KeyError)


def test_an_unchecked_range_would_be_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    populate(tmp_path)
    monkeypatch.setattr(user_copy, "check_range", lambda address, length: None)
    with pytest.raises(AssertionError):
        hostile(tmp_path, 1, 3000)
