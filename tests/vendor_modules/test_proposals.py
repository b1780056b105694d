"""Proposals: an offer covers everything that was asked for; a refusal names everything that is lacking."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from descriptors import documents
from descriptors.cfp import CallForProposals
from descriptors.resources import ResourceClass, ResourceType
from descriptors.sla import HOURS_PER_MONTH, Offer, Refusal
from vendor_modules.proposals import MACHINE_DISK, propose
from vendor_modules.resources import Catalogue, Size

NOW = datetime(2026, 11, 1, tzinfo=UTC)
PRICES = st.decimals(0, 100, places=6)
Purpose = Literal["deployment", "relocation"]


def _call(*resources: ResourceClass, purpose: Purpose = "deployment") -> CallForProposals:
    return CallForProposals(
        id="cfp-1",
        application="notes",
        purpose=purpose,
        issued=NOW,
        reply_by=NOW + timedelta(seconds=5),
        resources=resources,
    )


def _catalogue(*sizes: Size, block: str | None = "0.1", objects: str | None = "0.02") -> Catalogue:
    return Catalogue(
        region="desk-1",
        jurisdiction="EU",
        currency="EUR",
        sizes=sizes or (_size("small", 1, 512, "0.01"), _size("large", 4, 8192, "0.15")),
        block_gib_month=None if block is None else Decimal(block),
        object_gib_month=None if objects is None else Decimal(objects),
    )


def _size(name: str, cores: int, memory: int, price: str) -> Size:
    return Size(name=name, cores=cores, memory_mib=memory, price_per_hour=Decimal(price))


def _machine(name: str = "web", cores: int | None = 1, memory: int | None = None) -> ResourceClass:
    return ResourceClass(name=name, type=ResourceType.COMPUTE, cores=cores, memory_mib=memory)


def _volume(size_mib: int = 1024, fallback: Literal["machine-disk"] | None = None) -> ResourceClass:
    return ResourceClass(name="data", type=ResourceType.STORAGE, kind="block", size_mib=size_mib, fallback=fallback)


def _offer(answer: Offer | Refusal) -> Offer:
    assert isinstance(answer, Offer)
    return answer


def _refusal(answer: Offer | Refusal) -> Refusal:
    assert isinstance(answer, Refusal)
    return answer


sizes = st.builds(
    Size,
    name=st.from_regex(r"[a-z]{1,8}", fullmatch=True),
    cores=st.integers(1, 64),
    memory_mib=st.integers(1, 65_536),
    price_per_hour=PRICES,
)
catalogues = st.builds(
    Catalogue,
    region=st.just("desk-1"),
    jurisdiction=st.just("EU"),
    currency=st.just("EUR"),
    sizes=st.lists(sizes, max_size=5, unique_by=lambda size: size.name).map(tuple),
    block_gib_month=st.none() | PRICES,
    object_gib_month=st.none() | PRICES,
    egress_per_gib=PRICES,
)


@st.composite
def resource_classes(draw: st.DrawFn, name: str) -> ResourceClass:
    """A resource class of any type that makes sense."""
    kind = draw(st.sampled_from(ResourceType))
    if kind is ResourceType.STORAGE and draw(st.booleans()):
        return ResourceClass(name=name, type=kind, kind="object")
    if kind is ResourceType.STORAGE:
        fallback: Literal["machine-disk"] | None = draw(st.sampled_from(["machine-disk", None]))
        return _volume(draw(st.integers(1, 10_000_000)), fallback).model_copy(update={"name": name})
    if kind is ResourceType.COMPUTE:
        cores, memory = draw(st.none() | st.integers(1, 128)), draw(st.none() | st.integers(1, 100_000))
        return _machine(name, cores, memory)
    return ResourceClass(name=name, type=kind)


calls = st.builds(
    lambda resources, purpose: _call(*resources, purpose=purpose),
    st.integers(1, 6).flatmap(lambda count: st.tuples(*(resource_classes(f"r{n}") for n in range(count)))),
    st.sampled_from(["deployment", "relocation"]),
)


def _can(catalogue: Catalogue, call: CallForProposals, resource: ResourceClass) -> bool:
    """Whether the catalogue has it, said in another way than the code under test says it."""
    if resource.type is ResourceType.COMPUTE:
        cores, memory = resource.cores or 1, resource.memory_mib or 0
        return any(cores <= size.cores and memory <= size.memory_mib for size in catalogue.sizes)
    if resource.type is ResourceType.STORAGE and resource.kind == "object":
        return catalogue.object_gib_month is not None
    if resource.type is ResourceType.STORAGE:
        adaptable = resource.fallback is not None and call.purpose == "relocation"
        return catalogue.block_gib_month is not None or adaptable
    return False


@given(catalogue=catalogues, call=calls)
def test_offer_covers_all_and_refusal_names_all(catalogue: Catalogue, call: CallForProposals) -> None:
    """An offer allocates every resource exactly once; otherwise a refusal names exactly those that are lacking."""
    answer = propose("alpha", call, catalogue)
    lacking = [resource.name for resource in call.resources if not _can(catalogue, call, resource)]
    if lacking:
        reasons = _refusal(answer).reasons
        assert [reason.resource for reason in reasons] == lacking
        assert all(reason.message and reason.required for reason in reasons)
    else:
        assert [a.resource for a in _offer(answer).allocations] == [resource.name for resource in call.resources]
    assert (answer.vendor, answer.call) == ("alpha", call.id)


@given(catalogue=catalogues, call=calls)
def test_offers_price_is_the_sum(catalogue: Catalogue, call: CallForProposals) -> None:
    """An offer's price is the sum of its allocations', by the hour and by the month, and never negative."""
    answer = propose("alpha", call, catalogue)
    if isinstance(answer, Offer):
        total = sum((allocation.price_per_hour for allocation in answer.allocations), Decimal(0))
        assert answer.price.per_hour == total >= 0
        assert answer.price.per_month == total * HOURS_PER_MONTH
        assert answer.price.egress_per_gib == catalogue.egress_per_gib


@given(catalogue=catalogues, call=calls)
def test_answers_can_be_sent(catalogue: Catalogue, call: CallForProposals) -> None:
    """Every answer is a document that comes back equal from its JSON form."""
    answer = propose("alpha", call, catalogue)
    assert documents.load(documents.dump(answer, documents.Form.JSON), expect=type(answer)) == answer


def test_cheapest_size_that_fits_is_offered() -> None:
    """Of the sizes that are large enough, the cheapest is offered, not the smallest and not the first."""
    dear, cheap, tiny = _size("dear", 2, 2048, "0.30"), _size("cheap", 8, 8192, "0.20"), _size("tiny", 1, 256, "0.01")
    offer = _offer(propose("alpha", _call(_machine(cores=2, memory=1024)), _catalogue(dear, cheap, tiny)))
    assert offer.allocations[0].size == "cheap"


def test_volume_is_priced_by_its_size() -> None:
    """Block storage costs its GiB by the month, spread over the hours."""
    offer = _offer(propose("alpha", _call(_volume(73 * 1024)), _catalogue(block="0.10")))
    assert offer.price.per_hour == Decimal("0.01")
    assert offer.price.per_month == Decimal("7.3")


@pytest.mark.parametrize(
    ("purpose", "fallback", "offered"),
    [("relocation", "machine-disk", True), ("relocation", None, False), ("deployment", "machine-disk", False)],
)
def test_volume_is_adapted_only_where_it_may(
    purpose: Purpose, fallback: Literal["machine-disk"] | None, offered: bool
) -> None:
    """Without block storage, a volume goes into the machine's disk in a relocation that allows it, at no price."""
    answer = propose("alpha", _call(_volume(fallback=fallback), purpose=purpose), _catalogue(block=None))
    if offered:
        allocation = _offer(answer).allocations[0]
        assert (allocation.size, allocation.price_per_hour) == (MACHINE_DISK, Decimal(0))
    else:
        assert _refusal(answer).reasons[0].code == "no-block-storage"


def test_refusal_says_what_was_needed_and_what_there_is() -> None:
    """A refusal for a machine tells the requirement and the largest size in words."""
    (reason,) = _refusal(propose("alpha", _call(_machine(cores=64, memory=512)), _catalogue())).reasons
    assert (reason.code, reason.required) == ("no-machine-size", "64 cores and 512 MiB")
    assert "the largest has 4 cores and 8192 MiB" in reason.message


def test_offer_expires_as_the_catalogue_says() -> None:
    """An offer is valid for exactly as long as the catalogue says."""
    catalogue = _catalogue().model_copy(update={"offer_validity_seconds": 60})
    offer = _offer(propose("alpha", _call(_machine()), catalogue))
    assert offer.expires - offer.issued == timedelta(seconds=60)
