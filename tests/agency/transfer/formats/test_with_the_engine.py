"""Content goes through the engine from any format to any other, and only what changed goes again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agency.transfer.ends import UNIT
from agency.transfer.formats.opening import FORMATS, open_sink, open_source
from tests.agency.transfer.ends import transfer
from tests.agency.transfer.formats.copying import needs_qemu, qemu_img, sparse_file

SIZE = 24 * UNIT


@needs_qemu
@pytest.mark.parametrize(("before", "after"), list(zip(FORMATS, (*FORMATS[1:], "raw"), strict=True)))
def test_from_format_to_format_and_then_the_difference(tmp_path: Path, before: str, after: str) -> None:
    """What arrives is the content; after a change of a few blocks, those blocks go, and nothing is hashed."""
    original = sparse_file(tmp_path / "original", SIZE)
    image, arrived = tmp_path / "image", tmp_path / "arrived"
    for changed in (False, True):
        if changed:
            with original.open("r+b") as file:
                file.seek(7 * UNIT)
                file.write(os.urandom(100_000))
        qemu_img("convert", "-f", "raw", "-O", before, *_exact(before), original, image)
        source = open_source(image, before)
        sink = open_sink(tmp_path, "arrived", SIZE, after, hashing=lambda *_: pytest.fail("it was read"))
        sent, received = transfer(source, sink).results
        source.close()
        assert sent.data == received.data
        assert (sent.data <= 3 * (64 << 10)) if changed else (sent.data >= 1_000_000)
        qemu_img("compare", "-f", "raw", "-F", after, original, arrived)


def _exact(format_: str) -> tuple[str, ...]:
    return ("-o", "force_size=on") if format_ == "vpc" else ()
