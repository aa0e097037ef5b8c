/* SPDX-License-Identifier: GPL-2.0-or-later */
/* #PF, error code 5: user, read, present. */
#include "trespass.h"

TRESPASS(load(KERNEL_ADDRESS))
