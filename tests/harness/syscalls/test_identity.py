# SPDX-License-Identifier: GPL-2.0-or-later
"""User and group IDs against the host's kernel, limits, process groups, priority.

The host changes IDs in a child that ends afterwards: who has given up root cannot take it back.
"""

import ctypes
import errno
import os
import pickle
import struct
import subprocess
import sys
from random import Random

import pytest

from harness.vfs.credentials import Credentials
from tests.harness.syscalls.program import Program, new_machine

HOST_NUMBERS = {
    "setuid32": 105,
    "setgid32": 106,
    "setreuid32": 113,
    "setregid32": 114,
    "setresuid32": 117,
    "setresgid32": 119,
    "setfsuid32": 122,
    "setfsgid32": 123,
}
"""The same calls of x86-64 (``asm/unistd_64.h``)."""
ARGUMENTS = dict.fromkeys(HOST_NUMBERS, 1)
ARGUMENTS |= {"setreuid32": 2, "setregid32": 2, "setresuid32": 3, "setresgid32": 3}
IDS = [0, 0, 5, 6, 7, 0xFFFFFFFF]
Script = list[tuple[str, list[int]]]
Result = tuple[int, tuple[int, ...], tuple[int, ...]]

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="only root may change the host's IDs")


def script(source: Random) -> Script:
    names = source.choices(sorted(HOST_NUMBERS), k=12)
    return [(name, source.choices(IDS, k=ARGUMENTS[name])) for name in names]


def on_the_host(scripts: list[Script]) -> list[list[Result]]:
    """Results of each script in a process of its own; users 5 to 7 need not exist."""
    done = subprocess.run(
        [sys.executable, __file__], input=pickle.dumps(scripts), capture_output=True, check=True
    )
    results: list[list[Result]] = pickle.loads(done.stdout)
    return results


def in_a_child(script: Script) -> list[Result]:
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        libc = ctypes.CDLL(None, use_errno=True)
        results = []
        for name, arguments in script:
            result = libc.syscall(HOST_NUMBERS[name], *map(ctypes.c_long, arguments))
            failed = -ctypes.get_errno() if result == -1 else result
            results.append((failed, os.getresuid(), os.getresgid()))
        os.write(writer, pickle.dumps(results))
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as answers:
        data = answers.read()
    os.waitpid(child, 0)
    results_of_child: list[Result] = pickle.loads(data)
    return results_of_child


def here(script: Script) -> list[Result]:
    program, results = Program(new_machine()), []
    for name, arguments in script:
        result = program.call(name, *arguments)
        results.append((result, three(program, "getresuid32"), three(program, "getresgid32")))
    return results


def three(program: Program, call: str) -> tuple[int, ...]:
    rooms = [program.room(4) for _ in range(3)]
    assert program.call(call, *rooms) == 0
    return tuple(int.from_bytes(program.get(room, 4), "little") for room in rooms)


@needs_root
def test_ids_change_as_on_the_host() -> None:
    scripts = [script(Random(seed)) for seed in range(60)]
    for wanted, expected in zip(scripts, on_the_host(scripts), strict=True):
        assert here(wanted) == expected, wanted


@needs_root
def test_a_missing_check_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Credentials, "privileged", property(lambda self: True))
    with pytest.raises(AssertionError):
        test_ids_change_as_on_the_host()


@pytest.fixture
def program() -> Program:
    return Program(new_machine())


def test_short_ids_have_16_bits(program: Program) -> None:
    program.call("setuid32", 70_000)
    assert program.call("getuid") == 0xFFFE
    assert program.call("getuid32") == 70_000
    assert program.call("setreuid", 0xFFFF, 0xFFFF) == 0


def test_groups(program: Program) -> None:
    groups = program.put(struct.pack("<3I", 4, 5, 70_000))
    assert program.call("setgroups32", 3, groups) == 0
    assert program.call("getgroups32", 0, 0) == 3
    assert program.call("getgroups32", 2, groups) == -errno.EINVAL
    assert program.call("getgroups", 3, groups) == 3
    assert program.get(groups, 6) == struct.pack("<3H", 4, 5, 0xFFFE)
    assert program.call("setgroups32", 65537, groups) == -errno.EINVAL


def test_who_is_not_root_is_kept_out(program: Program) -> None:
    for name, mode in ((b"/own", 0o600), (b"/others", 0o604)):
        descriptor = program.call("open", name, os.O_CREAT | os.O_WRONLY, mode)
        program.call("fchown32", descriptor, 5, 5)
    program.call("fchmod", descriptor, 0o6755)
    program.call("mkdir", b"/closed", 0o700)
    program.call("mkdir", b"/sticky", 0o777)
    program.call("chmod", b"/sticky", 0o1777)
    program.call("open", b"/sticky/roots", os.O_CREAT, 0o666)
    assert program.call("setuid32", 5) == 0
    assert program.call("open", b"/own", os.O_RDWR, 0) > 0
    assert program.call("open", b"/closed/x", os.O_CREAT | os.O_RDWR, 0o600) == -errno.EACCES
    assert program.call("unlink", b"/sticky/roots") == -errno.EPERM
    assert program.call("mkdir", b"/new", 0o700) == -errno.EACCES
    assert program.call("chown32", b"/own", 6, -1) == -errno.EPERM
    assert program.call("setgroups32", 0, 0) == -errno.EPERM
    assert program.call("access", b"/closed", os.R_OK) == -errno.EACCES
    assert program.call("write", descriptor, program.put(b"x"), 1) == 1
    assert program.files.get(descriptor).inode.mode == 0o100755, "it would run as its owner"
    assert program.call("chmod", b"/others", 0o777) == 0
    assert program.call("chmod", b"/sticky", 0o777) == -errno.EPERM


# -- limits --------------------------------------------------------------------------------------

RLIMIT_NOFILE, RLIMIT_FSIZE = 7, 1


def test_limits_are_set_and_kept_to(program: Program) -> None:
    limit = program.put(struct.pack("<2Q", 5, 6))
    old = program.room(16)
    assert program.call("prlimit64", 0, RLIMIT_NOFILE, limit, old) == 0
    assert struct.unpack("<2Q", program.get(old, 16)) == (1024, 4096)
    assert [program.call("dup", 0) for _ in range(3)] == [3, 4, -errno.EMFILE]
    assert program.call("dup2", 0, 5) == -errno.EBADF
    assert program.call("fcntl64", 0, 0, 5) == -errno.EINVAL
    assert program.call("open", b"/new", os.O_CREAT, 0o644) == -errno.EMFILE
    assert program.call("access", b"/new", 0) == -errno.ENOENT, "made, though it has no number"


def test_a_file_grows_to_its_limit(program: Program) -> None:
    limit = program.put(struct.pack("<2I", 10, 0xFFFFFFFF))
    assert program.call("setrlimit", RLIMIT_FSIZE, limit) == 0
    descriptor = program.call("open", b"/f", os.O_CREAT | os.O_RDWR, 0o644)
    assert program.call("write", descriptor, program.room(16), 16) == 10
    assert program.call("write", descriptor, program.room(16), 16) == -errno.EFBIG
    assert program.call("ftruncate", descriptor, 11) == -errno.EFBIG
    assert program.sent == [25, 25]


def test_infinity_has_its_form_in_each_call(program: Program) -> None:
    room = program.room(16)
    assert program.call("ugetrlimit", 0, room) == 0
    assert struct.unpack("<2I", program.get(room, 8)) == (0xFFFFFFFF, 0xFFFFFFFF)
    assert program.call("getrlimit", 0, room) == 0
    assert struct.unpack("<2I", program.get(room, 8)) == (0x7FFFFFFF, 0x7FFFFFFF)
    assert program.call("prlimit64", 0, 0, 0, room) == 0
    assert struct.unpack("<2Q", program.get(room, 16)) == (2**64 - 1, 2**64 - 1)
    assert program.call("ugetrlimit", 16, room) == -errno.EINVAL


# -- process groups, priority --------------------------------------------------------------------


def test_groups_and_sessions(program: Program) -> None:
    child = Program(program.system, pid=2, parent=1)
    child.group = child.session = 1
    assert program.call("setpgid", 2, 2) == 0
    assert program.call("getpgid", 2) == 2
    assert child.call("setsid") == -errno.EPERM
    assert program.call("setpgid", 2, 1) == 0
    child.has_executed = True
    assert program.call("setpgid", 2, 2) == -errno.EACCES
    assert child.call("setsid") == 2
    assert (child.call("getsid", 0), child.call("getpgrp")) == (2, 2)
    assert program.call("setpgid", 2, 1) == -errno.EPERM
    assert program.call("setpgid", 99, 0) == -errno.ESRCH
    assert program.call("setpgid", 0, -5) == -errno.EINVAL


def test_priority(program: Program) -> None:
    assert program.call("setpriority", 0, 0, 5) == 0
    assert program.call("getpriority", 0, 0) == 15
    assert program.call("nice", -30) == 0
    assert program.nice == -20
    program.call("setuid32", 5)
    assert program.call("nice", 3) == 0
    assert program.call("nice", -1) == -errno.EPERM
    assert program.call("setpriority", 3, 0, 0) == -errno.EINVAL
    assert program.call("getpriority", 0, 99) == -errno.ESRCH


if __name__ == "__main__":
    sys.stdout.buffer.write(pickle.dumps([in_a_child(s) for s in pickle.load(sys.stdin.buffer)]))
