# SPDX-License-Identifier: GPL-2.0-or-later
"""Topic ``rmap_trace``: several address spaces that share pages, and who maps each page.

Besides the operations on VMAs: processes fork and end, touch pages as an MMU would, pages enter the
swap cache, are asked for signs of use, and unmapped from everybody.
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, Final

from harness.replay.faults_2_6 import NO_VMA, FaultMachine, model_pfn
from harness.replay.trace import Comparison, Trace
from harness.replay.vma_2_6 import FIRST_FRAME, choose_layout, offset
from kernel_model.arch_i386.page import PAGE_MASK, PAGE_SHIFT
from kernel_model.arch_i386.pgtable import PAGE_ACCESSED, PAGE_DIRTY, PAGE_PRESENT, PAGE_RW
from kernel_model.mm.prio_tree import VmaPrioTree
from kernel_model.mm.rmap.object_walk import ObjectWalk
from kernel_model.mm.rmap.one_pte import PteUnmapper
from kernel_model.mm.swapops import file_ptes

FILES_SHOWN: Final = (2, 3)
"""Whose VMAs a recording shows."""
_OF_VMAS: Final = ("set_exec", "setup_stack")
"""The first operations say what VMA traces say; the others what the pages of a space are."""


class RmapMachine(FaultMachine):
    """Address spaces by their recorded numbers, and the reverse map over them."""

    def __init__(self) -> None:
        super().__init__(makes_present=True)
        unmapper = PteUnmapper(
            self.image,
            self.allocator,
            self.memory.tables,
            self.areas,
            file_ptes(pae=False),
            self.tlb,
            self.rmap,
            self.set_page_dirty,
        )
        trees = VmaPrioTree(self.image.ram)
        self.walk = ObjectWalk(
            self.image, self.allocator, self.rmap, self.spaces.anon_vmas, trees, unmapper
        )
        flags = self.image.constants.page_flags
        self._locked = flags.locked

    # -- processes -----------------------------------------------------------------------------

    def new_mm(self) -> None:
        """Begin, with one address space."""
        super().new_mm()
        self.current, self.mms = 0, {0: self.mm}

    def switch_mm(self, number: int) -> None:
        task = self.image.current_task
        task.mm = task.active_mm = self.mms[number]
        self.current = number

    def copy(self, number: int) -> None:
        """A child of the current process; the parent goes on."""
        child = SimpleNamespace(mm=0, active_mm=0)
        self.fork.copy_mm(0, child)
        self.mms[number] = child.mm

    def exit(self, number: int) -> None:
        """Everything that an address space maps goes; its counters can still be asked."""
        self.spaces.exit_mmap(self.mms.pop(number))

    # -- pages ---------------------------------------------------------------------------------

    def touch(self, address: int, write: int) -> int:
        """What an MMU does when it finds the page; 0: it does not, or may not."""
        entries, ptep = self.memory.tables.tables, self.ptep(self.mm, address & PAGE_MASK)
        pte = entries.entry(ptep) if ptep else 0
        if not pte & PAGE_PRESENT or (write and not pte & PAGE_RW):
            return 0
        entries.set_pte(ptep, pte | PAGE_ACCESSED | (PAGE_DIRTY if write else 0))
        return 1

    def swapcache(self, pfn: int) -> int:
        """Put a page into the swap cache. Its slot."""
        page = self.memmap.page(model_pfn(pfn))
        entry = self.areas.get_swap_page()
        self.swap.insert(page, entry)
        self.memmap.set_bit(page, self.image.constants.page_flags.uptodate)
        self.memmap.clear_bit(page, self._locked)
        return entry

    def try_to_unmap(self, pfn: int) -> int:
        """As ``shrink_list()`` does it: with a reference, and locked."""
        page = self.memmap.page(model_pfn(pfn))
        self.allocator.get_page(page)
        self.memmap.set_bit(page, self._locked)
        result = self.walk.try_to_unmap(page)
        self.memmap.clear_bit(page, self._locked)
        self.allocator.put_page(page)
        return int(result)

    def page_referenced(self, pfn: int, locked: int) -> int:
        page = self.memmap.page(model_pfn(pfn))
        if locked:
            self.memmap.set_bit(page, self._locked)
        referenced = self.walk.page_referenced(page, is_locked=bool(locked))
        if locked:
            self.memmap.clear_bit(page, self._locked)
        return referenced

    # -- as traces have it ---------------------------------------------------------------------

    def pages_summary(self) -> list[int]:
        """[current, rss, anon_rss, nr_ptes]."""
        space = self.spaces.areas.mm(self.mm)
        return [self.current, space.rss, space.anon_rss, space.nr_ptes]

    def _space(self, mm: int) -> dict[str, Any]:
        space = self.spaces.areas.mm(mm)
        vmas = []
        for vma in self.spaces.areas.list(mm):
            start, end, flags, pgoff, file, _, anon_vma = self.row(vma)
            vmas.append([start, end, flags, pgoff, file, anon_vma])
        return {
            **{name: getattr(space, name) for name in ("rss", "anon_rss", "nr_ptes")},
            "vmas": vmas,
            "ptes": [[address, pte] for address, pte in self.present(mm)],
        }

    def _anon_vmas(self) -> list[Any]:
        """Each list that a VMA is on, with the address spaces of all that are on it."""
        areas = self.spaces.areas
        numbers = {mm: number for number, mm in self.mms.items()}
        heads = {
            areas.vma(vma).anon_vma: None
            for number in sorted(self.mms)
            for vma in areas.list(self.mms[number])
        }
        rows = []
        for anon_vma in filter(None, heads):
            vmas = [areas.vma(vma) for vma in self.spaces.anon_vmas.vmas(anon_vma)]
            linked = [[numbers[area.vm_mm], area.vm_start] for area in vmas]
            rows.append([offset(anon_vma), linked])
        return rows

    def _pages(self, pfns: list[int]) -> list[list[int]]:
        rows = []
        for pfn in pfns:
            page = self.memmap.page(model_pfn(pfn))
            rows.append([pfn, *self.page_facts(pfn), self.memmap.private(page)])
        return rows

    def pages_state(self) -> dict[str, Any]:
        """Every address space, every list, every page that is a process's or a file's."""
        return {
            "cur": self.current,
            "mms": {str(number): self._space(self.mms[number]) for number in sorted(self.mms)},
            "anon_vmas": self._anon_vmas(),
            "pages": self._pages(self.frames_of_pages()),
            "files": [
                [number, *self._mapped(self.files.by_number[number])] for number in FILES_SHOWN
            ],
        }

    def frames_of_pages(self) -> list[int]:
        """The recorded numbers of all frames that hold a page."""
        memmap, frames = self.memmap, self.frames
        return [
            pfn
            for pfn in range(FIRST_FRAME, frames.next)
            if memmap.words[memmap.word(memmap.page(model_pfn(pfn)), memmap.mapping_word)]
        ]

    def _mapped(self, file: int) -> list[Any]:
        mapping = self.image.at(self.image.structs.file, file).f_mapping
        starts, _, bits, nodes = self.files.mapped(int(mapping))
        return [starts, bits, nodes]


class _Run:
    """One trace."""

    def __init__(self, trace: Trace, comparison: Comparison) -> None:
        self._data = trace.data
        self._comparison = comparison
        self._machine = machine = RmapMachine()
        choose_layout(machine, trace)
        spaces = machine.spaces
        self._answers: dict[str, Callable[..., object]] = {
            "mmap": self._mmap,
            "munmap": lambda addr, length: spaces.do_munmap(machine.mm, addr, length),
            "mprotect": spaces.sys_mprotect,
            "mremap": spaces.do_mremap,
            "mlock": spaces.sys_mlock,
            "munlock": spaces.sys_munlock,
            "touch": machine.touch,
        }
        """Operations whose arguments an answer follows."""
        self._done: dict[str, Callable[..., None]] = {
            "set_exec": machine.set_exec,
            "setup_stack": machine.setup_stack,
            "switch_mm": machine.switch_mm,
            "fork": machine.copy,
            "exit_mmap": machine.exit,
        }
        """Operations without one."""
        self._of_pages: dict[str, Callable[..., int]] = {
            "swapcache": lambda pfn, _: machine.swapcache(pfn),
            "try_to_unmap": lambda pfn, _: machine.try_to_unmap(pfn),
            "page_referenced": lambda pfn, locked, _: machine.page_referenced(pfn, locked),
        }
        """Operations on a page, which then say how it is."""

    def replay(self) -> None:
        states = {state["after"]: state for state in self._data["states"]}
        for number, operation in enumerate(self._data["ops"]):
            name, events = operation[1], self._machine.events
            events.clear()
            answer = [number, *self._operation(number, name, operation[2:])]
            first = name in _OF_VMAS
            answer.append(self._machine.summary() if first else self._machine.pages_summary())
            if events:
                answer.append(list(events))
            self._comparison.equal(f"ops[{number}] {name}", operation, answer)
            if number in states:
                self._state(f"state after {number}", states.pop(number))
        self._comparison.equal("states after no operation", [], list(states))
        self._state("final", self._data["final"])

    def _operation(self, number: int, name: str, recorded: list[Any]) -> list[Any]:
        """Do what was done. The operation again, with the model's answer in place of the old."""
        if name == "fault":
            return self._fault(*recorded[:2])
        if name == "find_extend_vma":
            return [name, self._find_extend_vma(number, recorded[0])]
        arguments = []
        for value in recorded:
            if isinstance(value, list):
                break
            arguments.append(value)
        if name in self._done:
            self._done[name](*arguments)
            return [name, *arguments]
        if name in self._of_pages:
            answer = self._of_pages[name](*arguments)
            return [name, *arguments[:-1], answer, self._machine.page_facts(arguments[0])]
        return [name, *arguments[:-1], self._answers[name](*arguments[:-1])]

    def _find_extend_vma(self, number: int, found: int) -> int:
        """The recording says whether there was a VMA, and not at which address. How far down the
        stack has grown shows in the next state, unless a fault has made it grow as far."""
        machine, mm = self._machine, str(self._machine.current)
        if not found:
            return 0
        following = (s for s in self._data["states"] if s["after"] >= number and mm in s["mms"])
        state = next(following, None)
        if state is None:
            return found
        start, end = next(vma[:2] for vma in state["mms"][mm]["vmas"] if int(vma[2], 16) & 0x100)
        later = self._data["ops"][number : state["after"] + 1]
        faults = [op[2] & PAGE_MASK for op in later if op[1] == "fault" and start <= op[2] < end]
        if start in faults:
            return found
        return int(bool(machine.spaces.find_extend_vma(machine.mm, start)))

    def _fault(self, address: int, write: int) -> list[Any]:
        machine = self._machine
        result = machine.fault(address, write)
        pte = machine.pte(address) if result != NO_VMA else 0
        facts = machine.page_facts(pte >> PAGE_SHIFT) if result >= 0 else None
        return ["fault", address, write, result, pte, facts]

    def _mmap(self, number: int, addr: int, length: int, prot: int, flags: int, pgoff: int) -> int:
        file = self._machine.files.by_number[number]
        return self._machine.spaces.do_mmap_pgoff(file, addr, length, prot, flags, pgoff)

    def _state(self, where: str, recorded: dict[str, Any]) -> None:
        state = {"after": recorded["after"], **self._machine.pages_state()}
        self._comparison.equal(where, recorded, state)


def replay_trace(trace: Trace, comparison: Comparison) -> None:
    _Run(trace, comparison).replay()
