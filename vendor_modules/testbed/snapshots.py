"""The cloud's snapshots: copies of volumes, made while nobody writes to them."""

from __future__ import annotations

import asyncio
from pathlib import Path

from descriptors.base import MIB, new_id
from vendor_modules.resources import Status
from vendor_modules.testbed.config import CloudConfig
from vendor_modules.testbed.files import copy_sparsely, in_thread
from vendor_modules.testbed.jobs import Jobs
from vendor_modules.testbed.limits import Limits
from vendor_modules.testbed.machines import check_copyable
from vendor_modules.testbed.records import SnapshotRecord
from vendor_modules.testbed.store import Store
from vendor_modules.testbed.usage import UsageMeters


class Snapshots:
    """See the module."""

    def __init__(
        self, state: Path, config: CloudConfig, store: Store, limits: Limits, jobs: Jobs, meters: UsageMeters
    ) -> None:
        self._volumes = state / "volumes"
        self._folder = state / "snapshots"
        self._config = config
        self._store = store
        self._limits = limits
        self._jobs = jobs
        self._meters = meters
        self._folder.mkdir(exist_ok=True)

    def create(self, volume_id: str, name: str, key: str) -> SnapshotRecord:
        """Take the order and begin to copy; the same key gives the same snapshot."""
        if existing := self._store.by_key(SnapshotRecord, key):
            return existing
        volume = check_copyable(self._store, volume_id)
        self._limits.check("snapshots")
        self._limits.check("snapshot_mib", volume.size_mib * MIB)
        record = SnapshotRecord(
            id=new_id("snapshot"),
            name=name,
            key=key,
            status=Status.PENDING,
            volume=volume_id,
            size_mib=volume.size_mib,
        )
        with self._store.together():
            self._store.add(record)
            price = self._config.snapshot_gib_month
            self._meters.storage(record.id, "snapshot", volume.size_mib * MIB, price)
        self._copy(record)
        return record

    def resume(self) -> None:
        """Make the copies that were being made when the cloud ended; remove files that belong to none."""
        records = self._store.all(SnapshotRecord)
        for file in self._folder.iterdir():
            if file.name not in {record.id for record in records}:
                file.unlink()
        for record in records:
            if record.status is Status.PENDING:
                self._copy(record)

    async def destroy(self, snapshot_id: str) -> None:
        """Remove a snapshot; volumes made from it stay."""
        record = self._store.get(SnapshotRecord, snapshot_id)
        self._jobs.refuse_if_held("snapshot", snapshot_id)
        await self._jobs.cancel(snapshot_id)
        with self._store.together():
            self._store.remove(record)
            self._meters.ended(snapshot_id)
        await asyncio.to_thread((self._folder / snapshot_id).unlink, missing_ok=True)

    def _copy(self, record: SnapshotRecord) -> None:
        self._jobs.start(record.id, self._make(record), holding=[record.volume])

    async def _make(self, record: SnapshotRecord) -> None:
        status = Status.ACTIVE
        try:
            source, size = self._volumes / record.volume, record.size_mib * MIB
            await in_thread(copy_sparsely, source, self._folder / record.id, size)
        except OSError:
            status = Status.ERROR
        self._store.put(record.model_copy(update={"status": status}))
