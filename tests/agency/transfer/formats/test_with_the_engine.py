"""Content goes through the engine from any format to any other, and only what changed goes again."""

from __future__ import annotations

import os
from contextlib import closing
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


@pytest.mark.parametrize("format_", ["raw", pytest.param("qcow2", marks=needs_qemu)])
@pytest.mark.parametrize("room", [SIZE - 5 * UNIT, SIZE, SIZE + 3 * UNIT])
def test_what_a_base_has_is_not_sent(tmp_path: Path, format_: str, room: int) -> None:
    """Of content made from an image that the destination has, longer or shorter than it, only what was changed is sent;
    the image stays what it was, and zeros stay holes."""
    base = sparse_file(tmp_path / "base", SIZE)
    (tmp_path / "original").write_bytes(base.read_bytes()[:room])
    os.truncate(tmp_path / "original", room)
    with (tmp_path / "original").open("r+b") as file:
        file.seek(7 * UNIT)
        file.write(os.urandom(100_000))
    if format_ != "raw":
        qemu_img("convert", "-f", "raw", "-O", format_, base, tmp_path / f"base.{format_}")
        base = tmp_path / f"base.{format_}"
    before = base.read_bytes()
    with closing(open_source(tmp_path / "original", "raw")) as source, closing(open_source(base, format_)) as known:
        sent, _ = transfer(source, open_sink(tmp_path, "arrived", room, format_, base=known)).results
    assert sent.data <= 3 * (64 << 10)
    assert sent.same >= 1_000_000
    assert base.read_bytes() == before
    qemu_img("compare", "-f", "raw", "-F", format_, tmp_path / "original", tmp_path / "arrived")
    assert (tmp_path / "arrived").stat().st_blocks <= base.stat().st_blocks + (1 << 20) // 512


def test_a_base_is_gone_on_with(tmp_path: Path) -> None:
    """An attempt that ended while the base was put in place costs nothing: the next one puts the rest there."""
    base = tmp_path / "base"
    base.write_bytes(os.urandom(SIZE))

    def stop(done: int, _: int) -> None:
        if done > SIZE // 2:
            raise KeyboardInterrupt

    for hashing in (stop, lambda *_: None):
        with closing(open_source(base, "raw")) as source, closing(open_source(base, "raw")) as known:
            sink = open_sink(tmp_path, "arrived", SIZE, "raw", hashing=hashing, base=known)
            if hashing is stop:
                with pytest.raises(KeyboardInterrupt):
                    sink.known()
                sink.leave(None)
            else:
                sent, _ = transfer(source, sink).results
    assert (sent.data, sent.same) == (0, SIZE)
    assert (tmp_path / "arrived").read_bytes() == base.read_bytes()


def _exact(format_: str) -> tuple[str, ...]:
    return ("-o", "force_size=on") if format_ == "vpc" else ()
