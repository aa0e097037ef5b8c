# SPDX-License-Identifier: GPL-2.0-or-later
"""A PC under QEMU whose RAM is ours too: started headless, steered by QMP.

QEMU takes its guest memory from a file; given an anonymous one that this process has mapped,
both sides share every byte, and nothing has to be copied or asked for. QMP lets the guest run
and stop and says when it has died. QEMU delivers exceptions itself, so nothing of
:mod:`harness.traps` is at work here.

What can fail: :class:`QemuMissing` where the program is not installed, or is not this one's
name; :class:`QemuFailed` when it does not start, ends by itself, or the guest resets the PC.
"""

import asyncio
import ctypes
import logging
import mmap
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from qemu.qmp import ConnectError, QMPClient, QMPError

from harness.cpu.interface import CpuError
from kernel_model.errors import BadInput

PROGRAM: Final = "qemu-system-i386"
_START_SECONDS: Final = 30.0
_END_SECONDS: Final = 5.0
_FIRST_POLL_SECONDS: Final = 0.0001
_LAST_POLL_SECONDS: Final = 0.005
_PR_SET_PDEATHSIG: Final = 1
_libc: Final = ctypes.CDLL(None)
_HARMLESS: Final = "not a multiple of 1G"
"""QEMU's remark on a memory split below 4 GiB, which is wanted here."""


def _die_with_parent() -> None:
    """In the child, before QEMU is executed."""
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


class QemuMissing(BadInput):
    """There is no QEMU on this machine."""


class QemuFailed(CpuError):
    """QEMU did not start, or did not go on."""


def qemu_program() -> str | None:
    """Where QEMU for i386 is installed; None if it is not."""
    return shutil.which(PROGRAM)


class QemuPc:
    """One QEMU, stopped. ``ram`` is its memory: ``low`` bytes from 0, the rest from 4 GiB on.

    A context manager; :meth:`close` ends the process.
    """

    def __init__(
        self, size: int, low: int, cpu: str, kernel: Path, append: str, more: Sequence[str] = ()
    ) -> None:
        program = qemu_program()
        if program is None:
            raise QemuMissing(
                f"{PROGRAM} is not installed: choose --cpu unicorn, or install the package "
                f"qemu-system-x86"
            )
        self._file = os.memfd_create("mmucheck-ram", os.MFD_CLOEXEC)
        os.ftruncate(self._file, size)
        self.ram = mmap.mmap(self._file, size)
        self._directory = tempfile.TemporaryDirectory(prefix="mmucheck-qemu-")
        self._errors = Path(self._directory.name, "stderr")
        self._serial = Path(self._directory.name, "serial")
        socket = str(Path(self._directory.name, "qmp"))
        backend = f"memory-backend-file,id=ram,size={size},share=on"
        command = [
            *(program, "-nodefaults", "-display", "none", "-no-reboot", "-S"),
            *("-machine", f"pc,accel=tcg,memory-backend=ram,max-ram-below-4g={low}"),
            *("-object", f"{backend},mem-path=/proc/self/fd/{self._file}"),
            *("-m", f"{size // 1024}K", "-cpu", cpu),
            *("-kernel", str(kernel), "-append", append),
            *("-qmp", f"unix:{socket},server=on,wait=off"),
            *("-serial", f"file:{self._serial}"),
            *more,
        ]
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=errors,
                pass_fds=(self._file,),
                # Ctrl-C is for us; we end QEMU ourselves, or the kernel does when we die.
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        self._loop = asyncio.new_event_loop()
        # Says at error level that nobody listens yet.
        logging.getLogger("qemu.qmp.protocol").setLevel(logging.CRITICAL)
        self._qmp = QMPClient()
        self._connected = False
        try:
            self._connect(socket)
        except BaseException:
            self.close()
            raise

    def _connect(self, socket: str) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while not self._connected:
            self._check_alive()
            try:
                self._loop.run_until_complete(self._qmp.connect(socket))
                self._connected = True
            except ConnectError as error:
                # The socket is not there yet, or nobody listens yet.
                if time.monotonic() > deadline:
                    raise QemuFailed(f"QEMU's QMP does not answer: {error}") from error
                time.sleep(0.01)

    def command(self, name: str, **arguments: object) -> Any:
        """Execute one QMP command."""
        try:
            return self._loop.run_until_complete(self._qmp.execute(name, arguments))
        except QMPError as error:
            self._check_alive()
            raise QemuFailed(f"QMP {name}: {error}") from error

    def run_until(self, done: Callable[[], bool], seconds: float) -> None:
        """Let the guest run until ``done``, which looks at RAM; then stop it.

        :raises QemuFailed: after ``seconds``, or when the PC was reset (a triple fault).
        """
        self.command("cont")
        deadline = time.monotonic() + seconds
        pause = _FIRST_POLL_SECONDS
        while not done():
            if time.monotonic() > deadline:
                said = self.serial_output().strip() or "it said nothing"
                raise QemuFailed(f"the guest on QEMU was not done after {seconds:g} s: {said}")
            self._check_alive()
            time.sleep(pause)
            pause = min(2 * pause, _LAST_POLL_SECONDS)
        self.command("stop")

    def serial_output(self) -> str:
        """What the guest has written to the first serial line."""
        return self._serial.read_text(errors="replace") if self._serial.exists() else ""

    def _check_alive(self) -> None:
        status = self._process.poll()
        if status is None:
            return
        said = [
            line
            for line in self._errors.read_text(errors="replace").splitlines()
            if _HARMLESS not in line
        ]
        reason = said[-1] if said else "the guest reset the PC, as a triple fault does"
        raise QemuFailed(f"QEMU ended with status {status}: {reason}")

    def close(self) -> None:
        """End the process and give its memory back."""
        if self._connected:
            self._connected = False
            self._loop.run_until_complete(self._disconnect())
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._loop.close()
        os.close(self._file)
        self._directory.cleanup()

    async def _disconnect(self) -> None:
        try:
            await self._qmp.disconnect()
        except (QMPError, EOFError, OSError):
            # It is to end anyway.
            return

    def __enter__(self) -> "QemuPc":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
