"""Block volumes, snapshots of them and RAW images, on an LXD that has none of these for containers.

Containers know custom storage volumes as folders. Ours holds one file, ``volume.raw``, of exactly the volume's size:
the machine finds it at the device asked for, by a symbolic link, and reads and writes it as a block device. (It is
none: to be formatted and mounted it needs a loop device, which containers seldom may have.)

LXD takes a whole volume in, and gives it out, as a *backup*: a tar archive with an index. So content is written with
the volume that holds it, in one call, and volumes are copied inside LXD wherever their sizes agree.

Every function here blocks.
"""

from __future__ import annotations

import queue
import secrets
import tarfile
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from hashlib import blake2b
from io import BytesIO
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from descriptors.base import MIB, utc_now
from vendor_modules.errors import NotFound, ProtocolError, Unavailable, VendorError
from vendor_modules.lxd.connection import Server
from vendor_modules.lxd.errors import translate

StoredKind = Literal["volume", "snapshot", "image"]
NOTES = "user.cloud-agency"
FILE = "volume.raw"
BACKUP_LIFE = timedelta(hours=1)
"""After which LXD removes a backup that nobody removed."""
CHUNK = MIB
_BLOCK = 512


class Record(BaseModel):
    """What is known of a stored thing; ``size`` in bytes."""

    model_config = ConfigDict(frozen=True)

    key: str
    name: str
    size: int
    digest: str | None = None
    volume: str | None = None
    """Of a snapshot: what it was taken of."""


def digest_of(key: str) -> str:
    """32 hexadecimal digits for a key."""
    return blake2b(key.encode(), digest_size=16).hexdigest()


def id_for(kind: StoredKind, key: str) -> str:
    """The id of what is made with the key."""
    return f"{kind}-{digest_of(key)}"


class Volumes:
    """The custom volumes of a storage pool that are ours."""

    def __init__(self, server: Server, pool: str) -> None:
        self._server = server
        self._pool = pool
        self._node = server.api.storage_pools[pool].volumes.custom

    def record(self, kind: StoredKind, resource_id: str) -> Record:
        """What is known of it; :class:`NotFound` if there is no such thing."""
        if not resource_id.startswith(f"{kind}-") or not resource_id.replace("-", "").isalnum():
            raise NotFound(f"there is no {kind} {resource_id}")
        if (known := _record(self._server.get(self._node[resource_id]))) is None:
            raise NotFound(f"{resource_id} was not made by the agency")
        return known

    def records(self, kind: StoredKind) -> Iterator[tuple[str, Record]]:
        """All of a kind, with their ids."""
        for volume in self._server.get(self._node, params={"recursion": 1}):
            known = _record(volume)
            if known and volume["name"].startswith(f"{kind}-") and "/" not in volume["name"]:
                yield volume["name"], known

    def known(self, kind: StoredKind, resource_id: str) -> Record | None:
        """The record, if the thing is there already."""
        try:
            return self.record(kind, resource_id)
        except VendorError as error:
            if isinstance(error, NotFound):
                return None
            raise
        except Exception as error:
            if isinstance(translate(error), NotFound):
                return None
            raise

    def bring(self, resource_id: str, record: Record, content: Iterator[bytes], length: int) -> None:
        """Make a volume whose file begins with ``length`` bytes of content; zeros come after them. Whole or not at
        all."""
        headers = {"Content-Type": "application/octet-stream", "X-LXD-name": resource_id}
        self._server.done(self._node.post(data=_backup(resource_id, record, content, length), headers=headers))

    def copy(self, source: str, resource_id: str, record: Record) -> None:
        """Make a volume with the same file as another, inside LXD."""
        order = {
            "name": resource_id,
            "type": "custom",
            "config": _config(record),
            "source": {"type": "copy", "pool": self._pool, "name": source, "volume_only": True},
        }
        self._server.done(self._node.post(json=order))

    def destroy(self, resource_id: str) -> None:
        """Remove it."""
        self._node[resource_id].delete()

    def reading(self, resource_id: str, offset: int = 0) -> Reader:
        """The file's bytes from an offset on; close it when it is not needed any more."""
        backups = self._node[resource_id].backups
        name = f"agency-{secrets.token_hex(8)}"
        order = {
            "name": name,
            "volume_only": True,
            "compression_algorithm": "none",
            "expires_at": (utc_now() + BACKUP_LIFE).isoformat(),
        }
        self._server.done(backups.post(json=order))
        return Reader(self._server, backups[name], offset)


class Reader:
    """The content of a volume's file, read from a backup of it."""

    def __init__(self, server: Server, backup: Any, offset: int) -> None:
        self._server, self._backup = server, backup
        self._response = backup.export.get(is_api=False, stream=True)
        self._archive = tarfile.open(fileobj=self._response.raw, mode="r|")  # noqa: SIM115 - close() closes it
        self._file = self._find()
        while offset:
            if not (skipped := self._file.read(min(offset, CHUNK))):
                raise ProtocolError("the volume has fewer bytes than it should")
            offset -= len(skipped)

    def _find(self) -> Any:
        for member in self._archive:
            if member.isfile() and member.name.endswith(f"/{FILE}"):
                return self._archive.extractfile(member)
        raise ProtocolError(f"the volume has no {FILE}")

    def read(self) -> bytes:
        """The next bytes; none at the end."""
        return bytes(self._file.read(CHUNK))

    def chunks(self, length: int) -> Iterator[bytes]:
        """The next ``length`` bytes, and then the end."""
        while length > 0 and (chunk := self.read()):
            yield chunk[:length]
            length -= len(chunk)

    def close(self) -> None:
        """Let go of the backup."""
        self._response.close()
        with suppress(Exception):  # LXD removes it itself in the end
            self._server.done(self._backup.delete())


class Feed:
    """Chunks on their way from the event loop to a thread that sends them; a few at most wait."""

    def __init__(self) -> None:
        self._chunks: queue.Queue[bytes | None] = queue.Queue(4)
        self._given_up = threading.Event()

    def __iter__(self) -> Iterator[bytes]:
        try:
            while chunk := self._chunks.get():
                yield chunk
        finally:
            self._given_up.set()
        if chunk is None:
            raise Unavailable("the content broke off")

    def put(self, chunk: bytes | None) -> bool:
        """Pass a chunk on; empty is the end, None breaks off. False when nobody takes chunks any more. Blocks."""
        while not self._given_up.is_set():
            try:
                self._chunks.put(chunk, timeout=0.1)
            except queue.Full:
                continue
            return True
        return False


def _config(record: Record) -> dict[str, str]:
    return {NOTES: record.model_dump_json()}


def _record(volume: dict[str, Any]) -> Record | None:
    try:
        return Record.model_validate_json(volume["config"].get(NOTES, ""))
    except ValidationError:
        return None


# --- a volume's backup ---


def _backup(name: str, record: Record, content: Iterator[bytes], length: int) -> Iterator[bytes]:
    """A volume as LXD's backups have it (index version 2 of LXD 4.0 and later), made as it is sent."""
    volume = {
        "name": name,
        "type": "custom",
        "content_type": "filesystem",
        "config": _config(record),
        "description": "",
    }
    index = {
        "name": name,
        "backend": "dir",
        "pool": "default",
        "optimized": False,
        "optimized_header": False,
        "type": "custom",
        "config": {"volume": volume},
    }
    yield _member("backup/index.yaml", yaml.safe_dump(index).encode())
    folder = tarfile.TarInfo("backup/volume")
    folder.type, folder.mode = tarfile.DIRTYPE, 0o755
    yield folder.tobuf(tarfile.GNU_FORMAT)
    yield _sparse(f"backup/volume/{FILE}", length, record.size)
    sent = 0
    for chunk in content:
        yield chunk
        sent += len(chunk)
    if sent != length:
        raise Unavailable(f"{sent} bytes came, {length} were expected")
    yield b"\0" * (-length % _BLOCK + 2 * _BLOCK)


def _member(path: str, content: bytes) -> bytes:
    made = BytesIO()
    with tarfile.open(fileobj=made, mode="w", format=tarfile.GNU_FORMAT) as archive:
        member = tarfile.TarInfo(path)
        member.size = len(content)
        archive.addfile(member, BytesIO(content))
        return made.getvalue()


def _sparse(path: str, length: int, size: int) -> bytes:
    """The header of a file of ``size`` bytes, of which the first ``length`` follow: GNU tar's old sparse form
    (https://www.gnu.org/software/tar/manual/html_node/Standard.html, ``struct oldgnu_header``)."""
    member = tarfile.TarInfo(path)
    member.size, member.mode = length, 0o600
    head = bytearray(member.tobuf(tarfile.GNU_FORMAT))
    head[156:157] = b"S"
    for number, value in enumerate((0, length, size, 0)):  # (offset, bytes) of what is there, and of the end
        head[386 + 12 * number : 398 + 12 * number] = _number(value)
    head[483:495] = _number(size)
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    return bytes(head)


def _number(value: int) -> bytes:
    """Twelve bytes: octal digits, or for what is too large for them, base 256."""
    return b"%011o\0" % value if value < 8**11 else b"\x80" + value.to_bytes(11, "big")
