# SPDX-License-Identifier: GPL-2.0-or-later
"""Which zones a node's zonelists must name, and in which order.

Reads the rules of ``mm/page_alloc.c: build_zonelists()`` and ``find_next_best_node()`` of
linux-2.6.11 once more, for nodes that are all equally far from each other: a node begins with its
own zones, and goes on with the node on which the fewest others fall back first. linux-2.4.22 is
the case in which each node stands alone. Nothing here is taken from the model, nor can it fail.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

_DMA, _HIGHMEM = 1, 2
"""Bits of a zonelist's number."""


class NodeZones(NamedTuple):
    """A node, and the indices of its zones that have frames."""

    nid: int
    zones: Sequence[int]


def zonelist(nodes: Sequence[NodeZones], home: NodeZones, number: int) -> list[tuple[int, int]]:
    """The zones of zonelist ``number`` of node ``home``, as pairs (node, zone)."""
    best = 0 if number & _DMA else 2 if number & _HIGHMEM else 1
    known = {node.nid: node.zones for node in nodes}
    order = fallback_orders(len(nodes)).get(home.nid, [home.nid])
    return [
        (nid, zone)
        for nid in order
        for zone in sorted(known.get(nid, ()), reverse=True)
        if zone <= best
    ]


def fallback_orders(count: int) -> dict[int, list[int]]:
    """For each of ``count`` nodes all nodes, in the order in which it asks them.

    Their lists are made one after the other. Who follows a node first takes the load of it, as
    many as there are nodes left; of nodes with the same load that one is next which comes first
    when one counts on from home.
    """
    load: Counter[int] = Counter()
    orders = {}
    for home in range(count):
        left = [(home + step) % count for step in range(1, count)]
        order = [home]
        while left:
            best = min(left, key=lambda nid: load[nid])
            if len(order) == 1:
                load[best] += count - 1
            left.remove(best)
            order.append(best)
        orders[home] = order
    return orders
