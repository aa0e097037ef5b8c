# SPDX-License-Identifier: GPL-2.0-or-later
"""One guest program, run as a process: what it wrote, and how it ended."""

from collections.abc import Callable

from harness.guests import guest_path
from harness.machine import Limits, Machine
from harness.processes.linux import Linux, Setup
from harness.processes.process import Ended


class Running:
    """The program ``name`` of the project's own, started and not yet run."""

    def __init__(
        self,
        machine: Machine,
        name: str,
        *arguments: bytes,
        output: Callable[[bytes], None] | None = None,
        limits: Limits | None = None,
    ) -> None:
        self.written = bytearray()
        path = b"/" + name.encode()
        setup = Setup(
            files={path: guest_path(name).read_bytes()},
            output=output or self.written.extend,
            limits=limits or Limits(),
        )
        self.linux = Linux(machine, setup)
        try:
            self.process = self.linux.start(path, [name.encode(), *arguments])
        except BaseException:
            self.linux.close()
            raise

    @property
    def pgd(self) -> int:
        return self.process.pgd

    def run(self) -> Ended:
        """Run it to its end; nothing of it stays."""
        try:
            return self.linux.run(self.process)
        finally:
            self.linux.close()
