# SPDX-License-Identifier: GPL-2.0-or-later
"""The tree of resources: sorted, nested, and without overlaps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel_model.config import KernelConfig
from kernel_model.image import KernelImage
from kernel_model.resource import NAMES, Resources

ENTRY = 28
SCRATCH = 0xC0500000


@pytest.fixture(scope="module")
def image() -> KernelImage:
    return KernelImage(KernelConfig())


def resource(resources: Resources, index: int, start: int, end: int) -> int:
    """A resource of bytes ``start`` to ``end`` that is linked nowhere."""
    vaddr = SCRATCH + index * ENTRY
    view = resources.view(vaddr)
    view.parent = view.sibling = view.child = 0
    resources.init(vaddr, "reserved", start, end, 0)
    return vaddr


@given(st.lists(st.tuples(st.integers(-2, 40), st.integers(-2, 12)), max_size=20))
def test_request_keeps_the_children_sorted_and_disjoint(
    image: KernelImage, spans: list[tuple[int, int]]
) -> None:
    resources = Resources(image)
    root = resource(resources, 0, 100, 130)
    taken: list[tuple[int, int]] = []
    for index, (offset, length) in enumerate(spans, start=1):
        start, end = 100 + offset, 100 + offset + length
        fits = 100 <= start <= end <= 130
        overlaps = any(start <= last and first <= end for first, last in taken)
        granted = resources.request(root, resource(resources, index, start, end))
        assert granted == (fits and not overlaps)
        if granted:
            taken.append((start, end))
    views = [resources.view(child) for child in resources.children(root)]
    assert [(view.start, view.end) for view in views] == sorted(taken)
    assert {view.parent for view in views} <= {root}


def test_names_are_c_strings_that_fit(image: KernelImage) -> None:
    resources = Resources(image)
    resources.init_static()
    for index, name in enumerate(NAMES):
        resources.init(SCRATCH + index * ENTRY, name, 0, 0, 0)
        assert resources.name(SCRATCH + index * ENTRY) == name
    assert sum(len(name) + 1 for name in NAMES) <= len(image.statics.resource_names)
