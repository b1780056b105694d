"""Reads a price table that a user gives: CSV in UTF-8 with a header. Needed are ``provider``, ``region``, ``size``,
``price_per_hour`` and ``currency``; ``os``, ``cores``, ``memory_mib``, ``preemptible`` (true or false), ``area``,
``jurisdiction`` and ``date`` may be there. An empty price, or 0, is unknown.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Sequence
from datetime import date
from typing import NoReturn, TypeVar

from vendor_modules.catalog.errors import BadPriceFile
from vendor_modules.catalog.places import place
from vendor_modules.catalog.rows import Row, to_nano

NEEDED = ("provider", "region", "size", "price_per_hour", "currency")
OPTIONAL = ("os", "cores", "memory_mib", "preemptible", "area", "jurisdiction", "date")
_CURRENCY = re.compile(r"[A-Z]{3}")
_COUNT = re.compile(r"[1-9][0-9]{0,8}")
_FLAGS = {"": False, "false": False, "true": True}
T = TypeVar("T")


class Reader:
    """Reads one file."""

    def __init__(self, file: str, content: bytes) -> None:
        self._file = file
        self._content = content
        self._line = 0

    def rows(self, today: str) -> list[Row]:
        """All rows; those without a date are dated ``today``. BadPriceFile if it is not such a table."""
        try:
            text = self._content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            self._line = self._content[: error.start].count(b"\n") + 1
            self._bad("", "is not UTF-8 text")
        reader = csv.DictReader(text.splitlines(keepends=True), strict=True)
        rows: list[Row] = []
        lines: dict[tuple[object, ...], int] = {}
        try:
            self._check_header(reader.fieldnames or ())
            for record in reader:
                self._line = reader.line_num
                row = self._row(record, today)
                if (before := lines.setdefault(row.identity, self._line)) != self._line:
                    self._bad("", f"says again what line {before} says: the same provider, region, size and os")
                rows.append(row)
        except csv.Error as error:
            self._line = reader.line_num
            self._bad("", f"is not CSV: {error}")
        if not rows:
            self._bad("", "there are no prices in it")
        self._check_places(rows)
        return rows

    def _check_header(self, names: Sequence[str]) -> None:
        self._line = 1
        expected = f"the columns {', '.join(NEEDED)} are needed, and {', '.join(OPTIONAL)} may be there"
        for name in NEEDED:
            if name not in names:
                self._bad(name, f"is missing; {expected}")
        for name in names:
            if name not in NEEDED + OPTIONAL:
                self._bad(str(name)[:40], f"is no column of ours; {expected}")
        if len(set(names)) != len(names):
            self._bad("", "a column is there twice")

    def _row(self, record: dict[str, str], today: str) -> Row:
        if None in record or None in record.values():
            self._bad("", "has not as many fields as the header")
        field = {name: value.strip() for name, value in record.items()}
        for name in ("provider", "size"):
            if not field[name]:
                self._bad(name, "is empty")
        area, jurisdiction = place(field["provider"], field["region"])
        return Row(
            field["provider"], field["region"], field["size"], field.get("os", ""),
            self._read(field, "preemptible", lambda text: _FLAGS[text.lower()], "true or false"),
            self._read(field, "cores", _count, "a whole number from 1"),
            self._read(field, "memory_mib", _count, "a whole number from 1"),
            self._read(field, "price_per_hour", lambda text: to_nano(text or 0), "a number from 0 to 10⁹"),
            self._read(field, "currency", _currency, "three capital letters such as EUR"),
            self._read(field, "date", lambda text: str(date.fromisoformat(text or today)), "YYYY-MM-DD"),
            area=field.get("area") or area, jurisdiction=field.get("jurisdiction") or jurisdiction,
        )  # fmt: skip

    def _read(self, field: dict[str, str], name: str, convert: Callable[[str], T], expected: str) -> T:
        value = field.get(name, "")
        try:
            return convert(value)
        except (ValueError, KeyError):
            self._bad(name, f"{expected} is expected, not {value[:40]!r}")

    def _check_places(self, rows: list[Row]) -> None:
        """A region is in one place."""
        places: dict[tuple[str, str], tuple[str, str]] = {}
        for row in rows:
            self._line = 0
            told = (row.area, row.jurisdiction)
            if places.setdefault((row.provider, row.region), told) != told:
                self._bad("", f"the region {row.region!r} of {row.provider!r} has more than one area or jurisdiction")

    def _bad(self, column: str, problem: str) -> NoReturn:
        where = [f"line {self._line}"] if self._line else []
        raise BadPriceFile(self._file, ", ".join([*where, *([f"column {column}"] if column else [])]), problem)


def _count(text: str) -> int | None:
    if text and not _COUNT.fullmatch(text):
        raise ValueError(text)
    return int(text) if text else None


def _currency(text: str) -> str:
    if not _CURRENCY.fullmatch(text):
        raise ValueError(text)
    return text
