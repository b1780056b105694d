"""The Vendor Module ``lxd``: machines are system containers, volumes are files in custom storage volumes."""

from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import Annotated, Any, ClassVar, TypeVar
from weakref import WeakValueDictionary

from pydantic import Field

from descriptors.base import MIB, Port
from vendor_modules.abilities import Ability, Requirement, Support
from vendor_modules.blocking import Pool
from vendor_modules.capabilities import (
    Attachments,
    Consoles,
    Endpoints,
    ImageDownload,
    ImageUpload,
    MachineBundle,
    Networks,
    Power,
    Quotas,
    Snapshots,
    VolumeBundle,
)
from vendor_modules.errors import (
    Conflict,
    InvalidRequest,
    NotFound,
    ProtocolError,
    Unauthorized,
    Unsupported,
    VendorError,
)
from vendor_modules.lxd import instances, networks, pictures
from vendor_modules.lxd.connection import CALL_SECONDS, Server
from vendor_modules.lxd.errors import translate
from vendor_modules.lxd.instances import Instance
from vendor_modules.lxd.volumes import NOTES, Feed, Record, Volumes, id_for
from vendor_modules.module import Content, ModuleSettings, PriceSource, Proof
from vendor_modules.private import PrivateCloudSettings
from vendor_modules.resources import (
    Catalogue,
    DiskFormat,
    Image,
    ImageSpec,
    Key,
    Machine,
    MachineSpec,
    Network,
    Quota,
    Snapshot,
    Status,
    Volume,
    VolumeSpec,
)
from vendor_modules.services import Services
from vendor_modules.services.credentials import KeyPairCredentials
from vendor_modules.transfers import verified
from vendor_modules.userdata import script

T = TypeVar("T")

CONSOLE_KEPT = 64 * 1024
FORMATS = (DiskFormat.RAW, DiskFormat.LXD)
THROUGH_US = "a full copy; where the sizes differ, its content passes through the agency"
CHUNK = MIB


class LxdSettings(PrivateCloudSettings):
    """Where LXD is, and what it may use."""

    url: str = "/var/lib/lxd/unix.socket"
    """The path of its socket, or ``https://host:8443``, which takes a client certificate."""
    fingerprint: str | None = None
    """SHA-256 of the server's certificate, as ``lxc info`` tells it; None: an authority vouches for it."""
    project: str = "default"
    """LXD's project: what other projects hold is not seen."""
    pool: str = "default"
    """The storage pool for machines and volumes."""
    host: str = "127.0.0.1"
    """The server's address at which machines' services are reached."""
    first_port: Port = 30000
    """The first of the server's ports that lead to machines."""
    last_port: Port = 32767
    """The last of them."""
    stop_grace: Annotated[int, Field(ge=1, le=60)] = 20
    """Seconds that a machine may take to end when it is asked to."""


class LxdModule(
    Power,
    Endpoints,
    Consoles,
    Attachments,
    Snapshots,
    ImageUpload,
    ImageDownload,
    MachineBundle,
    VolumeBundle,
    Networks,
    Quotas,
):
    """Containers of an LXD server."""

    title = "LXD"
    proof = Proof.LIVE
    proven_by = "The conformance suite against LXD 5.0 with real containers, over HTTPS with a client certificate."
    known_limits = (
        "A volume is a file that stands for a block device: it is read and written as one, and not mounted.",
        "RAW images hold the content of volumes; machines are made of LXD's own images.",
        "First-boot instructions need an image with cloud-init.",
        "Virtual machines of LXD are not used.",
    )
    abilities: ClassVar = {
        "create_volume": Ability(Support.EMULATED, note="a file in a custom storage volume; " + THROUGH_US),
        "attach_volume": Ability(Support.EMULATED, note="the file is mounted, and linked to at the device"),
        "detach_volume": Ability(Support.EMULATED, note="see attach_volume"),
        "create_snapshot": Ability(Support.EMULATED, (Requirement.STOPPED,), note="a full copy"),
        "bundle_volume": Ability(
            Support.EMULATED, (Requirement.STOPPED,), (DiskFormat.RAW,), note="a full copy in another volume"
        ),
        "bundle_machine": Ability(requires=(Requirement.STOPPED,), formats=(DiskFormat.LXD,)),
        "upload_image": Ability(formats=FORMATS, note="RAW images are kept as storage volumes"),
        "download_image": Ability(formats=FORMATS, note="RAW images are read from a backup of their volume"),
    }
    prices = PriceSource.SETTINGS
    Settings = LxdSettings
    credential_kinds = ("key-pair",)
    call_timeout: ClassVar[float] = CALL_SECONDS - 10

    def __init__(self, vendor: str, settings: ModuleSettings, services: Services) -> None:
        """See :class:`~vendor_modules.module.VendorModule`."""
        super().__init__(vendor, settings, services)
        assert isinstance(settings, LxdSettings)  # noqa: S101 - the registry makes them from Settings
        self.settings: LxdSettings = settings
        self._pool = Pool(lambda: Server(settings.url, settings.fingerprint, settings.project), Server.close)
        self._account: KeyPairCredentials | None = None
        self._asked = False
        self._changing = threading.Lock()
        self._making: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def _close(self) -> None:
        await self._pool.close()

    async def _catalogue(self) -> Catalogue:
        return self.settings.catalogue()

    async def _quotas(self) -> list[Quota]:
        names = {"containers": "machines", "cpu": "cores", "memory": "memory-mib", "disk": "disk-mib"}

        def quotas(server: Server) -> list[Quota]:
            told = server.get(server.api.projects[self.settings.project].state)["resources"]
            return [_quota(names.get(name, name), one["Limit"], one["Usage"]) for name, one in told.items()]

        return await self._run(quotas)

    # --- machines ---

    async def _create_machine(self, spec: MachineSpec, key: Key) -> Machine:
        user_data = script(spec.user_data).decode() if spec.user_data else ""
        machine_id = instances.name_for(key)
        return await self._run(lambda s: self._made(s, machine_id, spec, key, user_data), key=f"machine {key}")

    def _made(self, server: Server, machine_id: str, spec: MachineSpec, key: Key, user_data: str) -> Machine:
        with suppress(NotFound), instances.translated():
            known = instances.look(server, machine_id)
            if known.notes and known.notes.made:
                return self._machine(known)
            instances.erase(server, machine_id)  # what an attempt that came to a sudden end has left
        with self._changing:  # two may not choose the same port, or the same volume
            order, notes = self._order(server, machine_id, spec, key, user_data)
            server.done(server.api.instances.post(json=order))
        try:
            for attachment in spec.volumes:
                instances.link(server, machine_id, attachment.volume, attachment.device)
            instances.power(server, machine_id, "start", timeout=60)
            done = notes.model_copy(update={"made": True})
            instances.change(server, machine_id, {NOTES: done.model_dump_json()}, {})
        except Exception:
            with suppress(Exception):  # what cannot be removed now is listed with its key
                instances.erase(server, machine_id)
            raise
        return self._machine(instances.look(server, machine_id))

    def _order(
        self, server: Server, machine_id: str, spec: MachineSpec, key: Key, user_data: str
    ) -> tuple[dict[str, Any], instances.Notes]:
        if (size := self.settings.size(spec.size)) is None:
            raise InvalidRequest(f"there is no machine size {spec.size!r}")
        if spec.image.startswith("image-"):
            raise InvalidRequest("RAW images hold the content of volumes; machines are made of LXD's own images")
        fingerprint, _ = pictures.look(server, spec.image)
        held = instances.all_of(server)
        chosen = self.settings
        port = instances.free_port(held, chosen.host, chosen.first_port, chosen.last_port)
        notes = instances.Notes(key=key, name=spec.name, size=spec.size, image=spec.image, port=port)
        config = {NOTES: notes.model_dump_json()}
        config |= {"limits.cpu": str(size.cores), "limits.memory": f"{size.memory_mib}MiB"}
        config |= {"user.user-data": user_data} if user_data else {}
        devices = {
            "root": {"type": "disk", "path": "/", "pool": chosen.pool},
            instances.SERVICE: instances.proxy(chosen.host, port),
        }
        for number, network in enumerate(spec.networks):
            networks.look(server, network)
            devices[f"eth{number}"] = {"type": "nic", "network": network, "name": f"eth{number}"}
        for attachment in spec.volumes:
            instances.target_of(attachment.device)
            self._must_be_free(server, held, attachment.volume)
            config[instances.DEVICE + attachment.volume] = attachment.device
            devices[attachment.volume] = instances.disk(chosen.pool, attachment.volume)
        source = {"type": "image", "fingerprint": fingerprint}
        return {"name": machine_id, "source": source, "config": config, "devices": devices}, notes

    def _must_be_free(self, server: Server, held: list[Instance], volume_id: str) -> None:
        self._volumes(server).record("volume", volume_id)
        for instance in held:
            if volume_id in instance.devices:
                raise Conflict(f"volume {volume_id} is attached to machine {instance.name}")

    def _machine(self, instance: Instance) -> Machine:
        notes, status = instance.notes, instances.STATUSES.get(instance.status, Status.PENDING)
        volumes = tuple(instance.volumes())
        frozen = "it is frozen: start it to go on" if instance.status == "Frozen" else None
        if notes is None:
            cores, memory = instance.config.get("limits.cpu", ""), instance.config.get("limits.memory", "no limit")
            size = f"{cores or 'all'}-cores-{memory}".replace(" ", "-")
            return Machine(
                id=instance.name, name=instance.name, status=status, size=size, volumes=volumes, problem=frozen
            )
        return Machine(
            id=instance.name,
            name=notes.name,
            key=notes.key,
            status=status if notes.made else Status.PENDING,
            size=notes.size,
            image=notes.image,
            host=self.settings.host,
            port=notes.port,
            volumes=volumes,
            problem="LXD says that it is in error" if status is Status.ERROR else frozen,
        )

    async def _describe_machine(self, machine_id: str) -> Machine:
        return await self._run(lambda server: self._machine(instances.look(server, machine_id)))

    async def _list_machines(self) -> list[Machine]:
        return await self._run(lambda server: [self._machine(instance) for instance in instances.all_of(server)])

    async def _destroy_machine(self, machine_id: str) -> None:
        await self._run(lambda server: instances.erase(server, machine_id), key=f"power {machine_id}")

    async def _start_machine(self, machine_id: str) -> None:
        def start(server: Server) -> None:
            status = instances.look(server, machine_id).status
            if status == "Frozen":
                instances.power(server, machine_id, "unfreeze")
            elif status != "Running":
                instances.power(server, machine_id, "start", timeout=60)

        await self._run(start, key=f"power {machine_id}")

    async def _stop_machine(self, machine_id: str) -> None:
        def stop(server: Server) -> None:
            status = instances.look(server, machine_id).status
            if status == "Stopped":
                return
            if status == "Frozen":
                instances.power(server, machine_id, "unfreeze")
            try:
                instances.power(server, machine_id, "stop", timeout=self.settings.stop_grace)
            except VendorError:
                if instances.look(server, machine_id).status != "Stopped":
                    instances.power(server, machine_id, "stop", timeout=30, force=True)

        await self._run(stop, key=f"power {machine_id}")

    async def _console(self, machine_id: str) -> str:
        return await self._run(lambda server: instances.console(server, machine_id, CONSOLE_KEPT))

    # --- volumes ---

    def _volumes(self, server: Server) -> Volumes:
        return Volumes(server, self.settings.pool)

    async def _create_volume(self, spec: VolumeSpec, key: Key) -> Volume:
        def make(server: Server) -> Volume:
            volumes, volume_id = self._volumes(server), id_for("volume", key)
            record = volumes.known("volume", volume_id)
            if record is None:
                record = Record(key=key, name=spec.name, size=spec.size_mib * MIB)
                _fill(volumes, spec, volume_id, record)
            return _volume(volume_id, record, instances.attached(server))

        return await self._run(make, key=f"volume {key}")

    async def _describe_volume(self, volume_id: str) -> Volume:
        def describe(server: Server) -> Volume:
            record = self._volumes(server).record("volume", volume_id)
            return _volume(volume_id, record, instances.attached(server))

        return await self._run(describe)

    async def _list_volumes(self) -> list[Volume]:
        def volumes(server: Server) -> list[Volume]:
            attached = instances.attached(server)
            return [_volume(*found, attached) for found in self._volumes(server).records("volume")]

        return await self._run(volumes)

    async def _destroy_volume(self, volume_id: str) -> None:
        def destroy(server: Server) -> None:
            self._volumes(server).record("volume", volume_id)
            with self._changing:
                self._must_be_free(server, instances.all_of(server), volume_id)
                self._volumes(server).destroy(volume_id)

        await self._run(destroy)

    async def _attach_volume(self, volume_id: str, machine_id: str, device: str) -> None:
        def attach(server: Server) -> None:
            instances.target_of(device)
            instance = instances.look(server, machine_id)
            if instance.volumes().get(volume_id) != device:
                with self._changing:
                    self._must_be_free(server, instances.all_of(server), volume_id)
                    disk = instances.disk(self.settings.pool, volume_id)
                    instances.change(server, machine_id, {instances.DEVICE + volume_id: device}, {volume_id: disk})
            instances.link(server, machine_id, volume_id, device)

        await self._run(attach, key=f"devices {machine_id}")

    async def _detach_volume(self, volume_id: str) -> None:
        def detach(server: Server) -> None:
            self._volumes(server).record("volume", volume_id)
            with self._changing:
                if where := instances.attached(server).get(volume_id):
                    instances.unlink(server, *where)
                    instances.change(server, where[0], {instances.DEVICE + volume_id: None}, {volume_id: None})

        await self._run(detach)

    def _at_rest(self, server: Server, volume_id: str) -> Record:
        """The record of a volume that no running machine has."""
        record = self._volumes(server).record("volume", volume_id)
        where = instances.attached(server).get(volume_id)
        if where and instances.look(server, where[0]).status != "Stopped":
            raise Conflict(f"the volume is attached to machine {where[0]}, which is not stopped")
        return record

    # --- snapshots ---

    async def _create_snapshot(self, volume_id: str, name: str, key: Key) -> Snapshot:
        def make(server: Server) -> Snapshot:
            volumes, snapshot_id = self._volumes(server), id_for("snapshot", key)
            record = volumes.known("snapshot", snapshot_id)
            if record is None:
                size = self._at_rest(server, volume_id).size
                record = Record(key=key, name=name, size=size, volume=volume_id)
                volumes.copy(volume_id, snapshot_id, record)
            return _snapshot(snapshot_id, record)

        return await self._run(make, key=f"snapshot {key}")

    async def _describe_snapshot(self, snapshot_id: str) -> Snapshot:
        return await self._run(
            lambda server: _snapshot(snapshot_id, self._volumes(server).record("snapshot", snapshot_id))
        )

    async def _list_snapshots(self) -> list[Snapshot]:
        return await self._run(
            lambda server: [_snapshot(*found) for found in self._volumes(server).records("snapshot")]
        )

    async def _destroy_snapshot(self, snapshot_id: str) -> None:
        def destroy(server: Server) -> None:
            self._volumes(server).record("snapshot", snapshot_id)
            self._volumes(server).destroy(snapshot_id)

        await self._run(destroy)

    # --- images ---

    async def _describe_image(self, image_id: str) -> Image:
        def describe(server: Server) -> Image:
            if image_id.startswith("image-"):
                return _raw_image(image_id, self._volumes(server).record("image", image_id))
            return pictures.look(server, image_id)[1]

        return await self._run(describe)

    async def _list_images(self) -> list[Image]:
        def images(server: Server) -> list[Image]:
            raw = [_raw_image(*found) for found in self._volumes(server).records("image")]
            return [*raw, *pictures.all_of(server)]

        return await self._run(images)

    async def _destroy_image(self, image_id: str) -> None:
        def destroy(server: Server) -> None:
            if image_id.startswith("image-"):
                self._volumes(server).record("image", image_id)
                self._volumes(server).destroy(image_id)
            else:
                pictures.destroy(server, image_id)

        await self._run(destroy)

    async def _upload_image(self, spec: ImageSpec, content: Content, key: Key) -> Image:
        if spec.format not in FORMATS:
            raise Unsupported(f"images are RAW (for volumes) or LXD's own (for machines) here, not {spec.format}")
        async with self._making.setdefault(key, asyncio.Lock()):
            if image := await self._run(lambda server: self._known_image(server, key)):
                return image
            if spec.format is DiskFormat.LXD:
                return await self._upload_lxd(spec, content, key)
            image_id = id_for("image", key)
            record = Record(key=key, name=spec.name, size=spec.size, digest=spec.digest)
            await self._send(
                spec, content, lambda server, feed: self._volumes(server).bring(image_id, record, feed, spec.size)
            )
            return _raw_image(image_id, record)

    def _known_image(self, server: Server, key: Key) -> Image | None:
        image_id = id_for("image", key)
        if record := self._volumes(server).known("image", image_id):
            return _raw_image(image_id, record)
        return pictures.made_with(server, key)

    async def _upload_lxd(self, spec: ImageSpec, content: Content, key: Key) -> Image:
        sha256 = hashlib.sha256()

        async def hashed() -> AsyncIterator[bytes]:
            async for chunk in content():
                await asyncio.to_thread(sha256.update, chunk)
                yield chunk

        entry = pictures.Entry(key=key, name=spec.name, digest=spec.digest)
        try:
            got = await self._send(spec, hashed, lambda server, feed: pictures.bring(server, entry, feed))
        except Exception as error:
            if not isinstance(translate(error) or error, Conflict):
                raise
            got = sha256.hexdigest()  # LXD has it already
            await self._run(lambda server: pictures.enter(server, entry, got))
        image = await self._describe_image(pictures.id_for(key))
        if got != sha256.hexdigest():
            await self._run(lambda server: pictures.destroy(server, image.id))
            raise ProtocolError(f"LXD received {got}, and {sha256.hexdigest()} was sent")
        return image

    async def _send(self, spec: ImageSpec, content: Content, send: Callable[[Server, Any], T]) -> T:
        """Send content from the event loop through a thread; whole or not at all."""
        feed = Feed()
        sending = asyncio.ensure_future(self._run(lambda server: send(server, iter(feed))))
        try:
            async for chunk in verified(content, spec):
                if chunk and not await asyncio.to_thread(feed.put, chunk):
                    break
            await asyncio.to_thread(feed.put, b"")
        except BaseException:
            await asyncio.to_thread(feed.put, None)
            await asyncio.gather(sending, return_exceptions=True)
            raise
        return await sending

    async def _download_image(self, image_id: str, offset: int) -> AsyncIterator[bytes]:
        image = await self._describe_image(image_id)
        if offset >= image.size:
            return
        if image.format is DiskFormat.RAW:
            chunks = self._raw_content(image, offset)
        else:
            chunks = self._lxd_content(image, offset)
        async for chunk in chunks:
            yield chunk

    async def _raw_content(self, image: Image, offset: int) -> AsyncIterator[bytes]:
        reader = await self._run(lambda server: self._volumes(server).reading(image.id, offset))
        chunks = reader.chunks(image.size - offset)
        try:
            while chunk := await self._run(lambda _: next(chunks, b"")):
                yield chunk
        finally:
            await self._run(lambda _: reader.close())

    async def _lxd_content(self, image: Image, offset: int) -> AsyncIterator[bytes]:
        answer = await self._run(lambda server: pictures.export(server, pictures.look(server, image.id)[0], offset))
        try:
            while chunk := await self._run(lambda _: answer.raw.read(CHUNK)):
                yield chunk
        finally:
            answer.close()

    async def _bundle_machine(self, machine_id: str, name: str, key: Key) -> Image:
        def make(server: Server) -> Image:
            if (known := self._known_image(server, key)) is None:
                if instances.look(server, machine_id).status != "Stopped":
                    raise Conflict("the machine is not stopped")
                pictures.publish(server, machine_id, pictures.Entry(key=key, name=name))
                known = pictures.made_with(server, key)
            if known is None:
                raise ProtocolError("LXD has published the machine, and lists no such image")
            return known

        return await self._run(make, key=f"image {key}")

    async def _bundle_volume(self, volume_id: str, name: str, key: Key) -> Image:
        def make(server: Server) -> Image:
            volumes, image_id = self._volumes(server), id_for("image", key)
            record = volumes.known("image", image_id)
            if record is None:
                record = Record(key=key, name=name, size=self._at_rest(server, volume_id).size)
                volumes.copy(volume_id, image_id, record)
            return _raw_image(image_id, record)

        return await self._run(make, key=f"image {key}")

    # --- networks ---

    async def _create_network(self, name: str, cidr: str, key: Key) -> Network:
        def make(server: Server) -> Network:
            network_id = networks.id_for(key)
            with suppress(NotFound), instances.translated():
                return networks.look(server, network_id)
            networks.create(server, name, cidr, key)
            return networks.look(server, network_id)

        return await self._run(make, key=f"network {key}")

    async def _describe_network(self, network_id: str) -> Network:
        return await self._run(lambda server: networks.look(server, network_id))

    async def _list_networks(self) -> list[Network]:
        return await self._run(networks.all_of)

    async def _destroy_network(self, network_id: str) -> None:
        def destroy(server: Server) -> None:
            networks.look(server, network_id)
            server.done(server.api.networks[network_id].delete())

        await self._run(destroy)

    # --- calls ---

    async def _run(self, call: Callable[[Server], T], *, key: str | None = None) -> T:
        """The result of ``call`` on a server's client, from a thread of the pool."""
        if not self._asked:
            self._account = await self._login()
            self._asked = True
        account = self._account
        try:
            return await self._pool.run(lambda server: call(server.to(account)), key=key)
        except Unauthorized:
            self._asked = False  # they may have been replaced
            raise

    async def _login(self) -> KeyPairCredentials | None:
        credentials = await self._credentials()
        if credentials is not None and not isinstance(credentials, KeyPairCredentials):
            raise Unauthorized(f"a certificate and its private key are needed, not: {credentials.kind}")
        if credentials is None and not self.settings.url.startswith("/"):
            raise Unauthorized("a server that is reached over HTTPS takes a certificate and its private key")
        return credentials

    def _translate(self, error: Exception) -> VendorError | None:
        return translate(error) or super()._translate(error)


def _quota(name: str, limit: int, used: int) -> Quota:
    scale = MIB if name.endswith("-mib") else 1
    return Quota(resource=name, limit=None if limit < 0 else limit // scale, used=-(-used // scale))


def _fill(volumes: Volumes, spec: VolumeSpec, volume_id: str, record: Record) -> None:
    """Make a new volume, with the content that is asked for."""
    if spec.image and spec.snapshot:
        raise InvalidRequest("a volume is made of an image or of a snapshot, not of both")
    if (source := spec.image or spec.snapshot) is None:
        volumes.bring(volume_id, record, iter(()), 0)
        return
    if spec.image and not spec.image.startswith("image-"):
        raise InvalidRequest(f"volumes are made of RAW images; {spec.image} is none")
    content = volumes.record("image" if spec.image else "snapshot", source)
    if content.size > record.size:
        raise InvalidRequest(f"its content has {content.size} bytes: more than fit into {spec.size_mib} MiB")
    if content.size == record.size:
        volumes.copy(source, volume_id, record)
        return
    reader = volumes.reading(source)
    try:
        volumes.bring(volume_id, record, reader.chunks(content.size), content.size)
    finally:
        reader.close()


def _volume(volume_id: str, record: Record, attached: dict[str, tuple[str, str]]) -> Volume:
    machine, device = attached.get(volume_id, (None, None))
    status = Status.ATTACHED if machine else Status.ACTIVE
    size = record.size // MIB
    return Volume(
        id=volume_id, name=record.name, key=record.key, status=status, size_mib=size, machine=machine, device=device
    )


def _snapshot(snapshot_id: str, record: Record) -> Snapshot:
    return Snapshot(
        id=snapshot_id,
        name=record.name,
        key=record.key,
        status=Status.ACTIVE,
        volume=record.volume,
        size_mib=record.size // MIB,
    )


def _raw_image(image_id: str, record: Record) -> Image:
    return Image(
        id=image_id,
        name=record.name,
        key=record.key,
        status=Status.ACTIVE,
        format=DiskFormat.RAW,
        size=record.size,
        digest=record.digest,
    )
