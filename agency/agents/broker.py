"""The Broker agent: runs the Contract Net with the Vendor Agents and compares what they answer."""

from __future__ import annotations

import asyncio

from spade.message import Message

from agency.agents import addresses
from agency.agents.haggling import Haggling
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
from descriptors.base import utc_now
from descriptors.cfp import CallForProposals
from descriptors.comparison import Comparison
from descriptors.messages import Request
from descriptors.negotiation import Mandate
from descriptors.sla import Agreement, Offer
from descriptors.trust import Delegation


class BrokerAgent(RoleAgent):
    """Asked with a call for proposals, or with a mandate to negotiate about one, it answers with a comparison; asked
    to accept an offer, it does, as far as the deployer has delegated it."""

    def __init__(self, jid: str, link: Link, workshop: Workshop, conversations: Conversations) -> None:
        """Asks the vendors whose modules are in the workshop."""
        super().__init__(jid, link)
        self._workshop = workshop
        self._haggling: dict[str, Haggling] = {}
        self._net = Initiator(self, workshop.site, conversations, self._came_late)

    async def setup(self) -> None:
        """Answer requests, and go on with what an earlier process left."""
        handlers: Handlers = {CallForProposals: self.compare, Mandate: self.negotiate, Request: self.accept}
        Responder.install(self, handlers)
        self._net.take_up()

    async def compare(self, call: CallForProposals) -> Comparison:
        """Ask the vendors, for the whole and at the same time for each part, and weigh their answers."""
        whole, *parts = await asyncio.gather(*(self._answers(each) for each in (call, *part_calls(call))))
        known = await records(self._workshop.store)
        if not parts:
            return compare(call, whole, utc_now(), records=known)
        # there may be many ways to put parts together: others' messages go on meanwhile
        return await asyncio.to_thread(compare, call, whole, utc_now(), parts=parts, records=known)

    async def _answers(self, call: CallForProposals) -> dict[str, Answer]:
        vendors = {self._at(name): name for name in self._asked(call)}
        async with self._net.calling(call, vendors):
            heard = await self._net.ask(call.id, dict.fromkeys(vendors, call), call.reply_by)
            await self._net.stand(call.id, heard)
        return {vendors[jid]: each.answer for jid, each in heard.items()}

    async def negotiate(self, mandate: Mandate) -> Comparison:
        """Negotiate about a call that is in the store, keep the timeline, and weigh the last offers."""
        store = self._workshop.store
        call = await store.get(CallForProposals, mandate.call or "")
        names = {self._at(name): name for name in self._asked(call)}
        haggling = self._haggling[call.id] = Haggling(self, self._net, call, mandate, names)
        try:
            async with self._net.calling(call, names):
                await haggling.run()
                await self._net.stand(call.id, haggling.standing())
            record = haggling.record()
        finally:
            del self._haggling[call.id]
        await store.put(record, id=call.id, application=call.application)
        return compare(call, haggling.answers(), utc_now(), records=await records(store))

    async def accept(self, request: Request) -> Agreement:
        """Accept an offer on the deployer's behalf."""
        if request.action != "accept":
            raise refuse("not-understood", f"a broker does not {request.action}", "ask the Mediator")
        offer = await self._workshop.store.get(Offer, request.subject)
        return await self._net.accept(offer, self._at(offer.vendor), self._delegated(request, offer))

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

    def _asked(self, call: CallForProposals) -> tuple[str, ...]:
        known = tuple(self._workshop.modules)
        if unknown := set(call.vendors) - set(known):
            raise refuse(
                "unknown-vendor",
                f"there is no vendor {', '.join(sorted(unknown))}; there are: {', '.join(known) or 'none'}",
                "name one of them",
            )
        return call.vendors or known

    async def _came_late(self, message: Message) -> None:
        """Tell in the application's history of an answer that was not used."""
        if haggling := self._haggling.get(message.thread or ""):
            haggling.came_late(message.sender.bare)
        call = await self._workshop.store.find(CallForProposals, message.thread or "")
        if call is not None:
            text = f"{message.sender.local.removeprefix('vendor-')} answered {call.id} too late"
            await self._workshop.events.happened(call.application, "late", text)

    def _at(self, vendor: str) -> str:
        return self.link.address(addresses.vendor(vendor))


def _not_delegated(why: str) -> AgencyError:
    return refuse("not-delegated", f"the offer is not accepted: {why}", "accept it with `agency accept`")
