# SPDX-License-Identifier: GPL-2.0-or-later
"""What the replays of both releases' VMA layers share: topics ``vma_*``.

A machine with one process at a time, its operations call by call, and what its address space looks
like after each. The machines are :mod:`.vma_2_4` and :mod:`.vma_2_6`.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final

from harness.replay.trace import Comparison, Trace
from harness.replay.vma_files import RecordedFiles
from kernel_model.arch_i386 import page
from kernel_model.arch_i386.pgtable import TWO_LEVEL
from kernel_model.errors import KernelBug
from kernel_model.fork import Fork
from kernel_model.image import KernelImage
from kernel_model.mm.address_spaces import AddressSpaces
from kernel_model.mm.mmap.find import VM_RB
from kernel_model.mm.rbtree import COLOR, LEFT, RIGHT
from kernel_model.structs import Structs, mm, mman, sched

NUM_PHYSPAGES: Final = 16384
Operation = Callable[..., object]


def compare_layouts(
    name: str,
    rows: list[list[Any]],
    structs: Structs,
    constants: Mapping[str, Any],
    comparison: Comparison,
) -> None:
    """Structures and constants of one build."""
    kinds = {kind.spelling: kind for kind in structs.all()}
    for kind_name, field, at, size in rows:
        where = f"{name} {kind_name}.{field}"
        if kind_name == "const":
            comparison.equal(where, [at, size], [constants[field], 0])
        elif field:
            kind = kinds[kind_name]
            ours = [kind.offset(field), getattr(kind.ctype, field).size]
            comparison.equal(where, [at, size], ours)
        else:
            comparison.equal(where, [at, size], [0, kinds[kind_name].size])


def common_constants(levels: Any = TWO_LEVEL) -> dict[str, Any]:
    """The constants that recordings of both releases ask for."""
    return {
        **{name: value for module in (mm, mman, sched) for name, value in vars(module).items()},
        "TASK_SIZE": page.TASK_SIZE,
        "TASK_UNMAPPED_BASE": page.TASK_UNMAPPED_BASE,
        "PGDIR_SIZE": levels.pgdir_size,
        "PTRS_PER_PGD": levels.ptrs_per_pgd,
    }


class VmaMachine(ABC):
    """The VMA layer of one release, over what the recordings had below it."""

    image: KernelImage
    spaces: AddressSpaces
    fork: Fork
    files: RecordedFiles
    events: list[list[Any]]
    """What the operation that runs has asked of others."""
    sysctls: ClassVar[Mapping[str, str]] = {}
    """Names that traces use, and the variable of the kernel."""

    def __init__(self) -> None:
        self.free_pages = 0

    def limitless(self) -> None:
        """No limit stops the current process."""
        for limit in self.image.current_task.rlim:
            limit.rlim_cur = sched.RLIM_INFINITY

    @property
    def mm(self) -> int:
        return self.spaces.areas.current_mm

    @abstractmethod
    def new_mm(self) -> None:
        """Run in an address space of its own from now on."""

    @abstractmethod
    def setup_stack(self, start: int, end: int) -> None:
        """The VMA that ``setup_arg_pages()`` makes for a new program."""

    def new_stack(self, start: int, end: int) -> None:
        """That VMA, linked and counted."""
        areas, vm_flags = self.spaces.areas, self.spaces.parts.data_flags | mm.VM_GROWSDOWN
        vma = areas.alloc()
        areas.fill(vma, self.mm, start, end, vm_flags, 0)
        self.spaces.insert_vm_struct(self.mm, vma)
        areas.mm(self.mm).total_vm = end - start >> page.PAGE_SHIFT

    def set_exec(self, end_code: int, end_data: int) -> None:
        """Where code, data and heap of a new program lie."""
        space = self.spaces.areas.mm(self.mm)
        space.end_code = space.start_data = end_code
        space.end_data = space.start_brk = space.brk = end_data

    def sysctl(self, name: str, value: int) -> None:
        """Set a limit, or one of the counters that tell how much memory there is."""
        if name == "free":
            self.free_pages = value
            return
        *places, field = self.sysctls[name].split(".")
        target: Any = self.image.statics
        for place in places:
            target = getattr(target, place)
        setattr(target, field, value)

    # -- as traces have it ---------------------------------------------------------------------

    def start_of(self, vma: int) -> int | None:
        """A VMA: where it begins."""
        return self.spaces.areas.vma(vma).vm_start if vma else None

    def summary(self) -> list[Any]:
        """What is said after each operation."""
        space = self.spaces.areas.mm(self.mm)
        cached = self.start_of(space.mmap_cache)
        return [space.map_count, space.total_vm, space.locked_vm, cached]

    def state(self, *, whole: bool) -> dict[str, Any]:
        """Everything; with ``whole`` also the shape of the tree, and the files."""
        space, areas = self.spaces.areas.mm(self.mm), self.spaces.areas
        state: dict[str, Any] = {
            "map_count": space.map_count,
            "total_vm": space.total_vm,
            "locked_vm": space.locked_vm,
            "def_flags": space.def_flags,
            "brk": space.brk,
            "mmap_cache": self.start_of(space.mmap_cache),
            "vmas": [self.row(vma) for vma in areas.list(self.mm)],
            **self.further_state(),
        }
        if whole:
            state["rb"] = self._preorder(space.mm_rb.rb_node)
            state["files"] = self.files.state()
        return state

    @abstractmethod
    def further_state(self) -> dict[str, Any]:
        """What only one release has."""

    def row(self, vma: int) -> list[Any]:
        """One VMA."""
        area = self.spaces.areas.vma(vma)
        return [
            *(area.vm_start, area.vm_end, f"{area.vm_flags:x}", area.vm_pgoff),
            *(self.files.numbers[area.vm_file], f"{area.vm_page_prot:x}"),
        ]

    def _preorder(self, node: int) -> list[list[int]]:
        if not node:
            return []
        tree = self.spaces.links.tree
        left, right = tree.get(node, LEFT), tree.get(node, RIGHT)
        shape = tree.get(node, COLOR) | 2 * bool(left) | 4 * bool(right)
        start = self.spaces.areas.vma(node - VM_RB).vm_start
        return [[start, shape], *self._preorder(left), *self._preorder(right)]


class VmaRun:
    """One trace on a machine."""

    def __init__(self, trace: Trace, comparison: Comparison, machine: VmaMachine) -> None:
        self._data = trace.data
        self._comparison = comparison
        self._machine = machine
        spaces = machine.spaces
        self._calls: dict[str, Operation] = {
            "mmap": self._mmap,
            "munmap": lambda addr, length: spaces.do_munmap(machine.mm, addr, length),
            "mprotect": spaces.sys_mprotect,
            "brk": spaces.sys_brk,
            "mremap": spaces.do_mremap,
            "do_brk": spaces.do_brk,
            "mlock": spaces.sys_mlock,
            "munlock": spaces.sys_munlock,
            "mlockall": spaces.sys_mlockall,
            "munlockall": spaces.sys_munlockall,
            "find_vma": lambda addr: machine.start_of(spaces.find_vma(machine.mm, addr)),
            "find_extend_vma": lambda a: machine.start_of(spaces.find_extend_vma(machine.mm, a)),
            "find_vma_intersection": lambda start, end: machine.start_of(
                spaces.find_vma_intersection(machine.mm, start, end)
            ),
            "get_unmapped_area": self._get_unmapped_area,
        }
        """Operations whose arguments an answer follows."""
        self._settings: dict[str, Callable[..., None]] = {
            "rlimit": self._rlimit,
            "sysctl": machine.sysctl,
            "set_exec": machine.set_exec,
            "setup_stack": machine.setup_stack,
            "new_mm": machine.new_mm,
            "scenario": lambda text: None,
            "exit_mmap": lambda: spaces.exit_mmap(machine.mm),
        }
        """Operations without one."""

    def replay(self) -> None:
        states = {state["after"]: state for state in self._data["states"]}
        for number, operation in enumerate(self._data["ops"]):
            name = operation[1]
            events = self._machine.events
            events.clear()
            answer = [number, *self._operation(name, operation[2:]), self._machine.summary()]
            if events:
                answer.append(events)
            self._comparison.equal(f"ops[{number}] {name}", operation, answer)
            if number in states:
                self._state(f"state after {number}", states.pop(number))
        self._comparison.equal("states after no operation", [], list(states))
        self._state("final", self._data["final"])

    def _operation(self, name: str, recorded: list[Any]) -> list[Any]:
        """Do what was done. The operation again, with the model's answer in place of the old."""
        summary = next(i for i, value in enumerate(recorded) if _is_summary(value))
        arguments = recorded[:summary]
        if name == "BUG":
            return self._bug(arguments)
        if name in self._settings:
            self._settings[name](*arguments)
            return [name, *arguments]
        if name == "find_vma_prev":
            found = self._machine.spaces.find_vma_prev(self._machine.mm, arguments[0])
            return [name, arguments[0], *(self._machine.start_of(vma) for vma in found)]
        return [name, *arguments[:-1], self._calls[name](*arguments[:-1])]

    def _bug(self, arguments: list[Any]) -> list[Any]:
        """The operation that the real kernel died of: the model must die at the same place."""
        name, *rest = arguments[1]
        try:
            self._operation(name, [*rest, None, _NO_SUMMARY])
        except KernelBug as bug:
            return ["BUG", f"{bug.file}:{bug.line}", [name, *rest]]
        return ["BUG", None, [name, *rest]]

    def _mmap(self, number: int, addr: int, length: int, prot: int, flags: int, pgoff: int) -> int:
        file = self._machine.files.by_number[number]
        return self._machine.spaces.do_mmap_pgoff(file, addr, length, prot, flags, pgoff)

    def _get_unmapped_area(
        self, number: int, addr: int, length: int, pgoff: int, flags: int
    ) -> int:
        file = self._machine.files.by_number[number]
        return self._machine.spaces.get_unmapped_area(file, addr, length, pgoff, flags)

    def _rlimit(self, resource: int, value: int) -> None:
        self._machine.image.current_task.rlim[resource].rlim_cur = value

    def _state(self, where: str, recorded: dict[str, Any]) -> None:
        state = self._machine.state(whole="rb" in recorded)
        self._comparison.equal(where, recorded, {"after": recorded["after"], **state})


_NO_SUMMARY: Final = [0, 0, 0, None]


def _is_summary(value: object) -> bool:
    """Whether it is what :meth:`VmaMachine.summary` says: the fourth is a VMA, or none."""
    return isinstance(value, list) and len(value) in (4, 6) and isinstance(value[0], int)
