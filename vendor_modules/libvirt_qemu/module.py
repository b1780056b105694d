"""The Vendor Module ``libvirt``: machines are domains of QEMU, volumes and images are files of one storage pool."""

from __future__ import annotations

import asyncio
import random
import sys
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from functools import partial
from typing import Annotated, Any, ClassVar, Literal, TypeVar
from weakref import WeakValueDictionary

from lxml import etree
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
    Power,
    Snapshots,
    VolumeBundle,
)
from vendor_modules.errors import (
    Conflict,
    Forbidden,
    InvalidRequest,
    NotFound,
    ProtocolError,
    QuotaExceeded,
    Unauthorized,
    Unsupported,
    VendorError,
)
from vendor_modules.labels import name_for
from vendor_modules.libvirt_qemu import domains, machines, stock
from vendor_modules.libvirt_qemu.connection import Connection, sdk
from vendor_modules.libvirt_qemu.domains import Disk, Domain, Notes, Order
from vendor_modules.libvirt_qemu.errors import translate
from vendor_modules.libvirt_qemu.seed import seed
from vendor_modules.libvirt_qemu.storage import OURS, Record, Storage, check_qcow2, id_for, received, send_all
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
    Snapshot,
    Status,
    Volume,
    VolumeSpec,
)
from vendor_modules.services import Services
from vendor_modules.services.credentials import PasswordCredentials, resolve
from vendor_modules.transfers import verified
from vendor_modules.userdata import script

T = TypeVar("T")

CONSOLE_KEPT = 64 * 1024
FORMATS = (DiskFormat.RAW, DiskFormat.QCOW2)
ASK_AGAIN = 2.0
"""Seconds after which a guest is asked anew to end, or to let go of a disk: while it boots, it does not hear."""
HEAD = 80
"""So many first bytes of a disk say whether it stands alone."""
FULL_COPY = "a full copy"


class LibvirtSettings(PrivateCloudSettings):
    """Where libvirt is, and what it may use."""

    uri: str = "qemu:///system"
    """As libvirt takes it: https://libvirt.org/uri.html."""
    pool: str = "default"
    """The storage pool (a folder) for disks, volumes and images. Disk files that its owner puts there are public
    images, by their file names."""
    accelerator: Literal["kvm", "qemu"] = "kvm"
    """``qemu`` is software: slow, and everywhere."""
    host: str = "127.0.0.1"
    """The host's address at which machines' services are reached."""
    first_port: Port = 20000
    """The first of the host's ports that lead to machines."""
    last_port: Port = 29999
    """The last of them."""
    stop_grace: Annotated[float, Field(ge=0, le=60)] = 20.0
    """Seconds that a guest may take to end when it is asked to."""


class LibvirtModule(
    Power,
    Endpoints,
    Consoles,
    Attachments,
    Snapshots,
    ImageUpload,
    ImageDownload,
    MachineBundle,
    VolumeBundle,
):
    """QEMU guests through libvirt."""

    title = "libvirt (QEMU, KVM)"
    proof = Proof.LIVE
    proven_by = "The conformance suite against libvirt 9.0 with real QEMU 7.2 guests, emulated in software."
    known_limits = (
        "Machines have QEMU's user-mode network, and one port of the host leads to each; bridges are not used.",
        "A disk is copied in full when a machine, volume, snapshot or image is made of another.",
        "First-boot instructions need an image with cloud-init, or another reader of NoCloud seeds.",
        "Two volumes attached while a machine runs are named by the guest in the order in which it sees them.",
        "A call that libvirt does not answer keeps one of eight threads until it does.",
    )
    abilities: ClassVar = {
        "stop_machine": Ability(note="the guest is asked to end; after the settings' grace time it is made to"),
        "detach_volume": Ability(note="a guest that runs must let go of the disk"),
        "create_snapshot": Ability(Support.EMULATED, (Requirement.STOPPED,), note=FULL_COPY),
        "bundle_machine": Ability(Support.EMULATED, (Requirement.STOPPED,), FORMATS, note=FULL_COPY),
        "bundle_volume": Ability(Support.EMULATED, (Requirement.STOPPED,), (DiskFormat.RAW,), note=FULL_COPY),
        "upload_image": Ability(formats=FORMATS),
        "download_image": Ability(formats=FORMATS),
    }
    prices = PriceSource.SETTINGS
    Settings = LibvirtSettings
    credential_kinds = ("password", "external")
    call_timeout: ClassVar[float] = 120.0
    """Copies of disks are calls too."""

    def __init__(self, vendor: str, settings: ModuleSettings, services: Services) -> None:
        """See :class:`~vendor_modules.module.VendorModule`."""
        super().__init__(vendor, settings, services)
        assert isinstance(settings, LibvirtSettings)  # noqa: S101 - the registry makes them from Settings
        self.settings: LibvirtSettings = settings
        self._pool = Pool(lambda: Connection(settings.uri), Connection.close)
        self._account: PasswordCredentials | None = None
        self._asked = False
        self._defining = threading.Lock()
        self._making: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def _close(self) -> None:
        await self._pool.close()

    async def _catalogue(self) -> Catalogue:
        return self.settings.catalogue()

    # --- machines ---

    async def _create_machine(self, spec: MachineSpec, key: Key) -> Machine:
        user_data = script(spec.user_data) if spec.user_data else b""
        return await self._run(lambda libvirt: self._made(libvirt, spec, key, user_data), key=f"machine {key}")

    def _made(self, libvirt: Any, spec: MachineSpec, key: Key, user_data: bytes) -> Machine:
        machine_id, storage = domains.id_for(key), Storage(libvirt, self.settings.pool)
        with suppress(NotFound):
            handle = machines.lookup(libvirt, machine_id)
            known = domains.read(handle.XMLDesc())
            if known.notes and known.notes.made:
                return self._machine(handle)
            machines.erase(storage, handle)  # what an attempt that came to a sudden end has left
        file, format_ = stock.source(storage, spec.image)
        with self._defining:  # two may not choose the same port, or the same volume
            order = self._order(libvirt, storage, spec, key, format_)
            handle = libvirt.defineXML(domains.xml_of(order))
        try:
            for ending in machines.ENDINGS:
                storage.remove(f"machine-{machine_id}.{ending}")
            storage.make(f"machine-{machine_id}.img", 0, format_, copy_of=file)
            storage.write(f"machine-{machine_id}.iso", seed(machine_id, order.domain, user_data))
            storage.make(f"machine-{machine_id}.log", 0)
            handle.create()
            machines.note(handle, order.notes.model_copy(update={"made": True}))
        except Exception:
            with suppress(Exception):  # what cannot be removed now is listed with its key
                machines.erase(storage, handle)
            raise
        return self._machine(handle)

    def _order(self, libvirt: Any, storage: Storage, spec: MachineSpec, key: Key, format_: DiskFormat) -> Order:
        if (size := self.settings.size(spec.size)) is None:
            raise InvalidRequest(f"there is no machine size {spec.size!r}")
        held = machines.all_of(libvirt)
        machine_id = domains.id_for(key)
        notes = Notes(key=key, name=spec.name, size=spec.size, image=spec.image, port=self._free_port(held))
        return Order(
            id=machine_id,
            domain=name_for(key, spec.name, longest=50),
            notes=notes,
            cores=size.cores,
            memory_mib=size.memory_mib,
            accelerator=self.settings.accelerator,
            host=self.settings.host,
            pool=storage.name,
            format=format_,
            volumes=machines.distinct(tuple(machines.free_disk(storage, held, a) for a in spec.volumes)),
            console=storage.path(f"machine-{machine_id}.log"),
        )

    def _free_port(self, held: list[Domain]) -> int:
        taken = {domain.notes.port for domain in held if domain.notes}
        ports = [port for port in range(self.settings.first_port, self.settings.last_port + 1) if port not in taken]
        random.shuffle(ports)
        for port in ports:
            if machines.is_free(self.settings.host, port):
                return port
        raise QuotaExceeded(f"no port from {self.settings.first_port} to {self.settings.last_port} is free")

    def _machine(self, handle: Any) -> Machine:
        domain, state = domains.read(handle.XMLDesc()), handle.state()[0]
        notes, status = domain.notes, domains.STATES.get(state, Status.PENDING)
        volumes = tuple(disk.file.removesuffix(".img") for disk in domain.volumes())
        suspended = "it is suspended: start it to go on" if state == domains.PAUSED else None
        if notes is None:
            size = self.settings.size_of(domain.cores, domain.memory_mib)
            return Machine(id=domain.id, name=domain.name, status=status, size=size, volumes=volumes, problem=suspended)
        return Machine(
            id=domain.id,
            name=notes.name,
            key=notes.key,
            status=status if notes.made else Status.PENDING,
            size=notes.size,
            image=notes.image,
            host=self.settings.host,
            port=notes.port,
            volumes=volumes,
            problem="it has crashed" if status is Status.ERROR else suspended,
        )

    async def _describe_machine(self, machine_id: str) -> Machine:
        return await self._run(lambda libvirt: self._machine(machines.lookup(libvirt, machine_id)))

    async def _list_machines(self) -> list[Machine]:
        def described(libvirt: Any) -> list[Machine]:
            found = []
            for handle in libvirt.listAllDomains():
                with suppress(NotFound), machines.translated():
                    found.append(self._machine(handle))
            return found

        return await self._run(described)

    async def _destroy_machine(self, machine_id: str) -> None:
        def destroy(libvirt: Any) -> None:
            machines.erase(Storage(libvirt, self.settings.pool), machines.lookup(libvirt, machine_id))

        await self._run(destroy)

    async def _start_machine(self, machine_id: str) -> None:
        def start(libvirt: Any) -> None:
            handle = machines.lookup(libvirt, machine_id)
            state = handle.state()[0]
            if state == domains.PAUSED:
                handle.resume()
            elif state == domains.PM_SUSPENDED:
                handle.pMWakeup()
            elif not handle.isActive():
                handle.create()

        await self._run(start, key=f"power {machine_id}")

    async def _stop_machine(self, machine_id: str) -> None:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.settings.stop_grace
        while loop.time() < deadline:
            if await self._run(lambda libvirt: machines.ask_to_end(machines.lookup(libvirt, machine_id))):
                return
            asked = loop.time()
            while loop.time() < min(asked + ASK_AGAIN, deadline):
                await asyncio.sleep(0.1)
                if await self._run(lambda libvirt: not machines.lookup(libvirt, machine_id).isActive()):
                    return
        await self._run(lambda libvirt: machines.cut_off(machines.lookup(libvirt, machine_id)))

    async def _console(self, machine_id: str) -> str:
        def console(libvirt: Any) -> str:
            machines.lookup(libvirt, machine_id)
            storage, file = Storage(libvirt, self.settings.pool), f"machine-{machine_id}.log"
            if storage.find(file) is None:  # a machine of somebody else's
                return ""
            return storage.read(file, max(0, storage.size(file) - CONSOLE_KEPT)).decode(errors="replace")

        return await self._run(console)

    # --- volumes ---

    async def _create_volume(self, spec: VolumeSpec, key: Key) -> Volume:
        def make(libvirt: Any) -> Volume:
            storage, volume_id = Storage(libvirt, self.settings.pool), id_for("volume", key)
            record = Record(key=key, name=spec.name, size=spec.size_mib * MIB)
            made = storage.create(volume_id, record, lambda file: stock.fill(storage, spec, file))
            return stock.volume(volume_id, made, machines.attached(libvirt))

        return await self._run(make, key=f"volume {key}")

    async def _describe_volume(self, volume_id: str) -> Volume:
        def describe(libvirt: Any) -> Volume:
            record = stock.record(Storage(libvirt, self.settings.pool), "volume", volume_id)
            return stock.volume(volume_id, record, machines.attached(libvirt))

        return await self._run(describe)

    async def _list_volumes(self) -> list[Volume]:
        def volumes(libvirt: Any) -> list[Volume]:
            attached = machines.attached(libvirt)
            records = Storage(libvirt, self.settings.pool).records("volume")
            return [stock.volume(volume_id, record, attached) for volume_id, record in records]

        return await self._run(volumes)

    async def _destroy_volume(self, volume_id: str) -> None:
        def destroy(libvirt: Any) -> None:
            storage = Storage(libvirt, self.settings.pool)
            stock.record(storage, "volume", volume_id)
            with self._defining:
                if where := machines.attached(libvirt).get(f"{volume_id}.img"):
                    raise Conflict(f"it is attached to machine {where[0]}")
                storage.destroy(volume_id)

        await self._run(destroy)

    async def _attach_volume(self, volume_id: str, machine_id: str, device: str) -> None:
        disk = Disk(f"{volume_id}.img", domains.target_of(device))

        def attach(libvirt: Any) -> None:
            handle = machines.lookup(libvirt, machine_id)
            stock.record(Storage(libvirt, self.settings.pool), "volume", volume_id)
            with self._defining:
                if where := machines.attached(libvirt).get(disk.file):
                    if where == (machine_id, disk.target):
                        return
                    raise Conflict(f"it is attached to machine {where[0]} as {where[1]}")
                handle.attachDeviceFlags(domains.disk_xml(self.settings.pool, disk), machines.reach(handle))

        await self._run(attach)
        for _ in range(50):  # the guest looks at a new disk at once, if it is up: then it has found it
            if await self._run(lambda libvirt: machines.has_looked_at(libvirt, machine_id, disk.target)):
                return
            await asyncio.sleep(0.1)

    async def _detach_volume(self, volume_id: str) -> None:
        while True:
            if await self._run(lambda libvirt: self._let_go(libvirt, volume_id)):
                return
            await asyncio.sleep(ASK_AGAIN / 4)

    def _let_go(self, libvirt: Any, volume_id: str) -> bool:
        """Ask for the disk to be taken out; whether it is. The guest takes its time."""
        stock.record(Storage(libvirt, self.settings.pool), "volume", volume_id)
        if (where := machines.attached(libvirt).get(f"{volume_id}.img")) is None:
            return True
        handle, library = machines.lookup(libvirt, where[0]), sdk()
        order = domains.disk_xml(self.settings.pool, Disk(f"{volume_id}.img", where[1]))
        for xml, flag in (
            (handle.XMLDesc(library.VIR_DOMAIN_XML_INACTIVE), library.VIR_DOMAIN_AFFECT_CONFIG),
            (handle.XMLDesc() if handle.isActive() else "<domain/>", library.VIR_DOMAIN_AFFECT_LIVE),
        ):
            if any(disk.file == f"{volume_id}.img" for disk in domains.read(xml).disks):
                with suppress(Conflict), machines.translated():  # it was asked a moment ago, and has not done it yet
                    handle.detachDeviceFlags(order, flag)
        return f"{volume_id}.img" not in machines.attached(libvirt)

    # --- snapshots ---

    async def _create_snapshot(self, volume_id: str, name: str, key: Key) -> Snapshot:
        def make(libvirt: Any) -> Snapshot:
            storage, snapshot_id = Storage(libvirt, self.settings.pool), id_for("snapshot", key)
            record = Record(key=key, name=name, size=0, volume=volume_id)
            made = storage.create(
                snapshot_id, record, lambda file: machines.copy_at_rest(libvirt, storage, volume_id, file)
            )
            return stock.snapshot(snapshot_id, made)

        return await self._run(make, key=f"snapshot {key}")

    async def _describe_snapshot(self, snapshot_id: str) -> Snapshot:
        def describe(libvirt: Any) -> Snapshot:
            return stock.snapshot(
                snapshot_id, stock.record(Storage(libvirt, self.settings.pool), "snapshot", snapshot_id)
            )

        return await self._run(describe)

    async def _list_snapshots(self) -> list[Snapshot]:
        def snapshots(libvirt: Any) -> list[Snapshot]:
            return [stock.snapshot(*found) for found in Storage(libvirt, self.settings.pool).records("snapshot")]

        return await self._run(snapshots)

    async def _destroy_snapshot(self, snapshot_id: str) -> None:
        def destroy(libvirt: Any) -> None:
            storage = Storage(libvirt, self.settings.pool)
            stock.record(storage, "snapshot", snapshot_id)
            storage.destroy(snapshot_id)

        await self._run(destroy)

    # --- images ---

    async def _describe_image(self, image_id: str) -> Image:
        return await self._run(lambda libvirt: stock.image(Storage(libvirt, self.settings.pool), image_id))

    async def _list_images(self) -> list[Image]:
        def images(libvirt: Any) -> list[Image]:
            storage = Storage(libvirt, self.settings.pool)
            found = [stock.own_image(image_id, record) for image_id, record in storage.records("image")]
            for file in storage.files():
                with suppress(NotFound):
                    if not OURS.fullmatch(file):
                        found.append(stock.image(storage, file))
            return found

        return await self._run(images)

    async def _destroy_image(self, image_id: str) -> None:
        def destroy(libvirt: Any) -> None:
            storage = Storage(libvirt, self.settings.pool)
            if stock.image(storage, image_id).public:
                raise Forbidden("it was put there by the pool's owner, who alone may remove it")
            storage.destroy(image_id)

        await self._run(destroy)

    async def _upload_image(self, spec: ImageSpec, content: Content, key: Key) -> Image:
        if spec.format not in FORMATS:
            raise Unsupported(f"disks are RAW or QCOW2 here, not {spec.format}")
        image_id = id_for("image", key)
        record = Record(key=key, name=spec.name, format=spec.format, size=spec.size, digest=spec.digest)
        async with self._making.setdefault(image_id, asyncio.Lock()):
            begun = await self._run(lambda libvirt: Storage(libvirt, self.settings.pool).begin(image_id, record))
            if not begun.complete:
                try:
                    await self._send(image_id, spec, content)
                    done = lambda libvirt: Storage(libvirt, self.settings.pool).complete(image_id, record)  # noqa: E731
                    begun = await self._run(done)
                except BaseException:
                    await self._run(lambda libvirt: Storage(libvirt, self.settings.pool).abandon(image_id))
                    raise
        return stock.own_image(image_id, begun)

    async def _send(self, image_id: str, spec: ImageSpec, content: Content) -> None:
        file = f"{image_id}.img"
        stream = await self._run(lambda libvirt: Storage(libvirt, self.settings.pool).writing(file, spec.size))
        head = b""
        try:
            async for chunk in verified(content, spec):
                if len(head) < HEAD and spec.format is DiskFormat.QCOW2:
                    head += chunk[:HEAD]
                await self._run(partial(_send, stream, chunk))
            if spec.format is DiskFormat.QCOW2:
                check_qcow2(head)
            await self._run(lambda _: stream.finish())
        except BaseException:
            with suppress(Exception):
                stream.abort()
            raise

    async def _download_image(self, image_id: str, offset: int) -> AsyncIterator[bytes]:
        image = await self._describe_image(image_id)
        if offset >= image.size:
            return
        file = image_id if image.public else f"{image_id}.img"
        stream = await self._run(lambda libvirt: Storage(libvirt, self.settings.pool).reading(file, offset))
        whole = False
        try:
            while chunk := await self._run(lambda _: received(stream)):
                yield chunk
            whole = True
        finally:
            with suppress(Exception):
                await self._pool.run(lambda _: stream.finish() if whole else stream.abort())

    async def _bundle_machine(self, machine_id: str, name: str, key: Key) -> Image:
        def make(libvirt: Any) -> Image:
            storage, image_id = Storage(libvirt, self.settings.pool), id_for("image", key)
            record = Record(key=key, name=name, size=0)
            with suppress(NotFound):
                disk = machines.own_disk(machines.lookup(libvirt, machine_id))
                record = record.model_copy(update={"format": DiskFormat(disk.format)})
            made = storage.create(
                image_id, record, lambda file: machines.copy_of_machine(libvirt, storage, machine_id, file)
            )
            return stock.own_image(image_id, made)

        return await self._run(make, key=f"image {key}")

    async def _bundle_volume(self, volume_id: str, name: str, key: Key) -> Image:
        def make(libvirt: Any) -> Image:
            storage, image_id = Storage(libvirt, self.settings.pool), id_for("image", key)
            record = Record(key=key, name=name, size=0)
            made = storage.create(
                image_id, record, lambda file: machines.copy_at_rest(libvirt, storage, volume_id, file)
            )
            return stock.own_image(image_id, made)

        return await self._run(make, key=f"image {key}")

    # --- calls ---

    async def _run(self, call: Callable[[Any], T], *, key: str | None = None) -> T:
        """The result of ``call`` on a ``virConnect``, from a thread of the pool."""
        if not self._asked:
            credentials = await self._credentials()
            self._account = resolve(credentials) if credentials else None
            self._asked = True
        account = self._account
        try:
            return await self._pool.run(lambda connection: call(connection.to(account)), key=key)
        except Unauthorized:
            self._asked = False  # they may have been replaced
            raise

    def _translate(self, error: Exception) -> VendorError | None:
        library = sys.modules.get("libvirt")
        if library and isinstance(error, library.libvirtError):
            return translate(error)
        if isinstance(error, etree.XMLSyntaxError):
            return ProtocolError(f"libvirt's answer is no XML: {error}")
        return super()._translate(error)


def _send(stream: Any, chunk: bytes, _: object) -> None:
    send_all(stream, chunk)
