# SPDX-License-Identifier: GPL-2.0-or-later
"""The MMU conformance matrix: cases, the guest that runs them, results."""
