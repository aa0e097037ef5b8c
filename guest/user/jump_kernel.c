/* SPDX-License-Identifier: GPL-2.0-or-later */
/* #PF, error code 5: without NX a fetch counts as a read. */
#include "trespass.h"

TRESPASS(jump(KERNEL_ADDRESS))
