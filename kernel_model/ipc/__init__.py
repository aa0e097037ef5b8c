# SPDX-License-Identifier: GPL-2.0-or-later
"""What processes share by keys: System V's shared memory."""
