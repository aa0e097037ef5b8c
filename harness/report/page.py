# SPDX-License-Identifier: GPL-2.0-or-later
"""The page: templates of ``harness/report/templates``, filled with a report.

It is one file without any reference to another: style, script and pictures stand in it. Each
picture is drawn twice, for a desk and for a phone, and the style sheet shows the one that fits.
Nothing here can fail.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from harness.progress import Meter
from harness.report import page_tables
from harness.report.palette import COLOURS
from harness.report.picture import NARROW, WIDE, Table
from harness.report.pictures import PICTURES

if TYPE_CHECKING:
    from harness.report.report import Report

_BLANK: Final = "\n"


@dataclass(frozen=True, slots=True)
class Section:
    """A picture as the template wants it."""

    name: str
    title: str
    short: str
    sections: str
    caption: str
    wide: Markup
    narrow: Markup
    table: Table
    text: str


def render(report: "Report", meter: Meter) -> str:
    """The HTML of ``report``."""
    meter.start("drawing", len(PICTURES))
    sections = []
    for name in PICTURES:
        sections.append(_section(report, name))
        meter.advance(1)
    meter.finish()
    environment = Environment(
        loader=PackageLoader("harness.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("report.html.j2").render(
        report=report, sections=sections, colours=COLOURS
    )
    # Templates leave blank lines where their own lines were.
    return _BLANK.join(line for line in page.splitlines() if line.strip()) + _BLANK


def _section(report: "Report", name: str) -> Section:
    picture, data = PICTURES[name], report.pictures[name]
    return Section(
        name,
        picture.title,
        picture.short,
        picture.sections,
        picture.caption(data),
        Markup(report.svg(name, WIDE)),
        Markup(report.svg(name, NARROW)),
        picture.table(data),
        page_tables.text(data) if name == "page_tables" else "",
    )
