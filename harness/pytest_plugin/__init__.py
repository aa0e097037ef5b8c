# SPDX-License-Identifier: GPL-2.0-or-later
"""What the pytest plugin does when a test or an option asks for it; its hooks and fixtures stand
in ``mmucheck_pytest.py``."""
