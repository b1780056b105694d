"""The Cloud Conduit: looks at a running application and says what it really consists of, vendor by vendor."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from descriptors.deployment import DeployedResource, Deployment, Kind
from vendor_modules.capabilities import inventory
from vendor_modules.module import VendorModule
from vendor_modules.resources import Resource

Place = tuple[str, Kind, str]
"""A vendor, a kind of resource, and the vendor's identifier of one."""


def place(resource: DeployedResource) -> Place:
    """Where the resource is. Its name would not do: an application that was moved in part may have two of a name."""
    return resource.vendor, resource.kind, resource.id


@dataclass(frozen=True)
class Topology:
    """What was found: every deployed resource with its description, and what should be there and is not."""

    found: Mapping[Place, Resource]
    """By where each is; see :func:`place`."""
    missing: tuple[DeployedResource, ...]


async def introspect(modules: Mapping[str, VendorModule], deployment: Deployment) -> Topology:
    """Ask every vendor of the deployment what it holds; raises a ``VendorError`` when one cannot be asked."""
    vendors = sorted({resource.vendor for resource in deployment.resources})
    inventories = await asyncio.gather(*(inventory(modules[vendor]) for vendor in vendors))
    held: dict[Place, Resource] = {
        (vendor, kind, resource.id): resource
        for vendor, resources in zip(vendors, inventories, strict=True)
        for kind, resource in resources
    }
    found = {place(r): held[place(r)] for r in deployment.resources if place(r) in held}
    return Topology(found, tuple(r for r in deployment.resources if place(r) not in found))
