"""Clouds in memory whose machines run a small simulated program, so that whole applications live on them.

The program is a notebook: it reads ``notes.conf``, finds its data on the device that is named there, and serves
``/health`` and ``/content`` (all of its data). It answers over real HTTP, at its machine and at its public address.
"""

from __future__ import annotations

import itertools
import os
import re
import socket
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import structlog
from blake3 import blake3

from descriptors.application import (
    Application,
    BucketUse,
    Command,
    Component,
    File,
    Probe,
    Requirements,
    Rewrite,
    Tier,
    VolumeUse,
)
from descriptors.base import new_id
from descriptors.resources import ResourceClass, ResourceType
from descriptors.sla import GuaranteeTerm
from tests.vendor_modules.toy import Answer, ToyCloud, ToyModule
from vendor_modules.errors import Unavailable, Unsupported
from vendor_modules.module import ModuleSettings
from vendor_modules.resources import Address, Catalogue, Size, Status, Volume, VolumeSpec
from vendor_modules.services import Services
from vendor_modules.services.credentials import Credentials
from vendor_modules.services.persistence import MemoryPersistence
from vendor_modules.services.serialization import JsonSerialization

CONFIG = b"device = \nendpoint = \naccess_key = \nsecret_key = \nbackend = \n"
CONFIG_DIGEST = f"blake3:{blake3(CONFIG).hexdigest()}"
"""``notes.conf`` as it is submitted: the rules fill it in."""

_ports = itertools.cycle(range(15_000 + os.getpid() % 97 * 150, 32_000))


def _free_port() -> int:
    """A port for a public address, which no other address of this process has had lately."""
    for port in _ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise AssertionError("an endless supply of ports")


@dataclass
class Cloud(ToyCloud):
    """A toy cloud with a name, terms, and moods."""

    name: str = "alpha"
    region: str = "eu-west"
    jurisdiction: str = "EU"
    currency: str = "EUR"
    per_hour: Decimal = Decimal("0.01")
    availability: Decimal = Decimal("99.9")
    block: bool = True
    """Whether it has block storage."""
    offer_validity_seconds: int = 900
    away: bool = False
    """Whether it is out of reach."""
    spoil: Callable[[bytes], bytes] = field(default=lambda content: content)
    """What its machines make of their content before they show it."""
    shy: bool = False
    """Whether its machines say that they do not work as soon as the world can see them."""

    def machines(self) -> list[Any]:
        """Its machines."""
        return [self.held[id_] for id_ in self.guts if id_ in self.held]

    def published(self) -> list[Any]:
        """The machines that the world reaches: those that run and to which an address leads."""
        led_to = {r.machine for r in self.held.values() if isinstance(r, Address)}
        return [machine for machine in self.machines() if machine.id in led_to and machine.status is Status.ACTIVE]

    def config(self, machine_id: str) -> dict[str, str]:
        """What the machine's configuration says."""
        return dict(re.findall(r"^(\w+) = (.*)$", self.guts[machine_id].files["notes.conf"].decode(), re.MULTILINE))

    def notes(self, machine_id: str) -> bytes | None:
        """The data that the machine's program finds: on an attached volume, or in its own disk."""
        device = self.config(machine_id)["device"]
        for volume in self.held[machine_id].volumes:
            if self.held[volume].device == device:
                return self.content[volume]
        return self.guts[machine_id].files.get(device)

    def write(self, machine_id: str, text: bytes) -> None:
        """Write into the machine's notebook."""
        device = self.config(machine_id)["device"]
        for volume in self.held[machine_id].volumes:
            if self.held[volume].device == device:
                self.content[volume] = text + self.content[volume][len(text) :]
                return
        files = self.guts[machine_id].files
        files[device] = text + files[device][len(text) :]


class CloudModule(ToyModule):
    """The module of one :class:`Cloud`."""

    cloud: Cloud
    attempts = 1
    settle_timeout = 5.0

    async def _cloud(self) -> Cloud:
        if self.cloud.away:
            raise Unavailable(f"{self.cloud.name} is out of reach")
        return self.cloud

    async def _catalogue(self) -> Catalogue:
        cloud = await self._cloud()
        guarantee = GuaranteeTerm(name="up", property="availability", at_least=cloud.availability, penalty=Decimal(5))
        return Catalogue(
            region=cloud.region,
            jurisdiction=cloud.jurisdiction,
            currency=cloud.currency,
            sizes=(Size(name="toy", cores=2, memory_mib=1024, price_per_hour=cloud.per_hour),),
            block_gib_month=Decimal("0.1") if cloud.block else None,
            object_gib_month=Decimal("0.02"),
            guarantees=(guarantee,),
            offer_validity_seconds=cloud.offer_validity_seconds,
            lacks=() if cloud.block else ("volumes", "attach-detach", "volume-bundle"),
        )

    async def _create_volume(self, spec: VolumeSpec, key: str) -> Volume:
        self._needs_block()
        return await super()._create_volume(spec, key)

    async def _list_volumes(self) -> list[Volume]:
        self._needs_block()
        return await super()._list_volumes()

    def _needs_block(self) -> None:
        if not self.cloud.block:
            raise Unsupported("has no block storage")

    async def _create_address(self, name: str, key: str) -> Address:
        if made := await self._made("address", key):
            return made
        about = {"id": new_id("ip"), "name": name, "key": key, "status": Status.ACTIVE, "host": "127.0.0.1"}
        return self.cloud.add("address", Address(**about, port=_free_port()))

    async def _serve(
        self, cloud: ToyCloud, machine_id: str, method: str, path: str, body: bytes, authorization: str
    ) -> Answer:
        if path == "health":
            unwell = self.cloud.shy and machine_id in {machine.id for machine in self.cloud.published()}
            return (503, b"") if unwell else (200, b"ok")
        if path != "content":
            return await super()._serve(cloud, machine_id, method, path, body, authorization)
        notes = self.cloud.notes(machine_id)
        return (500, b"no data") if notes is None else (200, self.cloud.spoil(notes))


class MemoryCredentials:
    """Credentials for as long as the process lives."""

    def __init__(self) -> None:
        self._kept: dict[tuple[str, str | None, str | None], Credentials] = {}

    async def get(
        self, vendor: str, *, resource: str | None = None, agreement: str | None = None
    ) -> Credentials | None:
        """The credentials of exactly that scope."""
        return self._kept.get((vendor, resource, agreement))

    async def put(
        self, vendor: str, credentials: Credentials, *, resource: str | None = None, agreement: str | None = None
    ) -> None:
        """Keep them."""
        self._kept[vendor, resource, agreement] = credentials


def toy_module(cloud: Cloud, services: Services | None = None) -> CloudModule:
    """The module for a cloud; services in memory unless others are given."""
    log = structlog.get_logger("toys")
    services = services or Services(MemoryCredentials(), MemoryPersistence(), log, JsonSerialization())
    module = CloudModule(cloud.name, ModuleSettings.model_construct(), services)
    module.cloud = cloud
    return module


NOTES_RULES = (
    Rewrite(file="notes.conf", pattern=r"^device = .*$", value="device = {volume.data.device}"),
    Rewrite(file="notes.conf", pattern=r"^endpoint = .*$", value="endpoint = {bucket.pictures.endpoint}"),
    Rewrite(file="notes.conf", pattern=r"^access_key = .*$", value="access_key = {bucket.pictures.access_key}"),
    Rewrite(file="notes.conf", pattern=r"^secret_key = .*$", value="secret_key = {bucket.pictures.secret_key}"),
)


def notebook(name: str = "notes", front: bool = False, **changes: Any) -> Application:
    """The notebook: one component ``web`` with its data on a volume and its pictures in a bucket; with ``front``
    another component before it, without data of its own. ``changes`` are to the requirements."""
    file = File(source="notes.conf", target="notes.conf", digest=CONFIG_DIGEST, size=len(CONFIG))
    start = (Command(phase="start", line="notebook"),)
    web = Component(
        name="web",
        resource="machine",
        port=80,
        volumes=(VolumeUse(resource="data"),),
        buckets=(BucketUse(resource="pictures"),),
        files=(file,),
        commands=start,
        rewrites=NOTES_RULES,
        health=Probe(path="/health"),
        content=Probe(path="/content"),
    )
    tiers = [Tier(name="back", components=(web,))]
    if front:
        rule = Rewrite(file="notes.conf", pattern=r"^backend = .*$", value="backend = {component.web.url}")
        door = Component(
            name="door",
            resource="machine",
            port=80,
            depends_on=("web",),
            files=(file,),
            commands=start,
            rewrites=(rule,),
            health=Probe(path="/health"),
        )
        tiers.append(Tier(name="front", components=(door,)))
    return Application(
        name=name,
        requirements=Requirements(**changes),
        resources=(
            ResourceClass(name="machine", type=ResourceType.COMPUTE, cores=1),
            ResourceClass(name="data", type=ResourceType.STORAGE, kind="block", size_mib=1, fallback="machine-disk"),
            ResourceClass(name="pictures", type=ResourceType.STORAGE, kind="object"),
        ),
        tiers=tuple(tiers),
    )
