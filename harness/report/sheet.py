# SPDX-License-Identifier: GPL-2.0-or-later
"""What pictures are drawn on: a matplotlib figure in CSS pixels, and its way into a page.

A :class:`Sheet` has a width that the picture must live with and the height it needs; its origin is
the upper left corner. :func:`svg_text` makes inline SVG of it: text stays text, colours become
CSS variables, and nothing carries an ``id`` that another picture could have too.

This is the only module that imports matplotlib: import it where something is drawn, for it costs
a second. Nothing here can fail.
"""

import io
import re
from collections.abc import Sequence
from functools import lru_cache
from html import escape
from typing import Any, Final

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, PathPatch
from matplotlib.path import Path
from matplotlib.textpath import text_to_path
from matplotlib.ticker import FuncFormatter, MaxNLocator

from harness.report.palette import light, themed

__all__ = ["Sheet", "legend_height", "svg_text"]

_DPI: Final = 72
"""One point is one CSS pixel."""
_SMALL: Final = 0.92
_LEGEND_LINE: Final = 1.7
"""The height of a legend's line, in sizes of its text."""
_SETTINGS: Final[Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "mmucheck",
    "font.family": "sans-serif",
    "path.simplify": False,
    "axes.unicode_minus": False,
}
Cell = tuple[float, float, float, float]


class Picture(Figure):
    """A figure that a notebook shows as SVG, whatever backend it has."""

    def _repr_svg_(self) -> str:
        return _saved(self)


class Sheet:
    """One picture under construction, ``width`` x ``height`` pixels; ``size`` is that of text."""

    def __init__(self, width: float, height: float, *, size: float = 12.0) -> None:
        self.width, self.height, self.size = width, height, size
        with matplotlib.rc_context(_SETTINGS):
            self.figure = Picture(figsize=(width / _DPI, height / _DPI), dpi=_DPI)
            self.canvas = self._canvas()

    def _canvas(self) -> Axes:
        axes = self.figure.add_axes((0, 0, 1, 1))
        axes.set_xlim(0, self.width)
        axes.set_ylim(self.height, 0)
        axes.axis("off")
        return axes

    # -- boxes, lines, words ------------------------------------------------------------------

    def box(
        self,
        x: float,
        y: float,
        width: float,
        height: float,
        *,
        fill: str = "panel",
        edge: str = "line",
        radius: float = 4.0,
        thickness: float = 1.0,
    ) -> None:
        """A rectangle with round corners; an empty ``fill`` or ``edge`` is none."""
        radius = min(radius, width / 2, height / 2)
        patch = FancyBboxPatch(
            (x + radius, y + radius),
            width - 2 * radius,
            height - 2 * radius,
            boxstyle=f"round,pad={radius},rounding_size={radius}",
            facecolor=light(fill) if fill else "none",
            edgecolor=light(edge) if edge else "none",
            linewidth=thickness,
            clip_on=False,
        )
        self.canvas.add_patch(patch)

    def cells(self, cells: Sequence[Cell], fill: str, edge: str = "") -> None:
        """Many rectangles ``(x, y, width, height)`` of one colour, as one path."""
        if not cells:
            return
        corners, codes = [], []
        for x, y, width, height in cells:
            corners += [(x, y), (x + width, y), (x + width, y + height), (x, y + height), (x, y)]
            codes += [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY]
        patch = PathPatch(
            Path(corners, codes),
            facecolor=light(fill),
            edgecolor=light(edge) if edge else "none",
            linewidth=0.8 if edge else 0,
            clip_on=False,
        )
        self.canvas.add_patch(patch)

    def line(self, *points: tuple[float, float], colour: str = "line", width: float = 1.0) -> None:
        """A line through ``points``."""
        xs, ys = zip(*points, strict=True)
        self.canvas.plot(xs, ys, color=light(colour), linewidth=width, clip_on=False)

    def rules(self, xs: Sequence[float], top: float, bottom: float, colour: str) -> None:
        """Fine vertical lines from ``top`` to ``bottom``, as one path."""
        if not len(xs):
            return
        points = [point for x in xs for point in ((x, top), (x, bottom))]
        codes = [Path.MOVETO, Path.LINETO] * len(xs)
        patch = PathPatch(
            Path(points, codes), facecolor="none", edgecolor=light(colour), linewidth=0.75
        )
        patch.set_clip_on(False)
        self.canvas.add_patch(patch)

    def polygon(self, points: Sequence[tuple[float, float]], fill: str) -> None:
        """An area without an edge."""
        codes = [Path.MOVETO, *[Path.LINETO] * (len(points) - 1), Path.CLOSEPOLY]
        path = Path([*points, points[0]], codes)
        self.canvas.add_patch(
            PathPatch(path, facecolor=light(fill), edgecolor="none", clip_on=False)
        )

    def arrow(
        self, start: tuple[float, float], end: tuple[float, float], *, colour: str = "muted"
    ) -> None:
        """A straight arrow."""
        patch = FancyArrowPatch(
            start,
            end,
            arrowstyle="-|>,head_length=5,head_width=3",
            color=light(colour),
            linewidth=1.2,
            shrinkA=0,
            shrinkB=0,
            mutation_scale=1,
            clip_on=False,
        )
        self.canvas.add_patch(patch)

    def text(
        self,
        x: float,
        y: float,
        text: str,
        *,
        colour: str = "ink",
        align: str = "left",
        bold: bool = False,
        mono: bool = False,
        scale: float = 1.0,
        middle: bool = True,
    ) -> None:
        """Words at a point: vertically centred on it, or (``middle`` off) standing on it."""
        self.canvas.text(
            x,
            y,
            text,
            color=light(colour),
            ha=align,
            va="center_baseline" if middle else "baseline",
            fontsize=self.size * scale,
            fontweight="bold" if bold else "normal",
            family="monospace" if mono else "sans-serif",
            clip_on=False,
        )

    def text_width(self, text: str, scale: float = 1.0) -> float:
        """How wide ``text`` is in DejaVu Sans, which is wider than the fonts of most browsers."""
        return _text_width(text, self.size * scale)

    def legend(self, x: float, y: float, entries: Sequence[tuple[str, str]], width: float) -> None:
        """Coloured squares with words, in lines of ``width``; ``y`` is the middle of the first."""
        side = self.size * 0.9
        for (colour, words), (across, down) in zip(
            entries, _legend_places(entries, width, self.size), strict=True
        ):
            self.cells([(x + across, y + down - side / 2, side, side)], colour, "grey")
            self.text(x + across + self.size * 1.3, y + down, words, colour="muted", scale=_SMALL)

    # -- charts --------------------------------------------------------------------------------

    def chart(self, x: float, y: float, width: float, height: float, title: str = "") -> Axes:
        """Axes whose plotting area is this rectangle, with few and light lines."""
        axes = self.figure.add_axes(
            (
                x / self.width,
                1 - (y + height) / self.height,
                width / self.width,
                height / self.height,
            )
        )
        axes.set_facecolor("none")
        for side, spine in axes.spines.items():
            spine.set_visible(side in ("left", "bottom"))
            spine.set_color(light("line"))
        axes.tick_params(colors=light("muted"), labelsize=self.size * 0.88, length=3, width=0.8)
        axes.tick_params(color=light("line"))
        axes.grid(True, axis="y", color=light("line"), linewidth=0.6)
        axes.set_axisbelow(True)
        if title:
            self.text(x, y - self.size * 1.1, title, bold=True)
        return axes

    def label(self, axes: Axes, x: str = "", y: str = "") -> None:
        """Words along the axes."""
        style: dict[str, Any] = {"color": light("muted"), "fontsize": self.size * 0.9}
        axes.set_xlabel(x, labelpad=5, **style)
        axes.set_ylabel(y, labelpad=5, **style)

    def thousands(self, axes: Axes, which: str = "y") -> None:
        """Whole numbers with separators as ticks."""
        axis = axes.yaxis if which == "y" else axes.xaxis
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        axis.set_major_locator(MaxNLocator(nbins=5 if which == "y" else 6, integer=True))


# -- how much room words take ----------------------------------------------------------------------


@lru_cache(maxsize=1024)
def _text_width(text: str, size: float) -> float:
    font = FontProperties(family="sans-serif", size=size)
    return float(text_to_path.get_text_width_height_descent(text, font, ismath=False)[0])


def _legend_places(
    entries: Sequence[tuple[str, str]], width: float, size: float
) -> list[tuple[float, float]]:
    """Where each entry stands: to the right and down from the first."""
    places: list[tuple[float, float]] = []
    x = y = 0.0
    for _, words in entries:
        wanted = size * 2.6 + _text_width(words, size * _SMALL)
        if x and x + wanted > width:
            x, y = 0.0, y + size * _LEGEND_LINE
        places.append((x, y))
        x += wanted
    return places


def legend_height(entries: Sequence[tuple[str, str]], width: float, size: float) -> float:
    """The pixels that a legend takes, from the middle of its first line to below its last."""
    return max((down for _, down in _legend_places(entries, width, size)), default=0.0) + size


# -- into a page ---------------------------------------------------------------------------------


def svg_text(figure: Figure, name: str, title: str, description: str) -> str:
    """Inline SVG of ``figure``; ``name`` is unique in the page."""
    svg = _saved(figure)
    svg = re.sub(r"<defs>\s*<style.*?</defs>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'<g id="[^"]*"', "<g", svg)
    svg = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{name}-", svg)
    svg = re.sub(r"font-family: [^;\"]*monospace", "font-family: var(--mono)", svg)
    svg = re.sub(r"font-family: [^;\"]*sans-serif", "font-family: var(--sans)", svg)
    svg = re.sub(r' transform="rotate\(-?0 [^)]*\)"', "", svg)
    svg = re.sub(r"\s*\n\s*", " ", svg)
    opening = (
        f'<svg role="img" aria-labelledby="{name}-title {name}-desc" '
        f'viewBox="0 0 {_size(figure, 0)} {_size(figure, 1)}">'
        f'<title id="{name}-title">{escape(title)}</title>'
        f'<desc id="{name}-desc">{escape(description)}</desc>'
    )
    return themed(opening + svg[svg.index(">", svg.index("<svg")) + 1 :].strip())


def _size(figure: Figure, axis: int) -> int:
    return round(float(figure.get_size_inches()[axis]) * _DPI)


def _saved(figure: Figure) -> str:
    """The figure as matplotlib writes it, without what tells of the time or of itself."""
    buffer = io.StringIO()
    with matplotlib.rc_context(_SETTINGS):
        figure.savefig(
            buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None}
        )
    svg = buffer.getvalue()
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    return svg[svg.index("<svg") :]
