# SPDX-License-Identifier: GPL-2.0-or-later
"""The report of a guest that died: what a person needs to see why.

Registers, the instructions around EIP, the walk of CR2, the words on the stack. Everything is
read as the dead guest would have read it, in its own ring; what it could not reach is said to
be unreachable. Nothing here can fail: a report about a broken guest must always come out.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

import capstone

from harness.architecture import Access, Ring
from harness.cpu.interface import Cpu, StopReason
from kernel_model.ram import PAGE_SIZE

Walker = Callable[[int], Iterable[str]]
"""Describes the walk of a virtual address, a line a step."""

_INSTRUCTIONS_BEFORE: Final = 4
_INSTRUCTIONS_AFTER: Final = 6
_LONGEST_INSTRUCTION: Final = 15
_STACK_WORDS: Final = 16
_MASK: Final = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class CrashReport:
    """One death. ``instructions`` are (address, bytes in hex, text); ``stack`` (address, word)."""

    reason: str
    ring: int
    registers: dict[str, int]
    control: dict[str, int]
    instructions: tuple[tuple[int, str, str], ...]
    walk: tuple[str, ...]
    stack: tuple[tuple[int, int | None], ...]

    def as_dict(self) -> dict[str, Any]:
        """For JSON: numbers stay numbers, tuples become lists."""
        return {
            "reason": self.reason,
            "ring": self.ring,
            "registers": dict(self.registers),
            "control": dict(self.control),
            "instructions": [
                {"address": address, "bytes": data, "text": text}
                for address, data, text in self.instructions
            ],
            "walk": list(self.walk),
            "stack": [{"address": address, "word": word} for address, word in self.stack],
        }

    def __str__(self) -> str:
        lines = [f"{self.reason} (ring {self.ring})", ""]
        lines += _columns(self.registers | self.control)
        lines += ["", "code:"]
        eip = self.registers["eip"]
        for address, data, text in self.instructions:
            mark = ">" if address == eip else " "
            lines.append(f" {mark} {address:08x}  {data:<20}  {text}")
        if self.walk:
            lines += ["", f"walk of CR2 {self.control['cr2']:#010x}:"]
            lines += [f"   {step}" for step in self.walk]
        lines += ["", "stack:"]
        lines += [f"   {address:08x}  {_word(word)}" for address, word in self.stack]
        return "\n".join(lines)


def crash_report(
    cpu: Cpu,
    reason: StopReason | str,
    walk: Walker | None = None,
    trapped: dict[str, int] | None = None,
) -> CrashReport:
    """Look at the CPU where it stands. ``walk`` is asked about CR2.

    ``trapped`` are the registers that a trap's entry code saved: with them the report is about
    the instruction that trapped, in its ring, and not about the handler.
    """
    registers = cpu.registers.snapshot() | (trapped or {})
    control = cpu.control
    cr2 = cpu.read_cr2()
    level = registers["cs"] & 3 if trapped else cpu.ring
    ring = Ring.USER if level == Ring.USER else Ring.KERNEL
    return CrashReport(
        reason=str(reason),
        ring=level,
        registers=registers,
        control={"cr0": control.cr0, "cr2": cr2, "cr3": control.cr3, "cr4": control.cr4},
        instructions=tuple(_instructions(cpu, registers["eip"], ring)),
        walk=tuple(walk(cr2)) if walk is not None else (),
        stack=tuple(_stack(cpu, registers["esp"], ring)),
    )


def read_virtual(
    cpu: Cpu, va: int, length: int, access: Access = Access.READ, ring: Ring = Ring.KERNEL
) -> bytes:
    """``length`` bytes at ``va`` as far as ``ring`` reaches them: shorter where it does not."""
    data = bytearray()
    while length > 0:
        chunk = min(length, PAGE_SIZE - va % PAGE_SIZE)
        paddr = cpu.translate(va, access, ring)
        if paddr is None or not cpu.ram.contains(paddr, chunk):
            break
        data += cpu.ram.read(paddr, chunk)
        va = va + chunk & _MASK
        length -= chunk
    return bytes(data)


def _instructions(cpu: Cpu, eip: int, ring: Ring) -> Iterable[tuple[int, str, str]]:
    engine = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_32)
    yield from _before(cpu, engine, eip, ring)
    code = read_virtual(cpu, eip, _LONGEST_INSTRUCTION * _INSTRUCTIONS_AFTER, Access.FETCH, ring)
    if not code:
        yield eip, "", "(cannot be fetched)"
        return
    end = eip
    for found in engine.disasm(code, eip, _INSTRUCTIONS_AFTER):
        yield _line(found)
        end = found.address + found.size
    if end == eip:
        yield eip, code[:4].hex(), "(no instruction)"


def _before(cpu: Cpu, engine: capstone.Cs, eip: int, ring: Ring) -> list[tuple[int, str, str]]:
    """The instructions that lead up to ``eip``: of all ways to decode, the longest that meet it."""
    best: list[tuple[int, str, str]] = []
    reach = _LONGEST_INSTRUCTION * _INSTRUCTIONS_BEFORE
    start = max(eip - reach, eip & ~(PAGE_SIZE - 1))
    code = read_virtual(cpu, start, eip - start, Access.FETCH, ring)
    for skipped in range(len(code)):
        found = list(engine.disasm(code[skipped:], start + skipped))
        if found and found[-1].address + found[-1].size == eip:
            best = [_line(instruction) for instruction in found]
            break
    return best[-_INSTRUCTIONS_BEFORE:]


def _line(instruction: capstone.CsInsn) -> tuple[int, str, str]:
    text = f"{instruction.mnemonic} {instruction.op_str}".strip()
    return instruction.address, bytes(instruction.bytes).hex(), text


def _stack(cpu: Cpu, esp: int, ring: Ring) -> Iterable[tuple[int, int | None]]:
    for number in range(_STACK_WORDS):
        address = esp + 4 * number & _MASK
        data = read_virtual(cpu, address, 4, Access.READ, ring)
        if len(data) < 4:
            yield address, None
            return
        yield address, int.from_bytes(data, "little")


def _columns(values: dict[str, int]) -> list[str]:
    cells = [f"{name:>7} {value:08x}" for name, value in values.items()]
    return ["".join(cells[start : start + 4]) for start in range(0, len(cells), 4)]


def _word(word: int | None) -> str:
    return "(cannot be read)" if word is None else f"{word:08x}"
