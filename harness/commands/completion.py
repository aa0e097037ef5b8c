# SPDX-License-Identifier: GPL-2.0-or-later
"""What a shell offers for the values of options and arguments, when asked by Tab.

Each function takes what has been typed of a value and gives the values that begin so, or pairs of
a value and a word about it. Nothing here can fail: a shell in the middle of a line has no
place for an error. Files are completed by the shell itself.
"""

from collections.abc import Callable, Iterable
from typing import Final

from harness.guests import USER, guest_names
from kernel_model.config import CPU_MODELS, RELEASES, REVERSE_MAPS, CpuFeatures, Highmem

Offer = tuple[str, str]
_HIGHMEM: Final = {
    Highmem.NONE: "no memory above 896 MiB",
    Highmem.GB4: "high memory, two levels",
    Highmem.GB64: "high memory, PAE",
}
_SIZES: Final = ("8M", "16M", "64M", "256M", "896M", "1G", "4G")


def _beginning(offers: Iterable[Offer], incomplete: str) -> list[Offer]:
    return [offer for offer in offers if offer[0].lower().startswith(incomplete.lower())]


def words(*values: str) -> Callable[[str], list[str]]:
    """Of a list of values that need no word."""
    return lambda incomplete: [value for value in values if value.startswith(incomplete)]


def _features(features: CpuFeatures) -> str:
    names = [name for name in ("pse", "pge", "pae", "nx") if getattr(features, name)]
    return ", ".join(names).upper() or "two levels of 4 KiB pages"


def cpu_models(incomplete: str) -> list[Offer]:
    """``--cpu-model``: each with what its MMU can do."""
    return _beginning([(name, _features(has)) for name, has in CPU_MODELS.items()], incomplete)


def releases(incomplete: str) -> list[str]:
    """``--kernel``."""
    return words(*RELEASES)(incomplete)


def reverse_maps(incomplete: str) -> list[str]:
    """``--rmap``."""
    return words(*REVERSE_MAPS)(incomplete)


def highmem(incomplete: str) -> list[Offer]:
    """``--highmem``, upper or lower case."""
    return _beginning([(value.value, text) for value, text in _HIGHMEM.items()], incomplete)


def sizes(incomplete: str) -> list[str]:
    """``--ram``: some sizes that show something."""
    return words(*_SIZES)(incomplete)


def guests(incomplete: str) -> list[str]:
    """Programs of mmucheck's own, by name."""
    return words(*guest_names(USER))(incomplete)


def case_parts(incomplete: str) -> list[str]:
    """``--case``: the name or the value of the part that is being typed."""
    from harness.conformance.cases import part_names, part_values

    done, comma, part = incomplete.rpartition(",")
    name, equals, _ = part.partition("=")
    given = {text.partition("=")[0] for text in done.split(",")}
    if equals:
        offers = [f"{name}={value}" for value in part_values(name)]
    else:
        offers = [f"{each}=" for each in part_names() if each not in given]
    return words(*(f"{done}{comma}{offer}" for offer in offers))(incomplete)
