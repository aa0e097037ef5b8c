/* SPDX-License-Identifier: GPL-2.0-or-later */
/* #PF, error code 7: the text segment is read-only. */
#include "trespass.h"

TRESPASS(store((u32)main))
