"""The account's limits: how much of each is used, and what would be too much."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from descriptors.base import MIB
from vendor_modules.resources import Quota
from vendor_modules.testbed.config import CloudConfig
from vendor_modules.testbed.errors import quota_exceeded
from vendor_modules.testbed.records import (
    AccessKeyRecord,
    AddressRecord,
    BucketRecord,
    ImageRecord,
    KeyPairRecord,
    LoadBalancerRecord,
    MachineRecord,
    Record,
    SecurityGroupRecord,
    SnapshotRecord,
    VolumeRecord,
)
from vendor_modules.testbed.store import Store

_COUNTED: dict[str, type[Record]] = {
    "machines": MachineRecord,
    "volumes": VolumeRecord,
    "snapshots": SnapshotRecord,
    "images": ImageRecord,
    "addresses": AddressRecord,
    "load_balancers": LoadBalancerRecord,
    "buckets": BucketRecord,
    "access_keys": AccessKeyRecord,
    "key_pairs": KeyPairRecord,
    "security_groups": SecurityGroupRecord,
}
_BYTES: dict[str, tuple[type[Record], Callable[[Any], int]]] = {
    "volume_mib": (VolumeRecord, lambda volume: volume.size_mib * MIB),
    "snapshot_mib": (SnapshotRecord, lambda snapshot: snapshot.size_mib * MIB),
    "image_mib": (ImageRecord, lambda image: image.size),
    "bucket_mib": (BucketRecord, lambda bucket: bucket.bytes),
}


class Limits:
    """See the module. Limits are named as the fields of :class:`~vendor_modules.testbed.config.Quotas`."""

    def __init__(self, config: CloudConfig, store: Store) -> None:
        self._config = config
        self._store = store

    def check(self, name: str, more: int = 1) -> None:
        """The API's error if so many more are too many; of a limit in MiB, so many bytes more."""
        limit: int = getattr(self._config.quotas, name)
        if name in _BYTES and self.used(name) + more > limit * MIB:
            raise quota_exceeded(f"MiB in {name.removesuffix('_mib')}s", limit)
        if name in _COUNTED and self.used(name) + more > limit:
            raise quota_exceeded(name.replace("_", " "), limit)

    def used(self, name: str) -> int:
        """How many there are; of a limit in MiB, how many bytes. What is the cloud's own does not count."""
        if name in _COUNTED:
            return len(self._held(_COUNTED[name]))
        kind, size = _BYTES[name]
        return sum(map(size, self._held(kind)))

    def report(self) -> list[Quota]:
        """All limits. Cores and memory have none of their own."""
        sizes = {size.name: size for size in self._config.sizes}
        machines = [sizes[m.size] for m in self._store.all(MachineRecord) if m.size in sizes]
        quotas = [
            Quota(resource="cores", used=sum(size.cores for size in machines)),
            Quota(resource="memory-mib", used=sum(size.memory_mib for size in machines)),
        ]
        for name, limit in self._config.quotas:
            used = -(-self.used(name) // MIB) if name in _BYTES else self.used(name)
            quotas.append(Quota(resource=name.replace("_", "-"), limit=limit, used=used))
        return quotas

    def _held(self, kind: type[Record]) -> list[Record]:
        return [record for record in self._store.all(kind) if not getattr(record, "public", False)]
