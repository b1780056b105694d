"""FIPA Iterated Contract Net: asking many, waiting no longer than needed, and settling with one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from spade.message import Message
from sqlalchemy import select

from agency.agents.vendor import VendorAgent
from agency.messaging import contract_net, conversations
from agency.messaging.acl import (
    Performative,
    Protocol,
    Said,
    answer,
    compose,
    content_of,
    message_of,
    performative_of,
    reply_to,
)
from agency.messaging.agent import RoleAgent
from agency.messaging.bidding import Participant
from agency.messaging.contract_net import Answer, Initiator
from agency.messaging.conversations import Conversations
from agency.messaging.links.in_process import InProcessLink
from agency.messaging.links.stanzas import STANZA_ERRORS, Element, bounced
from agency.problems import AgencyError, refuse
from agency.store.models import TokenRow
from agency.store.store import Store
from agency.trust.site import Site
from descriptors.base import Document, Reference, utc_now
from descriptors.cfp import CallForProposals
from descriptors.documents import Form, digest, dump
from descriptors.messages import Problem, Request
from descriptors.resources import Reason, ResourceClass, ResourceType
from descriptors.sla import Agreement, Allocation, Change, CounterOffer, Offer, PriceTerms, Refusal
from descriptors.trust import Acceptance
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


Propose = Callable[[CallForProposals], Awaitable[Offer | Refusal]]


async def _never(_: Any) -> Any:
    raise AssertionError("not asked for in this test")


class Seller:
    """A bidder that stands by what it proposes."""

    def __init__(self, propose: Propose, settle: Any = None) -> None:
        self._propose = propose
        self._settle = settle
        self.offers: dict[str, Offer] = {}
        self.accepted: list[str] = []

    async def propose(self, asked: CallForProposals) -> Offer | Refusal:
        """As it was told, remembering the offer."""
        found = await self._propose(asked)
        if isinstance(found, Offer):
            self.offers[found.id] = found
        return found

    async def revise(self, counter: CounterOffer) -> Offer | Refusal:
        """What was asked for, if that is to be paid a cent an hour at least."""
        offer, wanted = self.offers[counter.offer.id], counter.changes[0].value
        if wanted < Decimal("0.001"):
            reason = Reason(code="too-low", message="not for that")
            return Refusal(call=counter.call, vendor=counter.vendor, reasons=(reason,))
        price = offer.price.model_copy(update={"per_hour": wanted})
        found = offer.model_copy(update={"id": f"{offer.id}.1", "price": price})
        self.offers[found.id] = found
        return found

    async def accept(self, acceptance: Acceptance) -> Agreement:
        """An agreement on the offer, or as it was told."""
        self.accepted.append(acceptance.offer)
        offer = self.offers[acceptance.offer]
        return await self._settle(offer) if self._settle else agreement_on(offer)


@dataclass
class Net:
    """A broker, and how others join."""

    hire: Hire
    site: Site
    conversations: Conversations
    agent: RoleAgent
    broker: Initiator
    late: list[Message]

    async def bidder(self, name: str, propose: Propose = _never, settle: Any = None) -> str:
        """An agent that takes part; gives its address."""
        agent = await self.hire(name)
        Participant(agent, Seller(propose, settle), self.site, self.conversations)
        return str(agent.jid)

    async def ask(self, asked: CallForProposals, vendors: Mapping[str, str]) -> dict[str, Answer]:
        """One round, whose offers may be accepted; answers by the vendors' names."""
        async with self.broker.calling(asked, vendors):
            heard = await self.broker.ask(asked.id, dict.fromkeys(vendors, asked), asked.reply_by)
            await self.broker.stand(asked.id, heard)
        return {vendors[jid]: each.answer for jid, each in heard.items()}

    async def comes_to(self, agent: str, conversation: str, peer: str, state: str) -> None:
        """Wait until the agent's conversation with the peer is in that state."""
        async with asyncio.timeout(10):
            while (await self.conversations.find(agent, conversation))[peer].state != state:  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    def signed(self, message: Message, offer: Offer) -> Message:
        """A reply to the call, with an offer that its receiver has signed."""
        signer = self.site.signer(str(message.to))
        answers = [digest(content_of(message, CallForProposals))]
        token = signer.sign(offer, audience=str(message.sender), expires=offer.expires, answers=answers)
        return reply_to(message, Said(Performative.PROPOSE, "jose", token))


async def until(holds: Callable[[], bool]) -> None:
    """Wait until it holds."""
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - what it waits for has no event
            await asyncio.sleep(0.01)


@pytest.fixture
async def net(store: Store, site: Site, hire: Hire) -> Net:  # agents stop before their store closes
    """A broker on a real store."""
    conversations, late = Conversations(store), []
    agent = await hire("broker")
    return Net(hire, site, conversations, agent, Initiator(agent, site, conversations, late.append), late)


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


async def test_every_answer_comes_back_under_its_vendor_s_name(net: Net) -> None:
    """Offers and refusals come as they were sent, by the names that the vendors have."""
    asked = call()
    reason = Reason(code="no-machine-size", message="too large for us")

    async def declines(asked: CallForProposals) -> Refusal:
        return Refusal(call=asked.id, vendor="beta", reasons=(reason,))

    vendors = {await net.bidder("va", proposing("alpha")): "alpha", await net.bidder("vb", declines): "beta"}
    answers = await net.ask(asked, vendors)
    assert isinstance(answers["alpha"], Offer)
    assert (answers["alpha"].call, answers["alpha"].vendor) == (asked.id, "alpha")
    assert answers["beta"] == Refusal(call=asked.id, vendor="beta", reasons=(reason,))


async def test_it_ends_when_all_have_answered(net: Net) -> None:
    """Nobody waits for the deadline when there is nobody left to wait for."""
    vendors = {await net.bidder(f"v{n}", proposing(f"v{n}")): f"v{n}" for n in range(20)}
    began = time.monotonic()
    answers = await net.ask(call(seconds=60), vendors)
    assert all(isinstance(found, Offer) for found in answers.values())
    assert time.monotonic() - began < 25


async def test_a_silent_vendor_costs_no_more_than_the_deadline(net: Net) -> None:
    """At the deadline the round ends, with a reason for the silent and the offers of the others."""
    vendors = {await net.bidder("va", proposing("alpha")): "alpha", "mute@test": "mute"}
    await net.hire("mute")
    began = time.monotonic()
    answers = await net.ask(call(seconds=0.5), vendors)
    assert 0.4 < time.monotonic() - began < 15
    assert isinstance(answers["alpha"], Offer)
    assert isinstance(answers["mute"], Reason)
    assert answers["mute"].code == "no-answer"


async def test_a_link_that_takes_nothing_holds_up_no_round(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that hangs, with the connection open, costs no more than the deadline; all have a reason then."""

    async def never(_: Message) -> None:
        await asyncio.Event().wait()

    vendors = {await net.bidder(f"v{n}", proposing(f"v{n}")): f"v{n}" for n in range(3)}
    monkeypatch.setattr(net.agent.link, "send", never)
    async with asyncio.timeout(10):
        answers = await net.ask(call(seconds=0.3), vendors)
    assert [found.code for found in answers.values()] == ["no-answer"] * 3


async def test_an_offer_that_expires_while_it_is_being_accepted(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store so slow that the offer expires before the acceptance is written: refused as expired, and not said."""
    vendors = {await net.bidder("va", proposing("alpha")): "alpha"}
    offer = (await net.ask(call(), vendors))["alpha"]
    keep = net.site.keep

    async def slowly(signed: Any, **about: str) -> None:
        await keep(signed, **about)
        monkeypatch.setattr(contract_net, "utc_now", lambda: offer.expires)

    monkeypatch.setattr(net.site, "keep", slowly)
    with pytest.raises(AgencyError) as error:
        await net.broker.accept(offer, "va@test")
    assert error.value.problem.code == "expired"
    assert (await net.conversations.find("broker@test", offer.call))["va@test"].state == "offered"


async def test_a_call_whose_deadline_has_passed_ends_at_once(net: Net) -> None:
    """A deadline in the past gives everybody a reason, and no wait."""
    await net.hire("mute")
    answers = await net.ask(call(seconds=-1), {"mute@test": "mute"})
    assert [found.code for found in answers.values()] == ["no-answer"]


async def test_a_vendor_without_an_agent_is_a_reason(net: Net) -> None:
    """A vendor whose agent does not run is left out with that reason; nobody waits for it."""
    vendors = {await net.bidder("va", proposing("alpha")): "alpha", "gone@test": "gone"}
    began = time.monotonic()
    answers = await net.ask(call(seconds=60), vendors)
    assert answers["gone"].code == "no-such-agent"
    assert isinstance(answers["alpha"], Offer)
    assert time.monotonic() - began < 25


async def test_late_answers_are_counted_and_not_used(net: Net) -> None:
    """An offer that comes after the deadline is not in the result, is told of once, and disturbs no later call."""
    vendors = {await net.bidder("slow", proposing("slow", after=0.4)): "slow"}
    answers = await net.ask(call(seconds=0.2), vendors)
    assert answers["slow"].code == "no-answer"
    asked = call(seconds=5)
    again = await net.ask(asked, vendors)
    assert again["slow"].call == asked.id
    assert [message.sender.local for message in net.late] == ["slow"]


async def test_who_missed_a_deadline_is_asked_and_not_waited_for(net: Net) -> None:
    """A vendor that hangs costs one deadline: the next round ends with the others; one that answers again is waited
    for again."""
    release = asyncio.Event()

    async def hangs(asked: CallForProposals) -> Offer:
        await release.wait()
        return offer_for(asked, "hung")

    vendors = {await net.bidder("va", proposing("alpha")): "alpha", await net.bidder("hung", hangs): "hung"}
    assert (await net.ask(call(seconds=0.3), vendors))["hung"].code == "no-answer"
    async with asyncio.timeout(20):
        second = await net.ask(call(seconds=60), vendors)
    assert isinstance(second["alpha"], Offer)
    assert second["hung"].code == "no-answer"
    release.set()
    await until(lambda: len(net.late) == 2)
    assert all(isinstance(found, Offer) for found in (await net.ask(call(seconds=60), vendors)).values())


async def test_only_a_vendor_s_first_answer_counts(net: Net) -> None:
    """A vendor that changes its mind is held to what it said first."""
    asked = call(seconds=0.5)
    dear, cheap = offer_for(asked, "alpha"), offer_for(asked, "alpha").model_copy(update={"id": "offer-second"})

    def say(message: Message) -> list[Message]:
        return [net.signed(message, found) for found in (dear, cheap)]

    saying(await net.hire("va"), say)
    await net.hire("mute")  # so that the round is still open when the second answer comes
    answers = await net.ask(asked, {"va@test": "alpha", "mute@test": "mute"})
    assert answers["alpha"] == dear
    assert net.late == []


async def test_who_was_not_asked_is_not_heard(net: Net) -> None:
    """An answer in the call's conversation from a stranger is not used, whatever it claims."""
    asked = call(seconds=0.4)
    stranger = await net.hire("stranger")
    await net.hire("va")
    round_ = asyncio.create_task(net.ask(asked, {"va@test": "alpha"}))
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
    net: Net, performative: str, content: Document | None, code: str
) -> None:
    """Failures, misunderstandings and nonsense end the wait for that vendor and are shown as its reason."""

    def say(message: Message) -> list[Message]:
        reply = answer(message, Performative.INFORM, content)
        reply.set_metadata("performative", performative)
        return [reply]

    saying(await net.hire("va"), say)
    began = time.monotonic()
    answers = await net.ask(call(seconds=30), {"va@test": "alpha"})
    assert isinstance(answers["alpha"], Reason)
    assert answers["alpha"].code == code
    assert time.monotonic() - began < 25


async def test_a_vendor_that_crashes_says_so(net: Net) -> None:
    """A participant whose proposal fails answers ``failure``, and takes part in the next call."""
    mood = iter([RuntimeError("insides"), refuse("out-of-order", "under repair", "wait"), None])

    async def propose(asked: CallForProposals) -> Offer:
        if error := next(mood):
            raise error
        return offer_for(asked, "alpha")

    vendors = {await net.bidder("va", propose): "alpha"}
    found = [(await net.ask(call(), vendors))["alpha"] for _ in range(3)]
    assert [reason.code for reason in found[:2]] == ["internal-error", "out-of-order"]
    assert isinstance(found[2], Offer)


@pytest.mark.parametrize("performative", ["inform", "shout", "x" * 5000, "agree"])
async def test_a_participant_says_what_has_no_place(net: Net, performative: str) -> None:
    """A message with no place in the protocol is answered with ``not-understood``, of whatever length it is."""
    va, heard = await net.bidder("va"), asyncio.get_running_loop().create_future()
    message = compose(va, Performative.INFORM, Protocol.CONTRACT_NET, "t")
    message.set_metadata("performative", performative)
    anna = await net.hire("anna")
    with anna.listening("t", heard.set_result):
        await anna.send(message)
        async with asyncio.timeout(30):
            reply = await heard
    assert performative_of(reply) is Performative.NOT_UNDERSTOOD
    assert content_of(reply, Problem).code == "not-understood"


# --- later rounds ---


def counter_to(offer: Offer, per_hour: str) -> CounterOffer:
    """What the broker would rather pay."""
    now = utc_now()
    return CounterOffer(
        id=f"counter-{per_hour}", call=offer.call, application=offer.application, vendor=offer.vendor, issued=now,
        expires=now + timedelta(seconds=30), offer=Reference(id=offer.id, digest=digest(offer)),
        changes=(Change(term="price-per-hour", value=Decimal(per_hour)),),
    )  # fmt: skip


async def test_a_counter_offer_leads_to_another_offer(net: Net) -> None:
    """In a later round only those are asked that were chosen; what they offer then can be accepted."""
    vendors = {await net.bidder(name, proposing(name)): name for name in ("va", "vb")}
    first = (await net.ask(call(), vendors))["va"]
    counter = counter_to(first, "0.005")
    heard = await net.broker.ask(first.call, {"va@test": counter}, counter.expires, 2)
    assert heard.keys() == {"va@test"}
    second = heard["va@test"].answer
    assert (second.id, second.price.per_hour) == ("offer-va.1", Decimal("0.005"))
    await net.broker.stand(first.call, heard)
    assert (await net.broker.accept(second, "va@test")).price == second.price


async def test_a_refused_counter_offer_leaves_the_offer_as_it_was(net: Net) -> None:
    """Who goes no further still stands by what it offered before."""
    first = await offered(net)
    counter = counter_to(first, "0.0001")
    heard = await net.broker.ask(first.call, {"va@test": counter}, counter.expires, 2)
    assert heard["va@test"].answer.reasons[0].code == "too-low"
    assert (await net.broker.accept(first, "va@test")).price == first.price


async def test_a_counter_offer_to_nothing_is_a_failure(net: Net) -> None:
    """A vendor that has made no offer in this conversation does not answer a counter-offer with one."""
    await net.bidder("va", proposing("va"))
    offer = offer_for(call(), "va")
    counter = counter_to(offer, "0.005")
    heard = await net.broker.ask(offer.call, {"va@test": counter}, counter.expires, 2)
    assert heard["va@test"].answer.code == "not-offered"


# --- settling ---


async def offered(net: Net, vendor: str = "alpha", settle: Any = None, others: tuple[str, ...] = ()) -> Offer:
    """An offer of the vendor ``va``, after a round that these others have bid in, too."""
    vendors = {await net.bidder("va", proposing(vendor), settle): vendor}
    vendors |= {await net.bidder(name, proposing(name)): name for name in others}
    found = (await net.ask(call(), vendors))[vendor]
    assert isinstance(found, Offer)
    return found


async def test_acceptance_gives_the_agreement_and_the_others_are_rejected(net: Net) -> None:
    """The chosen vendor's agreement comes back; every other bidder hears ``reject-proposal``, and stands by its offer
    no longer."""
    offer = await offered(net, others=("vb", "vc"))
    agreement = await net.broker.accept(offer, "va@test")
    assert (agreement.offer, agreement.provider) == (offer.id, "alpha")
    for name in ("vb@test", "vc@test"):
        await net.comes_to(name, offer.call, "broker@test", "rejected")


async def test_accepting_again_gives_the_same_agreement(net: Net) -> None:
    """However often an offer is accepted, and by how many at once, the vendor agrees once."""
    seen: list[Offer] = []

    async def settle(accepted: Offer) -> Agreement:
        seen.append(accepted)
        return agreement_on(accepted)

    offer = await offered(net, settle=settle)
    found = await asyncio.gather(*(net.broker.accept(offer, "va@test") for _ in range(5)))
    found.append(await net.broker.accept(offer, "va@test"))
    assert {digest(agreement) for agreement in found} == {digest(found[0])}
    assert seen == [offer]


async def test_no_call_leads_to_two_agreements(net: Net) -> None:
    """When one offer of a call is accepted, no other is, whether one after the other or at once."""
    vendors = {await net.bidder(name, proposing(name)): name for name in ("va", "vb")}
    offers = await net.ask(call(), vendors)
    outcomes = await asyncio.gather(
        *(net.broker.accept(offers[name], f"{name}@test") for name in ("va", "vb")), return_exceptions=True
    )
    assert sorted(type(outcome).__name__ for outcome in outcomes) == ["Agreement", "AgencyError"][::-1]
    with pytest.raises(AgencyError, match="no call leads to two agreements"):
        await net.broker.accept(offers["vb"], "vb@test")


async def test_what_was_agreed_can_be_proven(net: Net, store: Store) -> None:
    """Offer, acceptance and agreement are kept as they were signed, each naming what it answers."""
    offer = await offered(net)
    agreement = await net.broker.accept(offer, "va@test")
    async with store.transaction() as session:
        rows = {row.tag: row for row in await session.scalars(select(TokenRow))}
    assert set(rows) == {"offer", "acceptance", "agreement"}
    read = net.site.verifier.read
    accepted, agreed = read(rows["acceptance"].token, Acceptance), read(rows["agreement"].token, Agreement)
    assert (accepted.issuer, agreed.issuer, agreed.document) == ("broker@test", "va@test", agreement)
    assert accepted.answers == (digest(offer),)
    assert agreed.answers == (accepted.digest,)


async def test_a_vendor_that_does_not_stand_by_its_offer(net: Net) -> None:
    """Its problem reaches the deployer whole, nobody else is rejected, and another offer can be accepted."""

    async def settle(_: Offer) -> Agreement:
        raise refuse("sold-out", "somebody was faster", "ask for new offers")

    offer = await offered(net, settle=settle, others=("vb",))
    with pytest.raises(AgencyError, match="somebody was faster") as error:
        await net.broker.accept(offer, "va@test")
    assert error.value.problem.code == "sold-out"
    kept = await net.conversations.find("broker@test", offer.call)
    other = net.site.verifier.read(kept["vb@test"].heard.body, Offer).document
    assert (await net.broker.accept(other, "vb@test")).offer == other.id


async def test_a_loser_that_is_gone_does_not_undo_the_agreement(net: Net) -> None:
    """The agreement stands once the vendor has confirmed it, whether or not the others can be told."""
    offer = await offered(net, others=("vb",))
    await (net.broker._agent).link.disconnect(await net.hire("vb"))
    assert (await net.broker.accept(offer, "va@test")).offer == offer.id


async def test_a_vendor_silent_at_acceptance(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    """A vendor that does not answer an acceptance is named; the acceptance is still under way, and its outcome is told
    to who accepts the same offer again."""
    monkeypatch.setattr(contract_net, "SETTLE_WITHIN", 0.1)
    release = asyncio.Event()

    async def settle(accepted: Offer) -> Agreement:
        await release.wait()
        return agreement_on(accepted)

    offer = await offered(net, settle=settle)
    with pytest.raises(AgencyError, match="va@test does not answer"):
        await net.broker.accept(offer, "va@test")
    release.set()
    monkeypatch.setattr(contract_net, "SETTLE_WITHIN", 30)
    assert (await net.broker.accept(offer, "va@test")).offer == offer.id


async def test_an_acceptance_that_is_not_answered_in_time_is_withdrawn(net: Net) -> None:
    """When the offer expires before the vendor's answer came, there is no agreement, and the vendor comes to know: what
    it had agreed to is terminated."""
    asked = call()
    offer = offer_for(asked, "alpha", minutes=0.5 / 60)

    async def propose(_: CallForProposals) -> Offer:
        return offer

    await net.ask(asked, {await net.bidder("va", propose): "alpha"})
    agent = net.broker._agent
    real, lost = agent.dispatch, []

    def loses(message: Message) -> object:
        if performative_of(message) is Performative.INFORM and message.body:
            return lost.append(message)
        return real(message)

    agent.dispatch = loses
    with pytest.raises(AgencyError, match="the acceptance is withdrawn"):
        await net.broker.accept(offer, "va@test")
    assert lost
    await net.comes_to("broker@test", asked.id, "va@test", "cancelled")
    assert (await net.conversations.find("va@test", asked.id))["broker@test"].state == "cancelled"
    store = net.conversations._store
    assert [agreement.state for agreement in await store.all(Agreement)] == ["terminated"]


async def unanswered(net: Net, monkeypatch: pytest.MonkeyPatch, settle: Any = None) -> tuple[Offer, Offer]:
    """The offers of ``va``, whose acceptance is not answered in time, and of ``vb``."""
    vendors = {await net.bidder("va", proposing("va"), settle): "va", await net.bidder("vb", proposing("vb")): "vb"}
    found = await net.ask(call(), vendors)
    with monkeypatch.context() as patched:
        patched.setattr(contract_net, "SETTLE_WITHIN", 0.2)
        with pytest.raises(AgencyError, match="va@test does not answer"):
            await net.broker.accept(found["va"], "va@test")
    return found["va"], found["vb"]


async def test_another_offer_may_be_accepted_instead(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a vendor does not answer an acceptance, to accept another one withdraws it: the silent vendor confirms that
    first, and its offer is none any more."""
    silent, other = await unanswered(net, monkeypatch, settle=lambda _: asyncio.Event().wait())
    assert (await net.broker.accept(other, "vb@test")).offer == other.id
    states = {peer: each.state for peer, each in (await net.conversations.find("broker@test", other.call)).items()}
    assert states == {"va@test": "cancelled", "vb@test": "agreed"}
    assert (await net.conversations.find("va@test", other.call))["broker@test"].state == "cancelled"
    with pytest.raises(AgencyError, match="no call leads to two agreements"):
        await net.broker.accept(silent, "va@test")


async def test_what_was_agreed_to_unheard_ends_before_another_is_accepted(
    net: Net, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A vendor whose agreement was lost on its way has terminated it when another vendor hears of an acceptance."""
    agent = net.broker._agent
    real, store = agent.dispatch, net.conversations._store

    def loses(message: Message) -> object:
        lost = message.sender.bare == "va@test" and performative_of(message) is Performative.INFORM and message.body
        return None if lost else real(message)

    agent.dispatch = loses
    _, other = await unanswered(net, monkeypatch)
    async with asyncio.timeout(30):
        while not (agreed := await store.all(Agreement)):  # noqa: ASYNC110 - the broker's patience ended first
            await asyncio.sleep(0.01)
    assert [each.state for each in agreed] == ["observed"]
    await net.broker.accept(other, "vb@test")
    assert {each.provider: each.state for each in await store.all(Agreement)} == {"va": "terminated", "vb": "observed"}


async def test_a_vendor_that_cannot_be_reached_is_told_of_at_once(net: Net, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who accepts the offer of a vendor that is not there hears so at once. To accept another of the same call is
    refused until it has confirmed that the first is withdrawn, as it may have agreed; one of a new call is accepted at
    once."""
    monkeypatch.setattr(conversations, "REPEAT_AFTER", 0.05)
    vendors = {await net.bidder(name, proposing(name)): name for name in ("va", "vb")}
    first, other = (await net.ask(call(), vendors)).values()
    again = (await net.ask(call(), {await net.bidder("vc", proposing("vc")): "vc"}))["vc"]
    agent = net.broker._agent
    send = agent.link.send

    async def comes_back(message: Message) -> None:
        if message.to.bare == "va@test":
            await asyncio.sleep(0)
            agent.dispatch(bounce(message))
        else:
            await send(message)

    agent.link.send = comes_back  # type: ignore[method-assign]
    async with asyncio.timeout(10):  # less than SETTLE_WITHIN
        for _ in range(2):
            with pytest.raises(AgencyError, match="va@test cannot be reached; it is told until"):
                await net.broker.accept(first, "va@test")
        for _ in range(2):
            with pytest.raises(AgencyError, match="va@test has not confirmed yet"):
                await net.broker.accept(other, "vb@test")
    assert (await net.broker.accept(again, "vc@test")).offer == again.id
    agent.link.send = send  # type: ignore[method-assign]
    await net.comes_to("broker@test", first.call, "va@test", "cancelled")
    assert (await net.broker.accept(other, "vb@test")).offer == other.id


def bounce(message: Message) -> Message:
    """What a link makes of the error stanza by which a message comes back."""
    stanza = Element("message", {"from": message.to.bare, "id": f"fipa-contract-net/1/{message.thread}"})
    error = Element("error", {"type": "cancel"})
    error.children.append(Element(f"{STANZA_ERRORS} item-not-found", {}))
    stanza.children.append(error)
    return bounced(stanza, message.sender)


async def test_an_answer_to_an_acceptance_that_makes_no_sense(net: Net) -> None:
    """A vendor that informs of something else than a signed agreement on that offer has not agreed."""
    asked, request = call(), Request(action="deploy", subject="x")
    offer = offer_for(asked, "alpha")

    def say(message: Message) -> list[Message]:
        if performative_of(message) is Performative.CFP:
            return [net.signed(message, offer)]
        return [answer(message, Performative.INFORM, request)]

    saying(await net.hire("va"), say)
    await net.ask(asked, {"va@test": "alpha"})
    with pytest.raises(AgencyError, match="confirms something else") as error:
        await net.broker.accept(offer, "va@test")
    assert error.value.problem.code == "agreement-differs"


@pytest.mark.parametrize(
    "change",
    [
        {"price": PriceTerms(currency="EUR", per_hour=Decimal(9), per_month=Decimal(9))},
        {"offer": "offer-other"},
        {"provider": "beta"},
        {"offer_digest": "blake3:" + "0" * 64},
    ],
    ids=lambda change: next(iter(change)),
)
async def test_an_agreement_on_something_else_is_none(net: Net, change: dict[str, Any]) -> None:
    """Terms other than the offer's, or another offer's name, are no agreement: the vendor is told so."""

    async def settle(accepted: Offer) -> Agreement:
        return agreement_on(accepted).model_copy(update=change)

    offer = await offered(net, settle=settle)
    with pytest.raises(AgencyError, match="confirms something else"):
        await net.broker.accept(offer, "va@test")
    await net.comes_to("va@test", offer.call, "broker@test", "cancelled")


@pytest.mark.parametrize("how", ["forged", "unsigned", "replayed", "for-another"])
async def test_an_offer_that_is_not_believed_is_a_reason(net: Net, how: str) -> None:
    """A forged, unsigned or replayed offer, or one made to somebody else, becomes a reason; the round goes on."""
    earlier: list[Message] = []

    def say(message: Message) -> list[Message]:
        offer = offer_for(call(), "beta")
        good = net.signed(message, offer)
        if how == "forged":
            good.body = good.body[:-8] + ("AAAAAAAA" if good.body[-8:] != "AAAAAAAA" else "BBBBBBBB")
        elif how == "unsigned":
            return [answer(message, Performative.PROPOSE, offer)]
        elif how == "replayed":
            earlier.append(good)
            good = reply_to(message, Said(Performative.PROPOSE, "jose", earlier[0].body))
        else:
            token = net.site.signer("vb@test").sign(offer, audience="anna@test", expires=offer.expires)
            good = reply_to(message, Said(Performative.PROPOSE, "jose", token))
        return [good]

    saying(await net.hire("vb"), say)
    vendors = {await net.bidder("va", proposing("alpha")): "alpha", "vb@test": "beta"}
    if how == "replayed":
        assert isinstance((await net.ask(call(), vendors))["beta"], Offer)
    answers = await net.ask(call(), vendors)
    assert isinstance(answers["alpha"], Offer)
    codes = {"forged": ("altered", "malformed"), "unsigned": ("not-understood",), "replayed": ("wrong-answer",)}
    assert answers["beta"].code in codes.get(how, ("wrong-audience",))


async def test_a_cancelled_call_leaves_nothing_to_accept(net: Net) -> None:
    """FIPA's cancel: a vendor forgets its offer, and hears no acceptance of it any more."""
    offer = await offered(net)
    await net.broker.cancel(offer.call, ["va@test", "gone@test"])
    await net.comes_to("va@test", offer.call, "broker@test", "cancelled")


async def test_what_comes_again_is_answered_the_same(net: Net) -> None:
    """A call that is heard twice leads to one offer, which is said twice; one that is overtaken, to nothing."""
    proposed: list[str] = []

    async def propose(asked: CallForProposals) -> Offer:
        proposed.append(asked.id)
        return offer_for(asked, "alpha").model_copy(update={"id": f"offer-{len(proposed)}"})

    va, asked, anna = await net.bidder("va", propose), call(), await net.hire("anna")
    heard: asyncio.Queue[Message] = asyncio.Queue()

    async def say(name: str) -> None:
        said = Said(Performative.CFP, "json", dump(asked, Form.JSON))
        await anna.send(message_of(said, va, Protocol.CONTRACT_NET, asked.id, reply_with=name))

    with anna.listening(asked.id, heard.put_nowait):
        async with asyncio.timeout(30):
            await say("cfp.1")
            first = await heard.get()
            await say("cfp.1")
            assert (await heard.get()).body == first.body
            await say("cfp.2")
            assert (await heard.get()).body != first.body
            await say("cfp.1")
            await say("cfp.2")
            assert (await heard.get()).get_metadata("in-reply-to") == "cfp.2"
    assert len(proposed) == 2
    assert heard.empty()


# --- what a Vendor Agent stands by ---


@pytest.fixture
async def vendor(net: Net, link: InProcessLink, store: Store) -> Any:
    """A real Vendor Agent with an in-memory module."""
    agent = VendorAgent("va@test", link, toy_module(Cloud("alpha")), net.site, net.conversations, store)
    await agent.start()
    yield agent
    await agent.stop()


async def _offered(net: Net) -> Offer:
    found = (await net.ask(call(), {"va@test": "alpha"}))["alpha"]
    assert isinstance(found, Offer)
    return found


async def test_a_vendor_stands_by_its_offer(net: Net, vendor: VendorAgent) -> None:
    """The agreement is on the offer's terms, and ties its resources to the vendor."""
    offer = await _offered(net)
    agreement = await net.broker.accept(offer, "va@test")
    assert agreement.offer_digest == digest(offer)
    assert (agreement.price, agreement.allocations, agreement.state) == (offer.price, offer.allocations, "observed")
    assert {(r.provider, r.agreement) for r in agreement.resources} == {("alpha", agreement.id)}


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
async def test_what_was_never_offered_is_not_accepted(net: Net, vendor: VendorAgent, change: dict[str, Any]) -> None:
    """An offer that was altered in any way, or that nobody made, is refused, by the broker and by the vendor."""
    offer = await _offered(net)
    altered = offer.model_copy(update=change)
    with pytest.raises(AgencyError, match="never made this offer") as error:
        await net.broker.accept(altered, "va@test")
    assert error.value.problem.code == "not-offered"
    acceptance = Acceptance(
        id="acceptance-1", application="notes", call=offer.call, offer=altered.id, offer_digest=digest(altered),
        accepted=utc_now(),
    )  # fmt: skip
    with pytest.raises(AgencyError, match="never made this offer"):
        await vendor.accept(acceptance)


async def test_a_vendor_refuses_its_expired_offer(net: Net, vendor: VendorAgent) -> None:
    """An offer binds until it expires, and not a moment longer."""
    offer = await _offered(net)
    late = offer.model_copy(update={"expires": utc_now() - timedelta(seconds=1)})
    await vendor.module.services.persistence.save_proposal(late)
    acceptance = Acceptance(
        id="acceptance-1", application="notes", call=offer.call, offer=late.id, offer_digest=digest(late),
        accepted=utc_now(),
    )  # fmt: skip
    with pytest.raises(AgencyError, match="expired") as error:
        await vendor.accept(acceptance)
    assert error.value.problem.code == "expired"
