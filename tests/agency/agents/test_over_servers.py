"""The main job from submission to the end, where the agents speak over a real XMPP server. These pairs of link and
server are played with toy clouds; the others with the whole demo, in test_demo.py."""

from __future__ import annotations

from contextlib import AbstractAsyncContextManager
from decimal import Decimal

import pytest
from pydantic import SecretStr

from agency.agents import addresses
from agency.messaging.links import Link
from agency.messaging.links.component import component_link
from agency.messaging.request import ask
from agency.running import _society
from agency.strategies import policy
from agency.trust.proof import collect, verify
from descriptors.comparison import Comparison
from descriptors.deployment import Deployment
from descriptors.negotiation import Mandate
from descriptors.relocation import RelocationPlan, RelocationReceipt
from descriptors.sla import Agreement
from tests.agency.agents.conftest import Society
from tests.agency.conftest import in_memory, workshop_at
from tests.agency.toys import Cloud, notebook
from tests.integration.test_links import clients
from tests.labs.xmpp import XmppServer

pytestmark = pytest.mark.integration


def component(server: XmppServer) -> AbstractAsyncContextManager[Link]:
    """The component link to that server."""
    return component_link(server.agents, *server.component, SecretStr(server.secret))


@pytest.mark.parametrize(("link", "server"), [("component", "prosody"), ("client", "ejabberd")])
async def test_a_story_over_a_server(
    link: str, server: str, request: pytest.FixtureRequest, hurried: None, dbos: None
) -> None:
    """An application is submitted, its terms negotiated, the offer accepted; it is deployed, moved with its data, and
    destroyed; what was signed on the way proves it."""
    at: XmppServer = request.getfixturevalue(server)
    alpha, beta = Cloud(name="alpha"), Cloud(name="beta", per_hour=Decimal("0.02"))
    domain = at.agents if link == "component" else at.domain
    with in_memory() as state:
        async with (
            workshop_at(state, alpha, beta, domain=domain) as workshop,
            (component if link == "component" else clients)(at) as connected,
        ):
            workshop.policies["alpha"] = policy({"strategy": "conceder", "floor": "80", "rounds": 3})
            async with _society(workshop, connected, call_seconds=30) as deployer:
                society = Society(deployer, workshop, {"alpha": alpha, "beta": beta})
                listed = (await society.submit(notebook())).chosen
                mandate = Mandate(application="notes", strategy="conceder", rounds=3)
                comparison = await ask(deployer, connected.address(addresses.MEDIATOR), mandate, Comparison)
                chosen = comparison.chosen
                assert listed is not None
                assert chosen is not None
                assert chosen.vendor == "alpha"
                assert chosen.price.per_hour < listed.price.per_hour
                await society.request("accept", chosen.id, Agreement)
                await society.request("deploy", "notes")
                (machine,) = alpha.published()
                alpha.write(machine.id, b"said over XMPP")
                plan = await society.request("plan-relocation", "notes", RelocationPlan, vendor="beta")
                receipt = await society.request("relocate", plan.id, RelocationReceipt)
                assert receipt.content_before == receipt.content_after is not None
                (moved,) = beta.published()
                assert (beta.notes(moved.id) or b"").startswith(b"said over XMPP")
                assert (await society.request("destroy", "notes", Deployment)).status == "destroyed"
                assert not alpha.held
                assert not beta.held
                proven = [
                    link.document for link in verify(await collect(workshop.store, "notes"), workshop.site.verifier)
                ]
                assert {receipt.id, plan.id} <= {getattr(document, "id", "") for document in proven}
