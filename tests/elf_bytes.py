# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes ELF files field by field, right or wrong, with nothing but ``struct``.

The loader under test never sees this module: a file is what the System V ABI says its bytes
are. Every field of the header can be overridden by its name in the ABI.
"""

import struct
from dataclasses import dataclass, field

PT_LOAD, PT_DYNAMIC, PT_INTERP, PT_TLS = 1, 2, 3, 7
ET_REL, ET_EXEC, ET_DYN, ET_CORE = 1, 2, 3, 4
EHDR_FIELDS = (
    *("e_type", "e_machine", "e_version", "e_entry", "e_phoff", "e_shoff", "e_flags"),
    *("e_ehsize", "e_phentsize", "e_phnum", "e_shentsize", "e_shnum", "e_shstrndx"),
)
TEXT = bytes(range(256)) * 4
MOST_BYTES = 1 << 20
"""No file is padded beyond, up to an offset where nothing lies."""


@dataclass
class Phdr:
    """One program header; ``data`` is placed at ``offset``, sizes follow it if not given."""

    vaddr: int
    data: bytes = b""
    offset: int = 0x1000
    type: int = PT_LOAD
    flags: int = 5
    align: int = 0x1000
    paddr: int | None = None
    filesz: int | None = None
    memsz: int | None = None

    def sizes(self) -> tuple[int, int]:
        filesz = len(self.data) if self.filesz is None else self.filesz
        return filesz, filesz if self.memsz is None else self.memsz

    def pack(self, bits: int) -> bytes:
        paddr = self.vaddr if self.paddr is None else self.paddr
        places = (self.offset, self.vaddr, paddr, *self.sizes())
        if bits == 32:
            return struct.pack("<8I", self.type, *places, self.flags, self.align)
        return struct.pack("<2I6Q", self.type, self.flags, *places, self.align)


@dataclass
class Elf:
    """A file: its program headers, then overrides for header fields, then symbols.

    ``symbols`` are ``(name, value, info, shndx)``; with any, section headers are written too.
    """

    phdrs: list[Phdr] = field(default_factory=list)
    bits: int = 32
    ident: bytes | None = None
    symbols: list[tuple[str, int, int, int]] = field(default_factory=list)
    fields: dict[str, int] = field(default_factory=dict)

    def build(self) -> bytes:
        wide = self.bits == 64
        ehsize, phentsize, shentsize = (64, 56, 64) if wide else (52, 32, 40)
        body = bytearray(ehsize) + b"".join(p.pack(self.bits) for p in self.phdrs)
        for phdr in self.phdrs:
            if phdr.data or phdr.offset < MOST_BYTES:
                body.extend(bytes(max(0, phdr.offset + len(phdr.data) - len(body))))
            body[phdr.offset : phdr.offset + len(phdr.data)] = phdr.data
        shoff, shnum = self._sections(body) if self.symbols else (0, 0)
        values = {
            "e_type": ET_EXEC,
            "e_machine": 3,
            "e_version": 1,
            "e_entry": self.phdrs[0].vaddr if self.phdrs else 0,
            "e_phoff": ehsize,
            "e_shoff": shoff,
            "e_flags": 0,
            "e_ehsize": ehsize,
            "e_phentsize": phentsize,
            "e_phnum": len(self.phdrs),
            "e_shentsize": shentsize,
            "e_shnum": shnum,
            "e_shstrndx": 0,
        } | self.fields
        ident = self.ident or b"\x7fELF" + bytes([2 if wide else 1, 1, 1]) + bytes(9)
        shape = "<HHIQQQIHHHHHH" if wide else "<HHIIIIIHHHHHH"
        body[:ehsize] = ident + struct.pack(shape, *(values[name] for name in EHDR_FIELDS))
        return bytes(body)

    def _sections(self, body: bytearray) -> tuple[int, int]:
        """Append the symbol table, its names and three section headers (32-bit files only)."""
        names, table = b"\0", bytes(16)
        for name, value, info, shndx in self.symbols:
            table += struct.pack("<IIIBBH", len(names), value, 0, info, 0, shndx)
            names += name.encode() + b"\0"
        at = len(body)
        body += table + names
        shoff = len(body)
        body += bytes(40)
        body += struct.pack("<10I", 0, 2, 0, 0, at, len(table), 2, 1, 4, 16)
        body += struct.pack("<10I", 0, 3, 0, 0, at + len(table), len(names), 0, 0, 1, 0)
        return shoff, 3


def program(*phdrs: Phdr, **fields: int) -> bytes:
    """A 32-bit file with ``phdrs``, or a sound program of text and data if none are given."""
    return Elf(list(phdrs) or sound_phdrs(), fields=fields).build()


def sound_phdrs() -> list[Phdr]:
    return [
        Phdr(0x08048000, TEXT, 0x1000, flags=5),
        Phdr(0x08049400, b"data", 0x1400, flags=6, memsz=0x2000),
    ]
