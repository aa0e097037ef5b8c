# SPDX-License-Identifier: GPL-2.0-or-later
"""Physical memory in and out of files: raw dumps and ELF cores.

* A **raw dump** has the byte of physical address p at offset p. Holes of a sparse file are not
  read and cost no memory.
* An **ELF core** of a machine (QEMU's ``dump-guest-memory``, ``/proc/vmcore``, makedumpfile with
  ``-E``) has one ``PT_LOAD`` for each range of RAM, placed by ``p_paddr``. Both sizes of ELF
  header are read.

What can fail: :class:`~kernel_model.errors.BadInput` in one line, for a file that is empty, too
large, truncated, of another format, or that gives one byte of RAM two contents. A last page
that is not whole is filled up with zeros, and the log says so.
"""

import errno
import logging
import os
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

from harness.elf_headers import EHDR_BYTES, PHDR_BYTES, BadElf, Headers, ProgramHeader, printable
from harness.expectation import Expectation, read_expectation
from harness.files import open_regular
from kernel_model.errors import BadInput
from kernel_model.ram import MAX_RAM, PAGE_SIZE, Ram

__all__ = ["Expectation", "read_expectation", "read_image", "write_core"]

_LOG: Final = logging.getLogger(__name__)
_CHUNK: Final = 1 << 16
"""Bytes read at a time; a chunk of zeros is not stored, so that its pages stay untouched."""
_ZEROS: Final = bytes(_CHUNK)  # of type bytes, as all it is compared with: views compare slowly
_FOREIGN: Final = {
    b"KDUMP   ": "a kdump-compressed dump: make an ELF core (makedumpfile -E)",
    b"DISKDUMP": "a diskdump: make an ELF core (makedumpfile -E)",
    b"EMiL": "a LiME dump: take it with format=raw or format=padded",
    b"QEVM": "a QEMU snapshot: use dump-guest-memory or pmemsave",
}


def read_image(path: Path) -> Ram:
    """The RAM that a raw dump or an ELF core describes.

    A raw dump is RAM from 0 to its size, rounded up to whole pages; the ranges of a core are
    rounded outward. Between the ranges of a core lie holes.

    :raises BadInput: if the file is neither, or cannot be what it says.
    """
    name = str(path)
    try:
        with open_regular(path, "a memory image") as stream:
            status = os.fstat(stream.fileno())
            start = stream.read(8)
            _check_format(name, status.st_size, start)
            if start[:4] == b"\x7fELF":
                return _read_core(stream, status.st_size, name)
            return _read_raw(stream, status.st_size, name)
    except OSError as error:
        raise BadInput(f"{printable(name)}: cannot be read: {error.strerror}") from error


def _check_format(name: str, size: int, start: bytes) -> None:
    if size == 0:
        raise BadInput(f"{printable(name)}: empty: give a memory image of at least one page")
    for magic, remedy in _FOREIGN.items():
        if start.startswith(magic):
            raise BadInput(f"{printable(name)}: {remedy}")


def _whole_pages(size: int) -> int:
    return -(-size // PAGE_SIZE) * PAGE_SIZE


def _read_raw(stream: BinaryIO, size: int, name: str) -> Ram:
    if size > MAX_RAM:
        raise BadInput(f"{printable(name)}: {size} bytes: 36 physical address bits reach 64 GiB")
    if size % PAGE_SIZE:
        rest = PAGE_SIZE - size % PAGE_SIZE
        _LOG.warning("%s: %d bytes of zeros added to fill the last page", printable(name), rest)
    ram = Ram(_whole_pages(size))
    _copy(stream, 0, size, ram, 0)
    return ram


def _read_core(stream: BinaryIO, size: int, name: str) -> Ram:
    headers = Headers(stream, size, name)
    if headers.type != "ET_CORE":
        raise BadElf(name, "an ELF program, not a memory image: give an ELF core or a raw dump")
    if headers.machine not in ("EM_386", "EM_X86_64"):
        machine = str(headers.machine).removeprefix("EM_")
        raise BadElf(name, f"a core of machine {machine}: give one of an i386")
    loads = [h for h in headers.program_headers if h.type == "PT_LOAD" and h.memsz]
    if not loads:
        raise BadElf(name, "a core without PT_LOAD: it holds no memory; dump it again")
    loads.sort(key=lambda load: (load.paddr, load.memsz))
    _check_loads(headers, loads)
    ranges = _ranges(loads)
    ram = Ram(ranges[-1][1], ranges)
    for load in loads:
        _copy(stream, load.offset, load.filesz, ram, load.paddr)
    return ram


def _check_loads(headers: Headers, loads: Iterable[ProgramHeader]) -> None:
    """``loads`` are sorted by ``p_paddr``."""
    name, widest = headers.name, None
    for load in loads:
        end = load.paddr + load.memsz
        where = f"PT_LOAD of physical {load.paddr:#x}..{end:#x}"
        if end > MAX_RAM:
            raise BadElf(name, f"{where}: 36 physical address bits reach {MAX_RAM:#x}")
        if load.filesz > load.memsz:
            raise BadElf(
                name, f"{where}: p_filesz {load.filesz:#x} is more than p_memsz {load.memsz:#x}"
            )
        headers.need(load.offset, load.filesz, where)
        if widest is not None and load.paddr < widest.paddr + widest.memsz:
            _check_overlap(name, widest, load)
        if widest is None or end > widest.paddr + widest.memsz:
            widest = load


def _check_overlap(name: str, low: ProgramHeader, high: ProgramHeader) -> None:
    """A core taken with paging lists a frame once per mapping: the same bytes of the file."""
    same_bytes = low.offset - low.paddr == high.offset - high.paddr
    whole = low.filesz == low.memsz and high.filesz == high.memsz
    if not (same_bytes and whole):
        raise BadElf(
            name,
            f"two PT_LOADs give physical {high.paddr:#x} different contents: a core of a process? "
            f"give one of a machine, placed by p_paddr",
        )


def _ranges(loads: Iterable[ProgramHeader]) -> list[tuple[int, int]]:
    """Page-aligned, disjoint ranges that cover ``loads``, which are sorted."""
    ranges: list[tuple[int, int]] = []
    for load in loads:
        start = load.paddr // PAGE_SIZE * PAGE_SIZE
        end = _whole_pages(load.paddr + load.memsz)
        if ranges and start <= ranges[-1][1]:
            ranges[-1] = (ranges[-1][0], max(end, ranges[-1][1]))
        else:
            ranges.append((start, end))
    return ranges


def _copy(stream: BinaryIO, offset: int, length: int, ram: Ram, paddr: int) -> None:
    """Bytes ``offset`` to ``offset + length`` of the file into RAM at ``paddr``."""
    scratch = memoryview(bytearray(_CHUNK))
    for start, end in _extents(stream.fileno(), offset, offset + length):
        position = start
        while position < end:
            view = scratch[: min(_CHUNK, end - position)]
            count = os.preadv(stream.fileno(), [view], position)
            if count == 0:
                raise BadInput(
                    f"{printable(str(stream.name))}: it became shorter while it was read"
                )
            chunk = bytes(view[:count])
            if chunk != _ZEROS[:count]:
                ram.write(paddr + position - offset, chunk)
            position += count


def _extents(descriptor: int, start: int, end: int) -> Iterator[tuple[int, int]]:
    """The parts of a file from ``start`` to ``end`` that are no holes.

    A file system without ``SEEK_DATA`` has one part: everything.
    """
    position = start
    while position < end:
        try:
            data = os.lseek(descriptor, position, os.SEEK_DATA)
            hole = os.lseek(descriptor, data, os.SEEK_HOLE)
        except OSError as error:
            # ENXIO: only a hole is left. Anything else: the file system cannot tell.
            if error.errno != errno.ENXIO:
                yield position, end
            return
        if data < end:
            yield data, min(hole, end)
        position = hole


def write_core(ram: Ram, path: Path) -> None:
    """Write RAM as an ELF core, one ``PT_LOAD`` for each range; pages of zeros become holes.

    The ELF header is 32-bit, or 64-bit where 32 bits do not reach the last byte.

    :raises BadInput: if the file cannot be written.
    """
    bits = 32 if ram.size + 2 * PAGE_SIZE <= 1 << 32 else 64
    first = _whole_pages(EHDR_BYTES[bits] + PHDR_BYTES[bits] * len(ram.ranges))
    try:
        with path.open("wb") as stream:
            stream.write(_core_headers(ram, bits, first))
            offset = first
            for start, end in ram.ranges:
                for paddr in range(start, end, _CHUNK):
                    chunk = bytes(ram.bytes[paddr : min(paddr + _CHUNK, end)])
                    if chunk != _ZEROS[: len(chunk)]:
                        stream.seek(offset + paddr - start)
                        stream.write(chunk)
                offset += end - start
            stream.truncate(offset)
    except OSError as error:
        raise BadInput(f"{printable(str(path))}: cannot be written: {error.strerror}") from error


def _core_headers(ram: Ram, bits: int, first: int) -> bytes:
    """The ELF header and the program headers of a core whose contents start at ``first``."""
    ehdr, phdr = EHDR_BYTES[bits], PHDR_BYTES[bits]
    ident = b"\x7fELF" + bytes([bits // 32, 1, 1]) + bytes(9)
    word = "I" if bits == 32 else "Q"
    header = struct.pack(
        f"<HHI{word * 3}IHHHHHH",
        *(4, 3, 1, 0, ehdr, 0, 0, ehdr, phdr, len(ram.ranges), 0, 0, 0),
    )
    parts = [ident, header]
    offset = first
    for start, end in ram.ranges:
        size = end - start
        # ELF64 moved p_flags up, next to p_type, to keep its wide fields aligned.
        if bits == 32:
            fields = (1, offset, 0, start, size, size, 7, PAGE_SIZE)
            parts.append(struct.pack("<8I", *fields))
        else:
            fields = (1, 7, offset, 0, start, size, size, PAGE_SIZE)
            parts.append(struct.pack("<2I6Q", *fields))
        offset += size
    return b"".join(parts)
