"""Weights as people say them."""

from __future__ import annotations

from decimal import Decimal

import pytest

from agency.problems import AgencyError
from agency.weights import parse, weighed
from tests.agency.test_offers_page import NOTES


def test_weights_are_read() -> None:
    """An attribute and a number, exactly as they are written."""
    assert [(w.attribute, w.value) for w in parse(["price=0.5", "recovery-time= 2"])] == [
        ("price", Decimal("0.5")),
        ("recovery-time", Decimal(2)),
    ]


@pytest.mark.parametrize(
    "bad", ["price", "price=", "prise=1", "price=-1", "price=nan", "price=1e-9", "price=x", "=1", "", "price=1e400"]
)
def test_what_is_no_weight_is_refused(bad: str) -> None:
    """The words say which weight, what is wrong, and what there is."""
    with pytest.raises(AgencyError) as caught:
        parse(["egress=1", bad])
    assert repr(bad) in caught.value.problem.message
    assert "recovery-point" in caught.value.problem.remedy


def test_an_attribute_is_weighed_once() -> None:
    """Two weights for one attribute contradict each other."""
    with pytest.raises(AgencyError, match="twice"):
        parse(["price=1", "price=2"])


def test_given_weights_take_the_place_of_the_descriptor_s() -> None:
    """What is said last counts; what the descriptor says of other attributes stays."""
    once = weighed(NOTES, parse(["price=1", "egress=1"]))
    twice = weighed(once, parse(["price=2"]))
    assert {w.attribute: w.value for w in twice.requirements.weights} == {"price": Decimal(2), "egress": Decimal(1)}
    assert weighed(once, ()) is once
