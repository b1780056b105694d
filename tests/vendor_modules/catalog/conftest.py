"""A catalogue of everything that libcloud ships, and small ones that are quick to make."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from vendor_modules.catalog import Catalog, Price, Query, building, storage

PRICES: dict[str, Any] = {
    "compute": {
        "ec2_linux": {"m5.large": {"eu-west-1": 0.107, "us-east-1": 0.096}, "c5.large": {"eu-west-1": 0.0}},
        "ec2_windows": {"m5.large": {"eu-west-1": 0.199}},
        "gogrid": {"1GB": 0.19},
    },
    "updated": 1740936978,
}
"""A price list as small as it can be. It is from 2025-03-02."""


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a catalogue of everything; not to be changed."""
    folder = tmp_path_factory.mktemp("whole") / "prices"
    Catalog.open(folder)
    return folder


@pytest.fixture(scope="session")
def everything(whole: Path) -> list[Price]:
    """All rows of that catalogue."""
    return Catalog(whole).query(Query(os=None, preemptible=True, unknown=True)).prices


@pytest.fixture
def shipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The price list that a small catalogue is made from, in the place of libcloud's."""
    prices = tmp_path / "pricing.json"
    prices.write_text(json.dumps(PRICES))
    _, types = storage.shipped_files()
    for module in (storage, building):
        monkeypatch.setattr(module, "shipped_files", lambda: (prices, types))
    return prices


@pytest.fixture
def small(tmp_path: Path, shipped: Path) -> Catalog:
    """A catalogue of that price list."""
    return Catalog.open(tmp_path / "state" / "prices")


@pytest.fixture
def table(tmp_path: Path) -> Callable[..., Path]:
    """Writes a price table, by default of one good row."""

    def write(
        content: str | bytes = "provider,region,size,price_per_hour,currency\nacme,north,s1,0.05,EUR\n",
        name: str = "acme.csv",
    ) -> Path:
        file = tmp_path / name
        file.write_bytes(content if isinstance(content, bytes) else content.encode())
        return file

    return write
