# SPDX-License-Identifier: GPL-2.0-or-later
"""The page in a real browser: silent, without network, nothing overflowing, usable by keyboard.

One start of the browser serves all tests. Needs Debian's ``chromium``; see
:mod:`tests.harness.report.chromium`.
"""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from harness.report import PICTURES
from harness.report.palette import COLOURS
from harness.report.verdicts import CONFORMS, FAILS, KNOWN, Row
from tests.harness.report.chromium import browser
from tests.harness.report.toured import Toured

SIZES = {"desk": (1280, 900), "phone": (375, 760), "tablet": (861, 900)}
ROWS = (
    Row("model bug", "user read", "0x08048000 - 0x08048fff", "intent 0x1; spec 0x2 <b>&amp;"),
    Row(FAILS, "unicorn and the manual", "pae wp pde.p pde.rw pte.p: user write", "error code 5"),
    Row(KNOWN, "unicorn and the manual", "pdpte-not-latched", "896 cases"),
    Row(CONFORMS, "unicorn and the manual", "paging mode " + "very-long-word" * 12, "84 cases"),
)
OVERFLOWING = """() => {
  const wide = document.documentElement.clientWidth;
  const scrolls = (one) => {
    for (let at = one; at; at = at.parentElement) {
      if (["auto", "scroll"].includes(getComputedStyle(at).overflowX) && at !== document.body)
        return true;
    }
    return false;
  };
  return [...document.body.querySelectorAll("*")]
    .filter((one) => !one.closest(".hidden, .skip"))
    .filter((one) => {
      const box = one.getBoundingClientRect();
      return box.width > 0 && (box.right > wide + 1 || box.left < -1) && !scrolls(one);
    })
    .map((one) => `${one.tagName} ${one.className.baseVal ?? one.className}`);
}"""


@pytest.fixture(scope="module")
def file(toured: Toured, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of the tour, with verdicts of every tone."""
    found = replace(toured.report.verdicts, rows=(*ROWS, *toured.report.verdicts.rows), ok=False)
    report = replace(toured.report, verdicts=found, notes=("a note " * 40,))
    path = tmp_path_factory.mktemp("report") / "out.html"
    path.write_text(report.html(), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as started:
        yield started


class Opened:
    """The page in a window of ``size``, and what was heard of it."""

    def __init__(self, chromium: Any, file: Path, size: str, scheme: str, **options: Any) -> None:
        width, height = SIZES[size]
        self.context = chromium.new_context(
            viewport={"width": width, "height": height}, color_scheme=scheme, **options
        )
        self.page = self.context.new_page()
        self.heard: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.heard.append(message.text))
        self.page.on("pageerror", lambda error: self.heard.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(file.as_uri())

    def __enter__(self) -> "Opened":
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()

    def open_details(self) -> None:
        self.page.evaluate("document.querySelectorAll('details').forEach((d) => (d.open = true))")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_nothing_overflows_and_nothing_is_asked_for(
    chromium: Any, file: Path, size: str, scheme: str
) -> None:
    with Opened(chromium, file, size, scheme) as opened:
        page = opened.page
        for state in ("closed", "open"):
            if state == "open":
                opened.open_details()
            across = page.evaluate("document.documentElement.scrollWidth")
            assert across <= SIZES[size][0], state
            assert page.evaluate(OVERFLOWING) == [], state
        visible = [name for name in PICTURES if page.locator(f"#{name} svg:visible").count() == 1]
        assert visible == list(PICTURES)
        assert page.locator("#verdicts tbody tr:visible").count() > len(ROWS)
        assert opened.heard == []
        assert opened.requests == [file.as_uri()]


def test_an_overflow_is_found(chromium: Any, file: Path) -> None:
    with Opened(chromium, file, "phone", "light") as opened:
        opened.page.evaluate("document.querySelector('h2').style.width = '900px'")
        assert "H2 " in opened.page.evaluate(OVERFLOWING)
        opened.page.evaluate("console.error('planted')")
        assert opened.heard == ["planted"]


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_both_colour_schemes(chromium: Any, file: Path, scheme: str) -> None:
    """Page, words of a picture and its marks all have the values of the scheme."""
    wanted = {name: values[scheme == "dark"] for name, values in COLOURS.items()}
    with Opened(chromium, file, "desk", scheme) as opened:
        style = "(one, name) => getComputedStyle(one)[name]"
        body = opened.page.locator("body")
        assert body.evaluate(style, "backgroundColor") == rgb(wanted["page"])
        title = opened.page.locator("#buddy svg text", has_text="Node 0, DMA").first
        assert title.evaluate(style, "fill") == rgb(wanted["ink"])
        bar = opened.page.locator("#buddy .wide svg path[style*='--orange)']").first
        assert bar.evaluate(style, "fill") == rgb(wanted["orange"])


def rgb(colour: str) -> str:
    return "rgb({}, {}, {})".format(*(int(colour[at : at + 2], 16) for at in (1, 3, 5)))


def shown(page: Any) -> list[str]:
    rows: list[str] = page.locator("#rows tbody tr:visible .pill").all_inner_texts()
    return rows


def test_filters_by_keyboard(chromium: Any, file: Path) -> None:
    with Opened(chromium, file, "desk", "light") as opened:
        page, keyboard = opened.page, opened.page.keyboard
        keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        assert page.locator(".skip").bounding_box()["y"] >= 0
        keyboard.press("Enter")
        assert page.evaluate("document.activeElement.id") == "content"
        path = walk_to_filters(page)
        # Whatever takes the focus shows it.
        assert all(outline for outline in path)
        before = shown(page)
        assert before[:3] == ["model bug", FAILS, KNOWN]
        keyboard.press("Space")
        assert shown(page) == before[1:]
        keyboard.press("Space")
        assert shown(page) == before
        page.locator("#filters input[type=search]").focus()
        keyboard.type("PAE wp")
        assert shown(page) == [FAILS]
        assert page.locator("#shown").inner_text() == f"1 of {len(before)} rows"
        keyboard.press("Control+A")
        keyboard.type("no such words")
        assert shown(page) == []


def walk_to_filters(page: Any) -> list[bool]:
    """Press Tab up to the first filter; for each stop, whether an outline is drawn there."""
    outlines = []
    for _ in range(60):
        page.keyboard.press("Tab")
        name, outline = page.evaluate(
            "[document.activeElement.name, getComputedStyle(document.activeElement).outlineStyle]"
        )
        outlines.append(outline == "solid")
        if name == "verdict":
            return outlines
    raise AssertionError("the filters are out of reach")


def test_without_a_script_it_is_a_plain_table(chromium: Any, file: Path) -> None:
    with Opened(chromium, file, "desk", "light", java_script_enabled=False) as opened:
        assert opened.page.locator("#filters").is_hidden()
        assert len(shown(opened.page)) == opened.page.locator("#rows tbody tr").count()
        assert opened.page.locator("#rows thead th:visible").count() == 4


def test_what_a_screen_reader_is_told(chromium: Any, file: Path) -> None:
    with Opened(chromium, file, "desk", "light") as opened:
        page = opened.page
        assert page.locator("html").get_attribute("lang") == "en"
        levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3')].map((h) => h.tagName)")
        assert levels == ["H1", *["H2"] * (len(PICTURES) + 1)]
        for name, picture in PICTURES.items():
            assert page.get_by_role("img", name=picture.title).count() == 1, name
        assert page.get_by_role("navigation", name="Sections").count() == 1
        assert page.get_by_role("group", name="Show verdicts").count() == 1
        assert page.get_by_role("searchbox", name="Text").count() == 1
        small = page.evaluate(
            "[...document.querySelectorAll('#filters input, nav a, summary')]"
            ".filter((one) => one.getBoundingClientRect().height < 18).length"
        )
        assert small == 0
