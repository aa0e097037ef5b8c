# SPDX-License-Identifier: GPL-2.0-or-later
"""Finding built guests, and what is said when there are none."""

from pathlib import Path

import pytest

from harness import guests
from harness.guests import GuestMissing, built_directory, guest_names, guest_path
from kernel_model.errors import BadInput


@pytest.fixture
def two_guests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A ``guest/built`` with one ring-0 image and one program."""
    for directory, name in (("nohm", "kernel"), ("user", "hello")):
        (tmp_path / directory).mkdir()
        (tmp_path / directory / f"{name}.elf").touch()
    monkeypatch.setattr(guests, "built_directory", lambda: tmp_path)
    return tmp_path


def test_guests_lie_in_the_package_that_builds_them() -> None:
    assert built_directory() == Path(__file__).parents[2] / "guest" / "built"


def test_guest_is_found_by_name_and_variant(two_guests: Path) -> None:
    assert guest_path("kernel", "nohm") == two_guests / "nohm" / "kernel.elf"
    assert guest_path("hello") == two_guests / "user" / "hello.elf"
    assert guest_names("user") == ["hello"]


def test_unknown_name_is_answered_with_the_known_ones(two_guests: Path) -> None:
    with pytest.raises(GuestMissing, match="no guest 'helo' for user: there are hello"):
        guest_path("helo")


def test_missing_build_is_answered_with_the_remedy(two_guests: Path) -> None:
    with pytest.raises(BadInput, match=r"built for 'pae'; run: pip install -e \."):
        guest_path("kernel", "pae")
