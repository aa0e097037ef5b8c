# SPDX-License-Identifier: GPL-2.0-or-later
"""CPUID as the machine's table of models has it.

Unicorn's 486 announces PSE, as the last 486s did. The machine's 486 is an early one; a guest
that looks must see what the kernel model was told. Only leaf 1 is changed, and only for a
model that announces more than the table. Bits: Intel SDM volume 2A, CPUID. Nothing here fails.
"""

from typing import Final

from unicorn import x86_const

from harness.cpu import library
from harness.cpu.context import SavedContext
from harness.cpu.monitor import Monitor
from kernel_model.config import CpuFeatures

_FEATURES_LEAF: Final = 1
_EDX: Final = 3
_PSE: Final = 1 << 3
_PAE: Final = 1 << 6
_PGE: Final = 1 << 13


class FeatureLeaf:
    """Answers CPUID's leaf 1 on one CPU. It must live as long as the CPU."""

    def __init__(self, context: SavedContext, monitor: Monitor, features: CpuFeatures) -> None:
        self._context = context
        self._hook = library.CpuidHook(self._answer)
        bits = ((features.pse, _PSE), (features.pae, _PAE), (features.pge, _PGE))
        absent = sum(bit for present, bit in bits if not present)
        answer = monitor.cpuid(_FEATURES_LEAF)
        self._leaf = [*answer[:_EDX], answer[_EDX] & ~absent]
        if answer[_EDX] & absent:
            library.add_instruction_hook(context.handle, x86_const.UC_X86_INS_CPUID, self._hook)

    def _answer(self, _uc: object, _data: object) -> int:
        """True instead of the instruction, false to let it run."""
        context = self._context
        context.save()
        words, general = context.words, context.layout.general
        asked = words[general] == _FEATURES_LEAF
        if asked:
            eax, ebx, ecx, edx = self._leaf
            for place, value in zip((0, 2, 4, 6), (eax, ecx, edx, ebx), strict=True):
                words[general + place] = value
            context.dirty = True
        context.release()
        return asked
