"""What is used and what it costs: machines by the hour, volumes and buckets by GiB-hours, egress by GiB."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from decimal import Decimal

from descriptors.base import utc_now
from descriptors.deployment import Kind
from descriptors.sla import HOURS_PER_MONTH
from vendor_modules.resources import Usage
from vendor_modules.testbed.config import CloudConfig
from vendor_modules.testbed.store import Meter, Store

GIB = 1024**3
_MICRO = Decimal("0.000001")


class UsageMeters:
    """The cloud's meters, kept in its store."""

    def __init__(self, store: Store, config: CloudConfig) -> None:
        self._store = store
        self._config = config

    def machine_started(self, machine_id: str, size: str) -> None:
        """A machine is up: its hours count from now."""
        price = next((s.price_per_hour for s in self._config.sizes if s.name == size), Decimal(0))
        self._store.add_meter(machine_id, "machine", "hours", 1.0, str(price), utc_now())

    def storage(self, resource: str, kind: Kind, size: int, month_price: Decimal | None) -> None:
        """A volume or bucket holds ``size`` bytes from now on."""
        for meter in self._store.meters(resource=resource, running=True):
            if meter.unit == "GiB-hours":
                self._store.put_meter(replace(_read(meter, utc_now()), level=size / GIB))
                return
        price = (month_price or Decimal(0)) / HOURS_PER_MONTH
        self._store.add_meter(resource, kind, "GiB-hours", size / GIB, str(price), utc_now())

    def egress(self, resource: str, kind: Kind, size: int) -> None:
        """So many bytes have left the cloud."""
        for meter in self._store.meters(resource=resource, running=True):
            if meter.unit == "GiB":
                self._store.put_meter(replace(_read(meter, utc_now()), quantity=meter.quantity + size / GIB))
                return
        self._store.add_meter(resource, kind, "GiB", 0.0, str(self._config.egress_per_gib), utc_now())
        self.egress(resource, kind, size)

    def ended(self, resource: str, at: datetime | None = None) -> None:
        """The resource is not used any more since that moment (default: now)."""
        for meter in self._store.meters(resource=resource, running=True):
            moment = max(at or utc_now(), meter.since)
            self._store.put_meter(replace(_read(meter, moment), level=0.0, ended=moment))

    def report(self, since: datetime | None) -> list[Usage]:
        """All usage that had not ended before ``since``, up to now."""
        now = utc_now()
        return [
            self._usage(meter, now)
            for meter in self._store.meters()
            if since is None or meter.ended is None or meter.ended >= since
        ]

    def _usage(self, meter: Meter, now: datetime) -> Usage:
        quantity = Decimal(str(_read(meter, now).quantity))
        return Usage.model_validate(
            {
                "resource": meter.resource,
                "kind": meter.kind,
                "started": meter.started,
                "ended": meter.ended,
                "quantity": quantity.quantize(Decimal("1e-9")),
                "unit": meter.unit,
                "cost": (quantity * Decimal(meter.price)).quantize(_MICRO),
                "currency": self._config.currency,
            }
        )


def _read(meter: Meter, now: datetime) -> Meter:
    """The meter with everything up to ``now`` in its quantity."""
    hours = max((now - meter.since).total_seconds(), 0.0) / 3600
    return replace(meter, quantity=meter.quantity + meter.level * hours, since=max(now, meter.since))
