"""The cloud's memory: one SQLite file. Every method is one small, durable transaction.

It is used from the event loop's thread only. What a method does happens as a whole before anything else does, which is
what makes idempotency keys hold under concurrent calls.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from vendor_modules.testbed.errors import not_found
from vendor_modules.testbed.records import Record

R = TypeVar("R", bound=Record)

_SCHEMA = """
CREATE TABLE IF NOT EXISTS settings (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS resources (
    place INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, id TEXT NOT NULL UNIQUE, key TEXT,
    record TEXT NOT NULL, UNIQUE (kind, key)
);
CREATE TABLE IF NOT EXISTS objects (
    bucket TEXT NOT NULL, name TEXT NOT NULL, file TEXT NOT NULL, size INTEGER NOT NULL, content_type TEXT NOT NULL,
    modified TEXT NOT NULL, PRIMARY KEY (bucket, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS meters (
    place INTEGER PRIMARY KEY AUTOINCREMENT, resource TEXT NOT NULL, kind TEXT NOT NULL, unit TEXT NOT NULL,
    started TEXT NOT NULL, ended TEXT, quantity REAL NOT NULL, level REAL NOT NULL, since TEXT NOT NULL,
    price TEXT NOT NULL
);
"""


@dataclass(frozen=True)
class StoredObject:
    """One object of a bucket: its data is in ``file``, a name below the bucket's folder."""

    bucket: str
    name: str
    file: str
    size: int
    content_type: str
    modified: datetime


@dataclass(frozen=True)
class Meter:
    """Something that is used. ``level`` is how much of it, in units an hour, since ``since``; ``quantity`` is what was
    used up to then."""

    place: int
    resource: str
    kind: str
    unit: str
    started: datetime
    ended: datetime | None
    quantity: float
    level: float
    since: datetime
    price: str


class Store:
    """See the module."""

    def __init__(self, file: Path) -> None:
        file.touch(mode=0o600)
        self._db = sqlite3.connect(file, isolation_level=None)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.executescript(_SCHEMA)

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def together(self) -> Iterator[None]:
        """Make what is written inside one transaction. There must be no ``await`` inside."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self._db.execute("ROLLBACK")
            raise
        self._db.execute("COMMIT")

    # --- settings ---

    def setting(self, name: str) -> str | None:
        """A remembered value; None if there is none."""
        row = self._db.execute("SELECT value FROM settings WHERE name = ?", (name,)).fetchone()
        return str(row[0]) if row else None

    def set_setting(self, name: str, value: str) -> None:
        """Remember a value."""
        self._db.execute("INSERT OR REPLACE INTO settings VALUES (?, ?)", (name, value))

    # --- resources ---

    def add(self, record: Record) -> None:
        """Remember a new resource."""
        self._db.execute(
            "INSERT INTO resources (kind, id, key, record) VALUES (?, ?, ?, ?)",
            (record.kind, record.id, record.key or None, record.model_dump_json()),
        )

    def put(self, record: R) -> R:
        """Remember a resource as it is now; gives it back."""
        self._db.execute("UPDATE resources SET record = ? WHERE id = ?", (record.model_dump_json(), record.id))
        return record

    def remove(self, record: Record) -> None:
        """Forget a resource."""
        self._db.execute("DELETE FROM resources WHERE id = ?", (record.id,))

    def find(self, kind: type[R], resource_id: str) -> R | None:
        """The resource; None if there is no such."""
        row = self._db.execute(
            "SELECT record FROM resources WHERE id = ? AND kind = ?", (resource_id, kind.kind)
        ).fetchone()
        return kind.model_validate_json(row[0]) if row else None

    def get(self, kind: type[R], resource_id: str) -> R:
        """The resource; the API's not-found error if there is no such."""
        if found := self.find(kind, resource_id):
            return found
        raise not_found(kind.kind, resource_id)

    def by_key(self, kind: type[R], key: str) -> R | None:
        """The resource made with that idempotency key; None if there is none."""
        row = self._db.execute("SELECT record FROM resources WHERE kind = ? AND key = ?", (kind.kind, key)).fetchone()
        return kind.model_validate_json(row[0]) if row else None

    def all(self, kind: type[R]) -> list[R]:
        """All resources of a kind, in the order they were made."""
        return self.page(kind, -1, 0)[0]

    def page(self, kind: type[R], limit: int, marker: int) -> tuple[list[R], int | None]:
        """So many resources of a kind after the place ``marker``; and the marker of the next page, None at the end."""
        rows = self._db.execute(
            "SELECT place, record FROM resources WHERE kind = ? AND place > ? ORDER BY place LIMIT ?",
            (kind.kind, marker, limit + 1 if limit >= 0 else -1),
        ).fetchall()
        more = 0 <= limit < len(rows)
        shown = rows[:limit] if more else rows
        return [kind.model_validate_json(text) for _, text in shown], (shown[-1][0] if more else None)

    # --- objects ---

    def object(self, bucket: str, name: str) -> StoredObject | None:
        """One object; None if there is no such."""
        row = self._db.execute("SELECT * FROM objects WHERE bucket = ? AND name = ?", (bucket, name)).fetchone()
        return _object(row) if row else None

    def objects(self, bucket: str, *, limit: int = -1, after: str = "", prefix: str = "") -> list[StoredObject]:
        """Objects by name: those whose names come after ``after`` and begin with ``prefix``."""
        rows = self._db.execute(
            "SELECT * FROM objects WHERE bucket = ? AND name > ? AND substr(name, 1, ?) = ? ORDER BY name LIMIT ?",
            (bucket, after, len(prefix), prefix, limit),
        )
        return [_object(row) for row in rows]

    def put_object(self, stored: StoredObject) -> None:
        """Remember an object, in place of any of the same name."""
        row = (stored.bucket, stored.name, stored.file, stored.size, stored.content_type, stored.modified.isoformat())
        self._db.execute("INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?, ?)", row)

    def remove_objects(self, bucket: str, name: str | None = None) -> None:
        """Forget one object, or with None all of the bucket's."""
        self._db.execute("DELETE FROM objects WHERE bucket = ?1 AND (?2 IS NULL OR name = ?2)", (bucket, name))

    # --- meters ---

    def meters(self, *, resource: str | None = None, running: bool = False) -> list[Meter]:
        """Meters, oldest first: of one resource only, and running ones only, where asked for."""
        rows = self._db.execute(
            "SELECT * FROM meters WHERE (?1 IS NULL OR resource = ?1) AND (NOT ?2 OR ended IS NULL) ORDER BY place",
            (resource, running),
        )
        return [_meter(row) for row in rows]

    def add_meter(self, resource: str, kind: str, unit: str, level: float, price: str, now: datetime) -> None:
        """Start a meter."""
        moment = now.isoformat()
        self._db.execute(
            "INSERT INTO meters (resource, kind, unit, started, quantity, level, since, price)"
            " VALUES (?, ?, ?, ?, 0, ?, ?, ?)",
            (resource, kind, unit, moment, level, moment, price),
        )

    def put_meter(self, meter: Meter) -> None:
        """Remember a meter as it is now."""
        ended = meter.ended and meter.ended.isoformat()
        self._db.execute(
            "UPDATE meters SET ended = ?, quantity = ?, level = ?, since = ? WHERE place = ?",
            (ended, meter.quantity, meter.level, meter.since.isoformat(), meter.place),
        )


def _object(row: tuple[str, str, str, int, str, str]) -> StoredObject:
    return StoredObject(*row[:5], modified=datetime.fromisoformat(row[5]))


def _meter(row: tuple[int, str, str, str, str, str | None, float, float, str, str]) -> Meter:
    place, resource, kind, unit, started, ended, quantity, level, since, price = row
    return Meter(
        place=place,
        resource=resource,
        kind=kind,
        unit=unit,
        started=datetime.fromisoformat(started),
        ended=datetime.fromisoformat(ended) if ended else None,
        quantity=quantity,
        level=level,
        since=datetime.fromisoformat(since),
        price=price,
    )
