"""Compositions: the best way to share an application out, compared with every way there is."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker import placement
from broker.comparison import Answer, compare, weighed_anew
from broker.placement import ASSUMED_GIB_MONTH, flows_of, part_calls, parts_of, traffic_cost
from broker.scoring import weights_of
from descriptors.application import Application, BucketUse, Command, Component, Requirements, Tier, Traffic, Weight
from descriptors.cfp import CallForProposals, Flow
from descriptors.comparison import Comparison, Composition
from descriptors.resources import Reason, ResourceClass, ResourceType
from descriptors.sla import Allocation, Offer
from tests.broker.samples import NOW, offer

SMALL = ResourceClass(name="small", type=ResourceType.COMPUTE, cores=1)
FILES = ResourceClass(name="files", type=ResourceType.STORAGE, kind="object")
SPARE = ResourceClass(name="spare", type=ResourceType.STORAGE, kind="block", size_mib=4)
NAMES = ("api", "db", "web")
VENDORS = ("a", "b", "c")
ONLY_PRICE = {
    **dict.fromkeys(("guarantees", "record", "locality", "carbon", "egress"), Decimal(0)),
    "price": Decimal(1),
}


def component(name: str, **fields: object) -> Component:
    """A component on a small machine."""
    return Component(name=name, resource="small", commands=(Command(phase="start", line="run"),), **fields)


def application(*components: Component, **fields: object) -> Application:
    """An application of these components."""
    resources = (SMALL, FILES) if any(c.buckets for c in components) else (SMALL,)
    return Application(
        **{"name": "shop", "resources": resources, "tiers": (Tier(name="all", components=components),)} | fields
    )


def called(app: Application) -> CallForProposals:
    """The call that is made for it."""
    return CallForProposals(
        id="call-1", application=app.name, purpose="deployment", issued=NOW, reply_by=NOW + timedelta(seconds=10),
        requirements=app.requirements, resources=app.needed(), parts=parts_of(app), flows=flows_of(app),
    )  # fmt: skip


def bid(call: CallForProposals, vendor: str, per_hour: str, **changes: object) -> Offer:
    """A vendor's offer for all that is called for."""
    allocations = tuple(Allocation(resource=r.name, size="s", price_per_hour=Decimal(0)) for r in call.resources)
    fixed = {"call": call.id, "id": f"offer-{call.id}-{vendor}", "application": call.application}
    fixed |= {"resources": call.resources, "allocations": allocations, "components": call.components}
    return offer(vendor, per_hour=per_hour, **(fixed | changes))


def compared(call: CallForProposals, whole: dict[str, Answer], *parts: dict[str, Answer], **how: object) -> Comparison:
    """The comparison of these answers."""
    return compare(call, whole, NOW, parts=parts, **how)


def composition_in(comparison: Comparison) -> Composition | None:
    """The composed row's composition."""
    return next((row.composition for row in comparison.rows if row.composition), None)


PAIR = application(component("web", depends_on=("api",)), component("api"))


def test_each_component_is_a_part_with_its_own_call() -> None:
    """The whole is called for with a machine for each component, and each component by itself."""
    call = called(PAIR)
    assert [r.name for r in call.resources] == ["small", "small"], "two machines of one class are two"
    web, api = part_calls(call)
    assert (web.id, web.components, [r.name for r in web.resources]) == ("call-1.1", ("web",), ["small"])
    assert (api.id, api.components, api.parts) == ("call-1.2", ("api",), ())


def test_who_shares_an_object_store_stays_together() -> None:
    """Components with a common bucket are one part; what nobody uses goes with the first."""
    shares = {"buckets": (BucketUse(resource="files"),)}
    app = application(
        component("one", **shares), component("two"), component("three", **shares), resources=(SMALL, FILES, SPARE)
    )
    assert [(part.components, part.resources) for part in parts_of(app)] == [
        (("one", "three"), ("small", "small", "files", "spare")),
        (("two",), ("small",)),
    ]


@pytest.mark.parametrize("count", [1, placement.MOST_PARTS + 1])
def test_one_part_or_too_many_are_not_composed(count: int) -> None:
    """An application of one component, or of very many, is called for as a whole only."""
    assert parts_of(application(*(component(f"c{n}") for n in range(count)))) == ()


def test_traffic_is_what_is_said_or_what_is_assumed() -> None:
    """What the descriptor says of two components counts; of others that depend on each other something is assumed."""
    seven, nine = Decimal(7), Decimal(9)
    said = application(
        component("web", depends_on=("api",), sends=(Traffic(to="api", gib_month=seven), Traffic(gib_month=nine))),
        component("api", depends_on=("db",)),
        component("db"),
    )  # fmt: skip
    assert flows_of(said) == (
        Flow(sender="web", receiver="api", gib_month=Decimal(7)),
        Flow(sender="web", gib_month=Decimal(9)),
        Flow(sender="api", receiver="db", gib_month=ASSUMED_GIB_MONTH),
        Flow(sender="db", receiver="api", gib_month=ASSUMED_GIB_MONTH),
    )


def test_traffic_costs_where_it_leaves_a_vendor() -> None:
    """Between two vendors each is paid for what it sends, inside one nobody is; what goes to the world always costs."""
    call = called(PAIR)
    a, b = bid(call, "a", "0", egress="0.5"), bid(call, "b", "0", egress="0.25")
    flows = (*call.flows, Flow(sender="api", gib_month=Decimal(10)))
    assert traffic_cost(flows, {"web": a, "api": b}) == Decimal("0.5") + Decimal("0.25") + Decimal("2.5")
    assert traffic_cost(flows, {"web": a, "api": a}) == Decimal(5)


def pair(*, egress: str = "0.01", cap: str | None = None) -> Comparison:
    """Of two vendors one has cheap web servers, the other a cheap api."""
    requirements = Requirements(price_cap=None if cap is None else Decimal(cap))
    call = called(PAIR.model_copy(update={"requirements": requirements}))
    web, api = part_calls(call)
    whole: dict[str, Answer] = {v: bid(call, v, "0.05", egress=egress) for v in ("a", "b")}
    return compared(
        call,
        whole,
        {"a": bid(web, "a", "0.01", egress=egress), "b": bid(web, "b", "0.04", egress=egress)},
        {"a": bid(api, "a", "0.04", egress=egress), "b": bid(api, "b", "0.01", egress=egress)},
    )


def test_a_composition_wins_where_it_is_better() -> None:
    """It stands beside the vendors' own offers, with its price, its traffic and its parts, and is recommended."""
    row = pair().rows[0]
    assert row.composition
    assert (row.chosen, row.vendor, row.name, row.offer) == (True, None, "a + b", None)
    assert [(o.vendor, o.components) for o in row.composition.offers] == [("a", ("web",)), ("b", ("api",))]
    assert row.composition.price.per_month == Decimal("14.6")
    assert row.composition.traffic_month == Decimal("0.02")
    assert row.monthly_cost == Decimal("14.62")
    assert row.composition.proven
    assert {c.attribute: c.value for c in row.criteria}["availability"] == "99.8 %", "either may be down"


def test_egress_between_the_vendors_is_in_the_price() -> None:
    """Where the traffic costs more than is saved, one vendor is recommended."""
    comparison = pair(egress="20")
    assert comparison.chosen is not None
    row = next(row for row in comparison.rows if row.composition)
    assert (row.monthly_cost, row.chosen) == (Decimal("54.6"), False)


def test_the_cap_is_on_everything_together() -> None:
    """No composition goes over the price cap, traffic included."""
    assert composition_in(pair(cap="14.62")) is not None
    assert composition_in(pair(cap="14.61")) is None


def test_a_part_that_nobody_may_have_makes_no_composition() -> None:
    """Offers for parts are held to the same constraints, each with its own reasons; one part without any ends it."""
    call = called(PAIR)
    web, api = part_calls(call)
    reason = Reason(code="no-answer", message="did not answer")
    late = bid(api, "b", "0.01", expires=NOW)
    strayed = bid(web, "a", "0.01").model_copy(update={"call": api.id})
    for third in (late, strayed, reason):
        comparison = compared(call, {"a": bid(call, "a", "9")}, {"a": bid(web, "a", "0.01")}, {"b": third})
        assert composition_in(comparison) is None


def test_a_composition_can_be_all_that_there_is() -> None:
    """Where no vendor has everything, several together may."""
    call = called(PAIR)
    web, api = part_calls(call)
    comparison = compared(call, {}, {"a": bid(web, "a", "0.01")}, {"b": bid(api, "b", "0.01")})
    assert [row.chosen for row in comparison.rows] == [True]
    assert composition_in(comparison) is not None


TRIO = application(component("api", depends_on=("db",)), component("db"), component("web", depends_on=("api",)))


@given(
    st.lists(st.sampled_from(["0.01", "0.02", "0.05", "0.051"]), min_size=9, max_size=9),
    st.lists(st.sampled_from(["0", "0.5", "3", "40"]), min_size=3, max_size=3),
    st.lists(st.booleans(), min_size=9, max_size=9),
    st.sampled_from([None, "40", "80"]),
)
def test_no_other_composition_is_cheaper(
    prices: list[str], egress: list[str], there: list[bool], cap: str | None
) -> None:
    """Where only the price counts, what is found costs as little as the cheapest of all ways that keep the cap."""
    requirements = Requirements(price_cap=None if cap is None else Decimal(cap))
    call = called(TRIO.model_copy(update={"requirements": requirements}))
    parts: list[dict[str, Answer]] = []
    for p, each in enumerate(part_calls(call)):
        bids = {v: bid(each, v, prices[3 * p + i], egress=egress[i]) for i, v in enumerate(VENDORS)}
        parts.append({v: found for i, (v, found) in enumerate(bids.items()) if there[3 * p + i]})
    ways = []
    for choice in product(*(part.values() for part in parts)):
        places = {name: found for name, found in zip(NAMES, choice, strict=True) if isinstance(found, Offer)}
        month = sum((o.price.per_month for o in places.values()), traffic_cost(call.flows, places))
        if len({o.vendor for o in places.values()}) > 1 and (cap is None or month <= Decimal(cap)):
            ways.append(month)
    comparison = compared(call, {}, *parts, weights=ONLY_PRICE)
    assert [row.monthly_cost for row in comparison.rows if row.composition] == ([min(ways)] if ways else [])


@given(
    st.lists(st.sampled_from(["0.01", "0.02", "0.05"]), min_size=9, max_size=9),
    st.lists(st.sampled_from(["99", "99.9", "99.99"]), min_size=3, max_size=3),
    st.lists(st.sampled_from(["0.01", "0.1", "1"]), min_size=3, max_size=3),
)
def test_no_other_composition_is_better(prices: list[str], available: list[str], egress: list[str]) -> None:
    """With the usual weights no other way is worth more, beside the offers for the whole, than what is found."""
    call = called(TRIO)
    how = [{"availability": available[i], "egress": egress[i]} for i in range(3)]
    whole = {v: bid(call, v, "0.06", **how[i]) for i, v in enumerate(VENDORS)}
    parts = [
        {v: bid(each, v, prices[3 * p + i], **how[i]) for i, v in enumerate(VENDORS)}
        for p, each in enumerate(part_calls(call))
    ]

    def worth(month: Decimal, chosen: tuple[Offer, ...]) -> float:
        down = {o.vendor: 100 - (o.availability() or Decimal(0)) for o in chosen}
        best_down = min(100 - (o.availability() or Decimal(0)) for o in whole.values())
        best_month = min(o.price.per_month for o in whole.values())
        dearest, cheapest = max(o.price.egress_per_gib for o in chosen), min(map(Decimal, egress))
        return float(6 * min(best_month / month, 10) + 3 * min(best_down / sum(down.values()), 10) + cheapest / dearest)

    def month_of(chosen: tuple[Offer, ...]) -> Decimal:
        places = dict(zip(NAMES, chosen, strict=True))
        return sum((o.price.per_month for o in chosen), traffic_cost(call.flows, places))

    ways = [choice for choice in product(*(part.values() for part in parts)) if len({o.vendor for o in choice}) > 1]
    best = max(worth(month_of(choice), choice) for choice in ways)
    found = composition_in(compared(call, dict(whole), *[dict(part) for part in parts]))
    assert found is not None
    assert worth(month_of(found.offers), found.offers) == pytest.approx(best, rel=1e-9)


def test_the_search_ends_however_many_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """With very many ways the best so far is taken, and it is said that not all were looked at."""
    monkeypatch.setattr(placement, "MOST_STEPS", 10)
    found = composition_in(pair())
    assert found is not None
    call = called(TRIO)
    vendors = [f"v{n}" for n in range(9)]
    parts: list[dict[str, Answer]] = [
        {v: bid(each, v, f"0.0{n + 1}") for n, v in enumerate(vendors)} for each in part_calls(call)
    ]
    found = composition_in(compared(call, {}, *parts))
    assert found is None or not found.proven


def test_a_composition_is_weighed_anew_with_the_offers() -> None:
    """With other weights the same composition is weighed beside the same offers, with the traffic in its price."""
    requirements = Requirements()
    call = called(PAIR.model_copy(update={"requirements": requirements}))
    first = pair()
    again = weighed_anew(first, call, {}, weights_of(requirements))
    assert again == first
    solid = weighed_anew(
        first, call, {}, weights_of(requirements, [Weight(attribute="availability", value=Decimal(9))])
    )
    assert [row.name for row in solid.rows] == ["a", "b", "a + b"]
    assert solid.rows[2].monthly_cost == first.rows[0].monthly_cost
