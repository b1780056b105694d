"""Volumes and their snapshots: cinder."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial

from vendor_modules import labels
from vendor_modules.capabilities import Attachments, Snapshots, VolumeBundle
from vendor_modules.errors import Conflict, TimedOut
from vendor_modules.openstack import names
from vendor_modules.openstack.client import COMPUTE, IMAGE, STORAGE, Client, Json
from vendor_modules.openstack.cloud import Cloud
from vendor_modules.openstack.errors import Refused
from vendor_modules.openstack.images import image_of, image_once
from vendor_modules.openstack.once import once
from vendor_modules.resources import Image, Key, Snapshot, Status, Volume, VolumeSpec

DEVICE = "cloud-agency-device"
"""The metadata that keep a volume's device."""
POLL = 0.5
"""Seconds between two looks at whether a volume is detached, or made."""
MAKING_POLLS = 100
"""How often it is looked at before it is deleted all the same: a little less than a call may take."""
_MAKING = ("creating", "downloading")
GIB = 1024
"""MiB of a GiB, the unit that volumes are made in."""


class Storage(Cloud, Attachments, Snapshots, VolumeBundle):
    """Block storage."""

    async def _create_volume(self, spec: VolumeSpec, key: Key) -> Volume:
        def create(client: Client) -> Volume:
            def make() -> Json:
                order: Json = {
                    "name": names.shown(spec.name),
                    "size": -(-spec.size_mib // GIB),
                    "metadata": names.labels(key, spec.name),
                }
                order |= {"imageRef": spec.image} if spec.image else {}
                order |= {"snapshot_id": spec.snapshot} if spec.snapshot else {}
                order |= {"availability_zone": zone} if (zone := self.cloud.availability_zone) else {}
                return dict(client.ask(STORAGE, "POST", "/volumes", {"volume": order})["volume"])

            return _volume(_once(client, "volumes", key, make))

        return await self._run(create, key=f"volume {key}")

    async def _describe_volume(self, volume_id: str) -> Volume:
        return await self._run(lambda client: _volume(_volume_of(client, volume_id)))

    async def _list_volumes(self) -> list[Volume]:
        return await self._run(lambda client: [_volume(v) for v in client.all(STORAGE, "/volumes/detail", "volumes")])

    async def _destroy_volume(self, volume_id: str) -> None:
        def destroy(client: Client) -> None:
            volume = _volume(_volume_of(client, volume_id))
            if volume.machine:
                raise Conflict(f"the volume is attached to {volume.machine}")
            _delete(client, "volumes", volume.id)

        await self._run(destroy)

    # --- where they are attached ---

    async def _attach_volume(self, volume_id: str, machine_id: str, device: str) -> None:
        def attach(client: Client) -> None:
            volume = _volume_of(client, volume_id)
            held = [attachment["server_id"] for attachment in volume["attachments"]]
            if held and held != [machine_id]:
                raise Conflict(f"the volume is attached to {held[0]}")
            if held and volume["metadata"].get(DEVICE) != device:
                raise Conflict(f"the volume is attached as {volume['metadata'].get(DEVICE)}")
            if held or volume["status"] in ("attaching", "reserved"):
                return
            path = f"/servers/{names.path_part(machine_id)}/os-volume_attachments"
            client.get(COMPUTE, path)  # is there such a machine?
            metadata = {"metadata": {DEVICE: device}}
            client.ask(STORAGE, "POST", f"/volumes/{volume['id']}/metadata", metadata)
            client.ask(COMPUTE, "POST", path, {"volumeAttachment": {"volumeId": volume_id}})

        await self._run(attach, key=f"attach {volume_id}")

    async def _detach_volume(self, volume_id: str) -> None:
        def detach(client: Client) -> list[str]:
            volume = _volume_of(client, volume_id)
            machines = [attachment["server_id"] for attachment in volume["attachments"]]
            if volume["status"] != "detaching":
                for machine in machines:
                    client.call(COMPUTE, "DELETE", _attachment(machine, volume_id))
            return machines

        for machine in await self._run(detach, key=f"attach {volume_id}"):
            await self._let_go(machine, volume_id)

    async def _let_go(self, machine_id: str, volume_id: str) -> None:
        """Wait until nova, too, says that the volume is detached: cinder says so a little earlier."""
        for _ in range(int(self.call_timeout / POLL)):
            if not await self._run(partial(_is_attached, machine_id=machine_id, volume_id=volume_id)):
                return
            await asyncio.sleep(POLL)
        raise TimedOut(f"the volume is still attached to {machine_id}")

    # --- snapshots ---

    async def _create_snapshot(self, volume_id: str, name: str, key: Key) -> Snapshot:
        def create(client: Client) -> Snapshot:
            def make() -> Json:
                volume = _volume_of(client, volume_id)
                order = {"volume_id": volume["id"], "name": names.shown(name), "metadata": names.labels(key, name)}
                # attached volumes can be snapshot, too: it is then as after a power cut
                made = client.ask(STORAGE, "POST", "/snapshots", {"snapshot": order | {"force": True}})
                return dict(made["snapshot"])

            return _snapshot(_once(client, "snapshots", key, make))

        return await self._run(create, key=f"snapshot {key}")

    async def _describe_snapshot(self, snapshot_id: str) -> Snapshot:
        path = f"/snapshots/{names.path_part(snapshot_id)}"
        return await self._run(lambda client: _snapshot(client.get(STORAGE, path)["snapshot"]))

    async def _list_snapshots(self) -> list[Snapshot]:
        return await self._run(
            lambda client: [_snapshot(s) for s in client.all(STORAGE, "/snapshots/detail", "snapshots")]
        )

    async def _destroy_snapshot(self, snapshot_id: str) -> None:
        await self._run(lambda client: _delete(client, "snapshots", snapshot_id))

    # --- images ---

    async def _bundle_volume(self, volume_id: str, name: str, key: Key) -> Image:
        def bundle(client: Client) -> Image:
            return image_of(image_once(client, key, lambda: make(client)), client.project)

        def make(client: Client) -> Json:
            path = f"/volumes/{names.path_part(volume_id)}/action"
            # cinder gives an image the properties that its volume has for that, and no others
            kept = names.labels(key, name, inherits=True)
            client.ask(STORAGE, "POST", path, {"os-set_image_metadata": {"metadata": kept}})
            order = {"image_name": names.shown(name), "disk_format": "raw", "container_format": "bare", "force": True}
            made = client.ask(STORAGE, "POST", path, {"os-volume_upload_image": order})["os-volume_upload_image"]
            return client.get(IMAGE, f"/images/{made['image_id']}")

        return await self._run(bundle, key=f"image {key}")


def _once(client: Client, word: str, key: Key, make: Callable[[], Json]) -> Json:
    def find() -> list[Json]:
        found = client.all(STORAGE, f"/{word}/detail", word)
        return [item for item in found if item["metadata"].get(labels.KEY) == key]

    return once(find, make, lambda item: _delete(client, word, item["id"]))


def _delete(client: Client, word: str, identifier: str) -> None:
    """Delete a volume or snapshot; one that is still being made only when it is, for cinder refuses it before."""
    path = f"/{word}/{names.path_part(identifier)}"
    for _ in range(MAKING_POLLS):
        if client.get(STORAGE, path)[word[:-1]]["status"] not in _MAKING:
            break
        time.sleep(POLL)  # in a thread of the pool
    try:
        client.call(STORAGE, "DELETE", path)
    except Refused:
        if client.get(STORAGE, path)[word[:-1]]["status"] != "deleting":  # by an equal request, a moment ago
            raise


def _volume_of(client: Client, volume_id: str) -> Json:
    volume: Json = client.get(STORAGE, f"/volumes/{names.path_part(volume_id)}")["volume"]
    return volume


def _attachment(machine_id: str, volume_id: str) -> str:
    return f"/servers/{machine_id}/os-volume_attachments/{names.path_part(volume_id)}"


def _is_attached(client: Client, machine_id: str, volume_id: str) -> bool:
    try:
        client.get(COMPUTE, _attachment(machine_id, volume_id))
    except Refused as refused:
        if refused.status != 404:
            raise
        return False
    return True


def _status(word: str) -> Status:
    """Cinder's states; all but these are on the way to one of them."""
    if word.startswith("error"):
        return Status.ERROR
    return {"available": Status.ACTIVE, "in-use": Status.ATTACHED}.get(word, Status.PENDING)


def _volume(found: Json) -> Volume:
    attachments = found.get("attachments") or ()
    machine = attachments[0]["server_id"] if attachments else None
    device = (found["metadata"].get(DEVICE) or attachments[0].get("device")) if attachments else None
    return Volume(
        id=found["id"],
        name=names.name_in(found["metadata"], found["name"] or ""),
        key=found["metadata"].get(labels.KEY, ""),
        status=_status(found["status"]),
        size_mib=found["size"] * GIB,
        machine=machine,
        device=device,
    )


def _snapshot(found: Json) -> Snapshot:
    return Snapshot(
        id=found["id"],
        name=names.name_in(found["metadata"], found["name"] or ""),
        key=found["metadata"].get(labels.KEY, ""),
        status=_status(found["status"]),
        volume=found["volume_id"],
        size_mib=found["size"] * GIB,
    )
