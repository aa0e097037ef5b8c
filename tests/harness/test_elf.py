# SPDX-License-Identifier: GPL-2.0-or-later
"""The loader takes sound programs as they are and refuses every other file in one line.

Sound files come from ``tests/elf_bytes.py``, written field by field; each hostile one is a
sound one with one field changed, and the refusal must name what was changed.
"""

import struct
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.elf import BadElf, ElfImage, SegmentFlags, load_elf
from kernel_model.errors import BadInput
from kernel_model.ram import Ram
from tests.elf_bytes import (
    ET_CORE,
    ET_DYN,
    ET_REL,
    PT_DYNAMIC,
    PT_INTERP,
    PT_TLS,
    TEXT,
    Elf,
    Phdr,
    program,
    sound_phdrs,
)

TEXT_VA, DATA_VA = 0x08048000, 0x08049400


def refusal(content: bytes, **options: int) -> str:
    """The message with which ``content`` is refused; always one line that starts with its name."""
    with pytest.raises(BadElf) as caught:
        load_elf(content, "guest.elf", **options)
    message = str(caught.value)
    assert isinstance(caught.value, BadInput)
    assert message.startswith("guest.elf: ")
    assert message.isprintable()
    return message


def changed(index: int = 0, **values: int | bytes) -> bytes:
    """The sound program with fields of program header ``index`` changed."""
    phdrs = sound_phdrs()
    for name, value in values.items():
        setattr(phdrs[index], name, value)
    return program(*phdrs)


def test_a_sound_program_is_taken_as_it_is() -> None:
    image = load_elf(program(e_entry=TEXT_VA + 4), "guest.elf")
    text, data = image.segments
    assert (image.entry, image.ring, image.position_independent) == (TEXT_VA + 4, 3, False)
    assert (text.vaddr, text.data, text.memsz) == (TEXT_VA, TEXT, len(TEXT))
    assert text.flags == SegmentFlags.READ | SegmentFlags.EXECUTE
    assert (data.vaddr, data.data, data.memsz, data.end) == (DATA_VA, b"data", 0x2000, 0x0804B400)
    assert data.flags == SegmentFlags.READ | SegmentFlags.WRITE
    assert (image.start, image.end, image.phnum) == (TEXT_VA, 0x0804B400, 2)
    assert image.tls is None


def test_segments_come_sorted_and_empty_ones_are_dropped() -> None:
    text, data = sound_phdrs()
    image = load_elf(program(data, Phdr(0x1000, b""), text, e_entry=TEXT_VA))
    assert [segment.vaddr for segment in image.segments] == [TEXT_VA, DATA_VA]


def test_program_headers_are_found_where_a_segment_holds_them() -> None:
    elf = Elf([Phdr(TEXT_VA, offset=0, filesz=0x200)]).build()
    assert load_elf(elf.ljust(0x200, b"\0")).phdr_vaddr == TEXT_VA + 52
    movable = Elf([Phdr(0, offset=0, filesz=0x200)], fields={"e_type": ET_DYN}).build()
    assert load_elf(movable.ljust(0x200, b"\0")).at(0x5000).phdr_vaddr == 0x5000 + 52
    assert load_elf(program()).phdr_vaddr is None


def test_ring_0_goes_to_its_physical_address() -> None:
    image = load_elf(program(Phdr(0xC0106000, TEXT), Phdr(0xC0107000, b"d", 0x2000, memsz=0x900)))
    assert image.ring == 0
    ram = Ram(4 << 20)
    ram.fill(0x106000, 0x3000, 0xFF)
    image.load_physical(ram)
    assert ram.read(0x106000, len(TEXT)) == TEXT
    assert ram.read(0x107000, 0x900) == b"d" + bytes(0x8FF)
    assert ram.read8(0x107900) == 0xFF


@pytest.mark.parametrize(("vaddr", "memsz"), [(0xC0106000, 0x1000), (0xC037D000, 0x1000)])
def test_ring_0_may_use_its_whole_range(vaddr: int, memsz: int) -> None:
    assert load_elf(program(Phdr(vaddr, b"x", memsz=memsz))).ring == 0


def test_ring_3_may_reach_up_to_task_size() -> None:
    assert load_elf(program(Phdr(0xBFFFF000, b"x", memsz=0x1000))).ring == 3


def test_ring_0_segments_may_share_a_page() -> None:
    pair = (Phdr(0xC0106000, b"text", flags=5), Phdr(0xC0106010, b"data", 0x2010, flags=6))
    assert load_elf(program(*pair)).ring == 0


def static_pie() -> ElfImage:
    elf = Elf(
        [
            Phdr(0x1000, TEXT),
            Phdr(0x2000, b"tls", 0x2000, flags=6, memsz=8),
            Phdr(0x2000, b"tls", 0x2000, type=PT_TLS, memsz=8, align=4),
        ],
        symbols=[("start", 0x1000, 0x12, 1), ("fixed", 0x77, 0x10, 0xFFF1)],
        fields={"e_type": ET_DYN, "e_entry": 0x1010},
    )
    return load_elf(elf.build(), "pie.elf")


def test_static_pie_moves_as_a_whole() -> None:
    image = static_pie()
    moved = image.at(0x80000000)
    assert image.position_independent
    assert moved.entry == 0x80001010
    assert [segment.vaddr for segment in moved.segments] == [0x80001000, 0x80002000]
    assert moved.symbols == {"start": 0x80001000}
    assert moved.tls is not None
    assert (moved.tls.vaddr, moved.tls.filesz, moved.tls.memsz) == (0x80002000, 3, 8)
    assert image.entry == 0x1010


@pytest.mark.parametrize("bias", [1, 0x800, -0x1000, 0xBFFFF000])
def test_static_pie_moves_by_pages_below_task_size(bias: int) -> None:
    with pytest.raises(BadElf, match="load bias"):
        static_pie().at(bias)


def test_a_program_linked_to_addresses_does_not_move() -> None:
    with pytest.raises(BadElf, match="fixed addresses"):
        load_elf(program()).at(0x1000)


def test_ring_3_has_no_physical_address() -> None:
    with pytest.raises(BadElf, match="ring-3"):
        load_elf(program()).load_physical(Ram(1 << 20))


def test_symbols_global_before_local_defined_only() -> None:
    symbols = [
        ("twice", 0x1, 0x02, 1),
        ("twice", 0x2, 0x12, 1),
        ("local", 0x3, 0x01, 1),
        ("undefined", 0x4, 0x12, 0),
        ("file.c", 0x5, 0x04, 0xFFF1),
        ("absolute", 0x6, 0x10, 0xFFF1),
        ("thread_local", 0x7, 0x16, 1),
    ]
    image = load_elf(Elf(sound_phdrs(), symbols=symbols).build())
    assert image.symbols == {"twice": 2, "local": 3, "absolute": 6}


def header_cases() -> list[tuple[bytes, str]]:
    elf = b"\x7fELF"
    sound = sound_phdrs()
    return [
        (b"", "starts with nothing"),
        (b"#!/bin/sh\n", "starts with 23 21 2f 62"),
        (elf, "identification is damaged"),
        (Elf(sound, ident=elf + bytes([3, 1, 1]) + bytes(9)).build(), "neither 32 nor 64"),
        (Elf(sound, ident=elf + bytes([1, 2, 1]) + bytes(9)).build(), "big-endian"),
        (Elf(sound, ident=elf + bytes([1, 0, 1]) + bytes(9)).build(), "byte order"),
        (Elf(sound, ident=elf + bytes([1, 1, 0]) + bytes(9)).build(), "version"),
        (Elf(sound, bits=64).build(), "64-bit program"),
        (program()[:40], "truncated: the ELF header"),
        (program(e_machine=62), "machine X86_64"),
        (program(e_machine=40), "machine ARM"),
        (program(e_machine=0xFEED), "machine 65261"),
        (program(e_type=ET_REL), "an object file"),
        (program(e_type=ET_CORE), "a core dump"),
        (program(e_type=0), "type ET_NONE"),
        (program(e_version=2), "e_version"),
        (program(e_phentsize=56), "program headers of 56 bytes"),
        (program(e_phnum=0), "nothing to load"),
        (program(e_phnum=0xFFFE), "the table of 65534 program headers"),
        (program(e_phnum=0xFFFF, e_shoff=0xFFFFFFF0), "section header 0"),
        (program(e_phoff=0xFFFFFFF0), "truncated: the table of 2 program headers"),
        (program(e_shoff=0xFFFFFFF0, e_shnum=3), "truncated: the table of 3 section headers"),
        (program(e_shoff=52, e_shnum=1, e_shentsize=7), "section headers of 7 bytes"),
        (program(e_entry=0), "entry point 0x00000000"),
        (program(e_entry=TEXT_VA - 1), "lies in no segment"),
        (program(e_entry=TEXT_VA + len(TEXT)), "lies in no segment"),
        (program(e_type=ET_DYN, e_entry=DATA_VA), "not executable"),
    ]


@pytest.mark.parametrize(("content", "said"), header_cases())
def test_a_wrong_header_is_named(content: bytes, said: str) -> None:
    assert said in refusal(content)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (changed(offset=0x7000, filesz=len(TEXT), data=b""), "truncated: segment at 0x08048000"),
        (changed(filesz=0x500, memsz=0x400), "p_filesz 0x500 is more than p_memsz 0x400"),
        (changed(filesz=0xFFFFFFFF), "wrap around"),
        (changed(1, vaddr=0xFFFFF400, memsz=0x1000), "wrap around"),
        (changed(1, memsz=0x40000001), "bytes of memory: there are"),
        (changed(align=0x1800), "not a power of two"),
        (changed(1, vaddr=DATA_VA + 8), "not congruent"),
        (changed(1, vaddr=DATA_VA + 8, align=4), "not congruent"),
        (changed(align=0x100000), "not congruent"),
        (changed(1, vaddr=TEXT_VA + 0x3FF, align=1, offset=0x13FF), "overlap"),
        (changed(1, vaddr=TEXT_VA + 0x400), "share page 0x08048000"),
        (changed(1, vaddr=0xC0000400), "above TASK_SIZE"),
        (changed(1, vaddr=0xBFFFF400), "above TASK_SIZE"),
        (changed(1, vaddr=0xC0105400), "above TASK_SIZE"),
        (changed(1, vaddr=0xC037F400), "above TASK_SIZE"),
        (changed(1, vaddr=0xC0106400), "both sides"),
        (changed(memsz=0, filesz=0), "entry point"),
    ],
)
def test_a_wrong_segment_is_named(content: bytes, said: str) -> None:
    assert said in refusal(content)


def test_a_page_is_shared_only_by_one_run_of_the_file() -> None:
    first, second = Phdr(TEXT_VA, b"ab"), Phdr(TEXT_VA + 2, b"cd", 0x1002)
    assert len(load_elf(program(first, second)).segments) == 2
    for name, value in (("flags", 7), ("offset", 0x3002)):
        other = Phdr(TEXT_VA + 2, b"cd", 0x1002)
        setattr(other, name, value)
        assert "share page" in refusal(program(first, other))


def test_more_memory_than_there_is() -> None:
    assert "there are 4096" in refusal(program(), ram=4096)
    assert load_elf(program(), ram=0x2400).ring == 3


def test_too_many_program_headers() -> None:
    assert "at most 2048" in refusal(program(*(Phdr(0x1000, type=6) for _ in range(2049))))


def test_the_dynamic_interpreter_is_named() -> None:
    path = b"/lib/ld-linux.so.2\0"
    message = refusal(program(*sound_phdrs(), Phdr(0, path, 0x2000, type=PT_INTERP)))
    assert "/lib/ld-linux.so.2:" in message
    assert "-static" in message


def test_an_interpreter_cannot_break_the_line() -> None:
    path = b"/lib/\n\x1b[31mld.so\0"
    assert "\\n\\x1b" in refusal(program(Phdr(0, path, 0x2000, type=PT_INTERP)))


@pytest.mark.parametrize(("tags", "ok"), [([5, 1, 0], False), ([5, 0, 1], True), ([], True)])
def test_needed_libraries_are_refused(tags: list[int], ok: bool) -> None:
    table = b"".join(struct.pack("<II", tag, 1) for tag in tags)
    dynamic = Phdr(0, table, 0x2000, type=PT_DYNAMIC)
    content = program(*sound_phdrs(), dynamic, e_type=ET_DYN, e_entry=TEXT_VA)
    if ok:
        assert load_elf(content).position_independent
    else:
        assert "shared libraries" in refusal(content)


def test_ring_0_is_not_position_independent() -> None:
    content = program(Phdr(0xC0106000, TEXT), e_type=ET_DYN)
    assert "-no-pie" in refusal(content)


@pytest.mark.parametrize(
    "tls",
    [
        Phdr(0x08060000, b"", type=PT_TLS, filesz=4),
        Phdr(DATA_VA, b"", type=PT_TLS, filesz=8, memsz=4),
        Phdr(DATA_VA, b"", type=PT_TLS, filesz=4, align=3),
        Phdr(DATA_VA, b"", type=PT_TLS, filesz=4, memsz=0x50000000),
    ],
)
def test_a_wrong_tls_template(tls: Phdr) -> None:
    assert "PT_TLS" in refusal(program(*sound_phdrs(), tls))


def test_two_tls_templates() -> None:
    tls = Phdr(DATA_VA, b"", type=PT_TLS, filesz=4)
    assert "more than one" in refusal(program(*sound_phdrs(), tls, tls))


def symbol_file(change: Callable[[bytearray, int], None]) -> bytes:
    content = bytearray(Elf(sound_phdrs(), symbols=[("a", 1, 0x12, 1)]).build())
    shoff = struct.unpack_from("<I", content, 32)[0]
    change(content, shoff)
    return bytes(content)


@pytest.mark.parametrize(
    ("place", "value", "said"),
    [
        (40 + 24, 9, "no names"),
        (40 + 24, 1, "no names"),
        (40 + 16, 0xFFFFFFF0, "truncated: the symbol table"),
        (80 + 16, 0xFFFFFFF0, "truncated: the symbol names"),
        (40 + 20, 17, "no multiple of 16"),
    ],
)
def test_a_damaged_symbol_table(place: int, value: int, said: str) -> None:
    def change(content: bytearray, shoff: int) -> None:
        struct.pack_into("<I", content, shoff + place, value)

    assert said in refusal(symbol_file(change))


def test_overlapping_symbol_names_cannot_fill_memory() -> None:
    long = "a" * 4000
    symbols = [(long, 0, 0x12, 1), *(("b", 0, 0x12, 1) for _ in range(17000))]
    content = bytearray(Elf(sound_phdrs(), symbols=symbols).build())
    at = struct.unpack_from("<I", content, struct.unpack_from("<I", content, 32)[0] + 56)[0]
    for index in range(1, len(symbols) + 1):
        struct.pack_into("<I", content, at + 16 * index, 1)
    assert "symbol names" in refusal(bytes(content))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    for path, said in (
        (tmp_path / "absent", "No such file"),
        (tmp_path, "not a regular file"),
        (Path("/dev/zero"), "not a regular file"),
        (Path("a\0b"), "cannot be read"),
    ):
        with pytest.raises(BadElf, match=said):
            load_elf(path)


def test_a_huge_file_is_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "huge"
    with path.open("wb") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(BadElf, match="at most"):
        load_elf(path)


def test_a_name_cannot_break_the_line(tmp_path: Path) -> None:
    path = tmp_path / "two\nlines"
    path.write_bytes(b"")
    with pytest.raises(BadElf) as caught:
        load_elf(path)
    assert "\n" not in str(caught.value)


SOUND = Elf(
    [
        *sound_phdrs(),
        Phdr(DATA_VA, b"", type=PT_TLS, filesz=4, offset=0x1400),
        Phdr(DATA_VA, bytes(16), 0x2000, type=PT_DYNAMIC),
    ],
    symbols=[("start", TEXT_VA, 0x12, 1)],
).build()
INTERESTING = [*range(52 + 4 * 32), *range(len(SOUND) - 120, len(SOUND))]
"""Where the header, the program headers and the section headers lie."""


@given(
    st.lists(
        st.tuples(
            st.sampled_from(INTERESTING) | st.integers(0, len(SOUND) - 1), st.integers(0, 255)
        ),
        max_size=6,
    ),
    st.integers(0, len(SOUND)) | st.just(len(SOUND)),
)
def test_damage_is_refused_or_harmless(damage: list[tuple[int, int]], length: int) -> None:
    content = bytearray(SOUND)
    for place, value in damage:
        content[place] = value
    message = ""
    try:
        check_invariants(load_elf(bytes(content[:length]), "damaged"))
    except BadElf as error:
        message = str(error)
    assert message.isprintable()


@given(st.binary(max_size=200))
def test_noise_behind_the_magic_is_refused(noise: bytes) -> None:
    refusal(b"\x7fELF\x01\x01\x01" + noise)


def check_invariants(image: ElfImage) -> None:
    """What a caller may rely on, of any image that was not refused."""
    limit = 0xC0000000 if image.ring == 3 else 0xC037E000
    end = 0
    for segment in image.segments:
        assert len(segment.data) <= segment.memsz
        assert end <= segment.vaddr < segment.end <= limit
        end = segment.end
    assert any(segment.vaddr <= image.entry < segment.end for segment in image.segments)
    assert sum(segment.memsz for segment in image.segments) <= 1 << 30
