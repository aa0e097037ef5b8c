# SPDX-License-Identifier: GPL-2.0-or-later
"""Who dies when memory is out."""

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel_model.config import MIB, RELEASES, KernelConfig
from kernel_model.errors import KernelPanic
from kernel_model.kernel import Kernel, boot
from kernel_model.mm.linux_2_6 import oom_kill as linux_2_6
from kernel_model.mm.oom_kill import Candidate, OomKiller, badness, int_sqrt, select_bad_process
from tests.kernel_model.mm.user_spaces import UserSpaces

DAYS = 86400
EITHER = pytest.mark.usefixtures("either_release")


def process(pid: int = 100, total_vm: int = 1000, **rest: Any) -> Candidate:
    return Candidate(pid, f"process-{pid}", total_vm, **rest)


BADNESS: dict[str, Callable[[Candidate], int]] = {"2.4": badness, "2.6": linux_2_6.badness}
BOTH = [
    ({}, 1000),
    ({"nice": 1}, 2000),
    ({"nice": 19}, 2000),
    ({"nice": -20}, 1000),
    ({"superuser": True}, 250),
    ({"raw_io": True}, 250),
    ({"superuser": True, "raw_io": True, "nice": 5}, 125),
    ({"total_vm": 0, "nice": 10}, 0),
    ({"total_vm": 7, "superuser": True}, 1),
]
TIMES = {
    "2.4": [
        ({"cpu_time": 40}, 1000),  # 3 units of 10.24 seconds have root 1
        ({"cpu_time": 41}, 500),
        ({"cpu_time": 256}, 200),  # root 5
        ({"cpu_time": 369}, 250),  # root 4: the kernel's roots are rough
        ({"run_time": 15 * 1310}, 1000),
        ({"run_time": 21 * 1311}, 500),  # root 4, whose root is 2
        ({"run_time": 10 * DAYS}, 250),
        ({"cpu_time": 41, "run_time": 21 * 1311}, 250),
    ],
    "2.6": [
        ({"cpu_time": 8}, 1000),  # no unit of 8.192 seconds is full
        ({"cpu_time": 32}, 1000),  # 3 units, as in 2.4
        ({"cpu_time": 33}, 500),
        ({"cpu_time": 294}, 200),  # 35 units, root 5
        ({"cpu_time": 295}, 166),  # 36 units, and the root is 6
        ({"run_time": 16 * 1024 - 1}, 1000),
        ({"run_time": 16 * 1024}, 500),  # root 4, whose root is 2
        ({"run_time": 10 * DAYS}, 200),  # 843 units, root 29, whose root is 5
        ({"cpu_time": 33, "run_time": 16 * 1024}, 250),
    ],
}


@pytest.mark.parametrize(
    ("release", "facts", "points"),
    [(release, *case) for release, times in TIMES.items() for case in BOTH + times],
)
def test_badness(release: str, facts: dict[str, Any], points: int) -> None:
    assert BADNESS[release](process(**facts)) == points


def test_2_6_counts_the_children_that_have_memory_of_their_own() -> None:
    parent = process(100, 10, nice=1)
    parent.children = lambda: [process(101, 300), process(102, 50)]
    assert linux_2_6.badness(parent) == 720
    assert badness(parent) == 20


@given(st.integers(0, 0xFFFFFFFF))
def test_the_rough_root_is_that_of_the_kernels_loop(value: int) -> None:
    """A bit of the root for every two bits of the number; an odd one takes a quarter off."""
    bits, root = value, value
    while bits > 1:
        bits, root = bits // 4, root // 2
    expected = max(root - root // 4 if bits else root, 1)
    assert int_sqrt(value) == expected
    assert int_sqrt(value) <= 2 * value**0.5 + 1


def test_the_worst_one_is_chosen_and_the_first_of_equals() -> None:
    small, big, twin = process(5, 10), process(6, 900), process(7, 900)
    assert select_bad_process([small, big, twin]) is big
    assert select_bad_process([small, twin, big]) is twin
    assert select_bad_process([process(5, 0)]) is None
    assert select_bad_process([]) is None


def test_init_and_the_idle_task_are_never_chosen() -> None:
    init, idle, other = process(1, 1 << 20), process(0, 1 << 20), process(2, 1)
    assert select_bad_process([init, idle, other]) is other
    assert select_bad_process([init, idle]) is None


def killer(*processes: Candidate, **config: int) -> tuple[Kernel, OomKiller]:
    kernel = boot(KernelConfig(ram=6 * MIB, **config))
    kernel.oom_killer.processes = list(processes)
    return kernel, kernel.oom_killer


@EITHER
def test_somebody_is_killed_once_and_the_log_says_who() -> None:
    died: list[int] = []
    small, big = process(41, 5), process(42, 50, kill=lambda: died.append(42))
    kernel, oom = killer(small, big)
    oom.out_of_memory()
    assert died == [42]
    assert big.dying
    assert kernel.log.endswith("<3>Out of Memory: Killed process 42 (process-42).\n")
    oom.out_of_memory()  # who is chosen needs time to die
    assert died == [42]
    assert not small.dying


def test_while_swap_has_room_2_4_kills_nobody(either_release: str) -> None:
    """2.6 knows that reclaim tried to swap."""
    victim = process()
    kernel, oom = killer(victim, swap_pages=3)
    for _ in range(2):
        oom.out_of_memory()
        assert victim.dying == (either_release == "2.6")
        assert kernel.swap_areas.get_swap_page()
    oom.out_of_memory()
    assert victim.dying


@pytest.mark.parametrize("release", RELEASES)
def test_of_a_family_2_6_kills_a_child(release: str) -> None:
    """The parent alone is smaller than the stranger; what its children have counts in 2.6."""
    kernel = boot(KernelConfig(ram=6 * MIB, release=release))
    older, younger, stranger = process(43, 300), process(44, 400), process(45, 500)
    parent = process(42, 10)
    parent.children = lambda: [older, younger]
    kernel.oom_killer.processes = [parent, older, younger, stranger]
    kernel.oom_killer.out_of_memory(0xD0)
    dying = [who.pid for who in kernel.oom_killer.processes if who.dying]
    assert dying == {"2.4": [45], "2.6": [43]}[release]
    assert ("oom-killer: gfp_mask=0xd0\n" in kernel.log) == (release == "2.6")


@pytest.mark.parametrize("release", RELEASES)
def test_somebody_without_points_is_better_than_nobody_in_2_6(release: str) -> None:
    kernel = boot(KernelConfig(ram=6 * MIB, release=release))
    first, second = process(42, 0), process(43, 0)
    kernel.oom_killer.processes = [first, second]
    if release == "2.4":
        with pytest.raises(KernelPanic, match="no killable processes"):
            kernel.oom_killer.out_of_memory()
    else:
        kernel.oom_killer.out_of_memory()
        assert (first.dying, second.dying) == (True, False)


@EITHER
def test_with_nobody_to_kill_the_kernel_panics() -> None:
    _, oom = killer(process(1, 1000))
    with pytest.raises(KernelPanic, match="no killable processes"):
        oom.out_of_memory()


@EITHER
def test_a_machine_without_processes_has_no_killer() -> None:
    kernel, oom = killer()
    oom.out_of_memory()
    assert "Killed" not in kernel.log


@EITHER
@pytest.mark.parametrize("swap_pages", [0, 64])
def test_who_is_killed_makes_room_for_the_one_that_asked(swap_pages: int) -> None:
    """The whole way: user pages fill memory and swap; the next one costs a life, not a failure."""
    kernel, oom = killer(swap_pages=swap_pages)
    memory = UserSpaces(kernel)
    victim, survivor = memory.start(), memory.start()
    killed = kernel.tasks.view(memory.tasks[victim])
    oom.processes = [
        process(7, 400, kill=lambda: kernel.memory.zap_page_range(int(killed.mm), 0, 0xC0000000)),
        process(8, 10),
    ]
    number = 0
    while not oom.processes[0].dying:
        pgd = victim if number < 300 else survivor
        assert memory.new_page(pgd, 0x10000000 + (number << 12), 0x67) > 0
        number += 1
        assert number < 2000
    assert not oom.processes[1].dying
    assert kernel.spaces.areas.mm(memory.mm(victim)).rss == 0
    assert len(memory.page_numbers(survivor)) == number - 300
    assert kernel.allocator.nr_free_pages() > 200
