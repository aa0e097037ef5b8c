# SPDX-License-Identifier: GPL-2.0-or-later
"""Replays what a real kernel did, call by call, against the model.

A trace says what was asked of the kernel's own code and what it answered. :func:`replay` asks
the model the same and stops at the first answer that differs. A topic is a module here with
a function that takes a :class:`~harness.replay.trace.Trace` and a
:class:`~harness.replay.trace.Comparison`; :data:`TOPICS` lists them, :data:`TOPICS_2_6`
those of 2.6.

What can fail: a file that is no trace raises :class:`~kernel_model.errors.BadInput`.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from harness.replay import (
    bootmem,
    buddy,
    faults_2_6,
    layout,
    linux_2_6,
    numa,
    rmap_2_6,
    setup,
    slab_2_4,
    slab_2_6,
    vma_2_4,
    vma_2_6,
    vmalloc,
    zones,
)
from harness.replay.trace import Comparison, Difference, Trace, read_trace
from kernel_model.errors import BadInput, KernelFault, MmucheckError

__all__ = ["TOPICS", "Difference", "Replayed", "replay"]

Replayer = Callable[[Trace, Comparison], None]
TOPICS: Final[dict[str, Replayer]] = {
    "layout": layout.replay,
    "setup": setup.replay,
    "bootmem": bootmem.replay,
    "zones": zones.replay,
    "buddy": buddy.replay,
    "buddy_exhaust": buddy.replay,
    "numa": numa.replay,
    "slab_structs": slab_2_4.replay_structs,
    "slab_geometry": slab_2_4.replay_geometry,
    "slab_sizes_cache": slab_2_4.replay_sizes,
    "slab_trace": slab_2_4.replay_trace,
    "vmalloc": vmalloc.replay,
    "vma_structs": vma_2_4.replay_structs,
    "vma_scenarios": vma_2_4.replay_trace,
    "vma_trace": vma_2_4.replay_trace,
}

TOPICS_2_6: Final[dict[str, Replayer]] = {
    "slab_structs": slab_2_6.replay_structs,
    "slab_geometry": slab_2_6.replay_geometry,
    "slab_sizes_cache": slab_2_6.replay_sizes,
    "slab_trace": slab_2_6.replay_trace,
    **linux_2_6.TOPICS,
    "vma_structs": vma_2_6.replay_structs,
    "vma_scenarios": faults_2_6.replay_trace,
    "vma_trace": faults_2_6.replay_trace,
    "rmap_trace": rmap_2_6.replay_trace,
}
RELEASES: Final = {"2.4": TOPICS, "2.6": TOPICS_2_6}
"""By the release that a trace was recorded on."""


@dataclass(frozen=True, slots=True)
class Replayed:
    """How one trace went: ``compared`` values were equal until ``difference``, if any."""

    path: Path
    topic: str
    config: str
    compared: int
    difference: Difference | None

    @property
    def ok(self) -> bool:
        return self.difference is None


def replay(path: Path) -> Replayed:
    """Replay the trace in ``path`` (JSON, or gzip'd JSON)."""
    trace = read_trace(path)
    topics = RELEASES.get(trace.release)
    if topics is None:
        known = ", ".join(RELEASES)
        raise BadInput(f"{path}: a trace of Linux {trace.release}: one of {known} can be replayed")
    topic = trace.topic or _named_topic(path, topics)
    if topic not in topics:
        raise BadInput(
            f"{path}: no topic {topic!r} of {trace.release} can be replayed: "
            f"one of {', '.join(topics)}"
        )
    comparison = Comparison()
    difference = None
    try:
        topics[topic](trace, comparison)
    except Difference as found:
        difference = found
    except KernelFault as stopped:
        where = f"after {comparison.count} equal values"
        difference = Difference(where, "and went on", f"stopped: {stopped}")
    except MmucheckError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise BadInput(f"{path}: not a whole {topic} trace ({error!r})") from error
    return Replayed(path, topic, trace.config, comparison.count, difference)


def _named_topic(path: Path, topics: Iterable[str]) -> str:
    """The topic that a file's name begins with, for traces that do not say their own."""
    named = [topic for topic in topics if path.name.startswith(topic)]
    return max(named, key=len, default="")
