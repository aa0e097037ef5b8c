# SPDX-License-Identifier: GPL-2.0-or-later
"""Raw dumps and ELF cores become the RAM they describe; anything else is refused in one line."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.image import read_image, write_core
from kernel_model.errors import BadInput
from kernel_model.ram import PAGE_SIZE, Ram
from tests.elf_bytes import ET_CORE, Elf, Phdr

GIB = 1 << 30
PAGE = bytes(range(256)) * 16


def core(*phdrs: Phdr, bits: int = 32, **fields: int) -> bytes:
    return Elf(list(phdrs), bits=bits, fields={"e_type": ET_CORE} | fields).build()


def load(paddr: int, data: bytes = PAGE, offset: int = 0x1000, **sizes: int) -> Phdr:
    """A ``PT_LOAD`` of a core; its virtual address must not matter."""
    return Phdr(0xDEAD0000, data, offset, paddr=paddr, **sizes)


def write(directory: Path, content: bytes) -> Path:
    path = directory / "image"
    path.write_bytes(content)
    return path


def refusal(path: Path) -> str:
    with pytest.raises(BadInput) as caught:
        read_image(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert message.isprintable()
    return message


def resident_pages() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1])


def test_raw_dump_is_ram_from_0(tmp_path: Path) -> None:
    ram = read_image(write(tmp_path, bytes(PAGE_SIZE) + PAGE))
    assert ram.ranges == ((0, 2 * PAGE_SIZE),)
    assert ram.read(0, 2 * PAGE_SIZE) == bytes(PAGE_SIZE) + PAGE


def test_raw_dump_is_filled_up_to_a_page_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ram = read_image(write(tmp_path, PAGE + b"tail"))
    assert ram.size == 2 * PAGE_SIZE
    assert ram.read(PAGE_SIZE, 8) == b"tail" + bytes(4)
    assert "4092 bytes of zeros added" in caplog.text


def test_a_whole_raw_dump_says_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    read_image(write(tmp_path, PAGE))
    assert not caplog.text


@pytest.mark.parametrize("seek_data_works", [True, False])
def test_sparse_dump_of_many_parts(
    tmp_path: Path, seek_data_works: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    places = (0, 3 << 20, (3 << 20) + 70000, (9 << 20) - 5)
    path = tmp_path / "image"
    with path.open("wb") as stream:
        for place in places:
            stream.seek(place)
            stream.write(b"mark!")
    if not seek_data_works:
        monkeypatch.setattr(os, "lseek", refuse_to_seek)
    ram = read_image(path)
    assert ram.size == 9 << 20
    assert all(ram.read(place, 5) == b"mark!" for place in places)
    assert ram.buffer[:].count(b"mark!") == len(places)


def refuse_to_seek(*_: int) -> int:
    """``lseek`` of a file system that knows no ``SEEK_DATA``."""
    raise OSError(22, "Invalid argument")


def test_holes_of_a_sparse_dump_cost_nothing(tmp_path: Path) -> None:
    path = tmp_path / "image"
    with path.open("wb") as stream:
        stream.write(PAGE)
        stream.truncate(64 * GIB)
    before = resident_pages()
    ram = read_image(path)
    assert ram.size == 64 * GIB
    assert ram.read(0, PAGE_SIZE) == PAGE
    assert resident_pages() - before < 4096


def test_stored_zeros_are_not_copied(tmp_path: Path) -> None:
    path = write(tmp_path, bytes(48 << 20) + PAGE)
    before = resident_pages()
    ram = read_image(path)
    assert ram.read(48 << 20, PAGE_SIZE) == PAGE
    assert resident_pages() - before < 4096


def test_a_dump_larger_than_36_bits_reach(tmp_path: Path) -> None:
    path = tmp_path / "image"
    with path.open("wb") as stream:
        stream.truncate(64 * GIB + PAGE_SIZE)
    assert "64 GiB" in refusal(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"KDUMP   " + PAGE, "makedumpfile -E"),
        (b"EMiL" + PAGE, "LiME"),
        (b"QEVM" + PAGE, "dump-guest-memory"),
        (b"\x7fELF", "identification is damaged"),
    ],
)
def test_other_formats(tmp_path: Path, content: bytes, said: str) -> None:
    assert said in refusal(write(tmp_path, content))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "absent")
    assert "not a regular file" in refusal(tmp_path)
    assert "not a regular file" in refusal(Path("/dev/null"))


@pytest.mark.parametrize("bits", [32, 64])
@pytest.mark.parametrize("machine", [3, 62])
def test_core_is_placed_by_physical_address(tmp_path: Path, bits: int, machine: int) -> None:
    content = core(
        load(0x200000, PAGE, 0x2000, memsz=3 * PAGE_SIZE),
        load(0x1000, b"low", 0x1000),
        bits=bits,
        e_machine=machine,
    )
    ram = read_image(write(tmp_path, content))
    assert ram.ranges == ((0x1000, 0x2000), (0x200000, 0x203000))
    assert ram.read(0x1000, 5) == b"low\0\0"
    assert ram.read(0x200000, 3 * PAGE_SIZE) == PAGE + bytes(2 * PAGE_SIZE)


def test_core_above_4_gib(tmp_path: Path) -> None:
    ram = read_image(write(tmp_path, core(load(5 * GIB), bits=64)))
    assert ram.ranges == ((5 * GIB, 5 * GIB + PAGE_SIZE),)
    assert ram.read(5 * GIB, PAGE_SIZE) == PAGE


def test_ranges_of_a_core_are_rounded_outward_and_joined(tmp_path: Path) -> None:
    content = core(load(0x9F400 - 0x400, PAGE[:0x400]), load(0x9F400, b"rest", 0x3000))
    ram = read_image(write(tmp_path, content))
    assert ram.ranges == ((0x9F000, 0xA0000),)
    assert ram.read(0x9F000, 0x404) == PAGE[:0x400] + b"rest"


def test_a_frame_listed_twice_with_the_same_bytes(tmp_path: Path) -> None:
    content = core(load(0x1000, PAGE * 2, 0x1000), load(0x2000, PAGE, 0x2000))
    assert read_image(write(tmp_path, content)).ranges == ((0x1000, 0x3000),)


def many_headers(count: int) -> bytes:
    """A core whose number of program headers stands in section 0, as for 65,535 and more."""
    sound = bytearray(core(load(0x1000), bits=64, e_phnum=0xFFFF, e_shoff=0x3000))
    section = bytearray(64)
    section[44:48] = count.to_bytes(4, "little")
    return bytes(sound.ljust(0x3000, b"\0") + section)


def test_program_headers_counted_in_section_0(tmp_path: Path) -> None:
    assert read_image(write(tmp_path, many_headers(1))).read(0x1000, PAGE_SIZE) == PAGE
    assert "4294967295 program headers" in refusal(write(tmp_path, many_headers(0xFFFFFFFF)))


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (core(load(0), e_type=2), "an ELF program, not a memory image"),
        (core(load(0), e_machine=40), "machine ARM"),
        (core(), "without PT_LOAD"),
        (core(Phdr(0, PAGE, type=4)), "without PT_LOAD"),
        (core(load(0, filesz=PAGE_SIZE, memsz=16)), "p_filesz"),
        (core(load(0, filesz=0x100000)), "truncated"),
        (core(load(64 * GIB), bits=64), "36 physical address bits"),
        (core(load(0, memsz=1 << 60), bits=64), "36 physical address bits"),
        (core(load(0), load(0, b"other", 0x3000)), "physical 0x0 different contents"),
        (core(load(0, PAGE * 2), load(0x1000, PAGE, 0x5000)), "physical 0x1000 different"),
        (
            core(load(0, PAGE * 4), load(0x800, PAGE[0x800:], 0x1800), load(0x2000, PAGE, 0x9000)),
            "physical 0x2000 different",
        ),
    ],
)
def test_cores_that_cannot_be(tmp_path: Path, content: bytes, said: str) -> None:
    assert said in refusal(write(tmp_path, content))


@given(st.lists(st.tuples(st.integers(0, 64 + 2 * 56 - 1), st.integers(0, 255)), max_size=4))
def test_damage_to_the_headers_is_refused_or_harmless(
    tmp_path_factory: pytest.TempPathFactory, damage: list[tuple[int, int]]
) -> None:
    content = bytearray(core(load(0x1000), load(0x5000, PAGE, 0x2000), bits=64))
    for place, value in damage:
        content[place] = value
    path = write(tmp_path_factory.getbasetemp(), bytes(content))
    message = ""
    try:
        ram = read_image(path)
        assert all(start % PAGE_SIZE == end % PAGE_SIZE == 0 for start, end in ram.ranges)
    except BadInput as error:
        message = str(error)
    assert message.isprintable()


@pytest.mark.parametrize(
    ("size", "ranges"),
    [
        (4 * PAGE_SIZE, ((0, PAGE_SIZE), (2 * PAGE_SIZE, 4 * PAGE_SIZE))),
        (5 * GIB, ((0, 1 << 20), (4 * GIB, 4 * GIB + 65536), (5 * GIB - 4096, 5 * GIB))),
    ],
)
def test_a_written_core_reads_back(
    tmp_path: Path, size: int, ranges: tuple[tuple[int, int], ...]
) -> None:
    ram = Ram(size, ranges)
    for start, end in ranges:
        ram.write(end - PAGE_SIZE, PAGE)
        ram.write32(start, 0x12345678)
    write_core(ram, tmp_path / "core")
    again = read_image(tmp_path / "core")
    assert again.ranges == ranges
    for start, end in ranges:
        assert again.read(start, end - start) == ram.read(start, end - start)


def test_a_core_of_zeros_has_its_full_length(tmp_path: Path) -> None:
    write_core(Ram(1 << 20), tmp_path / "core")
    assert read_image(tmp_path / "core").buffer[:] == bytes(1 << 20)


def test_a_core_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="cannot be written: No such file"):
        write_core(Ram(PAGE_SIZE), tmp_path / "absent" / "core")
