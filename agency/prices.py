"""What the price commands print, as JSON and on a terminal. Imports nothing slow, not even Rich, whose tables take a
fifth of the time that an answer may take."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vendor_modules.catalog import Answer, Price, Updated

Json = dict[str, Any]

_COLUMNS = ("provider", "region", "law", "size", "os", "cores", "GiB", "per hour")
_NUMBERS = frozenset({"cores", "GiB", "per hour"})


def mib(gib: float) -> int:
    """GiB in MiB, rounded up."""
    return math.ceil(gib * 1024)


def as_json(answer: Answer) -> Json:
    """The answer to a search. Prices are text, so that they stay exact; what is not known is null."""
    return {"found": answer.found, "prices": [_row(price) for price in answer.prices]}


def _row(price: Price) -> Json:
    row = price._asdict()
    per_hour = row.pop("per_hour")
    return {**row, "price_per_hour": None if per_hour is None else f"{per_hour:f}"}


def lines(answer: Json) -> Iterator[str]:
    """The prices found as a table, how many there are in all, and where they are from."""
    rows = answer["prices"]
    yield f"{len(rows)} of {answer['found']} machines that fit:"
    table = [_COLUMNS, *(_cells(row) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for cells in table:
        padded = (
            cell.rjust(width) if name in _NUMBERS else cell.ljust(width)
            for name, cell, width in zip(_COLUMNS, cells, widths, strict=True)
        )
        yield f"  {'  '.join(padded)}".rstrip()
    for source, date in sorted({(row["source"], row["date"]) for row in rows}):
        yield f"From {_printable(source)}, {date}."
    if len({row["currency"] for row in rows}) > 1:
        yield "Prices in different currencies are compared by their numbers: nothing is converted."


def _cells(row: Json) -> tuple[str, ...]:
    names = (_printable(row[name] or "") for name in ("provider", "region", "jurisdiction", "size", "os"))
    cores = "" if row["cores"] is None else str(row["cores"])
    gib = "" if row["memory_mib"] is None else f"{round(row['memory_mib'] / 1024, 2):g}"
    cost = "unknown" if row["price_per_hour"] is None else f"{row['price_per_hour']} {row['currency']}"
    return (*names, cores, gib, f"{cost}, preemptible" if row["preemptible"] else cost)


def _printable(text: str) -> str:
    """A user's file may say anything: nothing of it controls the terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)


def updated_as_json(file: str, updated: Updated) -> Json:
    """What an update brought."""
    return {"file": file, **updated._asdict()}


def updated_lines(answer: Json) -> Iterator[str]:
    """What an update brought, in words."""
    for provider, count in answer["providers"].items():
        yield f"{_printable(provider)} has {count} price{'s' * (count != 1)} now, from {_printable(answer['file'])}."
    if answer["unknown"]:
        yield f"{answer['unknown']} of them are unknown (0 or empty)."
