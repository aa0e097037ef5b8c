# SPDX-License-Identifier: GPL-2.0-or-later
"""The readings of an address space: who says what an access comes to, and how he is asked.

* :mod:`~harness.readings.intent`: the kernel model, from its records;
* :mod:`~harness.readings.spec`: the architecture, by the reference walk;
* :mod:`~harness.readings.cpu_mmu`: the emulator's MMU, asked;
* :mod:`~harness.readings.cpu_probe`: the emulator, made to load, store and fetch.

All have one shape, :class:`~harness.readings.reading.Reading`.
"""

from harness.readings.reading import QUESTIONS, Question, Reading

__all__ = ["QUESTIONS", "Question", "Reading"]
