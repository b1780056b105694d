"""Whatever is asked, the answer is what a plain filter over all rows gives."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vendor_modules.catalog import Catalog, NotListed, Price, Query

PROVIDERS = ("ec2", "azure", "gce", "rackspace", "gogrid")
REGIONS = ("eu", "us", "eu-west-1", "westeurope", "europe-west1", "eu-", "us-west-2", "eastus", "e", "australia")

queries = st.builds(
    Query,
    min_cores=st.none() | st.integers(1, 64),
    min_memory_mib=st.none() | st.sampled_from([1, 4096, 16384, 15360, 500000]),
    region=st.none() | st.sampled_from(REGIONS),
    provider=st.none() | st.sampled_from(PROVIDERS),
    os=st.sampled_from([None, "linux", "windows", "rhel", "beos"]),
    preemptible=st.booleans(),
    unknown=st.booleans(),
    sort=st.sampled_from(["price", "cores", "memory"]),
    limit=st.none() | st.integers(0, 200),
)


def _filtered(rows: list[Price], query: Query) -> list[Price]:
    """The answer, worked out slowly; empty where there is no such region."""
    mine = [row for row in rows if query.provider in (None, row.provider)]
    exact = any(row.region == query.region for row in mine)

    def fits(row: Price) -> bool:
        region = row.region or ""
        here = query.region is None or query.region in (region, row.area)
        return (
            (here or (not exact and region.startswith(str(query.region))))
            and (query.min_cores is None or (row.cores or 0) >= query.min_cores)
            and (query.min_memory_mib is None or (row.memory_mib or 0) >= query.min_memory_mib)
            and (query.os is None or row.os in (None, query.os))
            and (query.preemptible or not row.preemptible)
            and (query.unknown or row.per_hour is not None)
        )

    def order(row: Price) -> tuple[object, ...]:
        by = {"price": 0, "cores": row.cores, "memory": row.memory_mib}[query.sort]
        name = (row.provider, row.region or "", row.size, row.os or "", row.preemptible)
        return (row.per_hour is None, by is None, by or 0, row.per_hour or 0, name)

    return sorted((row for row in mine if fits(row)), key=order)


@given(query=queries)
def test_an_answer_is_what_a_filter_over_all_rows_gives(whole: Path, everything: list[Price], query: Query) -> None:
    """Rows, order, limit and count are those of a filter in Python; a region that no row has is refused instead."""
    expected = _filtered(everything, query)
    try:
        answer = Catalog(whole).query(query)
    except NotListed:
        anywhere = Query(region=query.region, provider=query.provider, os=None, preemptible=True, unknown=True)
        assert not _filtered(everything, anywhere)
        return
    assert answer.prices == expected[: query.limit]
    assert answer.found == len(expected)


def test_an_area_is_the_same_at_every_provider(whole: Path) -> None:
    """``eu`` finds the European regions of all three great providers, and no other."""
    found = {(p.provider, p.region) for p in Catalog(whole).query(Query(region="eu", os=None)).prices}
    assert {("ec2", "eu-west-1"), ("azure", "westeurope"), ("gce", "europe-west1")} <= found
    assert {place[1] for place in found} & {"us-east-1", "eastus", "us-central1", "eastasia"} == set()


def test_a_region_named_in_full_is_that_one(whole: Path) -> None:
    """us-west-2 does not find us-west-2-lax-1, whose name begins like it; us-west does."""
    catalogue = Catalog(whole)
    assert {p.region for p in catalogue.query(Query(region="us-west-2", provider="ec2")).prices} == {"us-west-2"}
    begun = {p.region for p in catalogue.query(Query(region="us-west", provider="ec2")).prices}
    assert begun == {"us-west-1", "us-west-2", "us-west-2-lax-1"}


@pytest.mark.parametrize(
    ("query", "words"),
    [
        (Query(region="atlantis"), "'atlantis'"),
        (Query(region=""), "''"),
        (Query(region="eu", provider="gogrid"), "'eu'"),
        (Query(provider="acme"), "'acme'"),
        (Query(region="%"), "'%'"),
    ],
)
def test_what_is_not_listed_is_said(whole: Path, query: Query, words: str) -> None:
    """A misspelt region or provider is an error that names it and says what there is, never an empty answer."""
    with pytest.raises(NotListed, match=words) as caught:
        Catalog(whole).query(query)
    assert caught.value.remedy.startswith("name ")


def test_sizes_of_a_region(whole: Path, everything: list[Price]) -> None:
    """A module gets the sizes that have a price, each once, the cheapest first, with Linux and not preemptible."""
    sizes = Catalog(whole).sizes("ec2", "eu-west-1")
    assert sizes == sorted(
        (p for p in everything if (p.provider, p.region, p.os) == ("ec2", "eu-west-1", "linux") and p.per_hour),
        key=lambda p: (p.per_hour, p.size),
    )
    assert len({p.size for p in sizes}) == len(sizes) > 500
    assert not any(p.preemptible for p in Catalog(whole).sizes("azure", "westeurope"))


def test_the_price_of_a_size(whole: Path) -> None:
    """One size has one price; with another system another; what is unknown is None."""
    catalogue = Catalog(whole)
    linux, rhel = (catalogue.price("ec2", "eu-west-1", "m5.large", os=os) for os in ("linux", "rhel"))
    assert linux
    assert rhel
    assert (linux.os, str(linux.per_hour)) == ("linux", "0.114")
    assert (rhel.os, str(rhel.per_hour)) == ("rhel", "0.136")
    assert catalogue.price("ec2", "ap-northeast-1", "a1.medium") is None, "0.0 in the list"
    assert catalogue.price("ec2", "eu-west-1", "m5.tiny") is None
    assert catalogue.price("acme", "eu-west-1", "m5.large") is None


def test_a_price_of_no_region_counts_for_all(whole: Path) -> None:
    """GoGrid's prices name no region: they are those of every one."""
    price = Catalog(whole).price("gogrid", "us-west-1", "1GB")
    assert price
    assert (str(price.per_hour), price.region) == ("0.19", None)
    assert len(Catalog(whole).sizes("gogrid", "anywhere")) == 7
