# SPDX-License-Identifier: GPL-2.0-or-later
"""A machine on which the tour was followed, and what others say of it at that moment."""

from dataclasses import dataclass, field
from typing import Any

from harness.guests import guest_path
from harness.machine import Machine
from harness.mappings import Range
from harness.processes.linux import Setup
from harness.readings.spec import SpecView, mmu_features
from harness.report import Report
from harness.report.faults import FaultLog
from harness.report.program import Program, report_on_program
from kernel_model.config import KernelConfig
from kernel_model.kernel import Kernel
from kernel_model.mm.memory.fault import Cause
from kernel_model.proc import PROC_FILES
from kernel_model.proc.pid import maps_text

TOUR = b"/tour"


@dataclass
class Toured:
    """``report`` is of the moment when the tour ends; the rest is what stands there then."""

    config: KernelConfig
    report: Report = field(init=False)
    maps: str = ""
    texts: dict[str, str] = field(default_factory=dict)
    ranges: list[Range] = field(default_factory=list)
    walked: set[int] = field(default_factory=set)
    owners: dict[int, str] = field(default_factory=dict)
    causes: dict[Cause, int] = field(default_factory=dict)
    trace: list[str] = field(default_factory=list)
    zero_frame: int = 0x104

    def __post_init__(self) -> None:
        self.machine = Machine(Kernel(self.config))
        setup = Setup(files={TOUR: guest_path("tour").read_bytes()}, trace=self.trace.append)
        self.report = report_on_program(self.machine, Program(TOUR, [TOUR], setup), self._gather)

    def _gather(self, log: FaultLog, *, note: str = "", problem: str = "") -> Report:
        machine, kernel = self.machine, self.machine.kernel
        mm = int(kernel.image.current_task.mm)
        self.maps = maps_text(kernel.spaces.areas, mm)
        self.texts = {name: file.text(kernel) for name, file in PROC_FILES.items()}
        self.spec = SpecView(machine.ram, machine.cpu.control, mmu_features(machine.cpu))
        self.ranges = self.spec.mappings.ranges()
        self.walked = {
            va
            for line in self.maps.splitlines()
            for va in range(int(line[:8], 16), int(line[9:17], 16), 4096)
            if self.spec.walk(va).fault is None
        }
        self.owners = dict(machine.ledger._owners)
        self.causes = dict(kernel.memory.faults.counts)
        notes = (note,) if note else ()
        return Report.of(machine, faults=log, notes=notes, problem=problem, command="mmucheck")

    def data(self, name: str) -> Any:
        return self.report.pictures[name]
