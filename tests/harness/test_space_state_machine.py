# SPDX-License-Identifier: GPL-2.0-or-later
"""Random programs of several processes, on the CPU: what they see and get is what they must."""

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from tests.harness.space_state_machine import SpaceStateMachine, SpaceStateMachine26

MACHINES = {"2.4": SpaceStateMachine, "2.6": SpaceStateMachine26}
on_both = pytest.mark.parametrize("release", MACHINES)


def bounded(examples: int, steps: int) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        derandomize=True,
        database=None,
        deadline=None,
    )


def every_reading(release: str) -> type[SpaceStateMachine]:
    """Ends with the whole comparison, loads, stores and fetches by the guest included."""

    class EveryReading(MACHINES[release]):  # type: ignore[misc]
        def last_look(self) -> None:
            self.system.check_everything()

    return EveryReading


@pytest.mark.book("4.3", "4.4", "4.5", "4.6")
@on_both
def test_processes_see_the_bytes_they_must(release: str) -> None:
    run_state_machine_as_test(MACHINES[release], settings=bounded(3, 80))


@pytest.mark.parametrize("release", ["2.4", pytest.param("2.6", marks=pytest.mark.slow)])
def test_every_reading_of_every_space_agrees(release: str) -> None:
    run_state_machine_as_test(every_reading(release), settings=bounded(1, 40))


@pytest.mark.slow
@pytest.mark.timeout(0)
@on_both
def test_many_longer_programs(release: str) -> None:
    run_state_machine_as_test(MACHINES[release], settings=bounded(60, 100))
    run_state_machine_as_test(every_reading(release), settings=bounded(4, 60))
