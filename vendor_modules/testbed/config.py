"""What a cloud is told when it starts."""

from __future__ import annotations

from decimal import Decimal
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from descriptors.application import Label
from descriptors.base import Currency, Money, Name, Port, Quantity
from descriptors.sla import GuaranteeTerm
from vendor_modules.resources import Catalogue, Size

Count = Annotated[int, Field(ge=0)]
MAX_PAGE = 1000


class Quotas(BaseModel):
    """How much the account may hold."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    machines: Count = 100
    volumes: Count = 200
    volume_mib: Count = 4 * 1024 * 1024
    snapshots: Count = 200
    snapshot_mib: Count = 4 * 1024 * 1024
    images: Count = 200
    image_mib: Count = 1024 * 1024
    addresses: Count = 100
    load_balancers: Count = 100
    buckets: Count = 100
    bucket_mib: Count = 1024 * 1024
    access_keys: Count = 200
    key_pairs: Count = 100
    security_groups: Count = 100


class CloudConfig(BaseModel):
    """A cloud: who it is, what it sells, and how it behaves. ``password`` may be left out once the cloud knows it."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name
    region: Label = "desk-1"
    jurisdiction: Label = "EU"
    currency: Currency = "EUR"
    username: Annotated[str, Field(min_length=1, max_length=255)] = "owner"
    password: SecretStr | None = None
    port: Annotated[int, Field(ge=0, le=65535)] = 0
    """Of the API; 0 chooses one at the first start and keeps it."""

    runtime: Literal["embedded", "qemu", "qemu-kvm"] = "embedded"
    """How machines run: as confined processes, as virtual machines in software, or as accelerated ones."""
    sizes: Annotated[tuple[Size, ...], Field(min_length=1)] = (
        Size(name="small", cores=1, memory_mib=512, price_per_hour=Decimal("0.01")),
        Size(name="medium", cores=2, memory_mib=2048, price_per_hour=Decimal("0.04")),
        Size(name="large", cores=4, memory_mib=8192, price_per_hour=Decimal("0.15")),
    )
    block_gib_month: Money | None = Decimal("0.10")
    """None: the cloud has no block storage."""
    snapshot_gib_month: Money = Decimal("0.05")
    """Of a snapshot's volume, whatever is in it."""
    object_gib_month: Money | None = Decimal("0.02")
    """None: the cloud has no object storage."""
    egress_per_gib: Money = Decimal("0.05")
    carbon_g_per_kwh: Quantity | None = None
    guarantees: tuple[GuaranteeTerm, ...] = ()
    offer_validity_seconds: Annotated[int, Field(gt=0)] = 900
    quotas: Quotas = Quotas()

    latency_ms: Annotated[float, Field(ge=0)] = 0
    """Added to every answer of the API."""
    bandwidth_bytes_per_second: Annotated[int, Field(gt=0)] | None = None
    """Of the line that images come in and go out by; None is no limit."""
    page_size: Annotated[int, Field(ge=1, le=MAX_PAGE)] = 100
    """How many items a page of a list has when no ``limit`` is asked for."""
    token_seconds: Annotated[float, Field(gt=0)] = 3600

    def catalogue(self) -> Catalogue:
        """The part of it that is for sale."""
        shared = Catalogue.model_fields.keys() & type(self).model_fields.keys()
        lacks: tuple[str, ...] = ()
        if self.block_gib_month is None:
            lacks += ("volumes", "attach-detach", "volume-bundle", "snapshots")
        if self.object_gib_month is None:
            lacks += ("object-storage", "objects", "access-keys")
        return Catalogue(**{name: getattr(self, name) for name in shared}, lacks=lacks)


class Ports(BaseModel):
    """Where the cloud answers: the same at every start."""

    model_config = ConfigDict(frozen=True)

    api: Port
    internal_objects: Port
    public_objects: Port
