# SPDX-License-Identifier: GPL-2.0-or-later
"""Futexes of threads, of files and of shared memory, and robust lists: ``guest/user/futexes.c``
prints what it prints on a real kernel.
"""

from collections.abc import Callable
from typing import Any

import pytest

from harness.processes import robust_list
from harness.processes.checking import Check
from harness.processes.process import Process
from harness.processes.robust_list import RobustLists
from harness.syscalls import futex
from harness.syscalls.futex_queues import Key
from tests.harness.processes.recorded import recorded, run_program
from tests.harness.processes.releases import MACHINES

EXPECTED = recorded("linux-i386-programs", "futexes")


@MACHINES
def test_what_it_prints(release: str, ram: int) -> None:
    printed = run_program("futexes", ram, release=release)
    assert (printed.output, printed.status) == (EXPECTED, 0)


def one_key(owner: Any, offset: int, private: bool) -> Key:
    return Key(owner, offset, False)


def no_offset(process: Process, address: int) -> tuple[int, int] | None:
    found = backing(process, address)
    return found and (found[0], 0)


backing: Callable[[Process, int], Any] = Process.backing

FAULTS = {
    "shared memory goes by its address": (Process, "backing", lambda process, address: None),
    "a file is one futex": (Process, "backing", no_offset),
    "private ones are no others": (futex, "Key", one_key),
    "locks are left as they are": (RobustLists, "leave", lambda lists, process: None),
    "nobody is told": (RobustLists, "_wake", lambda lists, process, place: None),
    "waiters are forgotten": (robust_list, "FUTEX_WAITERS", 0),
    "a list that lends priority wakes": (robust_list, "_INHERITS_PRIORITY", 0),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_shows_in_what_it_prints(monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    monkeypatch.setattr(*FAULTS[fault])
    assert run_program("futexes", check=Check.NONE).output != EXPECTED
