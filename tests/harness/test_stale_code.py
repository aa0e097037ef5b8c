# SPDX-License-Identifier: GPL-2.0-or-later
"""A frame that held instructions and is used again: the CPU runs what is there now.

Emulators translate code once, as CPUs decode it; whoever fills a frame from outside the CPU has to
say so (``Processor.snoop()``).
"""

import pytest

from tests.harness.process_machine import CONFIGS, PAGE, ProcessMachine

AT = 0x50000000
RWX = 7
CODE = (0x345678B8, 0x0000C312)
"""``mov $0x12345678, %eax; ret``."""
RESULT = 0x12345678


class Coder(ProcessMachine):
    """A process that wrote a function, called it, and gave the page back."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.map(AT, RWX)
        for number, word in enumerate(CODE):
            self.write(self.first, AT + 4 * number, word)
        assert self.call() == RESULT
        self.was = self.frame(self.first, AT)
        assert self.kernel.spaces.do_munmap(self.spaces.mm(self.first), AT, PAGE) == 0

    def call(self) -> int | str:
        return self._access(self.first, "user_exec", AT, 0)

    def same_frame(self) -> bool:
        return self.frame(self.first, AT) == self.was


@pytest.mark.parametrize("kind", ["2-level", "2.6", "2.6 chains"])
@pytest.mark.book("4.6")
def test_a_page_of_zeros_is_no_function(kind: str) -> None:
    """``add %al, (%eax)`` faults at once."""
    coder = Coder(CONFIGS[kind])
    coder.map(AT, RWX)
    coder.read(coder.first, AT)
    assert coder.call() == "SEGV_MAPERR"
    coder.write(coder.first, AT + 8, 0)
    assert coder.same_frame()
    assert coder.call() == "SEGV_MAPERR"
