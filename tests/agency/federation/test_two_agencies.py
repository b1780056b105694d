"""Two agencies at two sites, on two real XMPP servers: a vendor at the other site is asked, and can win."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path

import pytest
from pydantic import SecretStr

from agency.agents import addresses
from agency.agents.deployer import DeployerAgent
from agency.messaging.links.component import component_link
from agency.messaging.request import ask
from agency.problems import AgencyError
from agency.relocation.workshop import Workshop
from agency.running import _society
from agency.trust.site import add_site, remove_site
from descriptors.application import Application
from descriptors.comparison import Comparison
from descriptors.directory import Search, SearchResult
from descriptors.messages import Request
from descriptors.sla import Agreement
from tests.agency.conftest import in_memory, workshop_at
from tests.agency.toys import Cloud, notebook
from tests.labs.xmpp import TwoSites, XmppServer

pytestmark = pytest.mark.integration


@asynccontextmanager
async def agency_at(server: XmppServer, state: Path, *clouds: Cloud) -> AsyncIterator[tuple[DeployerAgent, Workshop]]:
    """An agency with these clouds, on the server's component link."""
    secret = SecretStr(server.secret)
    async with (
        workshop_at(state, *clouds, domain=server.agents) as workshop,
        component_link(server.agents, *server.component, secret) as link,
        _society(workshop, link, 10) as deployer,
    ):
        yield deployer, workshop


async def trust(here: Workshop, there: Workshop) -> None:
    """Have one site trust the other."""
    await add_site(here.store, there.site.key.name, there.site.key.public)
    await here.site.refresh()


async def submitted(deployer: DeployerAgent, application: Application) -> Comparison:
    """What the deployer's own Mediator makes of the application."""
    return await ask(deployer, deployer.link.address(addresses.MEDIATOR), application, Comparison)


async def test_a_vendor_at_the_other_site_wins(two_sites: TwoSites, hurried: None, dbos: None) -> None:
    """The broker of a site with a dear vendor finds the cheap one of a site that it trusts, over its directory, whose
    list it can show; the agreement is signed there and believed here. What would be deployed there is refused: there is
    no account. As soon as the sites do not trust each other any more, nobody there is asked."""
    with in_memory() as here, in_memory() as there:
        async with (
            agency_at(two_sites.a, here, Cloud(name="dear", per_hour=Decimal("0.9"))) as (deployer, ours),
            agency_at(two_sites.b, there, Cloud(name="cheap", per_hour=Decimal("0.01"))) as (_, theirs),
        ):
            alone = await submitted(deployer, notebook())
            assert [row.vendor for row in alone.rows] == ["dear"]
            await trust(ours, theirs)
            await trust(theirs, ours)
            listed = await ask(
                deployer, deployer.link.address(addresses.DIRECTORY), Search(site=two_sites.b.agents), SearchResult
            )
            assert [each.agent for each in listed.registrations] == [f"vendor-cheap@{two_sites.b.agents}"]
            comparison = await submitted(deployer, notebook())
            chosen = comparison.chosen
            assert chosen is not None
            assert chosen.vendor == "cheap"
            agreement = await deployer.request(Request(action="accept", subject=chosen.id), Agreement)
            assert agreement.provider == "cheap"
            assert await ours.store.get(Agreement, agreement.id) == await theirs.store.get(Agreement, agreement.id)
            with pytest.raises(AgencyError) as refused:
                await deployer.request(Request(action="deploy", subject="notes"), Agreement)
            assert refused.value.problem.code == "no-account"
            await remove_site(ours.store, two_sites.b.agents)
            await ours.site.refresh()
            after = await submitted(deployer, notebook("memo"))
            assert [row.vendor for row in after.rows] == ["dear"]
