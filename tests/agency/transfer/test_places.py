"""Names below a proxy's root."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agency.problems import AgencyError
from agency.transfer.places import below, check_name


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root with a folder, beside something that is nobody's business."""
    (tmp_path / "root" / "disks").mkdir(parents=True)
    (tmp_path / "secret").write_text("secret")
    return tmp_path / "root"


@pytest.mark.parametrize(
    "name",
    [
        "", ".", "..", "/etc/passwd", "../secret", "disks/../../secret", "disks//x", "disks/", "/", ".hidden",
        "disks/.x", "a\0b", "a\nb", "a\x7fb", "a\u202eb", "..\\secret", "x" * 201, "/".join("a" * 17), "\ud800",
    ],
)  # fmt: skip
def test_names_that_are_none(root: Path, name: str) -> None:
    """A name that is absolute, leads upwards, is hidden, or has what no name should have is refused."""
    with pytest.raises(AgencyError) as caught, below(root, name):
        pass
    assert caught.value.problem.code == "bad-name"


@given(st.text(max_size=30))
def test_no_name_leads_out(name: str) -> None:
    """Whatever passes has no part that means anything to the system but a file of that name."""
    try:
        parts = check_name(name)
    except AgencyError:
        return
    assert os.path.normpath(name) == name
    assert not name.startswith("/")
    assert ".." not in parts


def test_links_are_not_followed(root: Path) -> None:
    """A symbolic link is refused as the file, as a folder, and within the root as well; so is a pipe."""
    (root / "link").symlink_to(root.parent / "secret")
    (root / "out").symlink_to(root.parent)
    (root / "within").symlink_to(root / "disks")
    os.mkfifo(root / "pipe")
    for name in ("link", "out/secret", "within/x", "pipe", "disks", "nowhere/x"):
        with pytest.raises(AgencyError) as caught, below(root, name):
            pass
        assert caught.value.problem.code == "bad-name"


def test_who_renames_meanwhile_leads_nowhere_else(root: Path) -> None:
    """A folder that is exchanged for a link while a transfer goes on leads to where it led before."""
    with below(root, "disks/x") as (directory, name):
        (root / "disks").rename(root / "moved")
        (root / "disks").symlink_to(root.parent)
        (directory / name).write_text("x")
    assert (root / "moved" / "x").read_text() == "x"
    assert not (root.parent / "x").exists()
