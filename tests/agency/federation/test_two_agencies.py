"""Two agencies at two sites, on two real XMPP servers: a vendor at the other site is asked, wins, and is used."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path

import pytest
from pydantic import SecretStr

from agency.agents import addresses
from agency.agents.deployer import DeployerAgent
from agency.federation import directory
from agency.janitor import find_leaks
from agency.messaging.links.component import component_link
from agency.messaging.request import ask
from agency.problems import AgencyError
from agency.relocation import viaduct
from agency.relocation.workshop import Workshop
from agency.running import _society
from agency.strategies import policy
from agency.trust.proof import collect, verify
from agency.trust.site import add_site, remove_site
from descriptors.application import Application
from descriptors.comparison import Comparison
from descriptors.deployment import Deployment
from descriptors.directory import Search, SearchResult
from descriptors.documents import digest
from descriptors.messages import Request
from descriptors.negotiation import Mandate
from descriptors.relocation import RelocationPlan, RelocationReceipt
from descriptors.sla import Agreement
from tests.agency.conftest import in_memory, workshop_at
from tests.agency.toys import Cloud, notebook
from tests.labs.xmpp import TwoSites, XmppServer

pytestmark = pytest.mark.integration
NEGOTIATES = policy({"strategy": "conceder", "floor": "80", "rounds": 3})


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first question takes as long as the servers take to connect: on a busy machine, some seconds."""
    monkeypatch.setattr(directory, "SEARCH_WITHIN", 30.0)


@asynccontextmanager
async def agency_at(
    server: XmppServer, state: Path, *clouds: Cloud, **agents: str
) -> AsyncIterator[tuple[DeployerAgent, Workshop]]:
    """An agency with these clouds, on the server's component link; ``agents`` at other sites speak for some."""
    secret = SecretStr(server.secret)
    async with (
        workshop_at(state, *clouds, domain=server.agents, agents=agents) as workshop,
        component_link(server.agents, *server.component, secret) as link,
    ):
        workshop.policies.update({cloud.name: NEGOTIATES for cloud in clouds if cloud.name not in agents})
        async with _society(workshop, link, 20) as deployer:
            yield deployer, workshop


async def trust(here: Workshop, there: Workshop) -> None:
    """Have the sites trust each other."""
    for one, other in ((here, there), (there, here)):
        await add_site(one.store, other.site.key.name, other.site.key.public)
        await one.site.refresh()


async def submitted(deployer: DeployerAgent, application: Application) -> Comparison:
    """What the deployer's own Mediator makes of the application."""
    return await ask(deployer, deployer.link.address(addresses.MEDIATOR), application, Comparison)


async def accepted(deployer: DeployerAgent, comparison: Comparison, vendor: str) -> Agreement:
    """The agreement that the vendor's offer becomes."""
    offer = next(row.offer for row in comparison.rows if row.vendor == vendor)
    assert offer is not None
    return await deployer.request(Request(action="accept", subject=offer.id), Agreement)


async def test_a_vendor_at_the_other_site_wins(two_sites: TwoSites, hurried: None, dbos: None) -> None:
    """The broker of a site with a dear vendor finds the cheap one of a site that it trusts, over its directory, whose
    list it can show; the agreement is signed there and believed here. What would be deployed there, or moved there, is
    refused: there is no account; the agreement can be ended all the same. As soon as the sites do not trust each other
    any more, nobody there is asked."""
    with in_memory() as here, in_memory() as there:
        async with (
            agency_at(two_sites.a, here, Cloud(name="dear", per_hour=Decimal("0.9"))) as (deployer, ours),
            agency_at(two_sites.b, there, Cloud(name="cheap", per_hour=Decimal("0.01"))) as (_, theirs),
        ):
            alone = await submitted(deployer, notebook())
            assert [row.vendor for row in alone.rows] == ["dear"]
            await trust(ours, theirs)
            listed = await ask(
                deployer, deployer.link.address(addresses.DIRECTORY), Search(site=two_sites.b.agents), SearchResult
            )
            assert [each.agent for each in listed.registrations] == [f"vendor-cheap@{two_sites.b.agents}"]
            comparison = await submitted(deployer, notebook())
            assert comparison.chosen is not None
            assert comparison.chosen.vendor == "cheap"
            agreement = await accepted(deployer, comparison, "cheap")
            assert await ours.store.get(Agreement, agreement.id) == await theirs.store.get(Agreement, agreement.id)
            with pytest.raises(AgencyError) as refused:
                await deployer.request(Request(action="deploy", subject="notes"), Deployment)
            assert refused.value.problem.code == "no-account"
            await deployer.request(Request(action="destroy", subject="notes"), Deployment)
            assert (await ours.store.get(Agreement, agreement.id)).state == "terminated"

            await accepted(deployer, await submitted(deployer, notebook()), "dear")
            viaduct.VIADUCTS.workshop = ours
            await deployer.request(Request(action="deploy", subject="notes"), Deployment)
            move = Request(action="plan-relocation", subject="notes", vendor="cheap")
            with pytest.raises(AgencyError) as refused:
                await deployer.request(move, RelocationPlan)
            assert refused.value.problem.code == "no-account"

            await remove_site(ours.store, two_sites.b.agents)
            await ours.site.refresh()
            after = await submitted(deployer, notebook("memo"))
            assert [row.vendor for row in after.rows] == ["dear"]


async def test_what_is_won_at_the_other_site_is_deployed_there(two_sites: TwoSites, hurried: None, dbos: None) -> None:
    """With an account at the provider whose agent is at the other site, an application is deployed there under what
    was negotiated with that agent, which has signed it; another one is moved there from here, with its content; and
    both are destroyed. Nobody has leaked anything, and both sites know which agreements have ended. An application of
    that name at the other site has nothing to do with it."""
    cheap, dear = Cloud(name="cheap", per_hour=Decimal("0.01")), Cloud(name="dear", per_hour=Decimal("0.9"))
    speaker = f"vendor-cheap@{two_sites.b.agents}"
    with in_memory() as here, in_memory() as there:
        async with (
            agency_at(two_sites.b, there, cheap) as (neighbour, theirs),
            agency_at(two_sites.a, here, dear, cheap, cheap=speaker) as (deployer, ours),
        ):
            apart = await submitted(deployer, notebook())
            assert [row.excluded_because[0].code for row in apart.rows if row.vendor == "cheap"] == ["away"]
            await trust(ours, theirs)
            listed = (await submitted(deployer, notebook())).chosen
            mandate = Mandate(application="notes", strategy="conceder", rounds=3)
            comparison = await ask(deployer, deployer.link.address(addresses.MEDIATOR), mandate, Comparison)
            agreement = await accepted(deployer, comparison, "cheap")
            assert listed is not None
            assert agreement.price.per_hour < listed.price.per_hour
            assert await ours.site.signed_by(digest(agreement)) == {speaker}
            deployment = await deployer.request(Request(action="deploy", subject="notes"), Deployment)
            assert {resource.vendor for resource in deployment.resources} == {"cheap"}
            assert {resource.agreement for resource in deployment.resources} == {agreement.id}
            assert len(cheap.published()) == 1
            assert await ours.store.cleanups() == await find_leaks(ours) == []
            assert not dear.held

            theirs_too = await accepted(neighbour, await submitted(neighbour, notebook()), "cheap")
            await neighbour.request(Request(action="destroy", subject="notes"), Deployment)
            assert (await theirs.store.get(Agreement, theirs_too.id)).state == "terminated"
            assert await theirs.store.get(Agreement, agreement.id) == agreement
            assert {link.document.tag for link in verify(await collect(theirs.store, "notes"), theirs.site.verifier)}

            await accepted(deployer, await submitted(deployer, notebook("memo")), "dear")
            await deployer.request(Request(action="deploy", subject="memo"), Deployment)
            (machine,) = dear.published()
            dear.write(machine.id, b"to be moved abroad")
            move = Request(action="plan-relocation", subject="memo", vendor="cheap")
            plan = await deployer.request(move, RelocationPlan)
            receipt = await deployer.request(Request(action="relocate", subject=plan.id), RelocationReceipt)
            assert receipt.content_before == receipt.content_after is not None
            assert not dear.published()
            contents = [cheap.notes(machine.id) or b"" for machine in cheap.published()]
            assert sum(content.startswith(b"to be moved abroad") for content in contents) == 1
            assert receipt.agreement
            assert await ours.site.signed_by(digest(await ours.store.get(Agreement, receipt.agreement))) == {speaker}

            for name in ("notes", "memo"):
                await deployer.request(Request(action="destroy", subject=name), Deployment)
            assert not cheap.held
            assert not dear.held
            assert await ours.store.cleanups() == []
            async with asyncio.timeout(30):
                while any(each.state != "terminated" for each in await theirs.store.all(Agreement)):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)  # the other site's store tells nobody
