"""LXD's own images: what containers are made of. Every function here blocks.

LXD knows an image by its content, and has one of each content. Ours are entries in its properties, one for each key:
so there may be several of the same content, and LXD's goes with the last of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

from pydantic import BaseModel, ConfigDict, ValidationError

from vendor_modules.errors import NotFound, ProtocolError
from vendor_modules.lxd.connection import Server
from vendor_modules.lxd.volumes import digest_of
from vendor_modules.resources import DiskFormat, Image, Status

ENTRY = "cloud-agency."
"""The beginning of the properties that are entries; an id comes after it."""


class Entry(BaseModel):
    """What is known of one image of ours."""

    model_config = ConfigDict(frozen=True)

    key: str
    name: str
    digest: str | None = None


def id_for(key: str) -> str:
    """The id of the image that is made with the key."""
    return f"lxd-{digest_of(key)}"


def all_of(server: Server) -> list[Image]:
    """All images for containers; those that others brought are known by their aliases, if they have one."""
    return [image for told in _told(server) for image in _read(told)]


def look(server: Server, image_id: str) -> tuple[str, Image]:
    """The fingerprint of an image, and the image; :class:`~vendor_modules.errors.NotFound` if there is none."""
    for told in _told(server):
        for image in _read(told):
            if image.id == image_id:
                return told["fingerprint"], image
    raise NotFound(f"there is no image {image_id}")


def made_with(server: Server, key: str) -> Image | None:
    """The image that was made with that key."""
    return next((image for image in all_of(server) if image.key == key), None)


def _told(server: Server) -> list[dict[str, Any]]:
    found = server.get(server.api.images, params={"recursion": 1})
    return [told for told in found if told["type"] == "container"]


def _entries(told: dict[str, Any]) -> dict[str, Entry]:
    entries = {}
    for name, text in told["properties"].items():
        if name.startswith(ENTRY):
            try:
                entries[name.removeprefix(ENTRY)] = Entry.model_validate_json(text)
            except ValidationError:
                continue
    return entries


def _read(told: dict[str, Any]) -> list[Image]:
    """Our images of this content, and the one that others brought: it has an alias, or no entry of ours."""
    shared = {"status": Status.ACTIVE, "format": DiskFormat.LXD, "size": told["size"]}
    images = [Image(id=image_id, **entry.model_dump(), **shared) for image_id, entry in _entries(told).items()]
    if images and not told["aliases"]:
        return images
    known_as = min((alias["name"] for alias in told["aliases"]), default=told["fingerprint"])
    name = told["properties"].get("description") or known_as
    return [*images, Image(id=known_as, name=name, public=True, **shared)]


def _property(entry: Entry) -> dict[str, str]:
    return {ENTRY + id_for(entry.key): entry.model_dump_json()}


def publish(server: Server, machine_id: str, entry: Entry) -> None:
    """Make an image of a stopped container."""
    order = {
        "source": {"type": "instance", "name": machine_id},
        "properties": _property(entry),
        "compression_algorithm": "none",
    }
    server.done(server.api.images.post(json=order))


def bring(server: Server, entry: Entry, content: Iterator[bytes]) -> str:
    """Send an image; returns its fingerprint, which is the SHA-256 of what LXD received.
    :class:`~vendor_modules.errors.Conflict` if LXD has one of the same content: see :func:`enter`."""
    headers = {
        "Content-Type": "application/octet-stream",
        "X-LXD-properties": urlencode(_property(entry), quote_via=quote),
    }
    return str(server.done(server.api.images.post(data=content, headers=headers))["fingerprint"])


def enter(server: Server, entry: Entry, fingerprint: str) -> None:
    """Make an image of ours of one that LXD has."""
    server.api.images[fingerprint].patch(json={"properties": _property(entry)})


def export(server: Server, fingerprint: str, offset: int) -> Any:
    """A response that streams the image from the offset on."""
    headers = {"Range": f"bytes={offset}-"} if offset else {}
    response = server.api.images[fingerprint].export
    answer = response.session.get(
        response._api_endpoint, params={"project": server.project}, headers=headers, stream=True, timeout=60
    )
    if answer.status_code != (206 if offset else 200) or answer.headers["Content-Type"].startswith("multipart"):
        answer.close()
        raise ProtocolError(f"LXD gives the image out as {answer.status_code} {answer.headers['Content-Type']}")
    return answer


def destroy(server: Server, image_id: str) -> None:
    """Remove an image, and LXD's when nobody else has one of the same content."""
    fingerprint, _ = look(server, image_id)
    place = server.api.images[fingerprint]
    answer = place.get()
    told = answer.json()["metadata"]
    if _entries(told).keys() - {image_id} or (told["aliases"] and image_id in _entries(told)):
        fields = ("auto_update", "public", "expires_at", "profiles")
        order = {name: told[name] for name in fields if name in told}
        order["properties"] = {name: value for name, value in told["properties"].items() if name != ENTRY + image_id}
        place.put(json=order, headers={"If-Match": answer.headers["ETag"]})
    else:
        server.done(place.delete())
