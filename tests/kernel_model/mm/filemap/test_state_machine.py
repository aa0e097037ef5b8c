# SPDX-License-Identifier: GPL-2.0-or-later
"""Files and shared anonymous memory against plain bytes, and faults planted to be found."""

import pytest

from tests.kernel_model.mm.file_machine import FileMachine

TestFiles = pytest.mark.book("2.5", "4.4.1", "4.6")(FileMachine.TestCase)
