"""Apache CloudStack.

libcloud's driver has traps: machines are created stopped unless told otherwise, sizes of volumes are told in bytes but
asked for in GiB, a snapshot's name and state are dropped, and failed machines are taken for ones that are gone.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Mapping
from gzip import compress
from ipaddress import ip_network
from typing import Any, ClassVar, Literal
from urllib.parse import urlsplit

from libcloud.common.types import ProviderError
from libcloud.compute.base import NodeImage, StorageVolume, VolumeSnapshot
from libcloud.compute.drivers.cloudstack import CloudStackNodeDriver
from libcloud.compute.types import NodeState, VolumeSnapshotState

from vendor_modules.abilities import Ability, Requirement
from vendor_modules.capabilities import Quotas, SecurityGroups
from vendor_modules.errors import (
    Conflict,
    InvalidRequest,
    NotFound,
    QuotaExceeded,
    ResourceFailed,
    Unavailable,
    Unsupported,
    VendorError,
)
from vendor_modules.labels import key_in, name_for
from vendor_modules.libcloud import (
    Driver,
    LibcloudFirstBoot,
    LibcloudKeyPairs,
    LibcloudMachineBundle,
    LibcloudPower,
    LibcloudSnapshots,
    account,
)
from vendor_modules.libcloud.errors import words
from vendor_modules.libcloud.site import LibcloudSite, SiteSettings
from vendor_modules.module import ModuleSettings, Proof
from vendor_modules.resources import Key, MachineSpec, Quota, Rule, SecurityGroup, Status, VolumeSpec
from vendor_modules.services.credentials import Credentials

GIB = 2**30
_LONGEST = 3000
"""Bytes of user data: 4 KiB in base 64, which is what CloudStack takes in a URL."""
_FAILURES: Mapping[object, type[VendorError]] = {
    # CloudStack's ApiErrorCode, where it has no meaning in HTTP
    432: Unsupported,
    532: QuotaExceeded,
    533: Unavailable,
    534: Unavailable,
    535: QuotaExceeded,
    536: Conflict,
    537: Conflict,
}
_STATES = defaultdict(
    lambda: NodeState.UNKNOWN,
    CloudStackNodeDriver.NODE_STATE_MAP,
    Error=NodeState.ERROR,
    Expunging=NodeState.TERMINATED,
)
_LIMITS = {
    "max_instances": "machines",
    "max_public_ips": "addresses",
    "max_volumes": "volumes",
    "max_snapshots": "snapshots",
    "max_images": "images",
    "max_networks": "networks",
    "max_cpu": "cores",
    "max_memory": "memory-mib",
}


class CloudStackSettings(SiteSettings):
    """Which zone and networks machines are made in; the URL is the API's, with its path: ``https://…/client/api``."""

    zone: str | None = None
    """The zone's name or id; None: the first."""
    networks: tuple[str, ...] = ()
    """The ids of the networks that machines are put in; without any, CloudStack chooses."""
    disks: Literal["vd", "xvd", "sd"] = "vd"
    """What machines call their disks: ``vd`` with KVM, ``xvd`` with XenServer, ``sd`` with VMware."""


class CloudStackModule(
    LibcloudSite,
    LibcloudPower,
    LibcloudFirstBoot,
    LibcloudKeyPairs,
    LibcloudSnapshots,
    LibcloudMachineBundle,
    SecurityGroups,
    Quotas,
):
    """Keys are in names; a machine's own name is its display name."""

    title = "Apache CloudStack"
    proof = Proof.RECORDED
    proven_by = (
        "Libcloud 3.9.1's recorded answers of the service, through this module; the conformance suite on an account "
        "that is made of them and remembers."
    )
    known_limits = (
        "User data may be 3000 bytes, compressed: libcloud sends it in the URL. What is longer is compressed, which "
        "cloud-init understands.",
        "CloudStack does not tell the public keys of key pairs.",
        "Key pairs, volumes and snapshots have names that are made from theirs and their keys.",
        "Security groups show their TCP rules for single ports; not all zones have security groups.",
        "Lists longer than the server's largest page (500, unless it is configured otherwise) are cut off.",
        "A snapshot whose size is not told (before 4.9, of a volume that is gone) is shown as of 1 GiB.",
        "Removing an image was never recorded; it is done as the API's reference says.",
        "Recordings are fixed answers: what changes after a call is what the tests make of them.",
    )
    abilities: ClassVar[Mapping[str, Ability]] = {
        "create_volume": Ability(
            note="sizes are rounded up to whole GiB, for which there must be a disk offering; a volume from a snapshot "
            "has the snapshot's size"
        ),
        "destroy_volume": Ability(requires=(Requirement.DETACHED,)),
        "attach_volume": Ability(note="devices are named dev/vdb and the like"),
        "bundle_machine": Ability(requires=(Requirement.STOPPED,)),
        "destroy_security_group": Ability(requires=(Requirement.UNUSED,)),
    }
    Settings: ClassVar[type[ModuleSettings]] = CloudStackSettings
    credential_kinds: ClassVar[tuple[str, ...]] = ("access-key",)
    largest_user_data = None  # see _user_data
    call_timeout = 300.0
    settle_timeout = 300.0

    @property
    def _here(self) -> CloudStackSettings:
        assert isinstance(self.settings, CloudStackSettings)  # noqa: S101 - the registry makes them from Settings
        return self.settings

    def _connect(self, credentials: Credentials) -> Driver:
        path = urlsplit(self._site.url).path or "/client/api"
        driver: Any = _Driver(*account(credentials), **self._site.server(), path=path)  # type: ignore[no-untyped-call]
        driver.NODE_STATE_MAP = _STATES
        return driver

    def _translate(self, error: Exception) -> VendorError | None:
        if isinstance(error, ProviderError) and error.http_code in _FAILURES:
            return _FAILURES[error.http_code](words(error))
        if type(error) is Exception:  # so the driver tells that a job has failed
            told = words(error)
            return ResourceFailed("the job failed; CloudStack does not say why" if told.isdigit() else told)
        return super()._translate(error)

    # --- machines ---

    def _zone(self, driver: Driver) -> Any:
        zones = [z for z in driver.list_locations() if self._here.zone in (None, z.id, z.name)]
        if not zones:
            raise InvalidRequest(f"there is no zone {self._here.zone!r}")
        return zones[0]

    def _node_arguments(self, driver: Driver, spec: MachineSpec, key: Key) -> dict[str, Any]:
        networks = [network for network in driver.ex_list_networks() if str(network.id) in self._here.networks]
        return {
            **super()._node_arguments(driver, spec, key),
            "location": self._zone(driver),
            "networks": networks if self._here.networks else None,
            "ex_displayname": spec.name,
            "ex_security_groups": list(spec.security_groups),
            "ex_start_vm": True,
        }

    def _user_data(self, made: str) -> dict[str, Any]:
        sent = made.encode()
        if len(sent) > _LONGEST:
            sent = compress(sent, mtime=0)
        if len(sent) > _LONGEST:
            raise InvalidRequest(f"the user data makes {len(sent)} bytes, compressed; CloudStack takes {_LONGEST}")
        return {"ex_userdata": sent}

    def _name_of(self, resource: Any) -> str:
        extra = resource.extra or {}
        return extra.get("displayname") or extra.get("displaytext") or str(resource.name)

    def _start(self, driver: Driver, node: Any) -> None:
        driver.ex_start(node)

    def _stop(self, driver: Driver, node: Any) -> None:
        driver.ex_stop(node)

    # --- volumes ---

    def _storage_volumes(self, driver: Driver) -> list[Any]:
        return [volume for volume in driver.list_volumes() if volume.extra["volume_type"] != "ROOT"]

    def _mib_of(self, volume: Any) -> int:
        return -(-int(volume.size) // 2**20)

    def _attached_to(self, volume: Any) -> tuple[str, str | None] | None:
        machine, number = volume.extra.get("instance_id"), volume.extra.get("device_id")
        if not machine:
            return None
        return machine, None if number is None else f"dev/{self._here.disks}{chr(ord('a') + number)}"

    def _volume_arguments(self, driver: Driver, spec: VolumeSpec, key: Key) -> dict[str, Any]:
        return {**super()._volume_arguments(driver, spec, key), "location": self._zone(driver)}

    def _attach(self, driver: Driver, node: Any, volume: Any, device: str) -> None:
        found = re.fullmatch(f"dev/{self._here.disks}([b-z])", device)
        if not found:
            raise InvalidRequest(f"a volume can be attached as dev/{self._here.disks}b and the like, not as {device!r}")
        asked = {"id": volume.id, "virtualMachineId": node.id, "deviceId": ord(found[1]) - ord("a")}
        driver._async_request(command="attachVolume", params=asked)

    def _volume_snapshots(self, driver: Driver) -> list[Any]:
        return list(driver.list_snapshots())

    def _create_image(self, driver: Driver, node: Any, name: str, key: Key) -> Any:
        return driver.create_image(node, name_for(key, name), displaytext=name)

    # --- security groups: they go by their names, as machines want them ---

    async def _create_security_group(self, name: str, rules: tuple[Rule, ...], key: Key) -> SecurityGroup:
        chosen = name_for(key, name)
        for rule in rules:  # before there is a group
            _check_network(rule.cidr)

        def create(driver: Driver) -> SecurityGroup:
            groups = {group["name"]: group for group in driver.ex_list_security_groups()}
            group = groups.get(chosen) or driver.ex_create_security_group(chosen, description=name)
            for rule in rules:
                if rule not in _rules(group):
                    driver.ex_authorize_security_group_ingress(chosen, "tcp", rule.cidr, rule.port)
            return _group(_group_named(driver, chosen), (key,))

        return await self._run(create, key=f"security-group {key}")

    async def _describe_security_group(self, group_id: str) -> SecurityGroup:
        keys = await self._keys("security-group")
        return await self._run(lambda driver: _group(_group_named(driver, group_id), keys))

    async def _list_security_groups(self) -> list[SecurityGroup]:
        keys = await self._keys("security-group")
        return await self._run(lambda driver: [_group(group, keys) for group in driver.ex_list_security_groups()])

    async def _destroy_security_group(self, group_id: str) -> None:
        def destroy(driver: Driver) -> None:
            driver.ex_delete_security_group(_group_named(driver, group_id)["name"])

        await self._run(destroy)

    # --- quotas ---

    async def _quotas(self) -> list[Quota]:
        limits: dict[str, int] = await self._run(lambda driver: driver.ex_limits())
        return [
            Quota(resource=_LIMITS[name], limit=limit)
            for name, limit in limits.items()
            if name in _LIMITS and limit >= 0  # others are not limited
        ]


def _check_network(cidr: str) -> None:
    try:
        ip_network(cidr)
    except ValueError as error:
        raise InvalidRequest(f"{cidr!r} is no network: {error}") from None


def _group_named(driver: Driver, name: str) -> Mapping[str, Any]:
    groups: list[Mapping[str, Any]] = driver.ex_list_security_groups()
    for group in groups:
        if group["name"] == name:
            return group
    raise NotFound(f"there is no security group {name!r}")


def _rules(group: Mapping[str, Any]) -> tuple[Rule, ...]:
    return tuple(
        Rule(port=rule["startport"], cidr=rule["cidr"])
        for rule in group.get("ingressrule", ())
        if rule["protocol"] == "tcp" and rule["startport"] == rule["endport"] and "cidr" in rule
    )


def _group(group: Mapping[str, Any], keys: Collection[str]) -> SecurityGroup:
    key = key_in(group["name"], keys)
    name = group.get("description") if key else None
    return SecurityGroup(
        id=group["name"], name=name or group["name"], key=key, status=Status.ACTIVE, rules=_rules(group)
    )


class _Driver(CloudStackNodeDriver):
    """libcloud's driver, with what it leaves out."""

    def _to_node(self, data: Any, public_ips: Any = None) -> Any:
        node: Any = super()._to_node(data, public_ips)  # type: ignore[no-untyped-call]
        node.extra["displayname"] = data.get("displayname")
        node.extra["guest_os"] = data.get("guestosid")
        return node

    def create_volume(self, size: Any, name: Any, location: Any = None, snapshot: Any = None) -> Any:  # type: ignore[override]
        if snapshot is None:
            volume = super().create_volume(size, name, location)  # type: ignore[no-untyped-call]
            volume.size *= GIB  # as in lists
            return volume
        if size > snapshot.size:
            raise Unsupported(f"a volume from a snapshot of {snapshot.size} GiB has that size")
        asked = {"name": name, "zoneid": location.id, "snapshotid": snapshot.id}
        made = self._async_request(command="createVolume", params=asked)["volume"]  # type: ignore[no-untyped-call]
        return StorageVolume(made["id"], made["name"], made["size"], self, extra={})

    def list_snapshots(self) -> list[Any]:
        told = self._sync_request("listSnapshots").get("snapshot", [])  # type: ignore[no-untyped-call]
        sizes = {str(volume.id): volume.size for volume in self.list_volumes()}  # type: ignore[no-untyped-call]
        return [self._to_snapshot(one, sizes) for one in told if one.get("state") != "Destroyed"]

    def _to_snapshot(self, data: Any, sizes: Mapping[str, int] | None = None) -> Any:
        size = data.get("virtualsize") or (sizes or {}).get(str(data.get("volumeid"))) or 0
        states = {"BackedUp": VolumeSnapshotState.AVAILABLE, "Error": VolumeSnapshotState.ERROR}
        return VolumeSnapshot(
            str(data["id"]),
            driver=self,
            size=max(1, size // GIB),
            extra={"volume_id": data.get("volumeid")},
            state=states.get(data.get("state"), VolumeSnapshotState.CREATING),  # type: ignore[arg-type]
            name=data["name"],
        )

    def create_volume_snapshot(self, volume: Any, name: Any = None) -> Any:
        asked = {"volumeid": volume.id, "name": name}
        made = self._async_request(command="createSnapshot", params=asked)  # type: ignore[no-untyped-call]
        return self._to_snapshot(made["snapshot"], {str(volume.id): volume.size})

    def create_image(self, node: Any, name: Any, displaytext: Any = None) -> Any:
        root = next(v for v in self.list_volumes(node) if v.extra["volume_type"] == "ROOT")  # type: ignore[no-untyped-call]
        asked = {
            "name": name,
            "displaytext": displaytext or name,
            "ostypeid": node.extra["guest_os"],
            "volumeid": root.id,
        }
        made = self._async_request(command="createTemplate", params=asked)["template"]  # type: ignore[no-untyped-call]
        return NodeImage(made["id"], made["name"], self, extra={"displaytext": made["displaytext"]})

    def delete_image(self, node_image: Any) -> bool:
        self._async_request(command="deleteTemplate", params={"id": node_image.id})  # type: ignore[no-untyped-call]
        return True
