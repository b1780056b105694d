"""Small documents to keep."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Literal

from descriptors.deployment import Deployment
from descriptors.resources import ResourceClass, ResourceType
from descriptors.sla import Allocation, Offer, PriceTerms


def offer(id: str = "offer-1", vendor: str = "alpha", per_hour: str = "0.01") -> Offer:  # noqa: A002
    """An offer for one machine."""
    return Offer(
        id=id,
        call="cfp-1",
        application="notes",
        vendor=vendor,
        issued=datetime(2026, 11, 1, 12, 0, 0, 123456, tzinfo=UTC),
        expires=datetime(2026, 11, 1, 13, tzinfo=UTC),
        region="eu-west",
        jurisdiction="EU",
        price=PriceTerms(currency="EUR", per_hour=Decimal(per_hour), per_month=Decimal("7.3")),
        resources=(ResourceClass(name="machine", type=ResourceType.COMPUTE, cores=1),),
        allocations=(Allocation(resource="machine", size="small", price_per_hour=Decimal(per_hour)),),
        guarantees=(),
    )


def deployment(
    revision: int = 1, status: Literal["running", "stopped"] = "running", application: str = "notes"
) -> Deployment:
    """A deployment without resources."""
    return Deployment(
        id="deployment-1",
        application=application,
        revision=revision,
        changed=datetime(2026, 11, 1, 12, tzinfo=UTC),
        status=status,
        agreements=("agreement-1",),
        resources=(),
        endpoints=(),
    )
