"""The Deployer agent: asks the Mediator in the deployer's name, and signs what lets others act in it."""

from __future__ import annotations

from typing import TypeVar

from agency.agents import addresses
from agency.messaging.agent import RoleAgent
from agency.messaging.links import Link
from agency.messaging.request import ask
from agency.relocation.workshop import Workshop
from descriptors.base import Document, new_id, utc_now
from descriptors.comparison import Composition
from descriptors.messages import Request
from descriptors.relocation import RelocationPlan
from descriptors.sla import Offer
from descriptors.trust import Delegation

D = TypeVar("D", bound=Document)


class DeployerAgent(RoleAgent):
    """Whoever may use it is the deployer: it is reached through the API, and by no other agent."""

    def __init__(self, jid: str, link: Link, workshop: Workshop) -> None:
        super().__init__(jid, link)
        self._workshop = workshop
        self._signer = workshop.site.signer(jid)

    async def request(self, request: Request, expect: type[D]) -> D:
        """Have the Mediator see to it. What ends in agreements is delegated to the Broker: for each offer's price,
        until it expires, and for no more."""
        offers = await self._offers(request)
        if offers and all(offer.expires > utc_now() for offer in offers):
            request = request.model_copy(update={"delegations": tuple(map(self._delegation, offers))})
        return await ask(self, self.link.address(addresses.MEDIATOR), request, expect)

    async def _offers(self, request: Request) -> tuple[Offer, ...]:
        """The offers that would be accepted; none if the request is about none, or about what is not there."""
        store, subject = self._workshop.store, request.subject
        if request.action == "relocate":
            plan = await store.find(RelocationPlan, subject)
            subject = plan.offer if plan else ""
        elif request.action != "accept":
            return ()
        elif composition := await store.find(Composition, subject):
            return composition.offers
        offer = await store.find(Offer, subject)
        return (offer,) if offer else ()

    def _delegation(self, offer: Offer) -> str:
        broker = self.link.address(addresses.BROKER)
        delegation = Delegation(
            id=new_id("delegation"),
            application=offer.application,
            delegate=broker,
            per_month=offer.price.per_month,
            currency=offer.price.currency,
            issued=utc_now(),
            until=offer.expires,
        )
        return self._signer.sign(delegation, audience=broker, expires=offer.expires)
