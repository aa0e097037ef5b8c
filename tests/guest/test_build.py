# SPDX-License-Identifier: GPL-2.0-or-later
"""The build: same bytes each time, safe side by side, loud when it fails."""

import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from guest import build
from harness.hypercalls import CONSOLE_PORT, HYPERCALL_PORT, Hypercall


def contents(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def test_every_program_is_there(built: Path) -> None:
    names = {str(program.path) for program in build.programs()}
    assert {name for name in contents(built) if name.endswith(".elf")} == names


@pytest.mark.slow
def test_two_builds_at_once_from_different_places_give_the_same_bytes(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = tmp_path / "elsewhere" / "guest"
    shutil.copytree(build.GUEST, sources, ignore=shutil.ignore_patterns("built", "__pycache__"))
    monkeypatch.setattr(build, "GUEST", sources)
    target = tmp_path / "target"
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(build.build_guests, [target, target]))
    assert contents(target) == contents(built)


@pytest.mark.slow
def test_changed_source_changes_the_bytes(
    built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = tmp_path / "guest"
    shutil.copytree(build.GUEST, sources, ignore=shutil.ignore_patterns("built", "__pycache__"))
    hello = sources / "user" / "hello.c"
    hello.write_text(hello.read_text().replace("ring 3", "ring 4"))
    monkeypatch.setattr(build, "GUEST", sources)
    build.build_guests(tmp_path / "target")
    before, after = contents(built), contents(tmp_path / "target")
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"user/hello.elf", "user/hello_pie.elf"}


def test_leftovers_are_removed(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    for place, name in ((source, "kept.elf"), (target, "gone.elf")):
        (place / "nohm").mkdir(parents=True, exist_ok=True)
        (place / "nohm" / name).write_bytes(b"x")
    build.install(source, target)
    assert list(contents(target)) == ["nohm/kept.elf"]


@pytest.mark.slow
def test_bad_source_is_reported_in_the_compilers_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = tmp_path / "guest"
    shutil.copytree(build.GUEST, sources, ignore=shutil.ignore_patterns("built", "__pycache__"))
    (sources / "user" / "hello.c").write_text("int main(void) { return undeclared; }\n")
    monkeypatch.setattr(build, "GUEST", sources)
    with pytest.raises(build.GuestBuildError, match=r"user/hello\.elf: .*undeclared"):
        build.build_guests(tmp_path / "target")
    assert not (tmp_path / "target").exists()


def test_hypercall_numbers_in_the_header(built: Path) -> None:
    for header in built.rglob("hypercall_numbers.h"):
        pairs = dict(re.findall(r"#define (\w+) (\w+)", header.read_text()))
        numbers = {name: int(value, 0) for name, value in pairs.items()}
        expected = {f"HC_{call.name}": call.value for call in Hypercall}
        expected |= {"HYPERCALL_PORT": HYPERCALL_PORT, "CONSOLE_PORT": CONSOLE_PORT}
        assert numbers == expected


def headers() -> list[tuple[str, str]]:
    """Every header with each language in which some source includes it."""
    pairs = set()
    for source in build.GUEST.glob("*/*.[chS]"):
        language = ".S" if source.suffix == ".S" else ".c"
        pairs |= {
            (name, language) for name in re.findall(r'#include "(\w+\.h)"', source.read_text())
        }
    return sorted(pair for pair in pairs if (build.GUEST / "include" / pair[0]).exists())


@pytest.mark.parametrize(("header", "suffix"), headers())
def test_each_header_compiles_alone(built: Path, tmp_path: Path, header: str, suffix: str) -> None:
    source = tmp_path / f"alone{suffix}"
    source.write_text(f'#include "{header}"\n')
    program = build.Program("nohm", "alone", ("-c", str(source)))
    shutil.copytree(built / "nohm" / "include", tmp_path / "nohm" / "include")
    build.compile_program(program, tmp_path, tmp_path / "cache")
