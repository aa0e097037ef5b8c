# SPDX-License-Identifier: GPL-2.0-or-later
"""The vsyscall pages: shared objects of one page, with each function where Linux 2.6 has it."""

import capstone
import pytest
from elftools.elf.elffile import ELFFile

from harness.guests import guest_path

BASE = 0xFFFFE000
RETURN = BASE + 0x410
SYMBOLS = {
    "__kernel_vsyscall": BASE + 0x400,
    "__kernel_sigreturn": BASE + 0x420,
    "__kernel_rt_sigreturn": BASE + 0x440,
}

pytestmark = pytest.mark.book("4.8", release="2.6")


@pytest.mark.parametrize("name", ["int80", "sysenter"])
def test_one_page_with_three_functions(name: str) -> None:
    with guest_path(name, "vsyscall").open("rb") as file:
        elf = ELFFile(file)
        (load,) = [s for s in elf.iter_segments() if s["p_type"] == "PT_LOAD"]
        assert (load["p_vaddr"], load["p_offset"]) == (BASE, 0)
        assert load["p_filesz"] <= 4096
        assert elf["e_type"] == "ET_DYN"
        dynamic = elf.get_section_by_name(".dynamic")
        tags = {tag.entry.d_tag: tag for tag in dynamic.iter_tags()}
        assert tags["DT_SONAME"].soname == "linux-gate.so.1"
        assert BASE < tags["DT_HASH"].entry.d_val < BASE + 4096
        found = {s.name: s["st_value"] for s in elf.get_section_by_name(".dynsym").iter_symbols()}
        assert {name: found[name] for name in SYMBOLS} == SYMBOLS


def test_a_call_starts_again_two_bytes_before_it_returns() -> None:
    page = guest_path("sysenter", "vsyscall").read_bytes()[:4096]
    engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_32)
    code = {i.address: i for i in engine.disasm(page[0x400:0x420], BASE + 0x400)}
    jump = code[RETURN - 2]
    assert jump.mnemonic == "jmp"
    again = code[int(jump.op_str, 16)]
    assert (again.mnemonic, again.op_str) == ("mov", "ebp, esp")
    assert code[again.address + again.size].mnemonic == "sysenter"
