# SPDX-License-Identifier: GPL-2.0-or-later
"""Topic ``numa``: two nodes with a hole between them, from their boot maps to allocations.

The configuration ``numa`` allocates on the current CPU's node first, ``disc`` takes turns.
"""

from typing import Any, cast

from harness.replay.buddy import ScriptedPressure, WouldLoop
from harness.replay.trace import Comparison, Trace
from harness.replay.zones import zone_state, zones_of
from kernel_model.arch_i386.layout import NodeMemory
from kernel_model.arch_i386.page import PAGE_SHIFT, virt_to_phys
from kernel_model.config import LOW_RAM_END, MIB, E820Entry, KernelConfig
from kernel_model.kernel import Kernel
from kernel_model.mm.mmzone import Zone
from kernel_model.mm.numa import NumaPageAllocator, free_area_init_node, node_data
from kernel_model.structs.mmzone import MAX_NR_ZONES, NR_ZONELISTS


def replay(trace: Trace, comparison: Comparison) -> None:
    for recorded in trace.data["traces"]:
        _Run(trace, recorded, comparison).replay()


def _config(trace: Trace) -> KernelConfig:
    spans = [(node["start_pfn"], node["end_pfn"]) for node in trace.data["nodes"]]
    entries = [E820Entry(0, LOW_RAM_END)]
    for start, end in spans:
        first = max(start << PAGE_SHIFT, MIB)
        entries.append(E820Entry(first, (end << PAGE_SHIFT) - first))
    return KernelConfig(
        e820=tuple(entries),
        nodes=len(spans),
        node_spans=tuple(spans),
        round_robin=trace.config == "disc",
    )


class _Run:
    """One trace: the nodes are set up afresh, then allocations go on from there."""

    def __init__(self, trace: Trace, recorded: dict[str, Any], comparison: Comparison) -> None:
        self._data = trace.data
        self._recorded = recorded
        self._comparison = comparison
        self._kernel = kernel = Kernel(_config(trace))
        self._spans = kernel.config.node_spans
        self._pgdats = [node_data(kernel.image, nid) for nid in range(len(self._spans))]
        assert isinstance(kernel.layout, NodeMemory)
        self._layout = kernel.layout
        self._allocator = cast(NumaPageAllocator, kernel.layout.allocator)

    def replay(self) -> None:
        equal, data = self._comparison.equal, self._data
        self._bootmem()
        self._free_area_init()
        freed = [self._layout.free_all_bootmem_node(self._allocator, n) for n in self._nodes()]
        equal("free_all_bootmem_node", data["free_all_bootmem_node"], freed)
        order = [self._pgdats.index(pgdat) for pgdat in self._kernel.bootmem.pgdats()]
        equal("pgdat_list_order", data["pgdat_list_order"], order)
        equal("node_info", data["node_info"], [self._node_info(nid) for nid in self._nodes()])
        equal("initial", data["initial"], self._state())
        name = self._recorded["name"]
        for number, operation in enumerate(self._recorded["ops"]):
            equal(f"{name}.ops[{number}]", operation, self._operation(operation))
        equal(f"{name}.final", self._recorded["final"], self._state())

    def _nodes(self) -> range:
        return range(len(self._spans))

    def _bootmem(self) -> None:
        """The boot maps of the nodes, and what was then allocated from them."""
        kernel = self._kernel
        for number, operation in enumerate(self._data["bootmem"]):
            function, arguments, nid = operation["fn"], operation["args"], operation["node"]
            if function == "init_bootmem_node":
                self._layout.setup_node(nid, *self._spans[nid])
                call = next(c for c in reversed(kernel.bootmem.calls) if c.function == function)
                answer: dict[str, Any] = {"args": list(call.arguments), "ret": call.result}
            elif function == "__alloc_bootmem_node":
                vaddr = kernel.bootmem.alloc_node(self._pgdats[nid], *arguments)
                answer = {"ret": virt_to_phys(vaddr)}
            else:
                answer = {"ret": virt_to_phys(kernel.bootmem.alloc(*arguments))}
            self._comparison.equal(f"bootmem[{number}] {function}", operation, operation | answer)

    def _free_area_init(self) -> None:
        kernel, calls = self._kernel, self._kernel.bootmem.calls
        before = len(calls)
        for nid, node in enumerate(self._data["nodes"]):
            kernel.bootmem.phase = f"free_area_init_node {nid}"
            start = self._spans[nid][0] << PAGE_SHIFT
            free_area_init_node(kernel.image, kernel.bootmem, nid, node["zones_size"], start)
        names = ("size", "align", "goal")
        log = [
            {"phase": call.phase, "fn": call.function, "ret_phys": call.result}
            | dict(zip(names, call.arguments, strict=True))
            for call in calls[before:]
        ]
        self._comparison.equal("free_area_init_log", self._data["free_area_init_log"], log)

    def _zones(self, nid: int) -> list[Zone]:
        return zones_of(self._kernel, self._pgdats[nid])

    def _node_info(self, nid: int) -> dict[str, Any]:
        kernel = self._kernel
        node = kernel.image.at(kernel.image.structs.pg_data_t, self._pgdats[nid])
        return {
            "valid_addr_bitmap_phys": virt_to_phys(int(node.valid_addr_bitmap)),
            "node_start_mapnr": int(node.node_start_mapnr),
            "node_size": int(node.node_size),
            "nr_zones": int(node.nr_zones),
            "mem_map_phys": virt_to_phys(int(node.node_mem_map)),
            "zones": [self._zone_info(zone) for zone in self._zones(nid)],
            "zonelists": [
                [self._zone_name(int(vaddr)) for vaddr in node.node_zonelists[i].zones if vaddr]
                for i in range(NR_ZONELISTS)
            ],
        }

    def _zone_info(self, zone: Zone) -> dict[str, Any]:
        view, memmap = zone.view, self._allocator.memmap
        fields = ("pages_min", "pages_low", "pages_high", "wait_table_size")
        page = int(view.zone_mem_map)
        return {name: int(getattr(view, name)) for name in fields} | {
            "name": zone.name,
            "size": zone.size,
            "start_mapnr": int(view.zone_start_mapnr),
            "start_paddr": int(view.zone_start_paddr),
            "page_flags_zone": memmap.zone_number(page) if zone.size else 0,
        }

    def _zone_name(self, vaddr: int) -> str:
        zone = Zone(self._kernel.image, vaddr)
        return f"{zone.number // MAX_NR_ZONES}:{zone.name}"

    def _state(self) -> list[dict[str, Any]]:
        return [
            {
                "node": nid,
                "zones": [
                    zone_state(self._kernel, zone, bitmaps=False) for zone in self._zones(nid)
                ],
            }
            for nid in self._nodes()
        ]

    def _operation(self, operation: dict[str, Any]) -> dict[str, Any]:
        memmap = self._allocator.memmap
        answer = {name: operation[name] for name in ("op", "order")}
        if operation["op"] == "free":
            answer["pfn"] = operation["pfn"]
            self._allocator.free_pages(memmap.page(operation["pfn"]), operation["order"])
        else:
            answer |= self._alloc(operation)
        return answer | {
            "free": [[zone.free_pages for zone in self._zones(nid)] for nid in self._nodes()]
        }

    def _alloc(self, operation: dict[str, Any]) -> dict[str, Any]:
        allocator = self._allocator
        allocator.node_id = operation.get("cur_node", 0)
        allocator.pressure = pressure = ScriptedPressure(self._kernel, operation)
        try:
            page = allocator.alloc_pages(operation["gfp"], operation["order"])
        except WouldLoop:
            page = 0
        given = {name: operation[name] for name in ("gfp", "cur_node") if name in operation}
        said = {"kswapd": pressure.wake_ups, "ttfp": len(pressure.reclaimed)}
        answer = given | {name: count for name, count in said.items() if count}
        if not page:
            return answer | {"pfn": None}
        zone = allocator.page_zone(page)
        return answer | {
            "pfn": allocator.memmap.pfn(page),
            "node": zone.number // MAX_NR_ZONES,
            "zone": zone.name,
        }
