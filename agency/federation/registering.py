"""How a Vendor Agent gets into its directory, and stays there."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from agency.federation.directory import LEASE
from agency.messaging.agent import RoleAgent
from agency.messaging.request import ask
from agency.problems import AgencyError, problem_of
from descriptors.base import new_id, utc_now
from descriptors.directory import Registration, Service
from vendor_modules.capabilities import capabilities
from vendor_modules.module import VendorModule
from vendor_modules.resources import Catalogue

RENEW_AFTER = LEASE.total_seconds() / 3
"""Seconds between two registrations."""
RETRY_AFTER = 2.0
"""Seconds after which an agent that could not register tries again."""
DESCRIBED_WITHIN = 2.0
"""Seconds in which a vendor says what it sells; who takes longer is found without that meanwhile."""


async def stay_registered(agent: RoleAgent, directory: str, module: VendorModule) -> None:
    """Keep the agent registered with the directory (JID), with what the vendor sells, until this is cancelled.

    The agent announces itself there, so that the directory learns when it is gone; anew when its link was lost.
    """
    described: Catalogue | None = None
    lost = asyncio.Event()
    with agent.listening(new_id("talk"), lambda _: None, lost.set):
        while True:
            lost.clear()
            described = await _described(agent, directory, module, described)
            registered = await _register(agent, directory, _registration(agent, module, described))
            with suppress(TimeoutError):
                async with asyncio.timeout(RENEW_AFTER if registered else RETRY_AFTER):
                    await lost.wait()


async def _described(
    agent: RoleAgent, directory: str, module: VendorModule, before: Catalogue | None
) -> Catalogue | None:
    """What the vendor sells, as far as it says. Who takes long registers with what was known before, meanwhile."""
    asking = asyncio.create_task(_catalogue(agent, module))
    try:
        await asyncio.wait({asking}, timeout=DESCRIBED_WITHIN)
        if not asking.done():
            await _register(agent, directory, _registration(agent, module, before))
        return await asking or before
    finally:
        asking.cancel()


async def _register(agent: RoleAgent, directory: str, registration: Registration) -> bool:
    try:
        await agent.link.announce(agent, directory)
        await ask(agent, directory, registration, Registration)
    except AgencyError as error:
        agent.log.warning("not registered", directory=directory, error=str(error))
        return False
    return True


async def _catalogue(agent: RoleAgent, module: VendorModule) -> Catalogue | None:
    """What the vendor sells; None where it does not say. Its offers will say why."""
    try:
        return await module.catalogue()
    except Exception as error:  # noqa: BLE001 - modules are anybody's
        agent.log.info("vendor has no catalogue now", vendor=module.vendor, problem=problem_of(error).message)
        return None


def _registration(agent: RoleAgent, module: VendorModule, catalogue: Catalogue | None) -> Registration:
    able = sorted(capabilities(type(module)))
    known = Registration(vendor=module.vendor, agent=agent.jid.bare, until=utc_now() + LEASE, capabilities=tuple(able))
    if catalogue is None:
        return known
    prices = [size.price_per_hour for size in catalogue.sizes if size.price_per_hour is not None]
    services: list[Service] = ["compute"]
    if catalogue.block_gib_month is not None:
        services.append("block")
    if catalogue.object_gib_month is not None:
        services.append("object")
    return known.model_copy(
        update={
            "currency": catalogue.currency,
            "price_from": min(prices, default=None),
            "price_to": max(prices, default=None),
            "services": tuple(services),
            "regions": (catalogue.region,),
            "jurisdictions": (catalogue.jurisdiction,),
        }
    )
