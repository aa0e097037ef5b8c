# SPDX-License-Identifier: GPL-2.0-or-later
"""``mmucheck``, also as ``python -m harness``.

Loading the command line takes a moment. Ctrl-C during it ends the program in one line, like at
any later time (:mod:`harness.cpu.watch`).
"""

import os
import signal
from typing import Final

_INTERRUPTED: Final = 130


def _quit(*_: object) -> None:
    os.write(2, b"mmucheck: interrupted\n")
    os._exit(_INTERRUPTED)


def main() -> None:
    """The console script."""
    signal.signal(signal.SIGINT, _quit)
    from harness.cli import main as command_line

    command_line()


if __name__ == "__main__":
    main()
