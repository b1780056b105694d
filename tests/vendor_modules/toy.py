"""A complete cloud in memory, and its Vendor Module: the smallest that passes the conformance suite.

Its machines do not run anything: it answers in their place what
:mod:`vendor_modules.conformance.program` would. Broken variants of it show that the suite sees what is broken.
"""

from __future__ import annotations

import asyncio
import base64
import io
import ipaddress
import json
import secrets
import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from itertools import count
from typing import Any, ClassVar, TypeVar
from urllib.parse import unquote

from cryptography.hazmat.primitives.serialization import load_ssh_public_key
from pydantic import ConfigDict

from descriptors.base import MIB, new_id, utc_now
from descriptors.deployment import Kind
from descriptors.machine import BUNDLE_MANIFEST, MachineManifest
from vendor_modules.abilities import Ability, Requirement
from vendor_modules.capabilities import (
    AccessKeys,
    Addresses,
    Attachments,
    Consoles,
    Endpoints,
    ImageDownload,
    ImageUpload,
    KeyPairs,
    LoadBalancers,
    MachineBundle,
    Networks,
    Objects,
    Power,
    Quotas,
    SecurityGroups,
    Snapshots,
    UsageReports,
    VolumeBundle,
)
from vendor_modules.conformance.bench import digest
from vendor_modules.errors import Conflict, InvalidRequest, NotFound, Unauthorized
from vendor_modules.module import Content, ModuleSettings, Proof
from vendor_modules.resources import (
    AccessKey,
    Address,
    Bucket,
    Catalogue,
    DiskFormat,
    Image,
    ImageSpec,
    KeyPair,
    LoadBalancer,
    Machine,
    MachineSpec,
    Network,
    Quota,
    Resource,
    Rule,
    SecurityGroup,
    Size,
    Snapshot,
    Status,
    StoredObject,
    Usage,
    Volume,
    VolumeSpec,
)
from vendor_modules.services.credentials import PasswordCredentials

R = TypeVar("R", bound=Resource)
Answer = tuple[int, bytes]
Handler = Callable[[str, str, bytes, str], Awaitable[Answer]]
"""Answers a request: method, path, body, and the value of its Authorization header."""
PASSWORD = "toys are us"


@dataclass
class Guts:
    """What a machine is made of."""

    files: dict[str, bytes] = field(default_factory=dict)
    manifest: MachineManifest = field(default_factory=MachineManifest)
    groups: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
    port: int = 0


@dataclass
class ToyCloud:
    """All that the cloud has. ``close`` it in the end."""

    held: dict[str, Any] = field(default_factory=dict)
    """Resources by id."""
    keys: dict[tuple[Kind, str], str] = field(default_factory=dict)
    guts: dict[str, Guts] = field(default_factory=dict)
    content: dict[str, bytes] = field(default_factory=dict)
    """Of images and volumes, by id."""
    objects: dict[str, dict[str, bytes]] = field(default_factory=dict)
    usage: list[Usage] = field(default_factory=list)
    servers: dict[str, asyncio.Server] = field(default_factory=dict)

    def add(self, kind: Kind, resource: R) -> R:
        """Keep a new resource."""
        self.held[resource.id] = resource
        self.keys[kind, resource.key] = resource.id
        return resource

    def change(self, resource_id: str, **values: Any) -> None:
        """Change a resource's fields."""
        self.held[resource_id] = self.held[resource_id].model_copy(update=values)

    async def listen(self, name: str, handler: Handler, port: int = 0) -> int:
        """Serve HTTP until :meth:`hang_up`; returns the port."""

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:])}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                method, path, _ = head[0].split(" ")
                answer = await handler(method, unquote(path[1:]), body, headers.get("authorization", ""))
                writer.write(
                    b"HTTP/1.1 %d X\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % (answer[0], len(answer[1]))
                )
                writer.write(answer[1])
                await writer.drain()
            except (ConnectionError, asyncio.IncompleteReadError):
                pass
            finally:
                writer.close()

        self.servers[name] = server = await asyncio.start_server(connected, "127.0.0.1", port)
        return int(server.sockets[0].getsockname()[1])

    def hang_up(self, name: str) -> None:
        """Serve it no more."""
        if server := self.servers.pop(name, None):
            server.close()

    async def close(self) -> None:
        """Stop all servers."""
        for name in list(self.servers):
            self.hang_up(name)
        await asyncio.sleep(0)


class ToySettings(ModuleSettings):
    """Which cloud: a name in :data:`CLOUDS`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cloud: str
    """Its name."""


CLOUDS: dict[str, ToyCloud] = {}


class ToyModule(
    Power,
    Consoles,
    Endpoints,
    Attachments,
    ImageUpload,
    ImageDownload,
    MachineBundle,
    VolumeBundle,
    Snapshots,
    KeyPairs,
    SecurityGroups,
    Addresses,
    Networks,
    LoadBalancers,
    Objects,
    AccessKeys,
    UsageReports,
    Quotas,
):
    """The toy."""

    title = "Toy Cloud"
    proof = Proof.EMULATOR
    proven_by = "It is a cloud in memory: there is nothing behind it."
    abilities: ClassVar[Mapping[str, Ability]] = {
        "upload_image": Ability(formats=(DiskFormat.RAW, DiskFormat.BUNDLE)),
        "download_image": Ability(formats=(DiskFormat.RAW, DiskFormat.BUNDLE)),
        "bundle_machine": Ability(requires=(Requirement.STOPPED,)),
    }
    Settings = ToySettings
    credential_kinds = ("password",)
    settle_timeout = 0.2

    async def _cloud(self) -> ToyCloud:
        """Log in."""
        credentials = await self._credentials()
        if not isinstance(credentials, PasswordCredentials) or credentials.password.get_secret_value() != PASSWORD:
            raise Unauthorized("user name or password is wrong")
        assert isinstance(self.settings, ToySettings)
        return CLOUDS[self.settings.cloud]

    async def _close(self) -> None:
        """Nothing is open."""

    async def _get(self, kind: type[R], resource_id: str) -> R:
        found = (await self._cloud()).held.get(resource_id)
        if not isinstance(found, kind):
            raise NotFound(f"there is no {kind.__name__.lower()} {resource_id!r}")
        return found

    async def _all(self, kind: type[R]) -> list[R]:
        return [found for found in (await self._cloud()).held.values() if isinstance(found, kind)]

    async def _made(self, kind: Kind, key: str) -> Any:
        cloud = await self._cloud()
        return cloud.held.get(cloud.keys.get((kind, key), ""))

    async def _forget(self, kind: type[Resource], resource_id: str) -> None:
        await self._get(kind, resource_id)
        cloud = await self._cloud()
        del cloud.held[resource_id]
        cloud.hang_up(resource_id)

    async def _catalogue(self) -> Catalogue:
        size = Size(name="toy", cores=1, memory_mib=64, price_per_hour=Decimal("0.001"))
        price = Decimal("0.1")
        return Catalogue(
            region="toy-1",
            jurisdiction="EU",
            currency="EUR",
            sizes=(size,),
            block_gib_month=price,
            object_gib_month=price,
        )

    # --- machines ---

    async def _create_machine(self, spec: MachineSpec, key: str) -> Machine:
        if made := await self._made("machine", key):
            return made  # type: ignore[no-any-return]
        if spec.size != "toy":
            raise InvalidRequest(f"there is no size {spec.size!r}")
        wanted = ((SecurityGroup, spec.security_groups), (KeyPair, filter(None, [spec.key_pair])))
        for kind, ids in (*wanted, (Network, spec.networks)):
            for resource_id in ids:
                await self._get(kind, resource_id)
        for attachment in spec.volumes:
            if (await self._get(Volume, attachment.volume)).machine:
                raise Conflict(f"volume {attachment.volume} is attached")
        guts = await self._unpacked(spec)
        cloud = await self._cloud()
        machine = Machine(
            id=new_id("machine"),
            name=spec.name,
            key=key,
            status=Status.PENDING,
            size=spec.size,
            image=spec.image,
            host="127.0.0.1",
            volumes=tuple(a.volume for a in spec.volumes),
        )
        cloud.add("machine", machine)
        cloud.guts[machine.id] = guts
        for a in spec.volumes:
            cloud.change(a.volume, status=Status.ATTACHED, machine=machine.id, device=a.device)
        await self._boot(machine.id)
        return await self._get(Machine, machine.id)

    async def _unpacked(self, spec: MachineSpec) -> Guts:
        guts = Guts(groups=spec.security_groups, networks=spec.networks)
        if spec.image != "base":
            await self._get(Image, spec.image)
            with tarfile.open(fileobj=io.BytesIO((await self._cloud()).content[spec.image])) as archive:
                guts.files = {m.name: archive.extractfile(m).read() for m in archive}  # type: ignore[union-attr]
            guts.manifest = MachineManifest.model_validate_json(guts.files.pop(BUNDLE_MANIFEST))
        if spec.user_data:
            guts.files |= spec.user_data.files
            guts.manifest = spec.user_data.manifest
        return guts

    async def _boot(self, machine_id: str) -> None:
        cloud = await self._cloud()
        guts = cloud.guts[machine_id]
        guts.port = await cloud.listen(machine_id, lambda *request: self._serve(cloud, machine_id, *request), guts.port)
        guts.manifest = guts.manifest.model_copy(update={"installed": True})
        now, kind = utc_now(), "machine"
        started = {"resource": machine_id, "kind": kind, "started": now, "quantity": 0, "unit": "h", "cost": 0}
        cloud.usage.append(Usage.model_validate(started | {"currency": "EUR"}))
        cloud.change(machine_id, status=Status.ACTIVE, port=guts.port)

    async def _serve(self, cloud: ToyCloud, machine_id: str, method: str, path: str, body: bytes, _: str) -> Answer:
        """What the machine's program would answer."""
        volumes = [cloud.held[volume] for volume in cloud.held[machine_id].volumes]
        device = next((volume.id for volume in volumes if volume.device == path), None)
        place, name = (cloud.content, device) if device else (cloud.guts[machine_id].files, path)
        old = place.get(name)
        if method == "PUT":
            place[name] = body + (old or b"")[len(body) :]
            return 204, b""
        return (404, b"") if old is None else (200, old)

    async def _halt(self, machine_id: str) -> None:
        cloud = await self._cloud()
        cloud.hang_up(machine_id)
        cloud.usage = [
            u.model_copy(update={"ended": utc_now()}) if u.resource == machine_id and u.ended is None else u
            for u in cloud.usage
        ]

    async def _describe_machine(self, machine_id: str) -> Machine:
        return await self._get(Machine, machine_id)

    async def _list_machines(self) -> list[Machine]:
        return await self._all(Machine)

    async def _destroy_machine(self, machine_id: str) -> None:
        machine = await self._get(Machine, machine_id)
        cloud = await self._cloud()
        await self._halt(machine_id)
        for volume in machine.volumes:
            cloud.change(volume, status=Status.ACTIVE, machine=None, device=None)
        for address in await self._all(Address):
            if address.machine == machine_id:
                await self._associate_address(address.id, None)
        await self._forget(Machine, machine_id)

    async def _start_machine(self, machine_id: str) -> None:
        if (await self._get(Machine, machine_id)).status is Status.STOPPED:
            await self._boot(machine_id)

    async def _stop_machine(self, machine_id: str) -> None:
        await self._get(Machine, machine_id)
        await self._halt(machine_id)
        (await self._cloud()).change(machine_id, status=Status.STOPPED)

    async def _console(self, machine_id: str) -> str:
        return f"{(await self._get(Machine, machine_id)).name}: the test machine is up\n"

    # --- volumes ---

    async def _create_volume(self, spec: VolumeSpec, key: str) -> Volume:
        if made := await self._made("volume", key):
            return made  # type: ignore[no-any-return]
        cloud, content = await self._cloud(), b""
        if spec.image:
            await self._get(Image, spec.image)
            content = cloud.content[spec.image]
        if spec.snapshot:
            await self._get(Snapshot, spec.snapshot)
            content = cloud.content[spec.snapshot]
        if len(content) > spec.size_mib * MIB:
            raise InvalidRequest("the image or snapshot does not fit into the volume")
        volume = Volume(id=new_id("vol"), name=spec.name, key=key, status=Status.ACTIVE, size_mib=spec.size_mib)
        cloud.content[volume.id] = content.ljust(spec.size_mib * MIB, b"\0")
        return cloud.add("volume", volume)

    async def _describe_volume(self, volume_id: str) -> Volume:
        return await self._get(Volume, volume_id)

    async def _list_volumes(self) -> list[Volume]:
        return await self._all(Volume)

    async def _destroy_volume(self, volume_id: str) -> None:
        if (await self._get(Volume, volume_id)).machine:
            raise Conflict("the volume is attached")
        await self._forget(Volume, volume_id)

    async def _attach_volume(self, volume_id: str, machine_id: str, device: str) -> None:
        volume, machine = await self._get(Volume, volume_id), await self._get(Machine, machine_id)
        if volume.machine not in (None, machine_id):
            raise Conflict("the volume is attached elsewhere")
        cloud = await self._cloud()
        cloud.change(volume_id, status=Status.ATTACHED, machine=machine_id, device=device)
        cloud.change(machine_id, volumes=tuple({*machine.volumes, volume_id}))

    async def _detach_volume(self, volume_id: str) -> None:
        volume, cloud = await self._get(Volume, volume_id), await self._cloud()
        if volume.machine:
            left = tuple(v for v in cloud.held[volume.machine].volumes if v != volume_id)
            cloud.change(volume.machine, volumes=left)
            cloud.change(volume_id, status=Status.ACTIVE, machine=None, device=None)

    # --- snapshots ---

    async def _create_snapshot(self, volume_id: str, name: str, key: str) -> Snapshot:
        if made := await self._made("snapshot", key):
            return made  # type: ignore[no-any-return]
        volume, cloud = await self._get(Volume, volume_id), await self._cloud()
        about = {"id": new_id("snap"), "name": name, "key": key, "status": "active", "size_mib": volume.size_mib}
        snapshot = Snapshot.model_validate({**about, "volume": volume_id})
        cloud.content[snapshot.id] = cloud.content[volume_id]
        return cloud.add("snapshot", snapshot)

    async def _describe_snapshot(self, snapshot_id: str) -> Snapshot:
        return await self._get(Snapshot, snapshot_id)

    async def _list_snapshots(self) -> list[Snapshot]:
        return await self._all(Snapshot)

    async def _destroy_snapshot(self, snapshot_id: str) -> None:
        await self._forget(Snapshot, snapshot_id)

    # --- images ---

    async def _describe_image(self, image_id: str) -> Image:
        return next((i for i in await self._list_images() if i.id == image_id), None) or await self._get(
            Image, image_id
        )

    async def _list_images(self) -> list[Image]:
        base = Image(id="base", name="base", status=Status.ACTIVE, format=DiskFormat.BUNDLE, public=True)
        return [base, *await self._all(Image)]

    async def _destroy_image(self, image_id: str) -> None:
        await self._forget(Image, image_id)

    async def _keep_image(self, name: str, key: str, format_: DiskFormat, content: bytes) -> Image:
        cloud, id_ = await self._cloud(), new_id("image")
        cloud.content[id_] = content
        about = {"format": format_, "size": len(content), "digest": digest(content)}
        return cloud.add("image", Image(id=id_, name=name, key=key, status=Status.ACTIVE, **about))

    async def _upload_image(self, spec: ImageSpec, content: Content, key: str) -> Image:
        if made := await self._made("image", key):
            return made  # type: ignore[no-any-return]
        if spec.format not in self.abilities["upload_image"].formats:
            raise InvalidRequest(f"images in {spec.format} are not taken")
        received = b"".join([chunk async for chunk in content()])
        if (len(received), digest(received)) != (spec.size, spec.digest):
            raise InvalidRequest("the content is not what was declared")
        made = await self._made("image", key)  # another call may have been faster
        return made or await self._keep_image(spec.name, key, spec.format, received)

    async def _download_image(self, image_id: str, offset: int) -> AsyncIterator[bytes]:
        await self._get(Image, image_id)
        content = (await self._cloud()).content[image_id]
        for start in range(offset, len(content), MIB):
            yield content[start : start + MIB]
            await asyncio.sleep(0)

    async def _bundle_machine(self, machine_id: str, name: str, key: str) -> Image:
        if made := await self._made("image", key):
            return made  # type: ignore[no-any-return]
        if (await self._get(Machine, machine_id)).status is not Status.STOPPED:
            raise Conflict("the machine is not stopped")
        guts, buffer = (await self._cloud()).guts[machine_id], io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as archive:
            for file, content in {BUNDLE_MANIFEST: guts.manifest.model_dump_json().encode(), **guts.files}.items():
                member = tarfile.TarInfo(file)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
        return await self._keep_image(name, key, DiskFormat.BUNDLE, buffer.getvalue())

    async def _bundle_volume(self, volume_id: str, name: str, key: str) -> Image:
        if made := await self._made("image", key):
            return made  # type: ignore[no-any-return]
        await self._get(Volume, volume_id)
        return await self._keep_image(name, key, DiskFormat.RAW, (await self._cloud()).content[volume_id])

    # --- keys, groups, addresses ---

    async def _create_key_pair(self, name: str, public_key: str, key: str) -> KeyPair:
        if made := await self._made("key-pair", key):
            return made  # type: ignore[no-any-return]
        try:
            load_ssh_public_key(public_key.encode())
        except ValueError as error:
            raise InvalidRequest("that is no public key") from error
        print_ = digest(public_key.encode())
        pair = KeyPair(
            id=new_id("pair"), name=name, key=key, status=Status.ACTIVE, public_key=public_key, fingerprint=print_
        )
        return (await self._cloud()).add("key-pair", pair)

    async def _describe_key_pair(self, key_pair_id: str) -> KeyPair:
        return await self._get(KeyPair, key_pair_id)

    async def _list_key_pairs(self) -> list[KeyPair]:
        return await self._all(KeyPair)

    async def _destroy_key_pair(self, key_pair_id: str) -> None:
        await self._forget(KeyPair, key_pair_id)

    async def _create_security_group(self, name: str, rules: tuple[Rule, ...], key: str) -> SecurityGroup:
        if made := await self._made("security-group", key):
            return made  # type: ignore[no-any-return]
        try:
            [ipaddress.ip_network(rule.cidr) for rule in rules]
        except ValueError as error:
            raise InvalidRequest("that is no network") from error
        group = SecurityGroup(id=new_id("group"), name=name, key=key, status=Status.ACTIVE, rules=rules)
        return (await self._cloud()).add("security-group", group)

    async def _describe_security_group(self, group_id: str) -> SecurityGroup:
        return await self._get(SecurityGroup, group_id)

    async def _list_security_groups(self) -> list[SecurityGroup]:
        return await self._all(SecurityGroup)

    async def _destroy_security_group(self, group_id: str) -> None:
        cloud = await self._cloud()
        if any(group_id in cloud.guts[machine.id].groups for machine in await self._all(Machine)):
            raise Conflict("a machine uses the group")
        await self._forget(SecurityGroup, group_id)

    async def _create_address(self, name: str, key: str) -> Address:
        if made := await self._made("address", key):
            return made  # type: ignore[no-any-return]
        taken = {address.port for address in await self._all(Address)}
        port = next(p for p in iter(lambda: secrets.randbelow(10_000) + 15_000, None) if p not in taken)
        address = Address(id=new_id("ip"), name=name, key=key, status=Status.ACTIVE, host="127.0.0.1", port=port)
        return (await self._cloud()).add("address", address)

    async def _describe_address(self, address_id: str) -> Address:
        return await self._get(Address, address_id)

    async def _list_addresses(self) -> list[Address]:
        return await self._all(Address)

    async def _associate_address(self, address_id: str, machine_id: str | None) -> None:
        address, cloud = await self._get(Address, address_id), await self._cloud()
        if machine_id:
            await self._get(Machine, machine_id)
        cloud.hang_up(address_id)
        cloud.change(address_id, machine=machine_id)
        if machine_id and self._is_open(cloud, machine_id):
            await cloud.listen(address_id, lambda *r: self._serve(cloud, machine_id, *r), address.port or 0)

    def _is_open(self, cloud: ToyCloud, machine_id: str) -> bool:
        rules = [rule for group in cloud.guts[machine_id].groups for rule in cloud.held[group].rules]
        return any(ipaddress.ip_address("127.0.0.1") in ipaddress.ip_network(rule.cidr) for rule in rules)

    async def _destroy_address(self, address_id: str) -> None:
        await self._forget(Address, address_id)

    # --- networks and load balancers ---

    async def _create_network(self, name: str, cidr: str, key: str) -> Network:
        if made := await self._made("network", key):
            return made  # type: ignore[no-any-return]
        try:
            ipaddress.ip_network(cidr)
        except ValueError as error:
            raise InvalidRequest("that is no network") from error
        network = Network(id=new_id("net"), name=name, key=key, status=Status.ACTIVE, cidr=cidr)
        return (await self._cloud()).add("network", network)

    async def _describe_network(self, network_id: str) -> Network:
        return await self._get(Network, network_id)

    async def _list_networks(self) -> list[Network]:
        return await self._all(Network)

    async def _destroy_network(self, network_id: str) -> None:
        cloud = await self._cloud()
        if any(network_id in cloud.guts[machine.id].networks for machine in await self._all(Machine)):
            raise Conflict("a machine is in the network")
        await self._forget(Network, network_id)

    async def _create_load_balancer(self, name: str, port: int, machines: tuple[str, ...], key: str) -> LoadBalancer:
        if made := await self._made("load-balancer", key):
            return made  # type: ignore[no-any-return]
        for machine in machines:
            await self._get(Machine, machine)
        cloud, id_ = await self._cloud(), new_id("lb")
        about = {"id": id_, "name": name, "key": key, "status": "active", "host": "127.0.0.1", "port": port}
        balancer = cloud.add("load-balancer", LoadBalancer.model_validate({**about, "machines": machines}))
        turns = count()

        async def pass_on(*request: Any) -> Answer:
            members = cloud.held[id_].machines
            return await self._serve(cloud, members[next(turns) % len(members)], *request)

        await cloud.listen(id_, pass_on, port)
        return balancer

    async def _describe_load_balancer(self, balancer_id: str) -> LoadBalancer:
        return await self._get(LoadBalancer, balancer_id)

    async def _list_load_balancers(self) -> list[LoadBalancer]:
        return await self._all(LoadBalancer)

    async def _balance(self, balancer_id: str, machines: tuple[str, ...]) -> None:
        await self._get(LoadBalancer, balancer_id)
        for machine in machines:
            await self._get(Machine, machine)
        (await self._cloud()).change(balancer_id, machines=machines)

    async def _destroy_load_balancer(self, balancer_id: str) -> None:
        await self._forget(LoadBalancer, balancer_id)

    # --- objects ---

    async def _stored(self, bucket_id: str) -> dict[str, bytes]:
        await self._get(Bucket, bucket_id)
        return (await self._cloud()).objects[bucket_id]

    async def _list_objects(self, bucket_id: str, prefix: str) -> list[StoredObject]:
        found = sorted((await self._stored(bucket_id)).items())
        return [StoredObject(name=name, size=len(held)) for name, held in found if name.startswith(prefix)]

    async def _put_object(self, bucket_id: str, name: str, content: Content, size: int) -> None:
        stored = await self._stored(bucket_id)
        received = b"".join([chunk async for chunk in content()])
        if len(received) != size:
            raise InvalidRequest("the content is not as long as declared")
        stored[name] = received

    async def _get_object(self, bucket_id: str, name: str, offset: int) -> AsyncIterator[bytes]:
        stored = await self._stored(bucket_id)
        if name not in stored:
            raise NotFound(f"there is no object {name!r}")
        for start in range(offset, len(stored[name]), MIB):
            yield stored[name][start : start + MIB]

    async def _delete_object(self, bucket_id: str, name: str) -> None:
        (await self._stored(bucket_id)).pop(name, None)

    async def _create_bucket(self, name: str, key: str) -> Bucket:
        if made := await self._made("bucket", key):
            return made  # type: ignore[no-any-return]
        cloud = await self._cloud()
        bucket = cloud.add("bucket", Bucket(id=new_id("bucket"), name=name, key=key, status=Status.ACTIVE))
        cloud.objects[bucket.id] = {}
        return bucket

    async def _describe_bucket(self, bucket_id: str) -> Bucket:
        bucket, objects = await self._get(Bucket, bucket_id), (await self._cloud()).objects[bucket_id]
        return bucket.model_copy(update={"objects": len(objects), "bytes": sum(map(len, objects.values()))})

    async def _list_buckets(self) -> list[Bucket]:
        return [await self._describe_bucket(bucket.id) for bucket in await self._all(Bucket)]

    async def _destroy_bucket(self, bucket_id: str) -> None:
        await self._forget(Bucket, bucket_id)
        for key in await self._all(AccessKey):
            if key.bucket == bucket_id:
                await self._forget(AccessKey, key.id)

    async def _create_access_key(self, bucket_id: str, internal: bool, key: str) -> AccessKey:
        if made := await self._made("access-key", key):
            return made  # type: ignore[no-any-return]
        await self._get(Bucket, bucket_id)
        cloud, side = await self._cloud(), "internal" if internal else "public"
        if side not in cloud.servers:
            await cloud.listen(side, lambda *request: self._store(cloud, internal, *request))
        port = cloud.servers[side].sockets[0].getsockname()[1]
        about = {"id": new_id("ak"), "name": "key", "key": key, "status": "active", "access_key": secrets.token_hex(8)}
        place = {"bucket": bucket_id, "internal": internal, "endpoint": f"http://127.0.0.1:{port}/{bucket_id}"}
        made = await self._made("access-key", key)  # another call may have been faster
        new = AccessKey.model_validate({**about, **place, "secret_key": secrets.token_hex(16)})
        return made or cloud.add("access-key", new)

    async def _store(
        self, cloud: ToyCloud, internal: bool, method: str, path: str, body: bytes, authorization: str
    ) -> Answer:
        """What the object store answers at one of its endpoints."""
        bucket, _, name = path.partition("/")
        access, _, secret = base64.b64decode(authorization.removeprefix("Basic ")).decode().partition(":")
        keys = [
            k for k in cloud.held.values() if isinstance(k, AccessKey) and (k.bucket, k.internal) == (bucket, internal)
        ]
        if not any((k.access_key, k.secret_key.get_secret_value()) == (access, secret) for k in keys):
            return 403, b""
        objects = cloud.objects[bucket]
        if not name:
            listed = [{"key": key, "size": len(content)} for key, content in objects.items()]
            return 200, json.dumps({"objects": listed}).encode()
        if method == "PUT":
            objects[name] = body
            return 201, b""
        if name not in objects:
            return 404, b""
        return (204, objects.pop(name)[:0]) if method == "DELETE" else (200, objects[name])

    async def _describe_access_key(self, key_id: str) -> AccessKey:
        return await self._get(AccessKey, key_id)

    async def _list_access_keys(self) -> list[AccessKey]:
        return await self._all(AccessKey)

    async def _destroy_access_key(self, key_id: str) -> None:
        await self._forget(AccessKey, key_id)

    # --- usage and quotas ---

    async def _quotas(self) -> list[Quota]:
        kinds: dict[str, Any] = {
            "machines": Machine,
            "volumes": Volume,
            "snapshots": Snapshot,
            "images": Image,
            "buckets": Bucket,
        }
        kinds |= {"key-pairs": KeyPair, "security-groups": SecurityGroup, "addresses": Address, "networks": Network}
        return [Quota(resource=name, limit=1000, used=len(await self._all(kind))) for name, kind in kinds.items()]

    async def _usage(self, since: datetime | None) -> list[Usage]:
        return [u for u in (await self._cloud()).usage if since is None or u.ended is None or u.ended >= since]
