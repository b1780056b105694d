"""The Vendor Agent: speaks for one provider, through its Vendor Module."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

from agency.agents import addresses
from agency.agents.selling import Seller
from agency.federation.registering import stay_registered
from agency.messaging.agent import RoleAgent
from agency.messaging.bidding import Participant
from agency.messaging.conversations import Conversations
from agency.messaging.links import Link
from agency.messaging.request import Responder
from agency.problems import refuse
from agency.store.store import Store
from agency.trust.site import Site
from broker.pricing import Policy
from broker.terms import revised
from descriptors.base import Reference, utc_now
from descriptors.cfp import CallForProposals
from descriptors.documents import digest
from descriptors.messages import Request
from descriptors.resources import Reason
from descriptors.sla import CONSUMER, Agreement, AgreementTemplate, CounterOffer, Offer, Refusal, ends
from descriptors.trust import Acceptance
from vendor_modules.capabilities import capabilities
from vendor_modules.module import VendorModule

NOTHING = Policy()
"""A policy of someone who does not negotiate."""

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
        store: Store,
        policy: Policy = NOTHING,
    ) -> None:
        """``site`` lets it sign what it offers; ``store`` has its agreements; ``policy`` says what it negotiates, by
        default nothing."""
        super().__init__(jid, link)
        self.module = module
        self._site = site
        self._store = store
        self._seller = Seller(module, policy)
        Participant(self, self, site, conversations)

    async def setup(self) -> None:
        """Answer who asks for the template, and be found."""
        Responder.install(self, {Request: self.tell}, lambda sender, _: self._site.knows(sender))
        self.work(stay_registered(self, self.link.address(addresses.DIRECTORY), self.module))

    async def propose(self, call: CallForProposals) -> Offer | Refusal:
        """The module's proposal; a refusal where the module cannot do what deploying takes, however cheap it is."""
        able = capabilities(type(self.module))
        missing = [name for name in _needed(call) if name not in able]
        if not missing:
            listed = await self.module.propose(call)
            if isinstance(listed, Refusal):
                return listed
            old = await self._superseded(call.supersedes)
            return await self._seller.open(call, await self._in_place_of(old, listed) if old else listed)
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

    async def _superseded(self, reference: Reference | None) -> Agreement | None:
        """The running agreement that would be replaced; refused where there is none of this vendor's, or not like
        that."""
        if reference is None:
            return None
        old = await self._store.find(Agreement, reference.id)
        runs = old is not None and (old.provider, old.state) == (self.module.vendor, "observed")
        if old is None or not runs or digest(old) != reference.digest:
            raise refuse(
                "no-agreement",
                f"{self.module.vendor} has no agreement {reference.id} that runs, or not like that",
                "see `agency status`",
            )
        return old

    async def _in_place_of(self, old: Agreement, offer: Offer) -> Offer:
        """The offer as one to replace the agreement, remembered. Who renegotiates does not get out of the minimum term
        that it is bound to."""
        bound = old.agreed + timedelta(days=old.price.minimum_days or 0) - utc_now()
        days = max(bound // timedelta(days=1) + 1, offer.price.minimum_days or 0, 0)
        made = revised(offer, {"minimum-days": Decimal(days)}, supersedes=Reference(id=old.id, digest=digest(old)))
        await self.module.services.persistence.save_proposal(made)
        return made

    async def accept(self, acceptance: Acceptance) -> Agreement:
        """Turn an offer that was accepted into an agreement; refuses what it never offered, and what has expired."""
        offer = await self.module.services.persistence.proposal(acceptance.offer)
        if offer is None or digest(offer) != acceptance.offer_digest:
            raise refuse("not-offered", f"{self.module.vendor} never made this offer", "ask for new offers")
        if offer.expires <= utc_now():
            raise refuse("expired", f"offer {offer.id} expired at {offer.expires:%H:%M:%S %Z}", "ask for new offers")
        await self._superseded(offer.supersedes)
        identifier, now = f"agreement-{offer.id}", utc_now()
        tied = {"provider": offer.vendor, "agreement": identifier}
        return Agreement(
            id=identifier,
            application=offer.application,
            offer=offer.id,
            offer_digest=digest(offer),
            provider=offer.vendor,
            consumer=CONSUMER,
            state="observed",
            agreed=now,
            expires=ends(now, offer.price),
            price=offer.price,
            resources=tuple(resource.model_copy(update=tied) for resource in offer.resources),
            allocations=offer.allocations,
            guarantees=offer.guarantees,
            move=offer.move,
            supersedes=offer.supersedes,
            components=offer.components,
        )
