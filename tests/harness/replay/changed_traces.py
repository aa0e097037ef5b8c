# SPDX-License-Identifier: GPL-2.0-or-later
"""Recorded traces, whole or shortened, with a difference planted in them or none."""

import copy
import functools
import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.replay import Replayed, replay


@functools.cache
def _loaded(recorded: Path) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(gzip.decompress(recorded.read_bytes()))
    return data


def shortened(recorded: Path, traces: slice | None, ops: int | None) -> dict[str, Any]:
    """A copy of ``recorded`` with some of its traces, and the first ``ops`` of those; None: all."""
    data = dict(_loaded(recorded))
    if traces is not None:
        data["traces"] = [dict(trace) for trace in data["traces"][traces]]
        for trace in data["traces"]:
            trace["ops"] = trace["ops"][:ops]
    return copy.deepcopy(data)


def found(data: dict[str, Any], folder: Path) -> str:
    """Where replaying ``data`` differs; empty: nowhere."""
    file = folder / "trace.json"
    file.write_text(json.dumps(data), encoding="ascii")
    difference = replay(file).difference
    return difference.where if difference else ""


def changed(recorded: Path, folder: Path, change: Callable[[dict[str, Any]], None]) -> Replayed:
    """Replay a copy of ``recorded``, made in ``folder``, after ``change`` has been there."""
    trace = json.loads(gzip.decompress(recorded.read_bytes()))
    change(trace)
    # The topic stands in the name of many of these files.
    target = folder / recorded.name.removesuffix(".gz")
    target.write_text(json.dumps(trace), encoding="ascii")
    return replay(target)
