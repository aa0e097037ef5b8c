# SPDX-License-Identifier: GPL-2.0-or-later
"""A progress bar, or none: long work reports to a :class:`Meter` either way."""

from rich.progress import Progress, TaskID


class Meter:
    """The stages of one piece of work, one bar after the other."""

    def __init__(self, progress: Progress | None = None) -> None:
        self._progress = progress
        self._task: TaskID | None = None

    def start(self, description: str, total: int) -> None:
        """The next stage begins; the bar of the last one goes away."""
        if self._progress is not None:
            self.finish()
            self._task = self._progress.add_task(description, total=total)

    def advance(self, amount: int) -> None:
        """``amount`` more of the stage's total is done."""
        if self._progress is not None and self._task is not None:
            self._progress.advance(self._task, amount)

    def finish(self) -> None:
        """No stage is under way."""
        if self._progress is not None and self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None
