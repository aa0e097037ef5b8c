# SPDX-License-Identifier: GPL-2.0-or-later
"""Address spaces answer each call as those of the real kernel did; planted faults show."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.replay import Replayed, replay

RECORDED = Path(__file__).parents[2] / "data" / "linux-2.4.22"
STRUCTS = "vma_structs.json.gz"


def changed(name: str, path: Path, change: Callable[[dict[str, Any]], None]) -> Replayed:
    trace = json.loads(gzip.decompress((RECORDED / name).read_bytes()))
    change(trace)
    # The topic stands in the name of these files.
    target = path / name.removesuffix(".gz")
    target.write_text(json.dumps(trace), encoding="ascii")
    return replay(target)


@pytest.mark.book("4.3", "4.4")
def test_the_structures_are_laid_out_as_the_real_ones() -> None:
    result = replay(RECORDED / STRUCTS)
    assert (result.topic, result.difference) == ("vma_structs", None)
    assert result.compared > 500


@pytest.mark.parametrize(
    ("field", "change"),
    [
        (["struct mm_struct", "map_count"], lambda row: row.__setitem__(2, row[2] + 4)),
        (["struct inode", ""], lambda row: row.__setitem__(3, row[3] - 4)),
        (["const", "VM_LOCKED"], lambda row: row.__setitem__(2, row[2] << 1)),
    ],
)
def test_a_planted_difference_in_the_structures(
    field: list[str], change: Callable[[list[Any]], None], tmp_path: Path
) -> None:
    def plant(trace: dict[str, Any]) -> None:
        change(next(row for row in trace["configs"][1]["fields"] if row[:2] == field))

    assert not changed(STRUCTS, tmp_path, plant).ok
