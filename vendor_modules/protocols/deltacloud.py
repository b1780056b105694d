"""Apache Deltacloud, by its published REST API 1.x: XML over HTTP, in front of any of its drivers' clouds.

What a server can do is in its entry point: collections, and features of them such as names and user data. Resources
have no tags: the key is in the name, see :class:`DeltacloudSettings`.
"""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Mapping
from decimal import Decimal
from math import ceil
from typing import ClassVar

import httpx
from lxml import etree
from pydantic import Field

from descriptors.application import Label
from descriptors.base import Currency, Identifier, Money
from vendor_modules.abilities import Ability, Support
from vendor_modules.capabilities import Attachments, FirstBoot, MachineBundle, Power, SecurityGroups
from vendor_modules.errors import (
    Conflict,
    InvalidRequest,
    NotFound,
    ProtocolError,
    ResourceFailed,
    Unsupported,
)
from vendor_modules.http import EndpointSettings, HttpModule, segment, understood, xml_of
from vendor_modules.labels import key_in, name_for
from vendor_modules.module import ModuleSettings, PriceSource, Proof
from vendor_modules.protocols.notes import note, noted
from vendor_modules.protocols.rules import source_of
from vendor_modules.resources import (
    Catalogue,
    DiskFormat,
    Image,
    Key,
    Machine,
    MachineSpec,
    Rule,
    SecurityGroup,
    Size,
    Status,
    Volume,
    VolumeSpec,
)
from vendor_modules.services import Services
from vendor_modules.services.credentials import resolve
from vendor_modules.userdata import script

GIB = 1024
_STATES = {"RUNNING": Status.ACTIVE, "STOPPED": Status.STOPPED, "ERROR": Status.ERROR}
_VOLUME_STATES = {"AVAILABLE": Status.ACTIVE, "IN-USE": Status.ATTACHED, "ERROR": Status.ERROR}
_FAILED = ("ERROR", "FAILED", "DEREGISTERED")
_PENDING = ("PENDING", "SAVING", "QUEUED", "CREATING", "BUILDING")


class DeltacloudSettings(EndpointSettings):
    """Which server, which of its drivers, and what is to be known of the cloud behind it."""

    driver: Label | None = None
    """The driver to use, such as ``rhevm``; None: the server's own."""
    provider: str | None = None
    """The driver's provider: a region or a URL, as the driver has it; None: the driver's own."""
    realm: str | None = None
    """The realm that machines and volumes are made in; None: the cloud's own choice."""
    free_names: bool = False
    """Whether the cloud behind takes any text of any length as a name. If not, names are made of lower-case letters,
    digits and hyphens, and end with a digest of the key: what was ordered as a name is not told again."""
    region: Label = "local"
    """The name of the place where the cloud is."""
    jurisdiction: Label = "EU"
    """Whose law applies there."""
    currency: Currency = "EUR"
    """The currency of the prices."""
    prices: dict[Identifier, Money] = Field(default_factory=dict)
    """Prices of hardware profiles, an hour; one that is not here is unknown."""
    block_gib_month: Money | None = None
    """The price of a GiB of volumes for a month; None: volumes are not offered."""
    egress_per_gib: Money = Decimal(0)
    """The price of a GiB that leaves the cloud."""


class DeltacloudModule(Power, FirstBoot, Attachments, MachineBundle, SecurityGroups, HttpModule):
    """A Deltacloud server."""

    title = "Apache Deltacloud"
    proof = Proof.PROTOCOL_ONLY
    proven_by = "A stub server of the published REST API 1.1; unproven against a live service."
    known_limits = (
        "What works depends on the driver behind: the features it lacks are refused when they are asked for.",
        "Snapshots, public addresses and load balancers are not offered: the API's have no name to carry a key.",
        "Key pairs are not offered: the API does not tell their public keys.",
        "Buckets are not offered: the API tells sizes blob by blob only.",
        "Names are kept exactly only where the cloud behind takes any text as a name.",
    )
    abilities: ClassVar[Mapping[str, Ability]] = {
        "create_machine": Ability(Support.EMULATED, note="Volumes are attached when the machine runs."),
        "create_volume": Ability(note="Sizes are whole GiB."),
        "create_security_group": Ability(Support.EMULATED, note="A call for each rule, and one more."),
        "destroy_machine": Ability(Support.EMULATED, note="Where the driver demands it, the machine is stopped first."),
    }
    prices = PriceSource.SETTINGS
    Settings = DeltacloudSettings
    credential_kinds = ("password", "external")
    accept = "application/xml"
    call_timeout: ClassVar[float] = 120.0
    """A creation waits until the machine runs, to attach its volumes."""

    def __init__(self, vendor: str, settings: ModuleSettings, services: Services) -> None:
        """See :class:`~vendor_modules.module.VendorModule`."""
        super().__init__(vendor, settings, services)
        assert isinstance(settings, DeltacloudSettings)  # noqa: S101 - the registry makes them from Settings
        self._about = settings
        self._entry: etree._Element | None = None

    # --- what it sells ---

    async def _catalogue(self) -> Catalogue:
        about = self._about
        profiles = await self._all("hardware_profiles", "hardware_profile")
        return Catalogue(
            region=about.region,
            jurisdiction=about.jurisdiction,
            currency=about.currency,
            sizes=tuple(size for profile in profiles if (size := _size(profile, about.prices))),
            block_gib_month=about.block_gib_month,
            egress_per_gib=about.egress_per_gib,
        )

    # --- machines ---

    async def _create_machine(self, spec: MachineSpec, key: Key) -> Machine:
        return await self._once(f"machine/{key}", lambda: self._made_machine(spec, key))

    async def _made_machine(self, spec: MachineSpec, key: Key) -> Machine:
        machine = await self._sole("machine", await self._instances(key), key)
        if machine is None:
            order = await self._order_of(spec, key)
            answer = await self._post("/instances", order, "instance")
            with understood("instance"):
                made = answer.attrib["id"]
        else:
            made = machine.id
            if machine.status is Status.STOPPED:
                await self._start_machine(made)
        for attachment in spec.volumes:
            await self._until(made, Status.ACTIVE)
            await self._attach_volume(attachment.volume, made, attachment.device)
        return await self._instance(made, key)

    async def _order_of(self, spec: MachineSpec, key: Key) -> dict[str, str]:
        if spec.size not in {size.name for size in (await self._catalogue()).sizes}:
            raise InvalidRequest(f"there is no hardware profile {spec.size!r}")
        await self._describe_image(spec.image)
        order = {"image_id": spec.image, "hwp_id": spec.size}
        order["name"] = await self._named("instances", "user_name", key, spec.name)
        if self._about.realm:
            order["realm_id"] = self._about.realm
        if spec.user_data is not None:
            await self._need("instances", "user_data")
            order["user_data"] = b64encode(script(spec.user_data)).decode()
        if spec.security_groups:
            await self._need("instances", "firewalls")
        for number, group in enumerate(spec.security_groups, 1):
            order[f"firewalls{number}"] = (await self._describe_security_group(group)).id
        for attachment in spec.volumes:
            if (await self._describe_volume(attachment.volume)).machine is not None:
                raise Conflict(f"volume {attachment.volume} is attached already")
        return order

    async def _describe_machine(self, machine_id: str) -> Machine:
        return await self._instance(machine_id)

    async def _list_machines(self) -> list[Machine]:
        return await self._instances()

    async def _destroy_machine(self, machine_id: str) -> None:
        actions = _actions(await self._get(f"/instances/{segment(machine_id)}", "instance"))
        if "destroy" not in actions and "stop" in actions:
            await self._stop_machine(machine_id)
            await self._until(machine_id, Status.STOPPED)
        await self._ask("DELETE", f"/instances/{segment(machine_id)}")

    async def _start_machine(self, machine_id: str) -> None:
        await self._power(machine_id, "start", Status.ACTIVE)

    async def _stop_machine(self, machine_id: str) -> None:
        await self._power(machine_id, "stop", Status.STOPPED)

    async def _power(self, machine_id: str, action: str, wanted: Status) -> None:
        element = await self._get(f"/instances/{segment(machine_id)}", "instance")
        status = _STATES.get(_text(element, "state").upper())
        if status is wanted:
            return
        if action not in _actions(element):
            settled = status in (Status.ACTIVE, Status.STOPPED)
            words = f"machine {machine_id} cannot {action} while it is {_text(element, 'state')}"
            raise Unsupported(words) if settled else Conflict(words)
        await self._ask("POST", f"/instances/{segment(machine_id)}/{action}")

    async def _until(self, machine_id: str, status: Status) -> None:
        """Wait for the status; :attr:`call_timeout` ends it."""
        wait = 0.02
        while (machine := await self._instance(machine_id)).status is not status:
            if machine.status is Status.ERROR:
                raise ResourceFailed(f"machine {machine_id} failed")
            await asyncio.sleep(wait)
            wait = min(2 * wait, 2.0)

    async def _instance(self, machine_id: str, *keys: Key) -> Machine:
        element = await self._get(f"/instances/{segment(machine_id)}", "instance")
        if _gone(element):
            raise NotFound(f"machine {machine_id} is gone")
        return _machine(element, await self._labels(element, *keys), await self._attached())

    async def _instances(self, *keys: Key) -> list[Machine]:
        attached = await self._attached()
        found = [element for element in await self._all("instances", "instance") if not _gone(element)]
        return [_machine(element, await self._labels(element, *keys), attached) for element in found]

    async def _attached(self) -> dict[str, tuple[str, ...]]:
        """The volumes of each machine."""
        if "storage_volumes" not in await self._collections():
            return {}
        attached: dict[str, tuple[str, ...]] = {}
        for element in await self._all("storage_volumes", "storage_volume"):
            if (machine := element.find("mount/instance")) is not None:
                with understood("storage volume"):
                    machine_id = machine.attrib["id"]
                    attached[machine_id] = (*attached.get(machine_id, ()), element.attrib["id"])
        return attached

    # --- volumes ---

    async def _create_volume(self, spec: VolumeSpec, key: Key) -> Volume:
        return await self._once(f"volume/{key}", lambda: self._made_volume(spec, key))

    async def _made_volume(self, spec: VolumeSpec, key: Key) -> Volume:
        if spec.image or spec.snapshot:
            raise Unsupported("volumes are made empty only")
        if made := await self._sole("volume", await self._volumes(key), key):
            return made
        order = {"capacity": str(ceil(spec.size_mib / GIB))}
        order["name"] = await self._named("storage_volumes", "volume_name", key, spec.name)
        if self._about.realm:
            order["realm_id"] = self._about.realm
        element = await self._post("/storage_volumes", order, "storage_volume")
        return _volume(element, await self._labels(element, key))

    async def _describe_volume(self, volume_id: str) -> Volume:
        element = await self._get(f"/storage_volumes/{segment(volume_id)}", "storage_volume")
        return _volume(element, await self._labels(element))

    async def _list_volumes(self) -> list[Volume]:
        return await self._volumes()

    async def _volumes(self, *keys: Key) -> list[Volume]:
        elements = await self._all("storage_volumes", "storage_volume")
        return [_volume(element, await self._labels(element, *keys)) for element in elements]

    async def _destroy_volume(self, volume_id: str) -> None:
        if (volume := await self._describe_volume(volume_id)).machine is not None:
            raise Conflict(f"volume {volume_id} is attached to machine {volume.machine}")
        await self._ask("DELETE", f"/storage_volumes/{segment(volume_id)}")

    async def _attach_volume(self, volume_id: str, machine_id: str, device: str) -> None:
        volume = await self._describe_volume(volume_id)
        if (volume.machine, volume.device) == (machine_id, device):
            return
        if volume.machine is not None:
            raise Conflict(f"volume {volume_id} is attached to machine {volume.machine}")
        await self._instance(machine_id)
        order = {"instance_id": machine_id, "device": f"/{device}"}
        await self._post(f"/storage_volumes/{segment(volume_id)}/attach", order, "storage_volume")

    async def _detach_volume(self, volume_id: str) -> None:
        if (await self._describe_volume(volume_id)).machine is not None:
            await self._post(f"/storage_volumes/{segment(volume_id)}/detach", {}, "storage_volume")

    # --- images ---

    async def _bundle_machine(self, machine_id: str, name: str, key: Key) -> Image:
        return await self._once(f"image/{key}", lambda: self._bundled_machine(machine_id, name, key))

    async def _bundled_machine(self, machine_id: str, name: str, key: Key) -> Image:
        if made := await self._sole("image", await self._images(key), key):
            return made
        await self._instance(machine_id)
        order = {"instance_id": machine_id, "name": await self._named("images", "image_name", key, name)}
        element = await self._post("/images", order, "image")
        return await self._image(element, key)

    async def _describe_image(self, image_id: str) -> Image:
        return await self._image(await self._get(f"/images/{segment(image_id)}", "image"))

    async def _list_images(self) -> list[Image]:
        return await self._images()

    async def _images(self, *keys: Key) -> list[Image]:
        return [await self._image(element, *keys) for element in await self._all("images", "image")]

    async def _image(self, element: etree._Element, *keys: Key) -> Image:
        key, name = await self._labels(element, *keys)
        state = _text(element, "state").upper()
        failed, pending = state in _FAILED, state in _PENDING
        account = resolve(await self._credentials()).username
        with understood("image"):
            return Image(
                id=element.attrib["id"],
                name=name,
                key=key,
                status=Status.ERROR if failed else Status.PENDING if pending else Status.ACTIVE,
                format=DiskFormat.RAW,
                public=not key and _text(element, "owner_id") != account,
            )

    async def _destroy_image(self, image_id: str) -> None:
        await self._ask("DELETE", f"/images/{segment(image_id)}")

    # --- security groups ---

    async def _create_security_group(self, name: str, rules: tuple[Rule, ...], key: Key) -> SecurityGroup:
        return await self._once(f"security-group/{key}", lambda: self._made_group(name, rules, key))

    async def _made_group(self, name: str, rules: tuple[Rule, ...], key: Key) -> SecurityGroup:
        sources = {rule: str(source_of(rule)) for rule in rules}
        group = await self._sole("security-group", await self._groups(key), key)
        if group is None:
            order = {"name": await self._named("firewalls", None, key, name), "description": "made by Cloud Agency"}
            element = await self._post("/firewalls", order, "firewall")
            group = _group(element, await self._labels(element, key))
        for rule, source in sources.items():
            if rule not in group.rules:
                port = str(rule.port)
                order = {"protocol": "tcp", "port_from": port, "port_to": port, "ip_address1": source}
                await self._post(f"/firewalls/{segment(group.id)}/rules", order, "firewall")
        element = await self._get(f"/firewalls/{segment(group.id)}", "firewall")
        return _group(element, await self._labels(element, key))

    async def _describe_security_group(self, group_id: str) -> SecurityGroup:
        element = await self._get(f"/firewalls/{segment(group_id)}", "firewall")
        return _group(element, await self._labels(element))

    async def _list_security_groups(self) -> list[SecurityGroup]:
        return await self._groups()

    async def _groups(self, *keys: Key) -> list[SecurityGroup]:
        elements = await self._all("firewalls", "firewall")
        return [_group(element, await self._labels(element, *keys)) for element in elements]

    async def _destroy_security_group(self, group_id: str) -> None:
        await self._ask("DELETE", f"/firewalls/{segment(group_id)}")

    # --- names ---

    async def _named(self, collection: str, feature: str | None, key: Key, name: str) -> str:
        """The name that carries the key; ``feature`` is the one by which the collection's resources can be named."""
        longest = 63
        if feature is not None:
            limit = (await self._need(collection, feature)).find("constraint[@name='max_length']")
            with understood("entry point"):
                longest = min(longest, int(limit.text or "")) if limit is not None else longest
        return note(key, name) if self._about.free_names else name_for(key, name, longest=longest)

    async def _labels(self, element: etree._Element, *keys: Key) -> tuple[Key, str]:
        """The key and the name of a resource; ``keys`` are those that it may have besides the ones remembered."""
        text = _text(element, "name")
        key, name = noted(text)
        return (key, name) if key else (key_in(text, [*keys, *await self._known_keys()]), text)

    # --- HTTP ---

    async def _collections(self) -> dict[str, etree._Element]:
        """The links of the entry point, by collection."""
        if self._entry is None:
            self._entry = await self._get("", "api")
        return {link.get("rel", ""): link for link in self._entry.iterfind("link")}

    async def _need(self, collection: str, feature: str) -> etree._Element:
        links = await self._collections()
        found = links[collection].find(f"feature[@name='{feature}']") if collection in links else None
        if found is None:
            raise Unsupported(f"the driver's {collection} lack the feature {feature}")
        return found

    async def _all(self, collection: str, element: str) -> list[etree._Element]:
        if collection not in await self._collections():
            raise Unsupported(f"the driver has no {collection}")
        return (await self._get(f"/{collection}", collection)).findall(element)

    async def _get(self, path: str, root: str) -> etree._Element:
        return xml_of((await self._ask("GET", path)).content, root)

    async def _post(self, path: str, order: Mapping[str, str], root: str) -> etree._Element:
        return xml_of((await self._ask("POST", path, data=order)).content, root)

    async def _sign(self, request: httpx.Request) -> None:
        await self._basic(request)
        if self._about.driver:
            request.headers["x-deltacloud-driver"] = self._about.driver
        if self._about.provider:
            request.headers["x-deltacloud-provider"] = self._about.provider

    def _refusal(self, response: httpx.Response) -> tuple[str, str]:
        return "", _text(xml_of(response.content, "error"), "message")


def _text(element: etree._Element, path: str) -> str:
    return (element.findtext(path) or "").strip()


def _actions(element: etree._Element) -> set[str]:
    return {link.get("rel", "") for link in element.iterfind("actions/link")}


def _gone(element: etree._Element) -> bool:
    return _text(element, "state").upper() == "FINISH"


def _size(profile: etree._Element, prices: Mapping[str, Decimal]) -> Size | None:
    """A hardware profile with its default values; None for one that tells no cores or no memory."""
    values = {one.get("name"): one.get("value") for one in profile.iterfind("property")}
    if not values.get("cpu") or not values.get("memory"):
        return None
    with understood("hardware profile"):
        cores, memory = ceil(Decimal(str(values["cpu"]))), int(Decimal(str(values["memory"])))
        name = profile.attrib["id"]
        return Size(name=name, cores=cores, memory_mib=memory, price_per_hour=prices.get(name))


def _machine(element: etree._Element, labels: tuple[Key, str], attached: Mapping[str, tuple[str, ...]]) -> Machine:
    state = _text(element, "state")
    with understood("instance"):
        machine_id = element.attrib["id"]
        profile, image = element.find("hardware_profile"), element.find("image")
        host = _text(element, "public_addresses/address") or _text(element, "private_addresses/address")
        return Machine(
            id=machine_id,
            name=labels[1] or machine_id,
            key=labels[0],
            status=_STATES.get(state.upper(), Status.PENDING),
            size=profile.attrib["id"] if profile is not None else "unknown",
            image=image.attrib["id"] if image is not None else None,
            host=host or None,
            volumes=attached.get(machine_id, ()),
            problem=f"the server says {state}" if state.upper() == "ERROR" else None,
        )


def _volume(element: etree._Element, labels: tuple[Key, str]) -> Volume:
    with understood("storage volume"):
        machine, device = element.find("mount/instance"), element.find("mount/device")
        capacity = element.find("capacity")
        if capacity is None or capacity.get("unit") != "GB":
            raise ProtocolError("the answer is no storage volume: its capacity is not in GB")
        status = _VOLUME_STATES.get(_text(element, "state").upper(), Status.PENDING)
        return Volume(
            id=element.attrib["id"],
            name=labels[1],
            key=labels[0],
            status=Status.ATTACHED if machine is not None else status,
            size_mib=int(Decimal(capacity.text or "") * GIB),
            machine=machine.attrib["id"] if machine is not None else None,
            device=device.attrib["name"].lstrip("/") if device is not None else None,
        )


def _group(element: etree._Element, labels: tuple[Key, str]) -> SecurityGroup:
    with understood("firewall"):
        rules = [rule for one in element.iterfind("rules/rule") for rule in _rules(one)]
        return SecurityGroup(
            id=element.attrib["id"], name=labels[1], key=labels[0], status=Status.ACTIVE, rules=tuple(rules)
        )


def _rules(element: etree._Element) -> list[Rule]:
    """A firewall's rule as ours: one for each source; rules for groups, ranges and other protocols are left out."""
    first, last = _text(element, "port_from"), _text(element, "port_to")
    if _text(element, "allow_protocol") != "tcp" or first != last:
        return []
    sources = [one for one in element.iterfind("sources/source") if one.get("type") == "address"]
    return [Rule(port=int(first), cidr=f"{one.attrib['address']}/{one.attrib['prefix']}") for one in sources]
