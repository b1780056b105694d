"""DigitalOcean, through libcloud's driver and its API's version 2."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar

from libcloud.compute.base import NodeLocation
from libcloud.compute.drivers.digitalocean import DigitalOcean_v2_NodeDriver

from vendor_modules.abilities import Ability, Requirement
from vendor_modules.libcloud import (
    Driver,
    LibcloudFirstBoot,
    LibcloudImages,
    LibcloudKeyPairs,
    LibcloudPower,
    LibcloudSnapshots,
    account,
)
from vendor_modules.module import Proof
from vendor_modules.resources import Key, MachineSpec, VolumeSpec
from vendor_modules.services.credentials import Credentials


class DigitalOceanModule(LibcloudPower, LibcloudFirstBoot, LibcloudKeyPairs, LibcloudImages, LibcloudSnapshots):
    """Droplets, volumes and their snapshots, images and key pairs. The password is an access token."""

    title = "DigitalOcean"
    proof = Proof.RECORDED
    proven_by = "Answers of the API as libcloud 3.9.1 recorded them; no account was used."
    known_limits = (
        "The password of the credentials is a personal access token; the user name is not looked at.",
        "A droplet is stopped by asking it to end: one that does not listen goes on, and stopping it times out.",
        "Names are cut down to small letters, digits and hyphens, and get the key's digest at their end.",
        "A volume appears in the droplet as /dev/disk/by-id/scsi-0DO_Volume_NAME, whatever device is asked for.",
        "A public key can be given to an account only once.",
        "Reserved addresses have neither names nor tags, so they could not be made only once; there are none here.",
    )
    abilities: ClassVar[Mapping[str, Ability]] = {
        **LibcloudSnapshots.abilities,
        "attach_volume": Ability(requires=(Requirement.SAME_ZONE,), note="the device cannot be chosen"),
    }
    largest_user_data = 64 * 1024
    settle_timeout = 180.0

    def _connect(self, credentials: Credentials) -> Driver:
        return _Driver(account(credentials)[1])

    def _here(self, driver: Driver) -> NodeLocation:
        return NodeLocation(self._settings.region, self._settings.region, "", driver)

    def _node_sizes(self, driver: Driver) -> list[Any]:
        return list(driver.list_sizes(self._here(driver)))

    def _node_arguments(self, driver: Driver, spec: MachineSpec, key: Key) -> dict[str, Any]:
        arguments = super()._node_arguments(driver, spec, key)
        if pair := arguments.pop("ex_keyname", None):
            arguments["ex_create_attr"] = {"ssh_keys": [self._named(driver, pair).extra["id"]]}
        return arguments | {"location": self._here(driver)}

    def _user_data(self, made: str) -> dict[str, Any]:
        return {"ex_user_data": made}

    def _start(self, driver: Driver, node: Any) -> None:
        driver.ex_power_on_node(node)

    def _stop(self, driver: Driver, node: Any) -> None:
        driver.ex_shutdown_node(node)

    def _is_public(self, image: Any, key: str) -> bool:
        return bool(image.extra["public"])

    def _key_pair_id(self, pair: Any) -> str:
        return str(pair.extra["id"])

    def _attached_to(self, volume: Any) -> tuple[str, str | None] | None:
        return next(((str(droplet), None) for droplet in volume.extra["droplet_ids"]), None)

    def _volume_arguments(self, driver: Driver, spec: VolumeSpec, key: Key) -> dict[str, Any]:
        return super()._volume_arguments(driver, spec, key) | {"location": self._here(driver)}

    def _volume_snapshots(self, driver: Driver) -> list[Any]:
        return driver.list_snapshots()  # type: ignore[no-any-return]

    def _volume_of(self, snapshot: Any) -> str | None:
        return str(snapshot.extra["resource_id"])


class _Driver(DigitalOcean_v2_NodeDriver):
    """The driver, with what it leaves out."""

    def __new__(cls, *_: Any) -> Any:
        return object.__new__(cls)  # its own makes sub-classes of another class only

    destroy_volume_snapshot = DigitalOcean_v2_NodeDriver.delete_volume_snapshot

    def import_key_pair_from_string(self, name: str, key_material: str) -> Any:
        return self.create_key_pair(name, key_material)

    def list_snapshots(self) -> list[Any]:
        found = self._paginated_request("/v2/snapshots?resource_type=volume", "snapshots")
        return [self._to_volume_snapshot(snapshot) for snapshot in found]

    def _to_volume_snapshot(self, data: Any) -> Any:
        # its size is what is charged for, and may be 0
        return super()._to_volume_snapshot(data | {"size_gigabytes": data["min_disk_size"]})

    def create_volume(self, size: int, name: str, location: Any = None, snapshot: Any = None) -> Any:
        asked: dict[str, Any] = {"name": name, "size_gigabytes": size}
        asked |= {"snapshot_id": snapshot.id} if snapshot else {"region": location.id}
        answer = self.connection.request("/v2/volumes", data=json.dumps(asked), method="POST")
        return self._to_volume(answer.object["volume"])
