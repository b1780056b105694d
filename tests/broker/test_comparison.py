"""Comparisons: one is chosen if one qualifies, and whoever is left out is told why."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.comparison import Answer, compare
from broker.matching import exclusions
from descriptors.cfp import CallForProposals
from descriptors.resources import Reason
from descriptors.sla import Allocation, Offer, Refusal
from tests.broker.samples import NOW, call, calls, offer, rounds


@given(calls, rounds())
def test_every_vendor_that_was_asked_has_one_row(wanted: CallForProposals, answers: dict[str, Answer]) -> None:
    """No vendor is lost and none appears twice."""
    assert sorted(row.vendor for row in compare(wanted, answers, NOW).rows) == sorted(answers)


@given(calls, rounds())
def test_the_excluded_have_a_reason_and_are_never_chosen(wanted: CallForProposals, answers: dict[str, Answer]) -> None:
    """A row has either a score or at least one reason; only a row with a score can be chosen."""
    for row in compare(wanted, answers, NOW).rows:
        assert (row.score is None) == bool(row.excluded_because)
        assert row.chosen <= (row.score is not None)


@given(calls, rounds())
def test_exactly_one_is_chosen_iff_one_qualifies(wanted: CallForProposals, answers: dict[str, Answer]) -> None:
    """The recommended offer is there exactly when some vendor's own offer breaks no constraint."""
    qualified = [
        vendor
        for vendor, answer in answers.items()
        if isinstance(answer, Offer) and answer.vendor == vendor and not exclusions(answer, wanted, NOW)
    ]
    comparison = compare(wanted, answers, NOW)
    assert [row.chosen for row in comparison.rows].count(True) == (1 if qualified else 0)
    assert (comparison.chosen is not None) == bool(qualified)
    assert sorted(row.vendor for row in comparison.rows if row.score is not None) == sorted(qualified)


@given(calls, rounds())
def test_best_first_and_the_excluded_last(wanted: CallForProposals, answers: dict[str, Answer]) -> None:
    """Rows come by falling score, then the excluded; the chosen one is the first."""
    rows = compare(wanted, answers, NOW).rows
    rated = [row.score for row in rows if row.score is not None]
    assert rated == sorted(rated, reverse=True)
    assert [row.score for row in rows[: len(rated)]] == rated
    assert [row.chosen for row in rows] == [bool(rated) and place == 0 for place in range(len(rows))]


@given(calls, rounds(), st.randoms(use_true_random=False))
def test_the_order_of_the_answers_changes_nothing(
    wanted: CallForProposals, answers: dict[str, Answer], random: Any
) -> None:
    """The same answers give the same comparison, in whatever order they came."""
    shuffled = list(answers.items())
    random.shuffle(shuffled)
    assert compare(wanted, dict(shuffled), NOW) == compare(wanted, answers, NOW)


@pytest.mark.parametrize(
    ("code", "bad"),
    [
        ("other-vendor", offer("honest", per_hour=0)),
        ("expired", offer("rogue", per_hour=0, expires=NOW - timedelta(days=1))),
        ("other-call", offer("rogue", per_hour=0, call="call-of-yesterday")),
        (
            "resource-not-covered",
            offer(
                "rogue",
                per_hour=0,
                allocations=(Allocation(resource="machine", size="s", price_per_hour=Decimal(0)),),
            ),
        ),
    ],
)
def test_a_bad_offer_never_wins_however_cheap(code: str, bad: Offer) -> None:
    """Impersonated, expired, strayed and incomplete offers lose against a dearer honest one, and alone."""
    row = compare(call(), {"rogue": bad}, NOW).rows[0]
    assert [reason.code for reason in row.excluded_because] == [code]
    assert not row.chosen
    chosen = compare(call(), {"rogue": bad, "honest": offer("honest", per_hour="0.9")}, NOW).chosen
    assert chosen is not None
    assert chosen.price.per_hour == Decimal("0.9")


def test_the_cheaper_of_two_equal_scores_wins_then_the_name() -> None:
    """Ties are broken the same way every time: by the price, then by the name."""
    same = {name: offer(name) for name in ("beta", "alpha", "gamma")}
    assert [row.vendor for row in compare(call(), same, NOW).rows] == ["alpha", "beta", "gamma"]


def test_refusals_and_silence_are_shown_with_their_reasons() -> None:
    """A vendor without an offer has a row with its own reasons, word for word."""
    why = Reason(code="no-block-storage", resource="disk", message="has no block storage")
    silent = Reason(code="no-answer", message="did not answer before the deadline")
    answers: dict[str, Answer] = {"a": Refusal(call="call-1", vendor="a", reasons=(why,)), "b": silent}
    comparison = compare(call(), answers, NOW)
    assert [(row.vendor, row.offer, row.excluded_because) for row in comparison.rows] == [
        ("a", None, (why,)),
        ("b", None, (silent,)),
    ]
    assert comparison.chosen is None


def test_nobody_asked_is_an_empty_comparison() -> None:
    """Without answers there are no rows and nothing is chosen."""
    comparison = compare(call(), {}, NOW)
    assert (comparison.rows, comparison.chosen) == ((), None)
