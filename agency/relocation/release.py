"""Letting go of resources: now if it can be done, else later, but never forgotten."""

from __future__ import annotations

from collections.abc import Iterable

from agency.problems import problem_of
from agency.relocation.workshop import Workshop
from descriptors.deployment import DeployedResource
from vendor_modules.capabilities import RELEASE_ORDER, destroy


async def let_go(workshop: Workshop, resources: Iterable[DeployedResource], reason: str) -> None:
    """Destroy resources, in the order in which they can be; what cannot be destroyed now is left to the janitor."""
    for resource in sorted(resources, key=lambda r: RELEASE_ORDER.index(r.kind)):
        try:
            await destroy(workshop.modules[resource.vendor], resource.kind, resource.id)
        except Exception as error:  # noqa: BLE001 - whatever keeps one from going, the others go, and it is remembered
            why = f"{reason}: {problem_of(error).message}"
            await workshop.store.add_cleanup(resource.vendor, resource.kind, resource.key, why)
