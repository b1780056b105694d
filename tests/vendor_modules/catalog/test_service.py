"""The prices service that modules are given."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from vendor_modules.catalog import Catalog
from vendor_modules.errors import Unavailable
from vendor_modules.services.prices import CataloguePrices, NoPrices, Prices


async def test_a_module_asks_the_catalogue(whole: Path) -> None:
    """The service answers what the catalogue answers, also when many ask at once."""
    prices: Prices = CataloguePrices(whole)
    catalogue = Catalog(whole)
    answers = await asyncio.gather(*(prices.price("ec2", "eu-west-1", "c5.xlarge") for _ in range(20)))
    assert answers == [catalogue.price("ec2", "eu-west-1", "c5.xlarge")] * 20
    assert answers[0]
    assert (answers[0].source, answers[0].date) == ("libcloud/data/pricing.json", "2025-03-02")
    assert await prices.sizes("gce", "europe-west1") == catalogue.sizes("gce", "europe-west1")
    assert await prices.price("ec2", "eu-west-1", "m5.tiny") is None


async def test_an_update_is_seen(small: Catalog, table: Callable[..., Path]) -> None:
    """A service that has answered before sees the prices that somebody updates meanwhile."""
    prices = CataloguePrices(small._storage.folder)
    assert await prices.price("acme", "north", "s1") is None
    small.update(table())
    assert await prices.price("acme", "north", "s1")


async def test_a_catalogue_that_cannot_be_used(tmp_path: Path) -> None:
    """The catalogue's own errors come out as one of the Vendor Modules' tree."""
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable, match=r"prices: sizes: the price catalogue in .* cannot be used"):
        await CataloguePrices(tmp_path / "file").sizes("ec2", "eu-west-1")


async def test_no_prices() -> None:
    """Where there is no catalogue, nothing has a price."""
    prices: Prices = NoPrices()
    assert await prices.price("ec2", "eu-west-1", "c5.xlarge") is None
    assert await prices.sizes("ec2", "eu-west-1") == []
