# SPDX-License-Identifier: GPL-2.0-or-later
"""Static i386 programs of Debian, for the tests: ``python -m tests.packages`` fetches them.

Works as any user: the package client gets an own state, below ``.packages`` of this clone, in
which i386 is the only architecture; sources, keys and proxies are those of the host. The packages
are unpacked there, not installed. What can fail, fails softly: the reason is written down beside
the programs, and the tests that want one are skipped by name, with that reason.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Final

import pytest

CACHE: Final = Path(__file__).resolve().parent.parent / ".packages"
PROGRAMS: Final = {
    "busybox": ("busybox-static", "bin/busybox"),
    "bash": ("bash-static", "bin/bash-static"),
    "zsh": ("zsh-static", "bin/zsh-static"),
    "sash": ("sash", "bin/sash"),
    "mksh-musl": ("mksh", "usr/lib/i386-linux-musl/bin/mksh"),
    "mksh-diet": ("mksh", "usr/lib/diet/bin/mksh"),
    "mksh-klibc": ("mksh", "usr/lib/klibc/bin/mksh"),
    "gpgv": ("gpgv-static", "usr/bin/gpgv-static"),
    "e2fsck": ("e2fsck-static", "sbin/e2fsck.static"),
}
"""Our name for a program -> its package, and its place in there."""
SECONDS: Final = 120
"""A client that takes longer is given up."""

_CONFIGURATION: Final = """\
APT::Architecture "i386";
APT::Architectures {{ "i386"; }};
APT::Sandbox::User "";
Acquire::Languages "none";
Acquire::Retries "1";
Acquire::http::Timeout "20";
Acquire::https::Timeout "20";
Dir::State "{0}/state";
Dir::State::status "{0}/state/status";
Dir::Cache "{0}/cache";
"""


class NoPackages(Exception):
    """They cannot be had here; the text says why."""


def fetch() -> None:
    """Have every program of :data:`PROGRAMS` below :data:`CACHE`, those that exist at all."""
    missing = {package for name, (package, _) in PROGRAMS.items() if not _place(name).is_file()}
    if not missing:
        return
    for client in ("apt-get", "dpkg-deb"):
        if shutil.which(client) is None:
            raise NoPackages(f"no {client} on this machine")
    for directory in ("state/lists/partial", "cache/archives/partial", "root", "debs"):
        (CACHE / directory).mkdir(parents=True, exist_ok=True)
    (CACHE / "state/status").touch()
    (CACHE / "apt.conf").write_text(_CONFIGURATION.format(CACHE), encoding="utf-8")
    # A list that cannot be had is no reason to stop: the others may be all that is needed.
    said = _run(["apt-get", "--quiet=2", "update"], check=False)
    for package in sorted(missing):
        complaint = _run(["apt-get", "--quiet=2", "download", package], check=False)
        said = said or complaint
    archives = sorted((CACHE / "debs").glob("*.deb"))
    for archive in archives:
        _run(["dpkg-deb", "--extract", str(archive), str(CACHE / "root")])
    for directory in ("state", "cache", "debs"):
        shutil.rmtree(CACHE / directory)
    absent = sorted(name for name in PROGRAMS if not _place(name).is_file())
    if absent:
        raise NoPackages(f"the package client gave no {', '.join(absent)}: {said}")


def _run(command: list[str], *, check: bool = True) -> str:
    """Run a command; the first of its complaints."""
    environment = os.environ | {"APT_CONFIG": str(CACHE / "apt.conf"), "LC_ALL": "C"}
    try:
        done = subprocess.run(
            command,
            cwd=CACHE / "debs",
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=SECONDS,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NoPackages(f"{command[0]} gave no answer in {SECONDS} s") from None
    said = (done.stderr.decode(errors="replace").strip().splitlines() or [""])[0]
    if check and done.returncode:
        raise NoPackages(f"{command[0]}: {said or f'status {done.returncode}'}")
    return said


def _place(name: str) -> Path:
    return CACHE / "root" / PROGRAMS[name][1]


def _reason() -> str:
    file = CACHE / "missing.txt"
    if file.is_file():
        return file.read_text(encoding="utf-8").strip()
    return "not fetched: python -m tests.packages"


@cache
def runs_natively() -> bool:
    """Whether the host runs i386 programs, which the model is compared with."""
    from harness.guests import guest_path

    with tempfile.TemporaryDirectory() as directory:
        hello = Path(shutil.copy(guest_path("hello"), directory))
        hello.chmod(0o755)
        try:
            done = subprocess.run([hello], capture_output=True, check=False)
        except OSError:
            return False
    return done.stdout == b"hello, ring 3\n"


def available() -> dict[str, Path]:
    """The programs that are here."""
    return {name: _place(name) for name in PROGRAMS if _place(name).is_file()}


def program(name: str) -> Path:
    """The program, or the calling test is skipped with the reason why there is none."""
    place = _place(name)
    if not place.is_file():
        pytest.skip(f"{name} of Debian's i386 package {PROGRAMS[name][0]}: {_reason()}")
    return place


def need_native() -> None:
    """Skip the calling test where there is nothing to compare with."""
    if not runs_natively():
        pytest.skip("this host runs no i386 programs to compare with")


def main() -> int:
    """Fetch; the status is 0 whatever became of it, for tests run without, too."""
    file = CACHE / "missing.txt"
    try:
        fetch()
        file.unlink(missing_ok=True)
    except (NoPackages, OSError) as error:
        CACHE.mkdir(exist_ok=True)
        file.write_text(f"{error}\n", encoding="utf-8")
        print(f"i386 packages: {error}; tests of them are skipped", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
