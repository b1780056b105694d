"""How a Vendor Agent negotiates: its policy (:mod:`broker.pricing`), at work on its module's offers."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from agency.strategies import strategies
from broker.pricing import Policy, answer, listed_id, opening
from descriptors.base import Reference, new_id, utc_now
from descriptors.cfp import CallForProposals
from descriptors.documents import digest
from descriptors.resources import Reason, ResourceType
from descriptors.sla import AgreementTemplate, CounterOffer, MoveTerms, Offer, Refusal, Service
from vendor_modules.module import VendorModule

TEMPLATE_LASTS = timedelta(days=30)
MOST_OFFERS = 1000
"""About one call."""


class Seller:
    """Opens with the module's offer, and answers counter-offers as the policy says.

    Offers are remembered where the module remembers its own; what was asked for, in memory: a vendor that began anew
    in the middle of a negotiation stands by its last offer.
    """

    def __init__(self, module: VendorModule, policy: Policy) -> None:
        """Negotiates about what ``module`` offers."""
        self._module = module
        self._policy = policy
        self._template: AgreementTemplate | None = None
        self._asked: dict[str, tuple[datetime, list[CounterOffer]]] = {}

    async def template(self) -> AgreementTemplate:
        """What this vendor sells, and what is negotiable within which bounds; what it would sell for is not told."""
        now = utc_now()
        if self._template is None or now > self._template.expires:
            catalogue = await self._module.catalogue()
            self._template = AgreementTemplate(
                id=new_id("template"),
                vendor=self._module.vendor,
                issued=now,
                expires=now + TEMPLATE_LASTS,
                currency=catalogue.currency,
                jurisdiction=catalogue.jurisdiction,
                regions=(catalogue.region,),
                services=_services(catalogue.block_gib_month is not None, catalogue.object_gib_month is not None),
                guarantees=catalogue.guarantees,
                constraints=self._policy.constraints(),
            )
        return self._template

    async def open(self, call: CallForProposals, listed: Offer) -> Offer:
        """The first offer: what the module offers, if nothing is negotiable."""
        if not self._policy.negotiable:
            return listed
        offer = opening(listed, self._policy)
        template = await self.template()
        about: dict[str, Any] = {"template": Reference(id=template.id, digest=digest(template))}
        if call.purpose == "relocation":
            about["move"] = self._first_promises(offer)
        offer = offer.model_copy(update=about)
        await self._module.services.persistence.save_proposal(offer)
        return offer

    def _first_promises(self, offer: Offer) -> MoveTerms | None:
        """What it promises for a move before anybody haggles: the usual fee, and of what takes time twice what it could
        do at best."""
        limits = self._policy.limits
        promised = {
            "egress_per_gib": offer.price.egress_per_gib if "move-egress-per-gib" in limits else None,
            "window_hours": 2 * limits["move-window-hours"] if "move-window-hours" in limits else None,
            "downtime_seconds": 2 * limits["move-downtime-seconds"] if "move-downtime-seconds" in limits else None,
        }
        return MoveTerms(**promised) if any(value is not None for value in promised.values()) else None

    async def revise(self, counter: CounterOffer) -> Offer | Refusal:
        """What the policy makes of a counter-offer; a refusal leaves the offer that it answers as it is."""
        listed, offers = await self._said(counter.offer.id)
        asked = self._remembered(counter.call)
        if listed is None or not offers or len(asked) != len(offers) - 1:
            return self._refusal(counter, Reason(code="not-offered", message="this is not my latest offer"))
        template = await self.template()
        found = answer(counter, listed, offers, asked, self._policy, template, utc_now(), strategies())
        if not isinstance(found, Offer):
            return self._refusal(counter, *found)
        await self._module.services.persistence.save_proposal(found)
        self._asked[counter.call] = found.expires, [*asked, counter]
        return found

    async def _said(self, offer_id: str) -> tuple[Offer | None, list[Offer]]:
        """The module's own offer, and what was offered after it, up to the one with that id."""
        proposal, first = self._module.services.persistence.proposal, listed_id(offer_id)
        _, _, number = offer_id.rpartition(".")
        if not first or not number.isdecimal() or int(number) > MOST_OFFERS:
            return None, []
        offers = [await proposal(f"{first}.{n}") for n in range(int(number) + 1)]
        return await proposal(first), [offer for offer in offers if offer is not None]

    def _remembered(self, call: str) -> list[CounterOffer]:
        now = utc_now()
        self._asked = {id_: each for id_, each in self._asked.items() if each[0] > now}
        return self._asked.get(call, (now, []))[1]

    def _refusal(self, counter: CounterOffer, *reasons: Reason) -> Refusal:
        return Refusal(call=counter.call, vendor=self._module.vendor, reasons=reasons)


def _services(block: bool, objects: bool) -> tuple[Service, ...]:
    kinds = [("block", block), ("object", objects)]
    storage = [Service(type=ResourceType.STORAGE, kind=kind) for kind, sold in kinds if sold]  # type: ignore[arg-type]
    return (Service(type=ResourceType.COMPUTE), *storage)
