"""Manifests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from blake3 import blake3

from agency.transfer.ends import BLOCK
from agency.transfer.manifest import UNKNOWN, ZERO, Manifest, digest, digests, identity_of


def test_what_is_set_is_there_and_the_rest_is_unknown(tmp_path: Path) -> None:
    """Digests stand by place, singly or by unit, and what was never set is unknown."""
    with Manifest(40 * BLOCK - 5, tmp_path) as manifest:
        assert (manifest.blocks, manifest.units) == (40, 3)
        manifest.set(17, b"a" * 32)
        manifest.set_unit(2, [b"b" * 32] * 8)
        manifest.fill(0, 3)
        assert manifest.unit(0) == [ZERO] * 3 + [UNKNOWN] * 13
        assert manifest.unit(1) == [UNKNOWN, b"a" * 32] + [UNKNOWN] * 14
        assert manifest.unit(2) == [b"b" * 32] * 8
        assert manifest.get(17) == b"a" * 32
        assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("first", "count"), [(-1, 1), (40, 1), (39, 2)])
def test_places_outside_the_content_are_refused(first: int, count: int, tmp_path: Path) -> None:
    """No digest is written outside the content."""
    with Manifest(40 * BLOCK, tmp_path) as manifest, pytest.raises(IndexError):
        manifest.fill(first, count)


def test_the_root_depends_on_size_and_digests(tmp_path: Path) -> None:
    """The root is the BLAKE3 of size and digests, so content of another length has another."""
    with Manifest(2 * BLOCK, tmp_path) as one, Manifest(2 * BLOCK - 1, tmp_path) as other:
        one.fill(0, 2)
        other.fill(0, 2)
        assert one.root() == blake3((2 * BLOCK).to_bytes(8, "big") + ZERO + ZERO).digest()
        assert one.root() != other.root()


def test_a_short_block_counts_as_filled_up_with_zeros() -> None:
    """Zeros are told by their digest at any length."""
    assert digest(bytes(7)) == ZERO
    assert digest(b"x" + bytes(9)) == digest(b"x" + bytes(BLOCK - 1))
    assert digests(b"x" * (BLOCK + 1)) == [digest(b"x" * BLOCK), digest(b"x")]


def test_what_was_saved_is_loaded_for_the_same_file_only(tmp_path: Path) -> None:
    """A manifest is believed for the very file that it was made for, unchanged since."""
    content = tmp_path / "disk"
    content.write_bytes(b"x" * BLOCK)
    file = os.open(content, os.O_RDWR)
    try:
        identity = identity_of(file)
        with Manifest(BLOCK, tmp_path) as manifest:
            manifest.set(0, digest(b"x" * BLOCK))
            manifest.save(tmp_path / "m", identity)
        loaded = Manifest.load(tmp_path / "m", identity_of(file), tmp_path)
        assert loaded is not None
        with loaded:
            assert loaded.get(0) == digest(b"x" * BLOCK)
        os.pwrite(file, b"y", 0)
        assert Manifest.load(tmp_path / "m", identity_of(file), tmp_path) is None
    finally:
        os.close(file)
    assert {each.name for each in tmp_path.iterdir()} == {"disk", "m"}


def test_no_manifest_is_none(tmp_path: Path) -> None:
    """Where nothing was saved, nothing is known."""
    assert Manifest.load(tmp_path / "m", bytes(40)) is None


@pytest.mark.parametrize("damage", [0, 10, 60, 100, 125, 200, -1, "cut", "longer", "empty"])
def test_a_damaged_manifest_counts_for_nothing(damage: int | str, tmp_path: Path) -> None:
    """Whatever byte is wrong, missing or too many, nothing of it is believed."""
    path = tmp_path / "m"
    with Manifest(9 * BLOCK, tmp_path) as manifest:
        manifest.fill(0, 9)
        manifest.save(path, bytes(40))
    good = path.read_bytes()
    if isinstance(damage, int):
        bad = bytearray(good)
        bad[damage] ^= 1
        path.write_bytes(bad)
    else:
        path.write_bytes({"cut": good[:-32], "longer": good + good[-32:], "empty": b""}[damage])
    assert Manifest.load(path, bytes(40), tmp_path) is None
