# SPDX-License-Identifier: GPL-2.0-or-later
"""The generated header, judged by a C compiler for i386."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from kernel_model.structs import Structs
from kernel_model.structs.header import VARIANTS, header_text

needs_compiler = pytest.mark.skipif(
    importlib.util.find_spec("ziglang") is None, reason="ziglang is not installed"
)
EVERY_VARIANT = pytest.mark.parametrize("variant", VARIANTS)
MEMBER = "\tunsigned long index;\n"


def compile_c(text: str, path: Path) -> subprocess.CompletedProcess[str]:
    """Compile the header, and then each row of its own table of sizes and offsets."""
    (path / "kernel_structs.h").write_text(text, encoding="ascii")
    source = path / "check.c"
    source.write_text(
        '#include "kernel_structs.h"\n'
        '#include "kernel_structs.h"\n'
        "#define ROW(compiled, declared, name) _Static_assert(compiled == declared, name);\n"
        "KERNEL_LAYOUT_ROWS(ROW)\n"
        "unsigned long *first(void) { return &statics->mmu_cr4_features; }\n",
        encoding="ascii",
    )
    command = [sys.executable, "-m", "ziglang", "cc", "-target", "x86-freestanding-none"]
    command += ["-std=c11", "-Wall", "-Wextra", "-Werror", "-c", str(source)]
    command += ["-o", str(path / "check.o")]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@needs_compiler
@EVERY_VARIANT
def test_the_compiler_lays_everything_out_as_declared(variant: str, tmp_path: Path) -> None:
    result = compile_c(header_text(variant), tmp_path)
    assert result.returncode == 0, result.stderr


@needs_compiler
def test_a_changed_field_makes_the_compile_fail_and_names_it(tmp_path: Path) -> None:
    text = header_text("hm")
    assert text.count(MEMBER) == 1
    result = compile_c(text.replace(MEMBER, "\tunsigned long long index;\n"), tmp_path)
    assert result.returncode != 0
    assert '"page.next_hash"' in result.stderr or "page.next_hash" in result.stderr


@needs_compiler
def test_a_swapped_pair_and_a_wrong_number_make_the_compile_fail(tmp_path: Path) -> None:
    text = header_text("nohm")
    swapped = text.replace(
        "\tatomic_t count;\n\tunsigned long flags;\n",
        ("\tunsigned long flags;\n\tatomic_t count;\n"),
    )
    wrong = re.sub(r"(sizeof\(zone_t\) == )(\d+)", lambda m: m[1] + str(int(m[2]) + 4), text)
    for changed in (swapped, wrong):
        assert changed != text
        assert compile_c(changed, tmp_path).returncode != 0


@EVERY_VARIANT
def test_every_structure_and_every_static_object_is_in_the_header(variant: str) -> None:
    text, structs = header_text(variant), Structs.of(VARIANTS[variant])
    for kind in structs.all():
        assert f"sizeof({kind.spelling}) == {kind.size}," in text
        for name, _ in kind.members:
            assert f"__builtin_offsetof({kind.spelling}, {name}) == {kind.offset(name)}," in text
    symbols = dict(re.findall(r"#define SYM_(\w+) (0x[0-9A-F]{8})u", text))
    assert set(symbols) == {name for name, _ in structs.kernel_statics.members}
    addresses = [int(address, 16) for address in symbols.values()]
    assert addresses == sorted(addresses)
    assert addresses[0] == 0xC0380000


def test_the_builds_differ_where_they_should() -> None:
    texts = {variant: header_text(variant) for variant in VARIANTS}

    def built_with(option: str) -> set[str]:
        return {variant for variant in texts if option in texts[variant]}

    assert built_with("CONFIG_HIGHMEM") == {"hm", "pae", "hm_2_6", "pae_2_6"}
    assert built_with("CONFIG_X86_PAE") == {"pae", "pae_2_6"}
    assert built_with("LINUX_2_6") == {name for name in texts if name.endswith("_2_6")}
    assert texts["nohm"] == header_text("nohm")
    assert all(text.isascii() for text in texts.values())


def test_the_command_writes_the_header(tmp_path: Path) -> None:
    target = tmp_path / "kernel_structs.h"
    command = [sys.executable, "-m", "kernel_model.structs.header", "pae", str(target)]
    root = Path(__file__).parents[3]
    subprocess.run(command, check=True, cwd=root)
    assert target.read_text(encoding="ascii") == header_text("pae")
