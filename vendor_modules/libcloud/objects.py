"""Buckets and objects of the providers that libcloud has a storage driver for: the mixin."""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from typing import Any, TypeVar

from libcloud.storage.types import ContainerDoesNotExistError, ObjectDoesNotExistError

from vendor_modules.capabilities import Objects
from vendor_modules.errors import InvalidRequest
from vendor_modules.labels import key_in, name_for
from vendor_modules.libcloud.core import Driver, LibcloudModule
from vendor_modules.module import Content
from vendor_modules.resources import Bucket, Key, Status, StoredObject
from vendor_modules.services.credentials import Credentials

T = TypeVar("T")
CHUNK = 1024 * 1024


class LibcloudObjects(LibcloudModule, Objects):
    """Objects by the base calls of a storage driver. A bucket has nothing but a name, which holds its key."""

    @abstractmethod
    def _connect_storage(self, credentials: Credentials) -> Driver:
        """The storage driver for the credentials; as with :meth:`_connect`, each thread has its own."""

    async def _on_storage(self, call: Callable[[Driver], T], *, key: str | None = None) -> T:
        return await self._run(call, key=key, connect=self._connect_storage)

    # --- buckets ---

    async def _create_bucket(self, name: str, key: Key) -> Bucket:
        def create(driver: Driver) -> Bucket:
            called = name_for(key, name)
            if all(container.name != called for container in driver.iterate_containers()):
                driver.create_container(called)
            return _bucket(driver, driver.get_container(called), key)

        return await self._on_storage(create, key=f"bucket {key}")

    async def _describe_bucket(self, bucket_id: str) -> Bucket:
        keys = await self._bucket_keys()

        def describe(driver: Driver) -> Bucket:
            return _bucket(driver, driver.get_container(bucket_id), key_in(bucket_id, keys))

        return await self._on_storage(describe)

    async def _list_buckets(self) -> list[Bucket]:
        keys = await self._bucket_keys()

        def buckets(driver: Driver) -> list[Bucket]:
            found = []
            for container in list(driver.iterate_containers()):
                with suppress(ContainerDoesNotExistError):  # destroyed since it was listed
                    found.append(_bucket(driver, container, key_in(container.name, keys)))
            return found

        return await self._on_storage(buckets)

    async def _destroy_bucket(self, bucket_id: str) -> None:
        def destroy(driver: Driver) -> None:
            container = driver.get_container(bucket_id)
            for item in driver.iterate_container_objects(container):
                with suppress(ObjectDoesNotExistError):
                    driver.delete_object(item)
            driver.delete_container(container)

        await self._on_storage(destroy)

    async def _bucket_keys(self) -> list[str]:
        records = await self.services.persistence.resources(self.vendor)
        return [record.key for record in records if record.kind == "bucket"]

    # --- objects ---

    async def _list_objects(self, bucket_id: str, prefix: str) -> list[StoredObject]:
        # libcloud signs Azure's requests wrongly when a value has spaces around it
        asked = prefix if prefix == prefix.strip() else ""

        def objects(driver: Driver) -> list[StoredObject]:
            found = driver.iterate_container_objects(driver.get_container(bucket_id), prefix=asked or None)
            stored = [StoredObject(name=item.name, size=int(item.size)) for item in found]
            return sorted((item for item in stored if item.name.startswith(prefix)), key=lambda item: item.name)

        return await self._on_storage(objects)

    async def _put_object(self, bucket_id: str, name: str, content: Content, size: int) -> None:
        loop, stream = asyncio.get_running_loop(), _of_size(content, size)

        def chunks() -> Iterator[bytes]:
            """What the event loop reads, for a thread."""
            while (chunk := asyncio.run_coroutine_threadsafe(anext(stream, None), loop).result()) is not None:
                yield chunk

        def put(driver: Driver) -> None:
            driver.upload_object_via_stream(chunks(), driver.get_container(bucket_id), name)

        await self._on_storage(put)

    async def _get_object(self, bucket_id: str, name: str, offset: int) -> AsyncIterator[bytes]:
        def opened(driver: Driver) -> tuple[Iterator[bytes], Callable[[], object]]:
            """The pieces, and what closes the response that they come from."""
            item = driver.get_object(bucket_id, name)
            if offset >= int(item.size):
                return iter(()), lambda: None
            pieces = iter(driver.download_object_range_as_stream(item, offset, chunk_size=CHUNK))
            return pieces, driver.connection.connection.getresponse().close

        pieces, close = await self._on_storage(opened)
        try:
            while (piece := await self._on_storage(lambda _: next(pieces, None))) is not None:
                yield piece
        finally:
            await asyncio.to_thread(close)  # it waits for a thread that still reads

    async def _delete_object(self, bucket_id: str, name: str) -> None:
        await self._on_storage(lambda driver: driver.delete_object(driver.get_object(bucket_id, name)))


async def _of_size(content: Content, size: int) -> AsyncIterator[bytes]:
    """The content; InvalidRequest before its end when it does not have that size: nothing is stored then."""
    sent = 0
    async for chunk in content():
        sent += len(chunk)
        if sent > size:
            break
        yield chunk
    if sent != size:
        raise InvalidRequest(f"the content has {'more than ' if sent > size else ''}{sent} bytes, not {size}")


def _bucket(driver: Driver, container: Any, key: str) -> Bucket:
    sizes = [int(item.size) for item in driver.iterate_container_objects(container)]
    return Bucket(
        id=container.name,
        name=container.name,
        key=key,
        status=Status.ACTIVE,
        objects=len(sizes),
        bytes=sum(sizes),
    )
