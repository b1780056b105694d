"""Clouds that speak OCCI 1.2 (infrastructure, GFD.224): OpenStack, OpenNebula and others through their OCCI services.

Its words: a size is a *resource template*, an image an *OS template*; what connects a machine with a volume or a
network is a *link*. The key is in a resource's summary, see :class:`OcciSettings`.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping
from contextlib import suppress
from decimal import Decimal
from ipaddress import ip_network
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

import httpx

from descriptors.application import Label
from descriptors.base import Currency, Money
from descriptors.standards.occi import (
    INFRASTRUCTURE,
    OS_TEMPLATE,
    RESOURCE_TEMPLATE,
    Category,
    Entity,
    Invocation,
    Value,
)
from vendor_modules.abilities import Ability, Support
from vendor_modules.capabilities import Attachments, FirstBoot, Images, Networks, Power
from vendor_modules.errors import Conflict, InvalidRequest, NotFound, ProtocolError, Unsupported
from vendor_modules.http import EndpointSettings, HttpModule, segment, understood
from vendor_modules.labels import key_in, name_for
from vendor_modules.module import ModuleSettings, PriceSource, Proof
from vendor_modules.protocols.notes import note, noted
from vendor_modules.protocols.occi_service import OcciService
from vendor_modules.resources import (
    Catalogue,
    DiskFormat,
    Image,
    Key,
    Machine,
    MachineSpec,
    Network,
    Size,
    Status,
    Volume,
    VolumeSpec,
)
from vendor_modules.services import Services
from vendor_modules.services.credentials import resolve
from vendor_modules.userdata import script

COMPUTE, STORAGE, NETWORK = (f"{INFRASTRUCTURE}{term}" for term in ("compute", "storage", "network"))
STORAGE_LINK, NETWORK_LINK = (f"{INFRASTRUCTURE}{term}" for term in ("storagelink", "networkinterface"))
IP_NETWORK = "http://schemas.ogf.org/occi/infrastructure/network#ipnetwork"
_START, _STOP = (f"http://schemas.ogf.org/occi/infrastructure/compute/action#{term}" for term in ("start", "stop"))
_USER_DATA = {
    "http://schemas.ogf.org/occi/infrastructure/compute#user_data": "occi.compute.userdata",
    "http://schemas.openstack.org/compute/instance#user_data": "org.openstack.compute.user_data",
}
"""Mixins for what runs at the first boot, and their attributes: the standard's, and OpenStack's own."""
_STATES = {"active": Status.ACTIVE, "inactive": Status.STOPPED, "suspended": Status.STOPPED, "error": Status.ERROR}
_READY = {"online": Status.ACTIVE, "active": Status.ACTIVE, "error": Status.ERROR}
GIB = 1024


class OcciSettings(EndpointSettings):
    """Which service, how it is spoken to, and what is to be known of its cloud."""

    rendering: Literal["text/plain", "application/occi+json", "text/occi"] = "text/plain"
    """How things are written; the last is for ASCII names only."""
    token_header: Label | None = None
    """The header in which the password is sent, as a token (OpenStack: ``X-Auth-Token``); None: HTTP Basic."""
    page: int | None = None
    """How many resources of a list are asked for at a time; None: all at once, for services without pages."""
    summaries: bool = True
    """Whether the service keeps the summaries of resources. If not, the key is in the title: what was ordered as a name
    is not told again."""
    region: Label = "local"
    """The name of the place where the cloud is."""
    jurisdiction: Label = "EU"
    """Whose law applies there."""
    currency: Currency = "EUR"
    """The currency of the prices."""
    sizes: tuple[Size, ...] = ()
    """Resource templates with their prices, by their terms. Those that are not here are taken from the service, if it
    tells cores and memory; their prices are unknown."""
    block_gib_month: Money | None = None
    """The price of a GiB of volumes for a month; None: volumes are not offered."""
    egress_per_gib: Money = Decimal(0)
    """The price of a GiB that leaves the cloud."""


class OcciModule(Power, FirstBoot, Attachments, Images, Networks, HttpModule):
    """A cloud with an OCCI service."""

    title = "OCCI 1.2"
    proof = Proof.PROTOCOL_ONLY
    proven_by = "A stub server of the published standard, and pyssf's OCCI 1.1; unproven against a live service."
    known_limits = (
        "Which images and sizes there are, the service tells as templates; they can be neither made nor removed.",
        "Key pairs are not offered: the standard has public keys of single machines only.",
        "User data is sent in Base64 where the service knows the mixin for it; the standard does not say how.",
        "Text renderings tell no cores and no memory of sizes: the settings must.",
        "Names are kept exactly only where the service keeps summaries.",
    )
    abilities: ClassVar[Mapping[str, Ability]] = {
        "create_machine": Ability(Support.EMULATED, note="Links to volumes and networks are made after the machine."),
        "destroy_image": Ability(Support.UNSUPPORTED, note="OS templates are the provider's."),
        "destroy_volume": Ability(Support.EMULATED, note="All storage links are looked through first."),
        "destroy_network": Ability(Support.EMULATED, note="All network interfaces are looked through first."),
        "list_volumes": Ability(Support.EMULATED, note="All storage links are read too."),
        "describe_volume": Ability(Support.EMULATED, note="All storage links are read too."),
    }
    prices = PriceSource.SETTINGS
    Settings = OcciSettings
    credential_kinds = ("password", "external")

    def __init__(self, vendor: str, settings: ModuleSettings, services: Services) -> None:
        """See :class:`~vendor_modules.module.VendorModule`."""
        super().__init__(vendor, settings, services)
        assert isinstance(settings, OcciSettings)  # noqa: S101 - the registry makes them from Settings
        self._about = settings
        self.service = OcciService(self._ask, urlsplit(self._base).path, settings.rendering, settings.page)
        """The service itself, for whoever looks into it."""
        self._known: dict[str, Category] = {}

    # --- templates ---

    async def _categories(self, *, anew: bool = False) -> dict[str, Category]:
        """All categories by type, asked for once and whenever they are to be told ``anew``."""
        if anew or not self._known:
            self._known = {category.type: category for category in await self.service.discover()}
        return self._known

    async def _templates(self, of: str, *, anew: bool = False) -> dict[str, Category]:
        """The templates of a sort, by term; where two share one, by scheme and term."""
        found = [c for c in (await self._categories(anew=anew)).values() if of in c.related]
        terms = [category.type.rpartition("#")[2] for category in found]
        return {
            term if terms.count(term) == 1 else category.type.replace("#", "@"): category
            for term, category in zip(terms, found, strict=True)
        }

    async def _catalogue(self) -> Catalogue:
        about = self._about
        priced = {size.name: size for size in about.sizes}
        templates = await self._templates(RESOURCE_TEMPLATE, anew=True)
        sizes = (priced.get(name) or _size(name, category) for name, category in templates.items())
        return Catalogue(
            region=about.region,
            jurisdiction=about.jurisdiction,
            currency=about.currency,
            sizes=tuple(size for size in sizes if size),
            block_gib_month=about.block_gib_month,
            egress_per_gib=about.egress_per_gib,
        )

    async def _describe_image(self, image_id: str) -> Image:
        template = (await self._templates(OS_TEMPLATE, anew=True)).get(image_id)
        if template is None:
            raise NotFound(f"there is no OS template {image_id!r}")
        return _image(image_id, template)

    async def _list_images(self) -> list[Image]:
        return [_image(name, one) for name, one in (await self._templates(OS_TEMPLATE, anew=True)).items()]

    async def _destroy_image(self, image_id: str) -> None:
        raise Unsupported("OS templates are the provider's")

    # --- machines ---

    async def _create_machine(self, spec: MachineSpec, key: Key) -> Machine:
        return await self._once(f"machine/{key}", lambda: self._made_machine(spec, key))

    async def _made_machine(self, spec: MachineSpec, key: Key) -> Machine:
        machine = await self._sole("machine", await self._machines(key), key)
        if machine is None:
            location = await self.service.create(await self._at(COMPUTE), await self._order_of(spec, key))
        else:
            location = f"{await self._at(COMPUTE)}{segment(machine.id)}"
            if machine.status is Status.STOPPED:
                with suppress(Conflict):  # one that is not built yet is inactive too, and cannot be started
                    await self.service.invoke(location, Invocation(_START))
        machine_id = location.rpartition("/")[2]
        for attachment in spec.volumes:
            await self._attach_volume(attachment.volume, machine_id, attachment.device)
        for network in spec.networks:
            await self._join(machine_id, network)
        return await self._machine(machine_id, key)

    async def _order_of(self, spec: MachineSpec, key: Key) -> Entity:
        sizes, images = await self._templates(RESOURCE_TEMPLATE), await self._templates(OS_TEMPLATE)
        if spec.size not in sizes or spec.image not in images:
            raise InvalidRequest(f"there is no template {spec.size!r}, or no template {spec.image!r}")
        mixins, attributes = [images[spec.image].type, sizes[spec.size].type], self._labels(spec.name, key)
        if spec.user_data is not None:
            mixin = next((mixin for mixin in _USER_DATA if mixin in self._known), None)
            if mixin is None:
                raise Unsupported("the service takes no user data")
            mixins.append(mixin)
            attributes[_USER_DATA[mixin]] = b64encode(script(spec.user_data)).decode()
        for attachment in spec.volumes:
            if (await self._describe_volume(attachment.volume)).machine is not None:
                raise Conflict(f"volume {attachment.volume} is attached already")
        for network in spec.networks:
            await self._describe_network(network)
        return Entity(COMPUTE, tuple(mixins), attributes)

    async def _join(self, machine_id: str, network_id: str) -> None:
        ends = await self._ends(machine_id, NETWORK, network_id)
        for link in (await self.service.collection(await self._at(NETWORK_LINK))).values():
            if self._joins(link, ends):
                return
        await self.service.create(await self._at(NETWORK_LINK), Entity(NETWORK_LINK, attributes=ends))

    async def _describe_machine(self, machine_id: str) -> Machine:
        return await self._machine(machine_id)

    async def _machine(self, machine_id: str, *keys: Key) -> Machine:
        location = f"{await self._at(COMPUTE)}{segment(machine_id)}"
        return await self._read_machine(location, await self.service.entity(location), keys)

    async def _list_machines(self) -> list[Machine]:
        return await self._machines()

    async def _machines(self, *keys: Key) -> list[Machine]:
        found = await self.service.collection(await self._at(COMPUTE))
        return [await self._read_machine(location, entity, keys) for location, entity in found.items()]

    async def _read_machine(self, location: str, entity: Entity, keys: tuple[Key, ...]) -> Machine:
        key, name = await self._labels_in(entity, keys)
        sizes = {c.type: n for n, c in (await self._templates(RESOURCE_TEMPLATE)).items()}
        images = {c.type: n for n, c in (await self._templates(OS_TEMPLATE)).items()}
        # some services name the link itself where its target should be, and the target among its attributes
        targets = [str(link.attributes.get("occi.core.target") or link.target) for link in entity.links]
        volumes = [self._id(t) for t, link in zip(targets, entity.links, strict=True) if link.target_kind == STORAGE]
        addresses = [link.attributes.get("occi.networkinterface.address") for link in entity.links]
        with understood("compute resource"):
            state = str(entity.attributes["occi.compute.state"])
            return Machine(
                id=self._id(location),
                name=name or self._id(location),
                key=key,
                status=_STATES.get(state, Status.PENDING),
                size=next((sizes[mixin] for mixin in entity.mixins if mixin in sizes), "unknown"),
                image=next((images[mixin] for mixin in entity.mixins if mixin in images), None),
                host=next((str(address) for address in addresses if address), None),
                volumes=tuple(volumes),
                problem=str(entity.attributes.get("occi.compute.state.message", "")) or None,
            )

    async def _destroy_machine(self, machine_id: str) -> None:
        await self.service.delete(f"{await self._at(COMPUTE)}{segment(machine_id)}")

    async def _start_machine(self, machine_id: str) -> None:
        await self._act(machine_id, _START, Status.ACTIVE)

    async def _stop_machine(self, machine_id: str) -> None:
        await self._act(machine_id, _STOP, Status.STOPPED)

    async def _act(self, machine_id: str, action: str, wanted: Status) -> None:
        if (await self._machine(machine_id)).status is not wanted:
            await self.service.invoke(f"{await self._at(COMPUTE)}{segment(machine_id)}", Invocation(action))

    # --- volumes ---

    async def _create_volume(self, spec: VolumeSpec, key: Key) -> Volume:
        return await self._once(f"volume/{key}", lambda: self._made_volume(spec, key))

    async def _made_volume(self, spec: VolumeSpec, key: Key) -> Volume:
        if spec.image or spec.snapshot:
            raise Unsupported("volumes are made empty only")
        if made := await self._sole("volume", await self._volumes(key), key):
            return made
        size: dict[str, Value] = {"occi.storage.size": spec.size_mib / GIB}
        order = Entity(STORAGE, attributes=self._labels(spec.name, key) | size)
        location = await self.service.create(await self._at(STORAGE), order)
        return await self._read_volume(location, await self.service.entity(location), {}, (key,))

    async def _describe_volume(self, volume_id: str) -> Volume:
        location = f"{await self._at(STORAGE)}{segment(volume_id)}"
        return await self._read_volume(location, await self.service.entity(location), await self._attached(), ())

    async def _list_volumes(self) -> list[Volume]:
        return await self._volumes()

    async def _volumes(self, *keys: Key) -> list[Volume]:
        found, attached = await self.service.collection(await self._at(STORAGE)), await self._attached()
        return [await self._read_volume(location, entity, attached, keys) for location, entity in found.items()]

    async def _read_volume(
        self, location: str, entity: Entity, attached: Mapping[str, tuple[str, Entity]], keys: tuple[Key, ...]
    ) -> Volume:
        key, name = await self._labels_in(entity, keys)
        link = attached.get(self._id(location), ("", None))[1]
        with understood("storage resource"):
            ready = _READY.get(str(entity.attributes["occi.storage.state"]), Status.PENDING)
            joined = link and link.attributes.get("occi.storagelink.state", "active") == "active"
            device = str(link.attributes.get("occi.storagelink.deviceid", "")).lstrip("/") if link else ""
            return Volume(
                id=self._id(location),
                name=name or self._id(location),
                key=key,
                status=(Status.ATTACHED if joined else Status.PENDING) if link else ready,
                size_mib=round(float(entity.attributes["occi.storage.size"]) * GIB),
                machine=self._id(str(link.attributes["occi.core.source"])) if link else None,
                device=device or None,
            )

    async def _destroy_volume(self, volume_id: str) -> None:
        if (volume := await self._describe_volume(volume_id)).machine is not None:
            raise Conflict(f"volume {volume_id} is attached to machine {volume.machine}")
        await self.service.delete(f"{await self._at(STORAGE)}{segment(volume_id)}")

    async def _attach_volume(self, volume_id: str, machine_id: str, device: str) -> None:
        volume = await self._describe_volume(volume_id)
        if volume.machine == machine_id:
            return
        if volume.machine is not None:
            raise Conflict(f"volume {volume_id} is attached to machine {volume.machine}")
        await self._machine(machine_id)
        ends = await self._ends(machine_id, STORAGE, volume_id)
        link = Entity(STORAGE_LINK, attributes=ends | {"occi.storagelink.deviceid": f"/{device}"})
        await self.service.create(await self._at(STORAGE_LINK), link)

    async def _detach_volume(self, volume_id: str) -> None:
        await self._describe_volume(volume_id)
        if (found := (await self._attached()).get(volume_id)) is not None:
            await self.service.delete(found[0])

    async def _attached(self) -> dict[str, tuple[str, Entity]]:
        """The storage links with their locations, by the volumes' ids."""
        links = await self.service.collection(await self._at(STORAGE_LINK))
        with understood("storage link"):
            return {self._id(str(e.attributes["occi.core.target"])): (location, e) for location, e in links.items()}

    # --- networks ---

    async def _create_network(self, name: str, cidr: str, key: Key) -> Network:
        return await self._once(f"network/{key}", lambda: self._made_network(name, cidr, key))

    async def _made_network(self, name: str, cidr: str, key: Key) -> Network:
        try:
            ip_network(cidr)
        except ValueError:
            raise InvalidRequest(f"{cidr!r} is no range of addresses") from None
        if made := await self._sole("network", await self._networks(key), key):
            return made
        if IP_NETWORK not in await self._categories():
            raise Unsupported("the service's networks have no addresses")
        range_: dict[str, Value] = {"occi.network.address": cidr, "occi.network.allocation": "dynamic"}
        order = Entity(NETWORK, (IP_NETWORK,), self._labels(name, key) | range_)
        location = await self.service.create(await self._at(NETWORK), order)
        return await self._read_network(location, await self.service.entity(location), (key,))

    async def _describe_network(self, network_id: str) -> Network:
        location = f"{await self._at(NETWORK)}{segment(network_id)}"
        return await self._read_network(location, await self.service.entity(location), ())

    async def _list_networks(self) -> list[Network]:
        return await self._networks()

    async def _networks(self, *keys: Key) -> list[Network]:
        found = await self.service.collection(await self._at(NETWORK))
        return [await self._read_network(location, entity, keys) for location, entity in found.items()]

    async def _read_network(self, location: str, entity: Entity, keys: tuple[Key, ...]) -> Network:
        key, name = await self._labels_in(entity, keys)
        with understood("network resource"):
            return Network(
                id=self._id(location),
                name=name or self._id(location),
                key=key,
                status=_READY.get(str(entity.attributes["occi.network.state"]), Status.PENDING),
                cidr=str(entity.attributes.get("occi.network.address", "")),
            )

    async def _destroy_network(self, network_id: str) -> None:
        location = f"{await self._at(NETWORK)}{segment(network_id)}"
        for link in (await self.service.collection(await self._at(NETWORK_LINK))).values():
            if self._id(str(link.attributes.get("occi.core.target", ""))) == network_id:
                raise Conflict(f"network {network_id} has machines in it")
        await self.service.delete(location)

    # --- the standard's ways ---

    async def _at(self, kind: str) -> str:
        """Where resources of a kind are."""
        category = (await self._categories()).get(kind)
        if category is None or not category.location:
            raise Unsupported(f"the service has no {kind.rpartition('#')[2]} resources")
        return self.service.path(category.location)

    async def _ends(self, machine_id: str, kind: str, target_id: str) -> dict[str, Value]:
        """Where a link from a machine begins and ends."""
        return {
            "occi.core.source": self.service.reference(f"{await self._at(COMPUTE)}{segment(machine_id)}"),
            "occi.core.target": self.service.reference(f"{await self._at(kind)}{segment(target_id)}"),
        }

    def _joins(self, link: Entity, ends: Mapping[str, Value]) -> bool:
        return all(self._id(str(link.attributes.get(name, ""))) == self._id(str(end)) for name, end in ends.items())

    @staticmethod
    def _id(location: str) -> str:
        """The id of what is at a location: its last part."""
        identifier = urlsplit(location).path.rstrip("/").rpartition("/")[2]
        if not identifier:
            raise ProtocolError("the answer has a location that is none")
        return identifier

    def _labels(self, name: str, key: Key) -> dict[str, Value]:
        if self._about.summaries:
            return {"occi.core.title": name, "occi.core.summary": note(key, name)}
        return {"occi.core.title": name_for(key, name)}

    async def _labels_in(self, entity: Entity, keys: tuple[Key, ...]) -> tuple[Key, str]:
        """The key and the name of a resource; ``keys`` are those that it may have besides the ones remembered."""
        title = str(entity.attributes.get("occi.core.title", ""))
        key, name = noted(str(entity.attributes.get("occi.core.summary", "")))
        return (key, name) if key else (key_in(title, [*keys, *await self._known_keys()]), title)

    async def _sign(self, request: httpx.Request) -> None:
        if self._about.token_header is None:
            await self._basic(request)
        else:
            account = resolve(await self._credentials())
            request.headers[self._about.token_header] = account.password.get_secret_value()

    def _refusal(self, response: httpx.Response) -> tuple[str, str]:
        words = response.text if response.headers.get("content-type", "").startswith("text/plain") else ""
        return "", words


def _size(name: str, template: Category) -> Size | None:
    """A resource template with its default values; None for one that tells no cores or no memory (in GB)."""
    values: dict[str, Any] = dict(template.defaults)
    if "occi.compute.cores" not in values or "occi.compute.memory" not in values:
        return None
    with understood("resource template"):
        cores, memory = int(values["occi.compute.cores"]), round(float(values["occi.compute.memory"]) * GIB)
        return Size(name=name, cores=cores, memory_mib=memory, price_per_hour=None)


def _image(name: str, template: Category) -> Image:
    with understood("OS template"):
        title = template.title or name
        return Image(id=name, name=title, status=Status.ACTIVE, format=DiskFormat.RAW, public=True)
