# SPDX-License-Identifier: GPL-2.0-or-later
"""Cases as text and back; what cannot be a case is refused with the reason."""

import numpy as np
import pytest

from harness.conformance.cases import case_text, parse_case, product, subsets
from harness.conformance.flags import bits_text, parse_bits
from harness.conformance.suites import impossible
from harness.paging_modes import MmuFeatures
from kernel_model.errors import BadInput
from tests.harness.conformance.quick_parts import quick

FEATURES = MmuFeatures(physical_bits=36, nx=True)


def test_every_case_of_the_quick_suite_survives_its_text() -> None:
    for _, cases in quick(FEATURES):
        for case in cases[:: max(1, len(cases) // 60)]:
            again = parse_case(case_text(case))
            assert again[0] == case
            assert not impossible(again)


@pytest.mark.parametrize("bits", [0, 1, 7, 1 << 63, 1 << 40 | 1 << 9, (1 << 64) - 1])
def test_bits_by_name(bits: int) -> None:
    assert parse_bits(bits_text(bits)) == bits


def test_product_and_subsets() -> None:
    cases = product(mode=1, pde=subsets([2, 4], 1), ring=[0, 1], access=[0, 1, 2])
    assert len(cases) == 24 == len(np.unique(cases))
    assert set(cases["pde"].tolist()) == {1, 3, 5, 7}
    assert set(cases["pdpte"].tolist()) == {1}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("mode=pae", "missing"),
        ("mode=5-level,access=read,ring=user", "5-level"),
        ("mode=pae,access=read,ring=user,pte=bogus", "bogus"),
        ("mode=pae,access=read,ring=user,ring=user", "twice"),
        ("mode=pae,access=read,ring=user,colour=red", "colour"),
        ("", "NAME=VALUE"),
    ],
)
def test_bad_text(text: str, told: str) -> None:
    with pytest.raises(BadInput, match=told):
        parse_case(text)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("mode=2-level,access=read,ring=user,pte=nx", "PAE"),
        ("mode=2-level,access=read,ring=user,pdpte=p.rw", "PAE"),
        ("mode=2-level,access=read,ring=user,change=pte-p", "before=read"),
        ("mode=2-level,access=read,ring=user,before=fetch", "access=fetch"),
        ("mode=2-level,access=read,ring=user,pte=p.bit20", "frame"),
        ("mode=pae,access=read-across,ring=user,pte=p.bit32,second=p", "bit32"),
        ("mode=pae,access=write,ring=user,before=read,change=pte+frame", "moves"),
        ("mode=none,access=read,ring=user,before=read,change=pte-p", "paging is off"),
    ],
)
def test_impossible(text: str, told: str) -> None:
    assert told in impossible(parse_case(text))
