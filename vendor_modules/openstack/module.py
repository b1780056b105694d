"""The Vendor Module of OpenStack clouds.

It goes through keystoneauth1, the part of openstacksdk that logs in, reads the service catalogue and negotiates
versions, and speaks the services' published APIs over it. Libcloud's driver neither uploads nor downloads images. The
rest of openstacksdk, its classes of resources with their waiting and repeating, would hide what this module must know:
whether a call was repeated (openstacksdk repeats a creation whose connection broke), what a state is.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from vendor_modules.abilities import Ability, Requirement
from vendor_modules.module import Proof
from vendor_modules.openstack.compute import Compute
from vendor_modules.openstack.images import FORMATS, Images
from vendor_modules.openstack.network import Networking
from vendor_modules.openstack.objects import LARGEST_MIB, ObjectStore
from vendor_modules.openstack.reports import Figures, UsageRecords
from vendor_modules.openstack.storage import Storage
from vendor_modules.resources import DiskFormat


class OpenStackModule(Compute, Storage, Images, Networking, ObjectStore, Figures, UsageRecords):
    """OpenStack: nova, glance, cinder, neutron, swift and keystone."""

    title = "OpenStack"
    proof = Proof.LIVE
    proven_by = "Two OpenStack 2025.1 clouds with real guests under qemu, which the tests start on one computer."
    known_limits = (
        "Machines boot from an image on their host's disk; the disk of one that boots from a volume cannot be bundled, "
        "but its volume can.",
        "Volumes have whole GiB: the size that is asked for is rounded up.",
        "A network that is created has no router: machines in it alone reach, and are reached by, only one another.",
        "Rules that are not for one TCP port and a range of addresses are not shown.",
        "Prices come from the vendor's settings, or from flavours that tell theirs; used time of others costs 0.",
        "Images of other formats than raw and qcow2 are not shown.",
    )
    abilities: ClassVar[Mapping[str, Ability]] = {
        "upload_image": Ability(formats=FORMATS),
        "download_image": Ability(formats=FORMATS),
        "bundle_machine": Ability(requires=(Requirement.STOPPED,), formats=(DiskFormat.QCOW2, DiskFormat.RAW)),
        "bundle_volume": Ability(requires=(Requirement.DETACHED,), formats=(DiskFormat.RAW,)),
        "destroy_volume": Ability(requires=(Requirement.DETACHED,)),
        "attach_volume": Ability(requires=(Requirement.SAME_ZONE,)),
        "destroy_security_group": Ability(requires=(Requirement.UNUSED,)),
        "destroy_network": Ability(requires=(Requirement.UNUSED,)),
        "put_object": Ability(largest_mib=LARGEST_MIB),
    }
