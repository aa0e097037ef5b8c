# SPDX-License-Identifier: GPL-2.0-or-later
"""``python -m tests.harness.report.screenshots PAGE.html DIRECTORY``: the pictures of the docs.

The beginning of the page at both widths, light and dark, with few colours so that they stay small.
"""

import sys
from io import BytesIO
from pathlib import Path
from typing import Final

from PIL import Image

from tests.harness.report.chromium import browser

SHOTS: Final = (
    ("report-1280.png", 1280, 2300, "light"),
    ("report-1280-dark.png", 1280, 2300, "dark"),
    ("report-375.png", 375, 2300, "light"),
    ("report-375-dark.png", 375, 2300, "dark"),
)
_COLOURS: Final = 256


def take(page: Path, directory: Path) -> None:
    """Write every picture of :data:`SHOTS`."""
    directory.mkdir(parents=True, exist_ok=True)
    with browser() as chromium:
        for name, width, height, scheme in SHOTS:
            context = chromium.new_context(
                viewport={"width": width, "height": height}, color_scheme=scheme
            )
            window = context.new_page()
            window.goto(page.resolve().as_uri())
            picture = Image.open(BytesIO(window.screenshot()))
            # The usual way would give the few dots of a rare colour another one.
            few = picture.convert("RGB").quantize(_COLOURS, Image.Quantize.MAXCOVERAGE)
            few.save(directory / name, optimize=True)
            context.close()


if __name__ == "__main__":
    take(Path(sys.argv[1]), Path(sys.argv[2]))
