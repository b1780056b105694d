"""Among hostile agents: whatever they send, it is refused and logged, and those who are honest do their business."""

from __future__ import annotations

import asyncio
import base64
import json
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
import structlog
from spade.message import Message

from agency.messaging.acl import Performative, Protocol, Said, content_of, message_of, reply_to
from agency.messaging.agent import RoleAgent
from agency.messaging.bidding import Participant
from agency.messaging.contract_net import Initiator
from agency.messaging.conversations import Conversations
from agency.problems import AgencyError
from agency.store.store import Store
from agency.trust import jws
from agency.trust.keys import SiteKey
from agency.trust.signing import Signer
from agency.trust.site import Site
from descriptors.base import Document, new_id, utc_now
from descriptors.cfp import CallForProposals
from descriptors.documents import Form, digest, dump
from descriptors.messages import Problem
from descriptors.sla import Offer
from descriptors.trust import Acceptance
from tests.agency.messaging.conftest import Hire
from tests.agency.messaging.test_contract_net import Seller, agreement_on, call, offer_for

BROKER, HONEST, ROGUE = "broker@test", "honest@test", "rogue@test"


@dataclass
class Rogue:
    """An agent of a trusted site that lies as well as it can: it has a key of its own, and all that it ever saw."""

    site: Site
    agent: RoleAgent
    seen: list[str] = field(default_factory=list)
    """Tokens it sent before."""
    offers: dict[str, Offer] = field(default_factory=dict)
    """What it offered, by call."""

    def __post_init__(self) -> None:
        self.signer = self.site.signer(str(self.agent.jid))

    def token(self, how: str, document: Document, to: str, answers: list[str]) -> str:
        """The document, signed in that way."""
        until = utc_now() + timedelta(minutes=5)
        good = self.signer.sign(document, audience=to, expires=until, answers=answers)
        header, payload, signature = good.split(".")
        if how == "good":
            return good
        if how == "forged":  # by a site of that name that has made its key itself
            return Signer(ROGUE, SiteKey.generate("test")).sign(document, audience=to, expires=until, answers=answers)
        if how == "in-anothers-name":
            return self.site.signer(HONEST).sign(document, audience=to, expires=until, answers=answers)
        if how == "altered":
            text = base64.urlsafe_b64decode(payload + "===").replace(b'"EUR"', b'"USD"').replace(b"notes", b"nates")
            return f"{header}.{base64.urlsafe_b64encode(text).decode().rstrip('=')}.{signature}"
        if how == "expired":
            clock = utc_now() - timedelta(minutes=9)
            late = Signer(str(self.agent.jid), self.site.key, lambda: clock)
            return late.sign(document, audience=to, expires=clock + timedelta(minutes=1), answers=answers)
        if how == "wrong-audience":
            return self.signer.sign(document, audience=HONEST, expires=until, answers=answers)
        if how == "wrong-answer":
            return self.signer.sign(document, audience=to, expires=until, answers=["blake3:" + "0" * 64])
        if how == "unsigned":
            return payload
        if how == "not-canonical":  # signed, and with another digest than the document that it holds
            text = base64.urlsafe_b64decode(payload + "===").replace(b'","', b'", "')
            named = json.loads(base64.urlsafe_b64decode(header + "==="))
            assert self.signer._identity is not None
            return jws.sign(
                {key: value for key, value in named.items() if key != "alg"}, text, self.signer._identity.key
            )
        return self.seen[0]  # replayed


WAYS = {
    "forged": "unknown-key",
    "in-anothers-name": "wrong-sender",
    "altered": "altered",
    "expired": "expired",
    "wrong-audience": "wrong-audience",
    "wrong-answer": "wrong-answer",
    "unsigned": "malformed",
    "replayed": "wrong-answer",  # for an offer or agreement: it answers the earlier call or acceptance
}


@dataclass
class Market:
    """A broker, an honest vendor, and a rogue."""

    site: Site
    conversations: Conversations
    broker: Initiator
    seller: Seller
    rogue: Rogue

    async def round(self) -> dict[str, Any]:
        """One call to both vendors; what came of each, by JID."""
        asked = call(seconds=5)
        async with self.broker.calling(asked, [HONEST, ROGUE]):
            heard = await self.broker.ask(asked.id, dict.fromkeys([HONEST, ROGUE], asked), asked.reply_by)
            await self.broker.stand(asked.id, heard)
        return {jid: each.answer for jid, each in heard.items()}


async def _proposing(asked: CallForProposals) -> Offer:
    return offer_for(asked, "honest").model_copy(update={"id": new_id("offer")})


@pytest.fixture
async def market(store: Store, site: Site, hire: Hire) -> Market:  # agents stop before their store closes
    """All on one real store, in one site, which certifies the rogue, too."""
    conversations = Conversations(store)
    seller = Seller(_proposing)
    Participant(await hire("honest"), seller, site, conversations)
    broker = Initiator(await hire("broker"), site, conversations)
    return Market(site, conversations, broker, seller, Rogue(site, await hire("rogue")))


def answering(rogue: Rogue, offers: str, agreements: str = "good", change: dict[str, Any] | None = None) -> None:
    """Let the rogue take part: with offers and agreements signed in these ways, the agreements changed."""

    async def answer(message: Message) -> None:
        performative = message.get_metadata("performative")
        if performative == "cfp":
            asked = content_of(message, CallForProposals)
            offer = offer_for(asked, "rogue")
            rogue.offers[asked.id] = offer
            token = rogue.token(offers, offer, BROKER, [digest(asked)])
            said = Said(Performative.PROPOSE, "jose", token)
        elif performative == "accept-proposal":
            accepted = rogue.site.verifier.read(message.body, Acceptance)
            agreement = agreement_on(rogue.offers[accepted.document.call])
            agreement = agreement.model_copy(update=change or {})
            token = rogue.token(agreements, agreement, BROKER, [accepted.digest])
            said = Said(Performative.INFORM, "jose", token)
        else:
            said = Said(Performative.INFORM, "json", "")
        if performative != "reject-proposal":
            rogue.seen.append(said.body)
            await rogue.agent.send(reply_to(message, said))

    rogue.agent.take_part(Protocol.CONTRACT_NET, answer)


def refusals(logs: list[Any]) -> list[tuple[str, str, str]]:
    """Who refused what of whom, from the log."""
    found = [entry for entry in logs if entry["event"] == "signed document refused"]
    return [(entry["agent"], entry["sender"], entry["code"]) for entry in found]


@pytest.mark.parametrize("how", WAYS)
async def test_offers_of_a_hostile_vendor(market: Market, how: str) -> None:
    """An offer that is not what it should be is a reason with its code, and logged; the honest vendor's offer of the
    same round can be accepted."""
    if how == "replayed":
        answering(market.rogue, "good")
        await market.round()
    answering(market.rogue, how)
    with structlog.testing.capture_logs() as logs:
        answers = await market.round()
    assert answers[ROGUE].code == WAYS[how]
    assert refusals(logs) == [(BROKER, ROGUE, WAYS[how])]
    assert (await market.broker.accept(answers[HONEST], HONEST)).provider == "honest"


async def test_an_offer_that_is_not_canonical(market: Market) -> None:
    """It may be weighed, and is never accepted, as its digest is not that of what it says; others' offers can be."""
    answering(market.rogue, "not-canonical")
    answers = await market.round()
    assert isinstance(answers[ROGUE], Offer)
    with pytest.raises(AgencyError) as caught:
        await market.broker.accept(answers[ROGUE], ROGUE)
    assert caught.value.problem.code == "malformed"
    assert await market.broker.bidder(answers[HONEST]) == HONEST
    assert (await market.broker.accept(answers[HONEST], HONEST)).provider == "honest"


async def test_an_offer_from_the_same_call_again(market: Market) -> None:
    """A token of this call that was taken in this conversation is no replay; in another call it is one, even if it
    answers that, too."""
    first, second = call(), call().model_copy(update={"id": "call-second"})
    token = market.rogue.signer.sign(
        offer_for(first, "rogue"), audience=BROKER, expires=utc_now() + timedelta(minutes=1),
        answers=[digest(first), digest(second)],
    )  # fmt: skip

    async def answer(message: Message) -> None:
        await market.rogue.agent.send(reply_to(message, Said(Performative.PROPOSE, "jose", token)))

    market.rogue.agent.take_part(Protocol.CONTRACT_NET, answer)
    answers = []
    for asked in (first, first, second):
        heard = await market.broker.ask(asked.id, {ROGUE: asked}, asked.reply_by)
        answers.append(heard[ROGUE].answer)
    assert isinstance(answers[0], Offer)
    assert isinstance(answers[1], Offer)
    assert answers[2].code == "replayed"


@pytest.mark.parametrize("how", [*WAYS, "another-price", "another-offer"])
async def test_agreements_of_a_hostile_vendor(market: Market, how: str) -> None:
    """An agreement that is not what it should be is none: the acceptance is withdrawn, nothing is kept as agreed, and
    the honest vendor can be taken after a new call."""
    changes: dict[str, dict[str, Any]] = {
        "another-price": {"price": offer_for(call(), "x").price.model_copy(update={"per_month": Decimal(999)})},
        "another-offer": {"offer_digest": "blake3:" + "0" * 64},
    }
    if how == "replayed":
        answering(market.rogue, "good")
        await market.broker.accept((await market.round())[ROGUE], ROGUE)
        market.rogue.seen.reverse()  # the agreement comes first
    answering(market.rogue, "good", how if how in WAYS else "good", changes.get(how))
    answers = await market.round()
    with structlog.testing.capture_logs() as logs, pytest.raises(AgencyError) as caught:
        await market.broker.accept(answers[ROGUE], ROGUE)
    assert caught.value.problem.code == "agreement-differs"
    assert refusals(logs) == ([(BROKER, ROGUE, WAYS[how])] if how in WAYS else [])
    known = await market.conversations.find(BROKER, answers[ROGUE].call)
    assert known[ROGUE].state in ("withdrawing", "cancelled")
    assert (await market.broker.accept((await market.round())[HONEST], HONEST)).provider == "honest"


@dataclass
class Buyer:
    """A hostile broker: calls the honest vendor, and accepts what it should not."""

    rogue: Rogue
    answers: list[Message] = field(default_factory=list)

    async def say(
        self, performative: Performative, language: str, body: str, conversation: str, number: int = 1
    ) -> Message:
        """Say something to the vendor, and wait for its answer."""
        heard: asyncio.Future[Message] = asyncio.get_running_loop().create_future()

        def on_message(message: Message) -> None:
            if not heard.done():
                heard.set_result(message)

        said = Said(performative, language, body)
        name = f"{performative.value}.{number}"
        with self.rogue.agent.listening(conversation, on_message):
            await self.rogue.agent.send(
                message_of(
                    said, HONEST, Protocol.CONTRACT_NET, conversation,
                    reply_by=utc_now() + timedelta(seconds=5), reply_with=name,
                )
            )  # fmt: skip
            async with asyncio.timeout(10):
                return await heard

    async def offer(self, asked: CallForProposals) -> Offer:
        """What the vendor offers to it."""
        reply = await self.say(Performative.CFP, "json", dump(asked, Form.JSON), asked.id)
        return self.rogue.site.verifier.read(reply.body, Offer).document

    def acceptance(self, offer: Offer, **change: Any) -> Acceptance:
        """Of that offer."""
        accepted = Acceptance(
            id=new_id("acceptance"), application="notes", call=offer.call, offer=offer.id, offer_digest=digest(offer),
            accepted=utc_now(),
        )  # fmt: skip
        return accepted.model_copy(update=change)


def code_of(reply: Message) -> str:
    """The code of the problem in an answer."""
    assert reply.get_metadata("performative") == "failure"
    return content_of(reply, Problem).code


@pytest.mark.parametrize("how", [way for way in WAYS if way != "replayed"])
async def test_acceptances_of_a_hostile_broker(market: Market, how: str) -> None:
    """An acceptance that is not what it should be leads to no agreement, and is logged; the honest broker's own
    business with the same vendor goes on."""
    honest = await market_round_of_honest(market)
    buyer = Buyer(market.rogue)
    offer = await buyer.offer(call())
    token = market.rogue.token(how, buyer.acceptance(offer), HONEST, [digest(offer)])
    if how in ("in-anothers-name", "wrong-audience"):  # the rogue is a broker now, and the vendor the one it talks to
        name = BROKER if how == "in-anothers-name" else ROGUE
        to = HONEST if how == "in-anothers-name" else BROKER
        token = market.site.signer(name).sign(
            buyer.acceptance(offer), audience=to, expires=utc_now() + timedelta(minutes=1), answers=[digest(offer)]
        )
    with structlog.testing.capture_logs() as logs:
        reply = await buyer.say(Performative.ACCEPT_PROPOSAL, "jose", token, offer.call)
    assert code_of(reply) == WAYS[how]
    assert refusals(logs) == [(HONEST, ROGUE, WAYS[how])]
    assert market.seller.accepted == []
    assert (await market.broker.accept(honest, HONEST)).offer == honest.id


async def market_round_of_honest(market: Market) -> Offer:
    """An offer that the honest vendor makes to the honest broker."""
    asked = call(seconds=5)
    async with market.broker.calling(asked, [HONEST]):
        heard = await market.broker.ask(asked.id, {HONEST: asked}, asked.reply_by)
        await market.broker.stand(asked.id, heard)
    found = heard[HONEST].answer
    assert isinstance(found, Offer)
    return found


async def test_an_acceptance_that_is_said_in_plain(market: Market) -> None:
    """An acceptance that nobody signed binds nobody."""
    buyer = Buyer(market.rogue)
    offer = await buyer.offer(call())
    plain = dump(buyer.acceptance(offer), Form.JSON)
    reply = await buyer.say(Performative.ACCEPT_PROPOSAL, "json", plain, offer.call)
    assert code_of(reply) == "not-understood"
    assert market.seller.accepted == []


async def test_another_s_offer_is_not_accepted(market: Market) -> None:
    """Who knows an offer that was made to another cannot have it, neither in a conversation of its own, where another
    offer stands, nor in one that it gives the other's name; the one it was made to still can."""
    honest = await market_round_of_honest(market)
    for name in (new_id("call"), honest.call):
        buyer = Buyer(market.rogue)
        offer = await buyer.offer(call().model_copy(update={"id": name}))
        assert offer != honest
        for answers in ([digest(honest)], [digest(offer)], [digest(offer), digest(honest)]):
            token = market.rogue.token("good", buyer.acceptance(honest), HONEST, answers)
            with structlog.testing.capture_logs() as logs:
                reply = await buyer.say(Performative.ACCEPT_PROPOSAL, "jose", token, offer.call)
            assert code_of(reply) in ("wrong-answer", "not-offered")
            assert all(code == "wrong-answer" for _, _, code in refusals(logs))
    assert market.seller.accepted == []
    assert (await market.broker.accept(honest, HONEST)).offer == honest.id


async def test_an_acceptance_is_good_in_one_conversation(market: Market) -> None:
    """The honest broker's acceptance, sent again by somebody who saw it, leads to no second agreement."""
    honest = await market_round_of_honest(market)
    await market.broker.accept(honest, HONEST)
    known = await market.conversations.find(BROKER, honest.call)
    assert known[HONEST].said is not None
    stolen = known[HONEST].said.body
    buyer = Buyer(market.rogue)
    offer = await buyer.offer(call())
    with structlog.testing.capture_logs() as logs:
        reply = await buyer.say(Performative.ACCEPT_PROPOSAL, "jose", stolen, offer.call)
    assert code_of(reply) == "wrong-sender"
    assert refusals(logs) == [(HONEST, ROGUE, "wrong-sender")]
    assert market.seller.accepted == [honest.id]


async def test_an_offer_outlives_a_forged_acceptance(market: Market) -> None:
    """Who can send in the broker's name, without its key, does not spoil the offer: it stands, and can be accepted."""
    buyer = Buyer(market.rogue)
    offer = await buyer.offer(call())
    forged = market.rogue.token("forged", buyer.acceptance(offer), HONEST, [digest(offer)])
    assert code_of(await buyer.say(Performative.ACCEPT_PROPOSAL, "jose", forged, offer.call)) == "unknown-key"
    good = market.rogue.token("good", buyer.acceptance(offer), HONEST, [digest(offer)])
    again = await buyer.say(Performative.ACCEPT_PROPOSAL, "jose", good, offer.call, number=2)
    assert again.get_metadata("performative") == "inform"
    assert market.seller.accepted == [offer.id]
