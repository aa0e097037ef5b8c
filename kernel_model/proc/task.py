# SPDX-License-Identifier: GPL-2.0-or-later
"""``/proc/PID/status`` and ``/proc/PID/stat`` of a process, but for its memory.

Models ``fs/proc/array.c`` of linux-2.4.22 and linux-2.6.11: ``task_name()``, ``task_state()``,
``task_sig()``, ``task_cap()``, ``proc_pid_stat()``. The kernel model runs no processes: whoever
does hands over the :class:`TaskFacts`. Times of the CPU, flags, EIP, ESP, the channel that it
waits on, the processor and what no such process has, such as a terminal, are 0. Nothing here can
fail.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

_STATES: Final = {"R": "running", "S": "sleeping", "T": "stopped", "Z": "zombie"}
_ROOTS_CAPABILITIES: Final = 0xFFFFFEFF
"""``CAP_INIT_EFF_SET``: all but ``CAP_SETPCAP``."""
_OF_2_0: Final = 0x7FFFFFFF
"""Signals in ``stat`` are as Linux 2.0 knew them."""


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """What there is to know. Signals are sets, bit 0 is signal 1; IDs are real, effective, saved
    and of the file system."""

    name: str
    state: str
    tgid: int
    pid: int
    parent: int
    group: int
    session: int
    uids: Sequence[int]
    gids: Sequence[int]
    groups: Sequence[int]
    max_descriptors: int
    threads: int
    pending: int
    shared_pending: int
    blocked: int
    ignored: int
    caught: int
    faults: Sequence[int]
    """Minor ones, those of children that have ended, major ones, those of children."""
    faults_of_all: Sequence[int]
    """The same of all threads."""
    nice: int
    memory: Sequence[int]
    """Bytes, resident pages and their limit, start and end of code, start of the stack."""
    exit_signal: int


@dataclass(frozen=True, slots=True)
class TaskFormat:
    """What a release writes of a process."""

    sleep_average: bool
    threads: bool
    """Whether threads are counted, what waits for all of them is told apart, and faults are those
    of all."""
    priority: Callable[[int], int]
    """Of a nice value; the process has used its slice no further, and has not slept."""
    scheduling: tuple[int, ...]
    """How ``stat`` ends: real-time priority and policy."""

    def status(self, facts: TaskFacts, memory: str) -> str:
        """``memory``: the lines of ``task_mem()``; empty for who has none."""
        return self._state(facts) + memory + self._signals(facts) + _capabilities(facts)

    def _state(self, facts: TaskFacts) -> str:
        name = facts.name.replace("\\", "\\\\").replace("\n", "\\n")
        ids = (("Uid", facts.uids), ("Gid", facts.gids))
        return "".join(
            (
                f"Name:\t{name}\nState:\t{facts.state} ({_STATES[facts.state]})\n",
                "SleepAVG:\t0%\n" if self.sleep_average else "",
                f"Tgid:\t{facts.tgid}\nPid:\t{facts.pid}\nPPid:\t{facts.parent}\nTracerPid:\t0\n",
                *("\t".join((f"{kind}:", *map(str, each))) + "\n" for kind, each in ids),
                f"FDSize:\t{facts.max_descriptors}\n",
                "Groups:\t" + "".join(f"{group} " for group in facts.groups) + "\n",
            )
        )

    def _signals(self, facts: TaskFacts) -> str:
        before, sets = "", {"SigPnd": facts.pending | facts.shared_pending}
        if self.threads:
            before = f"Threads:\t{facts.threads}\n"
            sets = {"SigPnd": facts.pending, "ShdPnd": facts.shared_pending}
        sets |= {"SigBlk": facts.blocked, "SigIgn": facts.ignored, "SigCgt": facts.caught}
        return before + "".join(f"{name}:\t{signals:016x}\n" for name, signals in sets.items())

    def stat(self, facts: TaskFacts) -> str:
        """One line of numbers behind the name and the letter of the state."""
        signals = (facts.pending, facts.blocked, facts.ignored, facts.caught)
        if not self.threads:
            signals = (facts.pending | facts.shared_pending, *signals[1:])
        fields = [
            *(facts.parent, facts.group, facts.session, 0, -1, 0),
            *(facts.faults_of_all if self.threads else facts.faults),
            *(0, 0, 0, 0),
            *(self.priority(facts.nice), facts.nice, facts.threads if self.threads else 0, 0, 0),
            *facts.memory,
            *(0, 0),
            *(each & _OF_2_0 for each in signals),
            *(0, 0, 0),
            *(facts.exit_signal, 0),
            *self.scheduling,
        ]
        numbers = " ".join(str(int(field)) for field in fields)
        return f"{facts.pid} ({facts.name}) {facts.state} {numbers}\n"


def _capabilities(facts: TaskFacts) -> str:
    """Root may do all, whoever else nothing."""
    effective, permitted = (
        _ROOTS_CAPABILITIES if root else 0 for root in (not facts.uids[1], not all(facts.uids[:3]))
    )
    sets = {"CapInh": 0, "CapPrm": permitted, "CapEff": effective}
    return "".join(f"{name}:\t{capabilities:016x}\n" for name, capabilities in sets.items())


def _priority_2_4(nice: int) -> int:
    """From ``task->counter``, a slice of 10 ms ticks: 6 for nice 0."""
    return 20 - ((20 - nice >> 2) + 1)


def _priority_2_6(nice: int) -> int:
    """``task_prio()``: who never sleeps is 5 behind its static priority."""
    return min(25 + nice, 39)


FORMAT_2_4: Final = TaskFormat(False, False, _priority_2_4, scheduling=())
FORMAT_2_6: Final = TaskFormat(True, True, _priority_2_6, scheduling=(0, 0))
