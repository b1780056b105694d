"""Reads libcloud's ``pricing.json``: ``{"compute": {TABLE: {SIZE: PRICE or {REGION: PRICE}}}, "updated": EPOCH}``.

A table's name says whose prices it has, and for which operating system or region: ``ec2_linux``, ``cloudsigma_zrh``.
``gce_instances`` is laid out differently: ``{FAMILY: {"cpu" or "ram": {TERMS: {REGION: {"price": PRICE}}}}}``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple, NoReturn

from vendor_modules.catalog.errors import BadPriceFile
from vendor_modules.catalog.machine_types import AZURE_TIERS, Machines, azure_name
from vendor_modules.catalog.places import place
from vendor_modules.catalog.rows import Row, from_nano, to_nano

CURRENCY = "USD"
_SYSTEMS = {"linux": "linux", "windows": "windows", "rhel": "rhel", "rhel_ha": "rhel-ha", "suse": "suse"}
_REGIONS = {
    "rackspacenovaus": ("rackspace", ("dfw", "iad", "ord", "hkg")),  # as libcloud's driver assigns them
    "rackspacenovalon": ("rackspace", ("lon",)),
    "rackspacenovasyd": ("rackspace", ("syd",)),
    "cloudsigma_zrh": ("cloudsigma", ("zrh",)),
    "cloudsigma_lvs": ("cloudsigma", ("lvs",)),
}
_OUTSCALE = re.compile(r"osc_(inc|sas)_(\w+)")
_NOT_MACHINES = ("gce_disks", "gce_images")
_EXPECTED = "a number from 0 to 10⁹ is expected"
_GCE_TERMS = (("on_demand", False), ("preemptible", True))


class _Table(NamedTuple):
    """What a table's name says. Without ``regions`` the table itself tells them, if anything does."""

    provider: str
    os: str = ""
    regions: tuple[str, ...] = ()


class Reader:
    """Reads one file. ``machines`` are the known cores and memory by provider."""

    def __init__(self, file: str, content: bytes, machines: dict[str, Machines]) -> None:
        self._file = file
        self._content = content
        self._machines = machines

    def rows(self, today: str) -> list[Row]:
        """All rows; dated by the file, or ``today`` where it does not say. BadPriceFile if it is not such a file."""
        document = self._document()
        compute = document.get("compute") if isinstance(document, dict) else None
        if not isinstance(compute, dict):
            self._bad("", 'an object with the key "compute" is expected')
        self._date = self._dated(document.get("updated"), today)
        rows: list[Row] = []
        for name, table in compute.items():
            if not isinstance(table, dict):
                self._bad(f"compute.{name}", "an object of sizes is expected")
            rows += self._gce(table) if name == "gce_instances" else self._table(name, table)
        if not rows:
            self._bad("compute", "there are no prices in it")
        return rows

    def _document(self) -> Any:
        try:
            return json.loads(self._content, parse_float=_exact, parse_constant=lambda _: self._bad("", _EXPECTED))
        except json.JSONDecodeError as error:
            self._bad(f"line {error.lineno}, column {error.colno}", f"is not JSON: {error.msg}")
        except UnicodeDecodeError as error:
            self._bad(f"byte {error.start}", "is not UTF-8 text")
        except RecursionError:
            self._bad("", "is nested too deeply")
        except ValueError:  # Python refuses whole numbers of thousands of digits
            self._bad("", _EXPECTED)

    def _dated(self, updated: object, today: str) -> str:
        if updated is None:
            return today
        try:
            return str(datetime.fromtimestamp(int(str(updated)), UTC).date())
        except (ValueError, OverflowError, OSError):
            self._bad("updated", "seconds since 1970 are expected")

    def _table(self, name: str, table: dict[str, Any]) -> Iterator[Row]:
        kind = _kind(name)
        if kind is None:
            return
        for size, prices in table.items():
            where = f'compute.{name}["{size}"]'
            if isinstance(prices, dict):
                for region, price in prices.items():
                    yield self._row(kind, region, size, self._nano(price, f'{where}["{region}"]'))
            else:
                nano = self._nano(prices, where)
                for region in kind.regions or ("",):
                    yield self._row(kind, region, size, nano)

    def _row(self, kind: _Table, region: str, size: str, nano: int | None) -> Row:
        provider = kind.provider
        known = self._machines.get(provider, {})
        cores, memory = known.get(azure_name(size) if provider == "azure" else size, (None, None))
        preemptible = provider == "azure" and size.startswith(AZURE_TIERS[0])
        area, jurisdiction = place(provider, region)
        return Row(
            provider, region, size, kind.os, preemptible, cores, memory, nano, CURRENCY, self._date,
            area=area, jurisdiction=jurisdiction,
        )  # fmt: skip

    def _gce(self, families: dict[str, Any]) -> Iterator[Row]:
        """Predefined types: cores times the price of a core, plus GiB times the price of one; f1 and g1 have one price
        for the whole machine, which the list keeps under ``cpu``."""
        for size, (cores, memory) in self._machines.get("gce", {}).items():
            family = size.split("-")[0]
            for terms, preemptible in _GCE_TERMS:
                core_prices = self._gce_prices(families, family, "cpu", terms)
                gib_prices = self._gce_prices(families, family, "ram", terms)
                for region, core in core_prices.items():
                    gib = gib_prices.get(region)
                    try:
                        nano, basis = _gce_price(family, core, gib, cores, memory)
                    except ValueError:
                        self._bad(f'compute.gce_instances.{family} in "{region}"', _EXPECTED)
                    area, jurisdiction = place("gce", region)
                    yield Row(
                        "gce", region, size, "", preemptible, cores, memory, nano, CURRENCY, self._date,
                        basis, area, jurisdiction,
                    )  # fmt: skip

    def _gce_prices(self, families: dict[str, Any], family: str, part: str, terms: str) -> dict[str, int | None]:
        where = f"compute.gce_instances.{family}.{part}.{terms}"
        prices: Any = families
        for key in (family, part, terms):
            prices = prices.get(key, {})
            if not isinstance(prices, dict):
                self._bad(where, "an object is expected at every step of it")
        if not all(isinstance(entry, dict) for entry in prices.values()):
            self._bad(where, 'objects with the key "price" are expected')
        return {
            region: self._nano(entry.get("price"), f'{where}["{region}"].price') for region, entry in prices.items()
        }

    def _nano(self, price: object, where: str) -> int | None:
        try:
            return to_nano(price)
        except ValueError:
            self._bad(where, f"{_EXPECTED}, not {str(price)[:40]!r}")

    def _bad(self, where: str, problem: str) -> NoReturn:
        raise BadPriceFile(self._file, where, problem)


def _exact(text: str) -> Decimal:
    """What Decimal does; but the parser, in C, lets other threads run only while it is in a function in Python."""
    return Decimal(text)


def _kind(table: str) -> _Table | None:
    """What a table is; None for one that has no machines, or that another supersedes."""
    if table in _NOT_MACHINES:
        return None
    provider, _, rest = table.partition("_")
    if provider in ("ec2", "azure"):
        return _Table(provider, _SYSTEMS[rest]) if rest in _SYSTEMS else None
    if table in _REGIONS:
        name, regions = _REGIONS[table]
        return _Table(name, regions=regions)
    if match := _OUTSCALE.fullmatch(table):
        return _Table(f"outscale-{match[1]}", regions=(match[2].replace("_", "-"),))
    return _Table({"rackspace": "rackspace-first-gen"}.get(table, table.replace("_", "-")))


def _gce_price(family: str, core: int | None, gib: int | None, cores: int, memory: int) -> tuple[int | None, str]:
    """The price in billionths and what it was computed from; unknown if a part of it is."""
    if family in ("f1", "g1"):
        return core, "the price of the whole machine"
    if core is None or gib is None:
        return None, ""
    price = core * cores + Decimal(gib) * memory / 1024
    basis = f"{cores} × {from_nano(core)} a core + {Decimal(memory) / 1024:f} × {from_nano(gib)} a GiB"
    return to_nano(price.scaleb(-9)), basis
