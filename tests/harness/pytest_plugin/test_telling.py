# SPDX-License-Identifier: GPL-2.0-or-later
"""What a failure says: alone, in JUnit XML, and from a worker of pytest-xdist.

Each fault is planted, and the text must name who is wrong, the address, the entry, the function
of the kernel and the section of the manual, without a line of our own code.
"""

import pytest

from harness.guests import guest_path
from tests.harness.pytest_plugin.running import (
    OPENED,
    OUR_CODE,
    check_words,
    junit_failure,
    plant,
    run,
    text_of,
)

pytest_plugins = ["pytester"]


def test_model_bug(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(OPENED)
    result = run(pytester, "--mmu-ram", "16M", "--junitxml", "junit.xml")
    result.assert_outcomes(failed=1)
    text = text_of(result)
    check_words(text)
    assert ">       diff()" in text
    assert "FAILED test_model_bug.py::test_planted - model bug at 0xc0800000, PDE 0x" in text
    failure = junit_failure(pytester.path / "junit.xml")
    assert failure.get("message") == "model bug at 0xc0800000, PDE 0x008001e7 at paddr 0x101c08"
    check_words(failure.text or "")


def test_with_its_traceback(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(OPENED)
    text = text_of(run(pytester, "--mmu-ram", "16M", "--mmu-traceback"))
    assert "Traceback" in text
    assert "machines.py" in text


def test_a_report_that_the_test_looked_at(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(OPENED.replace("diff()", "assert diff(check=False).ok"))
    text = text_of(run(pytester, "--mmu-ram", "16M"))
    assert "assert diff(check=False).ok" in text
    assert "mmucheck: the last comparison" in text
    check_words(text)


@pytest.mark.parametrize("style", ["short", "line"])
def test_other_styles(pytester: pytest.Pytester, style: str) -> None:
    pytester.makepyfile(OPENED)
    text = text_of(run(pytester, "--mmu-ram", "16M", f"--tb={style}"))
    assert "model bug at 0xc0800000" in text
    assert all(words not in text for words in OUR_CODE)


def test_missing_flush(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        def test_planted(machine, diff):
            area = machine.kernel.vmalloc.vmalloc(4096)
            diff()
            machine.cpu.translate(area)
            machine.kernel.tlb.flush_tlb_all = lambda: None
            machine.kernel.vmalloc.vfree(area)
            diff()
        """
    )
    text = text_of(run(pytester, "--mmu-ram", "16M"))
    for words in (
        "MISSING FLUSH: The CPU uses an old translation",
        "vmalloc space: every kernel access",
        "  spec               faults with 0, not present",
        "  cpu after a flush  faults",
        "  entry   PTE 0x00000000 at paddr 0x",
        "  written by vfree(), mm/vmalloc.c",
        "  kernel  book 7.1-7.3: vmalloc space",
        "  flush   none came after that change; there are flush_tlb_page()",
        "  manual  Intel SDM 3A, 4.10.4",
    ):
        assert words in text, words


def test_a_guest_that_died(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(f"def test_dies(run_guest): run_guest({str(guest_path('read_null'))!r})")
    text = text_of(run(pytester, "--mmu-ram", "16M"))
    for words in (
        "read_null.elf was killed by SIGSEGV",
        "#PF at 0x00000000, error code 4 (U) (ring 3)",
        "    eax 00000000 ",
        " cr2 00000000 ",
        "code:",
        " > 0804",
        "mov eax, dword ptr [eax]",
        "walk of CR2 0x00000000:",
        "PDE[0] 0x00000000 at paddr 0x",
        "stack:",
        "manual  Intel SDM 3A, 4.3 (32-bit paging) and 4.4 (PAE paging): P=0",
        "kernel  do_page_fault(), arch/i386/mm/fault.c (book 4.6)",
    ):
        assert words in text, words
    assert not any(words in text for words in OUR_CODE)


def test_a_guest_that_never_ends(pytester: pytest.Pytester) -> None:
    """Told where it stood: of a program, and of ring 0."""
    pytester.makepyfile(
        f"""
        from harness.machine import Limits

        def test_program(run_guest):
            run_guest({str(guest_path("sha256"))!r}, limits=Limits(instructions=1000))

        def test_kernel(machine):
            machine.ram.write(0x37F000, b"\\xeb\\xfe")
            machine.limits = Limits(instructions=1000)
            machine.call(0xC037F000)
        """
    )
    result = run(pytester, "--mmu-ram", "16M")
    result.assert_outcomes(failed=2)
    text = text_of(result)
    assert text.count("\nthe guest was stopped: the limit on instructions was reached: 1000") == 2
    assert " > c037f000  ebfe                  jmp 0xc037f000" in text
    assert text.count("    eip ") == 2
    assert "(ring 3)" in text
    assert not any(words in text for words in OUR_CODE)


def test_a_bug_of_the_kernel(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        def test_bug(kernel):
            page = kernel.allocator.alloc_pages(0x1F0, 2)
            kernel.allocator.free_pages(page, 2)
            kernel.allocator.free_pages(page, 2)

        def test_ring_0(machine):
            machine.call(0x10)

        def test_census(kernel):
            from harness.monitors.slabs import slab_census
            cache = kernel.slab.find("size-64")
            kernel.slab.kmalloc(64, 0x1F0)
            flags = kernel.image.structs.kmem_cache_t.offset("growing")
            kernel.ram.words[cache.vaddr - 0xC0000000 + flags >> 2] += 1
            slab_census(kernel)
        """
    )
    text = text_of(run(pytester, "--mmu-ram", "16M"))
    assert "kernel BUG at page_alloc.c" in text
    assert "in the kernel: free_pages" in text
    assert "mm/page_alloc.c" in text
    assert "#PF at 0x00000010, error code 0 (ring 0)" in text
    assert "cache size-64: it is growing" in text
    assert "kernel  kmem_cache_alloc(), kmem_cache_free()" in text
    assert not any(words in text.replace("kernel_model", "") for words in OUR_CODE[:3])


def test_a_page_table_that_a_program_finds_wrong(pytester: pytest.Pytester) -> None:
    plant(pytester)
    hello = str(guest_path("hello"))
    pytester.makepyfile(f"def test_hello(run_guest): run_guest({hello!r})")
    backend = "--mmu-backend=planted_backends:UserBitLost"
    result = run(pytester, "--mmu-ram", "16M", backend)
    result.assert_outcomes(failed=1)
    for words in (
        "MODEL BUG",
        "at 0x08049000..0x08049fff, 4 KiB, user space: every user access",
        "  intent  frame 0x",
        "  spec    faults with 5 (P|U)",
        "  written by do_no_page() <- handle_mm_fault() <- do_page_fault(), mm/memory.c",
        ": US lost",
        "set_pte() is wrong, or somebody changed the entry behind it",
    ):
        assert words in text_of(result), words


def test_an_error_of_the_tests_own_is_pytests(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_own(kernel): assert kernel.started is 3")
    text = text_of(run(pytester, "-W", "ignore"))
    assert "E   assert True is 3" in text
