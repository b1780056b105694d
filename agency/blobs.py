"""A store of files by their content: the same bytes are kept once, and what comes out is what went in."""

from __future__ import annotations

import io
import os
import re
import tempfile
from pathlib import Path
from typing import BinaryIO, NamedTuple

from blake3 import blake3

_PREFIX = "blake3:"
_DIGEST = re.compile(r"blake3:[0-9a-f]{64}")
_CHUNK = 1 << 20


class NoSuchBlob(LookupError):
    """There is no content with that digest."""


class DamagedBlob(Exception):
    """The file of a digest holds something else: the disk, or somebody, has changed it. Put the content again."""


class Blob(NamedTuple):
    """Content that is kept: its digest (``blake3:…``) and its size in bytes."""

    digest: str
    size: int


class Blobs:
    """Files in one directory, each named for its digest. Every call blocks: call them in a thread.

    Any number of threads and processes may use one directory: a file appears whole or not at all, and never changes.
    """

    def __init__(self, directory: Path) -> None:
        """The directory is made, for the owner only, if it is not there."""
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)

    def put(self, content: bytes | BinaryIO) -> Blob:
        """Keep bytes, or all that a file has from where it stands; durable when this returns. Content that is there
        already is written again, which mends it if it was damaged."""
        source = io.BytesIO(content) if isinstance(content, bytes) else content
        handle, name = tempfile.mkstemp(dir=self._directory, prefix=".incoming-")  # mode 0600
        try:
            with os.fdopen(handle, "wb") as draft:
                hasher = blake3()
                while chunk := source.read(_CHUNK):
                    hasher.update(chunk)
                    draft.write(chunk)
                draft.flush()
                os.fsync(draft.fileno())
                blob = Blob(_PREFIX + hasher.hexdigest(), draft.tell())
            Path(name).replace(self._file(blob.digest))
        except BaseException:
            Path(name).unlink()
            raise
        self._sync()
        return blob

    def has(self, digest: str) -> bool:
        """Whether there is content with that digest."""
        return self._file(digest).is_file()

    def path(self, digest: str) -> Path:
        """Where the content is, for reading only and not verified; :class:`NoSuchBlob`."""
        if not self.has(digest):
            raise NoSuchBlob(f"there is no content with digest {digest}")
        return self._file(digest)

    def open(self, digest: str) -> BinaryIO:
        """The content, verified, as an open file; :class:`NoSuchBlob`, :class:`DamagedBlob`."""
        file = self.path(digest).open("rb")
        hasher = blake3()
        while chunk := file.read(_CHUNK):
            hasher.update(chunk)
        if _PREFIX + hasher.hexdigest() != digest:
            file.close()
            raise DamagedBlob(f"the file {self._file(digest)} does not hold what its name says: put the content again")
        file.seek(0)
        return file

    def read(self, digest: str) -> bytes:
        """The content, verified, in memory; errors as :meth:`open`."""
        with self.open(digest) as file:
            return file.read()

    def _file(self, digest: str) -> Path:
        if not _DIGEST.fullmatch(digest):
            raise ValueError(f"{digest!r} is not a digest: blake3: and 64 hexadecimal digits")
        return self._directory / digest.removeprefix(_PREFIX)

    def _sync(self) -> None:
        """Make a renaming durable."""
        directory = os.open(self._directory, os.O_RDONLY)
        try:
            os.fsync(directory)
        finally:
            os.close(directory)
