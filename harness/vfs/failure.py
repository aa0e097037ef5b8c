# SPDX-License-Identifier: GPL-2.0-or-later
"""How the virtual file system refuses: an :class:`OSError` with the number that Linux gives.

The errors of the host's own files are of the same class and reach the program the same way.
"""

import os
from typing import NoReturn


def fail(number: int) -> NoReturn:
    """Raise the :class:`OSError` of ``errno`` value ``number``."""
    raise OSError(number, os.strerror(number))
