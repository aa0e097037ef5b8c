# SPDX-License-Identifier: GPL-2.0-or-later
"""ELF files that nobody should run: one line that refuses them, or a process that ends.

A seeded source spoils our own programs (:mod:`mutated_elf`). Whatever becomes of one, nothing
is raised but :class:`~kernel_model.errors.BadInput`, and the machine has every frame again.
"""

from collections import Counter
from random import Random

import pytest

from harness.binfmt_elf import ElfLoader
from harness.guests import guest_path
from harness.machine import Limits
from harness.processes.deaths import Deaths
from harness.processes.linux import Setup
from tests.elf_bytes import TEXT, Elf, Phdr
from tests.harness.processes.mutated_elf import mutated
from tests.harness.processes.one_machine import PROGRAM, OneMachine, Outcome

FILES = 500
MANY_FILES = 10_000
PROGRAMS = ("hello", "hello_pie", "read_at", "write_text")
LIMITS = Limits(instructions=20_000, seconds=20)


@pytest.fixture(scope="module")
def machine() -> OneMachine:
    machine = OneMachine()
    run(machine, guest_path("hello").read_bytes())
    return machine


def run(machine: OneMachine, file: bytes) -> Outcome:
    return machine.run(Setup(files={PROGRAM: file}, limits=LIMITS))


def campaign(machine: OneMachine, seed: int, count: int) -> Counter[str]:
    """Run ``count`` spoilt programs; how many ended in which way."""
    programs = [guest_path(name).read_bytes() for name in PROGRAMS]
    kinds = Counter[str]()
    for number in range(count):
        source = Random(f"{seed} {number}")
        file = mutated(source, source.choice(programs))
        try:
            with machine.nothing_left():
                outcome = run(machine, file)
        except Exception as error:
            raise AssertionError(f"file {number} of seed {seed}: {error}") from error
        assert "\n" not in outcome.refused, f"file {number} of seed {seed}: {outcome.refused}"
        assert outcome.stopped is None or "instructions" in str(outcome.stopped)
        kinds[outcome.kind] += 1
    return kinds


def test_spoilt_programs_are_refused_or_end(machine: OneMachine) -> None:
    kinds = campaign(machine, 1, FILES)
    assert kinds.total() == FILES
    assert kinds["refused"] > FILES // 5
    assert kinds["exit"] > FILES // 20, "too few run at all to prove anything"
    assert kinds["signal 11"] > FILES // 20


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_thousands_of_spoilt_programs(machine: OneMachine) -> None:
    assert campaign(machine, 2, MANY_FILES).total() == MANY_FILES
