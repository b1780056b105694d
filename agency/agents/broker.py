"""The Broker agent: runs the Contract Net with the Vendor Agents and compares what they answer."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from typing import Any

from spade.message import Message

from agency.agents import addresses
from agency.agents.haggling import Haggling
from agency.federation.directory import DirectoryAgent, Found
from agency.messaging.agent import RoleAgent
from agency.messaging.contract_net import Initiator
from agency.messaging.conversations import Conversations
from agency.messaging.links import Link
from agency.messaging.request import Handlers, Responder
from agency.problems import AgencyError, refuse
from agency.records import records
from agency.relocation.workshop import Workshop
from agency.trust.signing import Signed
from broker.comparison import Answer, compare
from broker.placement import part_calls
from descriptors.base import Document, utc_now
from descriptors.cfp import CallForProposals
from descriptors.comparison import Comparison
from descriptors.messages import Request
from descriptors.negotiation import Mandate
from descriptors.resources import Reason
from descriptors.sla import Agreement, Offer
from descriptors.trust import Delegation

_AWAY = Reason(code="away", message="its agent has not registered: it is starting, or it has ended")

_NOT_FOUND = Reason(code="away", message="its agent is in no directory that could be asked: is its site trusted?")


class BrokerAgent(RoleAgent):
    """Asked with a call for proposals, or with a mandate to negotiate about one, it answers with a comparison; asked
    to accept an offer, it does, as far as the deployer has delegated it."""

    def __init__(
        self, jid: str, link: Link, workshop: Workshop, conversations: Conversations, directory: DirectoryAgent
    ) -> None:
        """Asks whom the directory knows; of the vendors with modules in the workshop it tells in any case."""
        super().__init__(jid, link)
        self._workshop = workshop
        self._haggling: dict[str, Haggling] = {}
        self._directory = directory
        self._asking: dict[str, tuple[CallForProposals, asyncio.Task[Comparison]]] = {}
        self._net = Initiator(self, workshop.site, conversations, self._came_late)

    async def setup(self) -> None:
        """Answer requests, and go on with what an earlier process left."""
        handlers: Handlers = {CallForProposals: self.compare, Mandate: self.negotiate, Request: self.see_to}
        Responder.install(self, handlers)
        self._net.take_up()
        self.work(self._tell_ended())

    async def compare(self, call: CallForProposals) -> Comparison:
        """Ask the vendors, for the whole and at the same time for each part, and weigh their answers."""
        return await self._unless_cancelled(call, self._compare(call))

    async def negotiate(self, mandate: Mandate) -> Comparison:
        """Negotiate about a call that is in the store, keep the timeline, and weigh the last offers."""
        call = await self._workshop.store.get(CallForProposals, mandate.call or "")
        return await self._unless_cancelled(call, self._negotiate(call, mandate))

    async def see_to(self, request: Request) -> Document:
        """Do what was requested."""
        if request.action == "accept":
            return await self.accept(request)
        if request.action == "cancel":
            return await self.cancel(request)
        raise refuse("not-understood", f"a broker does not {request.action}", "ask the Mediator")

    async def _unless_cancelled(self, call: CallForProposals, asking: Coroutine[Any, Any, Comparison]) -> Comparison:
        """Ask, and be ready to hear that nobody wants to know any more."""
        task = asyncio.create_task(asking)
        self._asking[call.id] = call, task
        try:
            return await task
        except asyncio.CancelledError:
            if (us := asyncio.current_task()) and us.cancelling():  # it is this agent that stops
                raise
            raise refuse("cancelled", f"{call.id} was cancelled", "nothing was changed; ask again for offers") from None
        finally:
            del self._asking[call.id]

    async def cancel(self, request: Request) -> Request:
        """End the calls that are out for an application; answers with the call that was ended."""
        out = [(call, task) for call, task in self._asking.values() if call.application == request.subject]
        if not out:
            raise refuse("not-busy", f"nothing is under way for {request.subject}", "nothing is left to cancel")
        for _, task in out:
            task.cancel()
        await asyncio.wait([task for _, task in out])
        for call, _ in out:
            for each in (call, *part_calls(call)):
                await self._net.call_off(each.id)
            await self._workshop.events.happened(call.application, "called-off", f"{call.id}: the vendors are told")
        return request.model_copy(update={"subject": out[0][0].id})

    async def _compare(self, call: CallForProposals) -> Comparison:
        whole, *parts = await asyncio.gather(*(self._answers(each) for each in (call, *part_calls(call))))
        known = await records(self._workshop.store)
        if not parts:
            return compare(call, whole, utc_now(), records=known)
        # there may be many ways to put parts together: others' messages go on meanwhile
        return await asyncio.to_thread(compare, call, whole, utc_now(), parts=parts, records=known)

    async def _answers(self, call: CallForProposals) -> dict[str, Answer]:
        found = await self._found(call)
        vendors = {jid: name for name, jid in found.agents.items()}
        async with self._net.calling(call, vendors):
            heard = await self._net.ask(call.id, dict.fromkeys(vendors, call), call.reply_by)
            await self._net.stand(call.id, heard)
        return found.unable | self._noted(vendors, {vendors[jid]: each.answer for jid, each in heard.items()})

    async def _negotiate(self, call: CallForProposals, mandate: Mandate) -> Comparison:
        store = self._workshop.store
        found = await self._found(call)
        names = {jid: name for name, jid in found.agents.items()}
        haggling = self._haggling[call.id] = Haggling(self, self._net, call, mandate, names)
        try:
            async with self._net.calling(call, names):
                await haggling.run()
                async with store.transaction() as session:
                    for counter in haggling.answered():
                        await store.put_in(session, counter, id=counter.id, application=call.application)
                await self._net.stand(call.id, haggling.standing())
            record = haggling.record()
        finally:
            del self._haggling[call.id]
        await store.put(record, id=call.id, application=call.application)
        answers = found.unable | self._noted(names, haggling.answers())
        return compare(call, answers, utc_now(), records=await records(store))

    def _noted(self, vendors: Mapping[str, str], answers: dict[str, Answer]) -> dict[str, Answer]:
        """The answers, by the vendors' names; the directory is told who cannot be reached (``vendors`` by JID)."""
        for jid, name in vendors.items():
            if isinstance(answer := answers.get(name), Reason) and answer.code == "no-such-agent":
                self._directory.known.gone(jid, utc_now())
        return answers

    async def accept(self, request: Request) -> Agreement:
        """Accept an offer on the deployer's behalf."""
        offer = await self._workshop.store.get(Offer, request.subject)
        bidder, workshop = await self._net.bidder(offer), self._workshop
        if offer.vendor in workshop.modules and bidder != workshop.speaker(offer.vendor):
            raise refuse("other-agent", f"{bidder} no longer speaks for {offer.vendor} here", "ask for new offers")
        return await self._net.accept(offer, bidder, self._delegated(request, offer))

    def _delegated(self, request: Request, offer: Offer) -> Signed[Delegation]:
        """What lets this agent accept the offer; refused unless the deployer has signed it, and it goes that far."""
        if offer.expires <= utc_now():
            raise refuse("expired", f"offer {offer.id} expired at {offer.expires:%H:%M:%S %Z}", "ask for new offers")
        if not request.delegations:
            raise _not_delegated("the deployer has not signed that it may be accepted")
        signed = self._workshop.site.verifier.verify(
            request.delegations[0],
            Delegation,
            audience=str(self.jid),
            sender=self.link.address(addresses.DEPLOYER),
            conversation=offer.call,
            now=utc_now(),
        )
        given, price = signed.document, offer.price
        if (given.application, given.delegate) != (offer.application, str(self.jid)):
            raise _not_delegated("what the deployer has signed is about something else")
        if given.currency != price.currency or price.per_month > given.per_month:
            raise _not_delegated(f"it costs more than the deployer allows, {given.per_month} {given.currency} a month")
        if given.until <= utc_now():
            raise _not_delegated(f"it was allowed until {given.until:%H:%M:%S %Z}")
        return signed

    async def _found(self, call: CallForProposals) -> Found:
        """Whom to ask, of those that the call wants to be asked."""
        found = await self._directory.find(call)
        for name in self._workshop.modules:
            if name not in found.agents and name not in found.unable:
                found.unable[name] = _NOT_FOUND if name in self._workshop.agents else _AWAY
        known = {*found.agents, *found.unable}
        if unknown := set(call.vendors) - known:
            raise refuse(
                "unknown-vendor",
                f"there is no vendor {', '.join(sorted(unknown))}; there are: {', '.join(sorted(known)) or 'none'}",
                "name one of them",
            )
        wanted = call.vendors or known
        return Found(
            {name: jid for name, jid in found.agents.items() if name in wanted},
            {name: reason for name, reason in found.unable.items() if name in wanted},
        )

    async def _tell_ended(self) -> None:
        """Tell vendors elsewhere of agreements that end here, for ever; at first of what an earlier process left."""

        async def has_ended(agreement: Agreement) -> bool:
            known = await self._workshop.store.find(Agreement, agreement.id)
            return known is not None and known.state == "terminated"

        while True:
            self._workshop.ended.clear()
            try:
                await self._net.tell_ended(has_ended)
            except Exception as error:
                self.log.error("vendors are not told which agreements have ended", exc_info=error)
            await self._workshop.ended.wait()

    async def _came_late(self, message: Message) -> None:
        """Tell in the application's history of an answer that was not used."""
        if haggling := self._haggling.get(message.thread or ""):
            haggling.came_late(message.sender.bare)
        call = await self._workshop.store.find(CallForProposals, message.thread or "")
        if call is not None:
            text = f"{addresses.vendor_at(str(message.sender.bare))} answered {call.id} too late"
            await self._workshop.events.happened(call.application, "late", text)


def _not_delegated(why: str) -> AgencyError:
    return refuse("not-delegated", f"the offer is not accepted: {why}", "accept it with `agency accept`")
