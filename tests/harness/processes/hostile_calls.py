# SPDX-License-Identifier: GPL-2.0-or-later
"""System calls with arguments that nobody should pass, for ``guest/user/hostile_calls.c`` to make.

Each argument is mostly of the kind that its name tells, so that calls get far enough to do harm.
"""

import inspect
import struct
from random import Random
from typing import Final

from harness.elf import load_elf
from harness.guests import guest_path
from harness.syscalls.all_calls import ALL_CALLS
from harness.syscalls.names import NAMES

ARENA_BYTES: Final = 0x8000
PATHS: Final = (
    *(b"", b"/", b".", b"..", b"a", b"a/f", b"c", b"d", b"e", b"l", b"p", b"x", b"n", b"a/n"),
    *(b"outside", b"outside/secret", b"beside", b"beside/secret", b"../outside/secret"),
    *(b"../../../etc/passwd", b"a/../../../../etc/shadow", b"/proc/self/fd/0", b"/proc/self/cwd"),
    *(b"/proc/self/fd/1", b"/proc/self/exe", b"/proc/self/root/../../etc", b"/proc/99/maps"),
    *(b"/proc/self/maps", b"/proc/self/status", b"/proc/meminfo", b"/proc/2/cmdline", b"/bin/text"),
    *(b"/dev/null", b"/dev/zero", b"/dev/full", b"/dev/tty", b"/dev/stdin", b"/dev/urandom"),
    *(b"/dev/mem", b"/dev/sda", b"/bin/program", b"/bin/script", b"/bin/spoilt", b"/bin/loop"),
    *(b"x" * 255, b"x" * 256, b"x/" * 2047, b"x" * 4096, b"\xff\xfe", b"a\nb"),
)
NUMBERS: Final = (
    *(0, 1, 2, 3, 4, 5, 7, 8, 16, 64, 255, 256, 1023, 1024, 1025, 4095, 4096, 4097, 65536),
    *(0x7FFFFFFE, 0x7FFFFFFF, 0x80000000, 0x80000001, 0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFF9C),
    *(0xC0000000, 0xBFFFFFFF, 0xBFFFF000, 0x40000000, 0x10000, 0o100, 0o2000, 0o40000),
)
DESCRIPTORS: Final = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 100, 0xFFFFFF9C, 0xFFFFFFFF)
ADDRESSES: Final = (
    *(0, 1, 0x1000, 0x08047000, 0x08048000, 0x08049000, 0x08058000, 0x08059000, 0x0805A123),
    *(0x40000000, 0x40001000, 0x40001001, 0x60000000, 0xBFFF0000, 0xBFFFE000, 0xBFFFF000),
    *(0xBFFFFFFF, 0xC0000000, 0xC0101000, 0xFFFFE000, 0xFFFFF000, 0xFFFFFFFF),
)
LENGTHS: Final = (
    *(0, 1, 4095, 4096, 4097, 8192, 0x10000, 0x100000, 0x1000000, 0x40000000, 0x7FFFFFFF),
    *(0x80000000, 0xBFFFF000, 0xC0000000, 0xFFFFE000, 0xFFFFF000, 0xFFFFF001, 0xFFFFFFFF),
)
MEMORY: Final = frozenset({45, 90, 91, 125, 144, 150, 151, 152, 153, 163, 192, 218, 219, 257})
CHILDREN: Final = frozenset({2, 120, 190})
ENDS: Final = frozenset({1, 11, 119, 173, 252})
"""Calls that nothing comes after, as a rule: exit, execve, the returns from signals."""
_RARELY: Final = 0.05

A_PATH: Final = frozenset({"path", "old", "new", "text"})
A_DESCRIPTOR: Final = frozenset(
    {"descriptor", "directory", "old_directory", "new_directory", "source", "output", "fd"}
    | {"epoll", "timer"}
)
A_NUMBER: Final = frozenset(
    {"flags", "mode", "count", "size", "command", "operation", "offset", "low", "high", "prot"}
    | {"family", "kind", "protocol", "how", "clock", "number"}
)
A_LENGTH: Final = frozenset({"length", "old_length", "new_length", "length_high", "pgoff"})
AN_ADDRESS: Final = frozenset({"addr", "start", "brk", "new_addr", "stack"})
ARGUMENTS: Final = {
    number: list(inspect.signature(call.function).parameters)[1:]
    for number, call in ALL_CALLS.items()
}
"""Call -> the names of its arguments."""


class Calls:
    """Standard input of one run: the arena as it is filled, and the calls."""

    def __init__(self, source: Random) -> None:
        self._source = source
        self._base = load_elf(guest_path("hostile_calls")).symbols["arena"]
        self._arena = bytearray()
        self._calls = bytearray()

    def put(self, data: bytes) -> int:
        """Have ``data`` in the arena; its address. A full arena gives addresses at its end."""
        if len(self._arena) + len(data) > ARENA_BYTES:
            return self._base + ARENA_BYTES - self._source.randrange(0, 64)
        at = len(self._arena)
        self._arena += data.ljust(-(-len(data) // 4) * 4, b"\0")
        return self._base + at

    def call(self, number: int, *arguments: int) -> None:
        words = (number, *arguments, *(0,) * (6 - len(arguments)))
        self._calls += struct.pack("<7I", *(word & 0xFFFFFFFF for word in words))

    def _usual(self, name: str) -> int:
        source = self._source
        if name in A_PATH:
            return self.put(source.choice(PATHS)[:4096] + b"\0")
        for names, values in (
            (A_DESCRIPTOR, DESCRIPTORS),
            (A_NUMBER, NUMBERS),
            (A_LENGTH, LENGTHS),
            (AN_ADDRESS, ADDRESSES),
        ):
            if name in names:
                return source.choice(values)
        return self.put(self._structure())

    def _structure(self) -> bytes:
        """Bytes that a call may take for a structure: random, zeros, or words at the edges."""
        source = self._source
        kind, size = source.random(), source.choice((4, 8, 16, 64, 128))
        if kind < 0.3:
            return source.randbytes(size)
        if kind < 0.5:
            return bytes(size)
        values = (*NUMBERS, *ADDRESSES, self._base, self._base + 64)
        return struct.pack(f"<{size // 4}I", *source.choices(values, k=size // 4))

    def argument(self, name: str) -> int:
        source, kind = self._source, self._source.random()
        if kind < 0.7:
            return self._usual(name)
        if kind < 0.8:
            return source.randrange(-1, 12)
        if kind < 0.9:
            return source.choice(NUMBERS)
        if kind < 0.95:
            return self._base + ARENA_BYTES - source.randrange(0, 64)
        return source.getrandbits(32)

    def number(self) -> int:
        """Mostly a call that there is; those on memory more often, those that end all rarely."""
        source = self._source
        kind = source.random()
        if kind < _RARELY:
            return source.choice((source.randrange(len(NAMES) + 20), source.getrandbits(32)))
        if kind < 3 * _RARELY:
            return source.choice(sorted(MEMORY))
        number = source.choice(sorted(ALL_CALLS))
        rare = number in ENDS or number in CHILDREN
        return self.number() if rare and source.random() > 10 * _RARELY else number

    def hostile(self, count: int) -> "Calls":
        for _ in range(count):
            number = self.number()
            self.call(number, *(self.argument(name) for name in ARGUMENTS.get(number, ("",) * 6)))
        return self

    def input(self) -> bytes:
        return bytes(self._arena.ljust(ARENA_BYTES, b"\0") + self._calls)
