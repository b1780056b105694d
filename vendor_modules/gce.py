"""Google Compute Engine, through libcloud's driver. Everything is in one zone of one project."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, ClassVar

from libcloud.common.google import GoogleAuthError, GoogleAuthType, QuotaExceededError, ResourceNotFoundError
from libcloud.compute.drivers.gce import GCENodeDriver
from libcloud.compute.types import VolumeSnapshotState

from descriptors.application import Label
from descriptors.deployment import Kind
from vendor_modules.abilities import Ability, Requirement
from vendor_modules.errors import NotFound, QuotaExceeded, Unauthorized, VendorError
from vendor_modules.labels import name_for, packed, unpacked
from vendor_modules.libcloud import (
    Driver,
    LibcloudFirstBoot,
    LibcloudPower,
    LibcloudSettings,
    LibcloudSnapshots,
    account,
)
from vendor_modules.libcloud.errors import words
from vendor_modules.module import ModuleSettings, PriceSource, Proof
from vendor_modules.resources import Key, MachineSpec
from vendor_modules.services.credentials import Credentials

_ONCE = "#!/bin/sh\n[ -e /var/lib/cloud-agency-booted ] && exit 0\n: > /var/lib/cloud-agency-booted\n"
"""Google's agent runs the script at every boot."""


_ERRORS: Mapping[type[Exception], type[VendorError]] = {
    GoogleAuthError: Unauthorized,
    QuotaExceededError: QuotaExceeded,
    ResourceNotFoundError: NotFound,
}


class GceSettings(LibcloudSettings):
    """Which project, and where machines are put in it."""

    project: Label
    """The project's id."""
    zone: Label
    """The zone of the region that machines and volumes are in, such as ``europe-west1-b``."""
    network: Label = "default"
    """The network that machines are in; it must exist."""


class GceModule(LibcloudPower, LibcloudFirstBoot, LibcloudSnapshots):
    """Instances, persistent disks and their snapshots."""

    title = "Google Compute Engine"
    proof = Proof.RECORDED
    proven_by = "Answers of the API as libcloud 3.9.1 recorded them; no account was used."
    known_limits = (
        "The user name is a service account's e-mail address, the password its private key (PEM, or the whole JSON).",
        "An image is named as in a public project, or in one's own; images cannot be listed, made or removed.",
        "Images must have Google's guest agent, which runs the script of the first boot.",
        "Machines are in one network with an address of the world each, and no service account.",
        "A volume appears in the machine as /dev/disk/by-id/google-NAME, whatever device is asked for.",
    )
    abilities: ClassVar[Mapping[str, Ability]] = {
        **LibcloudSnapshots.abilities,
        "attach_volume": Ability(requires=(Requirement.SAME_ZONE,), note="the device cannot be chosen"),
    }
    prices = PriceSource.CATALOGUE
    priced_as = "gce"
    Settings: ClassVar[type[ModuleSettings]] = GceSettings
    largest_user_data = 256 * 1024
    call_timeout = 180.0  # libcloud waits for Google's operations to end
    settle_timeout = 300.0

    @property
    def _gce(self) -> GceSettings:
        assert isinstance(self.settings, GceSettings)  # noqa: S101 - the registry makes them from Settings
        return self.settings

    def _connect(self, credentials: Credentials) -> Driver:
        user, key = account(credentials)
        return _Driver(
            user,
            json.loads(key) if key.lstrip().startswith("{") else {"private_key": key},  # a text might be a file's name
            datacenter=self._gce.zone,
            project=self._gce.project,
            auth_type=GoogleAuthType.SA,  # not guessed by asking the network
            credential_file=os.devnull,  # libcloud would keep the token in a file
        )

    def _tags_for(self, kind: Kind, key: Key, name: str) -> dict[str, Any]:
        return {"ex_labels": packed(key, name)}

    def _tags_of(self, resource: Any) -> Mapping[str, str]:
        return unpacked(resource.extra.get("labels") or {})

    def _provider_name(self, kind: Kind, key: Key, name: str) -> str:
        return name_for(key, name)

    # --- machines ---

    def _node_sizes(self, driver: Driver) -> list[Any]:
        return list(driver.list_sizes(driver.zone))

    def _cores_of(self, size: Any) -> int:
        return int(size.extra["guestCpus"])

    def _price_of(self, size: Any) -> None:
        return None  # libcloud's is the catalogue's, without its date

    def _node_image(self, driver: Driver, image_id: str) -> Any:
        return driver.ex_get_image(image_id)

    def _node_arguments(self, driver: Driver, spec: MachineSpec, key: Key) -> dict[str, Any]:
        arguments = super()._node_arguments(driver, spec, key)
        return arguments | {"ex_network": self._gce.network, "ex_service_accounts": []}

    def _user_data(self, made: str) -> dict[str, Any]:
        return {"ex_metadata": {"startup-script": made.replace("#!/bin/sh\n", _ONCE, 1)}}

    def _size_of(self, node: Any) -> str:
        return str(node.size)

    def _image_of(self, node: Any) -> str | None:
        return node.image  # type: ignore[no-any-return]  # the driver has its name there

    # --- volumes and snapshots ---

    def _storage_volumes(self, driver: Driver) -> list[Any]:
        # those from images are machines' own disks
        return [volume for volume in driver.list_volumes() if not volume.extra["sourceImage"]]

    def _attached_to(self, volume: Any) -> tuple[str, str | None] | None:
        return next(((user.rsplit("/", 1)[1], None) for user in volume.extra["users"]), None)

    def _attach(self, driver: Driver, node: Any, volume: Any, device: str) -> None:
        driver.attach_volume(node, volume)  # by another name libcloud would not find it to detach it

    def _detach(self, driver: Driver, volume: Any) -> None:
        if attached := self._attached_to(volume):
            driver.detach_volume(volume, ex_node=self._node(driver, attached[0]))

    def _volume_snapshots(self, driver: Driver) -> list[Any]:
        return list(driver.ex_list_snapshots())

    def _volume_of(self, snapshot: Any) -> str | None:
        return str(snapshot.extra["sourceDisk"]).rsplit("/", 1)[1]

    def _translate(self, error: Exception) -> VendorError | None:
        ours = next((ours for theirs, ours in _ERRORS.items() if isinstance(error, theirs)), None)
        return ours(words(error)) if ours else super()._translate(error)


class _Driver(GCENodeDriver):
    """The driver, with what it leaves out. Ids are names: they are what Google's calls take."""

    connection: Any

    def create_volume(self, size: int, name: str, snapshot: Any = None, ex_labels: Any = None) -> Any:  # type: ignore[override]
        request, asked, params = self._create_vol_req(size, name, self.zone, snapshot)
        self.connection.async_request(request, method="POST", data=asked | {"labels": ex_labels}, params=params)
        return self.ex_get_volume(name, self.zone)

    def create_volume_snapshot(self, volume: Any, name: str, ex_labels: Any = None) -> Any:  # type: ignore[override]
        request = f"/zones/{volume.extra['zone'].name}/disks/{volume.name}/createSnapshot"
        self.connection.async_request(request, method="POST", data={"name": name, "labels": ex_labels})
        return self.ex_get_snapshot(name)

    def _to_snapshot(self, snapshot: Any) -> Any:
        made = _by_name(super()._to_snapshot(snapshot))
        made.extra["labels"] = snapshot.get("labels")
        ready = snapshot.get("status") == "READY"
        made.state = VolumeSnapshotState.AVAILABLE if ready else VolumeSnapshotState.CREATING
        return made

    def _to_node(self, *arguments: Any, **options: Any) -> Any:
        return _by_name(super()._to_node(*arguments, **options))

    def _to_node_size(self, *arguments: Any, **options: Any) -> Any:
        return _by_name(super()._to_node_size(*arguments, **options))

    def _to_storage_volume(self, *arguments: Any, **options: Any) -> Any:
        return _by_name(super()._to_storage_volume(*arguments, **options))


def _by_name(resource: Any) -> Any:
    resource.id = resource.name
    return resource
