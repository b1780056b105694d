"""Block devices as sources and sinks: loop devices, which take root to make."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agency.problems import AgencyError
from agency.transfer.ends import UNIT
from agency.transfer.formats.opening import open_sink, open_source
from tests.agency.transfer.formats.copying import copy, manifest_of, room_taken, sparse_file

MIB = 1 << 20
SIZE = 8 * MIB


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Path]:
    """A loop device over a file of 8 MiB full of something, ``backing``; it has a node of its own in a directory of its
    own."""
    if os.geteuid() != 0 or not Path("/dev/loop-control").exists():
        pytest.skip("needs root and loop devices")
    backing = tmp_path / "backing"
    backing.write_bytes(b"old " * (SIZE // 4))
    made = subprocess.run(["losetup", "--show", "-f", backing], capture_output=True, text=True, check=False)
    if made.returncode:
        pytest.skip(f"needs a loop device: {made.stderr.strip()}")
    loop = Path(made.stdout.strip())
    try:
        (tmp_path / "dev").mkdir()
        node = tmp_path / "dev" / "disk"
        os.mknod(node, 0o600 | 0o060000, loop.stat().st_rdev)
        yield node
    finally:
        subprocess.run(["losetup", "-d", loop], check=True)


def test_a_device_is_written_and_read(tmp_path: Path, device: Path) -> None:
    """A device gets the content, zeros where there are zeros, and gives it back; it is not replaced by a file."""
    original = sparse_file(tmp_path / "original", SIZE)
    sink = open_sink(device.parent, "disk", SIZE, "raw")
    assert not sink.blank
    assert sink.known() is None
    sink.zero(0, SIZE)
    copy(open_source(original, "raw"), sink)
    assert (tmp_path / "backing").read_bytes() == original.read_bytes()
    assert room_taken(tmp_path / "backing") < SIZE, "holes were punched"
    assert device.is_block_device()
    source = open_source(device, "raw")
    assert source.size == SIZE
    assert list(source.extents()) == [(0, SIZE)]
    copy(source, open_sink(tmp_path, "back", SIZE, "raw"))
    assert (tmp_path / "back").read_bytes() == original.read_bytes()


def test_what_was_written_to_a_device_is_hashed_the_next_time(tmp_path: Path, device: Path) -> None:
    """A device that a transfer wrote to, whether or not to its end, is hashed by the next: resume and delta."""
    original = sparse_file(tmp_path / "original", SIZE)
    source = open_source(original, "raw")
    first = open_sink(device.parent, "disk", SIZE, "raw")
    assert first.known() is None
    first.write(UNIT, source.read(UNIT, UNIT))
    first.leave(None)
    second = open_sink(device.parent, "disk", SIZE, "raw")
    known = second.known()
    assert known is not None
    with known, manifest_of(source) as expected:
        assert known.unit(1) == expected.unit(1)
        assert known.unit(0) != expected.unit(0)
    second.leave(None)
    source.close()


def test_a_device_that_is_in_use_or_too_small_is_refused(device: Path) -> None:
    """A device that somebody has for himself, such as a mounted one, is neither read nor written; nor written past its
    end."""
    with pytest.raises(AgencyError) as refused:
        open_sink(device.parent, "disk", SIZE + 1, "raw")
    assert refused.value.problem.code == "too-small"
    with pytest.raises(AgencyError) as refused:
        open_sink(device.parent, "disk", SIZE, "qcow2")
    assert refused.value.problem.code == "unknown-format"
    holder = os.open(device, os.O_RDWR | os.O_EXCL)
    try:
        for call in (lambda: open_source(device, "raw"), lambda: open_sink(device.parent, "disk", SIZE, "raw")):
            with pytest.raises(AgencyError) as refused:
                call()
            assert refused.value.problem.code == "in-use"
    finally:
        os.close(holder)
