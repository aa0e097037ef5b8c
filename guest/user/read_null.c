/* SPDX-License-Identifier: GPL-2.0-or-later */
/* #PF, error code 4: user, read, not present. */
#include "trespass.h"

TRESPASS(load(NULL_ADDRESS))
