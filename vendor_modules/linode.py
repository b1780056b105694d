"""Linode (Akamai), through libcloud's driver and its API's version 4."""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from typing import Any, ClassVar
from urllib.parse import quote

from libcloud.compute.base import NodeLocation
from libcloud.compute.drivers.linode import LinodeNodeDriverV4

from vendor_modules.abilities import Ability, Requirement
from vendor_modules.errors import VendorError, by_status
from vendor_modules.libcloud import (
    Driver,
    LibcloudFirstBoot,
    LibcloudImages,
    LibcloudKeyPairs,
    LibcloudPower,
    LibcloudVolumes,
    account,
)
from vendor_modules.libcloud.errors import words
from vendor_modules.module import Proof
from vendor_modules.resources import Key, MachineSpec, Status, VolumeSpec
from vendor_modules.services.credentials import Credentials


class LinodeModule(LibcloudPower, LibcloudFirstBoot, LibcloudKeyPairs, LibcloudImages, LibcloudVolumes):
    """Linodes, volumes, images and key pairs. The password is an access token."""

    title = "Linode"
    proof = Proof.RECORDED
    proven_by = "Answers of the API as libcloud 3.9.1 recorded them; no account was used."
    known_limits = (
        "The password of the credentials is a personal access token; the user name is not looked at.",
        "Names are cut down to 32 small letters, digits and hyphens, and get the key's digest at their end.",
        "A volume appears in the machine as /dev/disk/by-id/scsi-0Linode_Volume_NAME, whatever device is asked for.",
        "Machines get a random root password that is not kept: log in with a key pair.",
        "User data needs a region and an image that have Linode's metadata service.",
        "A token that lacks a right cannot be told from one that is wrong.",
        "Prices are those of most regions; a few, such as Jakarta and São Paulo, cost more.",
    )
    abilities: ClassVar[Mapping[str, Ability]] = {
        **LibcloudVolumes.abilities,
        "attach_volume": Ability(requires=(Requirement.SAME_ZONE,), note="the device cannot be chosen"),
    }
    longest_name = 32  # a volume's; other names may be longer
    settle_timeout = 180.0

    def _connect(self, credentials: Credentials) -> Driver:
        return _Driver(account(credentials)[1])

    def _here(self, driver: Driver) -> NodeLocation:
        return NodeLocation(self._settings.region, self._settings.region, "", driver)

    def _node(self, driver: Driver, machine_id: str) -> Any:
        return driver.ex_get_node(quote(machine_id, safe=""))

    def _node_arguments(self, driver: Driver, spec: MachineSpec, key: Key) -> dict[str, Any]:
        arguments = super()._node_arguments(driver, spec, key)
        if pair := arguments.pop("ex_keyname", None):
            arguments["ex_authorized_keys"] = [self._named(driver, pair).public_key]
        return arguments | {"location": self._here(driver), "root_pass": secrets.token_urlsafe(32)}

    def _size_of(self, node: Any) -> str:
        return str(node.size)

    def _image_of(self, node: Any) -> str | None:
        return node.image  # type: ignore[no-any-return]  # the driver has its id there

    def _storage_volume(self, driver: Driver, volume_id: str) -> Any:
        return driver.ex_get_volume(quote(volume_id, safe=""))

    def _volume_status(self, volume: Any) -> Status | None:
        return self.volume_statuses.get(volume.extra["state"], Status.PENDING)

    def _key_pair_id(self, pair: Any) -> str:
        return str(pair.extra["id"])

    def _attached_to(self, volume: Any) -> tuple[str, str | None] | None:
        machine = volume.extra["linode_id"]
        return (str(machine), None) if machine else None

    def _attach(self, driver: Driver, node: Any, volume: Any, device: str) -> None:
        driver.attach_volume(node, volume)

    def _volume_arguments(self, driver: Driver, spec: VolumeSpec, key: Key) -> dict[str, Any]:
        return super()._volume_arguments(driver, spec, key) | {"location": self._here(driver)}

    def _translate(self, error: Exception) -> VendorError | None:
        status = re.search(r"Status code: (\d{3})\.$", words(error))
        return by_status(int(status[1]), words(error)) if status else super()._translate(error)


class _Driver(LinodeNodeDriverV4):
    """The driver, with what it leaves out."""

    def import_key_pair_from_string(self, name: str, key_material: str) -> Any:
        return self.create_key_pair(name, key_material)

    def delete_key_pair(self, key_pair: Any) -> bool:
        return self.connection.request(f"/v4/profile/sshkeys/{key_pair.extra['id']}", method="DELETE").success()  # type: ignore[no-any-return]
