# SPDX-License-Identifier: GPL-2.0-or-later
"""What a loader relies on in the ELF files."""

from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection

from guest import build
from kernel_model.structs import header
from tests.guest.bare_machine import PAGE_OFFSET, symbols

KERNEL = [program.path for program in build.programs() if program.directory in header.VARIANTS]
USER = [program.path for program in build.programs() if program.directory == build.USER]
PIE = [path for path in USER if path.stem.endswith("_pie")]
FIXED = [path for path in USER if path not in PIE]

READ, WRITE, EXECUTE = 4, 2, 1
INT3 = 0xCC
FIRST, LAST = 0xC0106000, 0xC037E000


def segments(elf: ELFFile) -> list[tuple[int, int, int, int]]:
    """``p_vaddr``, ``p_paddr``, ``p_memsz`` and ``p_flags`` of each PT_LOAD."""
    return [
        (s["p_vaddr"], s["p_paddr"], s["p_memsz"], s["p_flags"])
        for s in elf.iter_segments("PT_LOAD")
    ]


@pytest.mark.parametrize("path", KERNEL + USER, ids=str)
def test_every_guest_is_a_static_i386_elf_without_debug_information(
    built: Path, path: Path
) -> None:
    with (built / path).open("rb") as file:
        elf = ELFFile(file)
        assert (elf.elfclass, elf["e_machine"]) == (32, "EM_386")
        assert elf["e_type"] == ("ET_DYN" if path in PIE else "ET_EXEC")
        assert not list(elf.iter_segments("PT_INTERP"))
        assert not [s.name for s in elf.iter_sections() if s.name.startswith((".debug", ".eh"))]


@pytest.mark.parametrize("path", KERNEL + FIXED, ids=str)
def test_linked_guests_have_no_relocations(built: Path, path: Path) -> None:
    with (built / path).open("rb") as file:
        sections = ELFFile(file).iter_sections()
        assert not [s.name for s in sections if isinstance(s, RelocationSection)]


@pytest.mark.parametrize("path", KERNEL, ids=str)
def test_kernel_image_lies_between_the_boot_tables_and_the_static_objects(
    built: Path, path: Path
) -> None:
    with (built / path).open("rb") as file:
        elf = ELFFile(file)
        text, data = segments(elf)
        assert elf["e_entry"] == text[0] == FIRST
    assert (text[3], data[3]) == (READ | EXECUTE, READ | WRITE)
    for vaddr, paddr, size, _ in (text, data):
        assert paddr == vaddr - PAGE_OFFSET
        assert FIRST <= vaddr < vaddr + size <= LAST
    assert text[0] + text[2] <= data[0]


@pytest.mark.parametrize("path", KERNEL, ids=str)
def test_kernel_image_has_what_the_harness_calls(built: Path, path: Path) -> None:
    names = symbols(built / path)
    wanted = "startup_32 kernel_return kernel_stack kernel_stack_top gdt idt tss enter_user "
    wanted += "call_user probe_kernel probe_user probe_user_text_start probe_user_text_end _end"
    assert set(wanted.split()) <= set(names)
    assert names["kernel_stack_top"] - names["kernel_stack"] == 8192
    assert names["kernel_stack"] % 8192 == 0


@pytest.mark.parametrize("path", KERNEL, ids=str)
def test_probe_text_has_a_page_of_its_own(built: Path, path: Path) -> None:
    names = symbols(built / path)
    start, end = names["probe_user_text_start"], names["probe_user_text_end"]
    assert start % 4096 == 0
    assert 0 < end - start <= 4096
    with (built / path).open("rb") as file:
        text = ELFFile(file).get_section_by_name(".text")
        page = text.data()[start - text["sh_addr"] :][:4096]
    assert set(page[end - start :]) == {INT3}


@pytest.mark.parametrize("path", FIXED, ids=str)
def test_user_programs_are_linked_where_linux_links_them(built: Path, path: Path) -> None:
    with (built / path).open("rb") as file:
        elf = ELFFile(file)
        first, *rest = segments(elf)
        assert first[0] == 0x08048000
        assert first[3] == READ | EXECUTE
        assert first[0] < elf["e_entry"] < first[0] + first[2]
    assert [flags for *_, flags in rest] in ([], [READ | WRITE])


@pytest.mark.parametrize("path", PIE, ids=str)
def test_static_pie_has_only_relative_relocations(built: Path, path: Path) -> None:
    relative = 8
    with (built / path).open("rb") as file:
        section = ELFFile(file).get_section_by_name(".rel.dyn")
        relocations = section.iter_relocations() if section else ()
        kinds = [relocation["r_info_type"] for relocation in relocations]
    assert set(kinds) <= {relative}
    assert kinds or path.stem != "hello_pie", "the program that is there to be relocated"
