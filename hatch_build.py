# SPDX-License-Identifier: GPL-2.0-or-later
"""Builds the guests into ``guest/built`` before a wheel, editable or not, is packed.

Runs in the build environment, with ziglang and numpy from ``build-system.requires``; the
project itself is not installed there, so its root goes on the path.
"""

import sys
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class GuestBuildHook(BuildHookInterface):  # type: ignore[type-arg]
    """The ``custom`` hook of the wheel target."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        sys.path.insert(0, self.root)
        try:
            from guest.build import build_guests
        finally:
            sys.path.remove(self.root)
        build_guests()
