# SPDX-License-Identifier: GPL-2.0-or-later
"""The colours of the report: each has a name, and a value for light and one for dark.

The hues are those of M. Okabe and K. Ito, which people with any colour vision tell apart; nothing
is said by a colour alone. Pictures are drawn with the light values; in the page each of them
stands as a CSS variable, so that one SVG serves both. So no two names may share a light value.
Nothing here can fail.
"""

from typing import Final

HUES: Final = ("blue", "orange", "green", "red", "purple", "sky", "grey")
"""What may distinguish things. Each has a ``-tint`` too, a ground that text can stand on."""

_NEUTRAL: Final[dict[str, tuple[str, str]]] = {
    "ink": ("#17202b", "#e8edf3"),
    "muted": ("#566273", "#a9b5c3"),
    "line": ("#c6ced8", "#3b4653"),
    "panel": ("#f3f5f8", "#1d242d"),
    "page": ("#ffffff", "#13181e"),
}
_STRONG: Final[dict[str, tuple[str, str]]] = {
    "blue": ("#0072b2", "#4aa8e8"),
    "orange": ("#d98200", "#f0ad3a"),
    "green": ("#00855f", "#2fc294"),
    "red": ("#b9360c", "#ff7a66"),
    "purple": ("#a8538a", "#de94c4"),
    "sky": ("#3f9fd8", "#86cdf6"),
    "grey": ("#7c8794", "#8995a3"),
}
_LIGHT_SHARE: Final = 0.16
_DARK_SHARE: Final = 0.27


def _mixed(colour: str, ground: str, share: float) -> str:
    """``share`` of ``colour`` on ``ground``."""
    pairs = [(int(colour[at : at + 2], 16), int(ground[at : at + 2], 16)) for at in (1, 3, 5)]
    return "#" + "".join(f"{round(a * share + b * (1 - share)):02x}" for a, b in pairs)


def _tints(name: str) -> tuple[str, str]:
    light, dark = _STRONG[name]
    ground_light, ground_dark = _NEUTRAL["page"]
    return _mixed(light, ground_light, _LIGHT_SHARE), _mixed(dark, ground_dark, _DARK_SHARE)


COLOURS: Final[dict[str, tuple[str, str]]] = (
    _NEUTRAL | _STRONG | {f"{name}-tint": _tints(name) for name in HUES}
)
"""Name -> (light, dark), as ``#rrggbb``."""


def light(name: str) -> str:
    """The value to draw with."""
    return COLOURS[name][0]


def themed(svg: str) -> str:
    """``svg`` with CSS variables for the colours it was drawn with."""
    for name, (value, _) in COLOURS.items():
        svg = svg.replace(value, f"var(--{name})")
    return svg
