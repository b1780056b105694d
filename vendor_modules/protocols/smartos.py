"""Triton (SmartOS), by the published CloudAPI 9: JSON over HTTP, every request signed with an SSH key of the account.

Its words: a *package* is a size, a *fabric network* a private network on a VLAN of the account's own. A security group
is made of firewall rules for a tag, which the group's machines bear.
"""

from __future__ import annotations

import re
from base64 import b64decode, b64encode
from collections.abc import Mapping
from contextlib import suppress
from decimal import Decimal
from email.utils import formatdate
from hashlib import md5
from ipaddress import ip_network
from typing import Any, ClassVar

import httpx
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import ECDSA, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_ssh_private_key,
)
from pydantic import Field

from descriptors.application import Label
from descriptors.base import Currency, Identifier, Money
from vendor_modules.abilities import Ability, Requirement, Support
from vendor_modules.capabilities import FirstBoot, MachineBundle, Networks, Power, Quotas, SecurityGroups
from vendor_modules.errors import (
    Conflict,
    Forbidden,
    InvalidRequest,
    NotFound,
    QuotaExceeded,
    Throttled,
    Unauthorized,
    Unsupported,
    VendorError,
)
from vendor_modules.http import EndpointSettings, HttpModule, json_of, objects_of, segment, understood
from vendor_modules.labels import KEY, NAME, name_for
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
    Network,
    Quota,
    Rule,
    SecurityGroup,
    Size,
    Status,
)
from vendor_modules.services import Services
from vendor_modules.services.credentials import KeyPairCredentials
from vendor_modules.userdata import script

PAGE = 1000
"""Machines on a page of a list at most: the API's own limit."""
GROUP = "cloud-agency-group-"
"""How the tags of security groups begin."""
_VLANS = "/fabrics/default/vlans"
OnFabric = tuple[dict[str, Any], dict[str, Any] | None]
"""A VLAN, and a network on it."""
_STATES = {"running": Status.ACTIVE, "stopped": Status.STOPPED, "failed": Status.ERROR}
_IMAGE_STATES = {"active": Status.ACTIVE, "creating": Status.PENDING, "unactivated": Status.PENDING}
_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)
_RULE = re.compile(
    r"FROM (?:any|(?:subnet|ip) (?P<net>\S+)) TO tag .* ALLOW tcp \(?PORT (?P<port>\d+)\)?.*", re.IGNORECASE
)
_TAG = re.compile(rf'TO tag "?(?P<tag>{GROUP}[0-9a-z-]+)"?', re.IGNORECASE)


class SmartosSettings(EndpointSettings):
    """Which account of which data centre, and what is to be known of it."""

    account: Label
    """The account's login name."""
    user: Label | None = None
    """The login name of the account's sub-user whose key it is; None: the account's own key."""
    region: Label = "us-east-1"
    """The name of the data centre."""
    jurisdiction: Label = "US"
    """Whose law applies there."""
    currency: Currency = "USD"
    """The currency of the prices."""
    prices: dict[Identifier, Money] = Field(default_factory=dict)
    """Prices of packages, an hour; the API tells none, and one that is not here is unknown."""
    external_network: str | None = None
    """The id of a public network that machines in private networks are attached to as well."""


class SmartosModule(Power, FirstBoot, MachineBundle, SecurityGroups, Networks, Quotas, HttpModule):
    """A data centre run by Triton."""

    title = "Triton (SmartOS)"
    proof = Proof.PROTOCOL_ONLY
    proven_by = "A stub server of the published CloudAPI 9; unproven against a live service."
    known_limits = (
        "Key pairs are not offered: CloudAPI knows keys of the account only, and whoever has one can sign API calls.",
        "Volumes are not offered: the API's are NFS directories, no block devices.",
        "User data reaches machines whose image has cloud-init.",
        "Machines without a security group have their firewall off.",
        "The firewall service may refuse descriptions that are longer than 255 characters: names of groups and keys.",
    )
    abilities: ClassVar[Mapping[str, Ability]] = {
        "bundle_machine": Ability(requires=(Requirement.STOPPED,)),
        "create_security_group": Ability(Support.EMULATED, note="A call for each rule, and one more."),
        "describe_security_group": Ability(Support.EMULATED, note="All firewall rules are read."),
        "list_security_groups": Ability(Support.EMULATED, note="All firewall rules are read."),
        "destroy_security_group": Ability(Support.EMULATED, note="A call for each rule, and three more."),
        "create_network": Ability(Support.EMULATED, note="A VLAN is made, and a fabric network on it."),
        "describe_network": Ability(Support.EMULATED, note="A call for each VLAN, and one more."),
        "list_networks": Ability(Support.EMULATED, note="A call for each VLAN, and one more."),
        "destroy_network": Ability(Support.EMULATED, note="The fabric network and its VLAN are removed."),
    }
    prices = PriceSource.SETTINGS
    Settings = SmartosSettings
    credential_kinds = ("key-pair",)
    by_code: ClassVar[Mapping[str, type[VendorError]]] = {
        "CannotDestroyMachine": Conflict,
        "InUse": Conflict,
        "InUseError": Conflict,
        "InvalidArgument": InvalidRequest,
        "InvalidCredentials": Unauthorized,
        "InvalidState": Conflict,
        "MissingParameter": InvalidRequest,
        "NotAuthorized": Forbidden,
        "NotAvailable": Unsupported,
        "QuotaExceeded": QuotaExceeded,
        "RequestThrottled": Throttled,
        "ResourceNotFound": NotFound,
    }

    def __init__(self, vendor: str, settings: ModuleSettings, services: Services) -> None:
        """See :class:`~vendor_modules.module.VendorModule`."""
        super().__init__(vendor, settings, services)
        assert isinstance(settings, SmartosSettings)  # noqa: S101 - the registry makes them from Settings
        self._about = settings
        self._base += f"/{segment(settings.account)}"

    # --- what it sells ---

    async def _catalogue(self) -> Catalogue:
        return Catalogue(
            region=self._about.region,
            jurisdiction=self._about.jurisdiction,
            currency=self._about.currency,
            sizes=tuple(_size(package, self._about.prices) for package in await self._packages()),
        )

    async def _quotas(self) -> list[Quota]:
        try:
            limits = await self._items("/limits", "limits")
        except NotFound:
            raise Unsupported("the data centre's operator has not turned limits on") from None
        names = {"machines": "machines", "ram": "memory-mib"}
        with understood("limit"):
            return [
                Quota(resource=names.get(limit["by"], limit["by"]), limit=limit["value"], used=limit.get("used"))
                for limit in limits
                if "check" not in limit  # those are for machines of one image or system only
            ]

    # --- machines ---

    async def _create_machine(self, spec: MachineSpec, key: Key) -> Machine:
        return await self._once(f"machine/{key}", lambda: self._made_machine(spec, key))

    async def _made_machine(self, spec: MachineSpec, key: Key) -> Machine:
        if made := await self._sole("machine", await self._machines({f"tag.{KEY}": key}), key):
            if made.status is Status.STOPPED:
                await self._start_machine(made.id)
            return made
        order: dict[str, Any] = {
            "name": name_for(key, spec.name),
            "package": await self._package_id(spec.size),
            "image": _uuid(spec.image),
            f"tag.{KEY}": key,
            f"tag.{NAME}": spec.name,
            "firewall_enabled": bool(spec.security_groups),
        }
        for group in spec.security_groups:
            order[f"tag.{(await self._describe_security_group(group)).id}"] = "true"
        if spec.networks:
            order["networks"] = [await self._network_to_join(network) for network in spec.networks]
            order["networks"] += [self._about.external_network] if self._about.external_network else []
        if spec.user_data is not None:
            order["metadata.cloud-init:user-data"] = script(spec.user_data).decode()
        try:
            return await self._machine(await self._post("/machines", order))
        except InvalidRequest:  # names are unique: an order that was delivered twice is refused the second time
            if made := await self._sole("machine", await self._machines({f"tag.{KEY}": key}), key):
                return made
            raise

    async def _network_to_join(self, network_id: str) -> str:
        network = await self._describe_network(network_id)
        if network.status is not Status.ACTIVE:
            raise Conflict(f"network {network_id} is not complete")
        return network.id

    async def _describe_machine(self, machine_id: str) -> Machine:
        return await self._machine(await self._get(f"/machines/{_uuid(machine_id)}"))

    async def _list_machines(self) -> list[Machine]:
        return await self._machines({})

    async def _destroy_machine(self, machine_id: str) -> None:
        await self._ask("DELETE", f"/machines/{_uuid(machine_id)}")

    async def _start_machine(self, machine_id: str) -> None:
        await self._power(machine_id, "start", Status.ACTIVE)

    async def _stop_machine(self, machine_id: str) -> None:
        await self._power(machine_id, "stop", Status.STOPPED)

    async def _power(self, machine_id: str, action: str, wanted: Status) -> None:
        if (await self._describe_machine(machine_id)).status is not wanted:
            await self._ask("POST", f"/machines/{_uuid(machine_id)}", params={"action": action})

    async def _machines(self, query: Mapping[str, str]) -> list[Machine]:
        """All pages of a list of machines."""
        found: dict[str, Machine] = {}
        offset = 0
        while True:
            response = await self._ask("GET", "/machines", params={**query, "offset": offset, "limit": PAGE})
            page = objects_of(json_of(response), "machines")
            with understood("list of machines"):
                limit = int(response.headers.get("x-query-limit", PAGE))
                gone = [item for item in page if item["state"] == "deleted"]
            for item in page:
                if item not in gone:
                    machine = await self._machine(item)
                    found[machine.id] = machine
            offset += len(page)
            if not page or len(page) < limit:
                return list(found.values())

    async def _machine(self, item: dict[str, Any]) -> Machine:
        with understood("machine"):
            if item["state"] == "deleted":
                raise NotFound(f"machine {item['id']} is deleted")
            tags = item.get("tags") or {}
            package = str(item["package"])
            status = _STATES.get(item["state"], Status.PENDING)
        if _UUID.fullmatch(package):
            package = {p["id"]: p["name"] for p in await self._packages()}.get(package, package)
        with understood("machine"):
            return Machine(
                id=item["id"],
                name=tags.get(NAME) or item["name"],
                key=tags.get(KEY, ""),
                status=status,
                size=package,
                image=item["image"],
                host=item.get("primaryIp"),
                problem="provisioning failed" if status is Status.ERROR else None,
            )

    async def _packages(self) -> list[dict[str, Any]]:
        packages = await self._items("/packages", "packages")
        with understood("package"):
            return [package for package in packages if package["id"] and package["name"]]

    async def _package_id(self, size: str) -> str:
        for package in await self._packages():
            if package["name"] == size:
                return str(package["id"])
        raise InvalidRequest(f"there is no package {size!r}")

    # --- images ---

    async def _bundle_machine(self, machine_id: str, name: str, key: Key) -> Image:
        return await self._once(f"image/{key}", lambda: self._bundled_machine(machine_id, name, key))

    async def _bundled_machine(self, machine_id: str, name: str, key: Key) -> Image:
        if made := await self._sole("image", await self._list_images(), key):
            return made
        if (machine := await self._describe_machine(machine_id)).status is not Status.STOPPED:
            raise Conflict(f"machine {machine_id} is {machine.status}: only stopped ones can be made an image of")
        order = {
            "machine": machine_id,
            "name": name_for(key, name),
            "version": "1.0.0",
            "tags": {KEY: key, NAME: name},
        }
        return _image(await self._post("/images", order))

    async def _describe_image(self, image_id: str) -> Image:
        return _image(await self._get(f"/images/{_uuid(image_id)}"))

    async def _list_images(self) -> list[Image]:
        return [_image(item) for item in await self._items("/images", "images", {"state": "all"})]

    async def _destroy_image(self, image_id: str) -> None:
        await self._ask("DELETE", f"/images/{_uuid(image_id)}")

    # --- security groups: the rules for a tag, and one that allows nothing and marks the group as complete ---

    async def _create_security_group(self, name: str, rules: tuple[Rule, ...], key: Key) -> SecurityGroup:
        return await self._once(f"security-group/{key}", lambda: self._made_group(name, rules, key))

    async def _made_group(self, name: str, rules: tuple[Rule, ...], key: Key) -> SecurityGroup:
        sources = {rule: _source(rule) for rule in rules}
        tag = name_for(key, "group").replace("group-", GROUP)
        there = {rule["rule"]: rule for rule in await self._rules_of(tag)}
        if any(not rule["enabled"] for rule in there.values()):
            return await self._describe_security_group(tag)
        held = {_rule(text) for text in there}
        for rule, source in sources.items():
            if rule not in held:
                await self._add_rule(f'FROM {source} TO tag "{tag}" ALLOW tcp PORT {rule.port}', key, name, True)
        await self._add_rule(f'FROM any TO tag "{tag}" BLOCK tcp PORT all', key, name, False)
        return await self._describe_security_group(tag)

    async def _add_rule(self, text: str, key: Key, name: str, enabled: bool) -> None:
        await self._post("/fwrules", {"rule": text, "enabled": enabled, "description": note(key, name)})

    async def _describe_security_group(self, group_id: str) -> SecurityGroup:
        rules = await self._rules_of(group_id)
        if not rules:
            raise NotFound(f"there is no security group {group_id!r}")
        return _group(group_id, rules)

    async def _list_security_groups(self) -> list[SecurityGroup]:
        groups: dict[str, list[dict[str, Any]]] = {}
        for rule in await self._all_rules():
            if tag := _TAG.search(rule["rule"]):
                groups.setdefault(tag["tag"], []).append(rule)
        return [_group(tag, rules) for tag, rules in groups.items()]

    async def _destroy_security_group(self, group_id: str) -> None:
        await self._describe_security_group(group_id)
        if users := await self._machines({f"tag.{group_id}": "true"}):
            raise Conflict(f"security group {group_id} is used by machine {users[0].id}")
        for rule in await self._rules_of(group_id):
            await self._ask("DELETE", f"/fwrules/{segment(rule['id'])}")

    async def _rules_of(self, tag: str) -> list[dict[str, Any]]:
        found = [(_TAG.search(rule["rule"]), rule) for rule in await self._all_rules()]
        return [rule for match, rule in found if match and match["tag"] == tag]

    async def _all_rules(self) -> list[dict[str, Any]]:
        rules = await self._items("/fwrules", "firewall rules")
        with understood("firewall rule"):
            return [
                {
                    "id": str(rule["id"]),
                    "rule": str(rule["rule"]),
                    "enabled": bool(rule["enabled"]),
                    "description": str(rule.get("description") or ""),
                }
                for rule in rules
            ]

    # --- networks: each a fabric network on a VLAN of its own, by whose number it is known ---

    async def _create_network(self, name: str, cidr: str, key: Key) -> Network:
        return await self._once(f"network/{key}", lambda: self._made_network(name, cidr, key))

    async def _made_network(self, name: str, cidr: str, key: Key) -> Network:
        try:
            net = ip_network(cidr)
            first, last = net.network_address + 1, net.broadcast_address - 1
        except ValueError:
            raise InvalidRequest(f"{cidr!r} is no range of IPv4 addresses") from None
        if net.version != 4 or net.num_addresses < 4:
            raise InvalidRequest(f"{cidr!r} is no range of IPv4 addresses with room for machines")
        vlan, network = next(
            ((v, n) for v, n in await self._on_fabric() if noted(v.get("description"))[0] == key), (None, None)
        )
        vlan = vlan or await self._free_vlan(name, key)
        if network is None:
            order = {
                "name": name_for(key, name),
                "subnet": str(net),
                "provision_start_ip": str(first),
                "provision_end_ip": str(last),
                "internet_nat": False,
            }
            network = await self._post(f"{_VLANS}/{vlan['vlan_id']}/networks", order)
        return _network(vlan, network)

    async def _free_vlan(self, name: str, key: Key) -> dict[str, Any]:
        """A new VLAN with the lowest number that is free; somebody else may take the same one at the same time."""
        while True:
            vlans = await self._vlans()
            if ours := next((vlan for vlan in vlans if noted(vlan.get("description"))[0] == key), None):
                return ours
            taken = {vlan["vlan_id"] for vlan in vlans}
            free = next((number for number in range(2, 4095) if number not in taken), None)
            if free is None:
                raise QuotaExceeded("the account's fabric has no free VLAN")
            order = {"vlan_id": free, "name": name_for(key, name), "description": note(key, name)}
            with suppress(Conflict):
                vlan: dict[str, Any] = await self._post(_VLANS, order)
                return vlan

    async def _describe_network(self, network_id: str) -> Network:
        return _network(*await self._fabric_network(network_id))

    async def _list_networks(self) -> list[Network]:
        return [_network(vlan, network) for vlan, network in await self._on_fabric()]

    async def _destroy_network(self, network_id: str) -> None:
        vlan, network = await self._fabric_network(network_id)
        path = f"{_VLANS}/{vlan['vlan_id']}"
        if network is not None:
            await self._ask("DELETE", f"{path}/networks/{segment(network['id'])}")
        await self._ask("DELETE", path)

    async def _fabric_network(self, network_id: str) -> OnFabric:
        """The network and its VLAN."""
        for vlan, network in await self._on_fabric():
            if _network(vlan, network).id == network_id:
                return vlan, network
        raise NotFound(f"there is no network {network_id!r}")

    async def _on_fabric(self) -> list[OnFabric]:
        """All fabric networks with their VLANs, and VLANs of ours whose network is not made yet or is gone."""
        found: list[OnFabric] = []
        for vlan in await self._vlans():
            with suppress(NotFound):  # gone since they were listed
                networks = await self._items(f"{_VLANS}/{vlan['vlan_id']}/networks", "networks")
                found += [(vlan, network) for network in networks]
                if not networks and noted(vlan.get("description"))[0]:
                    found.append((vlan, None))
        return found

    async def _vlans(self) -> list[dict[str, Any]]:
        vlans = await self._items(_VLANS, "VLANs")
        with understood("VLAN"):
            return [vlan for vlan in vlans if isinstance(vlan["vlan_id"], int)]

    # --- HTTP ---

    async def _get(self, path: str, query: Mapping[str, str] | None = None) -> Any:
        return json_of(await self._ask("GET", path, params=query))

    async def _items(self, path: str, what: str, query: Mapping[str, str] | None = None) -> list[dict[str, Any]]:
        return objects_of(await self._get(path, query), what)

    async def _post(self, path: str, order: Mapping[str, Any]) -> Any:
        return json_of(await self._ask("POST", path, json=order))

    async def _sign(self, request: httpx.Request) -> None:
        credentials = await self._credentials()
        if not isinstance(credentials, KeyPairCredentials):
            raise Unauthorized("a key pair is needed: the SSH key of the account, as a private key")
        date = formatdate(usegmt=True)
        algorithm, fingerprint, signature = signed(credentials.private_key.get_secret_value(), f"date: {date}")
        user = f"/users/{self._about.user}" if self._about.user else ""
        request.headers["accept-version"] = "~9||~8"
        request.headers["date"] = date
        request.headers["authorization"] = (
            f'Signature keyId="/{self._about.account}{user}/keys/{fingerprint}",algorithm="{algorithm}",'
            f'headers="date",signature="{signature}"'
        )

    def _refusal(self, response: httpx.Response) -> tuple[str, str]:
        answer = response.json()
        return str(answer["code"]), str(answer["message"])


def signed(private_key: str, text: str) -> tuple[str, str, str]:
    """The algorithm, the key's MD5 fingerprint and the signature (Base64) of the text, as HTTP signatures have them
    (draft-cavage-http-signatures). The key is an RSA or ECDSA key in PEM or OpenSSH form, without a passphrase;
    :class:`~vendor_modules.errors.Unauthorized` if it is not."""
    try:
        load = load_ssh_private_key if "BEGIN OPENSSH" in private_key else load_pem_private_key
        key = load(private_key.encode(), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise Unauthorized("the private key cannot be read: PEM or OpenSSH form, without a passphrase") from None
    if isinstance(key, RSAPrivateKey):
        algorithm, signature = "rsa-sha256", key.sign(text.encode(), PKCS1v15(), SHA256())
    elif isinstance(key, EllipticCurvePrivateKey):
        hashing = {256: SHA256(), 384: SHA384(), 521: SHA512()}.get(key.curve.key_size, SHA256())
        algorithm, signature = f"ecdsa-{hashing.name}", key.sign(text.encode(), ECDSA(hashing))
    else:
        raise Unauthorized("CloudAPI takes RSA and ECDSA keys only")
    blob = b64decode(key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).split()[1])
    digest = md5(blob, usedforsecurity=False).hexdigest()
    fingerprint = ":".join(digest[i : i + 2] for i in range(0, 32, 2))
    return algorithm, fingerprint, b64encode(signature).decode()


def _uuid(identifier: str) -> str:
    """The id, if it can be one: the API takes no other."""
    if not _UUID.fullmatch(identifier):
        raise NotFound(f"there is nothing with the id {identifier!r}")
    return identifier


def _size(package: Mapping[str, Any], prices: Mapping[str, Decimal]) -> Size:
    with understood("package"):
        # a package without vcpus shares the computer's cores: at least one is there for it
        cores = int(package.get("vcpus") or 1)
        name = package["name"]
        return Size(name=name, cores=cores, memory_mib=package["memory"], price_per_hour=prices.get(name))


def _image(item: Mapping[str, Any]) -> Image:
    with understood("image"):
        tags = item.get("tags") or {}
        return Image(
            id=item["id"],
            name=tags.get(NAME) or item["name"],
            key=tags.get(KEY, ""),
            status=_IMAGE_STATES.get(item["state"], Status.ERROR),
            format=DiskFormat.RAW,
            public=bool(item.get("public")),
        )


def _source(rule: Rule) -> str:
    net = source_of(rule)
    return "any" if net == ip_network("0.0.0.0/0") else f"subnet {net}"


def _rule(text: str) -> Rule | None:
    found = _RULE.fullmatch(text)
    if not found:
        return None
    with understood("firewall rule"):
        return Rule(port=int(found["port"]), cidr=found["net"] or "0.0.0.0/0")


def _group(tag: str, rules: list[dict[str, Any]]) -> SecurityGroup:
    key, name = noted(rules[0]["description"])
    allowed = tuple(rule for item in rules if item["enabled"] and (rule := _rule(item["rule"])))
    complete = any(not item["enabled"] for item in rules)
    status = Status.ACTIVE if complete else Status.PENDING
    return SecurityGroup(id=tag, name=name or tag, key=key, status=status, rules=allowed)


def _network(vlan: Mapping[str, Any], network: Mapping[str, Any] | None) -> Network:
    key, name = noted(vlan.get("description"))
    with understood("network"):
        return Network(
            id=network["id"] if network else vlan["name"],
            name=name or (network or vlan)["name"],
            key=key,
            status=Status.ACTIVE if network else Status.PENDING,
            cidr=network["subnet"] if network else "",
        )
