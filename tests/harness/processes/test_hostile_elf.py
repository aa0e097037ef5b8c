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
from harness.processes.linux import Setup
from harness.processes.scheduler import Scheduler
from tests.elf_bytes import TEXT, Elf, Phdr
from tests.harness.processes.mutated_elf import mutated
from tests.harness.processes.one_machine import PROGRAM, OneMachine, Outcome
from tests.harness.processes.releases import RELEASES

FILES = {"2.4": 300, "2.6": 100}
"""Of each run of the suite."""
MANY_FILES = 10_000
PROGRAMS = ("hello", "hello_pie", "read_at", "write_text")
LIMITS = Limits(instructions=20_000, seconds=20)


@pytest.fixture(scope="module", params=RELEASES)
def machine(request: pytest.FixtureRequest) -> OneMachine:
    machine = OneMachine(release=request.param)
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
    count = FILES[machine.kernel.config.release]
    kinds = campaign(machine, 1, count)
    assert kinds.total() == count
    assert kinds["refused"] > count // 5
    assert kinds["exit"] > count // 20, "too few run at all to prove anything"
    assert kinds["signal 11"] > count // 20


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_thousands_of_spoilt_programs(machine: OneMachine) -> None:
    assert campaign(machine, 2, MANY_FILES).total() == MANY_FILES


# -- one thing wrong at a time ---------------------------------------------------------------------

CODE = 0x08048000
EXIT_7 = b"\xb8\x01\0\0\0\xbb\x07\0\0\0\xcd\x80"
"""``mov $1,%eax; mov $7,%ebx; int $0x80``"""


def code(text: bytes, *more: Phdr, **fields: int) -> bytes:
    return Elf([Phdr(CODE, text), *more], fields=fields).build()


REFUSED = {
    "empty": b"",
    "no program headers": Elf([Phdr(CODE, EXIT_7)], fields={"e_phnum": 0}).build(),
    "more headers than the file": code(EXIT_7, e_phnum=0xFFFE),
    "headers counted in section 0": code(EXIT_7, e_phnum=0xFFFF, e_shoff=0xFFFFFFF0),
    "headers behind the end": code(EXIT_7, e_phoff=0xFFFFFFE0),
    "an interpreter": code(EXIT_7, Phdr(0, b"/lib/ld-linux.so.2\0", 0x2000, type=3)),
    "an interpreter behind the end": code(EXIT_7, Phdr(0, b"", 0xFFFFF000, type=3, filesz=99)),
    "wraps round": code(EXIT_7, Phdr(0xFFFFF000, b"", 0x2000, memsz=0x2000)),
    "of the kernel": code(EXIT_7, Phdr(0xC0100000, b"data", 0x2000)),
    "across TASK_SIZE": code(EXIT_7, Phdr(0xBFFFF000, b"data", 0x2000, memsz=0x2000)),
    "overlap": code(EXIT_7, Phdr(CODE, b"data", 0x2000)),
    "more than memory": code(EXIT_7, Phdr(0x09000000, b"data", 0x2000, memsz=0x7FFFFFFF)),
    "entry in the kernel": code(EXIT_7, e_entry=0xC0101000),
    "all of it in the kernel": Elf([Phdr(0xC0100000, EXIT_7)]).build(),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_refused_leaves_one_line(machine: OneMachine, what: str) -> None:
    with machine.nothing_left():
        refused = run(machine, REFUSED[what]).refused
    assert refused, what
    assert "\n" not in refused


STORE_TO_BSS = b"\xc6\x05\xfd\xa1\x04\x08\x01"
"""``movb $1,0x0804a1fd``"""

ENDS = {
    "bss that begins inside a page of its own": (
        code(STORE_TO_BSS + EXIT_7, Phdr(0x0804A1FD, b"", 0x1FD, flags=6, memsz=0x3000)),
        7,
        0,
    ),
    "a sound program": (code(EXIT_7), 7, 0),
    "entry at the last byte": (code(EXIT_7, e_entry=CODE + len(EXIT_7) - 1), 0, 11),
    "no memory at all below the text": (code(b"\xa1\0\0\0\0"), 0, 11),
    "page zero": (code(EXIT_7, Phdr(0, b"data", 0x2000, flags=6)), 7, 0),
    "a hole for a text": (code(TEXT[:1] * 8), 0, 11),
    "up to the stack": (code(EXIT_7, Phdr(0x80000000, b"", 0x2000, flags=6, memsz=0x1000)), 7, 0),
}


@pytest.mark.parametrize("what", ENDS)
def test_what_is_run_ends(machine: OneMachine, what: str) -> None:
    file, status, signal = ENDS[what]
    with machine.nothing_left():
        ended = run(machine, file).ended
    assert ended is not None
    assert (ended.status, ended.signal) == (status, signal)


def test_a_segment_over_the_stack_ends_in_some_way(machine: OneMachine) -> None:
    """Linux maps it over the stack that it has just made; then there is none."""
    file = code(EXIT_7, Phdr(0xBFFFD000, b"data", 0x2000, flags=6, memsz=0x3000))
    with machine.nothing_left():
        outcome = run(machine, file)
    assert outcome.kind in ("refused", "exit", "signal 11", "signal 9")


def test_ring_3_gets_no_virtual_8086_mode(machine: OneMachine) -> None:
    """An IRET with VM set, IOPL 3, to code that would make a hypercall."""
    image = (0, 0, 0, 0, 0, 0xF00, 0x20202 | 3 << 12, 0x1000, 0)
    pushes = b"".join(b"\x68" + word.to_bytes(4, "little") for word in image)
    hypercall = b"\x66\xb8\x02\0\0\0" + b"\x66\xe7\x4d" + b"\xeb\xfe"
    file = code(pushes + b"\xcf", Phdr(0x10000, hypercall, 0x2000))
    with machine.nothing_left():
        ended = run(machine, file).ended
    assert ended is not None
    assert ended.signal == 11
    assert machine.machine.exit_status is None


# -- planted faults --------------------------------------------------------------------------------


def test_a_frame_that_stays_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    planted = OneMachine()
    monkeypatch.setattr(Scheduler, "free_later", lambda self, task: None)
    with pytest.raises(AssertionError, match="left"):
        campaign(planted, 1, 20)


def test_an_exception_of_the_loader_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    planted = OneMachine()
    monkeypatch.setattr(ElfLoader, "_note_layout", lambda self, program, brk: 1 // 0)
    with pytest.raises(AssertionError, match="division"):
        campaign(planted, 1, 20)
