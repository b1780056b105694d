"""What is in the catalogue is what libcloud's price list says, no more and no less."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vendor_modules.catalog import Catalog, Price, storage
from vendor_modules.catalog.places import place
from vendor_modules.catalog.rows import from_nano, to_nano


@pytest.fixture(scope="module")
def listed() -> Any:
    """libcloud's price list as it is, with exact numbers."""
    prices, _ = storage.shipped_files()
    return json.loads(prices.read_text(), parse_float=Decimal)


@pytest.mark.parametrize(
    ("table", "provider", "system", "rows", "unknown"),
    [
        ("ec2_linux", "ec2", "linux", 15589, 2754),
        ("ec2_windows", "ec2", "windows", 11133, 917),
        ("azure_linux", "azure", "linux", 15964, 0),
        ("azure_windows", "azure", "windows", 15885, 0),
    ],
)
def test_every_price_is_there(
    listed: Any, everything: list[Price], table: str, provider: str, system: str, rows: int, unknown: int
) -> None:
    """Every row of the list is in the catalogue with its exact price, those of 0.0 as unknown, and nothing else is."""
    expected = {(s, r): price or None for s, prices in listed["compute"][table].items() for r, price in prices.items()}
    mine = {(p.size, p.region): p.per_hour for p in everything if (p.provider, p.os) == (provider, system)}
    assert mine == expected
    assert (len(mine), list(mine.values()).count(None)) == (rows, unknown)


def test_every_price_has_source_date_and_currency(everything: list[Price]) -> None:
    """Where a price is from, and when it held, is known of every one; and no price is 0."""
    assert {(p.source, p.date, p.currency) for p in everything} == {("libcloud/data/pricing.json", "2025-03-02", "USD")}
    assert {p.digest[:7] for p in everything} == {"sha256:"}
    assert all(p.per_hour is None or p.per_hour > 0 for p in everything)


def test_gce_prices_are_computed_from_their_parts(listed: Any, everything: list[Price]) -> None:
    """A GCE machine costs its cores and its memory, and the row says from what its price was computed."""
    families = listed["compute"]["gce_instances"]
    machines = [p for p in everything if p.provider == "gce" and not p.size.startswith(("f1", "g1"))]
    assert len(machines) > 3000
    for machine in machines:
        assert machine.cores
        assert machine.memory_mib
        terms = "preemptible" if machine.preemptible else "on_demand"
        core, gib = (
            families[machine.size.split("-")[0]][part][terms].get(machine.region, {}).get("price")
            for part in ("cpu", "ram")
        )
        if not core or not gib:
            assert machine.per_hour is None
            continue
        assert machine.per_hour == pytest.approx(
            machine.cores * core + Decimal(machine.memory_mib) / 1024 * gib, abs=Decimal("1e-9")
        )
        assert f"× {core:f} a core" in str(machine.computed_from)


@pytest.mark.parametrize(
    ("size", "price"),
    [("c2-standard-4", "0.2088"), ("n1-standard-4", "0.19"), ("n2-highmem-8", "0.5241"), ("e2-highcpu-2", "0.0495")],
)
def test_gce_prices_are_those_that_google_publishes(whole: Path, size: str, price: str) -> None:
    """What is computed is what Google's price pages said of us-central1."""
    mine = Catalog(whole).price("gce", "us-central1", size)
    assert mine
    assert mine.per_hour == pytest.approx(Decimal(price), abs=Decimal("0.0001"))


@pytest.mark.parametrize(
    ("provider", "region", "size", "cores", "gib"),
    [
        ("ec2", "eu-west-1", "c5.xlarge", 4, 8),
        ("azure", "westeurope", "standardd2v3", 2, 8),
        ("azure", "westeurope", "Standard_D2_v3", 2, 8),
        ("azure", "eastus", "Standard_NC24", 24, 224),
        ("gce", "europe-west1", "n1-standard-4", 4, 15),
    ],
)
def test_cores_and_memory(whole: Path, provider: str, region: str, size: str, cores: int, gib: int) -> None:
    """Sizes have the cores and the memory that their providers publish; Azure's are known by its API's names too."""
    price = Catalog(whole).price(provider, region, size)
    assert price
    assert (price.cores, price.memory_mib) == (cores, gib * 1024)
    assert price.per_hour


def test_what_is_not_published_is_not_guessed(everything: list[Price]) -> None:
    """Dedicated hosts and old providers' sizes have no cores; most of EC2 and nearly all of Azure and GCE have."""
    assert {p.cores for p in everything if p.provider == "gogrid" or p.size in ("c5", "m5.metal")} == {None}
    known = {
        provider: sum(p.cores is not None for p in rows) / len(rows)
        for provider in ("ec2", "azure", "gce")
        if (rows := [p for p in everything if p.provider == provider])
    }
    assert known["ec2"] > 0.8
    assert known["azure"] > 0.98
    assert known["gce"] == 1


def test_preemptible_machines_are_told_apart(everything: list[Price]) -> None:
    """Azure's low priority and GCE's preemptible prices are marked, and no other."""
    marked = {p.provider for p in everything if p.preemptible}
    assert marked == {"azure", "gce"}
    assert all(p.preemptible == p.size.startswith("lowpriority") for p in everything if p.provider == "azure")


def test_every_region_of_the_great_three_is_somewhere(everything: list[Price]) -> None:
    """Every region of EC2, Azure and GCE has an area and a jurisdiction."""
    nowhere = {
        (p.provider, p.region) for p in everything if p.provider in ("ec2", "azure", "gce") and not p.jurisdiction
    }
    assert nowhere == set()


@pytest.mark.parametrize(
    ("provider", "region", "where"),
    [
        ("ec2", "eu-west-1", ("eu", "EU")),
        ("ec2", "eu-west-2", ("eu", "GB")),
        ("ec2", "us-gov-west-1", ("us", "US")),
        ("ec2", "us-west-2-lax-1", ("us", "US")),
        ("ec2", "eu-west-99", ("eu", "")),
        ("azure", "westeurope", ("eu", "EU")),
        ("azure", "southeastasia", ("ap", "SG")),
        ("azure", "eastasia", ("ap", "HK")),
        ("azure", "northcentralus", ("us", "US")),
        ("azure", "eastus2", ("us", "US")),
        ("azure", "switzerlandnorth", ("eu", "CH")),
        ("gce", "europe-west1", ("eu", "EU")),
        ("gce", "australia-southeast1", ("ap", "AU")),
        ("gce", "us-east4", ("us", "US")),
        ("gce", "europe-west99", ("", "")),
        ("rackspace", "lon", ("eu", "GB")),
        ("acme", "eu-west-1", ("", "")),
    ],
)
def test_places(provider: str, region: str, where: tuple[str, str]) -> None:
    """A region's area and jurisdiction follow from its name where they are known, and are not guessed elsewhere."""
    assert place(provider, region) == where


@given(st.decimals(min_value=0, max_value=10**6, places=9))
def test_money_is_exact(amount: Decimal) -> None:
    """A price comes back as it went in; 0 comes back as unknown."""
    assert from_nano(to_nano(amount)) == (amount or None)
    assert from_nano(to_nano(str(amount))) == (amount or None)


@pytest.mark.parametrize("value", ["-1", "NaN", "Infinity", "1e10", "", "free", None, True, [], 0.1], ids=repr)
def test_what_is_no_price_is_refused(value: object) -> None:
    """A price is a number from 0, and no binary float."""
    with pytest.raises(ValueError, match=r".*"):
        to_nano(value)
