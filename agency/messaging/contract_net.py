"""FIPA Contract Net (SC00029H), initiator's and participant's side.

The initiator calls for proposals and stops waiting when all have answered or the deadline has passed. Acceptance is
separate and comes when the deployer has decided: in the same conversation, whose id is the call's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

import structlog
from spade.message import Message

from agency.messaging.acl import NotUnderstood, Performative, Protocol, answer, compose, content_of, performative_of
from agency.messaging.agent import RoleAgent
from agency.messaging.request import result_in
from agency.problems import AgencyError, problem_of, refuse
from descriptors.base import Document, utc_now
from descriptors.cfp import CallForProposals
from descriptors.messages import Problem
from descriptors.resources import Reason
from descriptors.sla import Agreement, Offer, Refusal

log = structlog.get_logger("agency")

Answer = Offer | Refusal | Reason

D = TypeVar("D", bound=Document)
_SAID_WITH: Mapping[type[Document], Performative] = {
    Offer: Performative.PROPOSE,
    Refusal: Performative.REFUSE,
    Agreement: Performative.INFORM,
}

SETTLE_WITHIN = 30.0
"""Seconds in which a vendor must answer an acceptance."""


class Participant:
    """The vendor's side: proposes or refuses, and stands by what it proposed."""

    def __init__(
        self,
        agent: RoleAgent,
        propose: Callable[[CallForProposals], Awaitable[Offer | Refusal]],
        accept: Callable[[Offer], Awaitable[Agreement]],
    ) -> None:
        """``propose`` answers a call; ``accept`` turns an accepted offer into an agreement, or raises."""
        self._agent = agent
        self._propose = propose
        self._accept = accept

    @classmethod
    def install(
        cls,
        agent: RoleAgent,
        propose: Callable[[CallForProposals], Awaitable[Offer | Refusal]],
        accept: Callable[[Offer], Awaitable[Agreement]],
    ) -> None:
        """Let the agent take part in Contract Nets."""
        agent.take_part(Protocol.CONTRACT_NET, cls(agent, propose, accept).on_message)

    async def on_message(self, message: Message) -> None:
        """Act on a call, an acceptance or a rejection."""
        try:
            performative = performative_of(message)
            if performative is Performative.CFP:
                await self._answer(message, CallForProposals, self._propose)
            elif performative is Performative.ACCEPT_PROPOSAL:
                await self._answer(message, Offer, self._accept)
            elif performative is not Performative.REJECT_PROPOSAL:
                raise NotUnderstood(f"{performative} has no place here")
        except NotUnderstood as error:
            await self._agent.send(answer(message, Performative.NOT_UNDERSTOOD, problem_of(error)))

    async def _answer(self, message: Message, expect: type[D], act: Callable[[D], Awaitable[Document]]) -> None:
        """Act on the message's content and send what comes of it."""
        content = content_of(message, expect)
        try:
            reply = await act(content)
        except Exception as error:  # noqa: BLE001 - the broker must hear why there is no offer, or no agreement
            await self._agent.send(answer(message, Performative.FAILURE, problem_of(error)))
            return
        await self._agent.send(answer(message, _SAID_WITH[type(reply)], reply))


class _Collector:
    """Collects the first answer of each vendor, until all have answered."""

    def __init__(self, awaited: Mapping[str, str]) -> None:
        self._awaited = awaited
        self.answers: dict[str, Answer] = {}
        self.complete = asyncio.Event()

    def on_message(self, message: Message) -> None:
        """Take the first answer of who was asked."""
        vendor = self._awaited.get(str(message.sender.bare))
        if vendor is None or vendor in self.answers:
            log.warning("answer not used", sender=str(message.sender), conversation=message.thread)
            return
        self.answers[vendor] = _read(message)
        if len(self.answers) == len(self._awaited):
            self.complete.set()


def _read(message: Message) -> Answer:
    try:
        performative = performative_of(message)
        if performative is Performative.PROPOSE:
            return content_of(message, Offer)
        if performative is Performative.REFUSE:
            return content_of(message, Refusal)
        problem = content_of(message, Problem)
        return Reason(code=problem.code, message=problem.message[:1024])
    except NotUnderstood as error:
        return Reason(code="not-understood", message=str(error)[:1024])


async def call_for_proposals(agent: RoleAgent, call: CallForProposals, vendors: Mapping[str, str]) -> dict[str, Answer]:
    """Ask every vendor (name by JID) and return what came of each, by name.

    Ends when all have answered, at the latest at the call's deadline; for the silent there is a reason that says so.
    """
    collector = _Collector(vendors)
    with agent.listening(call.id, collector.on_message):
        for jid in vendors:
            message = compose(jid, Performative.CFP, Protocol.CONTRACT_NET, call.id, call, call.reply_by)
            try:
                await agent.send(message)
            except AgencyError as error:
                collector.answers[vendors[jid]] = Reason(code=error.problem.code, message=error.problem.message)
        try:
            async with asyncio.timeout(max(0.0, (call.reply_by - utc_now()).total_seconds())):
                if len(collector.answers) < len(vendors):
                    await collector.complete.wait()
        except TimeoutError:
            pass
    silent = Reason(code="no-answer", message="did not answer before the deadline")
    return {vendor: collector.answers.get(vendor, silent) for vendor in vendors.values()}


async def accept(agent: RoleAgent, offer: Offer, jid: str, others: list[str]) -> Agreement:
    """Accept the offer of the vendor at ``jid``; tell the other bidders that they were not chosen.

    Raises :class:`AgencyError` when the vendor does not stand by its offer. Accepting twice gives the same agreement.
    """
    reply: asyncio.Future[Message] = asyncio.get_running_loop().create_future()

    def on_message(message: Message) -> None:
        if message.sender.bare == jid and not reply.done():
            reply.set_result(message)

    with agent.listening(offer.call, on_message):
        await agent.send(
            compose(jid, Performative.ACCEPT_PROPOSAL, Protocol.CONTRACT_NET, offer.call, offer, offer.expires)
        )
        try:
            async with asyncio.timeout(SETTLE_WITHIN):
                agreement = result_in(await reply, Agreement)
        except TimeoutError:
            remedy = "accept the offer again, or take another"
            raise refuse("no-answer", f"{jid} does not answer", remedy) from None
    for other in others:
        try:
            await agent.send(compose(other, Performative.REJECT_PROPOSAL, Protocol.CONTRACT_NET, offer.call))
        except AgencyError as error:  # the agreement stands, whoever can be told
            agent.log.warning("not told that another was chosen", vendor=other, error=str(error))
    return agreement
