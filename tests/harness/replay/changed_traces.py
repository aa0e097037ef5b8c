# SPDX-License-Identifier: GPL-2.0-or-later
"""Recorded traces with a difference planted in them."""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.replay import Replayed, replay


def changed(recorded: Path, folder: Path, change: Callable[[dict[str, Any]], None]) -> Replayed:
    """Replay a copy of ``recorded``, made in ``folder``, after ``change`` has been there."""
    trace = json.loads(gzip.decompress(recorded.read_bytes()))
    change(trace)
    # The topic stands in the name of many of these files.
    target = folder / recorded.name.removesuffix(".gz")
    target.write_text(json.dumps(trace), encoding="ascii")
    return replay(target)
