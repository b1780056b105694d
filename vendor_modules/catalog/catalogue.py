"""What is asked of the catalogue: the price of one size, the sizes of one region, and a search over everything."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from vendor_modules.catalog.errors import NotListed
from vendor_modules.catalog.rows import from_nano
from vendor_modules.catalog.storage import Storage

T = TypeVar("T")

SORTS = ("price", "cores", "memory")
PLAIN = "linux"
"""The operating system whose price is meant where none is named. Prices whose source tells none count as well: they
are for a machine without licences."""


class Price(NamedTuple):
    """One price of a machine size, and where it is from. What is not known is None."""

    provider: str
    region: str | None
    area: str | None
    jurisdiction: str | None
    size: str
    cores: int | None
    memory_mib: int | None
    per_hour: Decimal | None
    currency: str
    os: str | None
    preemptible: bool
    """Whether the provider may take the machine back at any time."""
    computed_from: str | None
    """How the price was computed, where the source has only the prices of parts."""
    source: str
    """Name of the file that it is from."""
    digest: str
    """``sha256:`` and the hash of that file."""
    date: str
    """ISO date on which it held."""


class Query(NamedTuple):
    """A search. ``region`` is a region, or the beginning of one, or an area such as ``eu``; ``os`` None means any;
    ``sort`` is one of SORTS; ``limit`` None means all. Where cores or memory are asked for, sizes of which they are not
    known are not found."""

    min_cores: int | None = None
    min_memory_mib: int | None = None
    region: str | None = None
    provider: str | None = None
    os: str | None = PLAIN
    preemptible: bool = False
    """Whether such machines are found too."""
    unknown: bool = False
    """Whether rows without a price are found too; they come last."""
    sort: str = "price"
    limit: int | None = None


class Answer(NamedTuple):
    """The rows found, up to the query's limit, and how many there were in all."""

    prices: list[Price]
    found: int


class Updated(NamedTuple):
    """What a given file brought: its digest, and how many rows of each provider; ``unknown`` have no price."""

    digest: str
    providers: dict[str, int]
    unknown: int


_COLUMNS = """p.provider, nullif(p.region, ''), nullif(p.area, ''), nullif(p.jurisdiction, ''), size, cores, memory_mib,
    nano, currency, nullif(os, ''), preemptible, nullif(basis, ''), s.name, s.digest, date"""
_FROM = "FROM prices JOIN places p ON p.id = place JOIN sources s ON s.id = source"
_TIES = "nano, p.provider, p.region, size, os, preemptible"
_ORDERS = {
    "price": f"nano IS NULL, {_TIES}",
    "cores": f"nano IS NULL, cores IS NULL, cores, {_TIES}",
    "memory": f"nano IS NULL, memory_mib IS NULL, memory_mib, {_TIES}",
}


class Catalog:
    """A catalogue in a folder, made there at first use. Its calls block: milliseconds, but a second or two when the
    database has to be made. Each opens a connection of its own, so that any thread may call."""

    def __init__(self, folder: Path) -> None:
        self._storage = Storage(folder)

    @classmethod
    def open(cls, folder: Path) -> Catalog:
        """The catalogue in that folder, ready to be asked. :class:`~vendor_modules.catalog.errors.Unusable` if it can
        be neither read nor made."""
        catalogue = cls(folder)
        with catalogue._storage.reading():
            return catalogue

    def price(self, provider: str, region: str, size: str, *, os: str = PLAIN) -> Price | None:
        """The price of a size in a region, not preemptible; None where it is unknown. A price whose source names no
        region counts for all. Azure's sizes are also known by their API's names: ``Standard_D2_v3``."""
        if provider == "azure":
            size = size.lower().replace("_", "")
        return next(iter(self._listed(provider, region, os, "AND size = ?", (size,))), None)

    def sizes(self, provider: str, region: str, *, os: str = PLAIN) -> list[Price]:
        """The sizes of a region that have a price and are not preemptible, the cheapest first."""
        best: dict[str, Price] = {}
        for price in self._listed(provider, region, os, "", ()):
            best.setdefault(price.size, price)
        return list(best.values())

    def _listed(self, provider: str, region: str, os: str, more: str, values: tuple[str, ...]) -> list[Price]:
        """Prices for the region itself come before those for any, and those for the system before those for none."""
        statement = f"""SELECT {_COLUMNS} {_FROM} WHERE p.provider = ? AND p.region IN (?, '') AND os IN (?, '')
            AND NOT preemptible AND nano IS NOT NULL {more} ORDER BY p.region = '', os = '', nano, size"""
        found = self._asked(
            lambda connection: connection.execute(statement, (provider, region, os, *values)).fetchall()
        )
        return [_price(row) for row in found]

    def query(self, query: Query) -> Answer:
        """Search everything. NotListed if there is no such provider or region."""
        return self._asked(lambda connection: _found(connection, query))

    def update(self, file: Path) -> Updated:
        """Take in a price file: libcloud's JSON or a table (:mod:`~vendor_modules.catalog.table_format`). Its rows
        replace all rows of the providers that it has. BadPriceFile if it is neither, and then nothing has changed."""
        batch = self._storage.take(file)
        providers: dict[str, int] = {}
        for row in batch.rows:
            providers[row.provider] = providers.get(row.provider, 0) + 1
        return Updated(batch.digest, providers, sum(row.nano is None for row in batch.rows))

    def _asked(self, question: Callable[[sqlite3.Connection], T]) -> T:
        try:
            with self._storage.reading() as connection:
                return question(connection)
        except sqlite3.DatabaseError:  # damaged behind its first page
            self._storage.rebuild()
        with self._storage.reading() as connection:
            return question(connection)


def _price(row: tuple[Any, ...]) -> Price:
    price = Price(*row)
    return price._replace(per_hour=from_nano(row[7]), preemptible=bool(price.preemptible))


def _found(connection: sqlite3.Connection, query: Query) -> Answer:
    conditions, values = _conditions(connection, query)
    where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
    (count,) = connection.execute(f"SELECT count(*) FROM prices {where}", values).fetchone()  # noqa: S608 - our own words
    statement = f"SELECT {_COLUMNS} {_FROM} {where} ORDER BY {_ORDERS[query.sort]} LIMIT ?"
    rows = connection.execute(statement, (*values, -1 if query.limit is None else query.limit)).fetchall()
    return Answer([_price(row) for row in rows], count)


def _conditions(connection: sqlite3.Connection, query: Query) -> tuple[list[str], list[Any]]:
    conditions: list[str] = []
    values: list[Any] = []
    for column, least in (("cores", query.min_cores), ("memory_mib", query.min_memory_mib)):
        if least is not None:
            conditions.append(f"{column} >= ?")
            values.append(least)
    if query.os is not None:
        conditions.append("os IN (?, '')")
        values.append(query.os)
    if not query.preemptible:
        conditions.append("NOT preemptible")
    if not query.unknown:
        conditions.append("nano IS NOT NULL")
    if query.provider is not None or query.region is not None:
        places = _places(connection, query.provider, query.region)
        conditions.append(f"place IN ({', '.join(map(str, places))})")
    return conditions, values


def _places(connection: sqlite3.Connection, provider: str | None, region: str | None) -> list[int]:
    """The places meant. A region that is named in full is just that one; the beginning of names is all of them."""
    known = connection.execute("SELECT id, provider, region, area FROM places").fetchall()
    mine = [row for row in known if provider in (None, row[1])]
    if not mine:
        names = ", ".join(sorted({row[1] for row in known}))
        raise NotListed(f"no prices of a provider {provider!r} are known", f"name one of {names}")
    if region is None:
        return [row[0] for row in mine]
    exact = any(row[2] == region for row in mine)
    chosen = [row[0] for row in mine if region in row[2:] or (not exact and row[2].startswith(region))]
    if not (region and chosen):
        areas = ", ".join(sorted({row[3] for row in mine} - {""})) or "none is told"
        remedy = f"name a region, the beginning of one, or an area ({areas})"
        raise NotListed(f"no prices of a region {region!r} are known", remedy)
    return chosen
