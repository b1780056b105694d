"""The audit: what is ours at a vendor and serves nothing."""

from __future__ import annotations

import asyncio

import pytest

from agency import janitor
from agency.janitor import find_leaks
from agency.relocation.workshop import Workshop
from descriptors.deployment import Deployment, Kind
from tests.agency.relocation.helpers import deployed
from tests.agency.toys import notebook
from vendor_modules.capabilities import inventory
from vendor_modules.module import VendorModule
from vendor_modules.resources import Resource

pytestmark = pytest.mark.usefixtures("dbos")


async def test_an_operation_begun_during_the_audit_has_not_leaked(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is made, or let go, while the vendors are asked is no leak; what still serves nothing afterwards is one."""

    async def while_it_begins(module: VendorModule) -> list[tuple[Kind, Resource]]:
        if module.vendor == "alpha":
            await deployed(workshop, notebook(), "alpha")
        return await inventory(module)

    monkeypatch.setattr(janitor, "inventory", while_it_begins)
    assert await find_leaks(workshop) == []

    (deployment,) = await workshop.store.all(Deployment)

    async def while_it_ends(module: VendorModule) -> list[tuple[Kind, Resource]]:
        held = await inventory(module)
        if module.vendor == "alpha":
            gone = deployment.model_copy(update={"resources": (), "endpoints": (), "status": "destroyed"})
            await workshop.store.put(gone, id=gone.id)
        return held

    monkeypatch.setattr(janitor, "inventory", while_it_ends)
    assert await find_leaks(workshop) == []
    monkeypatch.setattr(janitor, "inventory", inventory)
    assert {leak.id for leak in await find_leaks(workshop)} == {r.id for r in deployment.resources}


async def test_vendors_are_asked_at_once(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    """A vendor that takes long to answer does not hold up the others."""
    asked = asyncio.Barrier(len(workshop.modules))

    async def when_all_are_asked(module: VendorModule) -> list[tuple[Kind, Resource]]:
        await asked.wait()
        return []

    monkeypatch.setattr(janitor, "inventory", when_all_are_asked)
    async with asyncio.timeout(30):
        assert await find_leaks(workshop) == []
