# SPDX-License-Identifier: GPL-2.0-or-later
"""Random programs of several processes, on the CPU: what they see and get is what they must."""

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from tests.harness.space_state_machine import SpaceStateMachine


def bounded(examples: int, steps: int) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        derandomize=True,
        database=None,
        deadline=None,
    )


class EveryReading(SpaceStateMachine):
    """Ends with the whole comparison, loads, stores and fetches by the guest included."""

    def last_look(self) -> None:
        self.system.check_everything()


@pytest.mark.book("4.3", "4.4", "4.5", "4.6")
def test_processes_see_the_bytes_they_must() -> None:
    run_state_machine_as_test(SpaceStateMachine, settings=bounded(10, 80))


def test_every_reading_of_every_space_agrees() -> None:
    run_state_machine_as_test(EveryReading, settings=bounded(1, 40))


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_many_longer_programs() -> None:
    run_state_machine_as_test(SpaceStateMachine, settings=bounded(60, 100))
    run_state_machine_as_test(EveryReading, settings=bounded(4, 60))
