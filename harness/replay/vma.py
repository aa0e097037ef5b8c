# SPDX-License-Identifier: GPL-2.0-or-later
"""Topics ``vma_*``: layouts and constants of address spaces, and their operations call by call."""

from collections.abc import Callable
from typing import Any, Final

from harness.replay.layout import shape
from harness.replay.slab_2_4 import SlabMachine, build
from harness.replay.trace import Comparison, Trace
from harness.replay.vma_files import RecordedFiles, RecordedPages, RecordedShmem
from kernel_model.arch_i386 import page
from kernel_model.arch_i386.pgtable import PROTECTION_MAP
from kernel_model.caches import proc_caches_init
from kernel_model.config import MIB, KernelConfig
from kernel_model.errors import KernelBug
from kernel_model.fork import Fork
from kernel_model.fs.file_table import Files
from kernel_model.image import SWAPPER_PG_DIR
from kernel_model.kernel import Kernel
from kernel_model.mm.mmap.find import VM_RB
from kernel_model.mm.mmap.linux_2_4 import AddressSpaces
from kernel_model.mm.rbtree import COLOR, LEFT, RIGHT
from kernel_model.mm.slab.flags import SLAB_HWCACHE_ALIGN
from kernel_model.structs import Abi, Structs, mm, mman, sched

NUM_PHYSPAGES: Final = 16384


def replay_structs(trace: Trace, comparison: Comparison) -> None:
    for recorded in trace.data["configs"]:
        name, config = recorded["config"], build(recorded["config"])
        _layouts(name, recorded["fields"], config, comparison)
        protections = [f"{bits:x}" for bits in PROTECTION_MAP]
        comparison.equal(f"{name} protection_map", recorded["protection_map"], protections)
        cachep = recorded["vm_area_cachep"]
        comparison.equal(f"{name} vm_area_cachep", cachep, _vm_area_cachep(config))


def _layouts(
    config_name: str, rows: list[list[Any]], config: KernelConfig, comparison: Comparison
) -> None:
    structs = Structs.of(Abi.of(config))
    kinds = {kind.spelling: kind for kind in structs.all()}
    constants = _constants(config)
    for kind_name, field, at, size in rows:
        where = f"{config_name} {kind_name}.{field}"
        if kind_name == "const":
            comparison.equal(where, [at, size], [constants[field], 0])
        elif field:
            kind = kinds[kind_name]
            ours = [kind.offset(field), getattr(kind.ctype, field).size]
            comparison.equal(where, [at, size], ours)
        else:
            comparison.equal(where, [at, size], [0, kinds[kind_name].size])


def _constants(config: KernelConfig) -> dict[str, int]:
    levels = shape(config)
    return {
        **{name: value for module in (mm, mman, sched) for name, value in vars(module).items()},
        "TASK_SIZE": page.TASK_SIZE,
        "TASK_UNMAPPED_BASE": page.TASK_UNMAPPED_BASE,
        "PGDIR_SIZE": levels.pgdir_size,
        "PTRS_PER_PGD": levels.ptrs_per_pgd,
    }


def _vm_area_cachep(config: KernelConfig) -> dict[str, int]:
    """What the slab allocator makes of the cache that VMAs come from."""
    machine = SlabMachine(config, 1)
    machine.slab.start(config.ram >> page.PAGE_SHIFT)
    slab, size = machine.slab, machine.kernel.image.structs.vm_area_struct.size
    cache = slab.objects.cache(
        slab.kmem_cache_create("vm_area_struct", size, 0, SLAB_HWCACHE_ALIGN)
    )
    return {"objsize": cache.objsize, "num": cache.num, "colour": int(cache.view.colour)}


# -- traces ---------------------------------------------------------------------------------------


class VmaMachine:
    """The VMA layer over page tables that stay empty, as the recordings had it."""

    def __init__(self) -> None:
        self.kernel = Kernel(KernelConfig(ram=64 * MIB))
        self.kernel.start_kernel(until="kmem_cache_init")
        image, slab = self.kernel.image, self.kernel.slab
        proc_caches_init(image, slab)
        self.pages = RecordedPages(page.phys_to_virt(SWAPPER_PG_DIR))
        files = Files(image, slab)
        self.files = RecordedFiles(image, files, self.pages)
        shmem = RecordedShmem(image, files, self.files)
        self.free_pages = 0
        self.spaces = AddressSpaces(image, slab, files, self.pages, lambda: self.free_pages, shmem)
        self.fork = Fork(image, slab, self.spaces)
        statics = self.kernel.statics
        statics.sysctl_overcommit_memory, statics.num_physpages = 1, NUM_PHYSPAGES
        statics.page_cache_size = statics.nr_swap_pages = 0
        for limit in image.current_task.rlim:
            limit.rlim_cur = sched.RLIM_INFINITY
        cache = slab.find("vm_area_struct")
        assert cache is not None
        self._vm_area_cache = cache
        self.new_mm()

    @property
    def mm(self) -> int:
        return self.spaces.areas.current_mm

    def new_mm(self) -> None:
        """Run in an address space of its own from now on."""
        task, mm = self.kernel.image.current_task, self.fork.mm_alloc()
        self.fork.add_to_mmlist(mm, self.kernel.image.symbol("init_mm"))
        task.mm = task.active_mm = mm

    def setup_stack(self, start: int, end: int) -> None:
        """The VMA that ``setup_arg_pages()`` makes for a new program."""
        areas = self.spaces.areas
        vma = areas.alloc()
        areas.fill(vma, self.mm, start, end, mm.VM_STACK_FLAGS, 0)
        self.spaces.insert_vm_struct(self.mm, vma)
        areas.mm(self.mm).total_vm = end - start >> page.PAGE_SHIFT

    def set_exec(self, end_code: int, end_data: int) -> None:
        """Where code, data and heap of a new program lie."""
        space = self.spaces.areas.mm(self.mm)
        space.end_code = space.start_data = end_code
        space.end_data = space.start_brk = space.brk = end_data

    def sysctl(self, name: str, value: int) -> None:
        """Set a limit, or one of the counters that tell how much memory there is."""
        statics = self.kernel.statics
        if name == "free":
            self.free_pages = value
        elif name in _SYSCTLS:
            setattr(statics, _SYSCTLS[name], value)
        else:
            place, field = _COUNTERS[name]
            setattr(getattr(statics, place), field, value)

    def start_of(self, vma: int) -> int | None:
        """A VMA as traces have it: where it begins."""
        return self.spaces.areas.vma(vma).vm_start if vma else None

    def summary(self) -> list[Any]:
        space = self.spaces.areas.mm(self.mm)
        cached = self.start_of(space.mmap_cache)
        return [space.map_count, space.total_vm, space.locked_vm, cached]

    def state(self, *, whole: bool) -> dict[str, Any]:
        """Everything; with ``whole`` also the shape of the tree, and the files."""
        space, areas = self.spaces.areas.mm(self.mm), self.spaces.areas
        cache = self._vm_area_cache
        state: dict[str, Any] = {
            "map_count": space.map_count,
            "total_vm": space.total_vm,
            "locked_vm": space.locked_vm,
            "def_flags": space.def_flags,
            "brk": space.brk,
            "mmap_cache": self.start_of(space.mmap_cache),
            "vma_objs": sum(cache.inuse(slab) for slab in cache.all_slabs()),
            "vmas": [self._row(vma) for vma in areas.list(self.mm)],
        }
        if whole:
            state["rb"] = self._preorder(space.mm_rb.rb_node)
            state["files"] = self.files.state()
        return state

    def _row(self, vma: int) -> list[Any]:
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


_SYSCTLS: Final = {
    "overcommit": "sysctl_overcommit_memory",
    "swap": "nr_swap_pages",
    "pagecache": "page_cache_size",
    "max_map_count": "max_map_count",
    "PhysPages": "num_physpages",
}
_COUNTERS: Final = {
    "nrpages_swapcache": ("swapper_space", "nrpages"),
    "dentry_unused": ("dentry_stat", "nr_unused"),
    "inode_unused": ("inodes_stat", "nr_unused"),
}


def replay_trace(trace: Trace, comparison: Comparison) -> None:
    _Run(trace, comparison).replay()


class _Run:
    """One trace."""

    def __init__(self, trace: Trace, comparison: Comparison) -> None:
        self._data = trace.data
        self._comparison = comparison
        self._machine = machine = VmaMachine()
        spaces = machine.spaces
        self._calls: dict[str, Callable[..., object]] = {
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
            events = self._machine.pages.events
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
        self._machine.kernel.image.current_task.rlim[resource].rlim_cur = value

    def _state(self, where: str, recorded: dict[str, Any]) -> None:
        state = self._machine.state(whole="rb" in recorded)
        self._comparison.equal(where, recorded, {"after": recorded["after"], **state})


_NO_SUMMARY: Final = [0, 0, 0, None]


def _is_summary(value: object) -> bool:
    return isinstance(value, list) and len(value) == 4 and isinstance(value[0], int)
