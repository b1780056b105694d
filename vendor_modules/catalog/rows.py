"""One price as a source tells it, and the exact arithmetic of money. Only the standard library: asking must be fast."""

from __future__ import annotations

from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from typing import NamedTuple

NANO = Decimal("1e-9")
LARGEST = Decimal(10**9)
"""No machine costs as much an hour; what does is a mistake in a file."""


class Row(NamedTuple):
    """A price of a machine size. Text that a source does not tell is empty, a number is None."""

    provider: str
    region: str
    size: str
    os: str
    preemptible: bool
    cores: int | None
    memory_mib: int | None
    nano: int | None
    """Billionths of the currency's unit an hour; None when unknown."""
    currency: str
    date: str
    """ISO date on which the price held."""
    basis: str = ""
    """What the price was computed from, where it was computed."""
    area: str = ""
    jurisdiction: str = ""

    @property
    def identity(self) -> tuple[str, str, str, str, bool]:
        """What there is one price of."""
        return (self.provider, self.region, self.size, self.os, self.preemptible)


class Batch(NamedTuple):
    """All rows of one source; ``digest`` is ``sha256:`` and the hash of its bytes in hexadecimal."""

    source: str
    digest: str
    rows: list[Row]


def to_nano(value: object) -> int | None:
    """A price an hour in billionths, rounded half to even; None for 0, which means unknown. ValueError for what is not
    a number from 0 to 10⁹."""
    if isinstance(value, bool) or not isinstance(value, Decimal | int | str):
        raise ValueError(value)
    try:
        amount = Decimal(value)
    except InvalidOperation:
        raise ValueError(value) from None
    if not (amount.is_finite() and 0 <= amount < LARGEST):
        raise ValueError(value)
    return int(amount.quantize(NANO, ROUND_HALF_EVEN).scaleb(9)) or None


def from_nano(nano: int | None) -> Decimal | None:
    """The price an hour without trailing zeros; None when unknown."""
    if nano is None:
        return None
    amount = Decimal(nano).scaleb(-9).normalize()
    return amount.quantize(Decimal(1)) if amount == amount.to_integral() else amount
