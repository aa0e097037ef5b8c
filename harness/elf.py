# SPDX-License-Identifier: GPL-2.0-or-later
"""Loads guest programs: ELF32 for i386, statically linked, for ring 0 or ring 3.

Two kinds are accepted, told apart by where they are linked:

* ring 0: ``ET_EXEC`` inside the kernel image, 0xC0106000 up to 0xC037E000; a boot loader
  copies it to ``__pa`` of each segment;
* ring 3: ``ET_EXEC`` below ``TASK_SIZE``, or a static-PIE (``ET_DYN`` that needs nobody) that
  :meth:`ElfImage.at` moves to where it shall run. Its own start-up code does its relocations.

What can fail: everything else is refused with :class:`BadElf`, before a byte is used. Where
``linux-2.4.22 fs/binfmt_elf.c: load_elf_binary`` would run a program into trouble later (two
segments in one page, an entry point in the void), the refusal comes here and says why.
"""

import enum
import io
import stat
import struct
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Final

from harness.elf_headers import BadElf, Headers, ProgramHeader
from kernel_model.ram import PAGE_SIZE, Ram

__all__ = ["BadElf", "ElfImage", "Segment", "SegmentFlags", "Tls", "load_elf", "load_symbols"]

TASK_SIZE: Final = 0xC0000000
KERNEL_START: Final = 0xC0106000
KERNEL_END: Final = 0xC037E000
"""What ``_end`` = 0xC0400000 leaves the ring-0 guest: the first process's stack and the model's
static objects follow."""
MAX_BYTES: Final = 1 << 30
"""The most that a file, or all its segments together in memory, may measure."""
MAX_PROGRAM_HEADERS: Final = 2048
"""64 KiB of them: where Linux gives up as well."""
MAX_NAME: Final = 4096
MAX_NAMES: Final = 64 << 20
"""Bytes of all symbol names: names that overlap could fill memory from a small file."""
SYMBOL_BYTES: Final = 16

_DT_NULL: Final = 0
_DT_NEEDED: Final = 1
_SHN_UNDEF: Final = 0
_SHN_ABS: Final = 0xFFF1
_NAMED_TYPES: Final = (0, 1, 2)
"""``STT_NOTYPE``, ``STT_OBJECT`` and ``STT_FUNC``: the symbols whose value is an address."""


class SegmentFlags(enum.IntFlag):
    """``p_flags``: what the program may do with a segment."""

    EXECUTE = 1
    WRITE = 2
    READ = 4

    def __str__(self) -> str:
        letters = zip("rwx", (4, 2, 1), strict=True)
        return "".join(letter if self & bit else "-" for letter, bit in letters)


@dataclass(frozen=True, slots=True)
class Segment:
    """One ``PT_LOAD``: ``data`` at ``vaddr``, then zeros up to ``memsz`` bytes.

    ``offset`` is where ``data`` starts in the file, in bytes.
    """

    vaddr: int
    data: bytes
    memsz: int
    flags: SegmentFlags
    offset: int = 0

    @property
    def end(self) -> int:
        return self.vaddr + self.memsz

    @property
    def first_page(self) -> int:
        return self.vaddr // PAGE_SIZE

    @property
    def last_page(self) -> int:
        return (self.end - 1) // PAGE_SIZE

    def __str__(self) -> str:
        return f"{self.vaddr:#010x}..{self.end:#010x} {self.flags}"


@dataclass(frozen=True, slots=True)
class Tls:
    """``PT_TLS``, the template of a thread's own data: ``filesz`` bytes at ``vaddr``, then zeros
    up to ``memsz``, aligned to ``align``."""

    vaddr: int
    filesz: int
    memsz: int
    align: int


@dataclass(frozen=True, slots=True)
class ElfImage:
    """A program that may be loaded: segments sorted by address, disjoint, entry inside one.

    ``symbols`` maps names to addresses; a global symbol wins over a local one. ``phdr_vaddr`` is
    where the program finds its own headers (``AT_PHDR``), None when no segment holds them.
    """

    name: str
    entry: int
    ring: int
    segments: tuple[Segment, ...]
    symbols: dict[str, int]
    position_independent: bool = False
    tls: Tls | None = None
    phdr_vaddr: int | None = None
    phnum: int = 0
    file: bytes = field(default=b"", repr=False)
    """The whole file, whose pages a ring-3 program is mapped from."""

    @property
    def start(self) -> int:
        """First byte of the first segment."""
        return self.segments[0].vaddr

    @property
    def end(self) -> int:
        """Behind the last byte of the last segment: where ``brk`` starts."""
        return self.segments[-1].end

    def at(self, bias: int) -> "ElfImage":
        """This static-PIE moved up by ``bias`` bytes, whole pages of them.

        :raises BadElf: if it is linked to fixed addresses or would not fit below ``TASK_SIZE``.
        """
        if not self.position_independent:
            raise BadElf(self.name, "linked to fixed addresses, cannot be moved: use -static-pie")
        if bias % PAGE_SIZE or bias < 0 or self.end + bias > TASK_SIZE:
            raise BadElf(
                self.name,
                f"load bias {bias:#x}: give a multiple of {PAGE_SIZE} that leaves the program's "
                f"{self.end:#x} bytes below {TASK_SIZE:#x}",
            )
        return replace(
            self,
            entry=self.entry + bias,
            segments=tuple(replace(s, vaddr=s.vaddr + bias) for s in self.segments),
            symbols={name: value + bias for name, value in self.symbols.items()},
            tls=replace(self.tls, vaddr=self.tls.vaddr + bias) if self.tls else None,
            phdr_vaddr=None if self.phdr_vaddr is None else self.phdr_vaddr + bias,
        )

    def load_physical(self, ram: Ram) -> None:
        """Copy a ring-0 image to ``__pa`` of its segments, as the boot loader does.

        :raises BadElf: for a ring-3 program, which has no physical address.
        """
        if self.ring != 0:
            raise BadElf(self.name, "a ring-3 program: the kernel maps it, no boot loader does")
        for segment in self.segments:
            ram.fill(segment.vaddr - TASK_SIZE, segment.memsz)
            ram.write(segment.vaddr - TASK_SIZE, segment.data)


def load_elf(source: Path | bytes, name: str | None = None, *, ram: int = MAX_BYTES) -> ElfImage:
    """Read and check a program. ``ram`` is how many bytes of memory there are for it.

    :raises BadElf: with one line that says what is wrong with the file and what would be right.
    """
    if isinstance(source, bytes):
        name = name or "program"
        content = source
    else:
        name = name or str(source)
        content = _read_file(source, name)
    headers = Headers(io.BytesIO(content), len(content), name)
    _check_kind(headers)
    movable = headers.type == "ET_DYN"
    segments = _segments(headers, min(ram, MAX_BYTES))
    ring = _ring(name, segments, movable)
    _check_neighbours(name, segments, ring)
    _check_entry(headers, segments, movable)
    return ElfImage(
        name=name,
        entry=headers.entry,
        ring=ring,
        segments=segments,
        symbols=load_symbols(headers, keep_absolute=not movable),
        position_independent=movable,
        tls=_tls(headers, segments),
        phdr_vaddr=_phdr_vaddr(headers, segments),
        phnum=len(headers.program_headers),
        file=content,
    )


def _read_file(path: Path, name: str) -> bytes:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise BadElf(name, "not a regular file: give the program itself")
        if status.st_size > MAX_BYTES:
            raise BadElf(name, f"{status.st_size} bytes: a program has at most {MAX_BYTES}")
        return path.read_bytes()
    except (OSError, ValueError) as error:
        if isinstance(error, BadElf):
            raise
        reason = getattr(error, "strerror", None) or error
        raise BadElf(name, f"cannot be read: {reason}") from error


def _check_kind(headers: Headers) -> None:
    name = headers.name
    if headers.bits != 32:
        raise BadElf(name, "a 64-bit program: build it for i386 (-m32 -static)")
    if headers.machine != "EM_386":
        machine = str(headers.machine).removeprefix("EM_")
        raise BadElf(name, f"built for machine {machine}: build it for i386 (-m32 -static)")
    if headers.type not in ("ET_EXEC", "ET_DYN"):
        kinds = {"ET_REL": "an object file", "ET_CORE": "a core dump"}
        kind = kinds.get(str(headers.type), f"an ELF file of type {headers.type}")
        raise BadElf(name, f"{kind}, not a program: link it with -static")
    if len(headers.program_headers) > MAX_PROGRAM_HEADERS:
        count = len(headers.program_headers)
        raise BadElf(name, f"{count} program headers: at most {MAX_PROGRAM_HEADERS} are read")
    for header in headers.program_headers:
        if header.type == "PT_INTERP":
            path = headers.read(header.offset, min(header.filesz, MAX_NAME), "PT_INTERP")
            interpreter = path.split(b"\0")[0].decode("latin-1") or "without a name"
            raise BadElf(name, f"needs the dynamic interpreter {interpreter}: link it with -static")
        if header.type == "PT_DYNAMIC":
            _check_dynamic(headers, header)


def _check_dynamic(headers: Headers, header: ProgramHeader) -> None:
    table = headers.read(header.offset, header.filesz, "PT_DYNAMIC")
    needed = 0
    for tag, _value in struct.iter_unpack("<II", table[: len(table) & ~7]):
        if tag == _DT_NULL:
            break
        needed += tag == _DT_NEEDED
    if needed:
        raise BadElf(
            headers.name, f"needs shared libraries (DT_NEEDED, {needed}): link it with -static"
        )


def _segments(headers: Headers, limit: int) -> tuple[Segment, ...]:
    """The ``PT_LOAD`` headers that occupy memory, checked one by one, sorted by address."""
    loads = [h for h in headers.program_headers if h.type == "PT_LOAD"]
    for load in loads:
        _check_load(headers, load)
    total = sum(load.memsz for load in loads)
    if total > limit:
        raise BadElf(
            headers.name, f"the segments take {total} bytes of memory: there are {limit} for it"
        )
    if not total:
        raise BadElf(headers.name, "no PT_LOAD segment: there is nothing to load; link it again")
    segments = (
        Segment(
            vaddr=load.vaddr,
            data=headers.read(load.offset, load.filesz, "a segment"),
            memsz=load.memsz,
            flags=SegmentFlags(load.flags & 7),
            offset=load.offset,
        )
        for load in loads
        if load.memsz
    )
    return tuple(sorted(segments, key=lambda segment: segment.vaddr))


def _check_load(headers: Headers, load: ProgramHeader) -> None:
    name, where = headers.name, f"segment at {load.vaddr:#010x}"
    if load.filesz > load.memsz:
        raise BadElf(
            name, f"{where}: p_filesz {load.filesz:#x} is more than p_memsz {load.memsz:#x}"
        )
    if load.vaddr + load.memsz > 1 << 32:
        raise BadElf(name, f"{where}: {load.memsz:#x} bytes wrap around the end of 4 GiB")
    headers.need(load.offset, load.filesz, where)
    if load.align & (load.align - 1):
        raise BadElf(name, f"{where}: p_align {load.align:#x} is not a power of two")
    # Ring 3 is mapped page by page from the file, whatever p_align promises. Ring 0 is copied.
    step = max(load.align, PAGE_SIZE if load.vaddr < TASK_SIZE else 1)
    if load.memsz and (load.vaddr - load.offset) % step:
        raise BadElf(
            name,
            f"{where}: its file offset {load.offset:#x} is not congruent to the address modulo "
            f"{step:#x}; link it without -n",
        )


def _ring(name: str, segments: Iterable[Segment], movable: bool) -> int:
    """0 or 3, by the addresses; all segments must agree."""
    rings = set()
    for segment in segments:
        if segment.end <= TASK_SIZE:
            rings.add(3)
        elif segment.vaddr >= KERNEL_START and segment.end <= KERNEL_END:
            rings.add(0)
        else:
            raise BadElf(
                name,
                f"segment {segment} lies above TASK_SIZE: link below {TASK_SIZE:#x} for ring 3, or "
                f"within {KERNEL_START:#x}..{KERNEL_END:#x} for ring 0",
            )
    if len(rings) > 1:
        raise BadElf(name, "segments on both sides of TASK_SIZE: link all for one ring")
    ring = rings.pop()
    if movable and ring == 0:
        raise BadElf(name, "position independent in the kernel image: link ring 0 with -no-pie")
    return ring


def _check_neighbours(name: str, segments: tuple[Segment, ...], ring: int) -> None:
    for low, high in pairwise(segments):
        if low.end > high.vaddr:
            raise BadElf(name, f"segments {low} and {high} overlap: link it again")
        if ring == 3 and low.last_page == high.first_page and not _one_mapping(low, high):
            page = high.first_page * PAGE_SIZE
            raise BadElf(
                name,
                f"segments {low} and {high} share page {page:#010x}, which can have only one "
                f"content and one set of rights: align the second to {PAGE_SIZE}",
            )


def _one_mapping(low: Segment, high: Segment) -> bool:
    """Whether two segments in one page are a single run of the file with the same rights.

    Then it makes no difference which of them maps the page; else the later mapping replaces
    the earlier one, and bytes or rights of the first are lost.
    """
    same_run = low.vaddr - low.offset == high.vaddr - high.offset
    return low.flags == high.flags and same_run and len(low.data) == low.memsz


def _check_entry(headers: Headers, segments: tuple[Segment, ...], movable: bool) -> None:
    entry = headers.entry
    home = next((s for s in segments if s.vaddr <= entry < s.end), None)
    if home is None:
        raise BadElf(
            headers.name, f"the entry point {entry:#010x} lies in no segment: link with -e"
        )
    # A shared library has entry 0, and there lies its ELF header, which is only readable.
    if movable and SegmentFlags.EXECUTE not in home.flags:
        raise BadElf(
            headers.name,
            f"the entry point {entry:#x} is not executable: a shared library? give a static-PIE",
        )


def _tls(headers: Headers, segments: tuple[Segment, ...]) -> Tls | None:
    templates = [h for h in headers.program_headers if h.type == "PT_TLS"]
    if not templates:
        return None
    if len(templates) > 1:
        raise BadElf(headers.name, "more than one PT_TLS: a program has one at most")
    tls = templates[0]
    end = tls.vaddr + tls.filesz
    inside = any(s.vaddr <= tls.vaddr and end <= s.end for s in segments) or not tls.filesz
    if not inside or tls.filesz > tls.memsz or tls.memsz > MAX_BYTES or tls.align & tls.align - 1:
        raise BadElf(
            headers.name,
            f"PT_TLS at {tls.vaddr:#010x}: its {tls.filesz:#x} bytes must lie in a segment, be no "
            f"more than p_memsz {tls.memsz:#x}, and p_align {tls.align:#x} be a power of two",
        )
    return Tls(tls.vaddr, tls.filesz, tls.memsz, max(tls.align, 1))


def _phdr_vaddr(headers: Headers, segments: tuple[Segment, ...]) -> int | None:
    for segment in segments:
        inside = headers.phoff - segment.offset
        if 0 <= inside < len(segment.data):
            return segment.vaddr + inside
    return None


def load_symbols(headers: Headers, *, keep_absolute: bool = True) -> dict[str, int]:
    """Defined symbols by name. Absolute ones do not move with a static-PIE and are left out."""
    table, names = _symbol_table(headers)
    local: dict[str, int] = {}
    wide: dict[str, int] = {}
    spent = 0
    for start, value, _size, info, _other, home in struct.iter_unpack("<IIIBBH", table):
        wanted = home != _SHN_UNDEF and (keep_absolute or home != _SHN_ABS)
        end = names.find(b"\0", start, start + MAX_NAME)
        if not wanted or info & 15 not in _NAMED_TYPES or end <= start:
            continue
        spent += end - start
        if spent > MAX_NAMES:
            raise BadElf(headers.name, f"symbol names of over {MAX_NAMES} bytes: strip it")
        name = names[start:end].decode("utf-8", "replace")
        (wide if info >> 4 else local).setdefault(name, value)
    return local | wide


def _symbol_table(headers: Headers) -> tuple[bytes, bytes]:
    """The records of ``SHT_SYMTAB``, whole ones, and the bytes that hold their names."""
    sections = headers.section_headers()
    table = next((s for s in sections if s["sh_type"] == "SHT_SYMTAB"), None)
    if table is None:
        return b"", b""
    link = table["sh_link"]
    if link >= len(sections) or sections[link]["sh_type"] != "SHT_STRTAB":
        raise BadElf(headers.name, "the symbol table has no names: strip it or link it again")
    names = sections[link]
    if table["sh_size"] % SYMBOL_BYTES:
        raise BadElf(headers.name, f"the symbol table is no multiple of {SYMBOL_BYTES}: strip it")
    return (
        headers.read(table["sh_offset"], table["sh_size"], "the symbol table"),
        headers.read(names["sh_offset"], names["sh_size"], "the symbol names"),
    )
