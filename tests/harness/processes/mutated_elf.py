# SPDX-License-Identifier: GPL-2.0-or-later
"""ELF files spoilt from a seed: what a broken linker, a cut download or an enemy may give.

A file is what the System V ABI says its bytes are; fields are found by their offsets there and
not by the loader under test.
"""

import struct
from random import Random
from typing import Final

EHDR_BYTES: Final = 52
PHDR_BYTES: Final = 32
EHDR_FIELDS: Final = {
    "e_type": (16, "<H"),
    "e_machine": (18, "<H"),
    "e_version": (20, "<I"),
    "e_entry": (24, "<I"),
    "e_phoff": (28, "<I"),
    "e_shoff": (32, "<I"),
    "e_flags": (36, "<I"),
    "e_ehsize": (40, "<H"),
    "e_phentsize": (42, "<H"),
    "e_phnum": (44, "<H"),
    "e_shentsize": (46, "<H"),
    "e_shnum": (48, "<H"),
    "e_shstrndx": (50, "<H"),
}
PHDR_FIELDS: Final = {
    name: 4 * place
    for place, name in enumerate(
        ("p_type", "p_offset", "p_vaddr", "p_paddr", "p_filesz", "p_memsz", "p_flags", "p_align")
    )
}
TYPES: Final = (0, 1, 2, 3, 4, 5, 6, 7, 0x6474E551, 0x6474E552, 0x70000000, 0xFFFFFFFF)
"""``PT_NULL`` to ``PT_TLS``, ``PT_GNU_STACK``, ``PT_GNU_RELRO``, and two of nobody."""
WORDS: Final = (
    *(0, 1, 3, 31, 32, 0xFFF, 0x1000, 0x1001, 0x2000, 0x8000, 0x100000, 0x1000000, 0x7FFFFFFF),
    *(0x08047000, 0x08048000, 0x08049000, 0x40000000, 0x80000000, 0xBFFFE000, 0xBFFFF000),
    *(0xBFFFFFFF, 0xC0000000, 0xC0001000, 0xC0100000, 0xC0101000, 0xFFBFF000, 0xFFFFE000),
    *(0xFFFFF000, 0xFFFFFFFE, 0xFFFFFFFF),
)
"""Sizes and addresses at the edges: pages, the program, ``TASK_SIZE``, the kernel, 4 GiB."""


def _put(file: bytearray, at: int, shape: str, value: int) -> None:
    size = struct.calcsize(shape)
    if at + size <= len(file):
        struct.pack_into(shape, file, at, value & (1 << 8 * size) - 1)


def _phdr(source: Random, file: bytearray) -> int:
    """Where one of the program headers lies."""
    (count,) = struct.unpack_from("<H", file, 44)
    return EHDR_BYTES + PHDR_BYTES * source.randrange(max(min(count, 8), 1))


def _near(source: Random, value: int) -> int:
    return value + source.choice((-0x1000, -4, -1, 1, 4, 0x100, 0x1000, 0x100000))


def header_field(source: Random, file: bytearray) -> None:
    at, shape = EHDR_FIELDS[source.choice(list(EHDR_FIELDS))]
    (value,) = struct.unpack_from(shape, file, at)
    _put(file, at, shape, source.choice((_near(source, value), source.choice(WORDS))))


def program_header_field(source: Random, file: bytearray) -> None:
    name = source.choice(list(PHDR_FIELDS))
    at = _phdr(source, file) + PHDR_FIELDS[name]
    if name == "p_type":
        value = source.choice(TYPES)
    elif name == "p_flags":
        value = source.getrandbits(3)
    else:
        (old,) = struct.unpack_from("<I", file, at)
        value = source.choice((_near(source, old), source.choice(WORDS), source.getrandbits(32)))
    _put(file, at, "<I", value)


def entry_anywhere(source: Random, file: bytearray) -> None:
    """Within the text mostly: in the middle of an instruction, in the headers, behind the end."""
    inside = 0x08048000 + source.randrange(-16, 0x2000)
    _put(file, 24, "<I", source.choice((inside, inside, source.choice(WORDS))))


def segment_moved(source: Random, file: bytearray) -> None:
    """A segment at another page, so that nothing but its place is wrong."""
    at = _phdr(source, file) + PHDR_FIELDS["p_vaddr"]
    (vaddr,) = struct.unpack_from("<I", file, at)
    _put(file, at, "<I", vaddr % 0x1000 | source.choice(WORDS) & ~0xFFF)


def segment_grown(source: Random, file: bytearray) -> None:
    """``p_memsz`` far behind ``p_filesz``: more bss than there is memory, or up to the stack."""
    at = _phdr(source, file) + PHDR_FIELDS["p_memsz"]
    _put(file, at, "<I", source.choice((0x10000, 0x800000, 0x7FFFFFF, source.choice(WORDS))))


def header_doubled(source: Random, file: bytearray) -> None:
    """One program header stands in the place of another: the same segment twice."""
    one, other = _phdr(source, file), _phdr(source, file)
    file[other : other + PHDR_BYTES] = file[one : one + PHDR_BYTES]


def bits_flipped(source: Random, file: bytearray) -> None:
    """Anywhere in the headers."""
    for _ in range(source.randrange(1, 9)):
        at = source.randrange(min(len(file), EHDR_BYTES + 4 * PHDR_BYTES))
        file[at] ^= 1 << source.randrange(8)


def text_spoilt(source: Random, file: bytearray) -> None:
    """Random instructions instead of the program's own."""
    at = source.randrange(EHDR_BYTES + 2 * PHDR_BYTES, len(file))
    size = source.choice((1, 4, 64, 1024))
    file[at : at + size] = source.randbytes(len(file[at : at + size]))


def truncated(source: Random, file: bytearray) -> None:
    del file[source.randrange(len(file)) :]


MUTATIONS: Final = (
    *(header_field, program_header_field, program_header_field, entry_anywhere, segment_moved),
    *(segment_grown, header_doubled, bits_flipped, text_spoilt, text_spoilt, truncated),
)


def mutated(source: Random, program: bytes) -> bytes:
    """One to three things wrong with a program."""
    file = bytearray(program)
    for _ in range(source.choice((1, 1, 2, 3))):
        if len(file) > EHDR_BYTES + 2 * PHDR_BYTES:
            source.choice(MUTATIONS)(source, file)
    return bytes(file)
