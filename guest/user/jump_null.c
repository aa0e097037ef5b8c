/* SPDX-License-Identifier: GPL-2.0-or-later */
/* #PF, error code 4, with EIP 0. */
#include "trespass.h"

TRESPASS(jump(NULL_ADDRESS))
