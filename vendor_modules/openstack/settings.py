"""What the module must be told of a cloud."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Literal

from pydantic import AnyHttpUrl, Field

from descriptors.application import Label
from descriptors.base import Currency, Money
from vendor_modules.module import HttpSettings


class OpenStackSettings(HttpSettings):
    """Where the cloud is, which of its parts to use, and its prices: OpenStack itself knows none."""

    auth_url: AnyHttpUrl
    """The identity service's URL, such as ``https://cloud.example:5000/v3``."""
    project: str | None = None
    """The project's name or id. Application credentials have a project of their own: leave it out with them."""
    user_domain: str = "Default"
    """The name of the user's domain."""
    project_domain: str = "Default"
    """The name of the project's domain."""
    region: Label | None = None
    """The region; needed where the cloud has several."""
    interface: Literal["public", "internal", "admin"] = "public"
    """Which of the cloud's endpoints to use."""
    ca_file: Path | None = None
    """Certificates to trust in place of the usual ones, as for a private cloud with an authority of its own."""
    network: str | None = None
    """The name or id of the network that machines are put into; needed where the project has several."""
    external_network: str | None = None
    """The name or id of the network that public addresses come from; needed where the cloud has several."""
    availability_zone: str | None = None
    """Where machines and volumes are made; the cloud's choice if not given."""
    jurisdiction: Label = "EU"
    """Whose law the cloud is under."""
    currency: Currency = "EUR"
    """Of all prices here."""
    prices: Mapping[str, Money] = Field(default_factory=dict)
    """Price of a machine for an hour, by flavour. A flavour that is not named here may tell its price itself, by the
    extra specification ``cloud-agency:price_per_hour``; else its price is unknown, and it is not offered."""
    block_gib_month: Money | None = None
    """Price of a GiB of volumes for a month; volumes are not offered without one."""
    object_gib_month: Money | None = None
    """Price of a GiB of objects for a month; object storage is not offered without one."""
    egress_per_gib: Money = Decimal(0)
    """Price of a GiB that leaves the cloud."""
