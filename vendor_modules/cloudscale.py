"""cloudscale.ch, through libcloud's driver: a provider with nothing unusual, which shows how little one takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from libcloud.compute.providers import get_driver
from libcloud.compute.types import Provider

from vendor_modules.abilities import Ability, Support
from vendor_modules.libcloud import Driver, LibcloudFirstBoot, LibcloudListedImages, LibcloudPower, account
from vendor_modules.libcloud.site import LibcloudPriced, PricedSettings
from vendor_modules.module import ModuleSettings, Proof
from vendor_modules.resources import Key, MachineSpec
from vendor_modules.services.credentials import Credentials


class CloudscaleSettings(PricedSettings):
    """What machines get; the region is the zone's slug, such as ``rma1``."""

    ssh_keys: tuple[str, ...] = ()
    """The SSH public keys that may log in to new machines, each as the line of a ``.pub`` file."""


class CloudscaleModule(LibcloudPriced, LibcloudPower, LibcloudFirstBoot, LibcloudListedImages):
    """Servers and the images that all customers have. The password is an API token."""

    title = "cloudscale.ch"
    proof = Proof.RECORDED
    proven_by = "Answers of the API as libcloud 3.9.1 recorded them; no account was used."
    known_limits = (
        "The password of the credentials is an API token; the user name is not looked at.",
        "The region is the slug of a zone, such as rma1 or lpg1; zones and SSH keys of new machines were not recorded.",
        "Machines of all zones are listed, not those of the region alone.",
        "There are no key pairs to keep: new machines get the SSH keys of the settings; images may insist on one.",
        "libcloud's driver has no volumes, networks or custom images. A machine's own disk has 10 GiB.",
        "Names are cut down to small letters, digits and hyphens, and get the key's digest at their end.",
    )
    abilities: ClassVar[Mapping[str, Ability]] = {
        "destroy_image": Ability(Support.UNSUPPORTED, note="the images are the provider's")
    }
    Settings: ClassVar[type[ModuleSettings]] = CloudscaleSettings
    provider = Provider.CLOUDSCALE
    settle_timeout = 180.0

    def _connect(self, credentials: Credentials) -> Driver:
        return get_driver(self.provider)(account(credentials)[1])

    def _node_arguments(self, driver: Driver, spec: MachineSpec, key: Key) -> dict[str, Any]:
        assert isinstance(self.settings, CloudscaleSettings)  # noqa: S101 - the registry makes them from Settings
        arguments = super()._node_arguments(driver, spec, key)
        asked = {"zone": self.settings.region, "ssh_keys": self.settings.ssh_keys}
        user_data = arguments.pop("ex_userdata", None)
        return arguments | {"ex_create_attr": asked | ({"user_data": user_data} if user_data else {})}
