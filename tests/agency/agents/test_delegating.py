"""The Broker accepts what the deployer has signed that it may, and nothing else; what comes of it can be proven."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from agency.agents import addresses
from agency.messaging.request import ask
from agency.trust import proof
from descriptors.base import new_id, utc_now
from descriptors.comparison import Composition
from descriptors.messages import Request
from descriptors.relocation import RelocationPlan, RelocationReceipt
from descriptors.sla import Agreement, Offer
from descriptors.trust import Acceptance, Delegation
from tests.agency.agents.conftest import Society
from tests.agency.agents.test_relocating import refusal
from tests.agency.toys import notebook


async def offered(society: Society) -> Offer:
    """The offer that is recommended."""
    chosen = (await society.submit(notebook())).chosen
    assert chosen is not None
    return chosen


def delegation(society: Society, offer: Offer, signer: str = addresses.DEPLOYER, **changes: Any) -> str:
    """What lets the broker accept the offer, changed, and signed by an agent of this site."""
    address = society.deployer.link.address
    given: dict[str, Any] = {
        "id": new_id("delegation"),
        "application": offer.application,
        "delegate": address(addresses.BROKER),
        "per_month": offer.price.per_month,
        "currency": offer.price.currency,
        "issued": utc_now(),
        "until": offer.expires,
    }
    signs = society.workshop.site.signer(address(signer))
    return signs.sign(Delegation(**given | changes), audience=address(addresses.BROKER), expires=offer.expires)


async def accept(society: Society, offer: Offer, token: str | None) -> Agreement:
    """Ask the broker itself."""
    request = Request(action="accept", subject=offer.id, delegations=() if token is None else (token,))
    return await ask(society.deployer, society.deployer.link.address(addresses.BROKER), request, Agreement)


@pytest.mark.parametrize(
    "change",
    [
        {"application": "other"},
        {"delegate": "mediator@agency.local"},
        {"per_month": Decimal("0.01")},
        {"currency": "USD"},
        {"until": utc_now() - timedelta(days=1)},
    ],
    ids=lambda change: next(iter(change)),
)
async def test_the_broker_goes_no_further_than_it_may(society: Society, change: dict[str, Any]) -> None:
    """Another application, delegate, price or currency, or too late: refused. What is allowed is done."""
    offer = await offered(society)
    with refusal("not-delegated"):
        await accept(society, offer, delegation(society, offer, **change))
    assert (await accept(society, offer, delegation(society, offer))).offer == offer.id


async def test_only_the_deployer_delegates(society: Society) -> None:
    """Without the deployer's own signature nothing is accepted, whichever agent of the site asks."""
    offer = await offered(society)
    with refusal("not-delegated"):
        await accept(society, offer, None)
    with refusal("wrong-sender"):
        await accept(society, offer, delegation(society, offer, signer=addresses.MEDIATOR))
    with refusal("not-understood"):
        await ask(
            society.deployer,
            society.deployer.link.address(addresses.BROKER),
            Request(action="deploy", subject=offer.id),
            Agreement,
        )


async def test_everything_can_be_proven(society: Society) -> None:
    """After a deployment and a relocation the proof holds, from what the deployer delegated to the receipt."""
    await society.deployed(notebook())
    found = await society.request("plan-relocation", "notes", RelocationPlan, vendor="beta")
    receipt = await society.request("relocate", found.id, RelocationReceipt)
    links = proof.verify(await proof.collect(society.workshop.store, "notes"), society.workshop.site.verifier)
    kinds = [link.document.tag for link in links]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "call-for-proposals": 2,
        "delegation": 2,
        "offer": 2,
        "acceptance": 2,
        "agreement": 2,
        "relocation-plan": 1,
        "relocation-receipt": 1,
        "transfer-manifest": 4,  # of the machine's disk and of the volume: to the site, and from there to the target
    }
    assert receipt in [link.document for link in links]
    (accepted,) = (
        link for link in links if isinstance(link.document, Acceptance) and link.document.offer == found.offer
    )
    assert {each.document.tag for each in accepted.answers} == {"offer", "delegation"}


async def test_a_composition_can_be_proven(society: Society) -> None:
    """Of an application at two vendors there is a delegation, an acceptance and an agreement for each part."""
    society.clouds["cirrus"].per_hour = Decimal("0.001")
    (row,) = (row for row in (await society.submit(notebook(front=True))).rows if row.composition)
    assert row.composition
    await society.request("accept", row.composition.id, Composition)
    links = proof.verify(await proof.collect(society.workshop.store, "notes"), society.workshop.site.verifier)
    kinds = [link.document.tag for link in links]
    assert {kind: kinds.count(kind) for kind in kinds} == dict.fromkeys(
        ("call-for-proposals", "delegation", "offer", "acceptance", "agreement"), 2
    )
