"""Blobs: content by its digest, whole and unchanged or not at all."""

from __future__ import annotations

import io
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from blake3 import blake3
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agency.blobs import Blob, Blobs, DamagedBlob, NoSuchBlob


@pytest.fixture
def blobs(tmp_path: Path) -> Blobs:
    """An empty store."""
    return Blobs(tmp_path / "blobs")


@given(content=st.binary())
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_bytes_come_out_as_they_went_in(blobs: Blobs, content: bytes) -> None:
    """Any bytes are read back under their BLAKE3 digest, with their size."""
    blob = blobs.put(content)
    assert blob == Blob(f"blake3:{blake3(content).hexdigest()}", len(content))
    assert blobs.read(blob.digest) == content


def test_streams_are_kept_from_where_they_stand(blobs: Blobs) -> None:
    """A file of several chunks is kept from its position on, in the same blob as the same bytes."""
    content = bytes(range(256)) * 10_000
    stream = io.BytesIO(b"skipped" + content)
    stream.seek(7)
    blob = blobs.put(stream)
    assert blob == blobs.put(content)
    with blobs.open(blob.digest) as file:
        assert file.read() == content


def test_file_is_private_and_alone(blobs: Blobs) -> None:
    """The file is for its owner only; nothing else is left in the directory."""
    path = blobs.path(blobs.put(b"x").digest)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert list(path.parent.iterdir()) == [path]


def test_what_is_not_there_is_named(blobs: Blobs) -> None:
    """An unknown digest is not there, and asking for its content raises NoSuchBlob."""
    digest = "blake3:" + "0" * 64
    assert not blobs.has(digest)
    for ask in (blobs.open, blobs.read, blobs.path):
        with pytest.raises(NoSuchBlob, match=digest):
            ask(digest)


@pytest.mark.parametrize("digest", ["", "../etc/passwd", "blake3:../x", "sha256:" + "0" * 64, "blake3:" + "A" * 64])
def test_what_is_no_digest_is_refused(blobs: Blobs, digest: str) -> None:
    """Anything that is not a digest is refused before it becomes part of a path."""
    with pytest.raises(ValueError, match="not a digest"):
        blobs.read(digest)


@pytest.mark.parametrize("damage", [b"", b"content!", b"conten", b"Content"])
def test_damage_is_seen_and_mended(blobs: Blobs, damage: bytes) -> None:
    """Changed, longer, shorter or emptied content is refused; putting it again mends it."""
    digest = blobs.put(b"content").digest
    blobs.path(digest).write_bytes(damage)
    with pytest.raises(DamagedBlob, match="put the content again"):
        blobs.open(digest)
    blobs.put(b"content")
    assert blobs.read(digest) == b"content"


def test_failed_stream_leaves_nothing(blobs: Blobs, tmp_path: Path) -> None:
    """When the source breaks halfway, nothing is kept, not even a draft."""

    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            raise ConnectionError("cut off")

    with pytest.raises(ConnectionError):
        blobs.put(Broken())
    assert list((tmp_path / "blobs").iterdir()) == []


def test_many_at_once(blobs: Blobs, tmp_path: Path) -> None:
    """The same and other content put by many threads is all there, each once."""
    with ThreadPoolExecutor(8) as pool:
        kept = list(pool.map(lambda n: blobs.put(b"%d" % (n % 5)), range(40)))
    assert len({blob.digest for blob in kept}) == 5
    assert len(list((tmp_path / "blobs").iterdir())) == 5
    assert {Blobs(tmp_path / "blobs").read(blob.digest) for blob in kept} == {b"%d" % n for n in range(5)}
