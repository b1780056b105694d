"""Images: glance."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Iterator
from weakref import WeakValueDictionary

from vendor_modules import capabilities, labels
from vendor_modules.capabilities import ImageDownload, ImageUpload
from vendor_modules.errors import InvalidRequest, ProtocolError, Unavailable, Unsupported
from vendor_modules.module import Content, ModuleSettings
from vendor_modules.openstack import names
from vendor_modules.openstack.client import IMAGE, Client, Json
from vendor_modules.openstack.cloud import Cloud
from vendor_modules.openstack.once import once
from vendor_modules.resources import DiskFormat, Image, ImageSpec, Key, Status
from vendor_modules.services import Services
from vendor_modules.transfers import verified

CONTENT = "cloud-agency-content"
"""The property that keeps an image's BLAKE3 digest, and the cloud's own digest of the same content: images that a cloud
makes of machines inherit the properties of the image that these were made from, though their content is another."""
MACHINE = "cloud-agency-machine"
"""The property that keeps the machine that an image was made of: an image that somebody else makes of a machine
inherits the key of the image that this was made from, and must not be taken for it."""
FORMATS = (DiskFormat.RAW, DiskFormat.QCOW2)
_KNOWN = (None, *(str(kind) for kind in FORMATS))
"""Glance's words for the formats that we know; an image that is still being made may have none yet."""
_STATUS = {"active": Status.ACTIVE, "deactivated": Status.STOPPED, "killed": Status.ERROR}
"""Glance's states; all others are on the way to one of these."""
_GONE = ("deleted", "pending_delete")


class ImageList(Cloud, capabilities.Images):
    """An image service that neither takes in nor gives out content."""

    async def _describe_image(self, image_id: str) -> Image:
        path = f"/images/{names.path_part(image_id)}"
        return await self._run(lambda client: image_of(client.get(IMAGE, path), client.project))

    async def _list_images(self) -> list[Image]:
        def found(client: Client) -> list[Image]:
            images = client.all(IMAGE, "/images", "images")
            return [image_of(image, client.project) for image in images if _speaks_of(image)]

        return await self._run(found)

    async def _destroy_image(self, image_id: str) -> None:
        await self._run(lambda client: client.call(IMAGE, "DELETE", f"/images/{names.path_part(image_id)}"))


class Images(ImageList, ImageUpload, ImageDownload):
    """The image service."""

    def __init__(self, vendor: str, settings: ModuleSettings, services: Services) -> None:
        """See :class:`~vendor_modules.module.VendorModule`."""
        super().__init__(vendor, settings, services)
        self._uploads: WeakValueDictionary[Key, asyncio.Lock] = WeakValueDictionary()

    # --- upload ---

    async def _upload_image(self, spec: ImageSpec, content: Content, key: Key) -> Image:
        if spec.format not in FORMATS:
            raise Unsupported(f"machines cannot start from an image of the format {spec.format}")
        async with self._uploads.setdefault(key, asyncio.Lock()):
            return await self._uploaded(spec, content, key)

    async def _uploaded(self, spec: ImageSpec, content: Content, key: Key) -> Image:
        image = await self._run(lambda client: _queued(client, spec, key))
        if image["status"] == "queued":
            path = f"/images/{image['id']}"
            try:
                sent = await self._send(verified(content, spec), lambda client, chunks: _put(client, path, chunks))
            except InvalidRequest:
                await self._destroy_image(image["id"])  # this content will never be what was declared
                raise
            image = await self._run(lambda client: _sealed(client, path, spec, sent))
        return await self._run(lambda client: image_of(image, client.project))

    # --- download ---

    async def _download_image(self, image_id: str, offset: int) -> AsyncIterator[bytes]:
        path = f"/images/{names.path_part(image_id)}"
        image = await self._run(lambda client: client.get(IMAGE, path))
        if offset >= (image["size"] or 0):
            return
        wanted = {"headers": {"range": f"bytes={offset}-"}} if offset else {}
        response = await self._run(lambda client: client.call(IMAGE, "GET", f"{path}/file", stream=True, **wanted))
        skipped = offset if response.status_code == 200 else 0  # some stores send all of it whatever is asked for
        digest = hashlib.new("sha512")
        left = image["size"] - offset
        async for chunk in self._received(response, skipped):
            left -= len(chunk)
            digest.update(chunk)
            yield chunk
        whole = offset == 0 and image.get("os_hash_algo") == "sha512"
        if left or (whole and digest.hexdigest() != image["os_hash_value"]):
            raise Unavailable(f"what came is not the image: {-left} bytes more than it has, or others")


def _key_of(found: Json) -> str:
    if found.get("image_type") == "snapshot" and found.get(MACHINE) != found.get("instance_uuid"):
        return ""
    return str(found.get(labels.KEY, ""))


def image_once(client: Client, key: Key, make: Callable[[], Json]) -> Json:
    """The image with that key, made if there is none."""

    def find() -> list[Json]:
        found = client.all(IMAGE, "/images", "images", {"owner": client.project, labels.KEY: key})
        return [image for image in found if _key_of(image) == key]

    return once(find, make, lambda image: client.call(IMAGE, "DELETE", f"/images/{image['id']}"))


def _queued(client: Client, spec: ImageSpec, key: Key) -> Json:
    """The image that the content goes into, or has gone into."""

    def make() -> Json:
        order = {"name": names.shown(spec.name), "disk_format": str(spec.format), "container_format": "bare"}
        return client.ask(IMAGE, "POST", "/images", order | names.labels(key, spec.name))

    there = image_once(client, key, make)
    if there["status"] == "saving":
        raise Unavailable("another transfer of this image is under way")
    if there["status"] == "killed":
        client.call(IMAGE, "DELETE", f"/images/{there['id']}")
        return image_once(client, key, make)
    return there


def _put(client: Client, path: str, chunks: Iterator[bytes]) -> str:
    """Send the content; its SHA-512."""
    digest = hashlib.sha512()

    def counted() -> Iterator[bytes]:
        for chunk in chunks:
            digest.update(chunk)
            yield chunk

    kind = {"content-type": "application/octet-stream"}
    client.call(IMAGE, "PUT", f"{path}/file", data=counted(), headers=kind)
    return digest.hexdigest()


def _sealed(client: Client, path: str, spec: ImageSpec, sent: str) -> Json:
    """The image, once the cloud has told that it holds what was sent; it then keeps our digest, too."""
    image = client.get(IMAGE, path)
    told: str = image["os_hash_value"] if image.get("os_hash_algo") == "sha512" else sent
    if (image["size"], told) != (spec.size, sent):
        raise ProtocolError(f"image {image['id']} is not the one that was sent: {image['size']} bytes")
    value = f"{spec.digest} {told[:64]}"
    change = [{"op": "add", "path": f"/{CONTENT}", "value": value}]
    kind = {"content-type": "application/openstack-images-v2.1-json-patch"}
    return client.ask(IMAGE, "PATCH", path, change, headers=kind)


def _speaks_of(image: Json) -> bool:
    return image["status"] not in _GONE and image.get("disk_format") in _KNOWN


def image_of(found: Json, project: str) -> Image:
    """The image in the words all modules share; :class:`~vendor_modules.errors.Unsupported` for a format that these do
    not know."""
    if found.get("disk_format") not in _KNOWN:
        raise Unsupported(f"the image has the format {found['disk_format']}")
    digest, _, told = found.get(CONTENT, "").partition(" ")
    same = told and (found.get("os_hash_value") or "").startswith(told)
    return Image(
        id=found["id"],
        name=names.name_in(found, found["name"] or ""),
        key=_key_of(found),
        status=_STATUS.get(found["status"], Status.PENDING),
        format=DiskFormat(found.get("disk_format") or DiskFormat.QCOW2),
        size=found.get("size") or 0,
        digest=digest if same else None,
        public=found.get("owner") != project,
    )
