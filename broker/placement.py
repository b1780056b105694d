"""Which vendor gets which part of an application, where the parts may go to different ones.

The broker calls for the whole and, at the same time, for each part by itself: every offer binds on its own, and vendors
need to know nothing of compositions. Here the best way to put offers for the parts together is searched for, by branch
and bound: exactly, unless there are too many ways to look at.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Decimal

from broker.scoring import ONE, Candidate, combined, low_is_good
from descriptors.application import Application, Attribute
from descriptors.cfp import CallForProposals, Flow, Part
from descriptors.comparison import Composition
from descriptors.sla import Offer, PriceTerms

MOST_PARTS = 6
"""An application of more parts is offered as a whole only: each part is one more call to every vendor."""
MOST_STEPS = 20_000
"""So many partial placements are looked at; a second's work."""
_MOST_WORTH = 10 * ONE
"""However much better than the best known something is, it counts for no more."""
ASSUMED_GIB_MONTH = Decimal(1)
"""What flows each way between a component and one that it depends on, where the descriptor says nothing of the two."""
_MILLIONTHS = Decimal("0.000001")


# --- what is called for ---


def parts_of(application: Application) -> tuple[Part, ...]:
    """What could go to different vendors: components, those that share an object store together. None where there is
    only one, or too many. What no component uses goes with the first."""
    groups = application.groups()
    if not 1 < len(groups) <= MOST_PARTS:
        return ()
    used = {name for component in application.components for _, name, _, _ in component.uses()}
    unused = tuple(resource.name for resource in application.resources if resource.name not in used)
    return tuple(
        Part(
            components=group,
            resources=(*(r.name for r in application.needed(group)), *(unused if group is groups[0] else ())),
        )
        for group in groups
    )


def flows_of(application: Application) -> tuple[Flow, ...]:
    """What is expected to flow: what the descriptor says, else what is assumed of components that depend on others."""
    said = [
        Flow(sender=component.name, receiver=traffic.to, gib_month=traffic.gib_month)
        for component in application.components
        for traffic in component.sends
    ]
    known = {frozenset((flow.sender, flow.receiver)) for flow in said}
    assumed = [
        Flow(sender=sender, receiver=receiver, gib_month=ASSUMED_GIB_MONTH)
        for component in application.components
        for other in component.depends_on
        if frozenset((component.name, other)) not in known
        for sender, receiver in ((component.name, other), (other, component.name))
    ]
    return (*said, *assumed)


def part_calls(call: CallForProposals) -> tuple[CallForProposals, ...]:
    """The call for each part by itself."""
    classes = {resource.name: resource for resource in call.resources}
    return tuple(
        call.model_copy(
            update={
                "id": f"{call.id}.{number}",
                "components": part.components,
                "resources": tuple(classes[name] for name in part.resources),
                "parts": (),
                "flows": tuple(flow for flow in call.flows if flow.sender in part.components),
            }
        )
        for number, part in enumerate(call.parts, 1)
    )


def traffic_cost(flows: Sequence[Flow], offers: Mapping[str, Offer]) -> Decimal:
    """What a month's egress costs: to the world, and between vendors. ``offers``: whose each component would be."""
    return sum(
        (
            flow.gib_month * offers[flow.sender].price.egress_per_gib
            for flow in flows
            if flow.sender in offers
            and (
                flow.receiver is None
                or (flow.receiver in offers and offers[flow.receiver].vendor != offers[flow.sender].vendor)
            )
        ),
        Decimal(0),
    ).quantize(_MILLIONTHS, ROUND_HALF_UP)


# --- what is put together ---


@dataclass(frozen=True)
class Bid:
    """A vendor's offer for a part, which qualifies, and how it does."""

    offer: Offer
    candidate: Candidate


@dataclass
class _Search:
    """Branch and bound over the parts, in their order."""

    call: CallForProposals
    bids: Sequence[Sequence[Bid]]
    parts: Mapping[Attribute, int]
    best_known: Mapping[Attribute, int]
    """The amounts that utilities are measured by."""
    steps: int = 0
    best: tuple[int, tuple[Bid, ...]] | None = field(default=None)

    def run(self) -> None:
        """Find the best; :attr:`steps` tells whether everything was looked at."""
        self._descend(())

    def _descend(self, chosen: tuple[Bid, ...]) -> None:
        if len(chosen) == len(self.bids):
            if len({bid.offer.vendor for bid in chosen}) > 1:
                self.best = (self._bound(chosen), chosen)
            return
        branches = [(*chosen, bid) for bid in self.bids[len(chosen)]]
        self.steps += len(branches)
        bounded = [(self._bound(branch), branch) for branch in branches if self._within_cap(branch)]
        for bound, branch in sorted(bounded, key=lambda one: -one[0]):  # stable: of equals the first by name
            if (self.best and bound <= self.best[0]) or self.steps >= MOST_STEPS:
                return
            self._descend(branch)

    def _bound(self, chosen: tuple[Bid, ...]) -> int:
        """No composition that begins so is better; that of a whole one is its own worth."""
        rest = sum(min(bid.candidate.month for bid in bids) for bids in self.bids[len(chosen) :])
        one = combined([(bid.offer.vendor, bid.candidate) for bid in chosen], self._traffic(chosen) + rest)
        return sum(part * self._worth(attribute, one) for attribute, part in self.parts.items())

    def _worth(self, attribute: Attribute, one: Candidate) -> int:
        """Like a utility, over 1 where it is better than the best known."""
        quality, best = one.qualities.get(attribute), self.best_known.get(attribute)
        if quality is None or quality.amount is None or best is None:
            return 0
        good, bad = (best, quality.amount) if low_is_good(attribute) else (quality.amount, best)
        return ONE if good == bad else min(good * ONE // bad, _MOST_WORTH) if bad else _MOST_WORTH

    def _traffic(self, chosen: tuple[Bid, ...]) -> int:
        return int(traffic_cost(self.call.flows, _places(self.call, chosen)).scaleb(6))

    def _within_cap(self, chosen: tuple[Bid, ...]) -> bool:
        cap = self.call.requirements.price_cap
        if cap is None:
            return True
        rest = sum(min(bid.offer.price.per_month for bid in bids) for bids in self.bids[len(chosen) :])
        months = sum((bid.offer.price.per_month for bid in chosen), Decimal(0))
        return months + rest + traffic_cost(self.call.flows, _places(self.call, chosen)) <= cap


def _places(call: CallForProposals, chosen: Sequence[Bid]) -> dict[str, Offer]:
    """The offer under which each component would run; only of the parts that are placed."""
    return {
        name: bid.offer for part, bid in zip(call.parts, chosen, strict=False) for name in part.components
    }  # fmt: skip


def best_composition(
    call: CallForProposals,
    bids: Sequence[Sequence[Bid]],
    parts: Mapping[Attribute, int],
    wholes: Sequence[Candidate],
) -> tuple[Composition, Candidate] | None:
    """The best way to share the parts out among at least two vendors, within the price cap; None if there is none.

    ``bids``: for each part, who may have it, by the vendors' names; ``parts``: the weights. What is good is measured
    by the best offers for the whole (``wholes``), or where there are none by the best for any part.
    """
    if not bids or not all(bids):
        return None
    measure = list(wholes) or [bid.candidate for each in bids for bid in each]
    search = _Search(call, bids, parts, dict(_bests(parts, measure)))
    search.run()
    if search.best is None:
        return None
    chosen = search.best[1]
    traffic = traffic_cost(call.flows, _places(call, chosen))
    offers = tuple(bid.offer for bid in chosen)
    composition = Composition(
        id=f"composition-{call.id}",
        call=call.id,
        application=call.application,
        expires=min(offer.expires for offer in offers),
        traffic_month=traffic,
        proven=search.steps < MOST_STEPS,
        price=_together(offers),
        offers=offers,
    )
    one = combined(
        [(bid.offer.vendor, bid.candidate) for bid in chosen], int(traffic.scaleb(6)), offers[0].price.currency
    )
    return composition, one


def _bests(parts: Mapping[Attribute, int], measure: Sequence[Candidate]) -> Iterator[tuple[Attribute, int]]:
    for attribute in parts:
        amounts = [one.qualities[attribute].amount for one in measure if attribute in one.qualities]
        known = [amount for amount in amounts if amount is not None]
        if known:
            yield attribute, (min if low_is_good(attribute) else max)(known)


def _together(offers: Sequence[Offer]) -> PriceTerms:
    prices = [offer.price for offer in offers]
    return PriceTerms(
        currency=prices[0].currency,
        per_hour=sum((price.per_hour for price in prices), Decimal(0)),
        per_month=sum((price.per_month for price in prices), Decimal(0)),
        setup=sum((price.setup for price in prices), Decimal(0)),
        egress_per_gib=max(price.egress_per_gib for price in prices),
    )
