"""Buckets and objects: swift."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote, unquote

from vendor_modules import labels
from vendor_modules.capabilities import Objects
from vendor_modules.errors import InvalidRequest, ProtocolError, Unavailable
from vendor_modules.module import Content
from vendor_modules.openstack import names
from vendor_modules.openstack.client import OBJECTS, Client, Json
from vendor_modules.openstack.cloud import Cloud
from vendor_modules.openstack.errors import Refused
from vendor_modules.resources import Bucket, Key, Status, StoredObject

LARGEST_MIB = 5 * 1024
"""Larger objects would have to be stored in segments."""
KEY_HEADER, NAME_HEADER = "x-container-meta-cloud-agency-key", "x-container-meta-cloud-agency-name"


class ObjectStore(Cloud, Objects):
    """The object service. A container's name is its identity, so it is made from the key; the name that was asked for
    is kept in its metadata."""

    async def _create_bucket(self, name: str, key: Key) -> Bucket:
        def create(client: Client) -> Bucket:
            called = labels.name_for(key, name)
            # making one that is there already changes nothing but these
            headers = {KEY_HEADER: key}
            headers |= {f"{NAME_HEADER}-{i}": part for i, part in enumerate(names.parts(name))}
            client.call(OBJECTS, "PUT", f"/{called}", headers=headers)
            return _bucket(client, called)

        return await self._run(create, key=f"bucket {key}")

    async def _describe_bucket(self, bucket_id: str) -> Bucket:
        return await self._run(lambda client: _bucket(client, bucket_id))

    async def _list_buckets(self) -> list[Bucket]:
        def found(client: Client) -> list[Bucket]:
            buckets = []
            for container in _listed(client, "/", {}):
                with _gone_is_fine():
                    buckets.append(_bucket(client, container["name"]))
            return buckets

        return await self._run(found)

    async def _destroy_bucket(self, bucket_id: str) -> None:
        def destroy(client: Client) -> None:
            path = f"/{names.path_part(bucket_id)}"
            for item in _listed(client, path, {}):
                with _gone_is_fine():
                    client.call(OBJECTS, "DELETE", _object(bucket_id, item["name"]))
            client.call(OBJECTS, "DELETE", path)

        await self._run(destroy)

    # --- objects ---

    async def _list_objects(self, bucket_id: str, prefix: str) -> list[StoredObject]:
        path = f"/{names.path_part(bucket_id)}"
        found = await self._run(lambda client: list(_listed(client, path, {"prefix": prefix} if prefix else {})))
        return [StoredObject(name=item["name"], size=item["bytes"]) for item in found]

    async def _put_object(self, bucket_id: str, name: str, content: Content, size: int) -> None:
        if size > LARGEST_MIB << 20:
            raise InvalidRequest(f"an object may have {LARGEST_MIB} MiB, and this one has {size} bytes")
        path = _object(bucket_id, name)

        def put(client: Client, chunks: Iterator[bytes]) -> None:
            digest = hashlib.md5(usedforsecurity=False)

            def counted() -> Iterator[bytes]:
                for chunk in chunks:
                    digest.update(chunk)
                    yield chunk

            kind = {"content-type": "application/octet-stream"}
            answer = client.call(OBJECTS, "PUT", path, data=counted(), headers=kind)
            if answer.headers.get("etag", "").strip('"') != digest.hexdigest():
                raise ProtocolError("the object is not the one that was sent")

        await self._send(_of_size(content, size), put)

    async def _get_object(self, bucket_id: str, name: str, offset: int) -> AsyncIterator[bytes]:
        path = _object(bucket_id, name)
        size = await self._run(lambda client: int(client.call(OBJECTS, "HEAD", path).headers["content-length"]))
        if offset >= size:
            return
        wanted: dict[str, Any] = {"headers": {"range": f"bytes={offset}-"}} if offset else {}
        response = await self._run(lambda client: client.call(OBJECTS, "GET", path, stream=True, **wanted))
        left = size - offset
        async for chunk in self._received(response, offset if response.status_code == 200 else 0):
            left -= len(chunk)
            yield chunk
        if left:
            raise Unavailable(f"{left} bytes of the object did not come")

    async def _delete_object(self, bucket_id: str, name: str) -> None:
        await self._run(lambda client: client.call(OBJECTS, "DELETE", _object(bucket_id, name)))


@contextmanager
def _gone_is_fine() -> Iterator[None]:
    """What was listed may have been removed by somebody else since."""
    try:
        yield
    except Refused as refused:
        if refused.status != 404:
            raise


def _object(bucket_id: str, name: str) -> str:
    # an object may be called "..", and its path is not to be read as another
    return f"/{names.path_part(bucket_id)}/{quote(name, safe='').replace('.', '%2E')}"


def _listed(client: Client, path: str, params: Json) -> Iterator[Json]:
    """All of an account's containers or a container's objects, in the order of their names."""
    query: Json = {"format": "json", "limit": client.dialect.page} | params
    while True:
        answer = client.call(OBJECTS, "GET", path, params=query)
        page = answer.json() if answer.content else []
        yield from page
        if not page:
            return
        query["marker"] = page[-1]["name"]


def _bucket(client: Client, called: str) -> Bucket:
    headers = client.call(OBJECTS, "HEAD", f"/{names.path_part(called)}").headers
    kept = [headers[f"{NAME_HEADER}-{i}"] for i in range(64) if f"{NAME_HEADER}-{i}" in headers]
    return Bucket(
        id=called,
        name=unquote("".join(kept)) or called,
        key=headers.get(KEY_HEADER, ""),
        status=Status.ACTIVE,
        objects=int(headers["x-container-object-count"]),
        bytes=int(headers["x-container-bytes-used"]),
    )


async def _of_size(content: Content, size: int) -> AsyncIterator[bytes]:
    """The content, which must have that size: found out before its last bytes are sent, so that nothing is stored."""
    sent, held = 0, b""
    async for chunk in content():
        if held:
            yield held
        held, sent = chunk, sent + len(chunk)
        if sent > size:
            break
    if sent != size:
        raise InvalidRequest(f"the content has not the {size} bytes that were declared")
    if held:
        yield held
