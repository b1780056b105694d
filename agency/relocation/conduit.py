"""The Cloud Conduit: looks at a running application and says what it really consists of, vendor by vendor."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

from descriptors.deployment import DeployedResource, Deployment
from vendor_modules.capabilities import inventory
from vendor_modules.module import VendorModule
from vendor_modules.resources import Resource


@dataclass(frozen=True)
class Topology:
    """What was found: every deployed resource with its description, and what should be there and is not."""

    found: Mapping[str, Resource]
    """By the name that the resource has in the deployment."""
    missing: tuple[DeployedResource, ...]


async def introspect(modules: Mapping[str, VendorModule], deployment: Deployment) -> Topology:
    """Ask every vendor of the deployment what it holds; raises a ``VendorError`` when one cannot be asked."""
    vendors = sorted({resource.vendor for resource in deployment.resources})
    inventories = await asyncio.gather(*(inventory(modules[vendor]) for vendor in vendors))
    held = {
        (vendor, kind, resource.id): resource
        for vendor, resources in zip(vendors, inventories, strict=True)
        for kind, resource in resources
    }
    found = {r.name: held[r.vendor, r.kind, r.id] for r in deployment.resources if (r.vendor, r.kind, r.id) in held}
    return Topology(found, tuple(r for r in deployment.resources if r.name not in found))
