# SPDX-License-Identifier: GPL-2.0-or-later
"""Nothing of a program reaches the host: no link out of the folder, no device, no write."""

import errno
import gc
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from harness.vfs import host
from harness.vfs.host import HostFolder
from kernel_model.errors import BadInput
from tests.harness.syscalls.program import Program, new_machine
from tests.harness.vfs.ours import checksum

SECRET = b"not for programs"


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """What a program must never see, next to its root."""
    path = tmp_path / "outside"
    path.mkdir()
    (path / "secret").write_bytes(SECRET)
    return path


@pytest.fixture
def root(tmp_path: Path, outside: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root with every kind of way out."""
    top = tmp_path / "root"
    (top / "inner").mkdir(parents=True)
    (top / "file").write_bytes(b"inside")
    (top / "absolute").symlink_to(outside / "secret")
    (top / "relative").symlink_to("../outside/secret")
    (top / "folder").symlink_to(outside)
    (top / "inner" / "up").symlink_to("../../../../.." + str(outside))
    os.mkfifo(top / "fifo")
    monkeypatch.chdir(top)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket")
    return top


@pytest.fixture
def program(root: Path) -> Iterator[Program]:
    machine = new_machine(root)
    yield Program(machine)
    machine.files.close()


WAYS_OUT = [
    b"/absolute",
    b"relative",
    b"folder/secret",
    b"inner/up/secret",
    b"../outside/secret",
    b"/../outside/secret",
    b"inner/../../outside/secret",
    b"/proc/self/root/../outside/secret",
    b"/proc/self/cwd/../../outside/secret",
    b"/dev/fd/../../../outside/secret",
]


@pytest.mark.parametrize("path", WAYS_OUT)
def test_no_path_leads_out(program: Program, path: bytes) -> None:
    assert program.call("open", path, os.O_RDONLY, 0) == -errno.ENOENT
    assert program.call("stat64", path, program.room(96)) == -errno.ENOENT


@pytest.mark.parametrize("path", WAYS_OUT[:2])
def test_writing_through_a_link_writes_inside(
    program: Program, outside: Path, root: Path, path: bytes
) -> None:
    before = checksum(root), checksum(outside)
    assert program.call("mkdir", b"/outside", 0o755) == 0
    for part in reversed(outside.parents):
        program.call("mkdir", os.fsencode(part), 0o755)
    program.call("mkdir", os.fsencode(outside), 0o755)
    descriptor = program.call("open", path, os.O_CREAT | os.O_WRONLY, 0o644)
    assert descriptor >= 0
    assert program.call("write", descriptor, program.put(b"overwritten"), 11) == 11
    assert (checksum(root), checksum(outside)) == before
    assert (outside / "secret").read_bytes() == SECRET


def test_special_files_of_the_host_are_never_opened(program: Program, root: Path) -> None:
    """A socket is refused; a FIFO is one of our own, with no end on the host."""
    assert program.call("open", b"socket", os.O_RDWR, 0) == -errno.ENXIO
    reader = os.open(root / "fifo", os.O_RDONLY | os.O_NONBLOCK)
    ends = [program.call("open", b"fifo", os.O_RDWR | os.O_NONBLOCK, 0) for _ in range(2)]
    assert program.call("write", ends[0], program.put(b"within"), 6) == 6
    assert os.read(reader, 10) == b""
    room = program.room(6)
    assert program.call("read", ends[1], room, 6) == 6
    assert program.get(room, 6) == b"within"
    os.close(reader)


def test_a_device_is_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder with real devices: each is seen, and none is opened for reading."""
    opened = _opened(monkeypatch)
    machine = new_machine(Path("/dev"))
    machine.files.root.detach(b"dev")
    program = Program(machine)
    for name in (b"/null", b"/zero", b"/full", b"/urandom", b"/tty"):
        assert program.call("lstat64", name, program.room(96)) == 0
        assert program.call("open", name, os.O_RDWR, 0) == -errno.ENXIO
    assert not [path for path, flags in opened if not flags & os.O_PATH]
    machine.files.close()


def _opened(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, int]]:
    """Every ``os.open()`` from now on."""
    opened: list[tuple[object, int]] = []
    real = os.open

    def noted(path: str, flags: int, *rest: int, **named: int) -> int:
        opened.append((path, flags))
        return real(path, flags, *rest, **named)

    monkeypatch.setattr(os, "open", noted)
    return opened


def test_the_host_is_only_opened_for_reading(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = _opened(monkeypatch)
    program.call("open", b"file", os.O_RDWR | os.O_TRUNC, 0)
    descriptor = program.call("open", b"inner/new", os.O_RDWR | os.O_CREAT, 0o644)
    program.call("write", descriptor, program.put(b"x"), 1)
    program.call("rename", b"inner", b"renamed")
    reading = program.call("open", b"/", os.O_RDONLY | os.O_DIRECTORY, 0)
    program.call("getdents64", reading, program.room(1000), 1000)
    assert opened
    writing = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
    assert not [flags for _, flags in opened if flags & writing]
    followed = [path for path, flags in opened if not flags & os.O_NOFOLLOW]
    assert all(str(path).startswith("/proc/self/fd/") for path in followed)


# -- races ---------------------------------------------------------------------------------------


def swap_for_a_link(root: Path, outside: Path) -> None:
    (root / "inner").rename(root / "gone")
    (root / "inner").symlink_to(outside)


def swap_for_a_fifo(root: Path, outside: Path) -> None:
    del outside
    (root / "inner" / "secret").unlink()
    os.mkfifo(root / "inner" / "secret")


def swap_for_another(root: Path, outside: Path) -> None:
    (root / "inner" / "other").write_bytes(SECRET)
    (root / "inner" / "other").rename(root / "inner" / "secret")
    del outside


@pytest.mark.parametrize("swap", [swap_for_a_link, swap_for_a_fifo, swap_for_another])
def test_what_takes_a_files_place_is_not_read(
    root: Path, outside: Path, swap: Callable[[Path, Path], None]
) -> None:
    """Looked up, swapped on the host, read: never what lies outside, and no waiting."""
    (root / "inner" / "secret").write_bytes(b"inside only")
    program = Program(new_machine(root))
    descriptor = program.call("open", b"inner/secret", os.O_RDONLY, 0)
    swap(root, outside)
    room = program.room(64)
    assert program.call("read", descriptor, room, 64) in (
        -errno.ESTALE,
        -errno.ENOTDIR,
        -errno.ENOENT,
    )
    assert SECRET not in bytes(program.get(program.base, program.size))
    program.system.files.close()


def test_descriptors_of_the_host_stay_few(tmp_path: Path) -> None:
    for number in range(100):
        (tmp_path / f"{number}").write_bytes(b"%d" % number)
    program = Program(new_machine(tmp_path))
    gc.collect()  # what other tests left open must not be closed between the two counts
    before = len(os.listdir("/proc/self/fd"))
    room = program.room(16)
    for number in range(100):
        descriptor = program.call("open", b"/%d" % number, os.O_RDONLY, 0)
        length = program.call("read", descriptor, room, 16)
        assert program.get(room, length) == b"%d" % number
    assert len(os.listdir("/proc/self/fd")) - before <= host._OPEN_FILES
    program.system.files.close()
    assert len(os.listdir("/proc/self/fd")) == before - 1


def test_a_walk_over_many_files_leaves_nothing_behind(tmp_path: Path) -> None:
    for number in range(300):
        (tmp_path / f"{number}").write_bytes(b"")
    program = Program(new_machine(tmp_path))
    tree = program.system.files.root.superblock
    for number in range(300):
        assert program.call("lstat64", b"/%d" % number, program.room(96)) == 0
    assert len(tree._inodes) < 5  # type: ignore[attr-defined]
    program.system.files.close()


def test_a_folder_that_is_none_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "missing", tmp_path / "file"):
        with pytest.raises(BadInput, match="give a folder"):
            HostFolder(path)


# -- planted faults ------------------------------------------------------------------------------


def test_following_links_of_the_host_would_be_noticed(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without ``O_NOFOLLOW`` the host's links show what lies outside."""
    monkeypatch.setattr(host, "_PATH", host._PATH & ~os.O_NOFOLLOW)
    program = Program(new_machine(root))
    descriptor = program.call("open", b"/folder/secret", os.O_RDONLY, 0)
    assert descriptor >= 0
    program.system.files.close()


def test_a_write_to_the_host_would_change_the_checksum(root: Path) -> None:
    before = checksum(root)
    os.truncate(root / "file", 3)
    assert checksum(root) != before
