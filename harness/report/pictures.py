# SPDX-License-Identifier: GPL-2.0-or-later
"""The pictures there are, by name, in the order of the page."""

from typing import Final

from harness.report import address_space, buddy, faults, frames, page_tables, slabs, zones
from harness.report.picture import Picture

PICTURES: Final[dict[str, Picture]] = {
    picture.name: picture
    for picture in (
        zones.PICTURE,
        frames.PICTURE,
        buddy.PICTURE,
        slabs.PICTURE,
        address_space.PICTURE,
        page_tables.PICTURE,
        faults.PICTURE,
    )
}
