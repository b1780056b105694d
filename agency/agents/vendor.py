"""The Vendor Agent: speaks for one provider, through its Vendor Module."""

from __future__ import annotations

from agency.agents.selling import Seller
from agency.messaging.agent import RoleAgent
from agency.messaging.bidding import Participant
from agency.messaging.conversations import Conversations
from agency.messaging.links import Link
from agency.messaging.request import Responder
from agency.problems import refuse
from agency.trust.site import Site
from broker.pricing import Policy
from descriptors.base import utc_now
from descriptors.cfp import CallForProposals
from descriptors.documents import digest
from descriptors.messages import Request
from descriptors.resources import Reason
from descriptors.sla import Agreement, AgreementTemplate, CounterOffer, Offer, Refusal
from descriptors.trust import Acceptance
from vendor_modules.capabilities import capabilities
from vendor_modules.module import VendorModule

NOTHING = Policy()
"""A policy of someone who does not negotiate."""
CONSUMER = "deployer"
"""The party that agreements are made with."""


TO_DEPLOY = ("endpoints", "image-list", "key-pairs", "security-groups", "addresses")
"""Capabilities that the Provisioner needs for any application; see :mod:`agency.relocation.graph`."""


def _needed(call: CallForProposals) -> list[str]:
    buckets = any(resource.kind == "object" for resource in call.resources)
    return [*TO_DEPLOY, *(["access-keys"] if buckets else [])]


class VendorAgent(RoleAgent):
    """Answers calls with its module's proposals and stands by them until they expire."""

    def __init__(
        self,
        jid: str,
        link: Link,
        module: VendorModule,
        site: Site,
        conversations: Conversations,
        policy: Policy = NOTHING,
    ) -> None:
        """``site`` lets it sign what it offers; ``policy`` says what it negotiates, by default nothing."""
        super().__init__(jid, link)
        self.module = module
        self._seller = Seller(module, policy)
        Participant(self, self, site, conversations)

    async def setup(self) -> None:
        """Answer who asks for the template."""
        Responder.install(self, {Request: self.tell})

    async def propose(self, call: CallForProposals) -> Offer | Refusal:
        """The module's proposal; a refusal where the module cannot do what deploying takes, however cheap it is."""
        able = capabilities(type(self.module))
        missing = [name for name in _needed(call) if name not in able]
        if not missing:
            listed = await self.module.propose(call)
            return listed if isinstance(listed, Refusal) else await self._seller.open(call, listed)
        words = ", ".join(missing)
        reason = Reason(
            code="missing-capability",
            required=words,
            message=f"its module has no {words}, without which the agency cannot deploy there",
        )
        return Refusal(call=call.id, vendor=self.module.vendor, reasons=(reason,))

    async def revise(self, counter: CounterOffer) -> Offer | Refusal:
        """Another offer, as far as the policy goes."""
        return await self._seller.revise(counter)

    async def tell(self, request: Request) -> AgreementTemplate:
        """The template after which it makes its offers."""
        return await self._seller.template()

    async def accept(self, acceptance: Acceptance) -> Agreement:
        """Turn an offer that was accepted into an agreement; refuses what it never offered, and what has expired."""
        offer = await self.module.services.persistence.proposal(acceptance.offer)
        if offer is None or digest(offer) != acceptance.offer_digest:
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
            components=offer.components,
            move=offer.move,
        )
