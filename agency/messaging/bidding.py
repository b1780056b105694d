"""FIPA Iterated Contract Net (SC00030H), the participant's side: how a vendor takes part."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from sys import intern
from typing import Protocol as Interface

from slixmpp import JID
from spade.message import Message

from agency.messaging.acl import (
    NotUnderstood,
    Performative,
    Protocol,
    Said,
    content_of,
    performative_of,
    reply_to,
    saying,
)
from agency.messaging.agent import RoleAgent
from agency.messaging.conversations import Asked, Conversation, Conversations, Kept, State
from agency.messaging.speech import Speech
from agency.problems import AgencyError, problem_of, refuse
from agency.trust.signing import Signed, Untrusted
from agency.trust.site import Site
from descriptors.base import Document, utc_now
from descriptors.cfp import CallForProposals
from descriptors.documents import digest
from descriptors.messages import Problem
from descriptors.sla import Agreement, CounterOffer, Offer, Refusal
from descriptors.trust import Acceptance

AGREEMENT_LASTS = timedelta(days=365)
"""How long the word of an agreement is taken for fresh. The agreement itself has its own term."""
SHARED = 64 * 1024
"""Characters of the longest call that is kept in memory for others to whom it is said."""
_SAID_WITH = {Refusal: Performative.REFUSE, Problem: Performative.FAILURE}


class Bidder(Interface):
    """What a participant decides. Whatever these raise, the initiator hears as a ``failure``."""

    async def propose(self, call: CallForProposals) -> Offer | Refusal:
        """Answer a call."""

    async def revise(self, counter: CounterOffer) -> Offer | Refusal:
        """Answer a counter-offer to the last offer, which a refusal leaves as it is."""

    async def accept(self, acceptance: Acceptance) -> Agreement:
        """Agree to an offer that was accepted, or raise. The participant keeps the agreement."""


class Participant:
    """Proposes or refuses, and stands by what it proposed. Does everything once, however often it is told to, and gives
    the same answer each time."""

    def __init__(self, agent: RoleAgent, bidder: Bidder, site: Site, conversations: Conversations) -> None:
        """Takes part in the agent's name from now on; ``bidder`` decides, ``site`` lets it sign."""
        self._agent = agent
        self._name = str(agent.jid)
        self._bidder = bidder
        self._site = site
        self._speech = Speech(self._name, site)
        self._conversations = conversations
        agent.take_part(Protocol.CONTRACT_NET, self.on_message)

    async def on_message(self, message: Message) -> None:
        """Act on what is new, give the same answer to what comes again, and leave aside what comes too late."""
        try:
            performative = performative_of(message)
            act = self._acts.get(performative)
            if act is None or not message.thread:
                raise NotUnderstood(f"{performative.value} has no place here")
            if not self._site.knows(message.sender):
                raise NotUnderstood(f"{message.sender.domain} is no site that is trusted here")
            asked = Asked.by(message)
            conversation = await self._conversation(message, asked)
            if asked > conversation.asked:
                conversation.asked = asked
                await act(self, message, conversation)
            elif asked == conversation.answered and (said := (await self._conversations.full(conversation)).said):
                await self._say(message, said)
        except NotUnderstood as error:
            await self._say(message, saying(Performative.NOT_UNDERSTOOD, problem_of(error)))

    async def _conversation(self, message: Message, asked: Asked) -> Conversation:
        """The one that the message belongs to. A call is either new or so recent that memory has it; what follows a
        call may come when only the store does."""
        # interned: a thousand agents of one process hear of the same conversation, and remember it for a while
        key = (self._name, intern(str(message.thread)), intern(str(message.sender.bare)))
        found = self._conversations.get(key)
        if found is None and asked.rank > 0:
            kept = (await self._conversations.find(*key[:2])).get(key[2])
            found = self._conversations.get(key) or kept
        if found is None:
            deadline = _deadline(message)
            found = Conversation(
                *key, "participant", Protocol.CONTRACT_NET, "answering", _NOTHING, deadline, expires=deadline
            )
        self._conversations.remember(found)
        return found

    async def _propose(self, message: Message, conversation: Conversation) -> None:
        asked = conversation.asked
        wanted, answers = _wanted(message)
        standing = (await self._conversations.full(conversation)).heard
        try:
            if isinstance(wanted, CallForProposals):
                answer: Document = await self._bidder.propose(wanted)
            elif conversation.state == "offered":
                answer = await self._bidder.revise(wanted)
            else:
                raise refuse("not-offered", "there is no offer to answer with another", "call for proposals")
        except Exception as error:  # noqa: BLE001 - the broker must hear why there is no offer
            answer = problem_of(error)
        if conversation.asked != asked:
            return  # overtaken by another round, or by a cancellation
        conversation.deadline = max(conversation.deadline, _deadline(message))
        if isinstance(answer, Offer):
            said = self._bind(Performative.PROPOSE, answer, conversation, answer.expires, answers)
            conversation.state = "offered"
            conversation.expires = max(conversation.expires, answer.expires)
            await self._conversations.keep([_answered(conversation, said, heard=said)])
        else:
            said = saying(_SAID_WITH[type(answer)], answer)
            conversation.state = "refused" if conversation.state == "answering" else conversation.state
            _answered(conversation, said, heard=standing)
        await self._say(message, said)

    async def _accept(self, message: Message, conversation: Conversation) -> None:
        asked, before = conversation.asked, conversation.state
        standing = (await self._conversations.full(conversation)).heard
        kept, after = [], before
        try:
            if before != "offered" or standing is None:
                raise refuse("not-offered", f"there is no offer to accept: it is {before}", "ask for new offers")
            offered = self._speech.recall(standing, Offer)
            acceptance = self._speech.believe(message, Acceptance, offered.digest)
            if acceptance.document.offer_digest != offered.digest:  # others' offers are not for this peer to accept
                raise Untrusted("wrong-answer", "it accepts another offer than was made here")
            agreement = await self._bidder.accept(acceptance.document)
            said = await self._agreed(conversation, offered, acceptance, agreement)
            kept, after = [self._kept(agreement, conversation)], "agreed"
        except Exception as error:  # noqa: BLE001 - the broker must hear why there is no agreement
            said = saying(Performative.FAILURE, problem_of(error))
        if conversation.asked != asked:
            return  # overtaken by a cancellation
        if before == "offered":
            # Nothing waits until this is on its way to the store: a cancellation comes before it, or after it.
            conversation.state = after
            _answered(conversation, said, heard=standing)
            try:
                await self._conversations.keep([conversation], kept)
            except Exception as error:  # noqa: BLE001 - what cannot be kept is not agreed to
                said, conversation.state = saying(Performative.FAILURE, problem_of(error)), before
                _answered(conversation, said, heard=standing)
        await self._say(message, said)

    async def _agreed(
        self,
        conversation: Conversation,
        offered: Signed[Offer],
        acceptance: Signed[Acceptance],
        agreement: Agreement,
    ) -> Said:
        """The agreement as it is said; the proofs of how it came about are kept."""
        until = utc_now() + AGREEMENT_LASTS
        said = self._bind(Performative.INFORM, agreement, conversation, until, acceptance.digest)
        about = {"application": self._whose(agreement, conversation), "conversation": conversation.id}
        await self._site.keep(offered, **about)
        await self._site.keep(acceptance, **about)
        await self._speech.keep(said, Agreement, **about)
        return said

    def _bind(
        self, performative: Performative, document: Document, conversation: Conversation, expires: datetime, to: str
    ) -> Said:
        """A document in answer to the one with that digest."""
        return self._speech.bind(performative, document, to=conversation.peer, expires=expires, answers=[to])

    def _kept(self, agreement: Agreement, conversation: Conversation) -> Kept:
        return Kept(agreement, agreement.id, self._whose(agreement, conversation))

    def _whose(self, agreement: Agreement, conversation: Conversation) -> str:
        """What it is kept under: an application of this site by its name; another site's, as there may be one of that
        name here, by ``NAME@SITE``."""
        site = JID(conversation.peer).domain
        name = agreement.application
        return name if site == self._agent.jid.domain else f"{name}@{site}"

    async def _reject(self, message: Message, conversation: Conversation) -> None:
        if conversation.state != "agreed":
            await self._let_go(conversation, "rejected", None)

    async def _cancel(self, message: Message, conversation: Conversation) -> None:
        ended = []
        if conversation.state == "agreed":
            said = (await self._conversations.full(conversation)).said
            assert said is not None  # noqa: S101 - an agreement was said
            agreement = self._speech.recall(said, Agreement).document
            ended.append(self._kept(agreement.model_copy(update={"state": "terminated"}), conversation))
        said = Said(Performative.INFORM, "json", "")
        await self._let_go(conversation, "cancelled", said, ended)
        await self._say(message, said)

    async def _let_go(
        self, conversation: Conversation, state: State, said: Said | None, ended: Iterable[Kept] = ()
    ) -> None:
        """End a conversation. What binds in the store binds no longer, there too."""
        bound = conversation.state in ("offered", "agreed")
        conversation.state = state
        _answered(conversation, said)
        if bound:
            await self._conversations.keep([conversation], ended)

    async def _say(self, message: Message, said: Said) -> None:
        try:
            await self._agent.send(reply_to(message, said))
        except AgencyError as error:  # whoever asked asks again
            self._agent.log.info("answer not delivered", peer=str(message.sender), error=str(error))

    _acts: Mapping[Performative, Callable[[Participant, Message, Conversation], Awaitable[None]]] = {
        Performative.CFP: _propose,
        Performative.ACCEPT_PROPOSAL: _accept,
        Performative.REJECT_PROPOSAL: _reject,
        Performative.CANCEL: _cancel,
    }


_NOTHING = Asked(-1, 0)


def _answered(conversation: Conversation, said: Said | None, heard: Said | None = None) -> Conversation:
    """Have what the initiator said last answered with that, from now on and whenever it comes again."""
    conversation.answered, conversation.stored = conversation.asked, False
    conversation.said, conversation.heard = said, heard
    return conversation


def _wanted(message: Message) -> tuple[CallForProposals | CounterOffer, str]:
    """The call or the counter-offer, and its digest."""
    if len(message.body or "") > SHARED:
        return _read(message)
    return _shared(message.body or "", message.get_metadata("ontology"), message.get_metadata("language"))


def _read(message: Message) -> tuple[CallForProposals | CounterOffer, str]:
    document = content_of(message, CallForProposals, CounterOffer)
    return document, digest(document)


@lru_cache(maxsize=8)
def _shared(body: str, *metadata: str | None) -> tuple[CallForProposals | CounterOffer, str]:
    """A thousand vendors of one process hear the same call at the same moment: it is read once."""
    given = {key: value for key, value in zip(("ontology", "language"), metadata, strict=True) if value is not None}
    return _read(Message(body=body, metadata=given))


def _deadline(message: Message) -> datetime:
    """When whoever asked stops waiting for the answer; now, where it does not say."""
    try:
        return datetime.fromisoformat(message.get_metadata("reply-by") or "").astimezone(UTC)
    except (ValueError, OverflowError):
        return utc_now()
