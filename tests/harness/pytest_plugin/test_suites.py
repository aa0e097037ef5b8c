# SPDX-License-Identifier: GPL-2.0-or-later
"""The shipped suites: ours pass, each planted fault is found and named, results are merged."""

import json
from collections import Counter
from typing import Any

import pytest

from harness.commands.conform import CpuName, conform
from harness.conformance.chunks import CHUNKS, Chunk, ChunkFailed, as_json, merged, run_chunk
from harness.conformance.flags import MODES
from harness.conformance.matrix import run_matrix
from harness.conformance.subject import UnicornSubject
from harness.conformance.suites import QUICK, suite
from kernel_model.errors import BadInput
from tests.harness.pytest_plugin.planted_backends import lying_subject
from tests.harness.pytest_plugin.running import (
    OPENED,
    check_words,
    junit_failure,
    plant,
    run,
    run_apart,
    text_of,
)

pytest_plugins = ["pytester"]
SUITES = ("--pyargs", "harness.suites", "--mmu-ram", "16M")


# -- ours ----------------------------------------------------------------------------------------


RELEASES = pytest.mark.parametrize("release", ["2.4", "2.6"])


@RELEASES
def test_a_part_of_them_passes(pytester: pytest.Pytester, release: str) -> None:
    chosen = "split and 486 or buddy or slab and plain or zero or copy_on_write or none-user"
    result = run(pytester, *SUITES, "--mmu-kernel", release, "-k", chosen)
    assert result.ret == 0
    outcomes = result.parseoutcomes()
    assert outcomes["passed"] >= 10
    assert "skipped" not in outcomes


@pytest.mark.slow
@RELEASES
def test_all_of_them_pass(pytester: pytest.Pytester, release: str) -> None:
    options = ("--mmu-kernel", release, "--junitxml", "junit.xml", "-n", "2")
    result = run_apart(pytester, *SUITES, *options)
    assert result.ret == 0
    outcomes = result.parseoutcomes()
    assert outcomes["passed"] >= 130
    assert "skipped" not in outcomes
    document = json.loads((pytester.path / "matrix.json").read_text())
    subject = UnicornSubject()
    report = run_matrix(QUICK, [subject], lambda s: suite(QUICK, s.features)).as_json()
    (cpu,), (expected,) = document["cpus"], report["cpus"]
    for key in ("cases", "failing", "modes", "either_allowed", "findings"):
        assert cpu[key] == expected[key], key
    # How often some of them show depends on what the TLB still holds.
    known = [[entry["name"] for entry in one["known_divergences"]] for one in (cpu, expected)]
    assert known[0] == known[1]


# -- planted -------------------------------------------------------------------------------------

Found = dict[str, tuple[str, list[str]]]
FOUND: Found = {
    "UserBitLost": (
        "test_copy_on_write or anonymous",
        ["written by do_anonymous_page() <-", "US lost", "set_pte() is wrong"],
    ),
    "OpenKernel": (
        "486 or pse and booted or pse and split",
        ["written by pagetable_init() <-", "the split does not hold", "ring 3 read kernel memory"],
    ),
    "NoFlush": (
        "test_vmas or outlives",
        [
            "MISSING FLUSH",
            "written by zap_page_range() <- do_munmap(), mm/memory.c",
            "user read after munmap: no fault",
            "Intel SDM 3A, 4.10.4",
        ],
    ),
    "NoFlushOfKernelPages": ("vmalloc_and_kmap", ["MISSING FLUSH", "written by vfree()"]),
    "SharedForever": (
        "copy_on_write",
        ["PTE of the parent after fork: P W U A D", "written by copy_page_range()"],
    ),
    "KeepsPageTables": (
        "gives_everything_back",
        ["frames are not free again", "(page table)", "clear_page_tables(), mm/memory.c"],
    ),
    "ProtectsNothing": (
        "test_vmas or was",
        [
            "VMAs after 'protect 4 1 r'",
            "mprotect_fixup(), mm/mprotect.c",
            "user read was writable: ",
        ],
    ),
    "KeepsAreas": (
        "test_vmalloc and allocators",
        ["is still in vmlist", "vfree(), mm/vmalloc.c (book 7.3)"],
    ),
    "LosesFrames": ("buddy", ["frames that were not given back: 0x", "__free_pages_ok()"]),
    "GivesTwice": ("slab", ["kmem_cache_alloc() gave 0x", "is in use", "mm/slab.c"]),
    "LyingCpu": (
        "write and anonymous or 486 and booted",
        ["EMULATOR BUG", "error code 5", "Intel SDM 3A, 4.7", "more ranges: 0x"],
    ),
    "DeafCpu": (
        "zero",
        ["what memory holds: 0x0", "MISSING FLUSH", "written by do_wp_page() <-"],
    ),
}


FOUND_2_6: Found = FOUND | {
    "NoFlush": (
        FOUND["NoFlush"][0],
        [
            "MISSING FLUSH",
            "written by unmap_range() <- unmap_vmas() <- unmap_region() <- do_munmap()",
            "user read after munmap: no fault",
            "Intel SDM 3A, 4.10.4",
        ],
    ),
    "NoFlushOfKernelPages": (
        FOUND["NoFlushOfKernelPages"][0],
        ["MISSING FLUSH", "written by unmap_vm_area() <- vfree(), mm/vmalloc.c"],
    ),
}
"""The same on 2.6, where other functions write the entries."""
LONG = {"OpenKernel", "NoFlushOfKernelPages", "LyingCpu", "DeafCpu"}
"""Of these 2.6 shows nothing that 2.4 has not shown, and they take most of the time."""
PLANTED = [
    pytest.param(
        release,
        name,
        marks=pytest.mark.slow if release == "2.6" and name in LONG else (),
    )
    for release, found in {"2.4": FOUND, "2.6": FOUND_2_6}.items()
    for name in found
]


@pytest.mark.parametrize(("release", "name"), PLANTED)
def test_planted(pytester: pytest.Pytester, release: str, name: str) -> None:
    chosen, said = {"2.4": FOUND, "2.6": FOUND_2_6}[release][name]
    plant(pytester)
    options = (f"--mmu-backend=planted_backends:{name}", "--mmu-kernel", release)
    result = run(pytester, *SUITES, *options, "-k", f"({chosen}) and not matrix")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    for words in said:
        assert words in text_of(result), words


def test_an_honest_kernel_of_the_users_passes(pytester: pytest.Pytester) -> None:
    plant(pytester)
    backend = "--mmu-backend=planted_backends:Honest"
    chosen = "(copy_on_write or outlives or buddy) and not matrix"
    result = run(pytester, *SUITES, backend, "-k", chosen)
    result.assert_outcomes(passed=4, deselected=result.parseoutcomes()["deselected"])


@pytest.mark.parametrize(
    "options",
    [
        ["--mmu-cpu-model", "486"],
        ["--mmu-cpus", "2", "--mmu-cpu-model", "pentium"],
        ["--mmu-nodes", "2", "--mmu-ram", "64M"],
        ["--mmu-highmem", "64G", "--mmu-ram", "1G"],
    ],
    ids=" ".join,
)
def test_any_machine_can_be_named(pytester: pytest.Pytester, options: list[str]) -> None:
    """No test of the suites has a marker that contradicts it."""
    result = run(pytester, *SUITES, "--co", "-q", *options)
    assert result.ret == 0


# -- the matrix in chunks --------------------------------------------------------------------------


def test_chunks_are_the_suite() -> None:
    """Every case in one chunk, and in one alone."""
    subject = UnicornSubject()
    by_mode = Counter[str]()
    for mode, cases in suite(QUICK, subject.features):
        by_mode[mode.name] += len(cases)
    in_chunks = Counter[str]()
    for chunk in CHUNKS:
        in_chunks[chunk.mode] += len(chunk.cases(QUICK, subject.features))
    assert in_chunks == by_mode
    assert len({str(chunk) for chunk in CHUNKS}) == len(CHUNKS) <= 300
    assert {chunk.mode for chunk in CHUNKS} == {mode.name for mode in MODES}


def test_merged_chunks() -> None:
    chunks = [chunk for chunk in CHUNKS if chunk.mode in ("none", "2-level")]
    one, other = UnicornSubject(), UnicornSubject()
    parts = []
    for number, chunk in enumerate(chunks):
        result = run_chunk((one, other)[number % 2], chunk, QUICK)
        if result is not None:
            parts.append(json.loads(json.dumps(as_json(chunk, result, QUICK))))
    document = merged(reversed(parts))
    wanted = [mode for mode in MODES if mode.name in ("none", "2-level")]
    whole = run_matrix(QUICK, [one], lambda s: suite(QUICK, s.features, wanted)).as_json()
    assert document["ok"]
    for key in ("cases", "modes", "known_divergences", "either_allowed", "findings"):
        assert document["cpus"][0][key] == whole["cpus"][0][key], key
    assert sum(chunk["cases"] for chunk in document["chunks"]) == whole["cpus"][0]["cases"]


def test_a_failing_chunk(pytester: pytest.Pytester, capsys: pytest.CaptureFixture[str]) -> None:
    plant(pytester)
    backend = "planted_backends:lying_subject"
    chosen = "matrix and (2-level-user-write or 2-level-user-read)"
    options = ["--mmu-backend", backend, "-k", f"{chosen} and not across"]
    result = run(pytester, *SUITES, *options, "--mmu-matrix", "out/matrix.json")
    result.assert_outcomes(passed=1, failed=1, deselected=result.parseoutcomes()["deselected"])
    text = text_of(result)
    for words in (
        "EMULATOR BUG: unicorn is not what the manual says in",
        "user write: error code 4 (U), expected 6 (W|U)",
        "manual  Intel SDM 3A, 4.7",
        "failing cases (",
    ):
        assert words in text, words
    (line,) = {line for line in result.outlines if line.strip().startswith("repeat  ")} - {""}
    command = line.split()[1:]
    assert command[:4] == ["mmucheck", "conform", "--backend", backend]
    document = json.loads((pytester.path / "out" / "matrix.json").read_text())
    (cpu,) = document["cpus"]
    assert cpu["failing"] == sum(chunk["failing"] for chunk in document["chunks"]) > 0
    assert cpu["failing_cases"][0] in text
    assert not document["ok"]
    case = command[command.index("--case") + 1]
    capsys.readouterr()
    assert conform(backend=backend, case=[case]) == 1
    assert "error code 4 (U), expected 6 (W|U)" in capsys.readouterr().out


def test_a_backend_and_a_cpu() -> None:
    with pytest.raises(BadInput, match="leave out --cpu"):
        conform(cpu=[CpuName.UNICORN], backend="x:y")


def test_an_honest_subject_agrees_with_a_chunk_run_alone() -> None:
    chunk = Chunk("2-level", "write", "user")
    honest = run_chunk(UnicornSubject(), chunk, QUICK)
    lying = run_chunk(lying_subject(), chunk, QUICK, "--backend x:y")
    assert honest is not None
    assert lying is not None
    assert honest.ok
    told = str(ChunkFailed(chunk, lying))
    assert "mmucheck conform --backend x:y --case mode=2-level" in told
    assert len(lying.failing_cases) == min(lying.failing, 200)


@pytest.mark.slow
def test_everything_comes_home_from_every_worker(pytester: pytest.Pytester) -> None:
    """Words of a failure, results of the matrix, comparisons."""
    pytester.makepyfile(test_own=OPENED)
    chosen = ("test_own.py", "-k", "own or matrix and none", "--mmu-report", "all.json")
    result = run_apart(pytester, *SUITES, *chosen, "-n", "2", "--junitxml", "x/junit.xml")
    check_words(text_of(result))
    check_words(junit_failure(pytester.path / "x" / "junit.xml").text or "")
    assert '"verdict": "MODEL_BUG"' in (pytester.path / "all.json").read_text()
    document: dict[str, Any] = json.loads((pytester.path / "x" / "matrix.json").read_text())
    subject = UnicornSubject()
    expected = sum(len(cases) for mode, cases in suite(QUICK, subject.features, (MODES[0],)))
    assert document["cpus"][0]["cases"] == expected
    result.assert_outcomes(passed=len(document["chunks"]), failed=1)
    said = "mmucheck: 1 comparison of 1,048,576 pages, 1 range differs; "
    result.stdout.fnmatch_lines([f"{said}{expected:,} cases of the matrix, 0 failing"])
