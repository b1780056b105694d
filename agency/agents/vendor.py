"""The Vendor Agent: speaks for one provider, through its Vendor Module."""

from __future__ import annotations

from agency.messaging.agent import RoleAgent
from agency.messaging.contract_net import Participant
from agency.messaging.link import Link
from agency.problems import refuse
from descriptors.base import utc_now
from descriptors.documents import digest
from descriptors.sla import Agreement, Offer
from vendor_modules.module import VendorModule

CONSUMER = "deployer"
"""The party that agreements are made with."""


class VendorAgent(RoleAgent):
    """Answers calls with its module's proposals and stands by them until they expire."""

    def __init__(self, jid: str, link: Link, module: VendorModule) -> None:
        super().__init__(jid, link)
        self.module = module

    async def setup(self) -> None:
        """Take part in Contract Nets."""
        Participant.install(self, self.module.propose, self.accept)

    async def accept(self, offer: Offer) -> Agreement:
        """Turn an offer that was accepted into an agreement; refuses what it never offered, and what has expired."""
        remembered = await self.module.services.persistence.proposal(offer.id)
        if remembered is None or digest(remembered) != digest(offer):
            raise refuse("not-offered", f"{self.module.vendor} never made this offer", "ask for new offers")
        if offer.expires <= utc_now():
            raise refuse("expired", f"offer {offer.id} expired at {offer.expires:%H:%M:%S %Z}", "ask for new offers")
        identifier = f"agreement-{offer.id}"
        tied = {"provider": offer.vendor, "agreement": identifier}
        return Agreement(
            id=identifier,
            application=offer.application,
            offer=offer.id,
            offer_digest=digest(offer),
            provider=offer.vendor,
            consumer=CONSUMER,
            state="observed",
            agreed=utc_now(),
            price=offer.price,
            resources=tuple(resource.model_copy(update=tied) for resource in offer.resources),
            allocations=offer.allocations,
            guarantees=offer.guarantees,
        )
