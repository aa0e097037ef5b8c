# SPDX-License-Identifier: GPL-2.0-or-later
"""How a command shows its options: a flag takes no value, so its help names none."""

from typing import Any

from typer.core import TyperCommand, TyperGroup


def _name_no_value(parameters: list[Any]) -> list[Any]:
    for parameter in parameters:
        if getattr(parameter, "is_flag", False):
            parameter.metavar = ""
    return parameters


class Command(TyperCommand):
    """One command."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _name_no_value(super().get_params(ctx))


class CommandGroup(TyperGroup):
    """The commands together."""

    def get_params(self, ctx: Any) -> list[Any]:
        return _name_no_value(super().get_params(ctx))
