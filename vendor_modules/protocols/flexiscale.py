"""Flexiscale, by the published user API of the platform it runs on (Flexiant Cloud Orchestrator 5): JSON over HTTP.

Its words: a *product offer* is what is sold, a size of servers or of disks; a *job* is what every change begins; a
*resource key* is a tag. A server's first disk is the one that its image is on, and no volume of ours.
"""

from __future__ import annotations

import asyncio
import re
from base64 import b64decode, b64encode
from collections.abc import Mapping
from decimal import Decimal
from hashlib import sha256
from math import ceil
from typing import Any, ClassVar

import httpx
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from pydantic import Field

from descriptors.application import Label
from descriptors.base import Currency, Identifier, Money
from vendor_modules.abilities import Ability, Requirement, Support
from vendor_modules.capabilities import Attachments, KeyPairs, MachineBundle, Power, Snapshots, VolumeBundle
from vendor_modules.errors import Conflict, InvalidRequest, NotFound, ResourceFailed
from vendor_modules.http import EndpointSettings, HttpModule, json_of, segment, understood
from vendor_modules.labels import KEY, NAME
from vendor_modules.module import ModuleSettings, PriceSource, Proof
from vendor_modules.resources import (
    Catalogue,
    DiskFormat,
    Image,
    Key,
    KeyPair,
    Machine,
    MachineSpec,
    Size,
    Snapshot,
    Status,
    Volume,
    VolumeSpec,
)
from vendor_modules.services import Services

PAGE = 200
"""Resources on a page of a list."""
GIB = 1024
_STATES = {"RUNNING": Status.ACTIVE, "STOPPED": Status.STOPPED, "ERROR": Status.ERROR}
_DISK_STATES = {"NOT_ATTACHED_TO_SERVER": Status.ACTIVE, "ATTACHED_TO_SERVER": Status.ATTACHED}
_READY = {"ACTIVE": Status.ACTIVE, "CREATING": Status.PENDING}
_GONE = ("DELETED", "TO_BE_DELETED")
_FAILED = ("FAILED", "CANCELLED")


class FlexiscaleSettings(EndpointSettings):
    """Where things are made, and what is to be known of the cloud. Ids are resource UUIDs."""

    vdc: Identifier
    """The virtual data centre that everything is made in."""
    network: Identifier
    """The network that servers are attached to."""
    disk_offer: Identifier
    """The product offer of disks, those of servers and volumes alike."""
    region: Label = "uk"
    """The name of the place where the cloud is."""
    jurisdiction: Label = "UK"
    """Whose law applies there."""
    currency: Currency = "GBP"
    """The currency of the prices."""
    prices: dict[Identifier, Money] = Field(default_factory=dict)
    """Prices of product offers of servers by their UUIDs, an hour: the API tells them in units. One that is not here is
    unknown."""
    block_gib_month: Money | None = None
    """The price of a GiB of volumes for a month; None: volumes are not offered."""
    egress_per_gib: Money = Decimal(0)
    """The price of a GiB that leaves the cloud."""


class FlexiscaleModule(Power, Attachments, Snapshots, MachineBundle, VolumeBundle, KeyPairs, HttpModule):
    """Flexiscale, and other clouds of Flexiant Cloud Orchestrator."""

    title = "Flexiscale"
    proof = Proof.PROTOCOL_ONLY
    proven_by = "A stub server of the published user API 5.0; unproven against a live service."
    known_limits = (
        "Machines take no user data: how images read the platform's metadata is their makers' choice.",
        "Security groups are not offered: the API's firewalls belong to single addresses of servers.",
        "Where a disk is found in its server is told by its position, and not chosen.",
        "Sizes of disks are whole GiB, and those that the product offer allows.",
    )
    abilities: ClassVar[Mapping[str, Ability]] = {
        "create_machine": Ability(Support.EMULATED, note="Servers are made stopped, given their volumes, and started."),
        "attach_volume": Ability(requires=(Requirement.STOPPED,)),
        "detach_volume": Ability(requires=(Requirement.STOPPED,)),
        "bundle_machine": Ability(requires=(Requirement.STOPPED,)),
        "destroy_machine": Ability(Support.EMULATED, note="Volumes are detached first: they would go with the server."),
    }
    prices = PriceSource.SETTINGS
    Settings = FlexiscaleSettings
    credential_kinds = ("password", "external")
    """The user name is ``USER/CUSTOMER``: the user's name or UUID, and the customer's UUID."""
    call_timeout: ClassVar[float] = 300.0
    """Seconds that a job may take."""

    def __init__(self, vendor: str, settings: ModuleSettings, services: Services) -> None:
        """See :class:`~vendor_modules.module.VendorModule`."""
        super().__init__(vendor, settings, services)
        assert isinstance(settings, FlexiscaleSettings)  # noqa: S101 - the registry makes them from Settings
        self._about = settings
        self._base += "/rest/user/5.0/resources"

    # --- what it sells ---

    async def _catalogue(self) -> Catalogue:
        about = self._about
        offers = await self._list("productoffer")
        return Catalogue(
            region=about.region,
            jurisdiction=about.jurisdiction,
            currency=about.currency,
            sizes=tuple(size for offer in offers if (size := _size(offer, about.prices))),
            block_gib_month=about.block_gib_month,
            egress_per_gib=about.egress_per_gib,
        )

    # --- servers ---

    async def _create_machine(self, spec: MachineSpec, key: Key) -> Machine:
        return await self._once(f"machine/{key}", lambda: self._made_machine(spec, key))

    async def _made_machine(self, spec: MachineSpec, key: Key) -> Machine:
        machine = await self._sole("machine", await self._list_machines(), key)
        if machine is None:
            order = await self._order_of(spec, key)
            machine = await self._describe_machine(await self._job("POST", "/server", order))
        if machine.status is Status.STOPPED:
            for attachment in spec.volumes:
                await self._attach_volume(attachment.volume, machine.id, attachment.device)
            await self._start_machine(machine.id)
        return await self._describe_machine(machine.id)

    async def _order_of(self, spec: MachineSpec, key: Key) -> dict[str, Any]:
        if spec.size not in {size.name for size in (await self._catalogue()).sizes}:
            raise InvalidRequest(f"there is no product offer {spec.size!r} of servers")
        image = await self._get("image", spec.image)
        for attachment in spec.volumes:
            if (await self._describe_volume(attachment.volume)).machine is not None:
                raise Conflict(f"volume {attachment.volume} is attached already")
        about = self._about
        disk = {"resourceType": "DISK", "vdcUUID": about.vdc, "productOfferUUID": about.disk_offer, "index": 0}
        nic = {"resourceType": "NIC", "vdcUUID": about.vdc, "networkUUID": about.network}
        skeleton = self._skeleton("SERVER", spec.name, key) | {
            "productOfferUUID": spec.size,
            "imageUUID": spec.image,
            "disks": [disk | {"size": image.get("size"), "resourceName": f"{spec.name} system"[:255]}],
            "nics": [nic | {"resourceName": f"{spec.name} network"[:255]}],
        }
        keys = [(await self._describe_key_pair(spec.key_pair)).id] if spec.key_pair else []
        return {"skeletonServer": skeleton, "sshKeyUUIDList": keys}

    async def _describe_machine(self, machine_id: str) -> Machine:
        return _machine(await self._get("server", machine_id))

    async def _list_machines(self) -> list[Machine]:
        return [_machine(item) for item in await self._list("server")]

    async def _destroy_machine(self, machine_id: str) -> None:
        machine = await self._describe_machine(machine_id)
        if machine.status is not Status.STOPPED:
            await self._stop_machine(machine_id)
        for volume in machine.volumes:
            await self._detach_volume(volume)
        await self._delete("server", machine_id, cascade=True)

    async def _start_machine(self, machine_id: str) -> None:
        await self._change(machine_id, "RUNNING", Status.ACTIVE)

    async def _stop_machine(self, machine_id: str) -> None:
        await self._change(machine_id, "STOPPED", Status.STOPPED)

    async def _change(self, machine_id: str, status: str, wanted: Status) -> None:
        if (await self._describe_machine(machine_id)).status is not wanted:
            order = {"newStatus": status, "safe": True}
            await self._job("PUT", f"/server/{segment(machine_id)}/change_status", order)

    # --- disks ---

    async def _create_volume(self, spec: VolumeSpec, key: Key) -> Volume:
        return await self._once(f"volume/{key}", lambda: self._made_volume(spec, key))

    async def _made_volume(self, spec: VolumeSpec, key: Key) -> Volume:
        if made := await self._sole("volume", await self._list_volumes(), key):
            return made
        skeleton = self._skeleton("DISK", spec.name, key) | {
            "productOfferUUID": self._about.disk_offer,
            "size": ceil(spec.size_mib / GIB),
            "iso": False,
        }
        if spec.image:
            if int((await self._get("image", spec.image)).get("size") or 0) * GIB > spec.size_mib:
                raise InvalidRequest(f"image {spec.image} does not fit into {spec.size_mib} MiB")
            skeleton["imageUUID"] = spec.image
        if spec.snapshot:
            skeleton["snapshotUUID"] = (await self._describe_snapshot(spec.snapshot)).id
        return await self._describe_volume(await self._job("POST", "/disk", {"skeletonDisk": skeleton}))

    async def _describe_volume(self, volume_id: str) -> Volume:
        item = await self._get("disk", volume_id)
        if _is_system(item):
            raise NotFound(f"disk {volume_id} is a server's own")
        return _volume(item)

    async def _list_volumes(self) -> list[Volume]:
        return [_volume(item) for item in await self._list("disk") if not _is_system(item)]

    async def _destroy_volume(self, volume_id: str) -> None:
        if (volume := await self._describe_volume(volume_id)).machine is not None:
            raise Conflict(f"volume {volume_id} is attached to machine {volume.machine}")
        await self._delete("disk", volume_id)

    async def _attach_volume(self, volume_id: str, machine_id: str, device: str) -> None:
        volume, index = await self._describe_volume(volume_id), _index(device)
        if volume.machine == machine_id:
            return
        if volume.machine is not None:
            raise Conflict(f"volume {volume_id} is attached to machine {volume.machine}")
        if (machine := await self._describe_machine(machine_id)).status is not Status.STOPPED:
            raise Conflict(f"machine {machine_id} is {machine.status}: disks are attached to stopped servers")
        path = f"/server/{segment(machine_id)}/disk/{segment(volume_id)}/attach"
        await self._job("PUT", path, {"index": index})

    async def _detach_volume(self, volume_id: str) -> None:
        if (machine_id := (await self._describe_volume(volume_id)).machine) is None:
            return
        if (machine := await self._describe_machine(machine_id)).status is not Status.STOPPED:
            raise Conflict(f"machine {machine_id} is {machine.status}: disks are detached from stopped servers")
        await self._job("PUT", f"/server/{segment(machine_id)}/disk/{segment(volume_id)}/detach", {})

    # --- snapshots and images ---

    async def _create_snapshot(self, volume_id: str, name: str, key: Key) -> Snapshot:
        return await self._once(f"snapshot/{key}", lambda: self._made_snapshot(volume_id, name, key))

    async def _made_snapshot(self, volume_id: str, name: str, key: Key) -> Snapshot:
        if made := await self._sole("snapshot", await self._list_snapshots(), key):
            return made
        await self._describe_volume(volume_id)
        skeleton = self._skeleton("SNAPSHOT", name, key) | {"parentUUID": volume_id, "type": "DISK"}
        return await self._describe_snapshot(await self._job("POST", "/snapshot", {"skeletonSnapshot": skeleton}))

    async def _describe_snapshot(self, snapshot_id: str) -> Snapshot:
        return _snapshot(await self._get("snapshot", snapshot_id))

    async def _list_snapshots(self) -> list[Snapshot]:
        return [_snapshot(item) for item in await self._list("snapshot") if item.get("type") == "DISK"]

    async def _destroy_snapshot(self, snapshot_id: str) -> None:
        await self._delete("snapshot", snapshot_id)

    async def _bundle_machine(self, machine_id: str, name: str, key: Key) -> Image:
        if (machine := await self._describe_machine(machine_id)).status is not Status.STOPPED:
            raise Conflict(f"machine {machine_id} is {machine.status}: images are made of stopped servers")
        return await self._once(f"image/{key}", lambda: self._made_image(machine_id, "SERVER", name, key))

    async def _bundle_volume(self, volume_id: str, name: str, key: Key) -> Image:
        volume = await self._describe_volume(volume_id)
        if volume.machine and (await self._describe_machine(volume.machine)).status is not Status.STOPPED:
            raise Conflict(f"volume {volume_id} is attached to machine {volume.machine}, which runs")
        return await self._once(f"image/{key}", lambda: self._made_image(volume_id, "DISK", name, key))

    async def _made_image(self, base: str, kind: str, name: str, key: Key) -> Image:
        if made := await self._sole("image", await self._list_images(), key):
            return made
        skeleton = self._skeleton("IMAGE", name, key) | {"baseUUID": base, "imageType": kind}
        return await self._describe_image(await self._job("POST", "/image", {"skeletonImage": skeleton}))

    async def _describe_image(self, image_id: str) -> Image:
        return _image(await self._get("image", image_id))

    async def _list_images(self) -> list[Image]:
        return [_image(item) for item in await self._list("image")]

    async def _destroy_image(self, image_id: str) -> None:
        await self._delete("image", image_id)

    # --- SSH keys ---

    async def _create_key_pair(self, name: str, public_key: str, key: Key) -> KeyPair:
        return await self._once(f"key-pair/{key}", lambda: self._made_key_pair(name, public_key, key))

    async def _made_key_pair(self, name: str, public_key: str, key: Key) -> KeyPair:
        if made := await self._sole("key-pair", await self._list_key_pairs(), key):
            return made
        try:
            fingerprint(public_key)
        except ValueError:
            raise InvalidRequest("it is no public key in OpenSSH's form") from None
        skeleton = self._skeleton("SSHKEY", name, key) | {"publicKey": public_key, "globalKey": False}
        return await self._describe_key_pair(await self._job("POST", "/sshkey", {"skeletonSSHKey": skeleton}))

    async def _describe_key_pair(self, key_pair_id: str) -> KeyPair:
        return _key_pair(await self._get("sshkey", key_pair_id))

    async def _list_key_pairs(self) -> list[KeyPair]:
        return [_key_pair(item) for item in await self._list("sshkey")]

    async def _destroy_key_pair(self, key_pair_id: str) -> None:
        await self._delete("sshkey", key_pair_id)

    # --- the platform's ways ---

    def _skeleton(self, kind: str, name: str, key: Key) -> dict[str, Any]:
        """What every resource to be made has: its key and its name are keys of the user's."""
        keys = [{"name": n, "value": v, "type": "USER_KEY", "weight": 0} for n, v in ((KEY, key), (NAME, name))]
        return {"resourceType": kind, "resourceName": name, "vdcUUID": self._about.vdc, "resourceKey": keys}

    async def _job(self, method: str, path: str, order: Mapping[str, Any] | None = None, **options: Any) -> str:
        """Begin a job and wait for its end, :attr:`call_timeout` at most; returns the UUID of what it was about."""
        job = json_of(await self._ask(method, path, json=order, **options))
        wait = 0.02
        while True:
            with understood("job"):
                job_id, status, item = str(job["resourceUUID"]), job["status"], job.get("itemUUID")
            if status == "SUCCESSFUL":
                return str(item)
            if status in _FAILED:
                raise ResourceFailed(f"the provider's job failed: {job.get('errorCode') or job.get('info') or status}")
            await asyncio.sleep(wait)
            wait = min(2 * wait, 5.0)
            job = json_of(await self._ask("GET", f"/job/{segment(job_id)}"))

    async def _get(self, kind: str, identifier: str) -> dict[str, Any]:
        item = json_of(await self._ask("GET", f"/{kind}/{segment(identifier)}"))
        with understood(kind):
            if item["resourceState"] in _GONE:
                raise NotFound(f"{kind} {identifier} is gone")
            return dict(item)

    async def _list(self, kind: str) -> list[dict[str, Any]]:
        """All pages of a list."""
        found: dict[str, dict[str, Any]] = {}
        start = 0
        while True:
            limit = {"from": start, "to": start + PAGE, "maxRecords": PAGE, "loadChildren": True}
            answer = json_of(await self._ask("POST", f"/{kind}/list", json={"queryLimit": limit}))
            with understood("list"):
                items = [dict(item) for item in answer["list"]]
                total = int(answer["totalCount"])
                found |= {item["resourceUUID"]: item for item in items if item["resourceState"] not in _GONE}
            start += len(items)
            if not items or start >= total:
                return list(found.values())

    async def _delete(self, kind: str, identifier: str, *, cascade: bool = False) -> None:
        await self._get(kind, identifier)  # one that is gone already has no job to wait for
        await self._job("DELETE", f"/{kind}/{segment(identifier)}", params={"cascade": str(cascade).lower()})

    async def _sign(self, request: httpx.Request) -> None:
        await self._basic(request)

    def _refusal(self, response: httpx.Response) -> tuple[str, str]:
        error = response.json()
        return str(error.get("errorCode", "")), str(error["message"])


def fingerprint(public_key: str) -> str:
    """The SHA-256 fingerprint of a public key in OpenSSH's form; ``ValueError`` if it is none."""
    try:
        load_ssh_public_key(public_key.encode())
    except UnsupportedAlgorithm as error:
        raise ValueError(str(error)) from None
    digest = sha256(b64decode(public_key.split()[1])).digest()
    return f"SHA256:{b64encode(digest).decode().rstrip('=')}"


def _index(device: str) -> int:
    """The position of a device among a server's disks: ``dev/vdb`` is 1; the first is the server's own."""
    found = re.fullmatch(r"dev/(?:vd|sd|xvd)([b-z])", device)
    if not found:
        raise InvalidRequest(f"{device!r} is not dev/vdb to dev/vdz: devices are known by their position")
    return ord(found[1]) - ord("a")


def _is_system(item: Mapping[str, Any]) -> bool:
    """Whether a disk is the one that a server starts from."""
    return bool(item.get("serverUUID")) and item.get("index") == 0


def _labels(item: Mapping[str, Any]) -> dict[str, str]:
    keys = {key["name"]: str(key["value"]) for key in item.get("resourceKey") or ()}
    return {"id": item["resourceUUID"], "key": keys.get(KEY, ""), "name": keys.get(NAME) or item["resourceName"]}


def _size(offer: Mapping[str, Any], prices: Mapping[str, Decimal]) -> Size | None:
    """A product offer of servers; None for an offer of something else."""
    with understood("product offer"):
        values = {
            value["key"]: value["value"]
            for component in offer.get("componentConfig") or ()
            for value in component.get("productConfiguredValues") or ()
        }
        if not values.get("cpu") or not values.get("ram"):
            return None
        name, cores, memory = offer["resourceUUID"], int(values["cpu"]), int(values["ram"])
        return Size(name=name, cores=cores, memory_mib=memory, price_per_hour=prices.get(name))


def _machine(item: Mapping[str, Any]) -> Machine:
    with understood("server"):
        disks = sorted(item.get("disks") or (), key=lambda disk: int(disk.get("index") or 0))
        addresses = [ip["ipAddress"] for nic in item.get("nics") or () for ip in nic.get("ipAddresses") or ()]
        status = _STATES.get(item["status"], Status.PENDING)
        return Machine(
            **_labels(item),
            status=status if item["resourceState"] == "ACTIVE" else Status.PENDING,
            size=item["productOfferUUID"],
            image=item.get("imageUUID"),
            host=addresses[0] if addresses else None,
            volumes=tuple(disk["resourceUUID"] for disk in disks if disk.get("index")),
            problem="the platform reports an internal error" if status is Status.ERROR else None,
        )


def _volume(item: Mapping[str, Any]) -> Volume:
    with understood("disk"):
        server = item.get("serverUUID") or None
        ready = item["resourceState"] == "ACTIVE"
        return Volume(
            **_labels(item),
            status=_DISK_STATES.get(item["status"], Status.PENDING) if ready else Status.PENDING,
            size_mib=int(item["size"]) * GIB,
            machine=server,
            device=f"dev/vd{chr(ord('a') + int(item['index']))}" if server else None,
        )


def _snapshot(item: Mapping[str, Any]) -> Snapshot:
    with understood("snapshot"):
        size = int(item["size"]) * GIB
        status = _READY.get(item["resourceState"], Status.ERROR)
        return Snapshot(**_labels(item), status=status, volume=item.get("parentUUID"), size_mib=size)


def _image(item: Mapping[str, Any]) -> Image:
    with understood("image"):
        labels = _labels(item)
        return Image(
            **labels,
            status=_READY.get(item["resourceState"], Status.ERROR),
            format=DiskFormat.RAW,
            size=int(item.get("size") or 0) * GIB * GIB * GIB,
            public=not labels["key"] and not item.get("customerUUID"),
        )


def _key_pair(item: Mapping[str, Any]) -> KeyPair:
    with understood("SSH key"):
        public_key = item["publicKey"]
        shown = fingerprint(public_key)
        return KeyPair(**_labels(item), status=Status.ACTIVE, public_key=public_key, fingerprint=shown)
