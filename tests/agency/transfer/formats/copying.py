"""What the engine does with two ends, without a wire between them: enough to try sources and sinks with."""

from __future__ import annotations

import random
import shutil
import subprocess
from contextlib import ExitStack
from pathlib import Path

import pytest

from agency.transfer.ends import UNIT, Sink, Source
from agency.transfer.manifest import Manifest, digests

needs_qemu = pytest.mark.skipif(shutil.which("qemu-nbd") is None, reason="needs qemu-utils")


def manifest_of(source: Source, sink: Sink | None = None) -> Manifest:
    """The manifest of the content; the units that may be something else than zeros are written to the sink."""
    with ExitStack() as opened:
        manifest = opened.enter_context(Manifest(source.size))
        manifest.fill(0, manifest.blocks)
        for unit in units(source):
            data = source.read(unit * UNIT, min(UNIT, source.size - unit * UNIT))
            manifest.set_unit(unit, digests(data))
            if sink is not None:
                sink.write(unit * UNIT, data)
        opened.pop_all()
        return manifest


def units(source: Source) -> list[int]:
    """The units that the source's extents touch."""
    found = {
        unit for offset, length in source.extents() for unit in range(offset // UNIT, -(-(offset + length) // UNIT))
    }
    return sorted(found)


def copy(source: Source, sink: Sink) -> None:
    """All of it, from one to the other, which are done with then."""
    with manifest_of(source, sink) as manifest:
        source.check_unchanged()
        source.close()
        sink.finish(manifest)


def sparse_file(path: Path, size: int, *, seed: int = 0) -> Path:
    """A file with some data at its beginning, at its end and every few MiB, of which not all lies at a unit's edge."""
    chance = random.Random(seed)  # noqa: S311 - the same each time
    with path.open("wb") as file:
        file.truncate(size)
        for offset in [*range(0, size, 5 * UNIT + 12288), max(0, size - 70_000)]:
            file.seek(offset)
            file.write(chance.randbytes(min(200_000, size - offset)))
    return path


def qemu_img(*order: str | Path) -> str:
    """What it says; it must succeed."""
    return subprocess.run(["qemu-img", *map(str, order)], check=True, capture_output=True, text=True, timeout=60).stdout


def room_taken(path: Path) -> int:
    """Bytes on the disk."""
    return path.stat().st_blocks * 512
