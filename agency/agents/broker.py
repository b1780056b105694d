"""The Broker agent: runs the Contract Net with the Vendor Agents and compares what they answer."""

from __future__ import annotations

from spade.message import Message

from agency.agents import addresses
from agency.messaging.agent import RoleAgent
from agency.messaging.contract_net import Initiator
from agency.messaging.conversations import Conversations
from agency.messaging.links import Link
from agency.messaging.request import Responder
from agency.problems import refuse
from agency.records import records
from agency.relocation.workshop import Workshop
from broker.comparison import compare
from descriptors.base import utc_now
from descriptors.cfp import CallForProposals
from descriptors.comparison import Comparison
from descriptors.sla import Agreement, Offer


class BrokerAgent(RoleAgent):
    """Asked with a call for proposals, it answers with a comparison; asked with an offer, it accepts that offer."""

    def __init__(self, jid: str, link: Link, workshop: Workshop, conversations: Conversations) -> None:
        """Asks the vendors whose modules are in the workshop."""
        super().__init__(jid, link)
        self._workshop = workshop
        self._net = Initiator(self, workshop.site, conversations, self._came_late)

    async def setup(self) -> None:
        """Answer requests, and go on with what an earlier process left."""
        Responder.install(self, {CallForProposals: self.compare, Offer: self.accept})
        self._net.take_up()

    async def compare(self, call: CallForProposals) -> Comparison:
        """Ask the vendors and weigh their answers."""
        vendors = {self._at(name): name for name in self._asked(call)}
        async with self._net.calling(call, vendors):
            heard = await self._net.ask(call.id, dict.fromkeys(vendors, call), call.reply_by)
            await self._net.stand(call.id, heard)
        answers = {vendors[jid]: each.answer for jid, each in heard.items()}
        return compare(call, answers, utc_now(), records=await records(self._workshop.store))

    async def accept(self, offer: Offer) -> Agreement:
        """Accept an offer on the deployer's behalf."""
        return await self._net.accept(offer, self._at(offer.vendor))

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
        call = await self._workshop.store.find(CallForProposals, message.thread or "")
        if call is not None:
            text = f"{message.sender.local.removeprefix('vendor-')} answered {call.id} too late"
            await self._workshop.events.happened(call.application, "late", text)

    def _at(self, vendor: str) -> str:
        return self.link.address(addresses.vendor(vendor))
