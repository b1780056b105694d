"""Clouds that one runs oneself: they have no price list, so the settings say what they sell, and for how much."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated

from pydantic import Field

from descriptors.application import Label
from descriptors.base import Currency, Money, Quantity
from vendor_modules.module import ModuleSettings
from vendor_modules.resources import Catalogue, Size


class PrivateCloudSettings(ModuleSettings):
    """What a private cloud sells. Prices that are not given are unknown, and then nothing is offered."""

    region: Label = "local"
    """Where it stands, in a word of yours."""
    jurisdiction: Label = "EU"
    """Whose law holds there."""
    currency: Currency = "EUR"
    """Of all prices: three letters (ISO 4217)."""
    sizes: Annotated[tuple[Size, ...], Field(min_length=1)] = (
        Size(name="small", cores=1, memory_mib=512, price_per_hour=None),
        Size(name="medium", cores=2, memory_mib=2048, price_per_hour=None),
        Size(name="large", cores=4, memory_mib=8192, price_per_hour=None),
    )
    """The sizes of machines: name, cores, memory in MiB, and the price of an hour."""
    block_gib_month: Money | None = None
    """The price of a GiB of volumes for a month; None: volumes are not offered."""
    egress_per_gib: Money = Decimal(0)
    """The price of a GiB that leaves it."""
    carbon_g_per_kwh: Quantity | None = None
    """Grams of CO2 for a kilowatt-hour of its power; None: not known."""

    def catalogue(self) -> Catalogue:
        """All of it, as modules tell it."""
        shared = Catalogue.model_fields.keys() & PrivateCloudSettings.model_fields.keys()
        return Catalogue(**{name: getattr(self, name) for name in shared})

    def size(self, name: str) -> Size | None:
        """The size of that name."""
        return next((size for size in self.sizes if size.name == name), None)

    def size_of(self, cores: int, memory_mib: int) -> str:
        """What a machine of so many cores and so much memory is called that was not made by the agency."""
        named = (size.name for size in self.sizes if (size.cores, size.memory_mib) == (cores, memory_mib))
        return next(named, f"{cores}-cores-{memory_mib}-mib")
