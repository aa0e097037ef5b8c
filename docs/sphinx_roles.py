# SPDX-License-Identifier: GPL-2.0-or-later
"""For the site: the roles of our docstrings (``:class:`Kernel```) become links.

An extension of griffe, which mkdocstrings reads sources with. A name that the site has a heading
for becomes a link to it; any other stays code.
"""

import re
from typing import Any, Final

import griffe

_ROLE: Final = re.compile(r":(?:class|func|meth|attr|mod|data|exc|obj):`([^`]+)`")


class SphinxRoles(griffe.Extension):
    """Rewrites the docstring of each object that is loaded."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        docstring = obj.docstring
        if docstring is not None:
            docstring.value = _ROLE.sub(lambda role: _link(role[1], obj), docstring.value)


def _link(target: str, obj: griffe.Object) -> str:
    """``~a.b.C`` shows only ``C``. A name without dots is one that ``obj``'s module knows."""
    name = target.lstrip("~!")
    shown = name.rpartition(".")[2] if target.startswith("~") else name
    try:
        path = obj.resolve(name)
    except griffe.NameResolutionError:
        path = name
    return f'<autoref identifier="{path}" optional><code>{shown}</code></autoref>'
