"""The Broker agent: runs the Contract Net with the Vendor Agents and compares what they answer."""

from __future__ import annotations

from collections.abc import Sequence

from agency.agents import addresses
from agency.messaging.agent import RoleAgent
from agency.messaging.contract_net import accept, call_for_proposals
from agency.messaging.links import Link
from agency.messaging.request import Responder
from agency.problems import refuse
from agency.records import records
from agency.store.store import Store
from broker.comparison import compare
from descriptors.base import utc_now
from descriptors.cfp import CallForProposals
from descriptors.comparison import Comparison
from descriptors.sla import Agreement, Offer


class BrokerAgent(RoleAgent):
    """Asked with a call for proposals, it answers with a comparison; asked with an offer, it accepts that offer."""

    def __init__(self, jid: str, link: Link, vendors: Sequence[str], store: Store) -> None:
        """``vendors``: the names of all vendors there are; ``store`` has their records."""
        super().__init__(jid, link)
        self._store = store
        self._vendors = tuple(vendors)

    async def setup(self) -> None:
        """Answer requests."""
        Responder.install(self, {CallForProposals: self.compare, Offer: self.accept})

    async def compare(self, call: CallForProposals) -> Comparison:
        """Ask the vendors and weigh their answers."""
        asked = call.vendors or self._vendors
        if unknown := set(asked) - set(self._vendors):
            raise refuse(
                "unknown-vendor",
                f"there is no vendor {', '.join(sorted(unknown))}; there are: {', '.join(self._vendors) or 'none'}",
                "name one of them",
            )
        answers = await call_for_proposals(self, call, {self._at(name): name for name in asked})
        return compare(call, answers, utc_now(), records=await records(self._store))

    async def accept(self, offer: Offer) -> Agreement:
        """Accept an offer on the deployer's behalf."""
        others = [self._at(name) for name in self._vendors if name != offer.vendor]
        return await accept(self, offer, self._at(offer.vendor), others)

    def _at(self, vendor: str) -> str:
        return self.link.address(addresses.vendor(vendor))
