"""Renegotiating what runs: the new agreement takes the place of the old one, and nothing else changes."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from sqlalchemy import update

from agency import agreements
from agency.agents import addresses
from agency.messaging.links.in_process import InProcessLink
from agency.messaging.request import ask
from agency.problems import AgencyError
from agency.relocation.workshop import Workshop
from agency.running import _society
from agency.store.models import ConversationRow
from agency.store.store import Store
from agency.strategies import policy
from agency.trust.proof import collect, verify
from descriptors.base import utc_now
from descriptors.cfp import CallForProposals
from descriptors.comparison import Comparison
from descriptors.deployment import Deployment
from descriptors.negotiation import Mandate
from descriptors.sla import Agreement, CounterOffer, Offer
from tests.agency.agents.conftest import Society
from tests.agency.toys import Cloud, notebook


async def renegotiated(society: Society, **choice: Any) -> Comparison:
    """Negotiate about the running agreement."""
    mandate = Mandate(application="notes", purpose="renegotiation", **choice)
    return await ask(society.deployer, society.deployer.link.address(addresses.MEDIATOR), mandate, Comparison)


async def offered(society: Society, **choice: Any) -> Offer:
    """What the vendor of the running agreement offers instead."""
    chosen = (await renegotiated(society, **choice)).chosen
    assert isinstance(chosen, Offer)
    return chosen


async def states(store: Store) -> dict[str, str]:
    """The state of each agreement."""
    return {agreement.id: agreement.state for agreement in await store.all(Agreement)}


async def test_the_new_agreement_takes_the_place_of_the_old_one(society: Society, clouds: dict[str, Cloud]) -> None:
    """A vendor that became cheaper offers the same for less; accepted, the deployment is under the new agreement, the
    old one is over, and no machine was touched."""
    store = society.workshop.store
    before = await society.deployed(notebook())
    (old_id,) = before.agreements
    machines = [machine.id for machine in clouds["alpha"].machines()]
    clouds["alpha"].per_hour = Decimal("0.005")
    offer = await offered(society)
    assert offer.supersedes == agreements.reference(await store.get(Agreement, old_id))
    new = await society.request("accept", offer.id, Agreement)
    assert new.supersedes == offer.supersedes
    assert new.price.per_hour < (await store.get(Agreement, old_id)).price.per_hour
    assert await states(store) == {old_id: "terminated", new.id: "observed"}
    after = await store.get(Deployment, before.id)
    assert (after.agreements, after.revision, after.status) == ((new.id,), before.revision + 1, "running")
    assert {resource.agreement for resource in after.resources} == {new.id}
    assert [(r.kind, r.id) for r in after.resources] == [(r.kind, r.id) for r in before.resources]
    assert [machine.id for machine in clouds["alpha"].machines()] == machines
    assert await society.request("accept", offer.id, Agreement) == new


async def test_what_was_renegotiated_can_be_stopped_and_destroyed(society: Society) -> None:
    """An application under its second agreement is operated like any other."""
    await society.deployed(notebook())
    await society.request("accept", (await offered(society)).id, Agreement)
    assert (await society.request("stop", "notes")).status == "stopped"
    assert (await society.request("start", "notes")).status == "running"
    assert (await society.request("destroy", "notes")).status == "destroyed"
    assert set((await states(society.workshop.store)).values()) == {"terminated"}


async def test_only_what_runs_is_renegotiated(society: Society) -> None:
    """Without a deployment, and with a vendor that there is no agreement with, there is nothing to renegotiate."""
    await society.submit(notebook())
    with pytest.raises(AgencyError, match="runs nowhere"):
        await renegotiated(society)
    await society.deployed(notebook())
    with pytest.raises(AgencyError, match="has no agreement with beta"):
        await renegotiated(society, vendor="beta")
    assert (await offered(society, vendor="alpha")).vendor == "alpha"


async def test_an_agreement_is_replaced_once(society: Society) -> None:
    """Of two offers to replace the same agreement one can be accepted: the other is about one that has ended."""
    await society.deployed(notebook())
    first, second = await offered(society), await offered(society)
    await society.request("accept", first.id, Agreement)
    with pytest.raises(AgencyError, match="has ended or changed"):
        await society.request("accept", second.id, Agreement)


async def test_other_sizes_are_no_renegotiation(society: Society) -> None:
    """An offer of other machines than those that run cannot be accepted: that would be a relocation."""
    store = society.workshop.store
    await society.deployed(notebook())
    offer = await offered(society)
    bigger = tuple(a.model_copy(update={"size": "huge"}) for a in offer.allocations)
    await store.put(offer.model_copy(update={"allocations": bigger}), id=offer.id, application="notes")
    with pytest.raises(AgencyError, match="offers other sizes than those that run"):
        await society.request("accept", offer.id, Agreement)


async def test_a_minimum_term_is_kept(society: Society) -> None:
    """Who is bound for some time is so under the next agreement, too."""
    store = society.workshop.store
    (old_id,) = (await society.deployed(notebook())).agreements
    old = await store.get(Agreement, old_id)
    bound = old.model_copy(update={"price": old.price.model_copy(update={"minimum_days": 30})})
    await store.put(bound, id=old_id, application="notes")
    assert (await offered(society)).price.minimum_days == 30


async def test_a_vendor_replaces_no_agreement_but_its_own(society: Society) -> None:
    """A call that names an agreement of another vendor's, or one that says something else, gets no offer."""
    store = society.workshop.store
    await society.deployed(notebook())
    offer = await offered(society)
    call = await store.get(CallForProposals, offer.call)
    (old,) = [a for a in await store.all(Agreement) if a.id == offer.supersedes.id]  # type: ignore[union-attr]
    await store.put(old.model_copy(update={"consumer": "somebody"}), id=old.id, application="notes")
    assert call.supersedes is not None
    with pytest.raises(AgencyError, match="has ended or changed"):
        await society.request("accept", offer.id, Agreement)


async def test_what_a_crash_left_half_done_is_done(society: Society) -> None:
    """An agency that died between the agreement and the change of the deployment finishes that when it tidies up."""
    store, workshop = society.workshop.store, society.workshop
    before = await society.deployed(notebook())
    (old_id,) = before.agreements
    old = await store.get(Agreement, old_id)
    new = old.model_copy(update={"id": "agreement-next", "supersedes": agreements.reference(old)})
    await store.put(new, id=new.id, application="notes")
    workshop.busy["notes"] = "plan-1"
    await agreements.tend(workshop, utc_now())
    assert (await states(store))[old_id] == "observed"
    del workshop.busy["notes"]
    for _ in range(2):
        await agreements.tend(workshop, utc_now())
        assert await states(store) == {old_id: "terminated", new.id: "observed"}
        assert (await store.get(Deployment, before.id)).agreements == (new.id,)


async def test_agreements_end_when_the_offer_said_so(workshop: Workshop, clouds: dict[str, Cloud], dbos: None) -> None:
    """A vendor whose agreements have an end says so in its offers, and the agreement has it."""
    workshop.policies["alpha"] = policy({"maximum_days": 30})
    async with _society(workshop, InProcessLink(), call_seconds=20) as deployer:
        chosen = (await Society(deployer, workshop, clouds).submit(notebook())).chosen
        assert chosen is not None
        assert chosen.price.maximum_days == 30
        agreement = await Society(deployer, workshop, clouds).request("accept", chosen.id, Agreement)
        assert agreement.expires == agreement.agreed + timedelta(days=30)


async def test_what_is_not_settled_is_told(society: Society) -> None:
    """An acceptance that was not answered is pending, one that was refused is rejected; others are neither."""
    chosen = (await society.submit(notebook())).chosen
    assert chosen is not None
    store, workshop = society.workshop.store, society.workshop
    assert await agreements.unsettled(workshop, "notes") == {}
    for state, shown in (("accepting", "pending"), ("withdrawing", "pending"), ("failed", "rejected")):
        async with store.transaction() as session:
            mine = (ConversationRow.role == "initiator", ConversationRow.peer.startswith("vendor-alpha@"))
            await session.execute(update(ConversationRow).where(*mine).values(state=state))
        assert await agreements.unsettled(workshop, "notes") == {"alpha": shown}
        assert await agreements.unsettled(workshop, "other") == {}


async def test_an_agreement_expires(society: Society) -> None:
    """When its time is over an agreement is expired, nothing follows, and the history tells of it."""
    store, workshop, now = society.workshop.store, society.workshop, utc_now()
    (old_id,) = (await society.deployed(notebook())).agreements
    old = await store.get(Agreement, old_id)
    await store.put(old.model_copy(update={"expires": now}), id=old_id, application="notes")
    await agreements.tend(workshop, now - timedelta(seconds=1))
    assert await states(store) == {old_id: "observed"}
    for _ in range(2):
        await agreements.tend(workshop, now)
    assert await states(store) == {old_id: "expired"}
    assert [e.kind for e in await store.events("notes")].count("agreement-expired") == 1
    with pytest.raises(AgencyError, match="has no agreement that runs"):
        await renegotiated(society)
    await society.request("destroy", "notes")
    assert await states(store) == {old_id: "expired"}


async def test_the_price_of_what_runs_is_haggled_about(
    workshop: Workshop, clouds: dict[str, Cloud], dbos: None
) -> None:
    """A vendor that negotiates comes down for what runs already; the last offer still replaces the same agreement, what
    was agreed is proven, with the counter-offer that it answers, and
    nobody gets out of a minimum term."""
    workshop.policies["alpha"] = policy(
        {"strategy": "conceder", "floor": "80", "term_discounts": [{"from": 90, "percent": "5"}]}
    )
    async with _society(workshop, InProcessLink(), call_seconds=20) as deployer:
        society = Society(deployer, workshop, clouds)
        (old_id,) = (await society.deployed(notebook())).agreements
        old = await workshop.store.get(Agreement, old_id)
        last = await offered(society, strategy="conceder", commit_days=90)
        assert old.price.per_hour * Decimal("0.8") <= last.price.per_hour < old.price.per_hour
        assert last.price.minimum_days == 90
        new = await society.request("accept", last.id, Agreement)
        assert new.supersedes == agreements.reference(old)
        proof = await collect(workshop.store, "notes")
        links = [link.document for link in verify(proof, workshop.site.verifier)]
        assert [type(link) for link in links].count(CounterOffer) == 1
        assert {link.id for link in links if isinstance(link, Agreement)} == {old.id, new.id}
        assert (await offered(society, strategy="conceder")).price.minimum_days == 90
        assert (await renegotiated(society, commit_days=1)).chosen is None
