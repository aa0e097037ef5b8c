# SPDX-License-Identifier: GPL-2.0-or-later
"""Lets a run come up for air, so that a time limit and Ctrl-C are noticed.

While the guest runs, no Python does: a guest that loops without a trap would hold the process
for ever. One thread for all CPUs of the process looks ten times a second and stops each
run older than that; the run sees that nothing was asked of it, gives Python a moment (pending
signals are handled, the deadline is looked at) and goes on. A run without limits so costs
nothing but ten stops a second. Unicorn's own ``timeout`` starts a thread per run that wakes
every few microseconds.
"""

import threading
import time
import weakref
from typing import Final, Protocol

INTERVAL_SECONDS: Final = 0.1


class Watched(Protocol):
    """A CPU: since when it runs (``time.monotonic``, 0 when it does not), and its stop."""

    running_since: float

    def breathe(self) -> None: ...


class Watch:
    """The watching thread. It is started with the first run, and again after a fork."""

    def __init__(self) -> None:
        self._watched: weakref.WeakSet[Watched] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def add(self, cpu: Watched) -> None:
        with self._lock:
            self._watched.add(cpu)

    def ensure_running(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            with self._lock:
                self._thread = threading.Thread(target=self._run, name="cpu-watch", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while True:
            time.sleep(INTERVAL_SECONDS)
            before = time.monotonic() - INTERVAL_SECONDS
            with self._lock:
                late = [cpu for cpu in self._watched if 0.0 < cpu.running_since < before]
            for cpu in late:
                cpu.breathe()


watch: Final = Watch()
