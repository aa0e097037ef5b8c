# SPDX-License-Identifier: GPL-2.0-or-later
"""Finds the guest programs that the build made: ELF files below ``guest/built``.

``guest/built/<variant>/NAME.elf`` holds ring-0 images, one set for each build of the kernel
(``nohm``, ``hm``, ``pae``), and ``guest/built/user/NAME.elf`` ring-3 programs. They lie in the
installed package, or in the source tree of an editable install. What can fail:
:class:`GuestMissing`, which says what to run, or which names exist.
"""

from importlib import resources
from pathlib import Path
from typing import Final

from kernel_model.errors import BadInput

USER: Final = "user"


class GuestMissing(BadInput):
    """No such guest program, or none was built yet."""


def built_directory() -> Path:
    """``guest/built`` of the installed package."""
    return Path(str(resources.files("guest"))) / "built"


def guest_names(variant: str) -> list[str]:
    """The programs of ``variant``: a build of the kernel, or :data:`USER`."""
    return sorted(path.stem for path in (built_directory() / variant).glob("*.elf"))


def guest_or_file(program: Path) -> Path:
    """``program``, or where there is no such file the ring-3 guest of that name."""
    if program.exists() or str(program) not in guest_names(USER):
        return program
    return guest_path(str(program))


def guest_path(name: str, variant: str = USER) -> Path:
    """The ELF file of guest ``name`` for ``variant``: a build of the kernel, or :data:`USER`."""
    path = built_directory() / variant / f"{name}.elf"
    if path.is_file():
        return path
    names = guest_names(variant)
    if names:
        raise GuestMissing(f"no guest {name!r} for {variant}: there are {', '.join(names)}")
    raise GuestMissing(f"no guests are built for {variant!r}; run: pip install -e .")
