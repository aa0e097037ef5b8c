/* SPDX-License-Identifier: GPL-2.0-or-later */
/* #PF, error code 7: user, write, present. */
#include "trespass.h"

TRESPASS(store(KERNEL_ADDRESS))
