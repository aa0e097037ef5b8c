# SPDX-License-Identifier: GPL-2.0-or-later
"""The page as text: complete, self-contained, the same each time, safe against what it shows."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from harness.machine import Machine
from harness.report import PICTURES, Report
from harness.report.verdicts import FAILS, Row, verdicts
from kernel_model.config import MIB, KernelConfig
from kernel_model.kernel import Kernel
from tests.harness.report.toured import Toured

VOID = {"meta", "link", "input", "br", "img"}


class Reader(HTMLParser):
    """Elements, their attributes, their balance."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.unbalanced: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.unbalanced.append(tag)


@pytest.fixture(scope="module")
def page(toured: Toured) -> str:
    return toured.report.html()


@pytest.fixture(scope="module")
def reader(page: str) -> Reader:
    return Reader(page)


def test_every_section_is_there(reader: Reader, page: str) -> None:
    sections = [attrs["id"] for tag, attrs in reader.elements if tag == "section"]
    assert sections == [*PICTURES, "verdicts"]
    links = [attrs["href"] for tag, attrs in reader.elements if tag == "a"]
    assert [link for link in links if link != "#content"] == [f"#{name}" for name in sections]
    for picture in PICTURES.values():
        assert f">{picture.title}</h2>" in page
        assert picture.sections in page


def test_the_page_is_well_formed(reader: Reader, page: str) -> None:
    assert reader.unbalanced == []
    assert reader.open == []
    ids = [attrs["id"] for _, attrs in reader.elements if "id" in attrs]
    assert len(ids) == len(set(ids))
    named = {word for _, attrs in reader.elements for word in _references(attrs)}
    assert named <= set(ids)
    assert len(page.encode()) < 1 << 20


def _references(attrs: dict[str, str]) -> list[str]:
    words = attrs.get("aria-labelledby", "").split()
    target = attrs.get("href", "") or attrs.get("xlink:href", "")
    return [*words, target[1:]] if target.startswith("#") else words


def test_nothing_outside_is_named(reader: Reader, page: str) -> None:
    for tag, attrs in reader.elements:
        for name in ("src", "href", "xlink:href", "data", "action", "poster", "srcset"):
            assert attrs.get(name, "#").startswith(("#", "data:")), (tag, attrs)
    assert "@import" not in page
    assert re.findall(r"url\((?!#)[^)]*\)", page) == []
    assert {tag for tag, _ in reader.elements}.isdisjoint({"iframe", "object", "embed", "base"})


@pytest.mark.slow
def test_the_same_run_gives_the_same_page(toured: Toured, page: str) -> None:
    again = Toured(toured.config)
    assert again.report.as_json() == toured.report.as_json()
    assert again.report.html() == page


def test_the_data_is_json(toured: Toured) -> None:
    data = toured.report.as_json()
    assert json.loads(json.dumps(data)).keys() == data.keys()
    assert data["ok"] is True
    assert list(data["pictures"]) == list(PICTURES)


@pytest.fixture
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that look at words alone: drawing takes most of the time."""
    monkeypatch.setattr(Report, "svg", lambda *_: "")


@pytest.mark.parametrize("drawn", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_what_a_program_is_called_stays_text(
    toured: Toured, drawn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not drawn:
        monkeypatch.setattr(Report, "svg", lambda *_: "")
    evil = "</title><script>alert(1)</script><img src=x onerror=alert(2)>"
    row = Row(FAILS, evil, evil, evil)
    report = replace(
        toured.report,
        machine=toured.report.machine | {"program": evil},
        pictures=toured.report.pictures
        | {"faults": toured.data("faults") | {"program": evil}}
        | {"address_space": toured.data("address_space") | {"program": evil}},
        verdicts=replace(toured.report.verdicts, rows=(row,)),
        notes=(evil,),
        command=evil,
    )
    reader = Reader(report.html())
    tags = [tag for tag, _ in reader.elements]
    assert tags.count("script") == 1
    assert "img" not in tags
    assert not any("onerror" in attrs for _, attrs in reader.elements)


def test_a_notebook_shows_the_page(toured: Toured, page: str) -> None:
    shown = toured.report._repr_html_()
    ((tag, attrs),) = Reader(shown).elements
    assert tag == "iframe"
    assert attrs["srcdoc"] == page


@pytest.mark.usefixtures("no_pictures")
def test_a_planted_bug_is_named() -> None:
    """A PTE is changed behind the kernel's back: the page says whose fault it is, and where."""
    machine = Machine(Kernel(KernelConfig(ram=16 * MIB)))
    area = machine.kernel.vmalloc.vmalloc(3 * 4096)
    assert Report.of(machine).ok
    (*_, last) = _walk(machine, area + 4096)
    machine.ram.write32(last, machine.ram.read32(last) ^ 0x1000)
    machine.cpu.flush_tlb_all()
    report = Report.of(machine)
    assert not report.ok
    first = report.verdicts.rows[0]
    assert (first.verdict, first.tone) == ("model bug", "bad")
    assert first.where.startswith(f"{area + 4096:#010x}")
    assert f"at paddr {last:#x}" in first.said
    page = report.html()
    assert "Something differs" in page
    assert "MISMATCH in 1 range: model bug 1" in page
    assert 'data-verdict="model bug"' in page


def _walk(machine: Machine, va: int) -> list[int]:
    from harness.mmu_spec import walk

    return [step.paddr for step in walk(machine.ram, machine.cpu.control, va).steps]


@pytest.mark.usefixtures("no_pictures")
def test_a_kernel_that_died_is_a_failure() -> None:
    machine = Machine(Kernel(KernelConfig(ram=16 * MIB)))
    report = Report.of(machine, problem="the kernel died: kernel BUG at slab.c:1")
    assert not report.ok
    assert report.verdicts.rows == (
        Row(FAILS, "the run", "the kernel", "the kernel died: kernel BUG at slab.c:1"),
    )
    assert "the kernel died" in report.html()


@pytest.mark.usefixtures("no_pictures")
def test_nothing_compared_is_said() -> None:
    found = verdicts(None, None, [])
    assert found.ok
    assert found.rows == ()
    machine = Machine(Kernel(KernelConfig(ram=16 * MIB)))
    page = Report.of(machine, compare=False).html()
    assert "Nothing was compared." in page
    assert "Everything agrees" not in page
