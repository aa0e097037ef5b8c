# SPDX-License-Identifier: GPL-2.0-or-later
"""The lines of /proc/PID/status and stat that are not about memory."""

from dataclasses import replace

import pytest

from kernel_model.proc.task import FORMAT_2_4, FORMAT_2_6, TaskFacts, TaskFormat

FACTS = TaskFacts(
    name="a\\b\nc",
    state="S",
    tgid=7,
    pid=7,
    parent=1,
    group=7,
    session=5,
    uids=(1000, 0, 0, 1000),
    gids=(100, 100, 100, 100),
    groups=(100, 4),
    max_descriptors=32,
    threads=3,
    pending=1 << 9,
    shared_pending=1 << 13,
    blocked=1 << 31,
    ignored=1 << 1,
    caught=1 << 33,
    faults=(1, 2, 3, 4),
    faults_of_all=(10, 2, 30, 4),
    nice=0,
    memory=(4096, 1, 0xFFFFFFFF, 1, 2, 3),
    exit_signal=17,
)


def lines(format_: TaskFormat, facts: TaskFacts = FACTS) -> dict[str, str]:
    return dict(line.split(":\t", 1) for line in format_.status(facts, "").splitlines())


def numbers(format_: TaskFormat, facts: TaskFacts = FACTS) -> list[int]:
    """Those of ``stat`` behind the letter of the state; the first is field 4."""
    return [int(word) for word in format_.stat(facts).rpartition(" S ")[2].split()]


@pytest.mark.parametrize("format_", [FORMAT_2_4, FORMAT_2_6])
def test_names_ids_and_capabilities(format_: TaskFormat) -> None:
    told = lines(format_)
    assert told["Name"] == "a\\\\b\\nc"
    assert (told["Uid"], told["Groups"]) == ("1000\t0\t0\t1000", "100 4 ")
    assert told["CapEff"] == told["CapPrm"] == "00000000fffffeff"
    nobody = lines(format_, replace(FACTS, uids=(1000,) * 4))
    assert nobody["CapEff"] == nobody["CapPrm"] == "0" * 16


def test_who_waits_for_a_signal_is_told_apart_in_2_6() -> None:
    assert lines(FORMAT_2_4)["SigPnd"] == "0000000000002200"
    told = lines(FORMAT_2_6)
    assert (told["SigPnd"], told["ShdPnd"]) == ("0000000000000200", "0000000000002000")
    assert (told["Threads"], told["SigCgt"]) == ("3", "0000000200000000")
    assert "SigQ" not in told


@pytest.mark.parametrize(
    ("format_", "faults", "threads"),
    [(FORMAT_2_4, [1, 2, 3, 4], 0), (FORMAT_2_6, [10, 2, 30, 4], 3)],
)
def test_2_6_counts_all_threads(format_: TaskFormat, faults: list[int], threads: int) -> None:
    fields = numbers(format_)
    assert (fields[6:10], fields[16]) == (faults, threads)


@pytest.mark.parametrize(
    ("format_", "priorities"), [(FORMAT_2_4, [9, 14, 19]), (FORMAT_2_6, [5, 25, 39])]
)
def test_who_is_nicer_has_the_higher_number(format_: TaskFormat, priorities: list[int]) -> None:
    found = [numbers(format_, replace(FACTS, nice=nice))[14:16] for nice in (-20, 0, 19)]
    assert found == [
        [priority, nice] for priority, nice in zip(priorities, (-20, 0, 19), strict=True)
    ]


def test_signals_of_stat_are_those_of_2_0() -> None:
    assert numbers(FORMAT_2_6)[27:31] == [1 << 9, 0, 1 << 1, 0]
