"""Negotiation among real agents: rounds until the strategy is content, the vendor concedes no more, or time is up."""

from __future__ import annotations

from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest

from agency.agents import addresses
from agency.agents.vendor import VendorAgent
from agency.messaging.links.in_process import InProcessLink
from agency.messaging.request import ask
from agency.problems import AgencyError
from agency.relocation.workshop import Workshop
from agency.running import _society
from agency.strategies import policy
from descriptors.base import Document
from descriptors.comparison import Comparison
from descriptors.documents import digest
from descriptors.negotiation import Mandate, Negotiation
from descriptors.relocation import RelocationPlan
from descriptors.sla import Agreement, Offer
from tests.agency.agents.conftest import Society
from tests.agency.toys import Cloud, notebook

FLOOR = policy({"strategy": "conceder", "floor": "80", "rounds": 3})
MOVES = {
    "move-egress-per-gib": "0", "move-window-hours": "2", "move-downtime-seconds": "60", "validity-seconds": "3600",
}  # fmt: skip


@pytest.fixture
async def society(workshop: Workshop, clouds: dict[str, Cloud], dbos: None) -> AsyncIterator[Society]:
    """The agents at work: alpha and cirrus negotiate, beta does not."""
    workshop.policies["alpha"] = FLOOR
    workshop.policies["cirrus"] = policy({"strategy": "conceder", "floor": "90", "limits": MOVES})
    async with _society(workshop, InProcessLink(), call_seconds=20) as deployer:
        yield Society(deployer, workshop, clouds)


async def negotiate(society: Society, expect: type[Document] = Comparison, **mandate: Any) -> Any:
    """Negotiate about the notebook, which is submitted first."""
    if mandate.get("purpose") != "relocation":
        await society.submit(notebook())
    asked = Mandate(application="notes", **mandate)
    return await ask(society.deployer, society.deployer.link.address(addresses.MEDIATOR), asked, expect)


async def record(society: Society) -> Negotiation:
    """The latest timeline."""
    return (await society.workshop.store.all(Negotiation, newest_first=True))[0]


def offered(comparison: Comparison) -> dict[str, Offer]:
    """The offers, by vendor."""
    return {row.vendor: row.offer for row in comparison.rows if row.offer}


async def test_a_negotiation_brings_the_price_down_and_can_be_accepted(society: Society) -> None:
    """Who negotiates comes down, not below its floor; what it offered last is accepted like any offer."""
    listed = society.clouds["alpha"].per_hour
    first = offered(await society.submit(notebook()))["alpha"].price.per_hour
    last = offered(await negotiate(society, strategy="conceder"))["alpha"]
    assert first * Decimal("0.8") <= last.price.per_hour < first
    assert first >= listed
    agreement = await society.request("accept", last.id, Agreement)
    assert (agreement.price, agreement.offer_digest) == (last.price, digest(last))


async def test_the_timeline_says_who_offered_what_and_why_it_ended(society: Society) -> None:
    """Every turn is there in order, with the round it belongs to; every vendor has an outcome with a reason."""
    await negotiate(society, strategy="boulware", rounds=3)
    kept = await record(society)
    assert [turn.at for turn in kept.turns] == sorted(turn.at for turn in kept.turns)
    alpha = [(turn.act, turn.round) for turn in kept.turns if turn.vendor == "alpha"]
    assert alpha[:3] == [("offer", 1), ("counter-offer", 2), ("offer", 2)]
    outcomes = {outcome.vendor: outcome for outcome in kept.outcomes}
    assert outcomes.keys() == society.clouds.keys()
    assert outcomes["alpha"].result == "offer"
    assert outcomes["alpha"].last_per_hour < outcomes["alpha"].first_per_hour
    assert outcomes["beta"].why.code == "not-negotiable"
    assert outcomes["cirrus"].result == "none"
    assert kept.rounds <= 4


async def test_what_is_over_the_budget_is_not_taken(society: Society) -> None:
    """Where nobody comes within the budget nothing is on offer, and the reason is data."""
    comparison = await negotiate(society, budget=Decimal("0.5"))
    assert comparison.chosen is None
    reasons = {row.vendor: row.excluded_because[0].code for row in comparison.rows}
    assert reasons["alpha"] == reasons["beta"] == "over-budget"
    assert {outcome.result for outcome in (await record(society)).outcomes} == {"none"}


async def test_who_never_concedes_gets_the_first_offer(society: Society) -> None:
    """A strategy that insists ends with the rounds, with the best that was to be had."""
    last = offered(await negotiate(society, strategy="fixed", rounds=2))
    kept = await record(society)
    assert kept.rounds == 3
    assert last["alpha"].price.per_hour < last["beta"].price.per_hour


async def test_an_unknown_strategy_is_refused(society: Society) -> None:
    """The error names those that there are."""
    with pytest.raises(AgencyError, match="no strategy 'charm'") as error:
        await negotiate(society, strategy="charm")
    assert "boulware" in error.value.problem.remedy


async def test_what_is_deployed_is_not_negotiated_about(society: Society) -> None:
    """Its terms are agreed; the error says what can be negotiated."""
    await society.deployed(notebook())
    mediator = society.deployer.link.address(addresses.MEDIATOR)
    with pytest.raises(AgencyError, match="under an agreement") as error:
        await ask(society.deployer, mediator, Mandate(application="notes"), Comparison)
    assert "relocate notes --plan --strategy" in error.value.problem.remedy


async def test_a_move_is_negotiated(society: Society) -> None:
    """A plan can rest on negotiated terms: the fee, the time the transfer may take, the downtime, and how long it is
    valid."""
    await society.deployed(notebook())
    plan = await negotiate(society, RelocationPlan, purpose="relocation", vendor="cirrus", strategy="fixed")
    offer = await society.workshop.store.get(Offer, plan.offer)
    assert offer.move is not None
    assert offer.move.window_hours < 4
    assert offer.move.downtime_seconds < 120
    assert (offer.expires - offer.issued).total_seconds() > society.clouds["cirrus"].offer_validity_seconds
    kept = await record(society)
    assert kept.purpose == "relocation"
    asked = {change.term for turn in kept.turns for change in turn.changes}
    assert {"price-per-hour", "move-window-hours", "move-downtime-seconds", "validity-seconds"} <= asked


async def test_a_vendor_that_began_anew_stands_by_its_last_offer(
    society: Society, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A vendor that has forgotten what was asked for refuses to go on, and its offer can be accepted all the same."""
    revise = VendorAgent.revise

    async def forgetful(agent: VendorAgent, counter: Any) -> Any:
        agent._seller._asked.clear()
        return await revise(agent, counter)

    monkeypatch.setattr(VendorAgent, "revise", forgetful)
    last = offered(await negotiate(society, strategy="fixed"))["alpha"]
    kept = await record(society)
    assert [turn.act for turn in kept.turns if turn.vendor == "alpha"] == [
        "offer", "counter-offer", "offer", "counter-offer", "refusal",
    ]  # fmt: skip
    assert (await society.request("accept", last.id, Agreement)).offer == last.id
