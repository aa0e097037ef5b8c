# SPDX-License-Identifier: GPL-2.0-or-later
"""The kernel in memory: RAM, the layouts of its structures, its static objects, its log.

Models the linked image of linux-2.4.22 from ``_text`` at 1 MiB to ``_end`` at 4 MiB, with
the addresses that ``arch/i386/kernel/head.S`` and the linker script give to page tables.
Every part of the model is handed the one :class:`KernelImage` of its machine.
"""

from typing import Any, Final

from kernel_model.arch_i386.page import phys_to_virt, virt_to_phys
from kernel_model.config import KernelConfig
from kernel_model.events import Announcer
from kernel_model.functions import KernelFunctions
from kernel_model.ram import PAGE_SIZE, Ram
from kernel_model.release.constants import CONSTANTS
from kernel_model.structs import Abi, CType, Structs
from kernel_model.structs.statics import INIT_TASK_UNION, STATICS, THREAD_SIZE

TEXT: Final = 0x100000
SWAPPER_PG_DIR: Final = 0x101000
PG0: Final = 0x102000
PG1: Final = 0x103000
EMPTY_ZERO_PAGE: Final = 0x104000
GUEST_TEXT: Final = 0x106000
"""Where the ring-0 guest is linked and loaded; it may reach up to :data:`INIT_TASK_UNION`."""
END: Final = 0x400000
BOOT_TABLES: Final = {"2.4": (PG0, PG1), "2.6": (END, END + PAGE_SIZE)}
"""The page tables for the first 8 MiB: in the image of 2.4, right behind it in 2.6."""
CODE_BYTES: Final = 2048 << 10
DATA_BYTES: Final = 512 << 10
INIT_BYTES: Final = 64 << 10


class KernelImage:
    """What every part of the kernel can name: its memory and its global variables."""

    def __init__(self, config: KernelConfig) -> None:
        self.config = config
        ranges = [
            (-(-e.addr // PAGE_SIZE) * PAGE_SIZE, e.end // PAGE_SIZE * PAGE_SIZE)
            for e in config.e820
            if e.type == 1
        ]
        self.ram = Ram(max(end for _, end in ranges), [r for r in ranges if r[0] < r[1]])
        self.boot_tables = BOOT_TABLES[config.release]
        self.boot_end = max(END, self.boot_tables[-1] + PAGE_SIZE)
        """Physical end of the image and of the page tables that it was booted with."""
        self.constants = CONSTANTS[config.release]
        self.structs = Structs.of(Abi.of(config))
        self.statics: Any = self.structs.kernel_statics.at(self.ram, STATICS)
        self.events = Announcer()
        self.functions = KernelFunctions()
        self.log: list[str] = []
        self.init_task = phys_to_virt(INIT_TASK_UNION)
        self.switch_to(self.init_task)

    def switch_to(self, task: int) -> None:
        """Make ``task``, a ``struct task_struct *``, the current process.

        On a CPU that is the ``task_struct`` at the lower end of the stack that ESP points into.
        """
        self.current = task
        self.current_task: Any = self.at(self.structs.task_struct, task)

    def kernel_stack_top(self, task: int) -> int:
        """Kernel virtual address of the upper end of the kernel stack of ``task``."""
        return task + THREAD_SIZE

    @property
    def current_name(self) -> str:
        """``current->comm``: the name of the program that the current process runs."""
        return bytes(self.current_task.comm).partition(b"\0")[0].decode("latin-1")

    def printk(self, text: str) -> None:
        """Append to the kernel's log; ``text`` carries its own level and newline."""
        self.log.append(text)

    def symbol(self, name: str) -> int:
        """Kernel virtual address of the static object ``name``."""
        return phys_to_virt(STATICS + self.structs.kernel_statics.offset(name))

    def at(self, kind: CType, vaddr: int) -> Any:
        """A view of the structure that a kernel pointer points to."""
        return kind.at(self.ram, virt_to_phys(vaddr))
