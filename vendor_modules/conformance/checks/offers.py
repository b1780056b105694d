"""What the vendor sells, and how it answers calls for proposals."""

from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

from descriptors.base import new_id, utc_now
from descriptors.cfp import CallForProposals
from descriptors.deployment import Kind
from descriptors.resources import ResourceClass, ResourceType
from descriptors.sla import Offer, Refusal
from vendor_modules.capabilities import ObjectStorage, Volumes
from vendor_modules.conformance.bench import Bench, CheckFailed, cheapest, expect
from vendor_modules.conformance.registry import check
from vendor_modules.errors import Unsupported
from vendor_modules.module import PriceSource
from vendor_modules.resources import Catalogue


@check()
async def catalogue_is_sane(bench: Bench) -> None:
    """The catalogue has machine sizes with different names, cores, memory and prices that are not negative."""
    catalogue = await bench.module.catalogue()
    names = [size.name for size in catalogue.sizes]
    expect(names, "there are no machine sizes")
    expect(len(set(names)) == len(names), f"sizes share names: {names}")
    for size in catalogue.sizes:
        expect(size.cores > 0 and size.memory_mib > 0, f"size {size.name} has no cores or no memory")
        expect(
            size.price_per_hour is None or size.price_per_hour >= 0,
            f"size {size.name} has the negative price {size.price_per_hour}",
        )
    for price in (catalogue.block_gib_month, catalogue.object_gib_month, catalogue.egress_per_gib):
        expect(price is None or price >= 0, f"a price is negative: {price}")


@check()
async def catalogue_agrees_with_capabilities(bench: Bench) -> None:
    """Storage that the catalogue has a price for can be created."""
    catalogue, module = await bench.module.catalogue(), bench.module
    for price, capability, what in (
        (catalogue.block_gib_month, Volumes, "volume"),
        (catalogue.object_gib_month, ObjectStorage, "bucket"),
    ):
        expect(price is None or isinstance(module, capability), f"a {what} has a price, and cannot be created")
        if price is not None:
            await _there(bench, "volume" if what == "volume" else "bucket", price)


async def _there(bench: Bench, kind: Kind, price: Decimal) -> None:
    try:
        await bench.specimen(kind)
    except Unsupported as error:
        raise CheckFailed(f"a {kind} costs {price}, and cannot be created: {error}") from error


@check()
async def catalogue_says_where_and_from_when(bench: Bench) -> None:
    """The catalogue names its region and jurisdiction, and the date of prices that were not asked just now."""
    catalogue = await bench.module.catalogue()
    expect(catalogue.region.strip() and catalogue.jurisdiction.strip(), "region or jurisdiction is empty")
    expect(len(catalogue.currency) == 3, f"the currency is {catalogue.currency!r}")
    old = type(bench.module).prices is PriceSource.CATALOGUE and any(size.price_per_hour for size in catalogue.sizes)
    expect(catalogue.priced or not old, "prices come from the price catalogue, and have no date")


@check()
async def size_to_use_is_sold(bench: Bench) -> None:
    """The size that machines are made of here is in the catalogue."""
    size, names = (await bench.machine_spec()).size, {size.name for size in (await bench.module.catalogue()).sizes}
    expect(size in names, f"{size!r} is not among {sorted(names)[:20]}")


@check()
async def unknown_price_is_refused(bench: Bench) -> None:
    """A machine that only sizes without a known price could serve is refused with ``price-unknown``, never offered for
    nothing."""
    catalogue = await bench.module.catalogue()
    answer = await bench.module.propose(await _call(bench))
    if any(size.price_per_hour is None for size in catalogue.sizes) and isinstance(answer, Refusal):
        codes = {reason.code for reason in answer.reasons}
        expect(codes == {"price-unknown"}, f"the reasons are {codes}")
    if isinstance(answer, Offer):
        prices = {size.name: size.price_per_hour for size in catalogue.sizes}
        unpriced = [a.size for a in answer.allocations if prices.get(a.size) is None]
        expect(not unpriced, f"sizes of unknown price were offered: {unpriced}")


@check()
async def offer_covers_the_call(bench: Bench) -> None:
    """An offer has one allocation for every resource asked for, at a positive price that is their sum."""
    offer = await _offer(bench)
    expect({a.resource for a in offer.allocations} == {"one", "two"}, f"allocations: {offer.allocations}")
    total = sum((allocation.price_per_hour for allocation in offer.allocations), Decimal(0))
    expect(offer.price.per_hour > 0, f"the price is {offer.price.per_hour} an hour")
    expect(offer.price.per_hour == total, f"the price is {offer.price.per_hour}, the allocations cost {total}")
    expect(offer.vendor == bench.subject.vendor, f"the offer is {offer.vendor}'s")


@check()
async def offer_fits_the_catalogue(bench: Bench) -> None:
    """What is offered is what the catalogue sells: sizes that are large enough, region, jurisdiction and currency."""
    catalogue, offer = await bench.module.catalogue(), await _offer(bench)
    sizes = {size.name: size for size in catalogue.sizes}
    for allocation in offer.allocations:
        expect(allocation.size in sizes, f"the size {allocation.size!r} is not in the catalogue")
    terms = (offer.region, offer.jurisdiction, offer.price.currency)
    expect(terms == (catalogue.region, catalogue.jurisdiction, catalogue.currency), f"the offer says {terms}")


@check()
async def offer_is_for_some_time(bench: Bench) -> None:
    """An offer is issued now and expires later, at least a minute from now."""
    offer, now = await _offer(bench), utc_now()
    expect(abs(offer.issued - now) < timedelta(minutes=1), f"issued {offer.issued}, and now it is {now}")
    expect(offer.expires > now + timedelta(minutes=1), f"expires {offer.expires}, and now it is {now}")


@check()
async def offers_are_different(bench: Bench) -> None:
    """Two offers have different ids."""
    expect((await _offer(bench)).id != (await _offer(bench)).id, "two offers have the same id")


@check()
async def offer_is_remembered(bench: Bench) -> None:
    """An offer that was made is found by its id afterwards, through the persistence service."""
    offer = await _offer(bench)
    expect(await bench.persistence.proposal(offer.id) == offer, f"offer {offer.id} was not remembered")


@check()
async def offer_can_be_sent(bench: Bench) -> None:
    """An offer comes back equal from the serialization service."""
    offer, serialization = await _offer(bench), bench.module.services.serialization
    expect(serialization.load(serialization.dump(offer), Offer) == offer, "the offer came back changed")


@check()
async def refusal_names_every_lack(bench: Bench) -> None:
    """What the vendor cannot give is refused with a reason for each such resource, in words."""
    huge = ResourceClass(name="huge", type=ResourceType.COMPUTE, cores=4096, memory_mib=2**40)
    strange = ResourceClass(name="strange", type=ResourceType.MAP_REDUCE)
    answer = await bench.module.propose(await _call(bench, huge, strange))
    if not isinstance(answer, Refusal):
        expect(False, f"4096 cores and a map-reduce service were offered: {answer.allocations}")
        return
    # what it has, but knows no price of, it cannot offer either
    named = {reason.resource for reason in answer.reasons if reason.code != "price-unknown"}
    expect(named == {"huge", "strange"}, f"reasons are given for {named}, expected huge and strange")
    expect(all(reason.message.strip() for reason in answer.reasons), "a reason has no words")


async def _offer(bench: Bench) -> Offer:
    answer = await bench.module.propose(await _call(bench))
    if isinstance(answer, Offer):
        return answer
    if {reason.code for reason in answer.reasons} == {"price-unknown"}:
        raise Unsupported("does not tell what its machines cost")
    raise CheckFailed(f"two machines of the cheapest size were refused: {answer.reasons}")


async def _call(bench: Bench, *more: ResourceClass) -> CallForProposals:
    catalogue: Catalogue = await bench.module.catalogue()
    size = cheapest(catalogue)
    machine = {"type": ResourceType.COMPUTE, "cores": size.cores, "memory_mib": size.memory_mib}
    ordinary = [ResourceClass.model_validate({"name": name, **machine}) for name in ("one", "two")]
    issued = utc_now()
    return CallForProposals(
        id=new_id("cfp"),
        application="conformance",
        purpose="deployment",
        issued=issued,
        reply_by=issued + timedelta(minutes=1),
        resources=(*ordinary, *more),
    )
