# SPDX-License-Identifier: GPL-2.0-or-later
"""Ends runs from outside: at their deadline, and when a signal asks for the process.

While the guest runs, no Python does: a guest that loops without a trap would hold the process
for ever, and Ctrl-C with it. One thread for all CPUs of the process looks ten times a second at
their deadlines, and at once when a signal arrives: Python's C code writes its number into a
pipe (``signal.set_wakeup_fd``) before any handler runs.

A run that was ended so must not be continued as if nothing had been: Unicorn notices a stop
from another thread in the middle of an instruction that reads, modifies and writes memory,
after its store, and would run it again. That is why nobody stops a run that is to go on.

What can fail: where another library has the wakeup pipe already, or outside the main thread,
Ctrl-C is noticed at the guest's next trap.
"""

import contextlib
import os
import select
import signal
import threading
import time
import weakref
from typing import Final, Protocol

INTERVAL_SECONDS: Final = 0.1
ENDING_SIGNALS: Final = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGALRM})


class Watched(Protocol):
    """A CPU: when its run must end (``time.monotonic``, 0: never), and how to end it."""

    running: bool
    deadline: float

    def interrupt(self) -> None: ...


class Watch:
    """The watching thread. It is started with the first run, and again after a fork."""

    def __init__(self) -> None:
        self._watched: weakref.WeakSet[Watched] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._pipe = (-1, -1)
        self.interrupted = False
        """Ctrl-C came while a guest ran; the run that ends by it takes the mark away."""

    def add(self, cpu: Watched) -> None:
        with self._lock:
            self._watched.add(cpu)

    def ensure_running(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            with self._lock:
                self._pipe = os.pipe()
                for end in self._pipe:
                    os.set_blocking(end, False)
                self._listen()
                self._thread = threading.Thread(target=self._run, name="cpu-watch", daemon=True)
                self._thread.start()

    def on_sigint(self, _signal: int, _frame: object) -> None:
        """A handler for SIGINT that waits until the guest has stopped.

        Raised inside a callback from the emulator, ``KeyboardInterrupt`` would be lost between C
        frames; here the run ends first, and whoever started it raises.
        """
        if not any(cpu.running for cpu in self._watched):
            raise KeyboardInterrupt
        self.interrupted = True

    def _listen(self) -> None:
        """Have signals written into the pipe, unless somebody else has them."""
        with contextlib.suppress(ValueError):
            before = signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
            if before != -1:
                signal.set_wakeup_fd(before)

    def _run(self) -> None:
        while True:
            select.select([self._pipe[0]], [], [], INTERVAL_SECONDS)
            signalled = not ENDING_SIGNALS.isdisjoint(self._signals())
            now = time.monotonic()
            with self._lock:
                running = [cpu for cpu in self._watched if cpu.running]
            for cpu in running:
                if signalled or 0.0 < cpu.deadline <= now:
                    cpu.interrupt()

    def _signals(self) -> bytes:
        try:
            return os.read(self._pipe[0], 64)
        except BlockingIOError:
            return b""


watch: Final = Watch()
