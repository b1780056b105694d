"""FIPA Contract Net: asking many, waiting no longer than needed, and settling with one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from spade.message import Message

from agency.agents.vendor import VendorAgent
from agency.messaging import contract_net
from agency.messaging.acl import Performative, Protocol, answer, compose, content_of, performative_of
from agency.messaging.agent import RoleAgent
from agency.messaging.contract_net import Participant, accept, call_for_proposals
from agency.messaging.links.in_process import InProcessLink
from agency.problems import AgencyError, refuse
from descriptors.base import Document, utc_now
from descriptors.cfp import CallForProposals
from descriptors.documents import digest
from descriptors.messages import Problem, Request
from descriptors.resources import Reason, ResourceClass, ResourceType
from descriptors.sla import Agreement, Allocation, Offer, PriceTerms, Refusal
from tests.agency.messaging.conftest import Hire
from tests.agency.toys import Cloud, toy_module

MACHINE = ResourceClass(name="machine", type=ResourceType.COMPUTE, cores=1)


def call(seconds: float = 5) -> CallForProposals:
    """A call for a machine, to be answered within that time."""
    now = utc_now()
    reply_by = now + timedelta(seconds=seconds)
    return CallForProposals(
        id=f"call-{time.monotonic_ns()}",
        application="notes",
        purpose="deployment",
        issued=now,
        reply_by=reply_by,
        resources=(MACHINE,),
    )


def offer_for(asked: CallForProposals, vendor: str, minutes: float = 15) -> Offer:
    """A vendor's offer."""
    now = utc_now()
    return Offer(
        id=f"offer-{vendor}",
        call=asked.id,
        application=asked.application,
        vendor=vendor,
        issued=now,
        expires=now + timedelta(minutes=minutes),
        region="eu-west",
        jurisdiction="EU",
        price=PriceTerms(currency="EUR", per_hour=Decimal("0.01"), per_month=Decimal("7.3")),
        resources=asked.resources,
        allocations=(Allocation(resource="machine", size="small", price_per_hour=Decimal("0.01")),),
    )


def agreement_on(offer: Offer) -> Agreement:
    """What a vendor confirms."""
    return Agreement(
        id=f"agreement-{offer.id}",
        application=offer.application,
        offer=offer.id,
        offer_digest=digest(offer),
        provider=offer.vendor,
        consumer="deployer",
        state="observed",
        agreed=utc_now(),
        price=offer.price,
        resources=offer.resources,
        allocations=offer.allocations,
    )


async def _never(_: Any) -> Any:
    raise AssertionError("not asked for in this test")


Propose = Callable[[CallForProposals], Awaitable[Offer | Refusal]]


async def bidder(hire: Hire, name: str, propose: Propose = _never, settle: Any = _never) -> str:
    """An agent that takes part; gives its address."""
    agent = await hire(name)
    Participant.install(agent, propose, settle)
    return str(agent.jid)


def proposing(vendor: str, after: float = 0) -> Propose:
    """Proposes an offer, after a while."""

    async def propose(asked: CallForProposals) -> Offer:
        await asyncio.sleep(after)
        return offer_for(asked, vendor)

    return propose


def saying(agent: RoleAgent, say: Callable[[Message], list[Message]]) -> None:
    """Let the agent answer each call with messages made up by a function."""

    async def job(message: Message) -> None:
        for reply in say(message):
            await agent.send(reply)

    agent.take_part(Protocol.CONTRACT_NET, job)


async def test_every_answer_comes_back_under_its_vendor_s_name(hire: Hire) -> None:
    """Offers and refusals come as they were sent, by the names that the vendors have."""
    asked = call()
    reason = Reason(code="no-machine-size", message="too large for us")

    async def declines(asked: CallForProposals) -> Refusal:
        return Refusal(call=asked.id, vendor="beta", reasons=(reason,))

    vendors = {await bidder(hire, "va", proposing("alpha")): "alpha", await bidder(hire, "vb", declines): "beta"}
    answers = await call_for_proposals(await hire("broker"), asked, vendors)
    assert isinstance(answers["alpha"], Offer)
    assert (answers["alpha"].call, answers["alpha"].vendor) == (asked.id, "alpha")
    assert answers["beta"] == Refusal(call=asked.id, vendor="beta", reasons=(reason,))


async def test_it_ends_when_all_have_answered(hire: Hire) -> None:
    """Nobody waits for the deadline when there is nobody left to wait for."""
    vendors = {await bidder(hire, f"v{n}", proposing(f"v{n}")): f"v{n}" for n in range(20)}
    began = time.monotonic()
    answers = await call_for_proposals(await hire("broker"), call(seconds=60), vendors)
    assert all(isinstance(found, Offer) for found in answers.values())
    assert time.monotonic() - began < 5


async def test_a_silent_vendor_costs_no_more_than_the_deadline(hire: Hire) -> None:
    """At the deadline the round ends, with a reason for the silent and the offers of the others."""
    vendors = {await bidder(hire, "va", proposing("alpha")): "alpha", "mute@test": "mute"}
    await hire("mute")
    began = time.monotonic()
    answers = await call_for_proposals(await hire("broker"), call(seconds=0.5), vendors)
    assert 0.4 < time.monotonic() - began < 15
    assert isinstance(answers["alpha"], Offer)
    assert isinstance(answers["mute"], Reason)
    assert answers["mute"].code == "no-answer"


async def test_a_call_whose_deadline_has_passed_ends_at_once(hire: Hire) -> None:
    """A deadline in the past gives everybody a reason, and no wait."""
    await hire("mute")
    answers = await call_for_proposals(await hire("broker"), call(seconds=-1), {"mute@test": "mute"})
    assert [found.code for found in answers.values()] == ["no-answer"]


async def test_a_vendor_without_an_agent_is_a_reason(hire: Hire) -> None:
    """A vendor whose agent does not run is left out with that reason; nobody waits for it."""
    vendors = {await bidder(hire, "va", proposing("alpha")): "alpha", "gone@test": "gone"}
    began = time.monotonic()
    answers = await call_for_proposals(await hire("broker"), call(seconds=60), vendors)
    assert answers["gone"].code == "no-such-agent"
    assert isinstance(answers["alpha"], Offer)
    assert time.monotonic() - began < 5


async def test_late_answers_are_not_used(hire: Hire) -> None:
    """An offer that comes after the deadline is not in the result, and disturbs no later call."""
    vendors = {await bidder(hire, "slow", proposing("slow", after=0.4)): "slow"}
    broker = await hire("broker")
    answers = await call_for_proposals(broker, call(seconds=0.2), vendors)
    assert answers["slow"].code == "no-answer"
    asked = call(seconds=1)
    again = await call_for_proposals(broker, asked, vendors)
    assert again["slow"].call == asked.id
    assert answers["slow"].code == "no-answer"


async def test_only_a_vendor_s_first_answer_counts(hire: Hire) -> None:
    """A vendor that changes its mind is held to what it said first."""
    asked = call(seconds=0.5)
    dear, cheap = offer_for(asked, "alpha"), offer_for(asked, "alpha").model_copy(update={"id": "offer-second"})

    def say(message: Message) -> list[Message]:
        return [answer(message, Performative.PROPOSE, found) for found in (dear, cheap)]

    saying(await hire("va"), say)
    await hire("mute")  # so that the round is still open when the second answer comes
    answers = await call_for_proposals(await hire("broker"), asked, {"va@test": "alpha", "mute@test": "mute"})
    assert answers["alpha"] == dear


async def test_who_was_not_asked_is_not_heard(hire: Hire) -> None:
    """An answer in the call's conversation from a stranger is not used, whatever it claims."""
    asked = call(seconds=0.4)
    stranger = await hire("stranger")
    await hire("va")
    broker = await hire("broker")
    round_ = asyncio.create_task(call_for_proposals(broker, asked, {"va@test": "alpha"}))
    await asyncio.sleep(0.05)
    offer = offer_for(asked, "alpha")
    await stranger.send(compose("broker@test", Performative.PROPOSE, Protocol.CONTRACT_NET, asked.id, offer))
    answers = await round_
    assert answers["alpha"].code == "no-answer"


@pytest.mark.parametrize(
    ("performative", "content", "code"),
    [
        ("failure", Problem(code="vendor-unavailable", message="out of order", remedy="wait"), "vendor-unavailable"),
        ("not-understood", Problem(code="not-understood", message="what?", remedy="none"), "not-understood"),
        ("refuse", Problem(code="x", message="no refusal document", remedy="none"), "not-understood"),
        ("propose", Refusal(call="c", vendor="alpha", reasons=(Reason(code="x", message="x"),)), "not-understood"),
        ("propose", None, "not-understood"),
        ("inform", Request(action="deploy", subject="x"), "not-understood"),
        ("shout", None, "not-understood"),
    ],
)
async def test_whatever_is_no_offer_becomes_a_reason(
    hire: Hire, performative: str, content: Document | None, code: str
) -> None:
    """Failures, misunderstandings and nonsense end the wait for that vendor and are shown as its reason."""

    def say(message: Message) -> list[Message]:
        reply = answer(message, Performative.INFORM, content)
        reply.set_metadata("performative", performative)
        return [reply]

    saying(await hire("va"), say)
    began = time.monotonic()
    answers = await call_for_proposals(await hire("broker"), call(seconds=30), {"va@test": "alpha"})
    assert isinstance(answers["alpha"], Reason)
    assert answers["alpha"].code == code
    assert time.monotonic() - began < 5


async def test_a_vendor_that_crashes_says_so(hire: Hire) -> None:
    """A participant whose proposal fails answers ``failure``, and takes part in the next call."""
    mood = iter([RuntimeError("insides"), refuse("out-of-order", "under repair", "wait"), None])

    async def propose(asked: CallForProposals) -> Offer:
        if error := next(mood):
            raise error
        return offer_for(asked, "alpha")

    vendors, broker = {await bidder(hire, "va", propose): "alpha"}, await hire("broker")
    found = [(await call_for_proposals(broker, call(), vendors))["alpha"] for _ in range(3)]
    assert [reason.code for reason in found[:2]] == ["internal-error", "out-of-order"]
    assert isinstance(found[2], Offer)


@pytest.mark.parametrize("performative", ["inform", "shout", "x" * 5000, "agree"])
async def test_a_participant_says_what_has_no_place(hire: Hire, performative: str) -> None:
    """A message with no place in the protocol is answered with ``not-understood``, of whatever length it is."""
    va, heard = await bidder(hire, "va"), asyncio.get_running_loop().create_future()
    broker = await hire("broker")
    message = compose(va, Performative.INFORM, Protocol.CONTRACT_NET, "t")
    message.set_metadata("performative", performative)
    with broker.listening("t", heard.set_result):
        await broker.send(message)
        async with asyncio.timeout(5):
            reply = await heard
    assert performative_of(reply) is Performative.NOT_UNDERSTOOD
    assert content_of(reply, Problem).code == "not-understood"


# --- settling ---


async def test_acceptance_gives_the_agreement_and_the_others_are_rejected(hire: Hire) -> None:
    """The chosen vendor's agreement comes back; every other one hears ``reject-proposal`` in the same conversation."""
    offer, rejected = offer_for(call(), "alpha"), asyncio.Queue()

    async def settle(accepted: Offer) -> Agreement:
        assert accepted == offer
        return agreement_on(accepted)

    def loses(message: Message) -> None:
        rejected.put_nowait((str(message.to), performative_of(message), message.thread))

    for name in ("vb", "vc"):
        (await hire(name)).take_part(Protocol.CONTRACT_NET, loses)
    va = await bidder(hire, "va", settle=settle)
    agreement = await accept(await hire("broker"), offer, va, ["vb@test", "vc@test"])
    assert (agreement.offer, agreement.provider) == (offer.id, "alpha")
    async with asyncio.timeout(5):
        heard = {await rejected.get(), await rejected.get()}
    assert heard == {(name, Performative.REJECT_PROPOSAL, offer.call) for name in ("vb@test", "vc@test")}


async def test_a_vendor_that_does_not_stand_by_its_offer(hire: Hire) -> None:
    """Its problem reaches the deployer whole, and nobody else is rejected."""
    rejected: list[Message] = []

    async def settle(_: Offer) -> Agreement:
        raise refuse("sold-out", "somebody was faster", "ask for new offers")

    (await hire("vb")).take_part(Protocol.CONTRACT_NET, rejected.append)
    va = await bidder(hire, "va", settle=settle)
    with pytest.raises(AgencyError, match="somebody was faster") as error:
        await accept(await hire("broker"), offer_for(call(), "alpha"), va, ["vb@test"])
    assert error.value.problem.code == "sold-out"
    await asyncio.sleep(0.05)
    assert rejected == []


async def test_a_loser_that_is_gone_does_not_undo_the_agreement(hire: Hire) -> None:
    """The agreement stands once the vendor has confirmed it, whether or not the others can be told."""

    async def settle(accepted: Offer) -> Agreement:
        return agreement_on(accepted)

    offer, va = offer_for(call(), "alpha"), await bidder(hire, "va", settle=settle)
    assert (await accept(await hire("broker"), offer, va, ["gone@test"])).offer == offer.id


async def test_a_vendor_silent_at_acceptance(hire: Hire, monkeypatch: pytest.MonkeyPatch) -> None:
    """A vendor that never answers an acceptance is given up on, and named."""
    monkeypatch.setattr(contract_net, "SETTLE_WITHIN", 0.1)
    await hire("va")
    with pytest.raises(AgencyError, match="va@test does not answer"):
        await accept(await hire("broker"), offer_for(call(), "alpha"), "va@test", [])


async def test_an_answer_to_an_acceptance_that_makes_no_sense(hire: Hire) -> None:
    """A vendor that informs of something else than an agreement has not agreed."""
    request = Request(action="deploy", subject="x")
    saying(await hire("va"), lambda message: [answer(message, Performative.INFORM, request)])
    with pytest.raises(AgencyError) as error:
        await accept(await hire("broker"), offer_for(call(), "alpha"), "va@test", [])
    assert error.value.problem.code == "not-understood"


# --- what a Vendor Agent stands by ---


@pytest.fixture
async def vendor(hire: Hire, link: InProcessLink) -> Any:
    """A real Vendor Agent with an in-memory module."""
    agent = VendorAgent("va@test", link, toy_module(Cloud("alpha")))
    await agent.start()
    yield agent
    await agent.stop()


async def _offered(broker: Any, seconds: float = 5) -> Offer:
    found = (await call_for_proposals(broker, call(seconds), {"va@test": "alpha"}))["alpha"]
    assert isinstance(found, Offer)
    return found


async def test_a_vendor_stands_by_its_offer_twice(hire: Hire, vendor: VendorAgent) -> None:
    """Accepting twice gives an agreement on the same offer under the same id."""
    broker = await hire("broker")
    offer = await _offered(broker)
    first, second = [await accept(broker, offer, "va@test", []) for _ in range(2)]
    assert first.id == second.id
    assert first.offer_digest == digest(offer) == second.offer_digest
    assert (first.price, first.allocations, first.state) == (offer.price, offer.allocations, "observed")
    assert {(r.provider, r.agreement) for r in first.resources} == {("alpha", first.id)}


@pytest.mark.parametrize(
    "change",
    [
        {"price": PriceTerms(currency="EUR", per_hour=Decimal(0), per_month=Decimal(0))},
        {"expires": utc_now() + timedelta(days=365)},
        {"guarantees": ()},
        {"region": "moon"},
        {"id": "offer-0000000000000000"},
    ],
    ids=lambda change: next(iter(change)),
)
async def test_a_vendor_refuses_what_it_never_offered(hire: Hire, vendor: VendorAgent, change: dict[str, Any]) -> None:
    """An offer that was altered in any way, or that the vendor does not know, is refused at acceptance."""
    broker = await hire("broker")
    altered = (await _offered(broker)).model_copy(update=change)
    with pytest.raises(AgencyError, match="never made this offer") as error:
        await accept(broker, altered, "va@test", [])
    assert error.value.problem.code == "not-offered"


async def test_a_vendor_refuses_its_expired_offer(hire: Hire, vendor: VendorAgent) -> None:
    """An offer binds until it expires, and not a moment longer."""
    vendor.module.cloud.offer_validity_seconds = 0
    broker = await hire("broker")
    with pytest.raises(AgencyError, match="expired") as error:
        await accept(broker, await _offered(broker), "va@test", [])
    assert error.value.problem.code == "expired"
