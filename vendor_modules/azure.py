"""Microsoft Azure, through libcloud's driver of its Resource Manager. Everything is in one resource group."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from contextlib import suppress
from http import HTTPStatus
from typing import Any, ClassVar

from libcloud.common.azure import AzureRawResponse
from libcloud.common.azure_arm import AzureResourceManagementConnection
from libcloud.common.base import Connection
from libcloud.compute.base import Node, NodeAuthPassword, NodeLocation
from libcloud.compute.drivers.azure_arm import DISK_API_VERSION, AzureNic, AzureNodeDriver
from libcloud.compute.types import NodeState
from libcloud.storage.drivers.azure_blobs import AzureBlobsConnection, AzureBlobsStorageDriver

from descriptors.application import Label
from descriptors.deployment import Kind
from vendor_modules.abilities import Ability, Requirement
from vendor_modules.catalog import Price
from vendor_modules.errors import InvalidRequest, NotFound, QuotaExceeded, Unsupported, VendorError
from vendor_modules.labels import KEY, NAME, name_for
from vendor_modules.libcloud import (
    Driver,
    LibcloudFirstBoot,
    LibcloudPower,
    LibcloudSettings,
    LibcloudSnapshots,
    account,
)
from vendor_modules.libcloud.objects import LibcloudObjects
from vendor_modules.module import ModuleSettings, PriceSource, Proof
from vendor_modules.resources import Key, MachineSpec
from vendor_modules.services.credentials import Credentials

_IMAGE = ("publisher", "offer", "sku", "version")


class AzureSettings(LibcloudSettings):
    """Which subscription, and where machines are put in it."""

    tenant: Label
    """The id of the tenant (directory)."""
    subscription: Label
    """The id of the subscription."""
    resource_group: Label
    """The resource group; it must exist."""
    network: Label
    """The virtual network of the group that machines are in; it must exist."""
    subnet: Label = "default"
    """The network's subnet that machines are in."""
    storage_account: str = ""
    """The storage account of the group that buckets (containers) are in; empty: there is no object storage."""


class AzureModule(LibcloudPower, LibcloudFirstBoot, LibcloudSnapshots, LibcloudObjects):
    """Virtual machines, managed disks and their snapshots; blobs of a storage account."""

    title = "Microsoft Azure"
    proof = Proof.RECORDED
    proven_by = (
        "Answers of the Resource Manager as libcloud 3.9.1 recorded them, and, for objects, the emulator Azurite; "
        "no account was used."
    )
    known_limits = (
        "The user name is the client id of an application (service principal), the password its secret.",
        "An image is named PUBLISHER:OFFER:SKU:VERSION; images cannot be listed, made or removed.",
        "Machines get a random password that is not kept, and no SSH keys.",
        "A machine without a public address is reached from its virtual network only.",
        "A volume appears in the machine under /dev/disk/azure/scsi1, whatever device is asked for.",
        "Snapshots and sizes are asked for with versions of the API from 2015 and 2016, which are libcloud's.",
        "A bucket's name is cut down to small letters, digits and hyphens, and gets the key's digest at its end.",
        "If a machine is removed and its network interface or own disk is not, destroying it again removes them.",
    )
    abilities: ClassVar[Mapping[str, Ability]] = {
        **LibcloudSnapshots.abilities,
        "attach_volume": Ability(requires=(Requirement.SAME_ZONE,), note="the device cannot be chosen"),
        "stop_machine": Ability(note="the machine is deallocated, so that it costs nothing but its disks"),
    }
    prices = PriceSource.CATALOGUE
    priced_as = "azure"
    Settings: ClassVar[type[ModuleSettings]] = AzureSettings
    largest_user_data = 64 * 1024
    call_timeout = 150.0  # libcloud waits for machines to be gone before it removes what they had
    settle_timeout = 600.0
    poll_seconds: ClassVar[float] = 2.0
    """Seconds between looks whether a machine is gone."""

    @property
    def _azure(self) -> AzureSettings:
        assert isinstance(self.settings, AzureSettings)  # noqa: S101 - the registry makes them from Settings
        return self.settings

    def _connect(self, credentials: Credentials) -> Driver:
        settings = self._azure
        return _Driver(settings.tenant, settings.subscription, *account(credentials), region=settings.region)

    def _tags_for(self, kind: Kind, key: Key, name: str) -> dict[str, Any]:
        where: Any = NodeLocation(self._azure.region, self._azure.region, "", None)  # type: ignore[arg-type]
        group = {"location": where, "ex_resource_group": self._azure.resource_group}
        return {"ex_tags": {KEY: key, NAME: name}, **group}

    def _provider_name(self, kind: Kind, key: Key, name: str) -> str:
        return name_for(key, name, longest=60)

    async def _known_prices(self) -> Mapping[str, Price]:
        known = await super()._known_prices()
        sizes = await self._run(lambda driver: [size.id for size in self._node_sizes(driver)])
        plain = {size: size.replace("_", "").lower() for size in sizes}  # Standard_D2_v3 is standardd2v3 there
        return {size: known[name] for size, name in plain.items() if name in known}

    def _cores_of(self, size: Any) -> int:
        return int(size.extra["numberOfCores"])

    # --- machines ---

    def _nodes(self, driver: Driver) -> list[Any]:
        return list(driver.list_nodes(self._azure.resource_group))

    def _node_image(self, driver: Driver, image_id: str) -> Any:
        if image_id.count(":") != 3:
            raise InvalidRequest(f"an image is named PUBLISHER:OFFER:SKU:VERSION, not {image_id!r}")
        return driver.get_image(image_id)

    def _node_arguments(self, driver: Driver, spec: MachineSpec, key: Key) -> dict[str, Any]:
        return {
            **super()._node_arguments(driver, spec, key),
            "auth": NodeAuthPassword(secrets.token_urlsafe(32) + "-Aa1"),  # a letter of each kind is asked for
            "ex_network": self._azure.network,
            "ex_subnet": self._azure.subnet,
            "ex_use_managed_disks": True,
        }

    def _create_node(self, driver: Driver, spec: MachineSpec, key: Key) -> Any:
        try:
            return super()._create_node(driver, spec, key)
        except Exception:
            # its network interface came first; one that is in use all the same is not removed
            name = self._provider_name("machine", key, spec.name)
            with suppress(Exception):
                driver.ex_destroy_nic(AzureNic(driver.nic_id(self._azure.resource_group, f"{name}-nic"), "", "", {}))
            raise

    async def _destroy_machine(self, machine_id: str) -> None:
        """A machine that is gone counts as gone when its interface and its own disk are, too: libcloud removes them
        after it, and may have been stopped in between."""

        def destroy(driver: Driver) -> None:
            try:
                node = self._node(driver, machine_id)
            except NotFound:
                if remains := self._remains(driver, machine_id):
                    self._destroy_node(driver, remains)
                raise
            self._destroy_node(driver, node)

        await self._run(destroy)

    def _remains(self, driver: Driver, machine_id: str) -> Node | None:
        """A machine that is gone, with what it may have left, by the names that libcloud gave; None for an id that is
        no machine's of the group. To remove again what is gone already is fine with Azure."""
        group, name = self._azure.resource_group, machine_id.rpartition("/")[2]
        if machine_id != driver.machine_id(group, name).lower():
            return None
        disk = driver.disk_id(group, name).lower()
        own = {volume.id for volume in driver.list_volumes(group) if _is_machines_own(volume)}
        properties = {
            "networkProfile": {"networkInterfaces": [{"id": driver.nic_id(group, f"{name}-nic")}]},
            "storageProfile": {"osDisk": {"managedDisk": {"id": disk}} if disk in own else {}},
        }
        return Node(machine_id, name, NodeState.TERMINATED, [], [], driver, extra={"properties": properties})

    def _destroy_node(self, driver: Driver, node: Any) -> None:
        driver.destroy_node(node, ex_destroy_vhd=False, ex_poll_qty=60, ex_poll_wait=self.poll_seconds)

    def _user_data(self, made: str) -> dict[str, Any]:
        return {"ex_customdata": made.encode()}

    def _size_of(self, node: Any) -> str:
        return str(node.extra["properties"]["hardwareProfile"]["vmSize"])

    def _image_of(self, node: Any) -> str | None:
        image = node.extra["properties"]["storageProfile"].get("imageReference") or {}
        return ":".join(image[part] for part in _IMAGE) if image.keys() >= set(_IMAGE) else None

    # --- objects ---

    def _connect_storage(self, credentials: Credentials) -> Driver:
        group, name = self._azure.resource_group, self._azure.storage_account
        if not name:
            raise Unsupported("the vendor's settings name no storage account")
        key = self._connect(credentials).ex_get_storage_account_keys(group, name)["key1"]
        return Blobs(name, key)

    # --- volumes and snapshots ---

    def _storage_volumes(self, driver: Driver) -> list[Any]:
        return [volume for volume in driver.list_volumes(self._azure.resource_group) if not _is_machines_own(volume)]

    def _attached_to(self, volume: Any) -> tuple[str, str | None] | None:
        machine = volume.extra.get("managedBy") or volume.extra["properties"].get("ownerId")
        return (machine.lower(), None) if machine else None

    def _attach(self, driver: Driver, node: Any, volume: Any, device: str) -> None:
        driver.attach_volume(node, volume)

    def _detach(self, driver: Driver, volume: Any) -> None:
        attached = self._attached_to(volume)
        if attached:
            driver.detach_volume(volume, ex_node=self._node(driver, attached[0]))

    def _volume_snapshots(self, driver: Driver) -> list[Any]:
        return list(driver.list_snapshots(self._azure.resource_group))

    def _volume_of(self, snapshot: Any) -> str | None:
        return str(snapshot.extra["source_id"]).lower()

    def _translate(self, error: Exception) -> VendorError | None:
        found = super()._translate(error)
        return QuotaExceeded(found.detail) if found and "quota" in found.detail.lower() else found


class _Connection(AzureResourceManagementConnection):
    """The connection, without what breaks it: a class of its own that has no proxy, and bytes in JSON."""

    conn_class: Any = property(lambda _: Connection.conn_class)

    def encode_data(self, data: Any) -> str:
        return json.dumps(data, default=bytes.decode)


class _Part(AzureRawResponse):
    """An answer that is read in pieces. libcloud takes a part of a blob for a failure, and reads it whole for the
    reason."""

    def success(self) -> bool:
        return bool(super().success() or self.status == HTTPStatus.PARTIAL_CONTENT)


class _BlobsConnection(AzureBlobsConnection):
    rawResponseCls = _Part  # noqa: N815 - the library's name


class Blobs(AzureBlobsStorageDriver):
    """The storage driver, which holds no object whole."""

    connectionCls = _BlobsConnection  # noqa: N815 - the library's name


class _Driver(AzureNodeDriver):
    """The driver. Azure tells ids in letters of one size here and of another there: they are all small."""

    connectionCls = _Connection  # noqa: N815 - the library's name

    def nic_id(self, group: str, name: str) -> str:
        return self._id(group, f"Microsoft.Network/networkInterfaces/{name}")

    def machine_id(self, group: str, name: str) -> str:
        return self._id(group, f"Microsoft.Compute/virtualMachines/{name}")

    def disk_id(self, group: str, name: str) -> str:
        return self._id(group, f"Microsoft.Compute/disks/{name}")

    def _id(self, group: str, what: str) -> str:
        return f"/subscriptions/{self.subscription_id}/resourceGroups/{group}/providers/{what}"

    def create_volume(  # type: ignore[override]  # what is left out of its options is not used
        self, size: int, name: str, location: Any = None, snapshot: Any = None, **rest: Any
    ) -> Any:
        """A copy's source goes by another name than libcloud's in the version of the API that it asks for."""
        if snapshot is None:
            return super().create_volume(size, name, location, **rest)
        source = {"createOption": "Copy", "sourceResourceId": snapshot.id}
        made = self.connection.request(
            self.disk_id(rest["ex_resource_group"], name),
            method="PUT",
            params={"api-version": DISK_API_VERSION},
            data={
                "location": location.id,
                "tags": rest["ex_tags"],
                "properties": {"creationData": source, "diskSizeGB": size},
            },
        )
        return self._to_volume(made.object)

    def _to_node(self, *arguments: Any, **options: Any) -> Any:
        return _small(super()._to_node(*arguments, **options))

    def _to_volume(self, *arguments: Any, **options: Any) -> Any:
        return _small(super()._to_volume(*arguments, **options))

    def _to_snapshot(self, *arguments: Any, **options: Any) -> Any:
        return _small(super()._to_snapshot(*arguments, **options))


def _is_machines_own(disk: Any) -> bool:
    """Whether it is the disk that a machine starts from, and no volume."""
    return bool(disk.extra["properties"]["creationData"]["createOption"] == "FromImage")


def _small(resource: Any) -> Any:
    resource.id = resource.id.lower()
    return resource
