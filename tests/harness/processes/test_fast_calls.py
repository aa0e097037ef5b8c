# SPDX-License-Identifier: GPL-2.0-or-later
"""System calls through the page that 2.6 gives every program: ``guest/user/fast_calls.c`` prints
what it prints on a real kernel.

A CPU before the Pentium II has no SYSENTER; its page has ``int $0x80``, and the program tries no
bad stack there. On 2.4 a program finds no AT_SYSINFO.
"""

import contextlib
from typing import Any

import pytest

from harness.machine import GuestStopped, Limits
from harness.processes.checking import Check
from harness.processes.process import Process
from harness.processes.scheduler import Deadlock
from harness.signals import delivery
from kernel_model.arch_i386.linux_2_6 import sysenter
from kernel_model.arch_i386.linux_2_6.sysenter import VsyscallPage
from kernel_model.arch_i386.pgtable import PAGE_SHARED
from tests.harness.processes.recorded import recorded, run_program

EXPECTED = recorded("linux-i386-programs", "fast_calls")
WITHOUT_SYSENTER = EXPECTED[: EXPECTED.index(b"stack ")]
MODELS = {
    "486": WITHOUT_SYSENTER,
    "pentium": WITHOUT_SYSENTER,
    "pentium2": EXPECTED,
    "pentium3": EXPECTED,
}

pytestmark = pytest.mark.book("4.8", release="2.6")


@pytest.mark.parametrize("model", MODELS)
def test_what_it_prints(model: str) -> None:
    printed = run_program("fast_calls", release="2.6", cpu_model=model)
    assert (printed.output, printed.status) == (MODELS[model], 0)


def test_a_program_of_2_4_finds_no_page() -> None:
    assert run_program("fast_calls").output == b"AT_SYSINFO 0\n"


load = VsyscallPage.load
MOV_ESP_EBP, XOR_EBP_EBP = bytes.fromhex("89e5 0f34"), bytes.fromhex("31ed 0f34")
SYSENTER_ALONE = bytes.fromhex("9090 0f34")


def instead(code: bytes) -> Any:
    """A page that has other code in front of its SYSENTER."""

    def changed(page: VsyscallPage, image: bytes) -> None:
        assert image.count(MOV_ESP_EBP) == 1
        load(page, image.replace(MOV_ESP_EBP, code))

    return changed


FAULTS = {
    "a call starts again three bytes before": (delivery, "_INT_80_BYTES", 3),
    "a handler returns into its frame": (Process, "sigreturn_addresses", None),
    "everybody may write to the page": (sysenter, "PAGE_READONLY", PAGE_SHARED),
    "the stack is nowhere": (VsyscallPage, "load", instead(XOR_EBP_EBP)),
    "the sixth argument stays in its register": (VsyscallPage, "load", instead(SYSENTER_ALONE)),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_shows_in_what_it_prints(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    """Or the program comes to no end."""
    monkeypatch.setattr(*FAULTS[fault])
    limits = Limits(instructions=2_000_000)
    with contextlib.suppress(GuestStopped, Deadlock):
        printed = run_program("fast_calls", check=Check.NONE, limits=limits, release="2.6")
        assert printed.output != EXPECTED
