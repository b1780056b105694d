"""Eucalyptus, which speaks like EC2: what it does otherwise, as the source of its release 5.1 says (the message classes
of ``compute-common-msgs``, and ``ComputeQueryBinding``, which refuses every parameter that it does not know).

Machines, volumes and snapshots are tagged by the calls that create them, from release 5.0 on. Security groups and
images are not: they carry their key in their name, which no two can share. What can carry it in no way within the
creating call (addresses, networks) is left out.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from decimal import Decimal
from typing import Any, ClassVar
from xml.etree.ElementTree import Element

from libcloud.compute.base import NodeSize
from pydantic import AnyHttpUrl, Field

from descriptors.base import Money
from descriptors.deployment import Kind
from vendor_modules.abilities import Ability, Requirement, Support
from vendor_modules.ec2.compute import PlaceSettings
from vendor_modules.ec2.driver import Ec2Driver, items, text
from vendor_modules.ec2.network import Ec2SecurityGroups
from vendor_modules.errors import Unsupported
from vendor_modules.labels import key_in
from vendor_modules.libcloud import Driver
from vendor_modules.module import PriceSource, Proof
from vendor_modules.resources import Key, Rule, SecurityGroup

_NOT_KNOWN = {
    "CreateVolume": {"ClientToken", "VolumeType"},
    "DescribeImages": {"MaxResults"},
    "DescribeSecurityGroups": {"MaxResults"},
}
"""What EC2's driver sends and Eucalyptus refuses. All that there is comes on one page."""
_TAGGED = ("machine", "volume", "snapshot")


class EucalyptusSettings(PlaceSettings):
    """Which cloud, and what it charges."""

    endpoint: AnyHttpUrl
    """The URL of the compute service."""
    size_prices: Mapping[str, Money] = Field(default={}, frozen=True)
    """What an hour of each size costs, by the sizes' names. Others' price is unknown, and they are not offered."""


class _Driver(Ec2Driver):
    def ask(self, action: str, **params: Any) -> Element:
        left_out = _NOT_KNOWN.get(action, set())
        return super().ask(action, **{name: value for name, value in params.items() if name not in left_out})

    def list_sizes(self, location: Any = None) -> list[NodeSize]:
        """The operator's own: Eucalyptus has an action for them that EC2 later named alike, and answers otherwise."""
        found = items(self.ask("DescribeInstanceTypes"), "instanceTypeDetails/item")
        return [_size(self, *(text(one, field) or "" for field in ("name", "cpu", "memory", "disk"))) for one in found]


class EucalyptusModule(Ec2SecurityGroups):
    """Eucalyptus 5, one region of it: machines, volumes and their snapshots, security groups, images of machines."""

    title = "Eucalyptus"
    proof = Proof.PROTOCOL_ONLY
    proven_by = (
        "The conformance suite on moto's server, behind a gate that refuses what Eucalyptus 5.1 does not take, as its "
        "source says; unproven against a live service."
    )
    known_limits = (
        "Release 5.0 or later is needed: earlier ones do not tag what they create.",
        "Key pairs are left out: Eucalyptus takes RSA keys only, and does not tell public keys.",
        "Addresses and networks are left out: up to release 5.1 they carry no key when they are made, so that one "
        "whose answer was lost could not be found again.",
        "Without key pairs and addresses, the agency cannot deploy to it yet.",
        "Objects are left out: its object storage lists by an older version of S3's protocol than the one spoken here.",
        "Images of machines, stopping and starting are for machines whose disk is a volume (EBS).",
        "The names of security groups and images are cut down to small letters, digits and hyphens, and get the key's "
        "digest at their end.",
        "Security groups know no IPv6.",
        "A volume is at dev/sdf only in images whose rules name it so.",
    )
    Settings = EucalyptusSettings
    prices = PriceSource.SETTINGS
    provider = "eucalyptus"
    visible_within = 1.0
    abilities: ClassVar[Mapping[str, Ability]] = {
        "create_volume": Ability(note="sizes are rounded up to whole GiB"),
        "destroy_volume": Ability(requires=(Requirement.DETACHED,)),
        "attach_volume": Ability(requires=(Requirement.SAME_ZONE,)),
        "bundle_machine": Ability(requires=(Requirement.STOPPED,)),
        "reboot_machine": Ability(Support.EMULATED, note="stop and start"),
    }
    driver = _Driver

    # --- keys ---

    def _tags_for(self, kind: Kind, key: Key, name: str) -> dict[str, Any]:
        return super()._tags_for(kind, key, name) if kind in _TAGGED else {}

    def _key_of(self, resource: Any, keys: Collection[str]) -> str:
        name = text(resource, "groupName") if isinstance(resource, Element) else resource.name
        return super()._key_of(resource, keys) or key_in(name or "", keys)

    # --- sizes ---

    def _price_of(self, size: Any) -> Decimal | None:
        assert isinstance(self.settings, EucalyptusSettings)  # noqa: S101 - the registry makes them from Settings
        return self.settings.size_prices.get(size.id) or None

    # --- security groups ---

    async def _create_security_group(self, name: str, rules: tuple[Rule, ...], key: Key) -> SecurityGroup:
        if any(":" in rule.cidr for rule in rules):
            raise Unsupported("Eucalyptus' security groups know no IPv6")
        return await super()._create_security_group(name, rules, key)


def _size(driver: Driver, name: str, cores: str, memory: str, disk: str) -> NodeSize:
    return NodeSize(name, name, int(memory), int(disk), 0, 0.0, driver, extra={"cpu": int(cores)})
