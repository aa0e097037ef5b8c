# SPDX-License-Identifier: GPL-2.0-or-later
"""The recorded images of real kernels go through the image reader unchanged."""

from pathlib import Path

import numpy as np
import pytest

from harness.image import read_expectation, read_image, write_core
from tests.linux_images import NAMES, linux_address_spaces, linux_image


def test_both_formats_of_page_tables_are_recorded() -> None:
    assert {linux_image(name).mode for name in NAMES} == {"2-level", "PAE"}


@pytest.mark.parametrize("name", NAMES)
def test_raw_dump_and_core_give_the_recorded_ram(name: str, tmp_path: Path) -> None:
    image = linux_image(name)
    ram = image.new_ram()
    image.write_raw(tmp_path / "raw")
    write_core(ram, tmp_path / "core")
    for file in ("raw", "core"):
        again = read_image(tmp_path / file)
        assert again.ranges == image.ranges
        assert again.buffer[:] == ram.buffer[:]


def test_every_recorded_list_is_a_valid_expectation(tmp_path: Path) -> None:
    for _, space in linux_address_spaces():
        path = tmp_path / "known.npz"
        space.write_expectation(path)
        again = read_expectation(path)
        assert len(again) > 1000
        for column in ("va", "pa", "size", "rights", "absent"):
            np.testing.assert_array_equal(
                getattr(again, column), getattr(space.expectation, column)
            )
