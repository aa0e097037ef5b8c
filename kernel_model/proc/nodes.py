# SPDX-License-Identifier: GPL-2.0-or-later
"""What 2.6 tells of each node of a machine that has several.

Models linux-2.6.11 ``drivers/base/node.c``, whose files stand in ``/sys/devices/system/node``, one
for each node: ``meminfo``, and ``numastat``, which counts single frames and blocks alike. Here
the texts of all nodes stand behind each other, those of ``numastat`` with a title.
"""

from typing import Any, Final

from kernel_model.arch_i386.page import PAGE_SHIFT
from kernel_model.kernel import Kernel
from kernel_model.mm.linux_2_6.mmzone import nodes
from kernel_model.mm.mmzone import ZONE_HIGHMEM
from kernel_model.structs.linux_2_6.mmzone import NUMA_COUNTERS

_K: Final = PAGE_SHIFT - 10


def numastat_data(kernel: Kernel) -> list[dict[str, int]]:
    """For each node its counters, summed over its zones and the CPUs."""
    return [
        {"node": int(node.node_id)}
        | {
            name: sum(getattr(cpu, name) for zone in node.node_zones for cpu in zone.pageset)
            for name in NUMA_COUNTERS
        }
        for node in nodes(kernel.image)
    ]


def numastat_text(kernel: Kernel) -> str:
    """A paragraph for each node."""
    lines = []
    for counted in numastat_data(kernel):
        lines.append(f"Node {counted['node']}\n")
        lines += [f"{name} {counted[name]}\n" for name in NUMA_COUNTERS]
    return "".join(lines)


def meminfo_data(kernel: Kernel) -> list[dict[str, int]]:
    """For each node its lines in kB, by their names; of huge pages there are so many."""
    return [_meminfo(kernel, node) for node in nodes(kernel.image)]


def _meminfo(kernel: Kernel, node: Any) -> dict[str, int]:
    zones, high = node.node_zones, node.node_zones[ZONE_HIGHMEM]
    total, free = int(node.node_present_pages), sum(int(zone.free_pages) for zone in zones)
    pages = {
        "MemTotal": total,
        "MemFree": free,
        "MemUsed": total - free,
        "Active": sum(int(zone.nr_active) for zone in zones),
        "Inactive": sum(int(zone.nr_inactive) for zone in zones),
        "HighTotal": int(high.present_pages),
        "HighFree": int(high.free_pages),
        "LowTotal": total - int(high.present_pages),
        "LowFree": free - int(high.free_pages),
    }
    nid, statics = int(node.node_id), kernel.statics
    return (
        {"node": nid}
        | {name: count << _K for name, count in pages.items()}
        | {
            "HugePages_Total": int(statics.nr_huge_pages_node[nid]),
            "HugePages_Free": int(statics.free_huge_pages_node[nid]),
        }
    )


def meminfo_text(kernel: Kernel) -> str:
    """The files as Linux prints them, each behind an empty line."""
    lines = []
    for told in meminfo_data(kernel):
        nid = told.pop("node")
        lines.append("\n")
        for name, value in told.items():
            if name.startswith("HugePages"):
                lines.append(f"Node {nid} {name + ':':<16} {value:>5}\n")
            else:
                lines.append(f"Node {nid} {name + ':':<13} {value:>8} kB\n")
    return "".join(lines)
