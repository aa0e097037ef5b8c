# SPDX-License-Identifier: GPL-2.0-or-later
"""Thousands of system calls of a real process, with arguments that nobody should pass.

Our own program makes them on the CPU; user memory is whatever the calls before have left of it.
Each ends in a number, a signal, or a process that has ended; nothing is raised, nothing outside
the root is read or written, and when all is over the machine has every frame again.
"""

import os
import re
import struct
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

import pytest

from harness.guests import guest_path
from harness.machine import GuestStopped, Limits
from harness.processes.linux import Setup
from harness.processes.scheduler import Deadlock
from harness.vfs import host
from harness.vfs.descriptors import DescriptorTable
from harness.vfs.quota import Quota
from tests.elf_bytes import TEXT, Elf, Phdr
from tests.harness.processes.hostile_calls import Calls
from tests.harness.processes.one_machine import PROGRAM, OneMachine
from tests.harness.processes.releases import RELEASES
from tests.harness.vfs.ours import checksum
from tests.harness.vfs.reference import populate

CALLS = 5000
MANY_CALLS = 200_000
CALLS_OF_A_RUN = 120
READ, OPEN = 3, 5
SECRET = b"nothing in here may ever be seen by a program"
LIMITS = Limits(instructions=500_000, seconds=30)


@dataclass
class Campaign:
    """What has happened so far."""

    calls: int = 0
    results: Counter[int] = field(default_factory=Counter)
    names: Counter[str] = field(default_factory=Counter)
    kinds: Counter[str] = field(default_factory=Counter)
    runs: int = 0

    def traced(self, line: str) -> None:
        if "#PF" not in line:
            self.results[min(int(line.rpartition(" = ")[2]), 0)] += 1


@pytest.fixture(scope="module", params=RELEASES)
def machine(request: pytest.FixtureRequest) -> OneMachine:
    return OneMachine(release=request.param)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with ways out of it, and a secret that lies there."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (outside / "secret").write_bytes(SECRET)
    populate(root)
    (root / "outside").symlink_to(outside)
    (root / "beside").symlink_to("../outside")
    return root


def setup(root: Path, calls: Calls, campaign: Campaign) -> Setup:
    text = guest_path("write_text").read_bytes()
    files = {
        PROGRAM: guest_path("hostile_calls").read_bytes(),
        b"/bin/text": text,
        b"/bin/spoilt": text[:200],
        b"/bin/script": b"#!/bin/text one two\n",
        b"/bin/loop": b"#!/bin/loop\n",
    }
    quota = Quota(max_pages=256, max_inodes=200, max_files=100)
    return Setup(
        root, files, input=calls.input(), limits=LIMITS, quota=quota, trace=campaign.traced
    )


def look_outside(calls: Calls) -> None:
    """Whoever could get out of the root would read the secret."""
    buffer = calls.put(bytes(64))
    for descriptor, path in enumerate((b"outside/secret", b"beside/secret"), 3):
        calls.call(OPEN, calls.put(path + b"\0"), 0)
        calls.call(READ, descriptor, buffer, len(SECRET))


def one_run(machine: OneMachine, root: Path, source: Random, campaign: Campaign) -> None:
    calls = Calls(source)
    look_outside(calls)
    calls.hostile(CALLS_OF_A_RUN)
    with machine.nothing_left(), machine.linux(setup(root, calls, campaign)) as linux:
        process = linux.start(PROGRAM, [b"program"])
        try:
            ended = linux.run(process)
            campaign.kinds[f"signal {ended.signal}" if ended.signal else "exit"] += 1
        except Deadlock:
            campaign.kinds["deadlock"] += 1
        except GuestStopped as stopped:
            campaign.kinds[str(stopped)] += 1
    campaign.runs += 1
    campaign.calls += linux.calls.total()
    campaign.names += linux.calls
    memory = bytes(machine.machine.ram.buffer)
    assert memory.find(SECRET) < 0, "the secret has been read"


def campaign(machine: OneMachine, root: Path, seed: int, count: int) -> Campaign:
    """Make at least ``count`` calls."""
    campaign = Campaign()
    before = checksum(root.parent)
    while campaign.calls < count:
        source = Random(f"{seed} {campaign.runs}")
        try:
            one_run(machine, root, source, campaign)
        except Exception as error:
            raise AssertionError(f"run {campaign.runs} of seed {seed}: {error}") from error
    assert checksum(root.parent) == before, "a file of the host has changed"
    return campaign


def test_hostile_calls_do_no_harm(machine: OneMachine, root: Path) -> None:
    done = campaign(machine, root, 1, CALLS)
    assert done.calls >= CALLS
    assert not any("time" in kind for kind in done.kinds), "a call took too long"
    assert done.results[0] > CALLS // 10, "too few calls succeed to prove anything"
    assert len(done.results) > 20, "too few kinds of errors"
    assert len(done.names) > 200, "too few different calls"


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_many_more_hostile_calls(machine: OneMachine, root: Path) -> None:
    done = campaign(machine, root, 2, MANY_CALLS)
    assert not any("time" in kind for kind in done.kinds), "a call took too long"


# -- one call at a time ----------------------------------------------------------------------------

E2BIG, ENOEXEC, ENOENT, EFAULT = 7, 8, 2, 14
EXECVE, CLONE, NANOSLEEP = 11, 120, 162


def results(machine: OneMachine, calls: Calls, files: dict[bytes, bytes]) -> list[str]:
    """What each call gave, by the trace, without arguments; without those that prepare it."""
    traced: list[str] = []
    files = {PROGRAM: guest_path("hostile_calls").read_bytes()} | files
    setup = Setup(files=files, input=calls.input(), limits=LIMITS, trace=traced.append)
    with machine.nothing_left():
        outcome = machine.run(setup)
    assert outcome.ended is not None
    start = next(n for n, line in enumerate(traced) if "setitimer" in line)
    calls_made = [line.partition(" ")[2] for line in traced[start + 1 :] if "#PF" not in line]
    return [re.sub(r"\(.*\)", "", line) for line in calls_made]


def test_more_arguments_than_a_stack_takes_are_an_error(machine: OneMachine) -> None:
    """100 KiB each of arguments and environment: each is short enough, both are not."""
    calls = Calls(Random(0))
    text = calls.put(b"x" * 4000 + b"\0")
    vector = calls.put(text.to_bytes(4, "little") * 25 + bytes(4))
    calls.call(EXECVE, calls.put(b"/bin/text\0"), vector, vector)
    calls.call(EXECVE, calls.put(b"/bin/text\0"), vector, 0)
    files = {b"/bin/text": guest_path("hello").read_bytes()}
    assert results(machine, calls, files)[0] == f"execve = -{E2BIG}"


def test_programs_that_cannot_be_run_are_an_error(machine: OneMachine, tmp_path: Path) -> None:
    """A static-PIE that does not fit where they go; a script whose interpreter has a NUL."""
    large = Elf([Phdr(0, TEXT), Phdr(0x70000000, b"data", 0x2000)], fields={"e_type": 3}).build()
    files = {
        b"/bin/large": large,
        b"/bin/nul": b"#!/bin/a\0b\n",
        b"/bin/empty": b"",
        b"/bin/no": b"#!\n",
    }
    calls = Calls(Random(0))
    for path in files:
        calls.call(EXECVE, calls.put(path + b"\0"), 0, 0)
    assert results(machine, calls, files)[:4] == [
        f"execve = -{ENOEXEC}",
        f"execve = -{ENOENT}",
        f"execve = -{ENOEXEC}",
        f"execve = -{ENOEXEC}",
    ]


def test_a_child_that_sends_no_signal_there_is_ends(machine: OneMachine) -> None:
    """``clone()`` with 255 in the place of ``SIGCHLD``."""
    calls = Calls(Random(0))
    calls.call(CLONE, 0xFF)
    for _ in range(8):
        calls.call(NANOSLEEP, calls.put(struct.pack("<II", 1, 0)), 0)
    assert any("nanosleep" in line for line in results(machine, calls, {}))


# -- planted faults --------------------------------------------------------------------------------


def test_a_way_out_of_the_root_would_be_noticed(
    machine: OneMachine, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A host folder that follows links gives the secret away."""
    monkeypatch.setattr(os, "O_NOFOLLOW", 0)
    monkeypatch.setattr(host, "_PATH", os.O_PATH | os.O_CLOEXEC)
    with pytest.raises(AssertionError, match="the secret has been read"):
        campaign(machine, root, 1, CALLS)


def test_an_exception_would_be_noticed(
    machine: OneMachine, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(DescriptorTable, "get_raw", lambda self, number: self._files[number])
    with pytest.raises(AssertionError, match=r"run \d of seed 1"):
        campaign(OneMachine(), root, 1, CALLS)
