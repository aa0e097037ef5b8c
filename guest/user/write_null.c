/* SPDX-License-Identifier: GPL-2.0-or-later */
/* #PF, error code 6: user, write, not present. */
#include "trespass.h"

TRESPASS(store(NULL_ADDRESS))
