"""Terms by name: what is set is read, prices add up, and counter-offers are held against offer and template."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from broker.terms import changes, objections, revised, value
from descriptors.base import Reference
from descriptors.digests import digest
from descriptors.resources import ResourceType
from descriptors.sla import (
    AgreementTemplate,
    Change,
    Condition,
    Constraint,
    CounterOffer,
    GuaranteeTerm,
    NegotiableTerm,
    Offer,
    Service,
)
from tests.broker.samples import NOW, offer

AMOUNTS = st.decimals(0, 100, places=6)


def template(*constraints: Constraint) -> AgreementTemplate:
    """The template of the vendor ``alpha``, with these constraints."""
    return AgreementTemplate(
        id="template-alpha",
        vendor="alpha",
        issued=NOW,
        expires=NOW + timedelta(days=1),
        currency="EUR",
        jurisdiction="EU",
        regions=("eu-west",),
        services=(Service(type=ResourceType.COMPUTE),),
        constraints=constraints,
    )


def counter(to: Offer, **fields: Any) -> CounterOffer:
    """A counter-offer that wants a lower price; ``fields`` are put over its own."""
    own = {
        "id": "counter-1",
        "call": to.call,
        "application": to.application,
        "vendor": to.vendor,
        "issued": NOW,
        "expires": NOW + timedelta(seconds=10),
        "offer": Reference(id=to.id, digest=digest(to)),
        "changes": (Change(term="price-per-hour", value=Decimal("0.009")),),
    }
    return CounterOffer(**(own | fields))


@given(st.sampled_from(get_args(NegotiableTerm)), AMOUNTS)
def test_what_is_set_is_read(term: NegotiableTerm, amount: Decimal) -> None:
    """A term that an offer has can be set, is then read as it was set, and no other term changes with it."""
    before = offer()
    if term in ("minimum-days", "validity-seconds"):
        amount = amount.to_integral_value()
    if value(before, term) is None and not term.startswith("move-") and term != "storage-per-gib-month":
        with pytest.raises(ValueError, match=f"guarantees no {term}"):
            revised(before, {term: amount})
        return
    after = revised(before, {term: amount})
    assert value(after, term) == amount
    for other in get_args(NegotiableTerm):
        assert other == term or value(after, other) == value(before, other)


@given(AMOUNTS, st.decimals(0, 1, places=6))
def test_allocations_add_up(price: Decimal, part: Decimal) -> None:
    """After a change of price the allocations add up to it, and none is negative."""
    before = offer()
    each = [a.model_copy(update={"price_per_hour": p}) for a, p in zip(before.allocations, (1, part), strict=True)]
    after = revised(before.model_copy(update={"allocations": tuple(each)}), {"price-per-hour": price})
    assert sum(a.price_per_hour for a in after.allocations) == price
    assert all(a.price_per_hour >= 0 for a in after.allocations)


def test_a_month_keeps_its_proportion() -> None:
    """A vendor that sells months cheaper than their hours does so at another price, too."""
    before = offer(per_hour="0.1")
    before = before.model_copy(update={"price": before.price.model_copy(update={"per_month": Decimal(50)})})
    assert revised(before, {"price-per-hour": Decimal("0.05")}).price.per_month == 25


def test_impossible_values_are_refused() -> None:
    """No offer guarantees 101 %, whoever asks for it."""
    with pytest.raises(ValidationError, match="availability is at most 100 %"):
        revised(offer(), {"availability": Decimal(101)})


def test_only_guarantees_of_everything_are_negotiable() -> None:
    """What is guaranteed on a condition, or for a part, is not the term that a counter-offer means."""
    terms = {"name": "g", "property": "availability", "penalty": 1}
    part = GuaranteeTerm(**terms, at_least=100, scope=("disk",))
    conditional = GuaranteeTerm(**terms, at_least=100, condition=Condition(property="request-rate", at_most=9))
    assert value(offer(guarantees=(part, conditional)), "availability") is None
    both = offer(guarantees=(part, GuaranteeTerm(**terms, at_least=Decimal(99))))
    after = revised(both, {"availability": Decimal("99.5")})
    assert [g.at_least for g in after.guarantees] == [100, Decimal("99.5")]


OPEN = Constraint(term="price-per-hour")


def test_a_good_counter_offer_has_no_objections() -> None:
    """A counter-offer to this offer, in time, about an open term and within its range, is to be considered."""
    said = counter(offer())
    assert objections(said, offer(), template(OPEN), NOW) == ()
    assert changes(said) == {"price-per-hour": Decimal("0.009")}


@pytest.mark.parametrize(
    ("fields", "constraints", "code"),
    [
        ({"offer": Reference(id="offer-beta", digest=digest(offer()))}, [OPEN], "other-offer"),
        ({"offer": Reference(id="offer-alpha", digest=digest(offer("beta")))}, [OPEN], "other-offer"),
        ({"call": "call-2"}, [OPEN], "other-call"),
        ({"vendor": "beta"}, [OPEN], "other-call"),
        ({"expires": NOW}, [OPEN], "expired"),
        ({}, [], "not-negotiable"),
        ({}, [Constraint(term="setup")], "not-negotiable"),
        ({}, [Constraint(term="price-per-hour", at_least=Decimal("0.01"))], "outside-template"),
        ({}, [Constraint(term="price-per-hour", choices=(Decimal(1), Decimal(2)))], "outside-template"),
        (
            {"changes": (Change(term="throughput", value=Decimal(1)),)},
            [Constraint(term="throughput")],
            "not-offered",
        ),
    ],
)
def test_objections(fields: dict[str, Any], constraints: list[Constraint], code: str) -> None:
    """A counter-offer to another offer, too late, or beyond the template is objected to, with the reason as data."""
    found = objections(counter(offer(), **fields), offer(), template(*constraints), NOW)
    assert [reason.code for reason in found] == [code]


def test_an_altered_offer_is_another_offer() -> None:
    """A counter-offer answers an offer to the last digit."""
    altered = revised(offer(), {"price-per-hour": Decimal("0.011")})
    assert altered.id == offer().id
    assert [r.code for r in objections(counter(altered), offer(), template(OPEN), NOW)] == ["other-offer"]
