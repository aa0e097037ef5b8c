# SPDX-License-Identifier: GPL-2.0-or-later
"""What several texts say of a zone: where it stands, and how its lines begin."""

from collections.abc import Iterator
from dataclasses import dataclass

from kernel_model.kernel import Kernel
from kernel_model.mm.mmzone import Zone, for_each_zone


@dataclass(frozen=True, slots=True)
class NodeZone:
    """A zone that has frames, with the number of its node."""

    node: int
    zone: Zone

    @property
    def title(self) -> str:
        """How 2.6 begins a line on a zone."""
        return f"Node {self.node}, zone {self.zone.name:>8}"

    @property
    def names(self) -> dict[str, int | str]:
        """The zone's identity, for programs."""
        return {"node": self.node, "zone": self.zone.name}


def node_zones(kernel: Kernel) -> Iterator[NodeZone]:
    """All zones that have frames, in the order of ``pgdat_list``."""
    for zone in for_each_zone(kernel.image):
        node = kernel.image.at(kernel.image.structs.pg_data_t, int(zone.view.zone_pgdat))
        yield NodeZone(int(node.node_id), zone)
