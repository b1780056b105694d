"""Volumes, snapshots and images as files of one libvirt storage pool.

libvirt keeps nothing beside a volume, so each of ours is two: ``ID.img`` with the content, and ``ID.json``, a small one
with what is to be known of it (:class:`Record`). The record is written first and completed last: whatever a sudden end
leaves behind has a record with its key, is listed as PENDING, and can be taken up or removed. The id is made from the
key, so that there cannot be two of one key.

Every function here blocks, and runs in a thread of the module's pool.
"""

from __future__ import annotations

import re
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from hashlib import blake2b
from typing import Any, Literal
from xml.sax.saxutils import escape

from lxml import etree
from pydantic import BaseModel, ConfigDict, ValidationError

from vendor_modules.errors import InvalidRequest, NotFound, ProtocolError
from vendor_modules.libvirt_qemu.connection import sdk
from vendor_modules.libvirt_qemu.errors import NO_STORAGE_VOLUME, is_being_made, is_in_use
from vendor_modules.resources import DiskFormat

StoredKind = Literal["volume", "snapshot", "image"]

RECORD_BYTES = 16 * 1024
OURS = re.compile(r"(machine|volume|snapshot|image)-[0-9a-f-]{32,36}\.(img|json|iso|log)")
CHUNK = 1024 * 1024
PATIENCE = 10.0
"""Seconds that a change of a record waits for those who read it, which takes each a moment."""
_PARSER = etree.XMLParser(resolve_entities=False, no_network=True)


class Record(BaseModel):
    """What is known of a stored thing. ``size`` is in bytes: of a volume its capacity, of an image its content."""

    model_config = ConfigDict(frozen=True)

    key: str
    name: str
    format: DiskFormat = DiskFormat.RAW
    size: int
    digest: str | None = None
    volume: str | None = None
    """Of a snapshot: what it was taken of."""
    complete: bool = False


def digest_of(key: str) -> str:
    """32 hexadecimal digits for a key."""
    return blake2b(key.encode(), digest_size=16).hexdigest()


def id_for(kind: StoredKind, key: str) -> str:
    """The id of what is made with the key."""
    return f"{kind}-{digest_of(key)}"


class Storage:
    """The pool of that name, over a ``virConnect``."""

    def __init__(self, connection: Any, pool: str) -> None:
        self._connection = connection
        self.name = pool
        self._pool = connection.storagePoolLookupByName(pool)

    # --- plain files ---

    def find(self, file: str) -> Any | None:
        """The ``virStorageVol`` of that file name."""
        try:
            return self._pool.storageVolLookupByName(file)
        except sdk().libvirtError as error:
            if error.get_error_code() == NO_STORAGE_VOLUME:
                return None
            raise

    def make(self, file: str, size: int, format_: DiskFormat = DiskFormat.RAW, *, copy_of: str | None = None) -> Any:
        """Make a file of ``size`` bytes, empty or with the content of another; an error if it is there."""
        order = (
            f"<volume><name>{escape(file)}</name><capacity unit='bytes'>{size}</capacity><allocation>0</allocation>"
            f"<target><format type='{format_}'/></target></volume>"
        )
        if copy_of is None:
            return self._pool.createXML(order)
        if (source := self.find(copy_of)) is None:
            raise NotFound(f"there is no {copy_of}")
        return self._pool.createXMLFrom(order, source)

    def remove(self, file: str) -> None:
        """Remove a file; gone already is fine."""

        def delete() -> None:
            if volume := self.find(file):
                volume.delete()

        try:
            _between_reads(delete) if file.endswith(".json") else delete()
        except sdk().libvirtError as error:
            if error.get_error_code() != NO_STORAGE_VOLUME:
                raise

    def write(self, file: str, content: bytes) -> None:
        """Make a file with that content, which must not be there."""
        self._send(self.make(file, len(content)), content)

    def read(self, file: str, offset: int = 0) -> bytes:
        """A small file from an offset on; :class:`NotFound` if it is not there."""
        stream = self.reading(file, offset)
        parts = []
        while part := stream.recv(CHUNK):
            parts.append(part)
        stream.finish()
        return b"".join(parts)

    def reading(self, file: str, offset: int) -> Any:
        """A ``virStream`` of the file from the offset on."""
        if (volume := self.find(file)) is None:
            raise NotFound(f"there is no {file}")
        stream = self._connection.newStream()
        volume.download(stream, offset, 0)
        return stream

    def writing(self, file: str, size: int) -> Any:
        """Make a file of that size anew, and give a ``virStream`` that fills it."""
        self.remove(file)
        stream = self._connection.newStream()
        self.make(file, size).upload(stream, 0, size)
        return stream

    def size(self, file: str) -> int:
        """The bytes of the file as it is downloaded."""
        if (volume := self.find(file)) is None:
            raise NotFound(f"there is no {file}")
        return int(volume.infoFlags(sdk().VIR_STORAGE_VOL_GET_PHYSICAL)[2])

    def path(self, file: str) -> str:
        """Where a file of the pool lies on the host, or would."""
        folder = etree.fromstring(self._pool.XMLDesc(), _PARSER).findtext("target/path", "")
        return f"{folder}/{file}"

    def _send(self, volume: Any, content: bytes) -> None:
        stream = self._connection.newStream()
        _between_reads(lambda: volume.upload(stream, 0, len(content)))
        send_all(stream, content)
        stream.finish()

    # --- things with a record ---

    def record(self, resource_id: str) -> Record:
        """What is known of it; :class:`NotFound` if there is no such thing."""
        try:
            return Record.model_validate_json(self.read(f"{resource_id}.json"))
        except ValidationError as error:
            raise ProtocolError(f"the record of {resource_id} cannot be read") from error

    def records(self, kind: StoredKind) -> Iterator[tuple[str, Record]]:
        """All of a kind, with their ids. One that is made or removed meanwhile may be left out."""
        for file in self.files():
            if file.startswith(f"{kind}-") and file.endswith(".json") and OURS.fullmatch(file):
                resource_id = file.removesuffix(".json")
                if known := self._record_now(resource_id):
                    yield resource_id, known

    def _record_now(self, resource_id: str) -> Record | None:
        try:
            return self.record(resource_id)
        except (NotFound, ProtocolError):
            return None
        except sdk().libvirtError as error:
            if is_being_made(error) or error.get_error_code() == NO_STORAGE_VOLUME:  # removed after it was found
                return None
            raise

    def create(self, resource_id: str, record: Record, fill: Callable[[str], int]) -> Record:
        """Make a thing once: ``fill`` makes the file with its content and returns its size in bytes. What fails leaves
        nothing behind."""
        if (known := self.begin(resource_id, record)).complete:
            return known
        try:
            self.remove(f"{resource_id}.img")  # what an attempt that came to a sudden end has left
            size = fill(f"{resource_id}.img")
            return self.complete(resource_id, record.model_copy(update={"size": size}))
        except Exception:
            self.abandon(resource_id)
            raise

    def begin(self, resource_id: str, record: Record) -> Record:
        """Write down what will be made; the record that is there, if there is one."""
        try:
            return self.record(resource_id)
        except ProtocolError:  # it was never written to its end
            self.remove(f"{resource_id}.json")
        except NotFound:
            pass
        self.write(f"{resource_id}.json", _padded(record))
        return record

    def complete(self, resource_id: str, record: Record) -> Record:
        """Write down that it has been made."""
        done = record.model_copy(update={"complete": True})
        if (volume := self.find(f"{resource_id}.json")) is None:
            raise NotFound(f"{resource_id} was removed while it was made")
        self._send(volume, _padded(done))
        return done

    def abandon(self, resource_id: str) -> None:
        """Remove what could not be made; what cannot be removed now is listed as PENDING."""
        with suppress(Exception):
            self.destroy(resource_id)

    def destroy(self, resource_id: str) -> None:
        """Remove it: its content first, so that it is found as long as any of it is there."""
        if self.find(f"{resource_id}.json") is None:
            raise NotFound(f"there is no {resource_id}")
        self.remove(f"{resource_id}.img")
        self.remove(f"{resource_id}.json")

    # --- files of others ---

    def files(self) -> list[str]:
        """The names of all files."""
        return [str(name) for name in self._pool.listVolumes()]

    def format(self, file: str) -> DiskFormat | None:
        """How libvirt sees that a file is laid out; None for one that is no disk, or not there."""
        if (volume := self.find(file)) is None:
            return None
        kind = etree.fromstring(volume.XMLDesc(), _PARSER).find("target/format")
        known = {"raw": DiskFormat.RAW, "qcow2": DiskFormat.QCOW2}
        return known.get(str(kind.get("type"))) if kind is not None else None


def _between_reads(change: Callable[[], None]) -> None:
    """Change a record; while it is read, as by a list that goes on at the same time, libvirt refuses."""
    patient_until = time.monotonic() + PATIENCE
    while True:
        try:
            return change()
        except sdk().libvirtError as error:
            if not is_in_use(error) or time.monotonic() > patient_until:
                raise
        time.sleep(0.01)


def send_all(stream: Any, content: bytes) -> None:
    """Send every byte: libvirt takes 256 KiB at once at most."""
    view = memoryview(content)
    while view:
        view = view[stream.send(bytes(view[:CHUNK])) :]


def received(stream: Any) -> bytes:
    """The next bytes, about as many as are worth a call; none at the end."""
    parts, size = [], 0
    while size < CHUNK and (part := stream.recv(CHUNK)):
        parts.append(part)
        size += len(part)
    return b"".join(parts)


def _padded(record: Record) -> bytes:
    """The record as JSON of a fixed length, so that a new one covers an old one."""
    return record.model_dump_json().encode().ljust(RECORD_BYTES)


def check_qcow2(head: bytes) -> None:
    """Refuse an image that would have QEMU open another of the host's files
    (https://www.qemu.org/docs/master/interop/qcow2.html)."""
    magic, version, backing = struct.unpack_from(">4sIQ", head.ljust(80, b"\0"))
    external_data = version >= 3 and struct.unpack_from(">Q", head.ljust(80, b"\0"), 72)[0] & 4
    if magic != b"QFI\xfb" or backing or external_data:
        raise InvalidRequest("the image is no QCOW2 that stands alone, without a backing or data file")
