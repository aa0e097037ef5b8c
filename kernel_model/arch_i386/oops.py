# SPDX-License-Identifier: GPL-2.0-or-later
"""What the kernel prints when it has faulted itself.

Models the texts of linux-2.4.22 ``arch/i386/mm/fault.c`` (the lines before ``die()``) and
``arch/i386/kernel/traps.c``: ``die()``, ``show_registers()``, ``show_stack()``,
``show_trace()``. Reads RAM; prints into the kernel's log. Nothing here can fail: what lies
outside RAM is left out, as the kernel does where it says "Bad EIP value".
"""

from typing import Any, Final

from kernel_model.arch_i386.page import PAGE_MASK, PAGE_OFFSET, PAGE_SHIFT, PAGE_SIZE, virt_to_phys
from kernel_model.arch_i386.pgtable import PAGE_PRESENT
from kernel_model.image import GUEST_TEXT, KernelImage
from kernel_model.structs.statics import STATICS, THREAD_SIZE

KSTACK_DEPTH_TO_PRINT: Final = 24
CODE_BYTES: Final = 20
_KERNEL_ALERT: Final = "<1>"


class OopsReport:
    """The kernel's own account of a fault of its own."""

    def __init__(self, image: KernelImage) -> None:
        self._image = image
        self._ram = image.ram

    def page_fault(self, regs: int, error_code: int, address: int, cr3: int) -> None:
        """Print why, where, the entries concerned, the registers, the stack and the code."""
        what = "NULL pointer dereference" if address < PAGE_SIZE else "paging request"
        printk = self._image.printk
        printk(f"{_KERNEL_ALERT}Unable to handle kernel {what} at virtual address {address:08x}\n")
        saved = self._image.at(self._image.structs.pt_regs, regs)
        printk(f" printing eip:\n{int(saved.eip):08x}\n")
        # As with two levels even if there are three: the kernel looks no closer.
        pde = self._word(cr3 + (address >> 22) * 4)
        printk(f"{_KERNEL_ALERT}*pde = {pde:08x}\n")
        # A page table in high memory would have to be mapped first, which could fault again.
        if pde & PAGE_PRESENT and not self._image.config.highpte:
            pte = self._word((pde & PAGE_MASK) + (address >> PAGE_SHIFT & 0x3FF) * 4)
            printk(f"{_KERNEL_ALERT}*pte = {pte:08x}\n")
        self.die("Oops", regs, error_code)

    def die(self, text: str, regs: int, error_code: int) -> None:
        """Print the registers in the ``struct pt_regs`` at ``regs``, under a headline."""
        self._image.printk(f"{text}: {error_code & 0xFFFF:04x}\n")
        saved = self._image.at(self._image.structs.pt_regs, regs)
        # A trap of ring 0 saved no stack pointer: the stack goes on where it would stand.
        in_kernel = not int(saved.xcs) & 3
        esp = regs + self._image.structs.pt_regs.offset("esp") if in_kernel else int(saved.esp)
        self._show_registers(saved, esp, 0x18 if in_kernel else int(saved.xss) & 0xFFFF)
        if in_kernel:
            stack, code = self._stack(esp), self._code(int(saved.eip))
            self._image.printk(f"\nStack: {stack}\n{self._trace(esp)}\nCode: {code}")
        self._image.printk("\n")

    def _word(self, paddr: int) -> int:
        return self._ram.read32(paddr) if self._ram.contains(paddr, 4) else 0

    def _show_registers(self, regs: Any, esp: int, ss: int) -> None:
        printk, image = self._image.printk, self._image
        printk(
            f"CPU:    {int(image.current_task.processor)}\n"
            f"EIP:    {int(regs.xcs) & 0xFFFF:04x}:[<{int(regs.eip):08x}>]    Not tainted\n"
            f"EFLAGS: {int(regs.eflags):08x}\n"
        )
        first = {name: int(getattr(regs, name)) for name in ("eax", "ebx", "ecx", "edx")}
        second = {name: int(getattr(regs, name)) for name in ("esi", "edi", "ebp")} | {"esp": esp}
        for values in (first, second):
            printk("   ".join(f"{name}: {value:08x}" for name, value in values.items()) + "\n")
        selectors = {"ds": int(regs.xds) & 0xFFFF, "es": int(regs.xes) & 0xFFFF, "ss": ss}
        printk("   ".join(f"{name}: {value:04x}" for name, value in selectors.items()) + "\n")
        pid, stackpage = int(image.current_task.pid), image.current + PAGE_SIZE
        printk(f"Process {image.current_name} (pid: {pid}, stackpage={stackpage:08x})")

    def _stack_words(self, esp: int) -> list[int]:
        """From ``esp`` to the end of the stack, 8 KiB aligned."""
        end = (esp + THREAD_SIZE - 1) & -THREAD_SIZE
        first, last = virt_to_phys(esp) >> 2, virt_to_phys(end) >> 2
        return self._ram.words[first:last].tolist() if first >= 0 else []

    def _stack(self, esp: int) -> str:
        words = self._stack_words(esp)[:KSTACK_DEPTH_TO_PRINT]
        lines = [words[start : start + 8] for start in range(0, len(words), 8)]
        return "\n       ".join("".join(f"{word:08x} " for word in line) for line in lines)

    def _trace(self, esp: int) -> str:
        """Whatever on the stack could be a return address into the kernel's text."""
        text = range(PAGE_OFFSET + GUEST_TEXT, PAGE_OFFSET + STATICS)
        return "Call Trace:   " + "".join(
            f" [<{word:08x}>]" for word in self._stack_words(esp) if word in text
        )

    def _code(self, eip: int) -> str:
        paddr = virt_to_phys(eip)
        if eip < PAGE_OFFSET or not self._ram.contains(paddr, CODE_BYTES):
            return " Bad EIP value."
        return "".join(f"{byte:02x} " for byte in self._ram.read(paddr, CODE_BYTES))
