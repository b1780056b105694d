"""Hetzner Cloud, through its own library, ``hcloud``.

All resources have labels, which hold key and name (:func:`vendor_modules.labels.packed`), and all of the library's
clients have the same calls: what differs from kind to kind is in the ``_create_…`` methods, and in how each is told.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from decimal import Decimal
from http import HTTPStatus
from pathlib import Path
from traceback import walk_tb
from typing import Any, ClassVar, TypeVar

import hcloud
from hcloud import APIException, Client
from hcloud.firewalls import Firewall, FirewallRule
from hcloud.images import Image as CloudImage
from hcloud.locations import Location
from hcloud.networks import Network as CloudNetwork
from hcloud.networks import NetworkSubnet
from hcloud.server_types import ServerType
from hcloud.ssh_keys import SSHKey
from hcloud.volumes import Volume as CloudVolume
from requests import Response

from descriptors.application import Label
from descriptors.deployment import Kind
from vendor_modules.abilities import Ability, Requirement
from vendor_modules.blocking import Pool
from vendor_modules.capabilities import (
    Addresses,
    Attachments,
    FirstBoot,
    KeyPairs,
    MachineBundle,
    Networks,
    Power,
    SecurityGroups,
)
from vendor_modules.errors import (
    Conflict,
    Forbidden,
    InvalidRequest,
    NotFound,
    ProtocolError,
    QuotaExceeded,
    Throttled,
    TimedOut,
    Unauthorized,
    Unavailable,
    Unsupported,
    VendorError,
    by_status,
)
from vendor_modules.labels import KEY, NAME, name_for, packed, unpacked
from vendor_modules.libcloud.errors import translate
from vendor_modules.module import HttpSettings, ModuleSettings, Proof, VendorModule
from vendor_modules.resources import (
    Address,
    Catalogue,
    DiskFormat,
    Image,
    Key,
    KeyPair,
    Machine,
    MachineSpec,
    Network,
    Rule,
    SecurityGroup,
    Size,
    Status,
    Volume,
    VolumeSpec,
)
from vendor_modules.services import Services
from vendor_modules.services.credentials import resolve
from vendor_modules.userdata import PORT, script

T = TypeVar("T")

_LIBRARY = str(Path(hcloud.__file__).parent)
_LISTENING = 20.0
"""Seconds that a machine has to end when it is asked to, before it is made to."""
_LARGEST_USER_DATA = 32 * 1024
_GIB_PER_TB = Decimal(10**12) / 2**30
_CLIENTS: Mapping[Kind, str] = {
    "machine": "servers",
    "volume": "volumes",
    "image": "images",
    "key-pair": "ssh_keys",
    "security-group": "firewalls",
    "address": "floating_ips",
    "network": "networks",
}
_MACHINES = {"running": Status.ACTIVE, "off": Status.STOPPED}
_IMAGES = {"available": Status.ACTIVE, "unavailable": Status.ERROR}
_ERRORS: Mapping[str, type[VendorError]] = {
    "unauthorized": Unauthorized,
    "token_readonly": Forbidden,
    "forbidden": Forbidden,
    "not_found": NotFound,
    "invalid_input": InvalidRequest,
    "json_error": InvalidRequest,
    "unsupported_error": Unsupported,
    "resource_limit_exceeded": QuotaExceeded,
    "conflict": Conflict,
    "locked": Conflict,
    "protected": Conflict,
    "resource_in_use": Conflict,
    "uniqueness_error": Conflict,
    "timeout": TimedOut,
}
"""By the code; others are told by the HTTP status. https://docs.hetzner.cloud/reference/cloud#errors"""


class HetznerSettings(HttpSettings):
    """Where machines are."""

    region: Label
    """The location's name, such as ``fsn1``."""
    jurisdiction: Label
    """Whose law holds there, such as ``EU``."""
    url: str = "https://api.hetzner.cloud/v1"
    """Where the API is."""


class HetznerModule(
    Power, FirstBoot, Attachments, MachineBundle, KeyPairs, SecurityGroups, Addresses, Networks, VendorModule
):
    """Servers with volumes, snapshots as images, firewalls, floating addresses and networks."""

    title = "Hetzner Cloud"
    proof = Proof.PROTOCOL_ONLY
    proven_by = "The conformance suite on a server of the published API; unproven against a live service."
    known_limits = (
        "The password of the credentials is an API token; the user name is not looked at.",
        "A volume appears in the server as /dev/disk/by-id/scsi-0HC_Volume_ID, whatever device is asked for.",
        "A floating address reaches a server only when the server's own configuration has it.",
        "The price of traffic is that of what exceeds the amount included.",
        "Load balancers, object storage, quotas and usage are not offered here.",
    )
    abilities: ClassVar[Mapping[str, Ability]] = {
        "create_volume": Ability(note="sizes are rounded up to whole GiB, 10 at least"),
        "destroy_volume": Ability(requires=(Requirement.DETACHED,)),
        "attach_volume": Ability(requires=(Requirement.SAME_ZONE,), note="the device cannot be chosen"),
        "bundle_machine": Ability(requires=(Requirement.STOPPED,)),
        "destroy_security_group": Ability(requires=(Requirement.UNUSED,)),
        "destroy_network": Ability(requires=(Requirement.UNUSED,)),
    }
    Settings: ClassVar[type[ModuleSettings]] = HetznerSettings
    credential_kinds = ("password", "external")
    settle_timeout = 180.0

    def __init__(self, vendor: str, settings: ModuleSettings, services: Services) -> None:
        super().__init__(vendor, settings, services)
        self._pool: Pool[Client] = Pool(disconnect=_close)
        self._login: Callable[[], Client] | None = None
        self._worked = False

    @property
    def _settings(self) -> HetznerSettings:
        assert isinstance(self.settings, HetznerSettings)  # noqa: S101 - the registry makes them from Settings
        return self.settings

    # --- what it sells ---

    async def _catalogue(self) -> Catalogue:
        region = self._settings.region
        types = await self._run(lambda client: client.server_types.get_all())
        pricing = (await self._run(lambda client: client.request("GET", "/pricing")))["pricing"]
        local = {kind.name: price for kind in types for price in kind.prices or () if price["location"] == region}
        sizes = tuple(
            Size(
                name=kind.name,
                cores=kind.cores,
                memory_mib=int((kind.memory or 0) * 1024),
                price_per_hour=Decimal(local[kind.name]["price_hourly"]["net"]),
            )
            for kind in types
            if kind.name in local and _sold(kind, region)
        )
        egress = max((Decimal(price["price_per_tb_traffic"]["net"]) for price in local.values()), default=Decimal(0))
        return Catalogue(
            region=region,
            jurisdiction=self._settings.jurisdiction,
            currency=pricing["currency"],
            sizes=sizes,
            block_gib_month=Decimal(pricing["volume"]["price_per_gb_month"]["net"]),
            egress_per_gib=round(egress / _GIB_PER_TB, 6),
        )

    # --- machines ---

    async def _create_machine(self, spec: MachineSpec, key: Key) -> Machine:
        chosen: dict[str, Any] = {
            "server_type": ServerType(name=spec.size),
            "image": CloudImage(id=_number("image", spec.image)),
            "location": Location(name=self._settings.region),
            "ssh_keys": [SSHKey(id=_number("key pair", spec.key_pair))] if spec.key_pair else None,
            "firewalls": [Firewall(id=_number("security group", one)) for one in spec.security_groups],
            "networks": [CloudNetwork(id=_number("network", one)) for one in spec.networks],
            "volumes": [CloudVolume(id=_number("volume", one.volume)) for one in spec.volumes],
            "automount": False if spec.volumes else None,
        }
        if spec.user_data is not None:
            chosen["user_data"] = script(spec.user_data, largest=_LARGEST_USER_DATA).decode()
        return _machine(
            await self._made(
                "machine", key, spec.name, lambda client, known: client.servers.create(**known, **chosen).server
            )
        )

    async def _describe_machine(self, machine_id: str) -> Machine:
        return _machine(await self._one("machine", machine_id))

    async def _list_machines(self) -> list[Machine]:
        return [_machine(server) for server in await self._all("machine")]

    async def _destroy_machine(self, machine_id: str) -> None:
        await self._removed("machine", machine_id)

    async def _start_machine(self, machine_id: str) -> None:
        server = await self._one("machine", machine_id)
        if server.status != "running":
            await self._run(lambda client: client.servers.power_on(server))

    async def _stop_machine(self, machine_id: str) -> None:
        server = await self._one("machine", machine_id)
        if server.status == "off":
            return
        await self._run(lambda client: client.servers.shutdown(server))
        end = time.monotonic() + _LISTENING
        while (await self._one("machine", machine_id)).status != "off":
            if time.monotonic() > end:
                await self._run(lambda client: client.servers.power_off(server))
                return
            await asyncio.sleep(0.5)

    async def _bundle_machine(self, machine_id: str, name: str, key: Key) -> Image:
        def snapshot(client: Client, known: dict[str, Any]) -> Any:
            server = client.servers.get_by_id(_number("machine", machine_id))
            if server.status != "off":
                raise Conflict(f"machine {machine_id} is not stopped")
            made = client.servers.create_image(server, known["name"], "snapshot", known["labels"])
            return made.image

        return _image(await self._made("image", key, name, snapshot))

    # --- volumes ---

    async def _create_volume(self, spec: VolumeSpec, key: Key) -> Volume:
        if spec.image or spec.snapshot:
            raise Unsupported("volumes cannot be made from images or snapshots")
        size = max(10, -(-spec.size_mib // 1024))
        here = Location(name=self._settings.region)
        return _volume(
            await self._made(
                "volume",
                key,
                spec.name,
                lambda client, known: client.volumes.create(size=size, location=here, **known).volume,
            )
        )

    async def _describe_volume(self, volume_id: str) -> Volume:
        return _volume(await self._one("volume", volume_id))

    async def _list_volumes(self) -> list[Volume]:
        return [_volume(volume) for volume in await self._all("volume")]

    async def _destroy_volume(self, volume_id: str) -> None:
        if server := (await self._one("volume", volume_id)).server:
            raise Conflict(f"volume {volume_id} is attached to machine {server.id}")
        await self._removed("volume", volume_id)

    async def _attach_volume(self, volume_id: str, machine_id: str, device: str) -> None:
        def attach(client: Client) -> None:
            volume = client.volumes.get_by_id(_number("volume", volume_id))
            server = client.servers.get_by_id(_number("machine", machine_id))
            if volume.server is None:
                client.volumes.attach(volume, server, automount=False)
            elif volume.server.id != server.id:
                raise Conflict(f"volume {volume_id} is attached to machine {volume.server.id}")

        await self._run(attach, key=f"attach {volume_id}")

    async def _detach_volume(self, volume_id: str) -> None:
        def detach(client: Client) -> None:
            volume = client.volumes.get_by_id(_number("volume", volume_id))
            if volume.server is not None:
                client.volumes.detach(volume)

        await self._run(detach, key=f"attach {volume_id}")

    # --- images and key pairs ---

    async def _describe_image(self, image_id: str) -> Image:
        return _image(await self._one("image", image_id))

    async def _list_images(self) -> list[Image]:
        return [_image(image) for image in await self._all("image")]

    async def _destroy_image(self, image_id: str) -> None:
        await self._removed("image", image_id)

    async def _create_key_pair(self, name: str, public_key: str, key: Key) -> KeyPair:
        def create(client: Client, known: dict[str, Any]) -> Any:
            return client.ssh_keys.create(public_key=public_key, **known)

        return _key_pair(await self._made("key-pair", key, name, create))

    async def _describe_key_pair(self, key_pair_id: str) -> KeyPair:
        return _key_pair(await self._one("key-pair", key_pair_id))

    async def _list_key_pairs(self) -> list[KeyPair]:
        return [_key_pair(pair) for pair in await self._all("key-pair")]

    async def _destroy_key_pair(self, key_pair_id: str) -> None:
        await self._removed("key-pair", key_pair_id)

    # --- firewalls, addresses, networks ---

    async def _create_security_group(self, name: str, rules: tuple[Rule, ...], key: Key) -> SecurityGroup:
        allowed = [FirewallRule("in", "tcp", [rule.cidr], str(rule.port)) for rule in rules]

        def create(client: Client, known: dict[str, Any]) -> Any:
            return client.firewalls.create(rules=allowed, **known).firewall

        return _group(await self._made("security-group", key, name, create))

    async def _describe_security_group(self, group_id: str) -> SecurityGroup:
        return _group(await self._one("security-group", group_id))

    async def _list_security_groups(self) -> list[SecurityGroup]:
        return [_group(firewall) for firewall in await self._all("security-group")]

    async def _destroy_security_group(self, group_id: str) -> None:
        await self._removed("security-group", group_id)

    async def _create_address(self, name: str, key: Key) -> Address:
        here = Location(name=self._settings.region)

        def create(client: Client, known: dict[str, Any]) -> Any:
            return client.floating_ips.create("ipv4", home_location=here, **known).floating_ip

        return _address(await self._made("address", key, name, create))

    async def _describe_address(self, address_id: str) -> Address:
        return _address(await self._one("address", address_id))

    async def _list_addresses(self) -> list[Address]:
        return [_address(address) for address in await self._all("address")]

    async def _associate_address(self, address_id: str, machine_id: str | None) -> None:
        def lead(client: Client) -> None:
            address = client.floating_ips.get_by_id(_number("address", address_id))
            if machine_id is not None:
                server = client.servers.get_by_id(_number("machine", machine_id))
                client.floating_ips.assign(address, server)
            elif address.server is not None:
                client.floating_ips.unassign(address)

        await self._run(lead)

    async def _destroy_address(self, address_id: str) -> None:
        await self._removed("address", address_id)

    async def _create_network(self, name: str, cidr: str, key: Key) -> Network:
        def create(client: Client, known: dict[str, Any]) -> Any:
            location = client.locations.get_by_name(self._settings.region)
            if location is None:
                raise InvalidRequest(f"there is no location {self._settings.region!r}")
            subnet = NetworkSubnet(type="cloud", ip_range=cidr, network_zone=location.network_zone)
            return client.networks.create(ip_range=cidr, subnets=[subnet], **known)

        return _network(await self._made("network", key, name, create))

    async def _describe_network(self, network_id: str) -> Network:
        return _network(await self._one("network", network_id))

    async def _list_networks(self) -> list[Network]:
        return [_network(network) for network in await self._all("network")]

    async def _destroy_network(self, network_id: str) -> None:
        # the provider would take its machines out of it without a word
        if (await self._one("network", network_id)).servers:
            raise Conflict(f"network {network_id} has machines in it")
        await self._removed("network", network_id)

    # --- the same for all kinds ---

    async def _one(self, kind: Kind, resource_id: str) -> Any:
        number = _number(kind, resource_id)
        return await self._run(lambda client: getattr(client, _CLIENTS[kind]).get_by_id(number))

    async def _all(self, kind: Kind) -> list[Any]:
        return await self._run(lambda client: list(getattr(client, _CLIENTS[kind]).get_all()))

    async def _removed(self, kind: Kind, resource_id: str) -> None:
        def remove(client: Client) -> None:
            clients = getattr(client, _CLIENTS[kind])
            clients.delete(clients.get_by_id(_number(kind, resource_id)))

        await self._run(remove)

    async def _made(self, kind: Kind, key: Key, name: str, create: Callable[[Client, dict[str, Any]], Any]) -> Any:
        """The resource of that key; if there is none, what ``create`` makes with the ``name`` and ``labels`` given."""
        labels = packed(key, name)
        selector = ",".join(f"{label}={value}" for label, value in labels.items() if label.startswith(KEY))

        def known(client: Client) -> Any | None:
            found = getattr(client, _CLIENTS[kind]).get_all(label_selector=selector)
            # a longer key may have the same first labels
            return next((one for one in found if unpacked(one.labels).get(KEY) == key), None)

        def make(client: Client) -> Any:
            if (one := known(client)) is not None:
                return one
            try:
                return create(client, {"name": name_for(key, name), "labels": labels})
            except APIException as error:
                # the request may have arrived twice: the name is this key's
                if error.code == "uniqueness_error" and (one := known(client)) is not None:
                    return one
                raise

        return await self._run(make, key=f"{kind} {key}")

    # --- running the library ---

    async def _run(self, call: Callable[[Client], T], *, key: str | None = None) -> T:
        """The result of ``call`` in a thread. A login that worked and then does not is made once anew, with what the
        credentials service then says."""
        renewed = False
        while True:
            login = await self._logged_in()
            try:
                result = await self._pool.run(call, key=key, connect=login)
            except Exception as error:
                failed = self._translate(error)
                if failed is None:
                    raise
            else:
                self._worked = True
                return result
            if isinstance(failed, Unauthorized):
                again = self._worked and not renewed
                self._login = None if self._login is login else self._login
                if again:
                    renewed = True
                    continue
            # without where it came from: the library's errors hold requests, and these the token
            failed.__cause__ = failed.__context__ = None
            raise failed

    async def _logged_in(self) -> Callable[[], Client]:
        token = resolve(await self._credentials()).password.get_secret_value() if self._login is None else ""
        if self._login is None:
            # no partial: that would show the token when it is printed
            self._login, self._worked = lambda: self._client(token), False
        return self._login

    async def _close(self) -> None:
        await self._pool.close()

    def _client(self, token: str) -> Client:
        client = Client(token, self._settings.url, timeout=self.call_timeout + 1)
        client._client._retry_max_retries = 0  # repeating is the base's, which knows when it may
        session = client._client._session
        session.trust_env = False
        session.hooks["response"].append(_throttled)
        if self._settings.proxy:
            session.proxies = {"http": self._settings.proxy, "https": self._settings.proxy}
        return client

    def _translate(self, error: Exception) -> VendorError | None:
        if isinstance(error, VendorError):
            return error
        if isinstance(error, APIException):
            return _refusal(error)
        if any(frame.f_code.co_filename.startswith(_LIBRARY) for frame, _ in walk_tb(error.__traceback__)):
            return translate(error) or ProtocolError(f"the answer cannot be read: {type(error).__name__}: {error}")
        return super()._translate(error)


def _close(client: Client) -> None:
    client._client._session.close()


def _throttled(response: Response, **_: Any) -> None:
    """Called with every answer: the library tells nobody when to come back."""
    if response.status_code == HTTPStatus.TOO_MANY_REQUESTS:
        after, reset = (response.headers.get(name, "") for name in ("Retry-After", "RateLimit-Reset"))
        pause = float(after) if after.isdecimal() else float(reset) - time.time() if reset.isdecimal() else 1.0
        response.close()
        raise Throttled("too many requests", retry_after=max(pause, 1.0))


def _refusal(error: APIException) -> VendorError:
    if isinstance(error.code, int):
        return ProtocolError("the answer is no JSON") if error.code < 400 else by_status(error.code, str(error.message))
    return _ERRORS.get(error.code, Unavailable if error.code in _PASSING else InvalidRequest)(error.message)


_PASSING = ("unavailable", "maintenance", "service_error", "server_error", "resource_unavailable", "bad_gateway")


def _sold(kind: Any, region: str) -> bool:
    """Whether a server type can be had there now, and will be."""
    here = [place for place in kind.locations or () if place.location.name == region]
    return any(place.deprecation is None and place.available is not False for place in here)


def _number(kind: str, resource_id: str) -> int:
    """Ids are numbers; what is none is the id of nothing."""
    if not (resource_id.isascii() and resource_id.isdecimal() and len(resource_id) < 19):
        raise NotFound(f"there is no {kind} {resource_id!r}")
    return int(resource_id)


# --- what the library tells, in the words that all modules share ---


def _named(resource: Any, status: Status = Status.ACTIVE) -> dict[str, Any]:
    ours = unpacked(resource.labels)
    name = ours.get(NAME) or resource.name or getattr(resource, "description", None) or str(resource.id)
    return {"id": str(resource.id), "name": name, "key": ours.get(KEY, ""), "status": status}


def _machine(server: Any) -> Machine:
    private = [net.ip for net in server.private_net]
    public = [server.public_net.ipv4.ip] if server.public_net and server.public_net.ipv4 else []
    host = next(iter([*private, *public]), None)
    return Machine(
        **_named(server, _MACHINES.get(server.status, Status.PENDING)),
        size=server.server_type.name,
        image=str(server.image.id) if server.image else None,
        host=host,
        port=PORT if host else None,
        volumes=tuple(str(volume.id) for volume in server.volumes),
    )


def _volume(volume: Any) -> Volume:
    made = Status.ATTACHED if volume.server else Status.ACTIVE
    return Volume(
        **_named(volume, made if volume.status == "available" else Status.PENDING),
        size_mib=volume.size * 1024,
        machine=str(volume.server.id) if volume.server else None,
    )


def _image(image: Any) -> Image:
    return Image(
        **_named(image, _IMAGES.get(image.status, Status.PENDING)),
        format=DiskFormat.RAW,
        public=image.type in ("system", "app"),
    )


def _key_pair(pair: Any) -> KeyPair:
    return KeyPair(**_named(pair), public_key=pair.public_key, fingerprint=pair.fingerprint)


def _group(firewall: Any) -> SecurityGroup:
    rules = [rule for rule in firewall.rules if rule.direction == "in" and rule.protocol == "tcp"]
    return SecurityGroup(
        **_named(firewall),
        rules=tuple(
            Rule(port=int(rule.port), cidr=cidr)
            for rule in rules
            if rule.port.isdecimal()  # ranges of ports are not ours
            for cidr in rule.source_ips
        ),
    )


def _address(address: Any) -> Address:
    return Address(**_named(address), host=address.ip, machine=str(address.server.id) if address.server else None)


def _network(network: Any) -> Network:
    return Network(**_named(network), cidr=network.ip_range)
