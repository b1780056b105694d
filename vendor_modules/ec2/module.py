"""The module for Amazon EC2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from vendor_modules.abilities import Ability, Requirement, Support
from vendor_modules.ec2.balancers import Ec2LoadBalancers
from vendor_modules.ec2.compute import Ec2Settings
from vendor_modules.ec2.network import Ec2Addresses, Ec2Networks, Ec2SecurityGroups
from vendor_modules.ec2.s3 import S3
from vendor_modules.module import PriceSource, Proof


class Ec2Module(Ec2LoadBalancers, S3, Ec2SecurityGroups, Ec2Addresses, Ec2Networks):
    """Amazon EC2, one region of it."""

    title = "Amazon EC2"
    proof = Proof.EMULATOR
    proven_by = "The conformance suite on moto's server, whose machines run nothing."
    Settings = Ec2Settings
    provider = "ec2"
    priced_as = "ec2"
    prices = PriceSource.CATALOGUE
    visible_within = 1.0
    abilities: ClassVar[Mapping[str, Ability]] = {
        "create_volume": Ability(note="sizes are rounded up to whole GiB"),
        "destroy_volume": Ability(requires=(Requirement.DETACHED,)),
        "attach_volume": Ability(requires=(Requirement.SAME_ZONE,)),
        "bundle_machine": Ability(requires=(Requirement.STOPPED,)),
        "put_object": Ability(largest_mib=5 * 1024),
        "reboot_machine": Ability(Support.EMULATED, note="stop and start"),
    }
    known_limits = (
        "No machine has been made at Amazon: what moto does not show is not proven, above all first boot.",
        "Temporary credentials (session tokens) are not taken.",
        "Security groups belong to the network of the settings' subnet, else to the default network, and no other.",
        "Volumes are attached when a machine runs already; only Amazon's own images name them dev/sdf.",
        "Quotas are the account's attributes, which at Amazon are older than its service quotas.",
        "Images are not uploaded or downloaded: EC2 does so by way of S3 and a role that the account must have.",
    )
