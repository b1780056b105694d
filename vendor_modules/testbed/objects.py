"""The cloud's object store: buckets, the keys to them, and the HTTP service at which objects are read and written.

There are three doors to an object: the API, for the account itself; the *internal* endpoint, which takes internal keys
and whose traffic is free; the *public* endpoint, which takes the others. What is read by the API or the public endpoint
counts as egress.
"""

from __future__ import annotations

import asyncio
import os
import shutil
from base64 import b64decode
from collections.abc import AsyncIterator
from hmac import compare_digest
from pathlib import Path
from secrets import token_hex, token_urlsafe
from urllib.parse import unquote_to_bytes

from blake3 import blake3
from pydantic import SecretStr
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from descriptors.base import MIB, new_id, utc_now
from vendor_modules.resources import Status
from vendor_modules.testbed.config import CloudConfig, Ports
from vendor_modules.testbed.errors import ApiError, invalid, not_found
from vendor_modules.testbed.files import in_thread, publish
from vendor_modules.testbed.http import JsonErrors, limit_of, range_start
from vendor_modules.testbed.limits import Limits
from vendor_modules.testbed.ports import HOST
from vendor_modules.testbed.records import AccessKeyRecord, BucketRecord
from vendor_modules.testbed.store import Store, StoredObject
from vendor_modules.testbed.usage import UsageMeters

MAX_NAME_BYTES = 1024
OCTETS = "application/octet-stream"


class Buckets:
    """Buckets, access keys, and the objects' files: ``buckets/BUCKET/HASH-OF-THE-NAME.VERSION``."""

    def __init__(
        self, state: Path, config: CloudConfig, ports: Ports, store: Store, limits: Limits, meters: UsageMeters
    ) -> None:
        self._folder = state / "buckets"
        self._config = config
        self._ports = ports
        self._store = store
        self._limits = limits
        self._meters = meters
        self._folder.mkdir(exist_ok=True)

    def create(self, name: str, key: str) -> BucketRecord:
        """Create an empty bucket; the same key gives the same bucket."""
        if existing := self._store.by_key(BucketRecord, key):
            return existing
        self._limits.check("buckets")
        record = BucketRecord(id=new_id("bucket"), name=name, key=key, status=Status.ACTIVE)
        with self._store.together():
            self._store.add(record)
            self._meters.storage(record.id, "bucket", 0, self._config.object_gib_month)
        return record

    async def destroy(self, bucket_id: str) -> None:
        """Remove a bucket with everything in it; keys to it are revoked."""
        record = self._store.get(BucketRecord, bucket_id)
        with self._store.together():
            for access_key in self._store.all(AccessKeyRecord):
                if access_key.bucket == bucket_id:
                    self._store.remove(access_key)
            self._store.remove_objects(bucket_id)
            self._store.remove(record)
            self._meters.ended(bucket_id)
        await asyncio.to_thread(shutil.rmtree, self._folder / bucket_id, ignore_errors=True)

    def create_access_key(self, bucket_id: str, internal: bool, key: str) -> AccessKeyRecord:
        """Make a key to a bucket; the same idempotency key gives the same access key."""
        if existing := self._store.by_key(AccessKeyRecord, key):
            return existing
        self._store.get(BucketRecord, bucket_id)
        self._limits.check("access_keys")
        port = self._ports.internal_objects if internal else self._ports.public_objects
        key_id = new_id("access-key")
        record = AccessKeyRecord(
            id=key_id,
            name=f"{'internal' if internal else 'public'} key to {bucket_id}",
            key=key,
            status=Status.ACTIVE,
            bucket=bucket_id,
            internal=internal,
            endpoint=f"http://{HOST}:{port}/{bucket_id}",
            access_key=key_id,
            secret_key=SecretStr(token_urlsafe(32)),
        )
        self._store.add(record)
        return record

    def destroy_access_key(self, key_id: str) -> None:
        """Revoke a key."""
        self._store.remove(self._store.get(AccessKeyRecord, key_id))

    def resume(self) -> None:
        """Remove files that no object points to: what was being written or replaced when the cloud ended."""
        for folder in self._folder.iterdir():
            wanted = {stored.file for stored in self._store.objects(folder.name)}
            for file in folder.iterdir():
                if file.name not in wanted:
                    file.unlink()
            if not self._store.find(BucketRecord, folder.name):
                folder.rmdir()

    # --- objects ---

    def page(self, bucket: str, prefix: str, after: str, limit: int) -> tuple[list[StoredObject], str | None]:
        """So many objects by name whose names come after ``after`` and begin with ``prefix``; and what to go on after,
        None at the end."""
        found = self._store.objects(bucket, limit=limit + 1, after=after, prefix=prefix)
        return found[:limit], found[limit - 1].name if len(found) > limit else None

    def find(self, bucket: str, name: str) -> StoredObject:
        """One object; the API's error if there is no such."""
        if stored := self._store.object(bucket, name):
            return stored
        raise ApiError(404, "not-found", "there is no such object")

    async def put(self, bucket: str, name: str, content_type: str, content: AsyncIterator[bytes]) -> StoredObject:
        """Store an object, whole or not at all, in place of any of the same name."""
        folder = self._folder / bucket
        self._store.get(BucketRecord, bucket)
        folder.mkdir(exist_ok=True)
        file = f"{blake3(name.encode()).hexdigest()}.{token_hex(8)}"
        part = folder / f"{file}.part"
        try:
            size = await self._receive(bucket, name, part, content)
            await in_thread(publish, part, folder / file)
        except ClientDisconnect:
            raise invalid("the object was not sent whole") from None
        finally:
            part.unlink(missing_ok=True)
        stored = StoredObject(bucket, name, file, size, content_type, utc_now())
        replaced = self._store.object(bucket, name)
        if not self._store.find(BucketRecord, bucket):  # removed while the object came in
            shutil.rmtree(folder, ignore_errors=True)
            raise not_found("bucket", bucket)
        with self._store.together():
            self._store.put_object(stored)
            self._count(bucket, 0 if replaced else 1, size - (replaced.size if replaced else 0))
        if replaced:
            self._path(replaced).unlink(missing_ok=True)
        return stored

    def remove(self, stored: StoredObject) -> None:
        """Remove an object."""
        with self._store.together():
            self._store.remove_objects(stored.bucket, stored.name)
            self._count(stored.bucket, -1, -stored.size)
        self._path(stored).unlink(missing_ok=True)

    def answer(self, stored: StoredObject, range_: str | None, *, metered: bool, head: bool = False) -> Response:
        """The object as an HTTP response, from where a ``Range`` header says on; metered, it counts as egress."""
        start = range_start(range_, stored.size)
        headers = {
            "content-length": str(stored.size - (start or 0)),
            "last-modified": stored.modified.strftime("%a, %d %b %Y %H:%M:%S GMT"),
            "etag": f'"{stored.file.rpartition(".")[2]}"',
            "accept-ranges": "bytes",
            "content-type": stored.content_type,
        }
        if start is not None:
            headers["content-range"] = f"bytes {start}-{stored.size - 1}/{stored.size}"
        if head:
            return Response(headers=headers)
        content = self._read(stored, start or 0, metered)
        return StreamingResponse(content, 200 if start is None else 206, headers)

    async def _read(self, stored: StoredObject, start: int, metered: bool) -> AsyncIterator[bytes]:
        sent = 0
        try:
            with self._path(stored).open("rb") as file:
                os.lseek(file.fileno(), start, os.SEEK_SET)
                while chunk := await asyncio.to_thread(file.read, MIB):
                    yield chunk
                    sent += len(chunk)
        finally:
            if metered and self._store.find(BucketRecord, stored.bucket):
                self._meters.egress(stored.bucket, "bucket", sent)

    def _path(self, stored: StoredObject) -> Path:
        return self._folder / stored.bucket / stored.file

    async def _receive(self, bucket: str, name: str, part: Path, content: AsyncIterator[bytes]) -> int:
        replaced = self._store.object(bucket, name)
        freed, size, held = replaced.size if replaced else 0, 0, bytearray()
        with part.open("wb") as file:
            async for chunk in content:
                size += len(chunk)
                held += chunk
                if len(held) >= MIB:
                    self._limits.check("bucket_mib", size - freed)
                    await in_thread(file.write, bytes(held))
                    held.clear()
            self._limits.check("bucket_mib", size - freed)
            file.write(held)
        return size

    def _count(self, bucket_id: str, objects: int, size: int) -> None:
        bucket = self._store.get(BucketRecord, bucket_id)
        update = {"objects": bucket.objects + objects, "bytes": bucket.bytes + size}
        self._store.put(bucket.model_copy(update=update))
        self._meters.storage(bucket_id, "bucket", update["bytes"], self._config.object_gib_month)


class Endpoint:
    """One of the two endpoints, as a plain ASGI application: names are any Unicode, no routing table fits them."""

    def __init__(self, buckets: Buckets, config: CloudConfig, store: Store, *, internal: bool) -> None:
        self._buckets = buckets
        self._config = config
        self._store = store
        self._internal = internal
        self.app = JsonErrors(self._app)

    async def _app(self, scope: dict[str, object], receive: object, send: object) -> None:
        request = Request(scope, receive)  # type: ignore[arg-type]
        response = await self._answer(request)
        await response(scope, receive, send)  # type: ignore[arg-type]

    async def _answer(self, request: Request) -> Response:
        bucket, name = _names(request)
        self._check_key(request, bucket)
        if not name:
            if request.method != "GET":
                raise ApiError(405, "method-not-allowed", "a bucket can be listed (GET), nothing else")
            return self._list(request, bucket)
        if request.method == "PUT":
            content_type = request.headers.get("content-type", OCTETS)
            stored = await self._buckets.put(bucket, name, content_type, request.stream())
            return JSONResponse({"key": stored.name, "size": stored.size}, status_code=201)
        if request.method not in ("GET", "HEAD", "DELETE"):
            raise ApiError(405, "method-not-allowed", "objects take PUT, GET, HEAD and DELETE")
        stored = self._buckets.find(bucket, name)
        if request.method == "DELETE":
            self._buckets.remove(stored)
            return Response(status_code=204)
        head = request.method == "HEAD"
        return self._buckets.answer(stored, request.headers.get("range"), metered=not self._internal, head=head)

    def _check_key(self, request: Request, bucket: str) -> None:
        access, secret = _basic(request.headers.get("authorization", ""))
        key = self._store.find(AccessKeyRecord, access)
        if key is None or not compare_digest(key.secret_key.get_secret_value().encode(), secret.encode()):
            raise ApiError(401, "unauthorized", "a valid access key and secret are needed (HTTP Basic)")
        if key.internal != self._internal:
            kind, other = ("public", "internal") if self._internal else ("internal", "public")
            raise ApiError(403, "forbidden", f"this is the {other} endpoint, it takes no {kind} keys")
        if key.bucket != bucket:
            raise ApiError(403, "forbidden", "the key is not for this bucket")

    def _list(self, request: Request, bucket: str) -> Response:
        limit = limit_of(request.query_params.get("limit"), self._config.page_size)
        after, prefix = request.query_params.get("marker", ""), request.query_params.get("prefix", "")
        found, following = self._buckets.page(bucket, prefix, after, limit)
        items = [
            {"key": o.name, "size": o.size, "content_type": o.content_type, "modified": o.modified.isoformat()}
            for o in found
        ]
        return JSONResponse({"objects": items, "next": following})


def _names(request: Request) -> tuple[str, str]:
    """The bucket and the object's name, exactly as they were sent: dots and slashes in a name mean nothing."""
    _, _, path = request.scope["raw_path"].partition(b"/")
    bucket, _, name = path.partition(b"/")
    return bucket.decode("ascii", "replace"), _object_name(unquote_to_bytes(name)) if name else ""


def name_in(query: bytes) -> str:
    """The object's name in a query of the API, exactly as it was sent; the API's error if there is none. In a path, its
    dots and slashes would be resolved and routed."""
    for pair in query.split(b"&"):
        field, _, value = pair.partition(b"=")
        if field == b"name":
            return _object_name(unquote_to_bytes(value.replace(b"+", b" ")))
    raise invalid("an object's name is needed: ?name=")


def _object_name(sent: bytes) -> str:
    try:
        name = sent.decode()
    except UnicodeDecodeError as error:
        raise invalid("an object's name is UTF-8") from error
    if not 1 <= len(sent) <= MAX_NAME_BYTES or "\0" in name:
        raise invalid(f"an object's name has 1 to {MAX_NAME_BYTES} bytes, none of them zero")
    return name


def _basic(header: str) -> tuple[str, str]:
    try:
        access, _, secret = b64decode(header.removeprefix("Basic "), validate=True).decode().partition(":")
    except ValueError:
        return "", ""
    return access, secret
