"""What the cloud sells, what the account may hold, and what it used."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation

from vendor_modules.capabilities import Quotas, UsageReports
from vendor_modules.errors import Unsupported
from vendor_modules.openstack.client import COMPUTE, NETWORK, OBJECTS, STORAGE, Client, Json
from vendor_modules.openstack.cloud import Cloud
from vendor_modules.openstack.compute import size_of
from vendor_modules.openstack.errors import translate
from vendor_modules.resources import Catalogue, Quota, Size, Usage

PRICE = "cloud-agency:price_per_hour"
"""The extra specification by which a flavour tells its price."""
BEGINNING = datetime(2010, 1, 1, tzinfo=UTC)
"""Older than any OpenStack cloud."""
_COMPUTE_LIMITS = (
    ("machines", "maxTotalInstances", "totalInstancesUsed"),
    ("cores", "maxTotalCores", "totalCoresUsed"),
    ("memory-mib", "maxTotalRAMSize", "totalRAMUsed"),
    ("key-pairs", "maxTotalKeypairs", None),
)
_STORAGE_LIMITS = (
    ("volumes", "maxTotalVolumes", "totalVolumesUsed"),
    ("volume-mib", "maxTotalVolumeGigabytes", "totalGigabytesUsed"),
    ("snapshots", "maxTotalSnapshots", "totalSnapshotsUsed"),
)
_NETWORK_LIMITS = (("security-groups", "security_group"), ("addresses", "floatingip"), ("networks", "network"))


class Figures(Cloud, Quotas):
    """What the cloud sells, and the account's limits."""

    async def _catalogue(self) -> Catalogue:
        flavours = await self._run(lambda client: list(client.all(COMPUTE, "/flavors/detail", "flavors")))
        sizes = [
            Size(name=size_of(f), cores=f["vcpus"], memory_mib=f["ram"], price_per_hour=self._price(f))
            for f in flavours
        ]
        return Catalogue(
            region=self.cloud.region or "default",
            jurisdiction=self.cloud.jurisdiction,
            currency=self.cloud.currency,
            sizes=tuple(sizes),
            block_gib_month=self.cloud.block_gib_month,
            object_gib_month=self.cloud.object_gib_month,
            egress_per_gib=self.cloud.egress_per_gib,
        )

    def _price(self, flavour: Json) -> Decimal | None:
        """The price of a machine for an hour; None if nobody tells it, or it is no price."""
        if flavour["name"] in self.cloud.prices:
            return self.cloud.prices[flavour["name"]]
        try:
            told = Decimal((flavour.get("extra_specs") or {}).get(PRICE, ""))
        except InvalidOperation:
            return None
        return told if told.is_finite() and told > 0 else None

    async def _quotas(self) -> list[Quota]:
        def limits(client: Client) -> list[Quota]:
            compute = client.get(COMPUTE, "/limits")["limits"]["absolute"]
            found = [_quota(name, compute.get(limit), compute.get(used or "")) for name, limit, used in _COMPUTE_LIMITS]
            return found + _where_there_is(client, _storage, _network, _buckets)

        return await self._run(limits)


class UsageRecords(Cloud, UsageReports):
    """What machines used."""

    async def _usage(self, since: datetime | None) -> list[Usage]:
        end = datetime.now(UTC)
        start = min(since or BEGINNING, end - timedelta(seconds=1))  # what runs has not ended, whatever the time
        moments = {"start": start.astimezone(UTC), "end": end}
        times = {n: t.replace(tzinfo=None).isoformat(timespec="microseconds") for n, t in moments.items()}

        def used(client: Client) -> list[Json]:
            told = client.get(COMPUTE, f"/os-simple-tenant-usage/{client.project}", params=times | {"detailed": 1})[
                "tenant_usage"
            ]
            return list(told.get("server_usages", ()))

        found = await self._run(used)
        return [self._record(item) for item in found if since is None or _ended_after(item, since)]

    def _record(self, found: Json) -> Usage:
        hours = Decimal(str(found["uptime"])) / 3600
        return Usage(
            resource=found["instance_id"],
            kind="machine",
            started=_time(found["started_at"]),
            ended=_time(found["ended_at"]) if found["ended_at"] else None,
            quantity=hours,
            unit="hours",
            cost=hours * self.cloud.prices.get(found["flavor"], Decimal(0)),
            currency=self.cloud.currency,
        )


def _where_there_is(client: Client, *services: Callable[[Client], list[Quota]]) -> list[Quota]:
    """The limits of services that a cloud need not have."""
    found: list[Quota] = []
    for service in services:
        try:
            found += service(client)
        except Exception as error:
            if not isinstance(translate(error), Unsupported):
                raise
    return found


def _storage(client: Client) -> list[Quota]:
    told = client.get(STORAGE, "/limits")["limits"]["absolute"]
    scale = {"volume-mib": 1024}
    return [_quota(n, told.get(limit), told.get(used), scale.get(n, 1)) for n, limit, used in _STORAGE_LIMITS]


def _network(client: Client) -> list[Quota]:
    told = client.get(NETWORK, f"/quotas/{client.project}/details")["quota"]
    return [_quota(name, told[word]["limit"], told[word]["used"]) for name, word in _NETWORK_LIMITS]


def _buckets(client: Client) -> list[Quota]:
    held = client.call(OBJECTS, "HEAD", "/").headers.get("x-account-container-count")
    return [Quota(resource="buckets", used=None if held is None else int(held))]


def _quota(resource: str, limit: int | None, used: int | None, scale: int = 1) -> Quota:
    """OpenStack writes "no limit" as -1."""
    top = None if limit is None or limit < 0 else limit * scale
    return Quota(resource=resource, limit=top, used=None if used is None else max(used, 0) * scale)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def _ended_after(found: Json, since: datetime) -> bool:
    return not found["ended_at"] or _time(found["ended_at"]) > since
