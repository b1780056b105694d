"""A disk that is full in the middle of a transfer: a file system in memory, which takes root to mount."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agency.problems import problem_of
from agency.transfer.ends import UNIT
from agency.transfer.formats.opening import open_sink, open_source
from tests.agency.transfer.formats.copying import copy, manifest_of, needs_qemu, qemu_img

SIZE = 12 * UNIT


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system with room for 6 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "none", place], capture_output=True, check=False)
    if made.returncode:
        pytest.skip("needs root, and leave to mount")
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


@needs_qemu
@pytest.mark.parametrize("format_", ["raw", "qcow2", "vmdk", "vdi"])
def test_a_full_disk_is_said_and_the_transfer_goes_on_when_there_is_room(
    small: Path, tmp_path: Path, format_: str
) -> None:
    """The error is that the disk is full, whoever wrote; what was written is known when there is room again."""
    original = tmp_path / "original"
    original.write_bytes(os.urandom(SIZE))
    source, sink = open_source(original, "raw"), open_sink(small, "image", SIZE, format_)
    with pytest.raises(OSError, match="No space") as full:
        manifest_of(source, sink)
    assert full.value.errno == errno.ENOSPC
    assert problem_of(full.value).code == "disk-full"
    sink.leave(None)
    subprocess.run(["mount", "-o", "remount,size=64m", small], check=True)
    sink = open_sink(small, "image", SIZE, format_)
    known = sink.known()
    assert known is not None
    with known, manifest_of(source) as expected:
        assert sum(known.unit(unit) == expected.unit(unit) for unit in range(12)) >= 4
    copy(source, sink)
    qemu_img("compare", "-f", "raw", "-F", format_, original, small / "image")
