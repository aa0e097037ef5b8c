# SPDX-License-Identifier: GPL-2.0-or-later
"""Topic ``setup``: the state after each step of booting, the page directory, the boot log."""

from typing import Any

from harness.replay.layout import build_constants
from harness.replay.trace import Comparison, Trace
from kernel_model.arch_i386.fixmap import fixed_addresses
from kernel_model.arch_i386.page import PAGE_SHIFT, virt_to_phys
from kernel_model.bitops import Bitmap, lowest_set
from kernel_model.config import Highmem
from kernel_model.image import END, SWAPPER_PG_DIR, TEXT
from kernel_model.kernel import Kernel
from kernel_model.mm.bootmem import BootmemCall

CALL_FIELDS = {
    "init_bootmem": ("start_pfn", "pages"),
    "free_bootmem": ("addr", "size"),
    "reserve_bootmem": ("addr", "size"),
    "__alloc_bootmem": ("size", "align", "goal"),
    "__alloc_bootmem_node": ("size", "align", "goal"),
    "free_all_bootmem": (),
}
RESULT_FIELD = {
    "init_bootmem": "ret_mapsize_bytes",
    "__alloc_bootmem": "ret_phys",
    "__alloc_bootmem_node": "ret_phys",
    "free_all_bootmem": "ret_pages",
}
"""How a trace names the arguments and the result of each call of the boot allocator."""


def replay(trace: Trace, comparison: Comparison) -> None:
    data = trace.data
    kernel = Kernel(trace.kernel_config())
    comparison.equal("kernel_text_phys", data["kernel_text_phys"], TEXT)
    comparison.equal("kernel_end_phys", data["kernel_end_phys"], END)
    for step in kernel.boot_steps():
        if recorded := data.get(f"after_{step}"):
            _compare_state(f"after_{step}", recorded, kernel, comparison)
    compare_boot_log(data["boot_log"], kernel, comparison)
    start, end = kernel.vmalloc_range
    constants = build_constants(kernel.config) | {"VMALLOC_START": start, "VMALLOC_END": end}
    for name, value in data["constants"].items():
        ours = constants.get(name, constants.get(f"__{name}"))
        comparison.equal(name, value, ours)
    comparison.equal("printk", data["printk"], kernel.log)


def compare_boot_log(
    recorded: list[dict[str, Any]], kernel: Kernel, comparison: Comparison
) -> None:
    """Each call of the boot allocator, with its arguments and its result."""
    calls = [describe_call(call) for call in kernel.bootmem.calls]
    comparison.equal("boot_log", recorded, calls)


def describe_call(call: BootmemCall) -> dict[str, Any]:
    """A call as traces have it."""
    fields = dict(zip(CALL_FIELDS[call.function], call.arguments, strict=True))
    result = {RESULT_FIELD[call.function]: call.result} if call.function in RESULT_FIELD else {}
    return {"phase": call.phase, "fn": call.function, **fields, **result}


def free_runs(bitmap: Bitmap) -> list[list[int]]:
    """The clear bits of a boot map as [first, count] runs."""
    runs = []
    free = ~bitmap.value() & ((1 << bitmap.length) - 1)
    position = 0
    while free:
        skip = lowest_set(free)
        free >>= skip
        count = lowest_set(~free)
        runs.append([position + skip, count])
        free >>= count
        position += skip + count
    return runs


def _compare_state(
    where: str, recorded: dict[str, Any], kernel: Kernel, comparison: Comparison
) -> None:
    state = _observe(kernel)
    for name, value in recorded.items():
        if name == "pgd_runs":
            _compare_pgd(f"{where}.pgd", value, kernel, comparison)
        else:
            comparison.equal(f"{where}.{name}", value, state[name])


def _observe(kernel: Kernel) -> dict[str, Any]:
    """All that a trace may ask of the present state, read from the kernel's memory."""
    statics, bdata = kernel.statics, kernel.statics.contig_bootmem_data
    state: dict[str, Any] = {name: int(getattr(statics, name)) for name, kind in _scalars(kernel)}
    state |= {name: int(getattr(bdata, name)) for name in ("node_boot_start", "node_low_pfn")}
    state |= {"last_pos": int(bdata.last_pos), "last_offset": int(bdata.last_offset)}
    if bdata.node_bootmem_map:
        runs = free_runs(kernel.bootmem.bitmap(bdata))
        frames = bdata.node_low_pfn - (bdata.node_boot_start >> PAGE_SHIFT)
        map_bytes = ((frames + 7) // 8 + 3) & ~3
        state |= {
            "free_runs": runs,
            "free_runs_total": sum(count for _, count in runs),
            "bootmem_bitmap_pfn": virt_to_phys(bdata.node_bootmem_map) >> PAGE_SHIFT,
            "bootmem_map_bytes": map_bytes,
            "bootmem_bootmap_pages": -(-map_bytes >> PAGE_SHIFT),
        }
    if kernel.config.highmem is not Highmem.NONE:
        fixed = fixed_addresses(kernel.config)
        state["kmap_vstart"] = fixed.to_virt(fixed.slots["FIX_KMAP_BEGIN"])
        state["pkmap_page_table_phys"] = virt_to_phys(statics.pkmap_page_table)
        state["kmap_pte_phys"] = virt_to_phys(statics.kmap_pte)
    state["cr3"] = kernel.processor.read_cr3()
    if statics.mem_map:
        state["nr_free_pages"] = kernel.allocator.nr_free_pages()
        start_page = statics.highmem_start_page
        index = kernel.allocator.memmap.pfn(start_page) if start_page else -1
        state["highmem_start_page_index"] = index
    return state


def _scalars(kernel: Kernel) -> list[tuple[str, Any]]:
    members = kernel.image.structs.kernel_statics.members
    return [(name, kind) for name, kind in members if not kind.members and kind.count is None]


def _compare_pgd(
    where: str, runs: list[dict[str, int]], kernel: Kernel, comparison: Comparison
) -> None:
    """Every entry of ``swapper_pg_dir``, and what the page tables below each run hold."""
    directory = kernel.ram.table(SWAPPER_PG_DIR)
    expected = [0] * len(directory)
    for run in runs:
        for index in range(run["count"]):
            expected[run["first"] + index] = run["value"] + index * run.get("step", 0)
    comparison.equal(where, expected, [int(entry) for entry in directory])
    for run in runs:
        if "pte_nonzero" not in run:
            continue
        first, count = run["first"], run["count"]
        tables = [kernel.ram.table(int(entry) & ~0xFFF) for entry in directory[first:][:count]]
        below = [int(pte) for table in tables for pte in table if pte]
        name = f"{where}[{first}]"
        comparison.equal(f"{name}.pte_nonzero", run["pte_nonzero"], len(below))
        if below:
            comparison.equal(f"{name}.first_pte", run["first_pte"], below[0])
            comparison.equal(f"{name}.last_pte", run["last_pte"], below[-1])
