# SPDX-License-Identifier: GPL-2.0-or-later
"""Fixtures, options and the marker: what a user's test gets, and what a mistake is told."""

import inspect
import subprocess
import sys

import pytest

import mmucheck_pytest
from harness.guests import guest_path
from tests.harness.pytest_plugin.running import (
    PLUGIN,
    STRICT,
    plant,
    results_of,
    run,
    run_apart,
    text_of,
)

pytest_plugins = ["pytester"]
HELLO = guest_path("hello")


def test_every_fixture(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        f"""
        import pytest

        def test_kernel_of_the_machine(kernel, machine):
            assert kernel is machine.kernel and kernel.started
            assert kernel.config.ram == 16 << 20
            assert kernel.processor is machine.cpu

        def test_kernel_alone(kernel):
            assert kernel.started and kernel.processor.read_cr3() == 0x101000

        @pytest.mark.mmu(ram="32M", highmem="64G", cpu_model="coreduo", swap_pages=64)
        def test_marker(machine):
            config = machine.kernel.config
            assert (config.ram, config.pae, config.cpu_model) == (32 << 20, True, "coreduo")
            assert config.swap_pages == 64

        @pytest.mark.mmu(ram="24M")
        class TestNearer:
            def test_class(self, kernel):
                assert kernel.config.ram == 24 << 20

            @pytest.mark.mmu(cpu_model="486")
            def test_both(self, kernel):
                assert (kernel.config.ram, kernel.config.cpu_model) == (24 << 20, "486")

        @pytest.mark.mmu(highmem="none")
        def test_of_one_kernel(mmu_machines, diff):
            kernel = mmu_machines.kernel()
            assert kernel.vmalloc.vmalloc(5000)
            diff(kernel)
            assert type(kernel.processor).__name__ == "UnicornCpu"

        def test_kernel_under_diff(kernel, machine, diff):
            assert kernel is machine.kernel

        def test_diff(diff, kernel, mmu_report):
            report = diff()
            assert kernel.processor.ram is kernel.ram
            assert report.ok and "16 MiB" in report.subject
            mmu_report.add({{"mine": 1}}, "note")

        def test_guest(run_guest, machine, diff):
            ran = run_guest({str(HELLO)!r}, "an argument")
            assert (ran.status, ran.signal, ran.output) == (0, None, b"hello, ring 3\\n")
            assert ran.statistics["pages_checked"] and ran.statistics["spaces_checked"]
            diff(machine)
        """
    )
    result = run(pytester, "--mmu-ram", "16M", "--mmu-report", "all.json")
    result.assert_outcomes(passed=9)
    result.stdout.fnmatch_lines(["mmucheck: 3 comparisons of 3,145,728 pages, all agree; 1 run *"])
    found = results_of(pytester.path / "all.json")
    assert sorted(result["kind"] for result in found) == [
        "GuestRun",
        "Report",
        "Report",
        "Report",
        "note",
    ]
    assert all(result.get("ok", True) for result in found)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--mmu-ram", "lots"], "--mmu-ram 'lots': not a size; write 64M"),
        (["--mmu-ram", "1M"], "from 5M to 64G"),
        (["--mmu-kernel", "7.0"], "unknown kernel release '7.0'"),
        (["--mmu-highmem", "8G"], "--mmu-highmem 8G: one of none, 4G, 64G"),
        (["--mmu-highmem", "64g", "--mmu-cpu-model", "486"], "choose pentium2 or later"),
        (["--mmu-cpu", "bochs"], "--mmu-cpu bochs: one of unicorn, qemu"),
        (["--mmu-cpu-model", "z80"], "one of 486, pentium"),
        (["--mmu-nodes", "x"], "--mmu-nodes 'x': not a number"),
        (["--mmu-cpus", "99"], "takes 1 to 32"),
        (["--mmu-seed=-1"], "--mmu-seed '-1': not a number"),
        (["--mmu-suite", "some"], "--mmu-suite some: one of quick, full"),
        (["--mmu-backend", "nothing"], "--mmu-backend nothing: give module:factory"),
        (["--mmu-backend", "not_there:x"], "not_there cannot be imported"),
        (["--mmu-backend", "json:nothing"], "json has no nothing: give module:factory"),
        (["--mmu-backend", "string:digits"], "digits cannot be called"),
        (["--mmu-backend", "json:loads"], "name its first parameter config if it makes a kernel"),
    ],
    ids=lambda value: value[-1] if isinstance(value, list) else "",
)
def test_bad_option(pytester: pytest.Pytester, arguments: list[str], said: str) -> None:
    result = run(pytester, *arguments)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    (line,) = [line for line in result.errlines if line.strip()]
    assert line.startswith("ERROR: ")
    assert said in line


@pytest.mark.parametrize(
    ("mark", "said"),
    [
        ('ram="x"', "@pytest.mark.mmu: ram 'x': not a size"),
        ('highmem="some"', "highmem some: one of none, 4G, 64G"),
        ("memory=3", "no 'memory': one of ram, kernel, rmap, highmem"),
        ('highpte="no"', "mmu: highpte 'no': True or False"),
        ("cpus=True", "mmu: cpus 'True': not a number"),
        ('"16M"', 'give names, as in mmu(ram="16M")'),
        ("debug_slab=True, l1_cache_bytes=3", "l1_cache_bytes 3: one of 16, 32, 64, 128"),
    ],
)
def test_bad_marker(pytester: pytest.Pytester, mark: str, said: str) -> None:
    """Told before any test runs."""
    pytester.makepyfile(
        f"""
        import pytest

        def test_first():
            raise SystemError("it ran")

        @pytest.mark.mmu({mark})
        def test_marked(machine): ...
        """
    )
    result = run(pytester)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert said in text_of(result) + "\n".join(result.errlines)
    assert "test_marked" in text_of(result) + "\n".join(result.errlines)
    assert "it ran" not in text_of(result)


def test_a_project_that_does_not_use_it(pytester: pytest.Pytester) -> None:
    """Its own fixtures of these names are its own, and nothing is printed."""
    pytester.makepyfile(
        """
        import pytest

        @pytest.fixture
        def machine(): return "mine"

        @pytest.fixture
        def diff(): return "mine"

        def test_mine(machine, diff): assert machine == diff == "mine"

        @pytest.mark.mmu("off", of="another kind")
        def test_own_marker(machine): ...

        def test_fails(): assert not "at all"
        """
    )
    result = run(pytester)
    result.assert_outcomes(passed=2, failed=1)
    assert "mmucheck:" not in text_of(result)
    assert "assert not 'at all'" in text_of(result)


def test_importing_it_imports_nothing_else() -> None:
    """pytest loads it in every project of the environment."""
    code = (
        "import pytest, sys; before = set(sys.modules); import mmucheck_pytest; "
        "print(*sorted(set(sys.modules) - before))"
    )
    output = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert output.stdout.split() == ["mmucheck_pytest"]
    # What pytest of another version lacks must not matter before somebody asks for it.
    hooks = [getattr(mmucheck_pytest, name) for name in dir(mmucheck_pytest) if "pytest_" in name]
    said = [text for hook in hooks for text in inspect.get_annotations(hook).values()]
    assert said
    assert all(isinstance(text, str) for text in said)


def test_a_project_with_a_package_of_the_same_name(pytester: pytest.Pytester) -> None:
    """``python -m pytest`` finds the project's own ``harness`` first: that is its own affair."""
    for name in ("harness", "kernel_model"):
        pytester.mkpydir(name)
    pytester.path.joinpath("kernel_model", "errors.py").write_text("")
    pytester.makepyfile(
        """
        import harness, kernel_model.errors

        def test_passes(): ...

        def test_fails(): assert not "at all"
        """
    )
    result = pytester.run(sys.executable, "-m", "pytest", *PLUGIN, *STRICT)
    result.assert_outcomes(passed=1, failed=1)
    assert "assert not 'at all'" in text_of(result)


def test_a_kernel_and_a_cpu_of_the_users(pytester: pytest.Pytester) -> None:
    plant(pytester)
    pytester.makepyfile(
        """
        def test_whose(machine, bare_machine):
            import planted_backends as planted
            assert type(machine.kernel) is planted.Honest
            assert type(machine.cpu) is planted.DeafCpu
        """
    )
    backends = [f"--mmu-backend=planted_backends:{name}" for name in ("Honest", "DeafCpu")]
    run(pytester, *backends).assert_outcomes(passed=1)


def test_files_that_were_asked_for(pytester: pytest.Pytester) -> None:
    """They are there even when nothing was compared; one that cannot be written is told."""
    pytester.makepyfile("def test_nothing(): ...")
    run(pytester, "--mmu-report", "a/all.json", "--mmu-matrix", "b/matrix.json")
    assert results_of(pytester.path / "a" / "all.json") == []
    assert '"cpus": []' in (pytester.path / "b" / "matrix.json").read_text()
    result = run(pytester, "--mmu-report", "a")
    result.stdout.fnmatch_lines(["mmucheck: a: cannot be written: Is a directory"])


@pytest.mark.slow
def test_a_page_of_pictures(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_page(machine, mmu_report): mmu_report.page('m.html', machine)")
    run_apart(pytester, "--mmu-ram", "16M").assert_outcomes(passed=1)
    page = (pytester.path / "m.html").read_text()
    assert "buddy" in page
    assert "<svg" in page


def test_usage_under_xdist(pytester: pytest.Pytester) -> None:
    result = run(pytester, "-n", "2", "--mmu-highmem", "1G")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "--mmu-highmem 1G: one of none, 4G, 64G" in "\n".join(result.errlines)


def test_a_guest_that_may_die(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        f"""
        def test_signal(run_guest):
            ran = run_guest({str(guest_path("read_null"))!r}, check=False)
            assert (ran.status, ran.signal) == (139, "SIGSEGV")
            assert ran.report.control["cr2"] == 0

        def test_wrong_ring(run_guest):
            run_guest({str(guest_path("kernel", "nohm"))!r})

        def test_wrong_word(run_guest):
            run_guest({str(HELLO)!r}, compare="everything")
        """
    )
    result = run(pytester, "--mmu-ram", "16M")
    result.assert_outcomes(passed=1, failed=2)
    result.stdout.fnmatch_lines(
        ["*: a ring-0 program: give it to bare_machine()", "*one of none, faults, full"]
    )
