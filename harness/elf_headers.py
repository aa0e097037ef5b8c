# SPDX-License-Identifier: GPL-2.0-or-later
"""The headers of an ELF file, read with bounds: what programs and memory images share.

pyelftools decodes the records. Whether a record lies in the file at all, and how many there
may be, is decided here first, because a count or an offset in a damaged file would otherwise
send the parser through gigabytes that are not there.

What can fail: :class:`BadElf`, one line that names the file, what is wrong with it and what
would be right. Source: System V ABI, "Object Files", and its Intel386 supplement.
"""

from dataclasses import dataclass
from typing import Any, BinaryIO, Final

from elftools.common.exceptions import ELFError
from elftools.common.utils import struct_parse
from elftools.construct import ConstructError
from elftools.elf.elffile import ELFFile

from kernel_model.errors import BadInput

EHDR_BYTES: Final = {32: 52, 64: 64}
PHDR_BYTES: Final = {32: 32, 64: 56}
SHDR_BYTES: Final = {32: 40, 64: 64}
_IDENT_BYTES: Final = 16
PN_XNUM: Final = 0xFFFF
"""``e_phnum`` of a file with more program headers than 16 bits count: section 0 has the number."""


class BadElf(BadInput):
    """An ELF file that is refused. ``name`` is the file, ``problem`` the rest of the line."""

    def __init__(self, name: str, problem: str) -> None:
        super().__init__(f"{printable(name)}: {printable(problem)}")
        self.name = name
        self.problem = problem


def printable(text: str) -> str:
    """``text`` on one line and harmless to a terminal: control characters become escapes."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


@dataclass(frozen=True, slots=True)
class ProgramHeader:
    """One ``Elf32_Phdr`` or ``Elf64_Phdr``: sizes and offsets in bytes.

    ``type`` is the ABI's name (``PT_LOAD``), or the number of a type that has none.
    """

    type: str | int
    offset: int
    vaddr: int
    paddr: int
    filesz: int
    memsz: int
    flags: int
    align: int


class Headers:
    """The ELF header and the program headers of one file, every count and offset checked.

    ``name`` stands in messages; ``size`` is the length of the file in bytes.
    """

    def __init__(self, stream: BinaryIO, size: int, name: str) -> None:
        self.stream = stream
        self.size = size
        self.name = name
        self._elf = self._open()
        self.bits: int = self._elf.elfclass
        self.type: str | int = self._elf["e_type"]
        self.machine: str | int = self._elf["e_machine"]
        self.entry: int = self._elf["e_entry"]
        self.phoff: int = self._elf["e_phoff"]
        self._check_header()
        self.program_headers = self._program_headers()

    def _open(self) -> ELFFile:
        self.stream.seek(0)
        ident = self.stream.read(_IDENT_BYTES)
        if ident[:4] != b"\x7fELF":
            start = ident[:4].hex(" ") or "nothing"
            raise BadElf(self.name, f"not an ELF file: it starts with {start}, not 7f 45 4c 46")
        if len(ident) < _IDENT_BYTES or ident[4] not in (1, 2):
            raise BadElf(self.name, "the ELF identification is damaged: class is neither 32 nor 64")
        if ident[5] == 2:
            raise BadElf(self.name, "a big-endian file: give a little-endian one, as an i386 has")
        if ident[5] != 1 or ident[6] != 1:
            raise BadElf(self.name, "the ELF identification is damaged: byte order or version")
        self.need(0, EHDR_BYTES[32 * ident[4]], "the ELF header")
        try:
            return ELFFile(self.stream)
        except (ELFError, ConstructError) as error:
            raise BadElf(self.name, f"the ELF header is damaged: {error}") from error

    def _check_header(self) -> None:
        if self._elf["e_version"] not in (1, "EV_CURRENT"):
            raise BadElf(self.name, "e_version is not 1, the only version of ELF there is")
        wanted = PHDR_BYTES[self.bits]
        if self._elf["e_phnum"] and self._elf["e_phentsize"] != wanted:
            given = self._elf["e_phentsize"]
            raise BadElf(self.name, f"program headers of {given} bytes: they have {wanted}")

    def need(self, offset: int, length: int, what: str) -> None:
        """Refuse the file unless it holds ``length`` bytes at ``offset``."""
        if offset + length > self.size:
            raise BadElf(
                self.name,
                f"truncated: {what} takes bytes {offset:#x} to {offset + length:#x} of a file of "
                f"{self.size:#x}; copy the file again",
            )

    def record(self, kind: str, offset: int) -> Any:
        """The record ``kind`` (as pyelftools names it: ``Elf_Phdr``) at ``offset``."""
        try:
            return struct_parse(getattr(self._elf.structs, kind), self.stream, offset)
        except (ELFError, ConstructError, ValueError) as error:
            raise BadElf(self.name, f"unreadable {kind} at offset {offset:#x}") from error

    def read(self, offset: int, length: int, what: str) -> bytes:
        """``length`` bytes at ``offset``; ``what`` names them if the file is too short."""
        self.need(offset, length, what)
        self.stream.seek(offset)
        return self.stream.read(length)

    def _count(self) -> int:
        count: int = self._elf["e_phnum"]
        if count != PN_XNUM:
            return count
        self.need(self._elf["e_shoff"], SHDR_BYTES[self.bits], "section header 0")
        return int(self.record("Elf_Shdr", self._elf["e_shoff"])["sh_info"])

    def _program_headers(self) -> tuple[ProgramHeader, ...]:
        count, step = self._count(), PHDR_BYTES[self.bits]
        self.need(self.phoff, count * step, f"the table of {count} program headers")
        headers = []
        for offset in range(self.phoff, self.phoff + count * step, step):
            raw = self.record("Elf_Phdr", offset)
            fields = ("type", "offset", "vaddr", "paddr", "filesz", "memsz", "flags", "align")
            headers.append(ProgramHeader(*(raw[f"p_{field}"] for field in fields)))
        return tuple(headers)

    def section_headers(self) -> tuple[Any, ...]:
        """The section headers as pyelftools decodes them; none is a legal number of them."""
        offset, count, step = (self._elf[f] for f in ("e_shoff", "e_shnum", "e_shentsize"))
        if not offset or not count:
            return ()
        if step != SHDR_BYTES[self.bits]:
            wanted = SHDR_BYTES[self.bits]
            raise BadElf(self.name, f"section headers of {step} bytes: they have {wanted}")
        self.need(offset, count * step, f"the table of {count} section headers")
        return tuple(self.record("Elf_Shdr", offset + n * step) for n in range(count))
