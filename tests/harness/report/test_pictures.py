# SPDX-License-Identifier: GPL-2.0-or-later
"""How pictures are drawn: on the sheet, no words over each other, at both widths."""

import re
from itertools import combinations
from typing import Any, NamedTuple
from xml.etree import ElementTree

import pytest

from harness.machine import Machine
from harness.report import PICTURES, Report
from harness.report.palette import COLOURS, HUES
from harness.report.picture import NARROW, WIDE
from kernel_model.config import MIB, Highmem, KernelConfig
from kernel_model.errors import BadInput
from kernel_model.kernel import Kernel
from tests.harness.report.toured import Toured

EACH = pytest.mark.parametrize("name", PICTURES)
MACHINES: dict[str, dict[str, Any]] = {
    "freshly booted": {"ram": 16 * MIB},
    "no large pages": {"ram": 16 * MIB, "cpu_model": "486"},
    "nodes": {"ram": 128 * MIB, "nodes": 4},
    "2.6 nodes": {"release": "2.6", "ram": 128 * MIB, "nodes": 2},
    "PAE": {"ram": 72 * MIB, "nr_cpus": 2, "highmem": Highmem.GB64, "highmem_pages": 2048},
}
DRAWN = [
    *(("the tour", name) for name in PICTURES),
    *(("2.6 PAE", name) for name in ("zones", "buddy", "slabs", "address_space")),
    *(("2.6 nodes", name) for name in ("zones", "buddy")),
    *(("nodes", name) for name in ("zones", "buddy")),
    *(("PAE", name) for name in ("slabs", "address_space", "page_tables")),
    ("no large pages", "page_tables"),
    *(("freshly booted", name) for name in ("address_space", "faults")),
]


@pytest.fixture(scope="module")
def reports(toured: Toured, toured_2_6: Toured) -> dict[str, Report]:
    made = {
        name: Report.of(Machine(Kernel(KernelConfig(**options))), compare=False)
        for name, options in MACHINES.items()
    }
    return made | {"the tour": toured.report, "2.6 PAE": toured_2_6.report}


class Box(NamedTuple):
    left: float
    right: float
    top: float
    bottom: float


def words(svg: str) -> list[tuple[str, Box]]:
    """Every text of a picture with its box, by the metrics of DejaVu, a wide font."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    placed = []
    for element in ElementTree.fromstring(svg.replace("xlink:href", "href")).iter("text"):
        style, text = str(element.get("style")), str(element.text)
        found = re.search(r"font-size: ([\d.]+)px", style)
        assert found
        assert "transform" not in element.attrib
        size, family = float(found[1]), "monospace" if "--mono" in style else "sans-serif"
        weight = "bold" if "font-weight: 700" in style else "normal"
        font = FontProperties(family=family, weight=weight, size=size)  # type: ignore[arg-type]
        wide, high, below = text_to_path.get_text_width_height_descent(text, font, ismath=False)
        anchor = re.search(r"text-anchor: (\w+)", style)
        share = {"start": 0.0, "middle": 0.5, "end": 1.0}[anchor[1]] if anchor else 0.0
        left = float(str(element.get("x"))) - wide * share
        base = float(str(element.get("y")))
        placed.append((text, Box(left, left + wide, base + below - high, base + below)))
    return placed


def collisions(placed: list[tuple[str, Box]]) -> list[str]:
    """The pairs of texts that stand on each other."""
    return [
        f"{one!r} and {other!r}"
        for (one, a), (other, b) in combinations(placed, 2)
        if min(a.right, b.right) - max(a.left, b.left) > 1
        and min(a.bottom, b.bottom) - max(a.top, b.top) > 1
    ]


@pytest.mark.parametrize("width", [WIDE, NARROW])
@pytest.mark.parametrize(("machine", "name"), DRAWN)
def test_words_stand_on_the_sheet_and_apart(
    reports: dict[str, Report], machine: str, name: str, width: int
) -> None:
    svg = reports[machine].svg(name, width)
    placed, height = words(svg), int(svg.partition('viewBox="0 0 ')[2].partition('"')[0].split()[1])
    assert placed
    outside = [
        text
        for text, box in placed
        if box.left < 0 or box.right > width or box.top < 0 or box.bottom > height
    ]
    assert outside == []
    assert collisions(placed) == []


@pytest.mark.book("2.8")
@pytest.mark.parametrize("width", [WIDE, NARROW])
def test_lists_of_cpus_have_their_line(reports: dict[str, Report], width: int) -> None:
    """Three zones with the numbers of a machine of 64 GiB, on a release with such lists."""
    from harness.report.sheet import svg_text

    large = {"free": 15_999_999, "spanned": 16_777_216, "min": 1024, "low": 16_384, "high": 24_576}
    zone = reports["nodes"].pictures["buddy"][0] | large | {"cpu_lists": 1234}
    svg = svg_text(PICTURES["buddy"].draw([zone] * 3, width).figure, "buddy", "", "")
    placed = words(svg)
    assert [text for text, _ in placed].count("and 1,234 free frames on lists of the CPUs") == 3
    assert collisions(placed) == []


def test_words_that_overlap_are_found() -> None:
    from harness.report.sheet import Sheet, svg_text

    sheet = Sheet(200, 100)
    sheet.text(20, 50, "one and two")
    sheet.text(60, 55, "another")
    sheet.text(20, 80, "apart")
    placed = words(svg_text(sheet.figure, "planted", "", ""))
    assert collisions(placed) == ["'one and two' and 'another'"]


@EACH
def test_svg_is_themed_and_names_itself(toured: Toured, name: str) -> None:
    svg = toured.report.svg(name)
    root = ElementTree.fromstring(svg.replace("xlink:href", "href"))
    ids = [element.get("id") for element in root.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    assert all(str(one).startswith(f"{name}-wide-") for one in ids)
    assert root.get("role") == "img"
    titles = [element.text for element in root if element.tag == "title"]
    assert titles == [PICTURES[name].title]
    # A colour that is no variable would not follow the page into the dark.
    assert re.findall(r"#[0-9a-f]{3,8}\b", re.sub(r"#[a-z_]+-", "", svg)) == []
    assert "var(--ink)" in svg


def test_a_caption_fits_what_is_shown(toured: Toured) -> None:
    for name, picture in PICTURES.items():
        caption = picture.caption(toured.data(name))
        assert caption.endswith("."), name
        assert len(caption) > 60
        table = picture.table(toured.data(name))
        assert table.rows, name
        assert all(len(row) == len(table.columns) for row in table.rows)


def test_a_figure_is_for_notebooks_and_files_alike(toured: Toured, tmp_path: Any) -> None:
    figure = toured.report.figure("buddy")
    assert figure._repr_svg_().startswith("<svg")  # type: ignore[attr-defined]
    figure.savefig(tmp_path / "buddy.png")
    assert (tmp_path / "buddy.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(BadInput, match="no picture 'body': one of zones, frames, buddy"):
        toured.report.figure("body")


def test_colours_can_be_told_apart() -> None:
    """No two share a value, and text is readable on every ground it may stand on (WCAG AA)."""
    for scheme in (0, 1):
        values = {name: pair[scheme] for name, pair in COLOURS.items()}
        assert len(set(values.values())) == len(values)
        grounds = ["page", "panel", *(f"{hue}-tint" for hue in HUES)]
        for ground in grounds:
            assert contrast(values["ink"], values[ground]) > 7, ground
            assert contrast(values["muted"], values[ground]) > 4.5, ground
        for hue in HUES:
            assert contrast(values[hue], values["page"]) > 2.9, hue


def contrast(one: str, other: str) -> float:
    lighter, darker = sorted((luminance(one), luminance(other)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def luminance(colour: str) -> float:
    channels = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
