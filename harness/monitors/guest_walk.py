# SPDX-License-Identifier: GPL-2.0-or-later
"""The guest's own walk through the kernel's memory, held against the model's view of it.

``walk_mm()`` of the ring-0 image follows the kernel's pointers on the emulated CPU, in C, with
nothing from the model but the declarations of the structures. It counts, sums, and checks what
must hold in itself (:class:`~harness.mm_walk_layout.WalkFault`). The model fills the same
``struct mm_walk`` from its views; :func:`check` lists the guest's complaints and every field
in which the two differ. A machine that agrees has an empty list.

What can fail: :class:`~kernel_model.errors.BadInput` when the guest image was not built for
the structures of this kernel. A guest that dies on the way is a finding like any other.
"""

import ctypes
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from harness.machine import GUEST_VARIANTS, GuestDied, GuestStopped, Machine
from harness.mm_walk_layout import MAX_FAULTS, MM_WALK, NOTHING, ZONELIST_PLACES, WalkFault
from kernel_model.arch_i386.page import PAGE_SHIFT, virt_to_phys
from kernel_model.errors import BadInput, BadPhysicalAddress
from kernel_model.kernel import Kernel
from kernel_model.mm.mmzone import ZONE_NAMES, Zone
from kernel_model.mm.page_flags import PG_RESERVED
from kernel_model.structs import Abi
from kernel_model.structs.header import VARIANTS
from kernel_model.structs.mmzone import MAX_NR_ZONES, MAX_ORDER, NR_ZONELISTS
from kernel_model.structs.statics import MAX_MODELLED_NODES

__all__ = ["Finding", "check", "model_walk", "run_walk"]

_U32: Final = 0xFFFFFFFF
_FAULT_FIELDS: Final = ("nr_faults", "faults")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing wrong: ``where`` names node, zone and order, ``what`` tells the rest.

    ``fault`` is the guest's complaint; None where guest and model merely differ.
    """

    where: str
    what: str
    fault: WalkFault | None = None

    def __str__(self) -> str:
        return f"{self.where}: {self.what}"


def check(machine: Machine) -> list[Finding]:
    """Let the guest walk and compare; the guest's complaints come first."""
    try:
        guest = run_walk(machine)
    except GuestDied as error:
        return [Finding("guest", f"died on its walk: {error.report}")]
    except GuestStopped as error:
        return [Finding("guest", f"came to no end: {error.reason}")]
    findings = list(_complaints(guest))
    if guest.nr_faults > MAX_FAULTS:
        findings.append(Finding("guest", f"{guest.nr_faults - MAX_FAULTS} more faults"))
    try:
        model = model_walk(machine.kernel)
    except BadPhysicalAddress as error:
        return [*findings, Finding("model", f"died on its walk: {error}")]
    return findings + list(_differences(guest, model, ""))


def run_walk(machine: Machine) -> Any:
    """Run ``walk_mm()``; returns a copy of its ``struct mm_walk``."""
    config = machine.kernel.config
    variant = GUEST_VARIANTS[config.highmem]
    if Abi.of(config) != VARIANTS[variant]:
        raise BadInput(
            f"the {variant} guest is built for {VARIANTS[variant]}, this kernel is "
            f"{Abi.of(config)}: its structures lie elsewhere, so it cannot be walked"
        )
    paddr = virt_to_phys(machine.call("walk_mm"))
    result = MM_WALK.ctype.from_buffer_copy(machine.ram.read(paddr, MM_WALK.size))
    size = machine.kernel.image.structs.kernel_statics.size
    if result.statics_bytes != size:
        raise BadInput(
            f"{machine.guest.name}: built for {result.statics_bytes} bytes of static objects, this "
            f"kernel has {size}: run python -m guest.build"
        )
    return result


def _zone_place(number: int) -> str:
    if number == NOTHING:
        return "pgdat_list"
    return f"node {number // MAX_NR_ZONES}, zone {ZONE_NAMES[number % MAX_NR_ZONES]}"


def _complaints(guest: Any) -> Iterator[Finding]:
    for entry in guest.faults[: guest.nr_faults]:
        fault = WalkFault(entry.kind)
        frame = "" if entry.pfn == NOTHING else f", frame {entry.pfn:#x}"
        what = f"{fault.name.lower().replace('_', ' ')}, order {entry.order}{frame}"
        yield Finding(_zone_place(entry.zone), f"the guest finds: {what}", fault)


def _differences(guest: Any, model: Any, where: str) -> Iterator[Finding]:
    """Every field of two structures that differs, arrays and structures taken apart."""
    if isinstance(guest, ctypes.Array):
        for index, pair in enumerate(zip(guest, model, strict=True)):
            yield from _differences(*pair, f"{where}[{index}]")
    elif isinstance(guest, ctypes.Structure):
        for name, *_ in guest._fields_:
            if name not in _FAULT_FIELDS:
                path = f"{where}.{name}" if where else name
                yield from _differences(getattr(guest, name), getattr(model, name), path)
    elif guest != model:
        yield Finding(where, f"guest {guest:#x}, model {model:#x}")


# -- the model's view ----------------------------------------------------------------------


def _weighted_sum(values: npt.ArrayLike) -> int:
    numbers = np.asarray(values, dtype=np.uint64)
    weights = np.arange(len(numbers), dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    # A product wraps at 2**64, which leaves its low 32 bits right.
    return int(np.sum(numbers * weights, dtype=np.uint64)) & _U32


def model_walk(kernel: Kernel) -> Any:
    """A ``struct mm_walk`` as the model would fill it."""
    result = MM_WALK.ctype()
    structs = kernel.image.structs
    result.statics_bytes = structs.kernel_statics.size
    for pgdat in _nodes(kernel):
        slot, node = result.nodes[result.nr_nodes], kernel.image.at(structs.pg_data_t, pgdat)
        result.nr_nodes += 1
        slot.id, slot.size = node.node_id, node.node_size
        slot.start_pfn = node.node_start_paddr >> PAGE_SHIFT
        for index in range(MAX_NR_ZONES):
            zone = Zone(kernel.image, pgdat + index * structs.zone_t.size)
            name = ZONE_NAMES[index].encode()
            slot.zones[index].name[: len(name)] = list(name)
            if zone.size:
                _describe_zone(kernel, zone, slot.zones[index])
                result.free_pages += zone.free_pages
        for number in range(NR_ZONELISTS):
            for place, chosen in enumerate(_zonelist(kernel, node, number)):
                slot.zonelists[number * ZONELIST_PLACES + place] = chosen
    return result


def _nodes(kernel: Kernel) -> Iterator[int]:
    """The nodes on ``pgdat_list``; no more than there can be, up to where it leaves RAM."""
    pgdat, kind = int(kernel.statics.pgdat_list), kernel.image.structs.pg_data_t
    for _ in range(MAX_MODELLED_NODES):
        if not pgdat or not kernel.ram.contains(virt_to_phys(pgdat), kind.size):
            return
        yield pgdat
        pgdat = int(kernel.image.at(kind, pgdat).node_next)


def _zonelist(kernel: Kernel, node: Any, number: int) -> list[int]:
    """The numbers of the zones on a zonelist, filled up to its full length."""
    table = list(kernel.statics.zone_table)
    zones = [int(vaddr) for vaddr in node.node_zonelists[number].zones]
    used = zones[: zones.index(0)] if 0 in zones else zones
    numbers = [table.index(vaddr) if vaddr in table else NOTHING for vaddr in used]
    return numbers + [NOTHING] * (ZONELIST_PLACES - len(numbers))


def _describe_zone(kernel: Kernel, zone: Zone, result: Any) -> None:
    memmap = kernel.allocator.memmap
    result.size, result.start_pfn = zone.size, zone.start_pfn
    result.free_pages = zone.free_pages
    rows = memmap.rows(memmap.page(zone.start_pfn), zone.size)
    flags, counts = rows[:, memmap.flags_word], rows[:, memmap.count_word]
    result.flags_sum, result.count_sum = _weighted_sum(flags), _weighted_sum(counts)
    result.reserved = np.count_nonzero(flags >> PG_RESERVED & 1)
    result.in_use = np.count_nonzero(counts)
    for order in range(MAX_ORDER):
        pfns, slot = _listed(kernel, zone, order), result.orders[order]
        slot.blocks, slot.list_sum = len(pfns), _weighted_sum(pfns)
        slot.first_pfn = pfns[0] if pfns else NOTHING
        result.listed_pages += len(pfns) << order
        if order < MAX_ORDER - 1:
            slot.map_sum = _weighted_sum(_bitmap(zone, order))


def _listed(kernel: Kernel, zone: Zone, order: int) -> list[int]:
    """First frames of the free blocks, head first; up to where a broken list leaves RAM."""
    pfns: list[int] = []
    try:
        for page in islice(zone.free_blocks(order), zone.size >> order):
            pfns.append(kernel.allocator.memmap.pfn(page) & _U32)
    except (IndexError, ValueError):
        pass
    return pfns


def _bitmap(zone: Zone, order: int) -> npt.NDArray[np.uint32]:
    """The pair bits as words; the last one filled up with zeros."""
    pairs = -(-zone.size // (2 << order))
    words = -(-pairs // 32)
    return np.frombuffer(zone.bitmap(order).read(0, pairs).to_bytes(words * 4, "little"), "<u4")
