"""EC2's machines, volumes, snapshots and images: where EC2 is not what the base expects."""

from __future__ import annotations

import re
from base64 import b64decode
from collections.abc import Collection, Mapping
from types import SimpleNamespace
from typing import Annotated, Any, ClassVar, Literal
from xml.etree.ElementTree import Element

from pydantic import AnyHttpUrl, Field

from descriptors.deployment import Kind
from vendor_modules.capabilities import Consoles, Quotas
from vendor_modules.ec2.driver import Ec2Driver, filters, items, numbered, tags_of, text
from vendor_modules.errors import InvalidRequest
from vendor_modules.labels import KEY, NAME, name_for
from vendor_modules.libcloud import (
    Driver,
    LibcloudFirstBoot,
    LibcloudKeyPairs,
    LibcloudMachineBundle,
    LibcloudPower,
    LibcloudSettings,
    LibcloudSnapshots,
    account,
    one,
)
from vendor_modules.resources import Key, MachineSpec, Quota, Status, VolumeSpec
from vendor_modules.services.credentials import Credentials
from vendor_modules.userdata import HOME

_DEVICE = re.compile(r"dev/(sd[b-z]|xvd[b-z])")
_IMAGE_STATES: dict[str, Status | None] = {
    "available": Status.ACTIVE,
    "failed": Status.ERROR,
    "error": Status.ERROR,
    "invalid": Status.ERROR,
    "deregistered": None,
    "disabled": Status.STOPPED,
}
_LIMITS = {"max-instances": "machines", "max-elastic-ips": "addresses"}


class PlaceSettings(LibcloudSettings):
    """Which part of a cloud that speaks like EC2."""

    endpoint: AnyHttpUrl | None = None
    """The API's URL: for an emulator, or a cloud that speaks like EC2. By default, that of the region."""
    zone: Annotated[str, Field(pattern=r"^[a-z0-9-]{1,63}$")] | None = None
    """The availability zone where machines and volumes are made; by default, the region's first."""
    subnet: Annotated[str, Field(pattern=r"^subnet-[0-9a-z]+$")] | None = None
    """Where machines are that are in no network of their own; by default, the account's default subnet of the zone."""
    image_owners: tuple[str, ...] = ("self",)
    """Whose images are listed: account numbers, ``self``, ``amazon``. Everybody's would be more than a hundred
    thousand."""


class Ec2Settings(PlaceSettings):
    """Which part of EC2."""

    objects_endpoint: AnyHttpUrl | None = None
    """S3's URL; by default, the endpoint if one is given, else that of the region."""
    processor: Literal["x86", "arm"] = "x86"
    """What machine sizes are offered: images are made for one of them."""


class Ec2Compute(LibcloudPower, LibcloudFirstBoot, LibcloudSnapshots, LibcloudMachineBundle, Consoles):
    """What all that speaks like EC2 has."""

    credential_kinds = ("access-key", "external")
    longest_name = 128
    signature_version: ClassVar[str] = "4"
    driver: ClassVar[type[Ec2Driver]] = Ec2Driver
    page: ClassVar[int] = 500
    """Resources on a page of a list."""

    @property
    def _settings(self) -> PlaceSettings:
        assert isinstance(self.settings, PlaceSettings)  # noqa: S101 - the registry makes them from Settings
        return self.settings

    # --- the driver ---

    def _connect(self, credentials: Credentials) -> Ec2Driver:
        return self.driver(
            *account(credentials),
            url=self._url(),
            region=self._settings.region,
            signature_version=self.signature_version,
            page=self.page,
        )

    def _url(self, service: str = "ec2") -> str:
        if self._settings.endpoint:
            return str(self._settings.endpoint)
        region = self._settings.region
        return f"https://{service}.{region}.amazonaws.com{'.cn' if region.startswith('cn-') else ''}/"

    # --- tags ---

    def _tags_for(self, kind: Kind, key: Key, name: str) -> dict[str, Any]:
        return {"ex_metadata": {KEY: key, NAME: name}}

    def _tags_of(self, resource: Any) -> Mapping[str, str]:
        return tags_of(resource) if isinstance(resource, Element) else super()._tags_of(resource)

    def _key_of(self, resource: Any, keys: Collection[str]) -> str:
        return self._tags_of(resource).get(KEY, "")

    def _provider_name(self, kind: Kind, key: Key, name: str) -> str:
        if kind in ("machine", "volume", "snapshot"):
            return name  # it goes into the tag that the provider's console shows
        return name_for(key, name, longest=self.longest_name)

    # --- machines ---

    def _node_size(self, driver: Driver, name: str) -> Any:
        return SimpleNamespace(id=name)  # EC2 knows sizes that are newer than libcloud's list

    def _node_image(self, driver: Driver, image_id: str) -> Any:
        return driver.get_image(image_id)

    def _node(self, driver: Driver, machine_id: str) -> Any:
        return one(driver.list_nodes(ex_node_ids=[machine_id]), machine_id, "machine")

    def _node_arguments(self, driver: Driver, spec: MachineSpec, key: Key) -> dict[str, Any]:
        settings = self._settings
        place = {"SubnetId": settings.subnet, "Placement__AvailabilityZone": settings.zone}
        groups = numbered("SecurityGroupId", spec.security_groups)
        return super()._node_arguments(driver, spec, key) | place | groups

    def _user_data(self, made: str) -> dict[str, Any]:
        # volumes are found at dev/sdf below the working directory, as far as the image's own rules name them so
        home = f"cd {HOME}\n"
        return {"ex_userdata": made.replace(home, f"{home}ln -sfn /dev dev\n", 1)}

    def _volumes_of(self, driver: Driver, nodes: list[Any]) -> Mapping[str, tuple[str, ...]]:
        return {node.id: tuple(_attached(node)) for node in nodes}

    async def _console(self, machine_id: str) -> str:
        answer = await self._run(lambda driver: driver.ask("GetConsoleOutput", InstanceId=machine_id))
        return b64decode(text(answer, "output") or "").decode(errors="replace")

    # --- volumes and snapshots ---

    def _storage_volume(self, driver: Driver, volume_id: str) -> Any:
        return driver.volume(volume_id)

    def _present_volumes(self, driver: Driver) -> list[Any]:
        return [volume for volume in super()._present_volumes(driver) if volume.extra["delete"] != "true"]

    def _volume_arguments(self, driver: Driver, spec: VolumeSpec, key: Key) -> dict[str, Any]:
        return super()._volume_arguments(driver, spec, key) | {"zone": self._zone(driver)}

    def _zone(self, driver: Driver) -> str:
        if self._settings.zone:
            return self._settings.zone
        found = driver.ask("DescribeAvailabilityZones", **filters({"state": "available"}))
        return min(text(zone, "zoneName") or "" for zone in items(found, "availabilityZoneInfo/item"))

    def _attached_to(self, volume: Any) -> tuple[str, str | None] | None:
        machine = volume.extra["instance_id"]
        return (machine, volume.extra["device"].lstrip("/")) if machine else None

    def _attach(self, driver: Driver, node: Any, volume: Any, device: str) -> None:
        if not _DEVICE.fullmatch(device):
            raise InvalidRequest(f"volumes are found at dev/sdb to dev/sdz, not at {device!r}")
        driver.attach_volume(node, volume, f"/{device}")

    def _volume_snapshots(self, driver: Driver) -> list[Any]:
        return list(driver.list_snapshots())

    def _snapshot_found(self, driver: Driver, snapshot_id: str) -> Any:
        return driver.snapshot(snapshot_id)

    # --- images ---

    def _node_images(self, driver: Driver) -> list[Any]:
        return list(driver.images_of(self._settings.image_owners))

    def _image_status(self, image: Any) -> Status | None:
        return _IMAGE_STATES.get(image.extra["state"], Status.PENDING)

    def _is_public(self, image: Any, key: str) -> bool:
        return not key and image.extra["is_public"] == "true"


class Amazon(Ec2Compute, LibcloudKeyPairs, Quotas):
    """What Amazon has besides."""

    @property
    def _settings(self) -> Ec2Settings:
        assert isinstance(self.settings, Ec2Settings)  # noqa: S101 - the registry makes them from Settings
        return self.settings

    def _node_sizes(self, driver: Driver) -> list[Any]:
        arm = self._settings.processor == "arm"
        sizes = driver.list_sizes()
        return [size for size in sizes if ("Graviton" in size.extra.get("physicalProcessor", "")) is arm]

    async def _quotas(self) -> list[Quota]:
        def quotas(driver: Driver) -> list[Quota]:
            used = {"machines": len(self._present(driver)), "addresses": len(driver.addresses())}
            found = items(driver.ask("DescribeAccountAttributes"), "accountAttributeSet/item")
            limits = {_LIMITS.get(text(one, "attributeName") or ""): _number(one) for one in found}
            return [Quota(resource=resource, limit=limits.get(resource), used=used[resource]) for resource in used]

        return await self._run(quotas)


def _attached(node: Any) -> list[str]:
    """The ids of a node's volumes, without the disk that was made with it and goes with it."""
    mappings = node.extra["block_device_mapping"]
    return [m["ebs"]["volume_id"] for m in mappings if m["device_name"] != node.extra["root_device_name"]]


def _number(attribute: Any) -> int | None:
    value = text(attribute, "attributeValueSet/item/attributeValue") or ""
    return int(value) if value.isdecimal() else None
