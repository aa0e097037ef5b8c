# SPDX-License-Identifier: GPL-2.0-or-later
"""Pages of files as the emulated CPU sees them: what it wrote reaches the disk, what is written
to a file reaches the CPU."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from harness.machine import Machine
from harness.monitors.frames import FrameLedger
from harness.readings.probe_place import PROBE
from kernel_model.arch_i386.page import virt_to_phys
from kernel_model.config import MIB, RELEASES, KernelConfig
from kernel_model.kernel import Kernel
from kernel_model.mm.filemap.sync import MS_SYNC
from kernel_model.mm.gfp import GFP_KERNEL
from tests.kernel_model.mm.file_world import Disk
from tests.kernel_model.mm.file_world_2_6 import file_world

pytestmark = [
    pytest.mark.usefixtures("either_release"),
    pytest.mark.parametrize("either_release", RELEASES, indirect=True),
]

BASE = 0x40000000
WRITE = 1
RETURNS = b"\xb8%b\x00\x00\x00\xc3"
"""``mov eax, N``; ``ret``."""


class FilesOnCpu:
    """A machine that runs in an address space with a file of two pages mapped."""

    def __init__(self, content: bytes = bytes(8192)) -> None:
        kernel = Kernel(KernelConfig(ram=16 * MIB, swap_pages=50))
        FrameLedger().listen(kernel.image.events)
        self.machine = Machine(kernel)
        self.world = world = file_world(kernel=kernel)
        self.disk = Disk(content)
        self.file, mm = world.open(self.disk), world.new_mm()
        world.files.get_file(self.file)
        self.vma = world.map(mm, self.file, BASE, 2)
        world.touch(self.vma, BASE)
        kernel.tlb.processor.load_cr3(world.pgd(mm))
        self._table = kernel.allocator.get_free_page(GFP_KERNEL)

    def store(self, vaddr: int, value: int) -> None:
        """The CPU stores a word, in ring 0."""
        row = np.frombuffer(self.machine.ram.buffer, PROBE, 1, virt_to_phys(self._table))
        row[0] = (vaddr, WRITE, value, 0, 0, 0)
        self.machine.call("probe_kernel", self._table, 1)
        assert not row[0]["fault"]

    def word_on_disk(self) -> int:
        return int.from_bytes(self.disk.content[:4], "little")


@pytest.mark.book("3.8")
@pytest.mark.parametrize(
    ("forgotten", "lost"),
    [
        ((), False),
        (("flush_tlb_range",), False),
        (("flush_tlb_page",), False),
        (("flush_tlb_page", "flush_tlb_range"), True),
    ],
)
def test_a_page_that_msync_cleaned_becomes_dirty_again(
    forgotten: tuple[str, ...], lost: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A CPU that keeps the entry as dirty does not set the bit again: what it writes then is
    lost. Either of the kernel's two flushes alone would do on this CPU."""
    cpu = FilesOnCpu()
    for name in forgotten:
        monkeypatch.setattr(cpu.world.kernel.tlb, name, lambda *arguments: None)
    cpu.store(BASE, 0x11111111)
    assert cpu.world.filemap.sys_msync(BASE, 4096, MS_SYNC) == 0
    assert cpu.word_on_disk() == 0x11111111
    cpu.store(BASE, 0x22222222)
    assert cpu.world.filemap.sys_msync(BASE, 4096, MS_SYNC) == 0
    assert cpu.word_on_disk() == (0x11111111 if lost else 0x22222222)


CHANGES: dict[str, Callable[[FilesOnCpu], object]] = {
    "write()": lambda cpu: cpu.world.filemap.write(cpu.file, RETURNS % b"\x02", 0),
    "the store changed": lambda cpu: cpu.world.hostfs.written(
        cpu.world.files.inode_of(cpu.file), 0, 0, RETURNS % b"\x02"
    ),
}


@pytest.mark.parametrize("told", [True, False])
@pytest.mark.parametrize("change", CHANGES)
def test_the_cpu_runs_the_code_that_was_written_to_the_file(
    change: str, told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An emulator keeps what it translated from a frame, until it is told of the change."""
    cpu = FilesOnCpu((RETURNS % b"\x01").ljust(8192, b"\0"))
    assert cpu.machine.call(BASE) == 1
    if not told:
        processor: Any = cpu.world.kernel.tlb.processor
        monkeypatch.setattr(processor, "snoop", lambda paddr, length: None)
    CHANGES[change](cpu)
    assert cpu.machine.call(BASE) == (2 if told else 1)
