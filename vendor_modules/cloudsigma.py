"""CloudSigma's public clouds, API 2.0.

A server has no disk of its own: libcloud's driver clones the image's drive for it, and leaves the clone behind when the
server goes, or takes all drives with it. A running server's drives cannot be changed: CloudSigma would ignore it.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Annotated, Any, ClassVar

from libcloud.common.cloudsigma import API_ENDPOINTS_2_0, MAX_VIRTIO_UNITS
from libcloud.compute.drivers.cloudsigma import CloudSigmaError
from libcloud.compute.types import Provider
from pydantic import AfterValidator

from descriptors.application import Label
from descriptors.deployment import Kind
from vendor_modules.abilities import Ability, Requirement, Support
from vendor_modules.errors import Conflict, InvalidRequest, NotFound, QuotaExceeded, VendorError
from vendor_modules.labels import KEY, NAME, name_for
from vendor_modules.libcloud import (
    Driver,
    LibcloudFirstBoot,
    LibcloudKeyPairs,
    LibcloudListedImages,
    LibcloudStartedLast,
    LibcloudVolumes,
)
from vendor_modules.libcloud.site import LibcloudPriced, PricedSettings
from vendor_modules.module import ModuleSettings, Proof
from vendor_modules.resources import Key, Machine, MachineSpec, Status

_IMAGE = "cloud-agency-image"


def _region(name: str) -> str:
    if name not in API_ENDPOINTS_2_0:
        raise ValueError(f"CloudSigma has no region {name}; it has {', '.join(API_ENDPOINTS_2_0)}")
    return name


class CloudSigmaSettings(PricedSettings):
    """Which of CloudSigma's clouds."""

    region: Annotated[Label, AfterValidator(_region)]
    """CloudSigma's code of the place, such as ``zrh``."""


class CloudSigmaModule(
    LibcloudPriced, LibcloudStartedLast, LibcloudFirstBoot, LibcloudKeyPairs, LibcloudVolumes, LibcloudListedImages
):
    """Keys and names are in a server's meta data, and in other names."""

    title = "CloudSigma"
    proof = Proof.RECORDED
    proven_by = (
        "Libcloud 3.9.1's recorded answers of the service, through this module; the conformance suite on an account "
        "that is made of them and remembers."
    )
    known_limits = (
        "Images can only be listed: libcloud's driver has no calls to make or remove them, and none for snapshots.",
        "Stopping a machine is pulling its plug.",
        "The prices that libcloud ships are of machine sizes that its driver does not have any more.",
        "Key pairs and volumes have names that are made from theirs and their keys.",
        "Recordings are fixed answers: what changes after a call is what the tests make of them.",
    )
    abilities: ClassVar[Mapping[str, Ability]] = {
        "create_machine": Ability(note="a machine that is made with volumes is stopped for them once"),
        "create_volume": Ability(note="sizes are rounded up to whole GiB"),
        "destroy_volume": Ability(requires=(Requirement.DETACHED,)),
        "attach_volume": Ability(requires=(Requirement.STOPPED,), note="devices are named dev/vdb and the like"),
        "detach_volume": Ability(requires=(Requirement.STOPPED,)),
        "destroy_image": Ability(Support.UNSUPPORTED, note="libcloud's driver has no call for it"),
    }
    Settings: ClassVar[type[ModuleSettings]] = CloudSigmaSettings
    provider = Provider.CLOUDSIGMA
    call_timeout = 600.0
    settle_timeout = 300.0

    def _driver_options(self) -> dict[str, Any]:
        return {"region": self._settings.region}

    def _translate(self, error: Exception) -> VendorError | None:
        if isinstance(error, CloudSigmaError):
            if error.error_type == "permission" and "in state" in error.error_msg:
                return Conflict(error.error_msg)
            if error.http_code == 402:
                return QuotaExceeded(error.error_msg)
        return super()._translate(error)

    def _tags_for(self, kind: Kind, key: Key, name: str) -> dict[str, Any]:
        return {"ex_metadata": {KEY: key, NAME: name}} if kind == "machine" else {}

    def _tags_of(self, resource: Any) -> Mapping[str, str]:
        return resource.extra.get("meta") or {}

    # --- machines ---

    async def _equip(self, made: Machine, spec: MachineSpec) -> Machine:
        missing = [wanted for wanted in spec.volumes if wanted.volume not in made.volumes]
        if not missing:
            return made
        await self.stop_machine(made.id)
        for wanted in missing:
            await self.attach_volume(wanted.volume, made.id, wanted.device)
        return await self.start_machine(made.id)

    async def destroy_machine(self, machine_id: str) -> None:
        """See :class:`~vendor_modules.module.VendorModule`; only what is stopped can be removed."""
        with suppress(NotFound):
            await self.stop_machine(machine_id)
        await super().destroy_machine(machine_id)

    def _provider_name(self, kind: Kind, key: Key, name: str) -> str:
        return name_for(key, name)  # machines' too: their disks are called after them

    def _node_arguments(self, driver: Driver, spec: MachineSpec, key: Key) -> dict[str, Any]:
        arguments = super()._node_arguments(driver, spec, key)
        meta = arguments["ex_metadata"] | {_IMAGE: spec.image}
        if made := arguments.pop("ex_userdata", None):
            # https://docs.cloud-init.io/en/latest/reference/datasources/cloudsigma.html
            field = "cloudinit-user-data"
            meta |= {field: b64encode(made.encode()).decode(), "base64_fields": field}
        return {**arguments, "ex_metadata": meta}

    def _create_node(self, driver: Driver, spec: MachineSpec, key: Key) -> Any:
        arguments = self._node_arguments(driver, spec, key)
        for drive in driver.list_volumes():
            if drive.name == f"{arguments['name']}-drive":  # of an earlier attempt that was broken off
                driver.destroy_volume(drive)
        return driver.create_node(**arguments)

    def _destroy_node(self, driver: Driver, node: Any) -> None:
        if volumes := self._volumes_of(driver, [node])[str(node.id)]:
            _plug(driver, node.id, lambda drives: [d for d in drives if d["drive"]["uuid"] not in volumes])
        driver.destroy_node(node, ex_delete_drives=True)

    def _image_of(self, node: Any) -> str | None:
        return self._tags_of(node).get(_IMAGE)

    def _key_pair_id(self, pair: Any) -> str:
        return str(pair.extra["uuid"])

    def _key_pair_argument(self, key_pair_id: str) -> dict[str, Any]:
        return {"public_keys": [key_pair_id]}

    # --- volumes: drives that no server starts from ---

    def _storage_volumes(self, driver: Driver) -> list[Any]:
        plugged = {
            drive["drive"]["uuid"]: (node, drive) for node in self._nodes(driver) for drive in node.extra["drives"]
        }
        volumes = []
        for volume in driver.list_volumes():
            node, drive = plugged.get(volume.id, (None, {}))
            if volume.media == "disk" and drive.get("boot_order") is None:
                volume.extra["at"] = node and (str(node.id), _device(drive["dev_channel"]))
                volumes.append(volume)
        return volumes

    def _volume_status(self, volume: Any) -> Status | None:
        states = {"unmounted": Status.ACTIVE, "mounted": Status.ATTACHED, "unavailable": Status.ERROR}
        return states.get(volume.status, Status.PENDING)

    def _mib_of(self, volume: Any) -> int:
        return int(volume.size * 1024)

    def _attached_to(self, volume: Any) -> tuple[str, str | None] | None:
        where: tuple[str, str | None] | None = volume.extra.get("at")
        return where

    def _volumes_of(self, driver: Driver, nodes: list[Any]) -> Mapping[str, tuple[str, ...]]:
        return {
            str(node.id): tuple(d["drive"]["uuid"] for d in node.extra["drives"] if d["boot_order"] is None)
            for node in nodes
        }

    def _attach(self, driver: Driver, node: Any, volume: Any, device: str) -> None:
        name = device.removeprefix("dev/vd")
        if len(name) != 1 or not "b" <= name <= "z":
            raise InvalidRequest(f"a volume can be attached as dev/vdb and the like, not as {device!r}")
        channel = "{}:{}".format(*divmod(ord(name) - ord("a"), MAX_VIRTIO_UNITS))
        new = {"boot_order": None, "dev_channel": channel, "device": "virtio", "drive": volume.id}
        _plug(driver, node.id, lambda drives: [*drives, new])

    def _detach(self, driver: Driver, volume: Any) -> None:
        machine_id, _ = volume.extra["at"]
        _plug(driver, machine_id, lambda drives: [d for d in drives if d["drive"]["uuid"] != volume.id])


def _device(channel: str) -> str:
    controller, unit = map(int, channel.split(":"))
    return f"dev/vd{chr(ord('a') + controller * MAX_VIRTIO_UNITS + unit)}"


def _plug(driver: Driver, machine_id: str, change: Callable[[list[Any]], list[Any]]) -> None:
    """Change the drives of a server."""
    server = driver.ex_get_node(machine_id, return_json=True)
    if server["status"] != "stopped":
        raise Conflict(f"machine {machine_id} is not stopped")
    server["drives"] = change(server["drives"])
    driver.connection.request(action=f"/servers/{machine_id}/", method="PUT", data=server)
