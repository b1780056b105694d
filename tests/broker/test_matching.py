"""Hard constraints: what breaks one is left out, with its code."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from broker.matching import exclusions
from descriptors.sla import Allocation, GuaranteeTerm, PriceTerms
from tests.broker.samples import NOW, call, offer


def codes(wanted: dict[str, Any], **changes: Any) -> list[str]:
    """The codes of the reasons against an offer with these changes."""
    return [reason.code for reason in exclusions(offer(**changes), call(**wanted), NOW)]


def test_a_fitting_offer_has_no_reason_against_it() -> None:
    """An offer that meets every requirement, each exactly at its limit, is not excluded."""
    wanted = {
        "regions": ("us-east", "eu-west"),
        "jurisdictions": ("EU",),
        "availability": Decimal("99.9"),
        "price_cap": Decimal("7.3"),
    }
    assert codes(wanted, per_hour="0.01", expires=NOW + timedelta(microseconds=1)) == []


@pytest.mark.parametrize(
    ("code", "wanted", "changes"),
    [
        ("other-call", {}, {"call": "call-2"}),
        ("expired", {}, {"expires": NOW - timedelta(seconds=1)}),
        ("expired", {}, {"expires": NOW}),
        ("other-region", {"regions": ("us-east", "us-west")}, {}),
        ("other-jurisdiction", {"jurisdictions": ("CH",)}, {}),
        ("availability-too-low", {"availability": Decimal("99.91")}, {}),
        ("availability-too-low", {"availability": Decimal(0)}, {"availability": None}),
        ("over-price-cap", {"price_cap": Decimal("7.299999")}, {}),
        ("over-price-cap", {"price_cap": Decimal(0)}, {}),
        ("other-currency", {}, {"currency": "USD"}),
        ("other-currency", {"price_cap": Decimal(50)}, {"currency": "USD"}),
        ("other-currency", {"price_cap": Decimal(50), "currency": "CHF"}, {}),
    ],
)
def test_each_broken_constraint_has_its_code(code: str, wanted: dict[str, Any], changes: dict[str, Any]) -> None:
    """An offer that breaks one constraint is excluded for that reason and no other."""
    assert codes(wanted, **changes) == [code]


def test_an_uncovered_resource_is_named() -> None:
    """An offer that says nothing of a resource in the call is excluded, and the reason names the resource."""
    only_machine = (Allocation(resource="machine", size="small", price_per_hour=Decimal(0)),)
    (reason,) = exclusions(offer(allocations=only_machine), call(), NOW)
    assert (reason.code, reason.resource) == ("resource-not-covered", "disk")


def test_all_reasons_are_given_at_once() -> None:
    """Whoever reads the exclusion sees everything that is wrong, not only the first thing."""
    wanted = {"regions": ("mars",), "jurisdictions": ("XX",), "availability": Decimal(100), "price_cap": Decimal(1)}
    assert codes(wanted, call="call-2", expires=NOW) == [
        "other-call", "expired", "other-region", "other-jurisdiction", "availability-too-low", "over-price-cap"
    ]  # fmt: skip


def test_a_reason_says_what_was_required_and_what_there_was() -> None:
    """A reason carries both sides as data: the console shows them without parsing the sentence."""
    (reason,) = exclusions(offer(), call(price_cap=Decimal(5)), NOW)
    assert (reason.required, reason.offered) == ("5 EUR", "7.30 EUR")
    assert "7.30" in reason.message
    assert "cap of 5" in reason.message


def test_the_month_is_what_the_cap_is_compared_with() -> None:
    """The cap is on the price of a month, whatever the hour costs."""
    dear_month = PriceTerms(currency="EUR", per_hour=Decimal(0), per_month=Decimal(60))
    assert codes({"price_cap": Decimal(50)}, price=dear_month) == ["over-price-cap"]


def test_the_best_of_several_guarantees_counts() -> None:
    """A vendor that guarantees availability twice is held to the higher figure."""
    terms = tuple(
        GuaranteeTerm(name=name, property="availability", at_least=Decimal(least), penalty=Decimal(5))
        for name, least in (("a", "99"), ("b", "99.95"), ("c", "95"))
    )
    assert codes({"availability": Decimal("99.95")}, guarantees=terms) == []
