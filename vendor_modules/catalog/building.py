"""Makes the catalogue's database from its sources. Imported only when one is made: asking must be fast."""

from __future__ import annotations

import hashlib
import sqlite3
from datetime import UTC, datetime
from pathlib import Path

from vendor_modules.catalog import libcloud_format, machine_types, table_format
from vendor_modules.catalog.errors import BadPriceFile
from vendor_modules.catalog.machine_types import Machines
from vendor_modules.catalog.rows import Batch
from vendor_modules.catalog.storage import shipped_files

MOST_BYTES = 256 * 1024 * 1024
"""Of a file that a user gives."""

_TABLES = """
PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; -- a file that is not finished is thrown away; the end flushes it
CREATE TABLE made_from (fingerprint TEXT NOT NULL);
CREATE TABLE sources (id INTEGER PRIMARY KEY, name TEXT NOT NULL, digest TEXT NOT NULL);
CREATE TABLE places (
    id INTEGER PRIMARY KEY, provider TEXT NOT NULL, region TEXT NOT NULL, area TEXT NOT NULL,
    jurisdiction TEXT NOT NULL, UNIQUE (provider, region)
);
CREATE TABLE prices (
    place INTEGER NOT NULL, size TEXT NOT NULL, os TEXT NOT NULL, preemptible INTEGER NOT NULL,
    cores INTEGER, memory_mib INTEGER, nano INTEGER, currency TEXT NOT NULL, basis TEXT NOT NULL, date TEXT NOT NULL,
    source INTEGER NOT NULL, PRIMARY KEY (place, size, os, preemptible)
) WITHOUT ROWID;
"""


def today() -> str:
    """The date in UTC."""
    return datetime.now(UTC).date().isoformat()


def content_of(file: Path) -> bytes:
    """The bytes of a file that a user gives; BadPriceFile if there are none to be had."""
    try:
        if file.stat().st_size > MOST_BYTES:
            raise BadPriceFile(str(file), "", f"has more than {MOST_BYTES} bytes")
        return file.read_bytes()
    except OSError as error:
        raise BadPriceFile(str(file), "", f"cannot be read: {error.strerror or error}") from None


def shipped(prices: Path, types: Path) -> Batch:
    """What libcloud ships."""
    content = prices.read_bytes()
    day = datetime.fromtimestamp(prices.stat().st_mtime, UTC).date().isoformat()
    rows = libcloud_format.Reader("libcloud/data/pricing.json", content, _machines(types)).rows(day)
    return Batch("libcloud/data/pricing.json", _digest(content), rows)


def read(name: str, content: bytes, day: str) -> Batch:
    """The rows of a file given on that day: libcloud's format if it begins like JSON, else a table."""
    if content.lstrip(b"\xef\xbb\xbf \t\r\n").startswith((b"{", b"[")):
        rows = libcloud_format.Reader(name, content, _machines(shipped_files()[1])).rows(day)
    else:
        rows = table_format.Reader(name, content).rows(day)
    return Batch(name, _digest(content), rows)


def _machines(types: Path) -> dict[str, Machines]:
    return {**machine_types.published(), "ec2": machine_types.ec2(types)}


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def owners(batches: list[Batch]) -> dict[str, int]:
    """Whose rows count, by provider: the last batch's that has any of it."""
    return {row.provider: number for number, batch in enumerate(batches) for row in batch.rows}


def write(path: Path, batches: list[Batch], owners: dict[str, int], fingerprint: str) -> None:
    """Write the database in place of whatever is there; OSError if there is no room."""
    path.unlink(missing_ok=True)
    connection = sqlite3.connect(path)
    try:
        _fill(connection, batches, owners, fingerprint)
    except sqlite3.OperationalError as error:
        raise OSError(0, str(error)) from error
    finally:
        connection.close()


def _fill(connection: sqlite3.Connection, batches: list[Batch], owners: dict[str, int], fingerprint: str) -> None:
    connection.executescript(_TABLES)
    connection.execute("INSERT INTO made_from VALUES (?)", (fingerprint,))
    places: dict[tuple[str, str], int] = {}
    for number, batch in enumerate(batches):
        connection.execute("INSERT INTO sources VALUES (?, ?, ?)", (number, batch.source, batch.digest))
        there: dict[int, list[tuple[object, ...]]] = {}
        for row in batch.rows:
            if owners[row.provider] != number:
                continue
            key = (row.provider, row.region)
            place = places.setdefault(key, len(places))
            if place not in there:
                there[place] = []
                values = (place, *key, row.area, row.jurisdiction)
                connection.execute("INSERT INTO places VALUES (?, ?, ?, ?, ?)", values)
            there[place].append((
                place, row.size, row.os, row.preemptible, row.cores, row.memory_mib, row.nano, row.currency, row.basis,
                row.date, number,
            ))  # fmt: skip
        for rows in there.values():
            # in the order of their key they are written several times as fast; sorting little at a time lets others run
            rows.sort(key=lambda row: row[1:4])
            connection.executemany("INSERT INTO prices VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)
    connection.commit()
